//! What the controller knows of the cluster: one reflector per kind, and which policies an event concerns.
//!
//! A change of a Service or route triggers the policies whose target it reaches (before or after the change) and no
//! others. Optional kinds are followed while their CRD is established; one that is installed later is picked up
//! without a restart.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::sessions::{names, peer_access, source};
use super::{GuardedPolicy, foreign_manager, managed};
use crate::affinity::discovery;
use crate::api::{FOREIGN_FIELD_MANAGER_PREFIX, INJECTION_LABEL, SessionInjection, SessionStore};

mod optional;

pub use optional::{HTTP_PROXY, INGRESS_ROUTE, OptionalKind};

/// Triggers that may wait; a full channel slows the watches down instead of growing.
const TRIGGER_QUEUE: usize = 1024;

/// Which namespaces one controller works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// One.
    Namespace(String),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all namespaces"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

impl Scope {
    /// Objects of one kind in this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// A request to reconcile one policy.
pub type Trigger = ObjectRef<GuardedPolicy>;

/// Read side of every reflector.
pub struct Caches {
    /// Policies.
    pub policies: Store<GuardedPolicy>,
    /// Deployments.
    pub deployments: Store<Deployment>,
    /// Services.
    pub services: Store<Service>,
    /// Ingresses.
    pub ingresses: Store<Ingress>,
    /// Ingress classes.
    pub ingress_classes: Store<IngressClass>,
    /// Session stores.
    pub stores: Store<SessionStore>,
    /// Revisions of what admission adds.
    pub injections: Store<SessionInjection>,
    /// Pods that carry the injection label.
    pub pods: Store<Pod>,
    /// Network policies.
    pub network_policies: Store<NetworkPolicy>,
    optional: optional::Served,
}

/// A started set of watches.
pub struct Watches {
    /// What they fill.
    pub caches: Arc<Caches>,
    /// The policies themselves, as they change.
    pub policies: futures::stream::BoxStream<'static, Result<GuardedPolicy, watcher::Error>>,
    /// Triggers from everything else.
    pub triggers: mpsc::Receiver<Trigger>,
}

/// Starts the watches of `scope` as tasks of `tasks`.
pub fn start(client: &Client, scope: &Scope, tasks: &mut JoinSet<()>) -> Watches {
    let (sender, triggers) = mpsc::channel(TRIGGER_QUEUE);
    let (policies, policy_writer) = store();
    let (deployments, deployment_writer) = store();
    let (services, service_writer) = store();
    let (ingresses, ingress_writer) = store();
    let (ingress_classes, class_writer) = store();
    let (stores, store_writer) = store();
    let (injections, injection_writer) = store();
    let (pods, pod_writer) = store();
    let (network_policies, network_policy_writer) = store();
    let caches = Arc::new(Caches {
        policies: policies.clone(),
        deployments,
        services,
        ingresses,
        ingress_classes,
        stores,
        injections,
        pods,
        network_policies,
        optional: optional::Served::default(),
    });
    let follow = |caches: &Arc<Caches>| Follower {
        caches: caches.clone(),
        triggers: sender.clone(),
    };
    tasks.spawn(follow(&caches).run(
        scope.api(client),
        deployment_writer,
        |caches, object: &Deployment| caches.concerned_by_deployment(object),
    ));
    tasks.spawn(
        follow(&caches).run(scope.api(client), service_writer, |caches, object: &Service| {
            caches.concerned_by_service(object)
        }),
    );
    tasks.spawn(
        follow(&caches).run(scope.api(client), ingress_writer, |caches, object: &Ingress| {
            caches.concerned_by_ingress(object)
        }),
    );
    tasks.spawn(follow(&caches).run(
        Api::all(client.clone()),
        class_writer,
        |caches, _: &IngressClass| caches.every_policy(),
    ));
    tasks.spawn(follow(&caches).run(
        scope.api(client),
        store_writer,
        |caches, object: &SessionStore| caches.concerned_by_store(object),
    ));
    tasks.spawn(follow(&caches).run(
        scope.api(client),
        injection_writer,
        |caches, object: &SessionInjection| caches.concerned_by_injection(object),
    ));
    tasks.spawn(
        follow(&caches).run_stream(
            watch(
                scope.api::<Pod>(client),
                watcher::Config::default().labels(INJECTION_LABEL),
            )
            .default_backoff(),
            pod_writer,
            (),
            |caches, object: &Pod| caches.concerned_by_pod(object),
        ),
    );
    tasks.spawn(follow(&caches).run(
        scope.api(client),
        network_policy_writer,
        |caches, object: &NetworkPolicy| caches.concerned_by_network_policy(object),
    ));
    optional::start(client, scope, &follow(&caches), tasks);

    let siblings = follow(&caches);
    let policies = watch(scope.api::<GuardedPolicy>(client), watcher::Config::default())
        .default_backoff()
        .reflect(policy_writer)
        .touched_objects()
        .and_then(move |policy| {
            let siblings = siblings.clone();
            async move {
                siblings
                    .trigger(siblings.caches.policies_on_the_same_target(&policy))
                    .await;
                Ok(policy)
            }
        })
        .boxed();
    Watches {
        caches,
        policies,
        triggers,
    }
}

/// What stands in `namespace` now, read once and not followed; with the user's own rights.
pub async fn read_once(client: &Client, namespace: &str) -> kube::Result<Caches> {
    let scope = Scope::Namespace(namespace.to_owned());
    let marked = ListParams::default().labels(INJECTION_LABEL);
    let all = ListParams::default();
    Ok(Caches {
        policies: listed(scope.api(client), &all).await?,
        deployments: listed(scope.api(client), &all).await?,
        services: listed(scope.api(client), &all).await?,
        ingresses: listed(scope.api(client), &all).await?,
        ingress_classes: listed(Api::all(client.clone()), &all).await?,
        stores: listed(scope.api(client), &all).await?,
        injections: listed(scope.api(client), &all).await?,
        pods: listed(scope.api(client), &marked).await?,
        network_policies: listed(scope.api(client), &all).await?,
        optional: optional::read_once(client, namespace).await?,
    })
}

async fn listed<K>(api: Api<K>, params: &ListParams) -> kube::Result<Store<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    Ok(filled(store::Writer::default(), api.list(params).await?.items))
}

fn filled<K>(mut writer: store::Writer<K>, items: Vec<K>) -> Store<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    writer.apply_watcher_event(&Event::Init);
    for item in items {
        writer.apply_watcher_event(&Event::InitApply(item));
    }
    writer.apply_watcher_event(&Event::InitDone);
    writer.as_reader()
}

impl Caches {
    /// Names of the caches that have not been filled yet.
    pub async fn wait_until_ready(&self) -> Result<(), store::WriterDropped> {
        self.deployments.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.ingresses.wait_until_ready().await?;
        self.ingress_classes.wait_until_ready().await?;
        self.stores.wait_until_ready().await?;
        self.injections.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.network_policies.wait_until_ready().await
    }

    /// Every object of an optional kind in scope; none where the kind is not served.
    pub fn optional(&self, kind: &OptionalKind) -> Vec<Arc<DynamicObject>> {
        self.optional.objects(kind)
    }

    /// The target of a policy.
    pub fn target_of(&self, policy: &crate::api::SessionPolicy) -> Option<Arc<Deployment>> {
        let namespace = policy.namespace()?;
        self.deployments
            .get(&ObjectRef::new(&policy.spec.target_ref.name).within(&namespace))
    }

    fn every_policy(&self) -> Vec<Trigger> {
        self.policies
            .state()
            .iter()
            .map(|policy| ObjectRef::from_obj(policy.as_ref()))
            .collect()
    }

    /// Policies of a namespace (of any, for `None`) that `concerned` picks.
    fn pick(
        &self,
        namespace: Option<&str>,
        concerned: impl Fn(&crate::api::SessionPolicy) -> bool,
    ) -> Vec<Trigger> {
        let policies = self.policies.state_filter(|policy| {
            namespace.is_none_or(|namespace| policy.namespace().as_deref() == Some(namespace))
        });
        policies
            .iter()
            .filter(|policy| policy.0.as_ref().is_ok_and(&concerned))
            .map(|policy| ObjectRef::from_obj(policy.as_ref()))
            .collect()
    }

    fn policies_on_the_same_target(&self, policy: &GuardedPolicy) -> Vec<Trigger> {
        let Ok(policy) = &policy.0 else { return Vec::new() };
        self.pick(policy.namespace().as_deref(), |other| {
            other.spec.target_ref.name == policy.spec.target_ref.name && other.uid() != policy.uid()
        })
    }

    fn concerned_by_deployment(&self, deployment: &Deployment) -> Vec<Trigger> {
        let namespace = deployment.namespace();
        let selecting = self.services.state_filter(|service| {
            service.namespace() == namespace && discovery::selects(service, deployment)
        });
        self.pick(namespace.as_deref(), |policy| {
            policy.spec.target_ref.name == deployment.name_any()
                || self.target_of(policy).is_some_and(|target| {
                    selecting
                        .iter()
                        .any(|service| discovery::selects(service, &target))
                })
        })
    }

    fn concerned_by_service(&self, service: &Service) -> Vec<Trigger> {
        self.pick(service.namespace().as_deref(), |policy| {
            written_by(service, policy)
                || self
                    .target_of(policy)
                    .is_some_and(|target| discovery::selects(service, &target))
        })
    }

    fn concerned_by_store(&self, store: &SessionStore) -> Vec<Trigger> {
        self.pick(store.namespace().as_deref(), |policy| {
            let shared = policy.spec.shared.as_ref();
            shared.is_some_and(|shared| {
                matches!(
                    source::place(&policy.name_any(), shared),
                    source::Place::Store { name, .. } if name == store.name_any()
                )
            })
        })
    }

    fn concerned_by_injection(&self, injection: &SessionInjection) -> Vec<Trigger> {
        self.pick(injection.namespace().as_deref(), |policy| {
            policy.name_any() == injection.spec.policy.name
        })
    }

    /// Of a change of a rule of ours or of one beside which it may have to stand.
    fn concerned_by_network_policy(&self, policy: &NetworkPolicy) -> Vec<Trigger> {
        let is_beside = |target: &Deployment| !peer_access::isolating(target, [policy]).is_empty();
        self.pick(policy.namespace().as_deref(), |session_policy| {
            names::is_of(&policy.metadata, &session_policy.name_any())
                || self
                    .target_of(session_policy)
                    .is_some_and(|target| is_beside(&target))
        })
    }

    fn concerned_by_pod(&self, pod: &Pod) -> Vec<Trigger> {
        let (Some(namespace), Some(name)) = (pod.namespace(), pod.labels().get(INJECTION_LABEL)) else {
            return Vec::new();
        };
        let injection = self.injections.get(&ObjectRef::new(name).within(&namespace));
        injection.map_or_else(Vec::new, |injection| self.concerned_by_injection(&injection))
    }

    fn concerned_by_ingress(&self, ingress: &Ingress) -> Vec<Trigger> {
        let backends = discovery::ingress_backends(ingress);
        self.pick(ingress.namespace().as_deref(), |policy| {
            written_by(ingress, policy) || self.reaches(policy, backends.iter().map(String::as_str))
        })
    }

    /// Of a change of a route that leads to Services of these namespaces and names.
    fn concerned_by_backends(
        &self,
        backends: &BTreeSet<(String, String)>,
        route: &DynamicObject,
    ) -> Vec<Trigger> {
        self.pick(None, |policy| {
            let namespace = policy.namespace();
            let names = backends
                .iter()
                .filter(|(within, _)| Some(within) == namespace.as_ref());
            records_name(policy, route) || self.reaches(policy, names.map(|(_, name)| name.as_str()))
        })
    }

    /// Whether one of the named Services selects the policy's target.
    fn reaches<'a>(
        &self,
        policy: &crate::api::SessionPolicy,
        mut names: impl Iterator<Item = &'a str>,
    ) -> bool {
        let (Some(namespace), Some(target)) = (policy.namespace(), self.target_of(policy)) else {
            return false;
        };
        names.any(|name| {
            let service = self.services.get(&ObjectRef::new(name).within(&namespace));
            service.is_some_and(|service| discovery::selects(&service, &target))
        })
    }
}

/// Whether the policy has something to put back in this object.
fn records_name(policy: &crate::api::SessionPolicy, object: &DynamicObject) -> bool {
    let annotation = policy.annotations().get(crate::api::RESTORE_ANNOTATION);
    object
        .uid()
        .is_some_and(|uid| annotation.is_some_and(|records| records.contains(&uid)))
}

fn written_by(object: &impl Resource, policy: &crate::api::SessionPolicy) -> bool {
    let manager = policy.uid().map(|uid| foreign_manager(&uid));
    object
        .meta()
        .managed_fields
        .iter()
        .flatten()
        .any(|entry| entry.manager.is_some() && entry.manager == manager)
}

/// Fills one cache and triggers the policies that each event concerns.
#[derive(Clone)]
struct Follower {
    caches: Arc<Caches>,
    triggers: mpsc::Sender<Trigger>,
}

impl Follower {
    async fn run<K, C>(self, api: Api<K>, writer: store::Writer<K>, concerned: C)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Default,
        C: Fn(&Caches, &K) -> Vec<Trigger> + Send,
    {
        let stream = watch(api, watcher::Config::default()).default_backoff();
        self.run_stream(stream, writer, K::DynamicType::default(), concerned)
            .await;
    }

    async fn run_stream<K, C>(
        self,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
        mut writer: store::Writer<K>,
        dyntype: K::DynamicType,
        concerned: C,
    ) where
        K: Resource + Clone + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone,
        C: Fn(&Caches, &K) -> Vec<Trigger> + Send,
    {
        let reader = writer.as_reader();
        let stream = stream.modify(|object| managed::trim(object.meta_mut(), FOREIGN_FIELD_MANAGER_PREFIX));
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&dyntype), %error, "watch failed; it is tried again");
                    continue;
                }
            };
            let mut triggers = match &event {
                Event::Apply(object) => {
                    let mut triggers = concerned(&self.caches, object);
                    if let Some(former) = reader.get(&ObjectRef::from_obj_with(object, dyntype.clone())) {
                        triggers.extend(concerned(&self.caches, &former));
                    }
                    triggers
                }
                Event::Delete(object) => concerned(&self.caches, object),
                Event::Init | Event::InitApply(_) | Event::InitDone => Vec::new(),
            };
            writer.apply_watcher_event(&event);
            if let Event::Apply(object) = &event {
                // A Service that appeared can only be matched once it is in the cache.
                triggers.extend(concerned(&self.caches, object));
            }
            if matches!(event, Event::InitDone) {
                triggers = self.caches.every_policy();
            }
            self.trigger(triggers).await;
        }
    }

    async fn trigger(&self, triggers: Vec<Trigger>) {
        let mut seen = BTreeSet::new();
        for trigger in triggers {
            if seen.insert((trigger.namespace.clone(), trigger.name.clone()))
                && self.triggers.send(trigger).await.is_err()
            {
                return;
            }
        }
    }
}
