//! Step 2: from what was found to what can be worked with. No client, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::dereference::Dereferenced;
use super::names::{Names, PRIMARY, ROLE_LABEL};
use super::quantity;
use super::settings::StoreArgs;
use crate::api::conditions::reasons;
use crate::api::session_store::{DeletionPolicy, Engine, StoreTls, Topology};
use crate::api::{SessionStore, SessionStoreSpec};

/// Least memory of a server: below it Valkey and a few hundred clients hardly fit.
const LEAST_MEMORY: i64 = 64 << 20;

/// Part of the memory limit that sessions may take, in quarters. The rest is for clients' buffers, fragmentation and
/// the copy that a rewrite of the append-only file makes.
const QUARTERS_FOR_SESSIONS: i64 = 3;

/// Bytes that Memcached needs beside those for sessions: it gives a first page of 1 MiB to each of some forty sizes of items
/// also when all others are taken (measured: 38 MiB), and has connections, threads and an index.
const BESIDE_SESSIONS: i64 = 48 << 20;

/// A store that can be built.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Names of its children.
    pub names: Names,
    /// Its uid.
    pub uid: String,
    /// The server.
    pub engine: Engine,
    /// One server, a primary and replicas, or shards.
    pub topology: Topology,
    /// Number of servers.
    pub servers: usize,
    /// The shards, where there are any.
    pub shards: Vec<Shard>,
    /// Number of servers that the StatefulSet makes: more than `servers` while the primary is among those that are to go.
    pub pods: usize,
    /// The image of the server.
    pub image: String,
    /// User and group id of the server.
    pub user: Option<i64>,
    /// Secrets with credentials for the image.
    pub pull_secrets: Vec<String>,
    /// Memory limit in bytes.
    pub memory: i64,
    /// Where the server refuses writes, in bytes.
    pub max_memory: i64,
    /// The volume of each server, if sessions are kept on one.
    pub volume: Option<Volume>,
    /// Bytes of the volumes that the StatefulSet itself would make, which cannot be changed any more.
    pub template_size: i64,
    /// Whether clients talk TLS.
    pub tls: bool,
    /// Key prefixes in use, each with its policies.
    pub prefixes: BTreeMap<String, BTreeSet<String>>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of servers that its StatefulSet makes: more than are asked for while the primary is among those that are to go.
    pub pods: usize,
    /// Bytes of the volumes that the StatefulSet itself would make, which cannot be changed any more.
    pub template_size: i64,
}

impl Validated {
    /// Number of servers in each shard.
    pub fn servers_per_shard(&self) -> usize {
        self.servers / self.shards.len().max(1)
    }

    /// Every name under which clients may reach the store or one of its servers.
    pub fn hosts(&self) -> Vec<String> {
        match self.topology {
            Topology::Standalone | Topology::Replicated => self.names.hosts(self.servers),
            Topology::Cluster => self.names.shard_hosts(),
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes.
    pub size: i64,
    /// Storage class; absent = the cluster's default.
    pub class: Option<String>,
}

/// Why a store cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A reason of [`reasons`].
    pub reason: &'static str,
    /// A sentence that names object and remedy.
    pub message: String,
}

impl Refusal {
    fn invalid(message: String) -> Self {
        Self {
            reason: reasons::INVALID_SPEC,
            message,
        }
    }
}

/// Whether deleting the store removes what it is made of.
pub fn removes_everything(store: &SessionStore) -> bool {
    store.spec.deletion_policy == DeletionPolicy::Delete
}

/// Checks `store` against what was found.
pub fn validate(
    store: &SessionStore,
    found: &Dereferenced,
    settings: &StoreArgs,
) -> Result<Validated, Refusal> {
    let name = store.name_any();
    let memory = quantity::bytes(&store.spec.memory)
        .filter(|bytes| *bytes >= LEAST_MEMORY)
        .ok_or_else(|| {
            Refusal::invalid(format!(
                "SessionStore {name}: spec.memory is {}; give at least 64Mi, such as 256Mi",
                store.spec.memory.0
            ))
        })?;
    let volume = match &store.spec.persistence {
        None => None,
        Some(persistence) => Some(Volume {
            size: quantity::bytes(&persistence.size).ok_or_else(|| {
                Refusal::invalid(format!(
                    "SessionStore {name}: spec.persistence.size is {}; give a size such as 1Gi",
                    persistence.size.0
                ))
            })?,
            class: persistence.storage_class_name.clone(),
        }),
    };
    let topology = store.spec.topology;
    let servers = store.spec.servers();
    for claim in claims(&found.names, &store.spec) {
        if let (Some(wanted), Some(there)) = (&volume, found.volume_size(&claim))
            && wanted.size < there
        {
            return Err(Refusal {
                reason: reasons::VOLUME_CANNOT_SHRINK,
                message: format!(
                    "SessionStore {name}: spec.persistence.size is less than the {} that the volume {claim} has; volumes \
                     only grow: set it to at least that",
                    quantity::text(there),
                ),
            });
        }
    }
    let size = volume.as_ref().map_or(0, |volume| volume.size);
    Ok(Validated {
        names: found.names.clone(),
        uid: store.uid().unwrap_or_default(),
        engine: store.spec.engine,
        topology,
        servers,
        shards: shards(store, found, size),
        pods: pods(found, servers),
        image: settings.image(store.spec.engine).to_owned(),
        user: settings.store_user,
        pull_secrets: settings
            .store_pull_secrets
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
        memory,
        max_memory: max_memory(store.spec.engine, memory),
        template_size: template_size(found.stateful_set()).unwrap_or(size),
        volume,
        tls: store.spec.tls == StoreTls::Required,
        prefixes: admitted(store, found),
    })
}

/// Where a server with so much memory refuses writes.
fn max_memory(engine: Engine, memory: i64) -> i64 {
    let part = memory / 4 * QUARTERS_FOR_SESSIONS;
    match engine {
        Engine::Valkey | Engine::Redis => part,
        Engine::Memcached => part.min(memory - BESIDE_SESSIONS),
    }
}

/// Key prefixes that the store serves. A server without users keeps nobody out of another prefix, so it serves one alone: that
/// which it has served, else the first.
fn admitted(store: &SessionStore, found: &Dereferenced) -> BTreeMap<String, BTreeSet<String>> {
    if store.spec.engine != Engine::Memcached {
        return found.prefixes.clone();
    }
    let served = store.status.iter().flat_map(|status| &status.users);
    let served = served.map(|user| &user.key_prefix);
    let admitted = served
        .chain(found.prefixes.keys())
        .find_map(|prefix| found.prefixes.get_key_value(prefix));
    admitted
        .map(|(prefix, policies)| (prefix.clone(), policies.clone()))
        .into_iter()
        .collect()
}

/// Names of the volume claims of a store's servers.
fn claims(names: &Names, spec: &SessionStoreSpec) -> Vec<String> {
    match spec.topology {
        Topology::Standalone => vec![names.volume()],
        Topology::Replicated => (0..spec.servers())
            .map(|ordinal| names.member_volume(ordinal))
            .collect(),
        Topology::Cluster => (0..spec.shards())
            .flat_map(|shard| (0..spec.servers_per_shard()).map(move |ordinal| (shard, ordinal)))
            .map(|(shard, ordinal)| Names::volume_of(&names.shard_member(shard, ordinal)))
            .collect(),
    }
}

/// The shards that are asked for.
fn shards(store: &SessionStore, found: &Dereferenced, size: i64) -> Vec<Shard> {
    if store.spec.topology != Topology::Cluster {
        return Vec::new();
    }
    let servers = store.spec.servers_per_shard();
    let shards = (0..store.spec.shards()).map(|shard| {
        let primaries = found
            .shard_pods
            .iter()
            .filter(|((of, _), pod)| *of == shard && is_primary(pod));
        let last = primaries.map(|((_, ordinal), _)| ordinal + 1).max();
        let set = found.stateful_sets.get(&found.names.shard(shard));
        Shard {
            pods: last.map_or(servers, |last| servers.max(last)),
            template_size: template_size(set).unwrap_or(size),
        }
    });
    shards.collect()
}

/// Whether a pod is labelled as primary.
fn is_primary(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(ROLE_LABEL))
        .map(String::as_str)
        == Some(PRIMARY)
}

/// How many pods there are to be. A StatefulSet removes those with the highest ordinals, and the primary is not removed
/// before another server has taken over.
fn pods(found: &Dereferenced, servers: usize) -> usize {
    let primary = found.pods.iter().find(|(_, pod)| is_primary(pod));
    primary.map_or(servers, |(ordinal, _)| servers.max(ordinal + 1))
}

/// What a StatefulSet's own claim asks for.
fn template_size(set: Option<&Arc<StatefulSet>>) -> Option<i64> {
    let spec = set?.spec.as_ref()?;
    let claim = spec.volume_claim_templates.as_ref()?.first()?;
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    quantity::bytes(requests.get("storage")?)
}
