//! A store is not deleted while policies keep sessions in it. The API server refuses that by itself.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::stores::{sharing, store};
use crate::wait::until;
use crate::world::{World, deployment};

/// Tries to delete the store; the refusal, if there is one.
async fn refusal(world: &World, name: &str) -> Option<String> {
    match world
        .api("SessionStore")
        .delete(name, &DeleteParams::default())
        .await
    {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 403 => {
            Some(status.message.clone())
        }
        Err(error) => panic!("{error}"),
    }
}

/// Waits until deletion is refused: admission learns of policies a moment after they are made.
async fn until_refused(world: &World, name: &str) -> String {
    let dry = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    until("deletion to be refused", || async {
        match world.api("SessionStore").delete(name, &dry).await {
            Ok(_) => Err("it would be deleted".to_owned()),
            Err(error) => Ok(error.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_store_in_use_names_the_policy_that_is_in_the_way() {
    let (world, _) = World::shared("in-use").await;
    world.create(&store(&json!({"deletionPolicy": "Retain"}))).await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", Some("basket"))).await;
    until_refused(&world, "sessions").await;
    let said = refusal(&world, "sessions").await.unwrap();
    assert!(
        said.contains("SessionPolicy shop keeps its sessions in SessionStore sessions"),
        "{said}"
    );
    world.get("SessionStore", "sessions").await;

    // A policy that uses another store is in nobody's way.
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"shared": {"storeRef": {"name": "other"}}}}),
        )
        .await;
    until("deletion to be allowed", || async {
        refusal(&world, "sessions").await.map_or(Ok(()), Err)
    })
    .await;
    world.until_gone("SessionStore", "sessions").await;
}

#[tokio::test]
async fn a_store_that_a_policy_has_made_is_in_use_too() {
    let (world, _) = World::shared("in-use-inline").await;
    let mut policy = sharing("shop", None);
    policy["spec"]["shared"] = json!({"store": {"memory": "128Mi", "deletionPolicy": "Delete"}});
    world.create(&deployment("shop")).await;
    world.create(&policy).await;
    world
        .until("SessionStore", "shop-sessions", "made", |_| true)
        .await;
    let said = until_refused(&world, "shop-sessions").await;
    assert!(said.contains("SessionPolicy shop keeps"), "{said}");

    // Detaching suspends the policy and then removes its store.
    world
        .patch("SessionPolicy", "shop", &json!({"spec": {"suspend": true}}))
        .await;
    until("deletion to be allowed", || async {
        refusal(&world, "shop-sessions").await.map_or(Ok(()), Err)
    })
    .await;
    world.until_gone("SessionStore", "shop-sessions").await;
}

#[tokio::test]
async fn a_policy_of_another_strategy_is_not_in_the_way() {
    let (world, _) = World::shared("in-use-sticky").await;
    world.create(&store(&json!({}))).await;
    let mut policy = sharing("shop", None);
    policy["spec"]["strategy"] = json!("Sticky");
    world.create(&policy).await;
    assert_eq!(refusal(&world, "sessions").await, None);
}

#[tokio::test]
async fn a_namespace_goes_with_its_stores_and_policies() {
    let (world, _) = World::shared("in-use-namespace").await;
    world.create(&store(&json!({"deletionPolicy": "Delete"}))).await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    until_refused(&world, "sessions").await;
    world.delete("Namespace", &world.namespace).await;
    world
        .until("Namespace", &world.namespace, "Terminating", |namespace| {
            namespace["status"]["phase"] == "Terminating"
        })
        .await;
    // As the namespace controller does, which does not run here: the store first.
    until("deletion to be allowed", || async {
        refusal(&world, "sessions").await.map_or(Ok(()), Err)
    })
    .await;
    world.until_gone("SessionStore", "sessions").await;
}

#[tokio::test]
async fn a_store_that_is_removed_waits_for_the_end_of_its_policies() {
    let (world, _) = World::shared("in-use-together").await;
    world.create(&store(&json!({"deletionPolicy": "Delete"}))).await;
    let mut policy = sharing("shop", None);
    // Somebody else holds the policy a little longer.
    policy["metadata"]["finalizers"] = json!(["example.org/slow"]);
    world.create(&deployment("shop")).await;
    world.create(&policy).await;
    world
        .until("Secret", "sessions-user-shop", "made", |_| true)
        .await;
    world.delete("SessionPolicy", "shop").await;
    until("deletion to be allowed", || async {
        refusal(&world, "sessions").await.map_or(Ok(()), Err)
    })
    .await;
    let waits = world
        .until("SessionStore", "sessions", "waiting", |store| {
            let conditions = store["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|ready| ready["reason"] == "Deleting"))
        })
        .await;
    let message = waits["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("SessionPolicy shop still keeps sessions here"),
        "{message}"
    );
    world.get("Secret", "sessions-user-shop").await;
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"metadata": {"finalizers": Value::Null}}),
        )
        .await;
    world.until_gone("SessionStore", "sessions").await;
    world.until_gone("Secret", "sessions-user-shop").await;
}
