//! `SessionStore`: a Valkey, Redis or Memcached installation made for sessions.

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
    scale(
        spec_replicas_path = ".spec.shards",
        status_replicas_path = ".status.shards"
    ),
    shortname = "sessstore",
    category = "sessions",
    label("app.kubernetes.io/part-of", "session-operator"),
    doc = "A SessionStore is a Valkey, Redis or Memcached installation made for sessions.",
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine"),
    printcolumn(name = "Topology", type_ = "string", json_path = ".spec.topology"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Primary",
        type_ = "string",
        json_path = ".status.replication.primary",
        priority = 1
    ),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".status.shards", priority = 1),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.memory.used", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name becomes part of labels: use at most 50 characters, a-z, 0-9 and '-', starting with a letter and not ending with '-'"
    ),
    validation = Rule::new("self.spec.topology != 'Cluster' || size(self.metadata.name) <= 49").message(
        "metadata.name: under topology Cluster the names of shards are made of it: use at most 49 characters"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.replicas) || self.topology == 'Replicated'").message(
    "spec.replicas counts the copies of topology Replicated: remove it, or set spec.topology to Replicated"
))]
#[x_kube(validation = Rule::new("!has(self.shards) || self.topology == 'Cluster'").message(
    "spec.shards counts the shards of topology Cluster: remove it, or set spec.topology to Cluster; a store of another topology cannot be scaled"
))]
#[x_kube(validation = Rule::new("!has(self.replicasPerShard) || self.topology == 'Cluster'").message(
    "spec.replicasPerShard counts the copies of topology Cluster: remove it, or set spec.topology to Cluster"
))]
#[x_kube(validation = Rule::new("self.topology == 'Standalone' || has(self.persistence) == has(oldSelf.persistence)").message(
    "under topologies Replicated and Cluster spec.persistence can be neither added nor removed: make another SessionStore and let the policies name that one"
))]
#[x_kube(validation = Rule::new("self.engine != 'Memcached' || self.topology == 'Standalone'").message(
    "spec.topology: a server of engine Memcached keeps no copy of another one: set spec.topology to Standalone, or spec.engine to Valkey"
))]
#[x_kube(validation = Rule::new("self.engine != 'Memcached' || !has(self.persistence)").message(
    "spec.persistence: engine Memcached keeps sessions in memory only: remove it, or set spec.engine to Valkey"
))]
#[x_kube(validation = Rule::new("self.engine != 'Memcached' || self.tls == 'Disabled'").message(
    "spec.tls: session handlers talk plain text to engine Memcached: set spec.tls to Disabled, or spec.engine to Valkey"
))]
pub struct SessionStoreSpec {
    /// The server. Immutable: sessions are not carried from one engine to the other.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.engine is immutable: make another SessionStore and let the policies name that one"
    ))]
    pub engine: Engine,

    /// How many servers there are and what becomes of one that fails. Standalone: one server. Replicated: one primary, which
    /// serves, and replicas, one of which the operator makes primary when the primary fails or is to be restarted. Cluster: shards,
    /// each with a part of the sessions, a primary and replicas; servers elect a new primary by themselves, also while no operator
    /// runs, and clients have to speak the protocol of clusters.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.topology is immutable: make another SessionStore and let the policies name that one"
    ))]
    pub topology: Topology,

    /// Servers that hold a copy beside the primary (topology Replicated). Absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub replicas: Option<i32>,

    /// Parts of the sessions, each with a primary of its own (topology Cluster). Absent: 3. Primaries elect, so fewer than 3 could
    /// not spare one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 64))]
    pub shards: Option<i32>,

    /// Servers that hold a copy beside the primary of each shard (topology Cluster). Absent: 1. With 0 a shard's sessions are out of
    /// reach while its only server is away, and lost with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4))]
    pub replicas_per_shard: Option<i32>,

    /// Memory limit of one server, at least 64Mi; about three quarters of it hold sessions, and at most all but 48Mi under engine
    /// Memcached.
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

/// Copies beside the primary, where the spec gives no number: one may be lost while another one is restarted.
const DEFAULT_REPLICAS: i32 = 2;

/// Shards of a cluster, where the spec gives no number: the least that can spare a primary.
const DEFAULT_SHARDS: i32 = 3;

/// Copies beside the primary of each shard, where the spec gives no number.
const DEFAULT_REPLICAS_PER_SHARD: i32 = 1;

impl SessionStoreSpec {
    /// Number of servers.
    pub fn servers(&self) -> usize {
        match self.topology {
            Topology::Standalone => 1,
            Topology::Replicated => 1 + count(self.replicas, DEFAULT_REPLICAS),
            Topology::Cluster => self.shards() * self.servers_per_shard(),
        }
    }

    /// Number of shards; 1 for a store that has none.
    pub fn shards(&self) -> usize {
        match self.topology {
            Topology::Standalone | Topology::Replicated => 1,
            Topology::Cluster => count(self.shards, DEFAULT_SHARDS),
        }
    }

    /// Number of servers in each shard.
    pub fn servers_per_shard(&self) -> usize {
        1 + count(self.replicas_per_shard, DEFAULT_REPLICAS_PER_SHARD)
    }
}

fn count(wish: Option<i32>, default: i32) -> usize {
    usize::try_from(wish.unwrap_or(default)).unwrap_or_default()
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
    /// Memcached: one server in memory, without users and without TLS, for handlers that speak nothing else.
    Memcached,
}

/// How many servers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Topology {
    /// One server.
    #[default]
    Standalone,
    /// One primary and replicas.
    Replicated,
    /// Shards, each with a primary and replicas.
    Cluster,
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

    /// The servers (topologies Replicated and Cluster).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<StoreMember>,

    /// Which server is the primary, and since when (topology Replicated).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<StoreReplication>,

    /// Shards that have a part of the sessions (topology Cluster).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<i32>,

    /// How the shards are (topology Cluster).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<StoreCluster>,

    /// What became of the last wish for other passwords or certificates. Absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<StoreRotation>,
}

/// The last rotations that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRotation {
    /// Of passwords: annotation session-operator.dev/rotate-passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwords: Option<Rotation>,
    /// Of the authority and the certificate: annotation session-operator.dev/rotate-certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Rotation>,
}

/// How far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The value of the annotation that asked for it. Another value asks for another rotation.
    pub request: String,
    /// What is being done.
    pub phase: RotationPhase,
    /// Since when it has been under way (RFC 3339).
    pub started_at: String,
    /// When it was over (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// What the present phase waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// What a rotation is doing. Until `Retiring` old and new are both good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RotationPhase {
    /// The new one is made, and every server is made to accept it beside the old one. Of certificates: to trust the new
    /// authority beside the old one.
    Introducing,
    /// Secrets get the new password.
    Switching,
    /// Pods that were started with the old one are replaced.
    Replacing,
    /// Every server is made to forget the old password. Of certificates: to present one of the new authority.
    Retiring,
    /// Only the new one is good.
    Finished,
}

/// One server of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreMember {
    /// Its pod.
    pub name: String,
    /// What it is, as it says itself.
    pub role: MemberRole,
    /// Whether it serves (primary), or has everything up to the last moment (replica).
    pub ready: bool,
    /// Bytes of the primary's changes that a replica has not confirmed, in powers of two from 64Ki on; 0 below. How far each
    /// server is exactly is a metric: it changes with every write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Number of its shard (topology Cluster).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<i32>,
    /// Slots that it serves, of 16384 (topology Cluster, primaries).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<i32>,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// It takes writes.
    Primary,
    /// It follows the primary, or waits to be told whom to follow, and serves nobody.
    Replica,
    /// It does not answer.
    Unknown,
}

/// Which server is the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreReplication {
    /// The server that was last made primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// How often a server was made primary.
    pub epoch: i64,
    /// The last change of the primary. Absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
}

/// How the shards of a cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreCluster {
    /// Slots that a primary serves, of 16384. Each session is in one of them.
    pub slots: i32,
    /// The last change of the primary of a shard. Absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// The last time that sessions were lost with all servers that had them. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_loss: Option<ClusterLoss>,
}

/// Sessions that were lost with all servers that had them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLoss {
    /// When it was noticed (RFC 3339).
    pub time: String,
    /// The part of the sessions, in slots of 16384.
    pub slots: i32,
}

/// A change of the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// When (RFC 3339).
    pub time: String,
    /// The primary before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The primary since.
    pub to: String,
    /// Why.
    pub cause: FailoverCause,
}

/// Why the primary changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailoverCause {
    /// The first server of a new store was made primary.
    Created,
    /// The primary was to be restarted or removed, and a replica that had everything took over before.
    Planned,
    /// The primary could not write to its volume, and a replica that had everything took over.
    VolumeFailed,
    /// The primary's process ended.
    ServerEnded,
    /// The primary's pod went.
    PodLost,
    /// The primary answered neither the operator nor its replicas.
    Unreachable,
    /// Every server had been restarted, and this one had the sessions on its volume.
    AllRestarted,
    /// Every server had been restarted and none had a session any more.
    AllLost,
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
    /// Secret with `username` and `password`, in the store's namespace. Listed once the server knows the user. Absent where the
    /// server knows no users (engine Memcached).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
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
