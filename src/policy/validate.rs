//! Step 2: from what was found to what can be worked with. No client, no clock.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

use super::dereference::Dereferenced;
use super::foreign_manager;
use super::restore::{Records, UnreadableRecords};
use crate::affinity::drain;
use crate::api::conditions::reasons;
use crate::api::session_policy::{Client, Replicated, Rollout, Shared};
use crate::api::{RESTORE_ANNOTATION, ROLLOUT_ANNOTATION, SessionPolicy, Sticky, Strategy};

/// A policy whose target is resolved and its own.
pub struct Validated {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub name: String,
    /// Uid of the policy.
    pub uid: String,
    /// Field manager for foreign objects.
    pub manager: String,
    /// The target.
    pub target: Arc<Deployment>,
    /// The wish for affinity, if there is one.
    pub sticky: Option<Sticky>,
    /// The wish for something to be added to the pods, if there is one.
    pub sessions: Option<SessionsWish>,
    /// Whether the strategy adds to the pods what hands users over when they end, where the template lets it.
    pub hands_over: bool,
    /// Whether nothing but status may be written.
    pub suspended: bool,
    /// What has to be put back one day.
    pub records: Records,
}

impl Validated {
    /// Name of the target.
    pub fn target_name(&self) -> String {
        self.target.name_any()
    }
}

/// How sessions are kept outside the application's own memory, or what is added to its pods to hand users over.
#[derive(Clone, Debug)]
pub struct SessionsWish {
    /// Where they are to be.
    pub kept: Kept,
    /// Where they are under the other strategy of this kind, as far as the spec says: they may still be there.
    pub otherwise: Option<Kept>,
    /// The application as a client.
    pub client: Client,
    /// Idle life of a session in seconds.
    pub ttl_seconds: Option<i32>,
    /// When pods are replaced.
    pub rollout: Rollout,
    /// The revision that `kubectl session rollout` accepted last.
    pub accepted: Option<String>,
}

/// Where sessions are.
#[derive(Clone, Debug)]
pub enum Kept {
    /// In a sidecar of each pod.
    Replicated(Replicated),
    /// In a store.
    Shared(Shared),
    /// Where the application has them by itself. A sidecar hands its users over after so many seconds of a pod's end.
    Application(i32),
}

impl SessionsWish {
    /// How the pods keep sessions, if they are to, or may still be doing so.
    pub fn replicated(&self) -> Option<&Replicated> {
        [Some(&self.kept), self.otherwise.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|kept| match kept {
                Kept::Replicated(replicated) => Some(replicated),
                Kept::Shared(_) | Kept::Application(_) => None,
            })
    }

    /// Which store keeps sessions, if one is to, or may still be doing so.
    pub fn shared(&self) -> Option<&Shared> {
        [Some(&self.kept), self.otherwise.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|kept| match kept {
                Kept::Shared(shared) => Some(shared),
                Kept::Replicated(_) | Kept::Application(_) => None,
            })
    }
}

/// Why nothing can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// A reason of [`reasons`].
    pub reason: &'static str,
    /// A sentence that names object and remedy.
    pub message: String,
    /// Whether what this policy wrote before has to be taken back (another policy owns the target).
    pub withdraw: bool,
}

/// Checks `policy` against what was found.
pub fn validate(policy: &SessionPolicy, found: &Dereferenced) -> Result<Validated, Unresolved> {
    let namespace = policy.namespace().unwrap_or_default();
    let target = &policy.spec.target_ref.name;
    if let Some(older) = &found.claimed_by {
        return Err(Unresolved {
            reason: reasons::TARGET_CLAIMED,
            message: format!(
                "SessionPolicy {namespace}/{older} is older and names the same Deployment {target}; delete one of the two"
            ),
            withdraw: true,
        });
    }
    let Some(deployment) = found.target.clone() else {
        return Err(Unresolved {
            reason: reasons::TARGET_NOT_FOUND,
            message: format!(
                "Deployment {namespace}/{target} does not exist; create it, or delete this policy and name another target"
            ),
            withdraw: false,
        });
    };
    let records = Records::parse(policy.annotations().get(RESTORE_ANNOTATION).map(String::as_str))
        .map_err(|error| unreadable(policy, &error))?;
    let (sticky, sessions) = match policy.spec.strategy {
        Strategy::Sticky => {
            let sticky = policy.spec.sticky.clone().unwrap_or_default();
            let drain = sticky.drain_seconds;
            let sessions = drain::lacks_hand_over(&deployment, drain)
                .then(|| wish(policy, Kept::Application(drain), None));
            (Some(sticky), sessions)
        }
        Strategy::Replicated => {
            let replicated = policy.spec.replicated.clone().unwrap_or_default();
            (
                policy.spec.sticky.clone(),
                Some(wish(
                    policy,
                    Kept::Replicated(replicated),
                    policy.spec.shared.clone().map(Kept::Shared),
                )),
            )
        }
        Strategy::Shared => {
            // A rule of the schema: strategy Shared has spec.shared.
            let shared = policy.spec.shared.clone().unwrap_or_default();
            (
                policy.spec.sticky.clone(),
                Some(wish(
                    policy,
                    Kept::Shared(shared),
                    Some(Kept::Replicated(
                        policy.spec.replicated.clone().unwrap_or_default(),
                    )),
                )),
            )
        }
    };
    let uid = policy.uid().unwrap_or_default();
    Ok(Validated {
        manager: foreign_manager(&uid),
        name: policy.name_any(),
        suspended: policy.spec.suspend,
        hands_over: matches!(policy.spec.strategy, Strategy::Sticky | Strategy::Replicated),
        namespace,
        uid,
        target: deployment,
        sticky,
        sessions,
        records,
    })
}

fn wish(policy: &SessionPolicy, kept: Kept, otherwise: Option<Kept>) -> SessionsWish {
    SessionsWish {
        kept,
        otherwise,
        client: policy.spec.client.clone().unwrap_or_default(),
        ttl_seconds: policy.spec.ttl_seconds,
        rollout: policy.spec.rollout,
        accepted: policy.annotations().get(ROLLOUT_ANNOTATION).cloned(),
    }
}

fn unreadable(policy: &SessionPolicy, error: &UnreadableRecords) -> Unresolved {
    Unresolved {
        reason: reasons::INVALID_SPEC,
        message: format!(
            "SessionPolicy {}: {error}; it holds what has to be put back on deletion: restore its former value",
            policy.name_any()
        ),
        withdraw: false,
    }
}
