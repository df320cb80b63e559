//! What the operator makes of a SessionStore with topology Replicated. No pod starts here, so no server becomes primary.

use kube::api::ListParams;
use serde_json::{Value, json};
use session_operator::api::STORE_LABEL;

use crate::own::{Own, peace};
use crate::stores::{store, until_reason, writes_nothing};
use crate::world::{World, condition};

/// What belongs to a store with one replica and volumes.
const CHILDREN: [(&str, &str); 11] = [
    ("StatefulSet", "sessions"),
    ("Service", "sessions"),
    ("Service", "sessions-members"),
    ("PodDisruptionBudget", "sessions"),
    ("PersistentVolumeClaim", "data-sessions-0"),
    ("PersistentVolumeClaim", "data-sessions-1"),
    ("Secret", "sessions-admin"),
    ("Secret", "sessions-replication"),
    ("Secret", "sessions-users"),
    ("Secret", "sessions-ca"),
    ("Secret", "sessions-tls"),
];

fn replicated() -> Value {
    store(
        &json!({"topology": "Replicated", "replicas": 1, "persistence": {"size": "1Gi"}, "deletionPolicy": "Delete"}),
    )
}

async fn until_made(world: &World) -> Vec<Value> {
    let mut children = Vec::new();
    for (kind, name) in CHILDREN {
        children.push(world.until(kind, name, "made", |_| true).await);
    }
    children
}

#[tokio::test]
async fn clients_are_led_to_the_primary_and_everything_goes_with_the_store() {
    let (world, _) = World::shared("store-replicated").await;
    let created = world.create(&replicated()).await;
    let children = until_made(&world).await;
    for child in &children {
        let labels = &child["metadata"]["labels"];
        assert_eq!(labels[STORE_LABEL], "sessions", "{child}");
        assert_eq!(
            labels["session-operator.dev/store-uid"], created["metadata"]["uid"],
            "{child}"
        );
    }
    let (set, service, members) = (&children[0], &children[1], &children[2]);
    assert_eq!(set["spec"]["replicas"], 2);
    assert_eq!(set["spec"]["serviceName"], "sessions-members");
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    assert_eq!(
        service["spec"]["selector"]["session-operator.dev/role"],
        "primary"
    );
    assert_eq!(members["spec"]["clusterIP"], "None");
    // The first look may come before anybody has said which pods there are to be.
    world
        .until("SessionStore", "sessions", "told which pod is missing", |store| {
            condition(store, "Ready").is_some_and(|ready| {
                let message = ready["message"].as_str().unwrap_or_default();
                ready["reason"] == "StoreStarting" && message.contains("sessions-0")
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
async fn a_store_that_waits_for_its_servers_writes_nothing() {
    let _peace = peace().await;
    let own = Own::new("store-replicated-steady").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.create(&replicated()).await;
    until_made(world).await;
    until_reason(world, "StoreStarting").await;
    writes_nothing(world, &operator, &CHILDREN).await;
}

#[tokio::test]
async fn volumes_grow_and_are_neither_added_nor_removed() {
    let (world, _) = World::shared("store-replicated-volumes").await;
    world.create(&replicated()).await;
    until_made(&world).await;
    let api = world.api("SessionStore");
    let params = kube::api::PatchParams::default();
    let removed = kube::api::Patch::Merge(json!({"spec": {"persistence": null}}));
    let error = api.patch("sessions", &params, &removed).await.unwrap_err();
    assert!(
        error.to_string().contains("can be neither added nor removed"),
        "{error}"
    );
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"spec": {"persistence": {"size": "2Gi"}, "replicas": 2}}),
        )
        .await;
    // The claim of the server that comes has the new size, and the StatefulSet, whose own claim cannot change, is written.
    let size = "/spec/resources/requests/storage";
    world
        .until("PersistentVolumeClaim", "data-sessions-2", "2Gi", |claim| {
            claim.pointer(size) == Some(&json!("2Gi"))
        })
        .await;
    let set = world
        .until("StatefulSet", "sessions", "three servers", |set| {
            set["spec"]["replicas"] == 3
        })
        .await;
    let template = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(template.pointer(size), Some(&json!("1Gi")));
}
