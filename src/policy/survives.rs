//! What happens to sessions at each event, computed from facts.
use crate::api::{Binds, Sticky, Survival};
use k8s_openapi::api::apps::v1::Deployment;
/// One route.
#[derive(Clone, Copy, Debug)]
pub struct RouteFact {
    /// b
    pub binds: Binds,
    /// k
    pub keeps_terminating_pods: bool,
}
/// Facts.
pub struct Facts<'a> {
    /// t
    pub target: &'a Deployment,
    /// s
    pub sticky: &'a Sticky,
    /// r
    pub routes: &'a [RouteFact],
}
/// Computes.
pub fn compute(_facts: &Facts<'_>) -> Vec<Survival> {
    Vec::new()
}
