//! What a store says when its server does not run. Pods and Events are made by the tests: nothing runs here.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::stores::{store, until_reason};
use crate::wait::until;
use crate::world::{World, condition};

/// The pod of the store, with a status.
async fn pod(world: &World, status: &Value) {
    let set = world.until("StatefulSet", "sessions", "made", |_| true).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sessions-0", "labels": set["spec"]["template"]["metadata"]["labels"]},
        "spec": {"containers": [{"name": "server", "image": "localhost/none:1"}]}
    });
    world.create(&pod).await;
    world
        .api("Pod")
        .patch_status(
            "sessions-0",
            &PatchParams::default(),
            &Patch::Merge(&json!({"status": status})),
        )
        .await
        .unwrap();
}

/// The status of the container called `server`.
fn server(state: &Value, last_state: &Value) -> Value {
    let status = json!({
        "name": "server", "image": "localhost/none:1", "imageID": "", "ready": false, "restartCount": 3,
        "state": state, "lastState": last_state
    });
    json!({"containerStatuses": [status]})
}

/// Makes a store whose pod has a status, and returns what the store says of it.
async fn said(name: &str, status: &Value, reason: &str) -> String {
    let (world, _) = World::shared(name).await;
    world.create(&store(&json!({}))).await;
    pod(&world, status).await;
    until_reason(&world, reason).await
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named() {
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let message = said("image", &server(&waiting, &json!({})), "ImagePullFailed").await;
    for word in ["localhost/none:1", "no such image", "values under stores"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn a_server_that_used_too_much_memory_is_told_from_one_that_fails() {
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let ended = |reason: &str, code: i32| json!({"terminated": {"reason": reason, "exitCode": code}});
    let message = said("oom", &server(&waiting, &ended("OOMKilled", 137)), "OutOfMemory").await;
    assert!(message.contains("spec.memory"), "{message}");
    let message = said("crash", &server(&waiting, &ended("Error", 1)), "ServerFailing").await;
    assert!(
        message.contains("kubectl logs sessions-0 --container server --previous"),
        "{message}"
    );
}

#[tokio::test]
async fn a_pod_that_no_node_takes_says_why() {
    let status = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: Insufficient memory"}
    ]});
    let message = said("unschedulable", &status, "PodUnschedulable").await;
    assert!(message.contains("Insufficient memory"), "{message}");
}

#[tokio::test]
async fn a_volume_that_is_not_bound_is_named_with_its_class() {
    let (world, _) = World::shared("unbound").await;
    let spec = json!({"persistence": {"size": "1Gi", "storageClassName": "no-such-class"}});
    world.create(&store(&spec)).await;
    let status = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims"}
    ]});
    pod(&world, &status).await;
    let message = until_reason(&world, "VolumePending").await;
    for word in ["sessions-data", "no-such-class"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn a_quota_that_forbids_the_pod_is_found_in_the_events() {
    let (world, _) = World::shared("quota").await;
    world.create(&store(&json!({}))).await;
    let set = world.until("StatefulSet", "sessions", "made", |_| true).await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "sessions.1"},
        "eventTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string(),
        "reportingController": "statefulset-controller",
        "reportingInstance": "test",
        "action": "Create",
        "reason": "FailedCreate",
        "regarding": {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "sessions", "namespace": world.namespace,
            "uid": set["metadata"]["uid"]
        },
        "note": "pods \"sessions-0\" is forbidden: exceeded quota: small, requested: limits.memory=256Mi",
        "type": "Warning"
    });
    world.create(&event).await;
    let message = until_reason(&world, "QuotaExceeded").await;
    assert!(message.contains("exceeded quota: small"), "{message}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unreachable() {
    let (world, _) = World::shared("silent").await;
    world.create(&store(&json!({}))).await;
    // Nobody listens on this loopback address.
    let mut status = server(&json!({"running": {}}), &json!({}));
    status["containerStatuses"][0]["started"] = json!(true);
    status["podIP"] = json!("127.55.0.1");
    status["podIPs"] = json!([{"ip": "127.55.0.1"}]);
    pod(&world, &status).await;
    let message = until_reason(&world, "StoreUnreachable").await;
    assert!(message.contains("Connection refused"), "{message}");
}

#[tokio::test]
async fn sizes_that_cannot_be_are_refused_in_words() {
    let (world, _) = World::shared("sizes").await;
    world.create(&store(&json!({"memory": "1Mi"}))).await;
    let message = until_reason(&world, "InvalidSpec").await;
    assert!(
        message.contains("spec.memory is 1Mi; give at least 64Mi"),
        "{message}"
    );
    let spec = json!({"memory": "64Mi", "persistence": {"size": "2Gi"}});
    world
        .patch("SessionStore", "sessions", &json!({ "spec": spec }))
        .await;
    world
        .until("PersistentVolumeClaim", "sessions-data", "made", |_| true)
        .await;
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"spec": {"persistence": {"size": "1Gi"}}}),
        )
        .await;
    let message = until_reason(&world, "VolumeCannotShrink").await;
    assert!(message.contains("less than the 2Gi"), "{message}");
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"spec": {"persistence": {"size": "2Gi"}}}),
        )
        .await;
    until_reason(&world, "StoreStarting").await;
}

/// Growing is refused for a claim that is not bound, as by a class that does not allow it; the rest goes on.
#[tokio::test]
async fn a_volume_that_cannot_grow_is_asked_once_and_the_store_goes_on() {
    let (world, operator) = World::shared("grow").await;
    world
        .create(&store(&json!({"persistence": {"size": "1Gi"}})))
        .await;
    world
        .until("PersistentVolumeClaim", "sessions-data", "made", |_| true)
        .await;
    until_reason(&world, "StoreStarting").await;
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"spec": {"persistence": {"size": "2Gi"}, "memory": "128Mi"}}),
        )
        .await;
    let limit = "/spec/template/spec/containers/0/resources/limits/memory";
    world
        .until("StatefulSet", "sessions", "128Mi", |set| {
            set.pointer(limit) == Some(&json!("128Mi"))
        })
        .await;
    let seen = |operator: &Operator| {
        let mut requests = operator.requests();
        requests.retain(|request| request.namespace == world.namespace && request.name == "sessions-admin");
        requests.len()
    };
    let before = seen(operator);
    until("the store to be looked at again", || async {
        let now = seen(operator);
        (now >= before + 4)
            .then_some(())
            .ok_or(format!("{} times", now - before))
    })
    .await;
    let asked = |operator: &Operator| {
        let mut requests = operator.requests();
        requests.retain(|request| {
            request.namespace == world.namespace
                && request.resource == "persistentvolumeclaims"
                && request.is_write()
                && request.code >= 400
        });
        requests.len()
    };
    assert_eq!(asked(operator), 1);
    let store = world.get("SessionStore", "sessions").await;
    assert_eq!(condition(&store, "Ready").unwrap()["reason"], "StoreStarting");
}

#[tokio::test]
async fn rules_of_the_schema_name_the_remedy() {
    let (world, _) = World::shared("store-rules").await;
    let mut long = store(&json!({}));
    long["metadata"]["name"] = json!("a".repeat(51));
    let refusal = world.try_create(&long, "Strict").await.unwrap_err().to_string();
    assert!(refusal.contains("use at most 50 characters"), "{refusal}");

    world
        .create(&store(
            &json!({"persistence": {"size": "1Gi", "storageClassName": "fast"}}),
        ))
        .await;
    for (change, words) in [
        (
            json!({"engine": "Redis"}),
            "spec.engine is immutable: make another SessionStore",
        ),
        (
            json!({"persistence": {"storageClassName": "slow"}}),
            "persistence.storageClassName is immutable",
        ),
    ] {
        let patched = world
            .api("SessionStore")
            .patch(
                "sessions",
                &PatchParams::default(),
                &Patch::Merge(&json!({ "spec": change })),
            )
            .await;
        let refusal = patched.unwrap_err().to_string();
        assert!(refusal.contains(words), "{change}: {refusal}");
    }
}
