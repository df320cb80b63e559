//! `SessionInjection`: what admission adds to the pods of one policy.

use k8s_openapi::api::core::v1::{Container, EnvVar, LocalObjectReference, Volume, VolumeMount};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What is added to a pod whose label names this object.
///
/// One object is one revision: its spec never changes, so that a pod started from an older ReplicaSet gets what its
/// siblings got. Nothing in it is secret: values come from Secrets by reference.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "session-operator.dev",
    version = "v1alpha1",
    kind = "SessionInjection",
    plural = "sessioninjections",
    namespaced,
    shortname = "sessinj",
    category = "sessions",
    label("app.kubernetes.io/part-of", "session-operator"),
    doc = "A SessionInjection is what admission adds to the pods of one SessionPolicy. Made by the operator; immutable.",
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policy.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message(
        "a SessionInjection is immutable: the operator makes another one for each revision"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SessionInjectionSpec {
    /// The policy for which this was made.
    pub policy: PolicyReference,

    /// What is added to containers, by their names. A name that the pod does not have is passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub containers: Vec<ContainerInjection>,

    /// Volumes (core/v1 Volume) that are added; one whose name the pod already has is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "objects")]
    pub volumes: Vec<Volume>,

    /// Init containers and native sidecars (core/v1 Container), in the order in which they go before the pod's own;
    /// one whose name the pod already has is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), schema_with = "objects")]
    pub init_containers: Vec<Container>,

    /// Pull secrets that are added for the images of `initContainers`; those that the pod already has are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "objects")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Names a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyReference {
    /// Its name, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What is added to one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInjection {
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Variables (core/v1 EnvVar) that are added at the end; one whose name the container already defines is left out:
    /// what its owner wrote stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), schema_with = "objects")]
    pub env: Vec<EnvVar>,

    /// Variables that are lists by nature, such as NODE_OPTIONS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub extend: Vec<Extension>,

    /// Seconds that the container goes on serving while its pod terminates. Added where it has no preStop hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7200))]
    pub pre_stop_sleep_seconds: Option<i64>,

    /// Mounts (core/v1 VolumeMount) that are added; one whose mountPath the container already uses is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "objects")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// A variable that is extended, never replaced. It is added at the end of the container's `env`, where the kubelet lets
/// the last of equal names win and expands `$(NAME)` from what stands before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value where the container's `env` already defines the variable; mostly holds `$(NAME)`, else what is injected goes on
    /// to the old value by itself.
    #[schemars(length(max = 4096))]
    pub when_set: String,
    /// Value where it does not (what the image itself sets is part of it).
    #[schemars(length(max = 4096))]
    pub when_unset: String,
}

/// Parts of a Pod that admission copies as they are: the API server does not have to know their fields.
fn objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}
