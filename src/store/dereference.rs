//! Step 1: everything that decides on a store: caches, and its Secrets by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};

use super::acl::Users;
use super::caches::Caches;
use super::client::Password;
use super::login::Login;
use super::names::{MADE_ANNOTATION, Names};
use super::quantity;
use crate::api::SessionStore;
use crate::runtime::writer::{WriteError, classify};

/// Key of the users' file in its Secret, and so the file's name.
pub const USERS_FILE: &str = "users.acl";

/// Key of the password that a Secret gives next.
pub const NEXT_PASSWORD: &str = "next-password";

/// What was found.
#[derive(Debug)]
pub struct Dereferenced {
    /// Names of the children.
    pub names: Names,
    /// Key prefixes in use, each with its policies.
    pub prefixes: BTreeMap<String, BTreeSet<String>>,
    /// The StatefulSets, by name: one, or one for each shard.
    pub stateful_sets: BTreeMap<String, Arc<StatefulSet>>,
    /// Pods of servers of a store without shards, by ordinal.
    pub pods: BTreeMap<usize, Arc<Pod>>,
    /// Pods of servers of shards, by shard and ordinal.
    pub shard_pods: BTreeMap<(usize, usize), Arc<Pod>>,
    /// The Service.
    pub service: Option<Arc<Service>>,
    /// The headless Service of several servers.
    pub members_service: Option<Arc<Service>>,
    /// The disruption budget.
    pub budget: Option<Arc<PodDisruptionBudget>>,
    /// Volume claims, by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// Secrets that exist, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Users that the users' file knows.
    pub users: Users,
    /// Policies because of which the store may not be removed.
    pub holders: BTreeSet<String>,
    /// Whether pods of a policy of the namespace are still to be replaced.
    pub settling: bool,
}

/// Reads what there is of `store`.
pub async fn dereference(
    caches: &Caches,
    client: &Client,
    store: &SessionStore,
) -> Result<Dereferenced, WriteError> {
    let namespace = store.namespace().unwrap_or_default();
    let names = Names::new(&namespace, &store.name_any());
    let prefixes = caches.prefixes(&namespace, names.store());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut found = BTreeMap::new();
    let fixed = [
        names.admin_secret(),
        names.users_secret(),
        names.authority_secret(),
        names.ca_secret(),
        names.server_secret(),
        names.replication_secret(),
    ];
    read(&secrets, fixed, &mut found).await?;
    let users = found
        .get(&names.users_secret())
        .and_then(|secret| text(secret, USERS_FILE))
        .map(|file| Users::parse(&file))
        .unwrap_or_default();
    let known: BTreeSet<&String> = users.prefixes.keys().chain(prefixes.keys()).collect();
    let user_secrets: Vec<String> = known
        .into_iter()
        .map(|prefix| names.user_secret(prefix))
        .collect();
    read(&secrets, user_secrets, &mut found).await?;
    Ok(Dereferenced {
        stateful_sets: caches.sets(&names),
        pods: caches.servers(&names),
        shard_pods: caches.shard_servers(&names),
        service: cached(&caches.services, &namespace, names.store()),
        members_service: cached(&caches.services, &namespace, &names.members()),
        budget: cached(&caches.budgets, &namespace, names.store()),
        volumes: caches.claims(&names),
        holders: caches.holders(&namespace, names.store()),
        settling: caches.is_settling(&namespace),
        secrets: found,
        users,
        prefixes,
        names,
    })
}

async fn read(
    api: &Api<Secret>,
    names: impl IntoIterator<Item = String>,
    found: &mut BTreeMap<String, Secret>,
) -> Result<(), WriteError> {
    let reads = names.into_iter().map(|name| async move {
        let secret = api.get_opt(&name).await.map_err(classify)?;
        Ok::<_, WriteError>(secret.map(|secret| (name, secret)))
    });
    found.extend(futures::future::try_join_all(reads).await?.into_iter().flatten());
    Ok(())
}

fn cached<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// A value of a Secret, if it is text.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok()
}

impl Dereferenced {
    /// A value of a Secret of this store. What somebody else put under its name does not count.
    pub fn secret_text(&self, name: &str, key: &str) -> Option<String> {
        let secret = self.secrets.get(name)?;
        self.names
            .are_ours(secret.metadata.labels.as_ref())
            .then(|| text(secret, key))?
    }

    /// What a Secret of this store says of somebody's password.
    pub fn login(&self, name: &str) -> Option<Login> {
        let annotations = self.secrets.get(name)?.metadata.annotations.as_ref();
        Some(Login {
            password: Password::new(self.secret_text(name, "password")?),
            next: self.secret_text(name, NEXT_PASSWORD).map(Password::new),
            made: annotations.and_then(|annotations| annotations.get(MADE_ANNOTATION).cloned()),
        })
    }

    /// Prefixes that have a user and that no policy names.
    pub fn unused_prefixes(&self) -> impl Iterator<Item = String> {
        self.users
            .prefixes
            .keys()
            .filter(|prefix| !self.prefixes.contains_key(*prefix))
            .cloned()
    }

    /// The StatefulSet of a store without shards.
    pub fn stateful_set(&self) -> Option<&Arc<StatefulSet>> {
        self.stateful_sets.get(self.names.store())
    }

    /// The pod of the first server.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        self.pods.get(&0)
    }

    /// Bytes that a volume claim asks for.
    pub fn volume_size(&self, claim: &str) -> Option<i64> {
        let requests = self
            .volumes
            .get(claim)?
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?;
        quantity::bytes(requests.get("storage")?)
    }
}
