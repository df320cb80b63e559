//! What the API server accepts and refuses by the schema and rules of the custom resource, and with which words.

use kube::core::Status;
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::stage;
use crate::world::{World, policy};

/// A namespace in which policies are made that no operator has to do anything about: their target does not exist.
async fn world(name: &str) -> World {
    Operator::shared().await;
    World::on(&stage::MAIN, name).await
}

async fn refusal(world: &World, object: &Value) -> Status {
    match world.try_create(object, "Strict").await {
        Err(kube::Error::Api(status)) => *status,
        Err(error) => panic!("{object}: {error}"),
        Ok(_) => panic!("accepted: {object}"),
    }
}

/// Expects that a policy with `sticky` is refused, in words that contain `words`.
async fn refuses(world: &World, sticky: &Value, words: &str) {
    let status = refusal(world, &policy("p", "shop", sticky)).await;
    assert!(status.message.contains(words), "{sticky}: {}", status.message);
}

/// Expects that a policy with `sticky` is accepted, and removes it again.
async fn accepts(world: &World, sticky: &Value) {
    world.create(&policy("p", "shop", sticky)).await;
    world.delete_policy("p").await;
}

fn cookie(cookie: &Value) -> Value {
    json!({ "cookie": cookie })
}

#[tokio::test]
async fn names_are_dns_labels_of_at_most_40_characters_that_start_with_a_letter() {
    let world = world("names").await;
    let longest = "a".repeat(40);
    for good in ["a", "shop-2", longest.as_str()] {
        world.create(&policy(good, "shop", &Value::Null)).await;
    }
    let too_long = "a".repeat(41);
    for bad in [too_long.as_str(), "2shop", "shop.web"] {
        let status = refusal(&world, &policy(bad, "shop", &Value::Null)).await;
        assert!(
            status
                .message
                .contains("use at most 40 characters, a-z, 0-9 and '-'"),
            "{bad}: {}",
            status.message
        );
    }
}

#[tokio::test]
async fn the_target_is_required_immutable_and_of_a_kind_that_is_supported() {
    let world = world("target").await;
    world.create(&policy("p", "shop", &Value::Null)).await;
    let change = json!({"spec": {"targetRef": {"name": "other"}}});
    let api = world.api("SessionPolicy");
    let params = kube::api::PatchParams::default();
    let error = api
        .patch("p", &params, &kube::api::Patch::Merge(&change))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("create one for the other target"),
        "{error}"
    );
    // What is not the target may change.
    world
        .patch("SessionPolicy", "p", &json!({"spec": {"suspend": true}}))
        .await;

    let with_target = |target: Value| {
        let mut object = policy("q", "shop", &Value::Null);
        object["spec"]["targetRef"] = target;
        object
    };
    for (target, words) in [
        (json!({}), "spec.targetRef.name: Required value"),
        (json!({"name": ""}), "spec.targetRef.name"),
        (json!({"name": "x".repeat(254)}), "spec.targetRef.name"),
        (
            json!({"name": "shop", "kind": "StatefulSet"}),
            "supported values: \"Deployment\"",
        ),
        (
            json!({"name": "shop", "apiVersion": "apps/v1beta1"}),
            "supported values: \"apps/v1\"",
        ),
    ] {
        let status = refusal(&world, &with_target(target.clone())).await;
        assert!(status.message.contains(words), "{target}: {}", status.message);
    }
}

#[tokio::test]
async fn only_strategies_that_work_are_accepted() {
    let world = world("strategy").await;
    let mut object = policy("p", "shop", &Value::Null);
    object["spec"]["strategy"] = json!("Persistent");
    let status = refusal(&world, &object).await;
    assert!(
        status
            .message
            .contains("supported values: \"Sticky\", \"Replicated\", \"Shared\""),
        "{}",
        status.message
    );
    object["spec"].as_object_mut().unwrap().remove("strategy");
    let status = refusal(&world, &object).await;
    assert!(
        status.message.contains("spec.strategy: Required value"),
        "{}",
        status.message
    );
}

#[tokio::test]
async fn same_site_none_needs_secure() {
    let world = world("samesite").await;
    let words = "set cookie.secure to true, or cookie.sameSite to Lax or Strict";
    refuses(&world, &cookie(&json!({"sameSite": "None"})), words).await;
    refuses(
        &world,
        &cookie(&json!({"sameSite": "None", "secure": false})),
        words,
    )
    .await;
    refuses(
        &world,
        &cookie(&json!({"sameSite": "none", "secure": true})),
        "supported values",
    )
    .await;
    accepts(&world, &cookie(&json!({"sameSite": "None", "secure": true}))).await;
    accepts(&world, &cookie(&json!({"sameSite": "Lax"}))).await;
    accepts(&world, &cookie(&json!({"sameSite": "Strict", "secure": false}))).await;
}

#[tokio::test]
async fn cookie_name_prefixes_demand_what_browsers_demand() {
    let world = world("prefixes").await;
    let host = "__Host- needs cookie.secure true, cookie.path / and no cookie.domain";
    refuses(&world, &cookie(&json!({"name": "__Host-s"})), host).await;
    refuses(
        &world,
        &cookie(&json!({"name": "__Host-s", "secure": true, "path": "/shop"})),
        host,
    )
    .await;
    refuses(
        &world,
        &cookie(&json!({"name": "__Host-s", "secure": true, "domain": "example.org"})),
        host,
    )
    .await;
    accepts(&world, &cookie(&json!({"name": "__Host-s", "secure": true}))).await;
    let secure = "__Secure- needs cookie.secure true";
    refuses(&world, &cookie(&json!({"name": "__Secure-s"})), secure).await;
    refuses(
        &world,
        &cookie(&json!({"name": "__Secure-s", "secure": false})),
        secure,
    )
    .await;
    accepts(
        &world,
        &cookie(&json!({"name": "__Secure-s", "secure": true, "domain": "example.org"})),
    )
    .await;
}

#[tokio::test]
async fn mode_and_controller_have_to_fit_together() {
    let world = world("modes").await;
    let unused = "remove sticky.cookie, or set sticky.mode to Cookie";
    refuses(&world, &json!({"mode": "ClientIP", "cookie": {}}), unused).await;
    let service = "with sticky.controller Service set sticky.mode to ClientIP";
    refuses(&world, &json!({"controller": "Service"}), service).await;
    refuses(
        &world,
        &json!({"controller": "Service", "mode": "Cookie"}),
        service,
    )
    .await;
    refuses(
        &world,
        &json!({"controller": "Nginx"}),
        "supported values: \"Auto\"",
    )
    .await;
    refuses(
        &world,
        &json!({"mode": "Header"}),
        "supported values: \"Cookie\", \"ClientIP\"",
    )
    .await;
    refuses(
        &world,
        &json!({"sharedRoutes": "Perhaps"}),
        "supported values: \"Refuse\", \"Allow\"",
    )
    .await;
    accepts(&world, &json!({"mode": "ClientIP"})).await;
    accepts(&world, &json!({"mode": "ClientIP", "controller": "Service"})).await;
    accepts(&world, &json!({"mode": "ClientIP", "controller": "Contour"})).await;
    accepts(
        &world,
        &json!({"mode": "Cookie", "controller": "IngressNginx", "cookie": {}}),
    )
    .await;
}

#[tokio::test]
async fn hostile_cookie_attributes_are_refused() {
    let world = world("hostile").await;
    for (bad, words) in [
        (json!({"name": ""}), "cookie.name"),
        (json!({"name": "a b"}), "cookie.name"),
        (json!({"name": "a;Path=/admin"}), "cookie.name"),
        (json!({"name": "a\r\nSet-Cookie: x"}), "cookie.name"),
        (json!({"name": "größe"}), "cookie.name"),
        (json!({"name": "$(id)"}), "cookie.name"),
        (json!({"name": "n".repeat(65)}), "cookie.name"),
        (json!({"path": ""}), "cookie.path"),
        (json!({"path": "shop"}), "cookie.path"),
        (json!({"path": "/a;Domain=example.org"}), "cookie.path"),
        (json!({"path": "/a\"; }\nlocation / {"}), "cookie.path"),
        (json!({"path": format!("/{}", "p".repeat(1024))}), "cookie.path"),
        (json!({"domain": ""}), "cookie.domain"),
        (json!({"domain": "exa mple.org"}), "cookie.domain"),
        (json!({"domain": "example.org; Secure"}), "cookie.domain"),
        (json!({"domain": "-example.org"}), "cookie.domain"),
        (json!({"domain": "d".repeat(254)}), "cookie.domain"),
        (json!({"secure": "yes"}), "cookie.secure"),
    ] {
        refuses(&world, &cookie(&bad), words).await;
    }
    accepts(&world, &cookie(&json!({"name": "n".repeat(64)}))).await;
    accepts(
        &world,
        &cookie(&json!({"path": format!("/{}", "p".repeat(1023)), "domain": ".example.org"})),
    )
    .await;
}

#[tokio::test]
async fn negative_and_huge_numbers_are_refused() {
    let world = world("numbers").await;
    for (bad, words) in [
        (json!({"drainSeconds": -1}), "drainSeconds"),
        (json!({"drainSeconds": 3601}), "drainSeconds"),
        (json!({"drainSeconds": i64::MAX}), "drainSeconds"),
        (json!({"drainSeconds": 1.5}), "drainSeconds"),
        (json!({"drainSeconds": "30"}), "drainSeconds"),
        (cookie(&json!({"maxAgeSeconds": -1})), "maxAgeSeconds"),
        (cookie(&json!({"maxAgeSeconds": 34_560_001})), "maxAgeSeconds"),
        (cookie(&json!({"maxAgeSeconds": u64::MAX})), "maxAgeSeconds"),
    ] {
        refuses(&world, &bad, words).await;
    }
    accepts(
        &world,
        &json!({"drainSeconds": 3600, "cookie": {"maxAgeSeconds": 34_560_000}}),
    )
    .await;
}

#[tokio::test]
async fn unknown_fields_are_refused_where_the_client_asks_for_it_and_dropped_elsewhere() {
    let world = world("unknown").await;
    refuses(
        &world,
        &json!({"cookies": {}}),
        "unknown field \"spec.sticky.cookies\"",
    )
    .await;
    refuses(
        &world,
        &cookie(&json!({"samesite": "Lax"})),
        "unknown field \"spec.sticky.cookie.samesite\"",
    )
    .await;
    let mut object = policy("p", "shop", &json!({"cookies": {"name": "x".repeat(100_000)}}));
    object["spec"]["replicas"] = json!(3);
    let stored = world.try_create(&object, "Ignore").await.unwrap();
    assert_eq!(stored["spec"].get("replicas"), None);
    assert_eq!(stored["spec"]["sticky"].get("cookies"), None);
}

#[tokio::test]
async fn defaults_are_written_out() {
    let world = world("defaults").await;
    let stored = world.create(&policy("p", "shop", &cookie(&json!({})))).await;
    assert_eq!(
        stored["spec"],
        json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "strategy": "Sticky",
            "suspend": false,
            "rollout": "Automatic",
            "sticky": {
                "mode": "Cookie", "controller": "Auto", "drainSeconds": 0, "sharedRoutes": "Refuse",
                "cookie": {"path": "/", "maxAgeSeconds": 0, "httpOnly": true}
            }
        })
    );
}

/// A policy with strategy Shared.
fn sharing(shared: &Value) -> Value {
    let mut object = policy("p", "shop", &Value::Null);
    object["spec"]["strategy"] = json!("Shared");
    if !shared.is_null() {
        object["spec"]["shared"] = shared.clone();
    }
    object
}

#[tokio::test]
async fn strategy_shared_needs_exactly_one_place() {
    let world = world("shared").await;
    for (shared, words) in [
        (Value::Null, "strategy Shared needs spec.shared"),
        (json!({}), "exactly one of storeRef"),
        (
            json!({"store": {}, "storeRef": {"name": "sessions"}}),
            "exactly one of storeRef",
        ),
        (json!({"storeRef": {"name": ""}}), "storeRef.name"),
        (
            json!({"storeRef": {"name": "s", "keyPrefix": "a:b"}}),
            "keyPrefix",
        ),
        (
            json!({"store": {"engine": "Mongo"}}),
            "supported values: \"Valkey\", \"Redis\", \"Memcached\"",
        ),
        (
            json!({"store": {"engine": "Memcached"}}),
            "set spec.tls to Disabled",
        ),
        (
            json!({"store": {"engine": "Memcached", "tls": "Disabled", "topology": "Replicated"}}),
            "set spec.topology to Standalone",
        ),
        (
            json!({"store": {"engine": "Memcached", "tls": "Disabled", "persistence": {"size": "1Gi"}}}),
            "keeps sessions in memory only",
        ),
        (
            json!({"store": {"replicas": 2}}),
            "set spec.topology to Replicated",
        ),
        (
            json!({"store": {"topology": "Replicated", "replicas": 9}}),
            "spec.shared.store.replicas",
        ),
        (
            json!({"store": {"shards": 3}}),
            "a store of another topology cannot be scaled",
        ),
        (
            json!({"store": {"topology": "Cluster", "shards": 2}}),
            "spec.shared.store.shards",
        ),
        (
            json!({"store": {"topology": "Cluster", "replicas": 2}}),
            "set spec.topology to Replicated",
        ),
        (json!({"external": {}}), "secretRef: Required value"),
    ] {
        let status = refusal(&world, &sharing(&shared)).await;
        assert!(status.message.contains(words), "{shared}: {}", status.message);
    }
    for shared in [
        json!({"store": {"memory": "64Mi"}}),
        json!({"store": {"engine": "Memcached", "tls": "Disabled"}}),
        json!({"store": {"topology": "Replicated", "replicas": 1}}),
        json!({"store": {"topology": "Cluster", "shards": 3, "replicasPerShard": 1}}),
        json!({"storeRef": {"name": "sessions", "keyPrefix": "shop"}}),
        json!({"external": {"secretRef": {"name": "mine"}}}),
    ] {
        world.create(&sharing(&shared)).await;
        world.delete_policy("p").await;
    }
}

#[tokio::test]
async fn replication_has_bounds_and_one_copy_alone_is_no_backup() {
    let world = world("replicated").await;
    let with = |replicated: &Value| {
        let mut object = policy("p", "shop", &Value::Null);
        object["spec"]["strategy"] = json!("Replicated");
        object["spec"]["replicated"] = replicated.clone();
        object
    };
    for (replicated, words) in [
        (
            json!({"mode": "Backup", "acknowledge": "Local"}),
            "set replicated.acknowledge to Auto, One, Quorum or All",
        ),
        (json!({"mode": "Some"}), "supported values: \"All\", \"Backup\""),
        (json!({"backups": 0}), "replicated.backups"),
        (json!({"joinTimeoutSeconds": 0}), "joinTimeoutSeconds"),
        (json!({"protocols": []}), "protocols"),
        (
            json!({"protocols": ["HTTP"]}),
            "supported values: \"RESP\", \"Memcached\"",
        ),
    ] {
        let status = refusal(&world, &with(&replicated)).await;
        assert!(status.message.contains(words), "{replicated}: {}", status.message);
    }
    let stored = world.create(&with(&json!({"mode": "Backup"}))).await;
    assert_eq!(
        stored["spec"]["replicated"],
        json!({
            "mode": "Backup", "backups": 1, "acknowledge": "Auto", "joinTimeoutSeconds": 60,
            "protocols": ["RESP"], "memory": "128Mi"
        })
    );
}

#[tokio::test]
async fn hostile_clients_are_refused() {
    let world = world("client").await;
    for (client, words) in [
        (json!({"framework": "Cobol"}), "supported values"),
        (
            json!({"env": [{"name": "A B", "key": "uri"}]}),
            "client.env[0].name",
        ),
        (
            json!({"env": [{"name": "A=1", "key": "uri"}]}),
            "client.env[0].name",
        ),
        (json!({"env": [{"name": "A"}]}), "key: Required value"),
        (json!({"settingsModule": "a; import os"}), "settingsModule"),
        (json!({"settingsModule": "../x"}), "settingsModule"),
    ] {
        let mut object = sharing(&json!({"store": {}}));
        object["spec"]["client"] = client.clone();
        let status = refusal(&world, &object).await;
        assert!(status.message.contains(words), "{client}: {}", status.message);
    }
}
