//! What the controller knows of the cluster, and which stores an event concerns.
//!
//! Only children of stores are watched, by their label; Secrets never are, they are read by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::names::Names;
use super::{GuardedStore, users};
use crate::api::{STORE_LABEL, SessionPolicy};
use crate::policy::GuardedPolicy;
use crate::policy::caches::Scope;

/// A request to reconcile one store.
pub type Trigger = ObjectRef<GuardedStore>;

/// Read side of every reflector.
#[derive(Clone)]
pub struct Caches {
    /// Stores.
    pub stores: Store<GuardedStore>,
    /// Policies, for the key prefixes that they use.
    pub policies: Store<GuardedPolicy>,
    /// Servers.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods of servers.
    pub pods: Store<Pod>,
    /// Services.
    pub services: Store<Service>,
    /// Disruption budgets.
    pub budgets: Store<PodDisruptionBudget>,
    /// Volume claims.
    pub volumes: Store<PersistentVolumeClaim>,
}

/// A started set of watches.
pub struct Watches {
    /// What they fill.
    pub caches: Caches,
    /// The stores themselves, as they change.
    pub stores: BoxStream<'static, Result<GuardedStore, watcher::Error>>,
    /// Triggers from everything else. Has to be polled for the caches to be filled.
    pub triggers: SelectAll<BoxStream<'static, Trigger>>,
}

/// Sets up the watches of `scope`.
pub fn start(client: &Client, scope: &Scope) -> Watches {
    let (stores, store_writer) = store();
    let everything = watcher::Config::default();
    let stream = watcher(scope.api::<GuardedStore>(client), everything.clone())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(store_writer)
        .touched_objects()
        .boxed();

    let mut triggers = SelectAll::new();
    let (policies, policy_writer) = store();
    let known = stores.clone();
    let policy_events = watcher(scope.api::<GuardedPolicy>(client), everything)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(policy_writer)
        .touched_objects()
        .filter_map(logged)
        .flat_map(move |policy: GuardedPolicy| futures::stream::iter(stores_of(&known, &policy)));
    triggers.push(policy_events.boxed());

    let caches = Caches {
        policies,
        stateful_sets: follow_children(client, scope, &mut triggers),
        pods: follow_children(client, scope, &mut triggers),
        services: follow_children(client, scope, &mut triggers),
        budgets: follow_children(client, scope, &mut triggers),
        volumes: follow_children(client, scope, &mut triggers),
        stores,
    };
    Watches {
        caches,
        stores: stream,
        triggers,
    }
}

/// Follows the children of one kind; each event triggers the store that the label names.
fn follow_children<K>(
    client: &Client,
    scope: &Scope,
    triggers: &mut SelectAll<BoxStream<'static, Trigger>>,
) -> Store<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    K::DynamicType: Eq + Hash,
{
    let (reader, writer) = store();
    let labelled = watcher::Config::default().labels(STORE_LABEL);
    let events = watcher(scope.api::<K>(client), labelled)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .filter_map(logged)
        .filter_map(|child: K| std::future::ready(owner(&child)));
    triggers.push(events.boxed());
    reader
}

async fn logged<K: Resource<DynamicType = ()>>(event: Result<K, watcher::Error>) -> Option<K> {
    event
        .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "watch failed; it is tried again"))
        .ok()
}

/// Children of one kind that carry the labels of a store.
fn of_store<K>(children: &Store<K>, names: &Names) -> impl Iterator<Item = Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let ours = children.state_filter(|child| {
        child.meta().namespace.as_deref() == Some(names.namespace())
            && names.are_ours(child.meta().labels.as_ref())
    });
    ours.into_iter()
}

fn owner(child: &impl Resource) -> Option<Trigger> {
    let meta = child.meta();
    let store = meta.labels.as_ref()?.get(STORE_LABEL)?;
    Some(ObjectRef::new(store).within(meta.namespace.as_deref()?))
}

/// All stores of the policy's namespace: what it used before is not in the event.
fn stores_of(stores: &Store<GuardedStore>, policy: &GuardedPolicy) -> Vec<Trigger> {
    let namespace = policy.namespace();
    stores
        .state_filter(|store| store.namespace() == namespace)
        .iter()
        .map(|store| ObjectRef::from_obj(store.as_ref()))
        .collect()
}

impl Caches {
    /// Pods of a store's servers, by ordinal.
    pub fn servers(&self, names: &Names) -> BTreeMap<usize, Arc<Pod>> {
        of_store(&self.pods, names)
            .filter_map(|pod| Some((names.ordinal(pod.metadata.name.as_deref()?)?, pod)))
            .collect()
    }

    /// Pods of servers of a store's shards, by shard and ordinal.
    pub fn shard_servers(&self, names: &Names) -> BTreeMap<(usize, usize), Arc<Pod>> {
        of_store(&self.pods, names)
            .filter_map(|pod| Some((names.place(pod.metadata.name.as_deref()?)?, pod)))
            .collect()
    }

    /// StatefulSets of a store, by name.
    pub fn sets(&self, names: &Names) -> BTreeMap<String, Arc<StatefulSet>> {
        of_store(&self.stateful_sets, names)
            .map(|set| (set.name_any(), set))
            .collect()
    }

    /// Volume claims of a store, by name.
    pub fn claims(&self, names: &Names) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        of_store(&self.volumes, names)
            .map(|claim| (claim.name_any(), claim))
            .collect()
    }

    /// Whether everything has been listed once.
    pub fn are_ready(&self) -> bool {
        fn ready<K>(store: &Store<K>) -> bool
        where
            K: Resource<DynamicType = ()> + Clone + 'static,
        {
            use futures::FutureExt;
            store.wait_until_ready().now_or_never().is_some()
        }
        ready(&self.policies)
            && ready(&self.stateful_sets)
            && ready(&self.pods)
            && ready(&self.services)
            && ready(&self.budgets)
            && ready(&self.volumes)
    }

    /// Whether pods of a policy of the namespace are still to be replaced, be it that somebody has to ask for it.
    pub fn is_settling(&self, namespace: &str) -> bool {
        let policies = self
            .policies
            .state_filter(|policy| policy.namespace().as_deref() == Some(namespace));
        policies
            .iter()
            .filter_map(|policy| policy.0.as_ref().ok())
            .any(users::is_settling)
    }

    /// Names of the policies because of which the store may not be removed.
    pub fn holders(&self, namespace: &str, store: &str) -> BTreeSet<String> {
        let policies = self
            .policies
            .state_filter(|policy| policy.namespace().as_deref() == Some(namespace));
        let readable = policies.iter().filter_map(|policy| policy.0.as_ref().ok());
        readable
            .filter(|policy| users::holds(policy, store))
            .map(ResourceExt::name_any)
            .collect()
    }

    /// Key prefixes of the store that policies use, each with the policies.
    pub fn prefixes(&self, namespace: &str, store: &str) -> BTreeMap<String, BTreeSet<String>> {
        let policies = self
            .policies
            .state_filter(|policy| policy.namespace().as_deref() == Some(namespace));
        let readable: Vec<&SessionPolicy> = policies
            .iter()
            .filter_map(|policy| policy.0.as_ref().ok())
            .collect();
        users::prefixes(readable.into_iter(), store)
    }
}
