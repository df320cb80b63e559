//! Engine Memcached: one server in memory, without users, certificates and volumes.
//!
//! A StatefulSet and no Deployment: never two servers at a time, between which a Service would divide the sessions; and a pod
//! whose name is known.

use serde_json::{Value, json};

use super::workload::{CONTAINER, add_pull_secrets, container_security, security};
use super::{Desired, MEMCACHED_PORT, metadata, objects};
use crate::api::session_store::Engine;
use crate::store::quantity;
use crate::store::validate::Validated;

/// Bytes of the largest session, its key included. Memcached's own limit is 1 MiB; a write of more is refused.
const LARGEST_ITEM: i64 = 8 << 20;

/// Connections at a time: one or two for each worker process of an application. Memcached's own limit is 1024, and who comes
/// later waits.
const CONNECTIONS: u32 = 4096;

/// Seconds that a server has to end. It has nothing to write.
const GRACE_SECONDS: i64 = 5;

/// Builds everything for a validated store.
pub fn build(store: &Validated) -> Desired {
    Desired {
        secrets: Vec::new(),
        volumes: Vec::new(),
        service: objects::service(store),
        members_service: None,
        budget: objects::budget(store),
        stateful_sets: vec![stateful_set(store)],
        obsolete: Vec::new(),
    }
}

fn stateful_set(store: &Validated) -> Value {
    let names = &store.names;
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": security(store.user),
        "containers": [container(store)],
    });
    add_pull_secrets(&mut pod, store);
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
                "spec": pod,
            },
        },
    })
}

fn container(store: &Validated) -> Value {
    let memory = quantity::text(store.memory);
    json!({
        "name": CONTAINER,
        "image": store.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["memcached"],
        "args": arguments(store),
        "ports": [{
            "name": objects::port_name(store.engine),
            "containerPort": MEMCACHED_PORT,
            "protocol": "TCP",
        }],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "50m", "memory": memory}, "limits": {"memory": memory}},
        // The image has no client; the operator itself writes and reads.
        "readinessProbe": probe(5, 3),
        // Killing a server loses what it holds, so only one that has been silent for minutes is killed.
        "livenessProbe": probe(15, 12),
    })
}

/// The server's settings.
fn arguments(store: &Validated) -> Vec<String> {
    vec![
        format!("--port={MEMCACHED_PORT}"),
        "--udp-port=0".to_owned(),
        format!("--memory-limit={}", store.max_memory >> 20),
        format!("--max-item-size={LARGEST_ITEM}"),
        format!("--conn-limit={CONNECTIONS}"),
        // An evicted session is a user logged out without anybody noticing; a refused write is seen.
        "--disable-evictions".to_owned(),
        // Nobody ends all sessions at once, or lists them.
        "--disable-flush-all".to_owned(),
        "--disable-dumping".to_owned(),
        "--disable-watch".to_owned(),
    ]
}

fn probe(period_seconds: i32, failures: i32) -> Value {
    json!({
        "tcpSocket": {"port": objects::port_name(Engine::Memcached)},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}
