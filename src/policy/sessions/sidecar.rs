//! The sidecar that keeps sessions in the pods: a native sidecar with `session-replicator`, and what it mounts. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, PodSpec, Probe,
    ResourceRequirements, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::binding::CA_KEY;
use super::{Trouble, names, peers};
use crate::api::conditions::reasons;
use crate::api::session_policy::{Acknowledge, LockOnPartition, Protocol, Replicated, ReplicationMode};
use crate::store::quantity;

/// Name of the container.
pub const CONTAINER: &str = "session-replicator";

/// Port of the application's own pod at which the sidecar speaks Redis.
pub const REDIS_PORT: u16 = 6379;

/// The same for memcached.
const MEMCACHED_PORT: u16 = 11211;

/// Port at which members talk to each other.
pub const PEER_PORT: u16 = 7946;

/// Port of probes and metrics.
pub const HTTP_PORT: u16 = 7947;

/// Volume with the UNIX socket, mounted by the application, too: the folder is the boundary.
const SOCKET_VOLUME: &str = "session-operator-socket";

/// Where it is mounted.
pub const SOCKET_DIR: &str = "/session-operator/socket";

/// Volume with the control socket, mounted by nobody else.
pub(super) const CONTROL_VOLUME: &str = "session-operator-control";

/// Where it is mounted; the program's own default.
pub(super) const CONTROL_DIR: &str = "/run/session-replicator";

/// Volume with certificates.
const PEERS_VOLUME: &str = "session-operator-peers";

/// Where it is mounted.
const PEERS_DIR: &str = "/session-operator/peers";

/// Volume with the places of pods.
const PLACES_VOLUME: &str = "session-operator-places";

/// Where it is mounted.
const PLACES_DIR: &str = "/session-operator/places";

/// Volume with the authority of the store that sessions come from or go to.
const UPSTREAM_VOLUME: &str = "session-operator-upstream";

/// Where it is mounted.
const UPSTREAM_DIR: &str = "/session-operator/upstream";

/// How long that store may take to answer, milliseconds: while pods are replaced nodes are busy, and a user rather waits.
const UPSTREAM_TIMEOUT_MS: u32 = 5_000;

/// Key of the Secret with the URL of that store.
pub const UPSTREAM_URL_KEY: &str = "url";

/// Memory that a sidecar needs at least, bytes.
const LEAST_MEMORY: i64 = 32 << 20;

/// Seconds that a terminating pod serves on after it turned unready: until every proxy has noticed.
pub use crate::affinity::drain::UNREADY_SECONDS;

/// Seconds that handing over the sessions may take.
pub const HANDOVER_SECONDS: i64 = 10;

/// What the sidecar is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sidecar<'a> {
    /// Name of the policy.
    pub policy: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// How sessions are replicated.
    pub wish: &'a Replicated,
    /// Image.
    pub image: &'a str,
    /// Its pull policy.
    pub pull_policy: Option<&'a str>,
    /// Replicas of the target.
    pub replicas: i32,
    /// Whether every request of a user reaches the same pod.
    pub bound_to_pods: bool,
    /// Seconds that a terminating pod keeps its users.
    pub drain_seconds: i32,
    /// The store that sessions come from or go to.
    pub upstream: Option<Upstream<'a>>,
    /// The pod to which it is added.
    pub pod: &'a PodSpec,
}

/// The store that sessions come from or go to, as the sidecar is told of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Upstream<'a> {
    /// Whether clients are passed on to it at first.
    pub follow: bool,
    /// Whether it has an authority of its own.
    pub own_authority: bool,
    /// What keys begin with.
    pub key_prefix: &'a str,
}

/// The pod's sidecar is drained before it is told to end.
pub(super) fn drain_first() -> Lifecycle {
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            exec: Some(ExecAction {
                command: Some(["/session-replicator", "ctl", "drain"].map(str::to_owned).into()),
            }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

impl Sidecar<'_> {
    /// The container.
    pub fn container(&self) -> Container {
        Container {
            name: CONTAINER.to_owned(),
            image: Some(self.image.to_owned()),
            image_pull_policy: self.pull_policy.map(str::to_owned),
            restart_policy: Some("Always".to_owned()),
            args: Some(self.arguments()),
            env: Some(self.env()),
            ports: Some(vec![
                port("session-peers", PEER_PORT),
                port("session-http", HTTP_PORT),
            ]),
            // The application starts once the sessions of the others are there, or joinTimeoutSeconds are over.
            startup_probe: Some(probe(
                "/readyz",
                1,
                self.wish.join_timeout_seconds.saturating_add(30),
            )),
            readiness_probe: Some(probe("/readyz", 1, 1)),
            liveness_probe: Some(probe("/livez", 10, 3)),
            lifecycle: Some(drain_first()),
            resources: Some(self.resources()),
            security_context: Some(super::revision::restricted()),
            volume_mounts: Some(self.mounts()),
            ..Container::default()
        }
    }

    fn env(&self) -> Vec<EnvVar> {
        let mut env = vec![
            from_field("POD_NAME", "metadata.name"),
            from_field("POD_IP", "status.podIP"),
            from_field("NODE_NAME", "spec.nodeName"),
        ];
        if self.upstream.is_some() {
            env.push(EnvVar {
                name: "SESSION_REPLICATOR_UPSTREAM".to_owned(),
                value_from: Some(EnvVarSource {
                    secret_key_ref: Some(SecretKeySelector {
                        name: names::upstream(self.policy),
                        key: UPSTREAM_URL_KEY.to_owned(),
                        optional: None,
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
        env
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        let mut mounts = vec![
            mount(SOCKET_VOLUME, SOCKET_DIR, false),
            mount(CONTROL_VOLUME, CONTROL_DIR, false),
            mount(PEERS_VOLUME, PEERS_DIR, true),
            mount(PLACES_VOLUME, PLACES_DIR, true),
            super::revision::without_token(),
        ];
        if self.upstream.is_some_and(|upstream| upstream.own_authority) {
            mounts.push(mount(UPSTREAM_VOLUME, UPSTREAM_DIR, true));
        }
        mounts
    }

    /// Volumes of the sidecar.
    pub fn volumes(&self) -> Vec<Volume> {
        let mut volumes = vec![
            in_memory(SOCKET_VOLUME),
            in_memory(CONTROL_VOLUME),
            Volume {
                name: PEERS_VOLUME.to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(peers::name(self.policy)),
                    // The group or the world has to read it: the container's user is the namespace's own.
                    default_mode: Some(0o444),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: PLACES_VOLUME.to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: peers::name(self.policy),
                    optional: Some(true),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
        ];
        if self.upstream.is_some_and(|upstream| upstream.own_authority) {
            volumes.push(Volume {
                name: UPSTREAM_VOLUME.to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(names::upstream(self.policy)),
                    items: Some(vec![KeyToPath {
                        key: CA_KEY.to_owned(),
                        path: CA_KEY.to_owned(),
                        mode: None,
                    }]),
                    default_mode: Some(0o444),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            });
        }
        volumes
    }

    /// What the application mounts.
    pub fn application_mount() -> VolumeMount {
        mount(SOCKET_VOLUME, SOCKET_DIR, false)
    }

    fn arguments(&self) -> Vec<String> {
        let wish = self.wish;
        let mut arguments = vec![
            format!("--peer-listen=[::]:{PEER_PORT}"),
            format!(
                "--discover={}.{}.svc:{PEER_PORT}",
                peers::name(self.policy),
                self.namespace
            ),
            format!("--tls-ca={PEERS_DIR}/ca.crt"),
            format!("--tls-cert={PEERS_DIR}/tls.crt"),
            format!("--tls-key={PEERS_DIR}/tls.key"),
            format!("--peer-identity={}", peers::identity(self.policy, self.namespace)),
            format!("--places-file={PLACES_DIR}/{}", peers::PLACES_KEY),
            format!("--http-listen=[::]:{HTTP_PORT}"),
            format!("--control-socket={CONTROL_DIR}/control.sock"),
            format!("--join-timeout-seconds={}", wish.join_timeout_seconds),
            format!("--drain-seconds={}", self.drain_seconds),
            format!("--unready-seconds={UNREADY_SECONDS}"),
            format!("--handover-seconds={HANDOVER_SECONDS}"),
            format!("--lock-on-partition={}", self.lock_on_partition()),
            format!(
                "--acknowledge={}",
                match wish.acknowledge {
                    Acknowledge::Auto => "auto",
                    Acknowledge::Local => "local",
                    Acknowledge::One => "one",
                    Acknowledge::Quorum => "quorum",
                    Acknowledge::All => "all",
                }
            ),
        ];
        match wish.mode {
            ReplicationMode::All => arguments.push("--mode=all".to_owned()),
            ReplicationMode::Backup => {
                arguments.push("--mode=backup".to_owned());
                arguments.push(format!("--backups={}", wish.backups));
            }
        }
        if !self.bound_to_pods {
            arguments.push("--no-affinity".to_owned());
        }
        if let Some(upstream) = self.upstream {
            arguments.push(format!("--upstream-prefix={}:", upstream.key_prefix));
            arguments.push(format!("--upstream-timeout-ms={UPSTREAM_TIMEOUT_MS}"));
            if upstream.own_authority {
                arguments.push(format!("--upstream-ca={UPSTREAM_DIR}/{CA_KEY}"));
            }
            if upstream.follow {
                arguments.push("--upstream-follow".to_owned());
            }
        }
        if wish.protocols.contains(&Protocol::Resp) {
            arguments.push(format!("--unix-socket={SOCKET_DIR}/redis.sock"));
        }
        if wish.protocols.contains(&Protocol::Memcached) {
            arguments.push(format!("--memcached-listen=127.0.0.1:{MEMCACHED_PORT}"));
            arguments.push(format!("--memcached-unix-socket={SOCKET_DIR}/memcached.sock"));
        }
        arguments
    }

    /// With two pods or fewer, most of them means all of them: one that is gone would stop every locked session.
    fn lock_on_partition(&self) -> &'static str {
        match self.wish.lock_on_partition {
            Some(LockOnPartition::Local) => "local",
            None if self.replicas <= 2 => "local",
            Some(LockOnPartition::Fail) | None => "fail",
        }
    }

    /// Requests always: without them a HorizontalPodAutoscaler stands still and a quota refuses the pod. Equal to the
    /// limits where the pod is Guaranteed, so that it stays so.
    fn resources(&self) -> ResourceRequirements {
        let memory = || ("memory".to_owned(), self.wish.memory.clone());
        let cpu = |amount: &str| ("cpu".to_owned(), Quantity(amount.to_owned()));
        let requests = BTreeMap::from([cpu("50m"), memory()]);
        let mut limits = BTreeMap::from([memory()]);
        if is_guaranteed(self.pod) {
            limits.extend([cpu("50m")]);
        }
        ResourceRequirements {
            requests: Some(requests),
            limits: Some(limits),
            ..ResourceRequirements::default()
        }
    }
}

/// Whether the kubelet puts the pod into the class Guaranteed
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>).
pub fn is_guaranteed(pod: &PodSpec) -> bool {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let equal = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        ["cpu", "memory"].iter().all(|resource| {
            limits
                .get(*resource)
                .is_some_and(|limit| requests.get(*resource).is_none_or(|request| request == limit))
        })
    };
    !pod.containers.is_empty() && containers.into_iter().all(equal)
}

/// What is wrong with the memory that a sidecar is to have.
pub fn too_little_memory(wish: &Replicated) -> Option<Trouble> {
    let enough = quantity::bytes(&wish.memory).is_some_and(|bytes| bytes >= LEAST_MEMORY);
    (!enough).then(|| {
        Trouble::new(
            reasons::INVALID_SPEC,
            format!(
                "spec.replicated.memory is {}; use a size of at least 32Mi, such as 128Mi",
                wish.memory.0
            ),
        )
    })
}

/// Seconds that a terminating pod needs: its users, the proxies, the sessions, and a little.
pub fn grace_seconds(drain_seconds: i32) -> i64 {
    i64::from(drain_seconds) + UNREADY_SECONDS + HANDOVER_SECONDS + 5
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    }
}

pub(super) fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(HTTP_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

pub(super) fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn in_memory(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity("1Mi".to_owned())),
        }),
        ..Volume::default()
    }
}
