//! Sessions outside the pods: where they are, what the application is told of it, and how that gets into its pods.
//!
//! The way of one reconcile, each part of which can end it with a sentence for a condition:
//! [`source`] (the store and its credentials) → [`binding`] (the Secret for the application) → [`preflight`] (what the
//! image has) → [`revision`] (what admission adds, and which revision the template is to name) → the mark, which is one
//! more field on a foreign object and is written by [`super::apply`]. [`pods`] compares what runs with what its revision
//! says; [`garbage`] finds revisions that nothing names any more. With strategy Replicated the source is [`in_pods`]: the
//! [`sidecar`] and what it needs to find the others ([`peers`])
//! and to reach them ([`peer_access`]). [`moving`] says what comes next while sessions are on their
//! way between a store and the pods; [`members`] speaks to the sidecars, which say what [`report`] holds, and [`replication`] sums it up. Reads and writes are in [`carry_out`], [`in_pods`] and
//! [`undo`] alone.

pub mod binding;
pub mod blocked;
pub mod carry_out;
pub mod cautions;
pub mod container;
pub mod garbage;
pub mod hand_over;
pub mod in_pods;
pub mod members;
pub mod moving;
pub mod names;
pub mod peer_access;
pub mod peers;
pub mod pods;
pub mod preflight;
pub mod replication;
pub mod report;
pub mod revision;
pub mod sidecar;
pub mod source;
pub mod undo;

use crate::api::session_policy::{Binding, Injection, Replication};
use crate::framework;

/// What is wrong: a reason of [`crate::api::conditions::reasons`] and a sentence that names object and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Trouble {
    /// A reason and a sentence.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<framework::Refusal> for Trouble {
    fn from(refusal: framework::Refusal) -> Self {
        Self::new(refusal.reason, refusal.message)
    }
}

/// What a reconcile found and did.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// The store: a sentence about it, or what is wrong.
    pub store: Option<Result<String, Trouble>>,
    /// What the store promises, once it is reached.
    pub promise: Option<source::Promise>,
    /// The injection: a sentence about it, or what is wrong or still under way.
    pub injected: Option<Result<String, Trouble>>,
    /// The binding Secret, once it stands.
    pub binding: Option<Binding>,
    /// For status.
    pub injection: Option<Injection>,
    /// How the sidecars do: a sentence, or what is wrong. `None` without sidecars, and while pods are being replaced.
    pub replicating: Option<Result<String, Trouble>>,
    /// For status.
    pub replication: Option<Replication>,
    /// See [`Injection::rolled_back_at`].
    pub rolled_back_at: Option<String>,
    /// Whether a webhook in the operator injects.
    pub webhook: bool,
    /// The revision that the pod template has to name. `None`: none yet.
    pub mark: Option<String>,
    /// The revision that it will have to name once admission knows it.
    pub coming: Option<String>,
    /// Objects that were changed just now, as `Kind/name`.
    pub changed: Vec<String>,
    /// When to look again, if something is awaited that no watch tells.
    pub retry_after: Option<std::time::Duration>,
}

#[cfg(test)]
mod tests;
