//! The `SessionStore` controller, and what it takes to talk to a store.
//!
//! One reconcile is five steps, as in [`crate::policy`]: [`dereference`] → [`validate`] → [`build`] → [`apply`] →
//! [`status`]. Between apply and status stands `ask`: what running servers have to be told, each by [`server`], and what
//! they say.
//! Stores with several servers are watched beside that, each second: [`replication`] and [`cluster`].
//! [`material`] completes passwords and certificates, for which build needs chance and a clock; [`rotation`] says when others
//! take their place.

pub mod acl;
pub mod apply;
mod ask;
pub mod build;
pub mod caches;
pub mod cleanup;
pub mod client;
pub mod cluster;
pub mod controller;
pub mod dereference;
pub mod holders;
pub mod login;
pub mod material;
pub mod memcached;
pub mod memory;
pub mod names;
pub mod quantity;
mod reconcile;
pub mod replication;
mod rotate;
pub mod rotation;
pub mod server;
pub mod settings;
pub mod status;
#[cfg(test)]
mod testing;
mod trouble;
pub mod users;
pub mod validate;
pub mod watches;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;

use crate::affinity::model::ObjectKey;
use crate::api::SessionStore;

/// A store as watched: one that does not deserialise must not hide the others.
pub type GuardedStore = DeserializeGuard<SessionStore>;

/// Names a store as an object to write.
pub fn store_key(meta: &ObjectMeta) -> ObjectKey {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    ObjectKey {
        api_version: format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
        kind: "SessionStore".into(),
        plural: "sessionstores".into(),
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
    }
}
