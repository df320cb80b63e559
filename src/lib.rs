//! session-operator: session affinity, replication and sharing for existing Deployments.

pub mod affinity;
pub mod api;
pub mod cli;
pub mod drill;
pub mod policy;
pub mod runtime;
