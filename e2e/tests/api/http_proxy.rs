//! Contour's own kind: an atomic list, so entries are patched where nobody would undo that, and advised elsewhere.

use serde_json::{Value, json};

use crate::operator::{HTTP_PROXY_CRD, Operator};
use crate::own::{Own, STAGE, alone};
use crate::stage;
use crate::world::{World, deployment, essence, policy, records, service};

/// An HTTPProxy with one route for each Service, told apart by their prefix.
fn proxy(name: &str, services: &[&str]) -> Value {
    let routes: Vec<Value> = services
        .iter()
        .map(|service| {
            json!({
                "conditions": [{"prefix": format!("/{service}")}],
                "services": [{"name": service, "port": 80}]
            })
        })
        .collect();
    json!({
        "apiVersion": "projectcontour.io/v1",
        "kind": "HTTPProxy",
        "metadata": {"name": name, "labels": {"team": "shop"}},
        "spec": {"virtualhost": {"fqdn": "shop.example.org"}, "routes": routes}
    })
}

async fn world(name: &str) -> World {
    let (world, _) = World::shared(name).await;
    world.create(&deployment("shop")).await;
    world.create(&service("shop")).await;
    world
}

/// What stands in the route to a Service.
fn balancing<'a>(proxy: &'a Value, service: &str) -> &'a Value {
    let routes = proxy["spec"]["routes"].as_array().unwrap();
    let mut routes = routes.iter();
    &routes
        .find(|route| route["services"][0]["name"] == service)
        .unwrap()["loadBalancerPolicy"]
}

fn by_address() -> Value {
    json!({"strategy": "RequestHash", "requestHashPolicies": [{"hashSourceIP": true, "terminal": true}]})
}

#[tokio::test]
async fn a_hand_made_proxy_is_patched_and_put_back_exactly() {
    let world = world("proxy-patched").await;
    world.create(&proxy("front", &["blog", "shop"])).await;
    let before = essence(&world.get("HTTPProxy", "front").await);
    world.create(&policy("shop", "shop", &json!({}))).await;
    let ready = world.until_ready("shop").await;
    let during = world.get("HTTPProxy", "front").await;
    assert_eq!(balancing(&during, "shop"), &json!({"strategy": "Cookie"}));
    assert_eq!(balancing(&during, "blog"), &Value::Null);
    let records = records(&ready).expect("what stood there is recorded on the policy");
    assert_eq!(records[0]["uid"], during["metadata"]["uid"]);
    let affinity = &ready["status"]["affinity"][0];
    assert_eq!(affinity["controller"], "Contour");
    assert_eq!(affinity["writtenTo"], "HTTPProxy/front");
    assert_eq!(affinity["binds"], "Hash");
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), before);
}

#[tokio::test]
async fn a_mode_that_changes_is_followed_and_the_first_state_comes_back() {
    let world = world("proxy-modes").await;
    world.create(&proxy("front", &["shop"])).await;
    let before = essence(&world.get("HTTPProxy", "front").await);
    world.create(&policy("shop", "shop", &json!({}))).await;
    for (mode, expected) in [
        ("Cookie", json!({"strategy": "Cookie"})),
        ("ClientIP", by_address()),
        ("Cookie", json!({"strategy": "Cookie"})),
    ] {
        world
            .patch(
                "SessionPolicy",
                "shop",
                &json!({"spec": {"sticky": {"mode": mode}}}),
            )
            .await;
        world.until_ready("shop").await;
        let during = world.get("HTTPProxy", "front").await;
        assert_eq!(balancing(&during, "shop"), &expected, "{mode}");
    }
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), before);
}

#[tokio::test]
async fn a_strategy_that_the_owner_chose_is_a_conflict_until_both_agree() {
    let world = world("proxy-former").await;
    let mut object = proxy("front", &["shop"]);
    object["spec"]["routes"][0]["loadBalancerPolicy"] = json!({"strategy": "WeightedLeastRequest"});
    world.create(&object).await;
    let before = essence(&world.get("HTTPProxy", "front").await);
    world.create(&policy("shop", "shop", &json!({}))).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert!(
        message.contains("HTTPProxy/front") && message.contains("WeightedLeastRequest"),
        "{message}"
    );
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), before);

    world
        .replace("HTTPProxy", "front", |object| {
            object["spec"]["routes"][0]["loadBalancerPolicy"] = json!({"strategy": "Cookie"});
        })
        .await;
    let stands = essence(&world.get("HTTPProxy", "front").await);
    let ready = world.until_ready("shop").await;
    assert_eq!(records(&ready), None, "it is the owner's setting");
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), stands);
}

#[tokio::test]
async fn a_route_is_found_again_where_its_owner_moved_it() {
    let world = world("proxy-moved").await;
    world.create(&proxy("front", &["blog", "shop"])).await;
    world.create(&policy("shop", "shop", &json!({}))).await;
    world.until_ready("shop").await;
    world
        .replace("HTTPProxy", "front", |object| {
            object["spec"]["routes"].as_array_mut().unwrap().reverse();
        })
        .await;
    world.until_ready("shop").await;
    world.delete_policy("shop").await;
    let after = world.get("HTTPProxy", "front").await;
    assert_eq!(after["spec"], proxy("front", &["shop", "blog"])["spec"]);
}

#[tokio::test]
async fn a_proxy_that_another_manager_applies_is_advised_and_configured_once_the_advice_is_followed() {
    let world = world("proxy-advised").await;
    let mut object = proxy("front", &["shop"]);
    world.apply("flux", &object).await;
    let before = essence(&world.get("HTTPProxy", "front").await);
    world
        .create(&policy("shop", "shop", &json!({"mode": "ClientIP"})))
        .await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "ManualChangeNeeded")
        .await;
    assert!(message.contains("field manager flux applies it"), "{message}");
    assert!(
        message.contains("spec.routes[0] (Service shop, port 80)"),
        "{message}"
    );
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), before);

    let yaml = message.split_once("add:\n").expect("the message has YAML").1;
    let fields: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    assert_eq!(fields["loadBalancerPolicy"], by_address());
    object["spec"]["routes"][0]["loadBalancerPolicy"] = fields["loadBalancerPolicy"].clone();
    world.apply("flux", &object).await;
    let ready = world.until_ready("shop").await;
    assert_eq!(records(&ready), None);
    let stands = essence(&world.get("HTTPProxy", "front").await);
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("HTTPProxy", "front").await), stands);
}

#[tokio::test]
async fn a_proxy_of_another_namespace_leads_to_its_own_services_and_is_none_of_ours() {
    let world = world("proxy-elsewhere").await;
    Operator::shared().await;
    let other = World::on(&stage::MAIN, "proxy-gateway").await;
    other.create(&proxy("front", &["shop"])).await;
    let before = other.get("HTTPProxy", "front").await;
    world.create(&proxy("own", &["shop"])).await;
    world.create(&policy("shop", "shop", &json!({}))).await;
    let ready = world.until_ready("shop").await;
    let routes = ready["status"]["affinity"].as_array().unwrap();
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(other.get("HTTPProxy", "front").await, before);
}

#[tokio::test]
async fn the_kind_is_picked_up_when_its_crd_appears_and_given_up_when_it_goes() {
    let _alone = alone().await;
    let crd = "httpproxies.projectcontour.io";
    STAGE.delete_crd(crd);
    let own = Own::new("proxy-later").await;
    let world = &own.world;
    let mut operator = own.start_leader().await;
    world.create(&deployment("shop")).await;
    world.create(&service("shop")).await;
    world.create(&policy("shop", "shop", &json!({}))).await;
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;

    STAGE.apply_manifests(HTTP_PROXY_CRD);
    STAGE.until_served(crd);
    world.create(&proxy("front", &["shop"])).await;
    world.until_ready("shop").await;
    assert_eq!(
        balancing(&world.get("HTTPProxy", "front").await, "shop"),
        &json!({"strategy": "Cookie"})
    );

    STAGE.delete_crd(crd);
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;
    assert!(operator.is_running(), "it was restarted or ended");
    world.delete_policy("shop").await;
    operator.stop().await;
}
