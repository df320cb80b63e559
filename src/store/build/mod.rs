//! Step 3: what the cluster should look like. Pure: the same input gives the same output.

mod memcached;
mod objects;
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
    /// The StatefulSet.
    pub stateful_set: Value,
    /// Secrets that have to go.
    pub obsolete: Vec<String>,
}

/// Builds everything for a validated store.
pub fn build(store: &Validated, material: &Material) -> Desired {
    Desired {
        secrets: objects::secrets(store, material),
        volumes: objects::volumes(store),
        service: objects::service(store),
        members_service: (store.topology == Topology::Replicated).then(|| objects::members_service(store)),
        budget: objects::budget(store),
        stateful_set: workload::stateful_set(store),
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
