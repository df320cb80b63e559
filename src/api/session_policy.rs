//! `SessionPolicy`: which sessions of which Deployment have to survive, and how.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::session_store::SessionStoreSpec;

mod status;

pub use status::*;

/// Says how the sessions of one Deployment are kept.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "session-operator.dev",
    version = "v1alpha1",
    kind = "SessionPolicy",
    plural = "sessionpolicies",
    namespaced,
    status = "SessionPolicyStatus",
    shortname = "sesspol",
    category = "sessions",
    label("app.kubernetes.io/part-of", "session-operator"),
    doc = "A SessionPolicy says how the sessions of one Deployment are kept.",
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.strategy"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name becomes part of labels: use at most 40 characters, a-z, 0-9 and '-', starting with a letter and not ending with '-'"
    ),
    validation = Rule::new("self.spec.strategy != 'Shared' || has(self.spec.shared)").message(
        "strategy Shared needs spec.shared: a storeRef, a store or an external Secret that says where the sessions are"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicySpec {
    /// The workload whose sessions are kept. Immutable: delete the policy and make another one for another
    /// target, so that what was set up here is undone first.
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "spec.targetRef is immutable: delete this SessionPolicy (its changes are undone) and create one for the other target"
    ))]
    pub target_ref: TargetRef,

    /// How sessions are kept. Sticky: each user stays on one pod, by the affinity of the ingress
    /// controller in front of the target; sessions live and die with that pod.
    pub strategy: Strategy,

    /// Idle life of a session, in seconds. Absent: what the application says; nothing is cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub ttl_seconds: Option<i32>,

    /// Routing affinity. Implied (`{}`) by strategy Sticky; allowed beside every other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,

    /// How strategy Replicated copies sessions between pods. Ignored under the others, so that `strategy` alone can be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,

    /// Where strategy Shared keeps the sessions. Ignored under the others, so that `strategy` alone can be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,

    /// The application as a client of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,

    /// When pods are replaced because what is injected has changed. Automatic: as soon as it has. Manual: on
    /// `kubectl session rollout NAME`.
    #[serde(default)]
    pub rollout: Rollout,

    /// While true the operator writes nothing but this object's status: nothing is restored, and no finalizer is added.
    /// What is set up stays.
    #[serde(default)]
    pub suspend: bool,
}

/// Names the target in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API version of the target.
    #[serde(default)]
    pub api_version: TargetApiVersion,
    /// Kind of the target.
    #[serde(default)]
    pub kind: DeploymentKind,
    /// Name of the target, in the policy's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// API versions that a target can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetApiVersion {
    /// `apps/v1`.
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// Kinds that a target can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeploymentKind {
    /// A Deployment.
    #[default]
    Deployment,
}

/// How sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Users are routed to the same pod.
    Sticky,
    /// Pods copy their sessions to each other.
    Replicated,
    /// Sessions are in a store that all pods reach.
    Shared,
}

/// How pods copy their sessions to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode != 'Backup' || self.acknowledge != 'Local'").message(
    "with replicated.mode Backup an acknowledge of Local would confirm a write that one pod alone has: set replicated.acknowledge to Auto, One, Quorum or All"
))]
pub struct Replicated {
    /// Which pods hold a session. All: every one. Backup: one and its backups.
    #[serde(default)]
    pub mode: ReplicationMode,
    /// Pods that hold a copy of each session beside its own (mode Backup).
    #[serde(default = "one_backup")]
    #[schemars(range(min = 1, max = 8))]
    pub backups: i32,
    /// Whose copy is waited for before a write is confirmed. Auto: where users are bound to pods none (mode All) or one
    /// (mode Backup), elsewhere all that can be reached.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// What becomes of session locks while most pods cannot be reached. Absent: Fail; with two pods or fewer Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_on_partition: Option<LockOnPartition>,
    /// How long, in seconds, a starting pod waits for the sessions of the others before it serves with what it has.
    #[serde(default = "join_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub join_timeout_seconds: i32,
    /// Protocols that the sidecar speaks to the application.
    #[serde(default = "resp_only")]
    #[schemars(length(min = 1, max = 2))]
    pub protocols: Vec<Protocol>,
    /// Memory limit of the sidecar, at least 32Mi; about three quarters of it hold sessions.
    #[serde(default = "sidecar_memory")]
    pub memory: Quantity,
}

impl Default for Replicated {
    fn default() -> Self {
        Self {
            mode: ReplicationMode::default(),
            backups: one_backup(),
            acknowledge: Acknowledge::default(),
            lock_on_partition: None,
            join_timeout_seconds: join_timeout(),
            protocols: resp_only(),
            memory: sidecar_memory(),
        }
    }
}

const fn one_backup() -> i32 {
    1
}

const fn join_timeout() -> i32 {
    60
}

fn resp_only() -> Vec<Protocol> {
    vec![Protocol::Resp]
}

fn sidecar_memory() -> Quantity {
    Quantity("128Mi".to_owned())
}

/// Which pods hold a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicationMode {
    /// Every one.
    #[default]
    All,
    /// One and its backups.
    Backup,
}

/// Whose copy is waited for before a write is confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Acknowledge {
    /// By mode and affinity.
    #[default]
    Auto,
    /// Nobody's.
    Local,
    /// One other pod's.
    One,
    /// That of most pods that hold the session.
    Quorum,
    /// That of all pods that hold the session and can be reached.
    All,
}

/// What becomes of session locks while most pods cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockOnPartition {
    /// They are not granted.
    Fail,
    /// They are granted on each side.
    Local,
}

/// A protocol of session handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Redis.
    #[serde(rename = "RESP")]
    Resp,
    /// memcached.
    Memcached,
}

/// Where sessions are shared: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.storeRef), has(self.store), has(self.external)].filter(x, x).size() == 1").message(
    "spec.shared needs exactly one of storeRef (a SessionStore that exists), store (one that the operator makes) and external (a Secret that says how to reach one)"
))]
pub struct Shared {
    /// A SessionStore in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_ref: Option<StoreRef>,
    /// A SessionStore that the operator makes for this policy alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<SessionStoreSpec>,
    /// A store that exists outside the operator's hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Names a SessionStore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// Its name, in the policy's namespace.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
    /// What the keys begin with. Policies with the same prefix share their sessions; others cannot read them. Absent: the
    /// policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub key_prefix: Option<String>,
}

/// A store that exists outside the operator's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Secret with `host`, and where they apply `port` (6379), `username`, `password`, `tls` (`true` or `false`), `ca.crt`
    /// (PEM; implies TLS) and `cluster` (`true` or `false`). For Memcached: `provider` (`memcached`), `host` and `port` (11211).
    pub secret_ref: SecretRef,
}

/// Names a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name, in the policy's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The application as a client of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// What the application is made with. Generic: only the variables of `env` are set.
    #[serde(default)]
    pub framework: Framework,
    /// Names of the containers that keep sessions. Absent: the one that `kubectl.kubernetes.io/default-container` names,
    /// else the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub containers: Vec<String>,
    /// Further variables, from keys of the binding Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env: Vec<BindingVariable>,
    /// The module with the application's own settings (Django), where neither the container's DJANGO_SETTINGS_MODULE nor
    /// its manage.py says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
    )]
    pub settings_module: Option<String>,
}

/// A variable that is set from the binding Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindingVariable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Key of the binding Secret, such as `uri` or `password`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What an application is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Framework {
    /// Anything: only what `client.env` says is set.
    #[default]
    Generic,
    /// PHP's own sessions.
    #[serde(rename = "PHP")]
    Php,
    /// Django.
    Django,
    /// Flask with Flask-Session.
    Flask,
    /// Rails.
    Rails,
    /// Express with express-session.
    Express,
    /// Spring Boot with Spring Session.
    Spring,
    /// Servlets on Apache Tomcat.
    Tomcat,
    /// Laravel.
    Laravel,
    /// Symfony.
    Symfony,
}

/// When pods are replaced because what is injected has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rollout {
    /// As soon as it has.
    #[default]
    Automatic,
    /// On `kubectl session rollout NAME`.
    Manual,
}

/// Routing affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode != 'ClientIP' || !has(self.cookie)").message(
    "sticky.cookie has no effect with mode ClientIP: remove sticky.cookie, or set sticky.mode to Cookie"
))]
#[x_kube(validation = Rule::new("self.controller != 'Service' || self.mode == 'ClientIP'").message(
    "a plain Service knows no cookies: with sticky.controller Service set sticky.mode to ClientIP"
))]
pub struct Sticky {
    /// What a user is recognised by. Cookie: a cookie that the ingress controller sets. ClientIP: the address from
    /// which the request comes (users behind one NAT or proxy share a pod).
    #[serde(default)]
    pub mode: StickyMode,

    /// The ingress controller in front of the target. Auto finds it by class; name it where detection is
    /// ambiguous. Service: clients reach the Service itself, without a proxy that knows HTTP.
    #[serde(default)]
    pub controller: StickyController,

    /// The affinity cookie (mode Cookie only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Cookie>,

    /// How long, in seconds, existing sessions should keep reaching a pod that is terminating. A small sidecar then hands its
    /// users over; it is added to the pods (which replaces them once) where the pod template does not do it by itself. Where
    /// the controller does not keep terminating pods, it only lets pods leave without a failed request. What is missing is listed
    /// in status under `unsupported`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,

    /// Whether an object may be written whose setting also acts on other targets, such as an ingress-nginx Ingress
    /// with two backends or a Service that also selects other pods.
    #[serde(default)]
    pub shared_routes: SharedRoutes,
}

/// What a user is recognised by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StickyMode {
    /// A cookie of the ingress controller.
    #[default]
    Cookie,
    /// The client's address.
    ClientIP,
}

/// Which adapter configures affinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StickyController {
    /// Found by class.
    #[default]
    Auto,
    /// Traefik 3.
    Traefik,
    /// ingress-nginx, or a controller that reads its annotations.
    IngressNginx,
    /// Contour, through an HTTPProxy; it has no setting for an Ingress.
    Contour,
    /// kube-proxy, through the Service's own `sessionAffinity`.
    Service,
}

/// Whether shared objects may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SharedRoutes {
    /// Shared objects are left alone and reported.
    #[default]
    Refuse,
    /// Shared objects are written; other targets behind them become sticky, too.
    Allow,
}

/// The affinity cookie. Attributes as in RFC 6265 section 4.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.sameSite) || self.sameSite != 'None' || (has(self.secure) && self.secure)").message(
    "browsers drop cookies with SameSite=None that are not Secure: set cookie.secure to true, or cookie.sameSite to Lax or Strict"
))]
#[x_kube(validation = Rule::new("!has(self.name) || !self.name.startsWith('__Host-') || (has(self.secure) && self.secure && self.path == '/' && !has(self.domain))").message(
    "a cookie name with the prefix __Host- needs cookie.secure true, cookie.path / and no cookie.domain (RFC 6265bis section 4.1.3.2)"
))]
#[x_kube(validation = Rule::new("!has(self.name) || !self.name.startsWith('__Secure-') || (has(self.secure) && self.secure)").message(
    "a cookie name with the prefix __Secure- needs cookie.secure true (RFC 6265bis section 4.1.3.1)"
))]
pub struct Cookie {
    /// Name of the cookie. Absent: derived from the policy, unique per host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_.\-]+$"))]
    pub name: Option<String>,

    /// Path for which browsers send the cookie.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[A-Za-z0-9_.~/\-]*$"))]
    pub path: String,

    /// Lifetime in seconds; 0 = until the browser ends.
    #[serde(default)]
    #[schemars(range(min = 0, max = 34_560_000))]
    pub max_age_seconds: i32,

    /// Whether browsers send the cookie over TLS only. Absent: true where every route has TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,

    /// Whether scripts of the page are kept from reading the cookie.
    #[serde(default = "enabled")]
    pub http_only: bool,

    /// Whether browsers send the cookie with requests from other sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,

    /// Domain for which browsers send the cookie. Absent: the host that set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^\.?[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)*$"
        )
    )]
    pub domain: Option<String>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: None,
            path: root_path(),
            max_age_seconds: 0,
            secure: None,
            http_only: enabled(),
            same_site: None,
            domain: None,
        }
    }
}

fn root_path() -> String {
    "/".to_owned()
}

const fn enabled() -> bool {
    true
}

/// The `SameSite` attribute of a cookie (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SameSite {
    /// Sent with every request; needs Secure.
    None,
    /// Sent with top-level navigation from other sites.
    Lax,
    /// Sent with requests from the same site only.
    Strict,
}

#[cfg(test)]
mod tests;
