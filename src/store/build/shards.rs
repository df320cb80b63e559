//! The servers of topology Cluster: a StatefulSet for each shard.
//!
//! A server that starts with nothing must not be taken for the one that it was, whose replicas would copy that it is empty:
//!
//! * The file by which the cluster knows it goes, so that it comes back as a new one that has no slots.
//! * It refuses to be followed: a replica that lost its primary connects to the same address again and asks nobody who is there. Once
//!   it is known to have what it is to have, the operator lets the others follow it.
//! * It does not tell applications who has which slots: it hears of them one after the other, and a client that believes a part of
//!   that (as PHP's does) finds no server for the rest. Once it knows all, the operator lets them ask.
//! * It listens for other servers at another port than the process before: where they find a stranger in place of a server that they
//!   know, they never take that one for failed, and elect nobody in its place.

use serde_json::{Value, json};

use super::{REPLICATION_FILE, metadata, objects, workload};
use crate::store::acl::{APPLICATION, REPLICATION as REPLICATION_USER};
use crate::store::client::RIGHTS_WITHOUT_MAP;
use crate::store::dereference::USERS_FILE;
use crate::store::names::SHARD_LABEL;
use crate::store::validate::{Shard, Validated};

/// Folder of the settings by which servers follow each other.
const REPLICATION: &str = "/replication";

/// The file by which servers of a cluster know each other, in the folder of the data. The server writes it.
const NODES_FILE: &str = "nodes.conf";

/// The folder of the append-only file. A server that has none has nothing.
const APPEND_ONLY: &str = "appendonlydir";

/// What a primary has sent, until it is read. A server that was ended meanwhile would take the slots of the keys in it.
const SENT_FILE: &str = "dump.rdb";

/// The file that counts starts with nothing.
const STARTS_FILE: &str = "starts";

/// The first port at which servers talk to each other: the one that servers choose themselves.
const BUS_PORT: u16 = super::PORT + 10_000;

/// From there on, how many ports one after the other are used.
const BUS_PORTS: u16 = 100;

/// Milliseconds without an answer after which the others take a primary for failed, and elect another one. A pause of a busy node is
/// shorter than that; who waits longer has users wait.
const NODE_TIMEOUT: &str = "2000";

/// How much less it counts that servers of different shards share a node than that those of one shard do.
const OTHER_SHARD_WEIGHT: u8 = 20;

/// One StatefulSet for each shard.
pub fn stateful_sets(store: &Validated) -> Vec<Value> {
    let shards = store.shards.iter().enumerate();
    shards
        .map(|(number, shard)| stateful_set(store, number, shard))
        .collect()
}

fn stateful_set(store: &Validated, number: usize, shard: &Shard) -> Value {
    let names = &store.names;
    let selector = names.shard_selector(number);
    let mut labels = names.pod_labels();
    labels.insert(SHARD_LABEL.to_owned(), number.to_string());
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(names, &names.shard(number), &store.uid),
        "spec": {
            "replicas": shard.pods,
            "serviceName": names.members(),
            "podManagementPolicy": "Parallel",
            // The operator knows who may be restarted next.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {"kubectl.kubernetes.io/default-container": workload::CONTAINER},
                },
                "spec": pod(store, number),
            },
        },
    });
    if let (Some(volume), Some(spec)) = (&store.volume, set.get_mut("spec").and_then(Value::as_object_mut)) {
        // The claims themselves are made beside it.
        let template = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": objects::claim(volume, shard.template_size),
        });
        spec.insert("volumeClaimTemplates".into(), json!([template]));
    }
    set
}

fn pod(store: &Validated, number: usize) -> Value {
    let mut pod = workload::pod(store);
    if let Some(container) = pod
        .pointer_mut(workload::SERVER_CONTAINER)
        .and_then(Value::as_object_mut)
    {
        let (server, _) = workload::programs(store.engine);
        let file = format!("{REPLICATION}/{REPLICATION_FILE}");
        let mut arguments = vec![file];
        arguments.extend(workload::arguments(store));
        container.insert("command".into(), json!(["sh", "-c", start(), server]));
        container.insert("args".into(), json!(arguments));
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        container.insert(
            "env".into(),
            json!([
                field("POD_NAME", "metadata.name"),
                field("POD_IP", "status.podIP")
            ]),
        );
        container.insert("startupProbe".into(), workload::any_answer(store, 1, 3600));
        container.insert("livenessProbe".into(), workload::any_answer(store, 15, 12));
        container.insert("readinessProbe".into(), knows_others(store));
        let pause = json!({"preStop": {"sleep": {"seconds": workload::HAND_OVER_SECONDS}}});
        container.insert("lifecycle".into(), pause);
        if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
            mounts.push(json!({"name": "replication", "mountPath": REPLICATION, "readOnly": true}));
        }
    }
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("affinity".into(), apart(store, number));
        if let Some(volumes) = pod.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.push(json!({"name": "replication", "secret": {
                "secretName": store.names.replication_secret(),
                "defaultMode": 0o440,
                "items": [{"key": REPLICATION_FILE, "path": REPLICATION_FILE}],
            }}));
        }
    }
    pod
}

/// What starts the server, as one that nobody knows if it has nothing. Needs a shell, rm, cat and sed; its probe grep.
fn start() -> String {
    let (data, users) = (workload::DATA, workload::USERS);
    let without_map = RIGHTS_WITHOUT_MAP.join(" ");
    format!(
        "set -e; cd {data}; [ -e {STARTS_FILE} ] || echo 0 >{STARTS_FILE}; if [ ! -e {APPEND_ONLY} ]; then rm -f {NODES_FILE} {SENT_FILE}; \
         starts=$(( ($(cat {STARTS_FILE}) + 1) % {BUS_PORTS} )); echo $starts >{STARTS_FILE}; \
         sed -i -e 's/^user {REPLICATION_USER} on /user {REPLICATION_USER} off /' \
         -e '/^user {APPLICATION}/{{/ {without_map}$/!s/$/ {without_map}/;}}' {users}/{USERS_FILE}; fi; \
         exec \"$0\" \"$@\" --cluster-port $(( {BUS_PORT} + $(cat {STARTS_FILE}) ))"
    )
}

/// Succeeds when the server is part of a cluster that serves: a client that asks another one learns nothing.
fn knows_others(store: &Validated) -> Value {
    let script = "\"$@\" cluster info | grep -q cluster_state:ok";
    let mut command: Vec<String> = ["sh", "-c", script, "probe"].map(str::to_owned).to_vec();
    command.extend(workload::client(store, &["-e"]));
    workload::run(&command, 5, 3)
}

/// Servers of a shard on nodes and in zones of their own as far as there are any; and, if it costs nothing, those of different
/// shards: with the greater part of all primaries on one node, the others could not elect when it is lost.
fn apart(store: &Validated, number: usize) -> Value {
    let names = &store.names;
    let kinds = [
        (names.shard_selector(number), 100),
        (names.selector(), OTHER_SHARD_WEIGHT),
    ];
    let terms: Vec<Value> = kinds
        .iter()
        .flat_map(|(selector, weight)| {
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| {
                json!({
                    "weight": weight,
                    "podAffinityTerm": {"topologyKey": key, "labelSelector": {"matchLabels": selector}},
                })
            })
        })
        .collect();
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})
}

/// What makes a server part of a cluster.
pub fn settings(store: &Validated, set: &mut impl FnMut(&'static str, &[&str])) {
    set("--cluster-enabled", &["yes"]);
    set("--cluster-config-file", &[NODES_FILE]);
    set("--cluster-node-timeout", &[NODE_TIMEOUT]);
    // A shard that is away keeps nobody from the sessions in the others.
    set("--cluster-require-full-coverage", &["no"]);
    // Who is cut off from most of the others may have been replaced.
    set("--cluster-allow-reads-when-down", &["no"]);
    set("--cluster-replica-no-failover", &["no"]);
    // Who belongs to which shard says its StatefulSet.
    set("--cluster-allow-replica-migration", &["no"]);
    set("--cluster-announce-ip", &["$(POD_IP)"]);
    let announced = store.names.member_host("$(POD_NAME)");
    set("--cluster-announce-hostname", &[&announced]);
    // Certificates are for names, and names stay when addresses do not.
    set("--cluster-preferred-endpoint-type", &["hostname"]);
    if store.tls {
        set("--tls-cluster", &["yes"]);
        set("--tls-replication", &["yes"]);
    }
}
