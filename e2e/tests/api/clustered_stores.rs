//! What the operator makes of a SessionStore with topology Cluster. No pod starts here, so no server becomes primary.

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::STORE_LABEL;

use crate::own::{Own, peace};
use crate::stores::{store, until_reason, writes_nothing};
use crate::world::{World, condition};

/// What belongs to a store with three shards of two servers each, and volumes.
const CHILDREN: [(&str, &str); 17] = [
    ("StatefulSet", "sessions-0"),
    ("StatefulSet", "sessions-1"),
    ("StatefulSet", "sessions-2"),
    ("Service", "sessions"),
    ("Service", "sessions-members"),
    ("PodDisruptionBudget", "sessions"),
    ("PersistentVolumeClaim", "data-sessions-0-0"),
    ("PersistentVolumeClaim", "data-sessions-0-1"),
    ("PersistentVolumeClaim", "data-sessions-1-0"),
    ("PersistentVolumeClaim", "data-sessions-1-1"),
    ("PersistentVolumeClaim", "data-sessions-2-0"),
    ("PersistentVolumeClaim", "data-sessions-2-1"),
    ("Secret", "sessions-admin"),
    ("Secret", "sessions-replication"),
    ("Secret", "sessions-users"),
    ("Secret", "sessions-ca"),
    ("Secret", "sessions-tls"),
];

fn clustered() -> Value {
    store(&json!({"topology": "Cluster", "persistence": {"size": "1Gi"}, "deletionPolicy": "Delete"}))
}

async fn until_made(world: &World) -> Vec<Value> {
    let mut children = Vec::new();
    for (kind, name) in CHILDREN {
        children.push(world.until(kind, name, "made", |_| true).await);
    }
    children
}

#[tokio::test]
async fn each_shard_is_a_stateful_set_and_everything_goes_with_the_store() {
    let (world, _) = World::shared("store-clustered").await;
    let created = world.create(&clustered()).await;
    let children = until_made(&world).await;
    for child in &children {
        let labels = &child["metadata"]["labels"];
        assert_eq!(labels[STORE_LABEL], "sessions", "{child}");
        assert_eq!(
            labels["session-operator.dev/store-uid"], created["metadata"]["uid"],
            "{child}"
        );
    }
    for (shard, set) in children.iter().take(3).enumerate() {
        assert_eq!(set["spec"]["replicas"], 2);
        assert_eq!(set["spec"]["serviceName"], "sessions-members");
        assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
        let label = "/spec/selector/matchLabels/session-operator.dev~1shard";
        assert_eq!(set.pointer(label), Some(&json!(shard.to_string())));
    }
    let (service, members, budget) = (&children[3], &children[4], &children[5]);
    assert_eq!(
        service["spec"]["selector"]["session-operator.dev/role"],
        Value::Null
    );
    assert_eq!(members["spec"]["clusterIP"], "None");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    world
        .until("SessionStore", "sessions", "told which pod is missing", |store| {
            condition(store, "Ready").is_some_and(|ready| {
                let message = ready["message"].as_str().unwrap_or_default();
                ready["reason"] == "StoreStarting" && message.contains("sessions-0-0")
            })
        })
        .await;

    world.delete("SessionStore", "sessions").await;
    world.until_gone("SessionStore", "sessions").await;
    for (kind, name) in CHILDREN {
        if kind == "PersistentVolumeClaim" {
            // Here nobody takes the protection off a claim that is deleted.
            let unprotected = json!({"metadata": {"finalizers": null}});
            world.patch(kind, name, &unprotected).await;
        }
        world.until_gone(kind, name).await;
    }
    let labelled = ListParams::default().labels(STORE_LABEL);
    let secrets = world.api("Secret").list(&labelled).await.unwrap();
    assert_eq!(secrets.items.len(), 0, "{secrets:?}");
}

#[tokio::test]
async fn a_cluster_that_waits_for_its_servers_writes_nothing() {
    let _peace = peace().await;
    let own = Own::new("store-clustered-steady").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.create(&clustered()).await;
    until_made(world).await;
    until_reason(world, "StoreStarting").await;
    writes_nothing(world, &operator, &CHILDREN).await;
}

#[tokio::test]
async fn shards_are_scaled_as_anything_else_is_and_other_stores_are_not() {
    let (world, _) = World::shared("store-clustered-scale").await;
    world.create(&clustered()).await;
    until_made(&world).await;
    let api = world.api("SessionStore");
    let params = PatchParams::default();
    let four = Patch::Merge(json!({"spec": {"replicas": 4}}));
    api.patch_scale("sessions", &params, &four).await.unwrap();
    world.until("StatefulSet", "sessions-3", "made", |_| true).await;
    let scale = api.get_scale("sessions").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(4));
    let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let error = api.patch_scale("sessions", &params, &two).await.unwrap_err();
    assert!(error.to_string().contains("spec.shards"), "{error}");

    let mut other = store(&json!({"topology": "Replicated"}));
    other["metadata"]["name"] = json!("other");
    world.create(&other).await;
    let error = api.patch_scale("other", &params, &four).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a store of another topology cannot be scaled"),
        "{error}"
    );
}
