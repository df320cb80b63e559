//! The servers: a StatefulSet with one pod.

use serde_json::{Value, json};

use super::{PORT, metadata};
use crate::api::session_store::Engine;
use crate::store::acl::PROBE;
use crate::store::dereference::USERS_FILE;
use crate::store::quantity;
use crate::store::validate::Validated;

/// Folder of the data.
const DATA: &str = "/data";

/// Folder of the users' file that the server reads and writes.
const USERS: &str = "/users";

/// Folder of the users' file as it is in the Secret.
const USERS_SOURCE: &str = "/users-secret";

/// Folder of the certificates.
const TLS: &str = "/tls";

/// Name of the server's container.
pub const CONTAINER: &str = "server";

/// Seconds that a server has to end: it writes what is left of its append-only file.
const GRACE_SECONDS: i64 = 30;

/// The StatefulSet.
pub fn stateful_set(store: &Validated) -> Value {
    let names = &store.names;
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(names, names.store(), &store.uid),
        "spec": {
            "replicas": 1,
            "serviceName": names.store(),
            // A pod that cannot start because of its template is replaced when the template is mended; ordered, it
            // would be waited for.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": names.selector()},
            "template": {
                "metadata": {
                    "labels": names.pod_labels(),
                    "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
                },
                "spec": pod(store),
            },
        },
    })
}

fn pod(store: &Validated) -> Value {
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": security(store.user),
        "initContainers": [users_container(store)],
        "containers": [server_container(store)],
        "volumes": volumes(store),
    });
    if let (false, Some(pod)) = (store.pull_secrets.is_empty(), pod.as_object_mut()) {
        let secrets: Vec<Value> = store
            .pull_secrets
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        pod.insert("imagePullSecrets".into(), json!(secrets));
    }
    pod
}

fn security(user: Option<i64>) -> Value {
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
    json!({
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
    })
}

fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

/// Server and client of an engine.
fn programs(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Valkey => ("valkey-server", "valkey-cli"),
        Engine::Redis => ("redis-server", "redis-cli"),
    }
}

/// The server's settings. Nothing in them is secret: everybody who sees pods sees them.
fn arguments(store: &Validated) -> Vec<String> {
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
    settings
        .into_iter()
        .flat_map(|(name, values)| std::iter::once(name.to_owned()).chain(values))
        .collect()
}

fn probe(store: &Validated, period_seconds: i32, failures: i32) -> Value {
    let (_, client) = programs(store.engine);
    let port = PORT.to_string();
    let mut command = vec![client, "-e", "--no-auth-warning", "-p", &port];
    let authority = format!("{TLS}/ca.crt");
    if store.tls {
        command.extend(["--tls", "--cacert", &authority]);
    }
    // Any password does: the user has none, and may do nothing else.
    command.extend(["--user", PROBE, "--pass", PROBE, "ping"]);
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
    volumes.push(if store.volume.is_some() {
        json!({"name": "data", "persistentVolumeClaim": {"claimName": names.volume()}})
    } else {
        json!({"name": "data", "emptyDir": {"sizeLimit": "64Mi"}})
    });
    if store.tls {
        volumes.push(
            json!({"name": "tls", "secret": {"secretName": names.server_secret(), "defaultMode": 0o440}}),
        );
    }
    volumes
}
