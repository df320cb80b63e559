//! `.status` of a SessionPolicy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
/// What the operator observed and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicyStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, TargetResolved, AffinityConfigured; under strategies with a store also StoreReady and Injected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The Secret that says how to reach the store (Service Binding specification, "provisioned service").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,

    /// What admission adds to the pods of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<Injection>,

    /// What the sidecars say of the sessions in the pods (strategy Replicated).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,

    /// One entry per route that reaches the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "namespace".into(), "name".into()]))]
    pub affinity: Vec<Affinity>,

    /// What happens to sessions at each event, computed from what is configured and was read back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["event".into()]))]
    pub survives: Vec<Survival>,
}

/// Names the binding Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// Name of the Secret, in the policy's namespace.
    pub name: String,
}

/// What admission adds to the pods of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// Name of the SessionInjection that the template is marked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Pods that contain what their revision says.
    pub injected_pods: i32,
    /// Pods of the target.
    pub total_pods: i32,
    /// Whether another revision waits for `kubectl session rollout`.
    pub update_available: bool,
    /// Name of that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_revision: Option<String>,
    /// Present while the owner has rolled the target back to an older revision: the value that the annotation
    /// session-operator.dev/rollout had then. Another value, or another change of the policy, brings the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<String>,
    /// What the preflight found out, and in which image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightResult>,
}

/// What the sidecars say of the sessions in the pods. Numbers that change all the time are written again once they differ by
/// a tenth: steady state writes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replication {
    /// Sidecars that answer, and have what they are to hold.
    pub members: i32,
    /// Sidecars that there are to be.
    pub total_members: i32,
    /// Sessions, about: locks and other keys of the application count, too.
    pub sessions: i64,
    /// Changes that the slowest sidecar has not confirmed to another one; below 1,000 it is 0.
    pub lag: i64,
    /// Commands that the application sent and that the sidecars do not speak: it uses them for more than sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported_commands: Vec<String>,
    /// What would cost less, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<String>,
}

/// What a preflight found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightResult {
    /// Says for which image, environment and framework it holds; another value means another preflight.
    pub of: String,
    /// Facts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// What is missing in the image. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Affinity on one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Kind of the route, such as Ingress, IngressRoute, HTTPProxy or Service.
    pub kind: String,
    /// Namespace of the route.
    pub namespace: String,
    /// Name of the route.
    pub name: String,
    /// The controller that serves the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// The objects that carry the setting, as Kind/name, comma-separated. Absent while nothing is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_to: Option<String>,
    /// What a user is bound to.
    pub binds: Binds,
    /// Whether a terminating pod still serves the users it had.
    pub keeps_terminating_pods: bool,
    /// What was asked for and this route cannot do, each with a remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<String>,
    /// What to know about this route's affinity: weaknesses of the mode, values that were derived, or why
    /// nothing was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a user is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Binds {
    /// Nothing: requests of one user reach any pod.
    None,
    /// A node; the pod on it may change.
    Node,
    /// A position on a hash ring: part of the users move when the set of pods changes.
    Hash,
    /// A pod, until that pod is gone.
    Pod,
}

/// What happens to sessions at one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Survival {
    /// The event.
    pub event: Event,
    /// What happens to sessions that the event concerns.
    pub outcome: Outcome,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// Events that end or move sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// A container of a pod is restarted in place.
    ContainerRestart,
    /// One pod is deleted, evicted or crashes.
    PodLoss,
    /// All pods are replaced one after the other.
    RollingUpdate,
    /// Pods are added.
    ScaleUp,
    /// Pods are removed.
    ScaleDown,
    /// All pods are removed and added later.
    ScaleToZero,
    /// A node fails or is cut off.
    NodeLoss,
    /// The session store restarts.
    StoreRestart,
    /// The session store loses its data.
    StoreLoss,
    /// The operator does not run.
    OperatorDown,
}

/// What happens to the sessions that an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// All of them are kept.
    Kept,
    /// Some of them are kept.
    Partly,
    /// They are lost.
    Lost,
    /// The event cannot happen in this set-up.
    NotApplicable,
}
