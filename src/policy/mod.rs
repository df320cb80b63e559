//! The `SessionPolicy` controller.
//!
//! One reconcile is five steps: [`dereference`] → [`validate`] → [`build`] → [`apply`] → [`status`]. Only the first and the
//! last two touch the outside: dereference reads caches, apply and status write through [`crate::runtime::writer::Writer`]. What is in
//! between is pure and deterministic.

pub mod apply;
pub mod build;
pub mod caches;
mod census;
pub mod controller;
pub mod dereference;
pub mod forecast;
pub mod managed;
mod reconcile;
pub mod restore;
pub mod sessions;
pub mod status;
pub mod survives;
pub mod undo;
pub mod validate;

use kube::core::DeserializeGuard;

use crate::affinity::model::ObjectKey;
use crate::api::{FOREIGN_FIELD_MANAGER_PREFIX, SessionPolicy};

/// A policy as watched: one that does not deserialise must not hide the others.
pub type GuardedPolicy = DeserializeGuard<SessionPolicy>;

/// The field manager under which a policy writes foreign objects.
pub fn foreign_manager(uid: &str) -> String {
    format!("{FOREIGN_FIELD_MANAGER_PREFIX}{uid}")
}

/// Names a policy as an object to write.
pub fn policy_key(namespace: &str, name: &str, uid: &str) -> ObjectKey {
    ObjectKey {
        api_version: format!("{}/v1alpha1", crate::api::GROUP),
        kind: "SessionPolicy".into(),
        plural: "sessionpolicies".into(),
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
    }
}
