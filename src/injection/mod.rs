//! From a pod and a [`SessionInjection`](crate::api::SessionInjection) to the pod that admission makes of it.
//!
//! Two mechanisms do the same: the chart's MutatingAdmissionPolicy (Kubernetes 1.36 and newer), whose expressions are
//! in `charts/session-operator/templates/injection-policy.yaml`, and the [`webhook`] for older servers, which runs
//! [`patch`]. One table of pods in `e2e/tests/api/injection` goes through both: whoever changes one changes the other.
//!
//! [`patch`] and [`contains`] are pure. [`probe`] asks the API server what it makes of a pod. Nothing here reads or
//! writes policies or the target.

mod contents;
mod patch;
pub mod probe;
pub mod webhook;

#[cfg(test)]
mod tests;

pub use contents::contains;
pub use patch::{named_by, patch};
