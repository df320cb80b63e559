//! Step 3: what the cluster should look like. Pure: the same input gives the same output.

mod memcached;
mod objects;
mod shards;
mod workload;

pub use memcached::build as build_memcached;
pub use workload::CONTAINER;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::session_store::{Engine, Topology};

use super::material::Material;
use super::names::Names;
use super::validate::Validated;

/// Port on which the server listens, with TLS or without.
pub const PORT: u16 = 6379;

/// Port on which Memcached listens.
pub const MEMCACHED_PORT: u16 = 11211;

/// Port on which a server listens.
pub fn port(engine: Engine) -> u16 {
    match engine {
        Engine::Valkey | Engine::Redis => PORT,
        Engine::Memcached => MEMCACHED_PORT,
    }
}

/// Key of the settings by which servers of shards follow each other, in the Secret of that user, and so the file's name: also one
/// that starts while no operator runs has to know them.
const REPLICATION_FILE: &str = "replication.conf";

/// The wanted state.
#[derive(Debug)]
pub struct Desired {
    /// Secrets, in the order in which they are written.
    pub secrets: Vec<Value>,
    /// The volume claims.
    pub volumes: Vec<Value>,
    /// The Service.
    pub service: Value,
    /// The headless Service of several servers.
    pub members_service: Option<Value>,
    /// The disruption budget.
    pub budget: Value,
    /// The StatefulSet, or one for each shard.
    pub stateful_sets: Vec<Value>,
    /// Secrets that have to go.
    pub obsolete: Vec<String>,
}

/// Builds everything for a validated store.
pub fn build(store: &Validated, material: &Material) -> Desired {
    Desired {
        secrets: objects::secrets(store, material),
        volumes: objects::volumes(store),
        service: objects::service(store),
        members_service: (store.topology != Topology::Standalone).then(|| objects::members_service(store)),
        budget: objects::budget(store),
        stateful_sets: match store.topology {
            Topology::Standalone | Topology::Replicated => vec![workload::stateful_set(store)],
            Topology::Cluster => shards::stateful_sets(store),
        },
        obsolete: material
            .obsolete
            .iter()
            .map(|prefix| store.names.user_secret(prefix))
            .collect(),
    }
}

/// Metadata of a child.
fn metadata(names: &Names, name: &str, uid: &str) -> Value {
    let labels: BTreeMap<String, String> = names.labels(uid);
    serde_json::json!({"name": name, "namespace": names.namespace(), "labels": labels})
}
