//! `SessionStore`: a Valkey or Redis installation made for sessions.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A store for sessions.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "session-operator.dev",
    version = "v1alpha1",
    kind = "SessionStore",
    plural = "sessionstores",
    namespaced,
    status = "SessionStoreStatus",
    shortname = "sessstore",
    category = "sessions",
    label("app.kubernetes.io/part-of", "session-operator"),
    doc = "A SessionStore is a Valkey or Redis installation made for sessions.",
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine"),
    printcolumn(name = "Topology", type_ = "string", json_path = ".spec.topology"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.memory.used", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name becomes part of labels: use at most 50 characters, a-z, 0-9 and '-', starting with a letter and not ending with '-'"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SessionStoreSpec {
    /// The server. Immutable: sessions are not carried from one engine to the other.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.engine is immutable: make another SessionStore and let the policies name that one"
    ))]
    pub engine: Engine,

    /// How many servers there are and what becomes of one that fails. Standalone: one server.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.topology is immutable: make another SessionStore and let the policies name that one"
    ))]
    pub topology: Topology,

    /// Memory limit of one server, at least 64Mi; about three quarters of it hold sessions.
    #[serde(default = "default_memory")]
    pub memory: Quantity,

    /// Keeps sessions on a volume, so that they survive a restart of the server. Absent: in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,

    /// Whether clients talk TLS to the store.
    #[serde(default)]
    pub tls: StoreTls,

    /// What becomes of servers, volumes and Secrets when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn default_memory() -> Quantity {
    Quantity("256Mi".to_owned())
}

/// The server software.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Engine {
    /// Valkey.
    #[default]
    Valkey,
    /// Redis.
    Redis,
}

/// How many servers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Topology {
    /// One server.
    #[default]
    Standalone,
}

/// Sessions on a volume (append-only file, written each second).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message(
    "persistence.storageClassName is immutable: make another SessionStore for another class"
))]
pub struct Persistence {
    /// Size of the volume; it can grow where the class allows it, and never shrinks.
    pub size: Quantity,
    /// Class of the volume. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Whether clients talk TLS to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreTls {
    /// TLS only, with an authority made for this store.
    #[default]
    Required,
    /// Plain text, for clients that cannot do TLS.
    Disabled,
}

/// What becomes of the data when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Servers, volumes and Secrets stay; a SessionStore of the same name takes them over again.
    #[default]
    Retain,
    /// All of it is removed.
    Delete,
}

/// What the operator observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStoreStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Where clients reach the store. Absent until it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<StoreEndpoint>,

    /// Version that the server reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,

    /// One entry per key prefix that policies use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["keyPrefix".into()]))]
    pub users: Vec<StoreUser>,

    /// Memory of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<StoreMemory>,

    /// Clients that are connected, in steps that keep steady state quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<i64>,

    /// Keys that the server evicted since it started; anything above 0 is lost sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted_keys: Option<i64>,
}

/// Where clients reach the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreEndpoint {
    /// DNS name.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Secret with `ca.crt`, the authority of the store's certificate. Absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,
}

/// A user of the store, who sees the keys of one prefix only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreUser {
    /// What the keys begin with (without the colon that ends it).
    pub key_prefix: String,
    /// Secret with `username` and `password`, in the store's namespace. Listed once the server knows the user.
    pub secret: String,
}

/// Memory of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreMemory {
    /// In use, as a quantity rounded to a twentieth of `max`.
    pub used: String,
    /// Where the server refuses writes (`maxmemory`).
    pub max: String,
}
