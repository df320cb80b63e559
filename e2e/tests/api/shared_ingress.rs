//! ingress-nginx: annotations of an Ingress act on every backend, so policies share them or are refused.

use serde_json::{Value, json};

use crate::world::{World, annotation, deployment, essence, ingress, managed, manager_of, policy, service};

const NAME: &str = "nginx.ingress.kubernetes.io/session-cookie-name";

/// Two applications behind one Ingress.
async fn world(name: &str) -> World {
    let (world, _) = World::shared(name).await;
    for name in ["cart", "shop"] {
        world.create(&deployment(name)).await;
        world.create(&service(name)).await;
    }
    world.create(&ingress("front", "nginx", &["cart", "shop"])).await;
    world
}

fn wish(cookie: &str) -> Value {
    json!({"sharedRoutes": "Allow", "cookie": {"name": cookie}})
}

#[tokio::test]
async fn equal_values_are_owned_by_both_policies_and_stay_until_the_last_one_goes() {
    let world = world("co-own").await;
    let before = essence(&world.get("Ingress", "front").await);
    let mut managers = Vec::new();
    for name in ["cart", "shop"] {
        world.create(&policy(name, name, &wish("s"))).await;
        managers.push(manager_of(&world.until_ready(name).await));
    }
    let both = world.get("Ingress", "front").await;
    for manager in &managers {
        assert!(
            managed(&both, manager).is_some(),
            "{manager} owns nothing: {both}"
        );
    }

    world.delete_policy("shop").await;
    let one = world.get("Ingress", "front").await;
    assert_eq!(annotation(&one, NAME), Some("s"));
    assert_eq!(one["metadata"]["annotations"], both["metadata"]["annotations"]);
    assert!(managed(&one, &managers[1]).is_none(), "{one}");
    world.until_ready("cart").await;

    world.delete_policy("cart").await;
    assert_eq!(essence(&world.get("Ingress", "front").await), before);
}

#[tokio::test]
async fn different_values_are_a_conflict_that_names_the_other_policy_until_it_goes() {
    let world = world("conflict").await;
    world.create(&policy("cart", "cart", &wish("first"))).await;
    world.until_ready("cart").await;
    world.create(&policy("shop", "shop", &wish("second"))).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert!(message.contains("SessionPolicy cart"), "{message}");
    assert!(message.contains("Ingress/front"), "{message}");
    assert!(message.contains("make spec.sticky agree"), "{message}");
    world.until_ready("cart").await;
    assert_eq!(
        annotation(&world.get("Ingress", "front").await, NAME),
        Some("first")
    );

    world.delete_policy("cart").await;
    world.until_ready("shop").await;
    assert_eq!(
        annotation(&world.get("Ingress", "front").await, NAME),
        Some("second")
    );
}

#[tokio::test]
async fn a_shared_ingress_is_left_alone_unless_the_policy_allows_it() {
    let world = world("refuse").await;
    let before = essence(&world.get("Ingress", "front").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "SharedRoute")
        .await;
    assert!(message.contains("Service/cart"), "{message}");
    assert!(message.contains("spec.sticky.sharedRoutes to Allow"), "{message}");
    assert_eq!(essence(&world.get("Ingress", "front").await), before);
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"sticky": {"sharedRoutes": "Allow"}}}),
        )
        .await;
    world.until_ready("shop").await;
}

#[tokio::test]
async fn every_ingress_that_reaches_the_service_gets_the_same_values() {
    let (world, _) = World::shared("several").await;
    world.application("shop", "nginx").await;
    world.create(&ingress("shop-api", "nginx", &["shop"])).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let ready = world.until_ready("shop").await;
    assert_eq!(ready["status"]["affinity"].as_array().unwrap().len(), 2);
    let cookie = |ingress: &Value| annotation(ingress, NAME).map(str::to_owned);
    let first = cookie(&world.get("Ingress", "shop").await);
    assert!(first.is_some());
    assert_eq!(cookie(&world.get("Ingress", "shop-api").await), first);
}
