//! The servers: a StatefulSet.
//!
//! [`super::shards`] makes one for each shard of the same parts.
//!
//! The template of topology Standalone must stay as it is, byte for byte: another one replaces the pod of every store.

use serde_json::{Value, json};

use super::{PORT, metadata, objects};
use crate::api::session_store::{Engine, Topology};
use crate::store::acl::PROBE;
use crate::store::dereference::USERS_FILE;
use crate::store::quantity;
use crate::store::validate::Validated;

/// Folder of the data.
pub(super) const DATA: &str = "/data";

/// Folder of the users' file that the server reads and writes.
pub(super) const USERS: &str = "/users";

/// Folder of the users' file as it is in the Secret.
const USERS_SOURCE: &str = "/users-secret";

/// Folder of the certificates.
const TLS: &str = "/tls";

/// Name of the server's container.
pub const CONTAINER: &str = "server";

/// Seconds that a server has to end: it writes what is left of its append-only file.
const GRACE_SECONDS: i64 = 30;

/// Where a server of several looks for its primary until the operator tells it: nobody listens there, and no name has to be
/// looked up. So a server that starts, or starts again inside its pod, refuses to serve.
const NOBODY: [&str; 2] = ["127.0.0.1", "1"];

/// Seconds that a pod that is to end goes on, so that another server takes over from a primary before it is told to end.
pub(super) const HAND_OVER_SECONDS: i64 = 5;

/// The part of the memory limit that keeps changes for replicas that were away for a moment.
const BACKLOG_PART: i64 = 16;

/// Least and most bytes of it.
const BACKLOG: std::ops::RangeInclusive<i64> = (2 << 20)..=(64 << 20);

/// Bytes that keep changes for replicas that were away for a moment.
fn backlog(store: &Validated) -> i64 {
    (store.memory / BACKLOG_PART).clamp(*BACKLOG.start(), *BACKLOG.end())
}

/// The StatefulSet.
pub fn stateful_set(store: &Validated) -> Value {
    let names = &store.names;
    let (service, update) = match store.topology {
        Topology::Standalone => (names.store().to_owned(), "RollingUpdate"),
        // The operator knows who may be restarted next.
        Topology::Replicated | Topology::Cluster => (names.members(), "OnDelete"),
    };
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(names, names.store(), &store.uid),
        "spec": {
            "replicas": store.pods,
            "serviceName": service,
            // A pod that cannot start because of its template is replaced when the template is mended; ordered, it
            // would be waited for.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": update},
            "selector": {"matchLabels": names.selector()},
            "template": {
                "metadata": {
                    "labels": names.pod_labels(),
                    "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
                },
                "spec": pod(store),
            },
        },
    });
    if let (Topology::Replicated, Some(volume), Some(spec)) = (
        store.topology,
        &store.volume,
        set.get_mut("spec").and_then(Value::as_object_mut),
    ) {
        // The claims themselves are made beside it.
        let template = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": objects::claim(volume, store.template_size),
        });
        spec.insert("volumeClaimTemplates".into(), json!([template]));
    }
    set
}

pub(super) fn pod(store: &Validated) -> Value {
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": security(store.user),
        "initContainers": [users_container(store)],
        "containers": [server_container(store)],
        "volumes": volumes(store),
    });
    if let (Topology::Replicated, Some(pod)) = (store.topology, pod.as_object_mut()) {
        pod.insert("affinity".into(), apart(store));
    }
    add_pull_secrets(&mut pod, store);
    pod
}

/// Names the Secrets with credentials for the image, if there are any.
pub(super) fn add_pull_secrets(pod: &mut Value, store: &Validated) {
    if let (false, Some(pod)) = (store.pull_secrets.is_empty(), pod.as_object_mut()) {
        let secrets: Vec<Value> = store
            .pull_secrets
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        pod.insert("imagePullSecrets".into(), json!(secrets));
    }
}

/// On nodes and in zones of their own as far as there are any. A rule that had to hold would keep servers from starting in a
/// small cluster; `survives` says where they are. Not by topologySpreadConstraints: the scheduler scores no node that lacks the
/// label of one of them, so where nodes name no zone, that of nodes would go for nothing as well.
fn apart(store: &Validated) -> Value {
    let terms: Vec<Value> = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .iter()
        .map(|key| {
            json!({
                "weight": 100,
                "podAffinityTerm": {
                    "topologyKey": key,
                    "labelSelector": {"matchLabels": store.names.selector()},
                },
            })
        })
        .collect();
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})
}

pub(super) fn security(user: Option<i64>) -> Value {
    let seccomp = json!({"type": "RuntimeDefault"});
    match user {
        None => json!({"runAsNonRoot": true, "seccompProfile": seccomp}),
        Some(user) => json!({
            "runAsNonRoot": true,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": seccomp,
        }),
    }
}

/// Puts the users' file where the server may write it. Only when the pod starts: a server that is restarted in its pod
/// finds what it was last told, which the mounted Secret may show a minute late.
fn users_container(store: &Validated) -> Value {
    json!({
        "name": "users",
        "image": store.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["cp", "-f", format!("{USERS_SOURCE}/{USERS_FILE}"), format!("{USERS}/{USERS_FILE}")],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
        "volumeMounts": [
            {"name": "users-secret", "mountPath": USERS_SOURCE, "readOnly": true},
            {"name": "users", "mountPath": USERS},
        ],
    })
}

fn server_container(store: &Validated) -> Value {
    let (server, _) = programs(store.engine);
    let memory = quantity::text(store.memory);
    let mut mounts = vec![
        json!({"name": "users", "mountPath": USERS}),
        json!({"name": "data", "mountPath": DATA}),
    ];
    if store.tls {
        mounts.push(json!({"name": "tls", "mountPath": TLS, "readOnly": true}));
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": store.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [server],
        "args": arguments(store),
        "ports": [{"name": "redis", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "50m", "memory": memory}, "limits": {"memory": memory}},
        "volumeMounts": mounts,
        // A large append-only file takes minutes to read; until then the server answers every PING with an error.
        "startupProbe": probe(store, 1, 3600),
        "readinessProbe": probe(store, 5, 3),
        // Killing a server loses what it holds in memory, so only one that has been silent for minutes is killed.
        "livenessProbe": probe(store, 15, 12),
    });
    if let (Topology::Replicated, Some(container)) = (store.topology, container.as_object_mut()) {
        let name = json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
        container.insert("env".into(), name);
        // A replica without its primary refuses a PING and is alive. Killing it could lose the last copy.
        container.insert("startupProbe".into(), any_answer(store, 1, 3600));
        container.insert("livenessProbe".into(), any_answer(store, 15, 12));
        let pause = json!({"preStop": {"sleep": {"seconds": HAND_OVER_SECONDS}}});
        container.insert("lifecycle".into(), pause);
    }
    container
}

pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

/// Where the server is in the container, for what is added to it.
pub(super) const SERVER_CONTAINER: &str = "/containers/0";

/// Server and client of an engine that speaks Redis' protocol.
pub(super) fn programs(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Redis => ("redis-server", "redis-cli"),
        // Memcached has a workload of its own.
        Engine::Valkey | Engine::Memcached => ("valkey-server", "valkey-cli"),
    }
}

/// The server's settings. Nothing in them is secret: everybody who sees pods sees them.
pub(super) fn arguments(store: &Validated) -> Vec<String> {
    let port = PORT.to_string();
    let max_memory = store.max_memory.to_string();
    let users = format!("{USERS}/{USERS_FILE}");
    let tls = |file: &str| format!("{TLS}/{file}");
    let mut settings: Vec<(&str, Vec<String>)> = Vec::new();
    let mut set = |name: &'static str, values: &[&str]| {
        settings.push((name, values.iter().map(|value| (*value).to_owned()).collect()));
    };
    if store.tls {
        set("--port", &["0"]);
        set("--tls-port", &[&port]);
        set("--tls-cert-file", &[&tls("tls.crt")]);
        set("--tls-key-file", &[&tls("tls.key")]);
        set("--tls-ca-cert-file", &[&tls("ca.crt")]);
        set("--tls-auth-clients", &["no"]);
    } else {
        set("--port", &[&port]);
    }
    // Either family may be missing on a node; an address that begins with a dash may fail.
    set("--bind", &["*", "-::*"]);
    // Users and their passwords protect the server, not the address that it is reached by.
    set("--protected-mode", &["no"]);
    set("--aclfile", &[&users]);
    set("--dir", &[DATA]);
    set("--maxmemory", &[&max_memory]);
    // An evicted session is a user logged out without anybody noticing; a refused write is seen.
    set("--maxmemory-policy", &["noeviction"]);
    set("--save", &[""]);
    set(
        "--appendonly",
        &[if store.volume.is_some() { "yes" } else { "no" }],
    );
    if store.volume.is_some() {
        set("--appendfsync", &["everysec"]);
    }
    set("--tcp-keepalive", &["60"]);
    // Spring Session's index hears of sessions that expire or are deleted.
    set("--notify-keyspace-events", &["Egx"]);
    if store.topology == Topology::Replicated {
        set("--replicaof", &NOBODY);
        // What a replica without its primary has may be old or nothing.
        set("--replica-serve-stale-data", &["no"]);
        if store.tls {
            set("--tls-replication", &["yes"]);
        }
        let announced = store.names.member_host("$(POD_NAME)");
        set("--replica-announce-ip", &[&announced]);
    }
    if store.topology == Topology::Cluster {
        super::shards::settings(store, &mut set);
    }
    if store.topology != Topology::Standalone {
        set("--repl-backlog-size", &[&backlog(store).to_string()]);
        // A replica that comes is wanted at once.
        set("--repl-diskless-sync-delay", &["0"]);
        // How a primary that fell silent is told from an idle one.
        set("--repl-ping-replica-period", &["1"]);
        set("--repl-timeout", &["20"]);
        if store.volume.is_none() {
            // What a primary has sent is no store of what was there later: a server that starts with it would take itself for one
            // that has something.
            set("--rdb-del-sync-files", &["yes"]);
        } else {
            // A replica whose volume is full would end by itself, and what it has in memory with it.
            set("--replica-ignore-disk-write-errors", &["yes"]);
        }
    }
    settings
        .into_iter()
        .flat_map(|(name, values)| std::iter::once(name.to_owned()).chain(values))
        .collect()
}

/// Succeeds when the server takes a PING: it serves, or follows a primary.
fn probe(store: &Validated, period_seconds: i32, failures: i32) -> Value {
    exec(store, &["-e"], period_seconds, failures)
}

/// Succeeds when the server answers anything, errors included.
pub(super) fn any_answer(store: &Validated, period_seconds: i32, failures: i32) -> Value {
    exec(store, &[], period_seconds, failures)
}

fn exec(store: &Validated, options: &[&str], period_seconds: i32, failures: i32) -> Value {
    let mut command = client(store, options);
    command.push("ping".to_owned());
    run(&command, period_seconds, failures)
}

/// The client as the user of probes.
pub(super) fn client(store: &Validated, options: &[&str]) -> Vec<String> {
    let (_, client) = programs(store.engine);
    let port = PORT.to_string();
    let mut command = vec![client];
    command.extend(options);
    command.extend(["--no-auth-warning", "-p", &port]);
    let authority = format!("{TLS}/ca.crt");
    if store.tls {
        command.extend(["--tls", "--cacert", &authority]);
    }
    // Any password does: the user has none, and may do nothing else.
    command.extend(["--user", PROBE, "--pass", PROBE]);
    command.into_iter().map(str::to_owned).collect()
}

/// A probe that is a command.
pub(super) fn run(command: &[String], period_seconds: i32, failures: i32) -> Value {
    json!({
        "exec": {"command": command},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

fn volumes(store: &Validated) -> Vec<Value> {
    let names = &store.names;
    let mut volumes = vec![
        // Owner and group may read it: the server does not run as the owner of a Secret's files.
        json!({"name": "users-secret", "secret": {"secretName": names.users_secret(), "defaultMode": 0o440}}),
        json!({"name": "users", "emptyDir": {"sizeLimit": "16Mi"}}),
    ];
    match (store.topology, &store.volume) {
        (Topology::Standalone, Some(_)) => {
            volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": names.volume()}}));
        }
        (Topology::Standalone, None) => {
            volumes.push(json!({"name": "data", "emptyDir": {"sizeLimit": "64Mi"}}));
        }
        // The StatefulSet's own claim.
        (Topology::Replicated | Topology::Cluster, Some(_)) => {}
        // A replica writes down what it gets from its primary before it reads it.
        (Topology::Replicated | Topology::Cluster, None) => {
            let size = quantity::text(store.memory.saturating_mul(2));
            volumes.push(json!({"name": "data", "emptyDir": {"sizeLimit": size}}));
        }
    }
    if store.tls {
        volumes.push(
            json!({"name": "tls", "secret": {"secretName": names.server_secret(), "defaultMode": 0o440}}),
        );
    }
    volumes
}
