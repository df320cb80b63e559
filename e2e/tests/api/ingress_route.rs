//! Traefik's own kind: an atomic list, so entries are patched where nobody would undo that, and advised elsewhere.

use serde_json::{Value, json};

use crate::operator::Operator;
use crate::own::{Own, STAGE, alone};
use crate::stage;
use crate::world::{World, deployment, essence, policy, records, service};

/// An IngressRoute with one route for each Service.
fn route(name: &str, services: &[&str]) -> Value {
    let routes: Vec<Value> = services
        .iter()
        .map(|service| {
            json!({
                "match": format!("Host(`{service}.example.org`)"),
                "kind": "Rule",
                "services": [{"name": service, "port": 80}]
            })
        })
        .collect();
    json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": name, "labels": {"team": "shop"}},
        "spec": {"entryPoints": ["web"], "routes": routes}
    })
}

async fn world(name: &str) -> World {
    let (world, _) = World::shared(name).await;
    world.create(&deployment("shop")).await;
    world.create(&service("shop")).await;
    world
}

/// What stands in the entry of a Service.
fn sticky<'a>(route: &'a Value, service: &str) -> &'a Value {
    let routes = route["spec"]["routes"].as_array().unwrap();
    let mut entries = routes
        .iter()
        .flat_map(|route| route["services"].as_array().unwrap());
    &entries.find(|entry| entry["name"] == service).unwrap()["sticky"]
}

fn wish(cookie: &str) -> Value {
    json!({"cookie": {"name": cookie}})
}

#[tokio::test]
async fn a_hand_made_route_is_patched_and_put_back_exactly() {
    let world = world("patched").await;
    world.create(&route("front", &["blog", "shop"])).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world.create(&policy("shop", "shop", &wish("s"))).await;
    let ready = world.until_ready("shop").await;
    let during = world.get("IngressRoute", "front").await;
    assert_eq!(sticky(&during, "shop")["cookie"]["name"], "s");
    assert_eq!(sticky(&during, "blog"), &Value::Null);
    let records = records(&ready).expect("what stood there is recorded on the policy");
    assert_eq!(records[0]["uid"], during["metadata"]["uid"]);
    assert_eq!(ready["status"]["affinity"][0]["writtenTo"], "IngressRoute/front");
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
}

#[tokio::test]
async fn mode_client_ip_sets_the_strategy_of_the_entry_and_takes_it_back() {
    let world = world("hrw").await;
    world.create(&route("front", &["shop"])).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world
        .create(&policy("shop", "shop", &json!({"mode": "ClientIP"})))
        .await;
    let ready = world.until_ready("shop").await;
    assert_eq!(ready["status"]["affinity"][0]["binds"], "Hash");
    let during = world.get("IngressRoute", "front").await;
    assert_eq!(during["spec"]["routes"][0]["services"][0]["strategy"], "hrw");
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
}

#[tokio::test]
async fn a_value_that_the_owner_chose_is_a_conflict_until_both_agree() {
    let world = world("former").await;
    let mut object = route("front", &["shop"]);
    object["spec"]["routes"][0]["services"][0]["sticky"] = wish("theirs");
    world.create(&object).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world.create(&policy("shop", "shop", &wish("ours"))).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert!(
        message.contains("IngressRoute/front") && message.contains("theirs"),
        "{message}"
    );
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
}

#[tokio::test]
async fn a_wish_that_changes_is_followed_and_the_first_state_comes_back() {
    let world = world("wishes").await;
    world.create(&route("front", &["shop"])).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world.create(&policy("shop", "shop", &wish("first"))).await;
    world.until_ready("shop").await;
    for (sticky, pointer, value) in [
        (wish("second"), "/sticky/cookie/name", json!("second")),
        (
            json!({"mode": "ClientIP", "cookie": null}),
            "/strategy",
            json!("hrw"),
        ),
        (
            json!({"mode": "Cookie", "cookie": {"name": "third"}}),
            "/sticky/cookie/name",
            json!("third"),
        ),
    ] {
        world
            .patch("SessionPolicy", "shop", &json!({"spec": {"sticky": sticky}}))
            .await;
        world.until_ready("shop").await;
        let route = world.get("IngressRoute", "front").await;
        let entry = &route["spec"]["routes"][0]["services"][0];
        assert_eq!(entry.pointer(pointer), Some(&value), "{entry}");
        let other = if pointer == "/strategy" {
            "sticky"
        } else {
            "strategy"
        };
        assert_eq!(entry.get(other), None, "left over: {entry}");
    }
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
}

#[tokio::test]
async fn an_entry_is_found_again_where_its_owner_moved_it() {
    let world = world("moved").await;
    world.create(&route("front", &["blog", "shop"])).await;
    world.create(&policy("shop", "shop", &wish("s"))).await;
    world.until_ready("shop").await;
    world
        .replace("IngressRoute", "front", |object| {
            object["spec"]["routes"].as_array_mut().unwrap().reverse();
        })
        .await;
    world.until_ready("shop").await;
    world.delete_policy("shop").await;
    let after = world.get("IngressRoute", "front").await;
    assert_eq!(after["spec"], route("front", &["shop", "blog"])["spec"]);
}

#[tokio::test]
async fn a_value_that_was_changed_while_the_policy_was_suspended_stays_with_who_changed_it() {
    let world = world("changed").await;
    world.create(&route("front", &["shop"])).await;
    world.create(&policy("shop", "shop", &wish("s"))).await;
    world.until_ready("shop").await;
    world
        .patch("SessionPolicy", "shop", &json!({"spec": {"suspend": true}}))
        .await;
    world
        .until("SessionPolicy", "shop", "suspension noticed", |policy| {
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
        })
        .await;
    let theirs = json!({"cookie": {"name": "theirs"}});
    world
        .replace("IngressRoute", "front", |object| {
            object["spec"]["routes"][0]["services"][0]["sticky"] = theirs.clone();
        })
        .await;
    world
        .until_refused("shop", "AffinityConfigured", "Suspended")
        .await;
    world.delete_policy("shop").await;
    assert_eq!(sticky(&world.get("IngressRoute", "front").await, "shop"), &theirs);
}

#[tokio::test]
async fn a_value_that_was_overwritten_since_is_a_conflict_and_not_fought_over() {
    let world = world("since").await;
    world.create(&route("front", &["shop"])).await;
    world.create(&policy("shop", "shop", &wish("s"))).await;
    world.until_ready("shop").await;
    let theirs = json!({"cookie": {"name": "theirs"}});
    world
        .replace("IngressRoute", "front", |object| {
            object["spec"]["routes"][0]["services"][0]["sticky"] = theirs.clone();
        })
        .await;
    world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert_eq!(sticky(&world.get("IngressRoute", "front").await, "shop"), &theirs);
    world.delete_policy("shop").await;
    assert_eq!(sticky(&world.get("IngressRoute", "front").await, "shop"), &theirs);
}

/// Adds to the entry of the Service what the message of a refusal says.
fn follow(advice: &str, object: &mut Value) {
    let yaml = advice.split_once("add:\n").expect("the message has YAML").1;
    let fields: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    let entry = object["spec"]["routes"][0]["services"][0]
        .as_object_mut()
        .unwrap();
    entry.extend(fields.as_object().unwrap().clone());
}

#[tokio::test]
async fn a_route_that_another_manager_applies_is_advised_and_configured_once_the_advice_is_followed() {
    let world = world("advised").await;
    let mut object = route("front", &["shop"]);
    world.apply("flux", &object).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world
        .create(&policy(
            "shop",
            "shop",
            &json!({"cookie": {"name": "s", "sameSite": "Lax"}}),
        ))
        .await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "ManualChangeNeeded")
        .await;
    assert!(message.contains("field manager flux applies it"), "{message}");
    assert!(
        message.contains("spec.routes[0].services[0] (Service shop, port 80)"),
        "{message}"
    );
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);

    follow(&message, &mut object);
    world.apply("flux", &object).await;
    let ready = world.until_ready("shop").await;
    assert_eq!(ready["status"]["affinity"][0]["binds"], "Pod");
    assert_eq!(records(&ready), None);
    // It is the owner's setting: deletion leaves it.
    let stands = essence(&world.get("IngressRoute", "front").await);
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("IngressRoute", "front").await), stands);
}

#[tokio::test]
async fn a_route_that_helm_keeps_is_advised() {
    let world = world("helm").await;
    let mut object = route("front", &["shop"]);
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
    object["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "shop"});
    world.create(&object).await;
    let before = essence(&world.get("IngressRoute", "front").await);
    world.create(&policy("shop", "shop", &wish("s"))).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "ManualChangeNeeded")
        .await;
    assert!(message.contains("Helm keeps it"), "{message}");
    assert_eq!(essence(&world.get("IngressRoute", "front").await), before);
    world
        .replace("IngressRoute", "front", |object| follow(&message, object))
        .await;
    world.until_ready("shop").await;
}

#[tokio::test]
async fn a_route_of_another_namespace_is_reported_and_never_written() {
    let world = world("elsewhere").await;
    Operator::shared().await;
    let other = World::on(&stage::MAIN, "gateway").await;
    let mut object = route("front", &["shop"]);
    object["spec"]["routes"][0]["services"][0]["namespace"] = json!(world.namespace);
    other.create(&object).await;
    let before = other.get("IngressRoute", "front").await;
    world.create(&route("own", &["shop"])).await;
    world.create(&policy("shop", "shop", &wish("s"))).await;
    let ready = world.until_ready("shop").await;
    let routes = ready["status"]["affinity"].as_array().unwrap();
    let reported = routes
        .iter()
        .find(|entry| entry["namespace"] == other.namespace.as_str())
        .unwrap();
    assert_eq!(reported["binds"], "None");
    assert!(
        reported["notes"][0].as_str().unwrap().contains("never written"),
        "{reported}"
    );
    assert_eq!(other.get("IngressRoute", "front").await, before);
}

#[tokio::test]
async fn the_kind_is_picked_up_when_its_crd_appears_and_given_up_when_it_goes() {
    let _alone = alone().await;
    let crd = "ingressroutes.traefik.io";
    STAGE.delete_crd(crd);
    let own = Own::new("later").await;
    let world = &own.world;
    let mut operator = own.start_leader().await;
    world.create(&deployment("shop")).await;
    world.create(&service("shop")).await;
    world.create(&policy("shop", "shop", &wish("s"))).await;
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;

    STAGE.apply_manifests(&stage::cluster_manifest("traefik-crds.yaml"));
    STAGE.until_served(crd);
    world.create(&route("front", &["shop"])).await;
    world.until_ready("shop").await;
    assert_eq!(
        sticky(&world.get("IngressRoute", "front").await, "shop")["cookie"]["name"],
        "s"
    );
    let before = operator.reconciles().await;
    operator.until_reconciled(before, 0.0).await;
    let written = operator.writes().len();
    let change = json!({"metadata": {"labels": {"tier": "front"}}});
    world.patch("IngressRoute", "front", &change).await;
    operator.until_reconciled(before, 1.0).await;
    crate::audit::assert_none("written for a foreign label", &operator.writes()[written..]);

    STAGE.delete_crd(crd);
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;
    assert!(operator.is_running(), "it was restarted or ended");
    world.delete_policy("shop").await;
    operator.stop().await;
}
