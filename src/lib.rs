//! session-operator: session affinity, replication and sharing for existing Deployments.

pub mod affinity;
pub mod api;
pub mod certificates;
pub mod cli;
pub mod drill;
pub mod framework;
pub mod injection;
pub mod policy;
pub mod runtime;
pub mod store;
