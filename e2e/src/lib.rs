//! End-to-end tests of session-operator on a real cluster, and what they stand on.
//!
//! Everything here expects a cluster that is up (`e2e/cluster/cluster up`); `CLUSTER_SUFFIX` names the run.

pub mod app;
pub mod audit;
pub mod cluster;
pub mod contour;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod policy;
pub mod process;
pub mod replicated;
pub mod snapshot;
pub mod store;
pub mod users;
pub mod wait;

pub use cluster::Cluster;
pub use namespace::with_temp_namespace;
