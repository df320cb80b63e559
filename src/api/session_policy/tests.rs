//! The rules of the custom resource, evaluated without an API server. What the API server makes of them, and of the
//! patterns and limits of the schema, is tested against a real one (`e2e/tests/api/schema.rs`).

use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};

use super::*;

/// A policy for the Deployment `shop`.
fn policy(name: &str, sticky: &Value) -> SessionPolicy {
    let mut spec = json!({"targetRef": {"name": "shop"}, "strategy": "Sticky"});
    if !sticky.is_null() {
        spec["sticky"] = sticky.clone();
    }
    let object = json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": {"name": name, "namespace": "web"},
        "spec": spec
    });
    serde_json::from_value(object).unwrap()
}

/// Messages of the rules that `policy` breaks.
fn broken(policy: &SessionPolicy) -> Vec<String> {
    match validate_cel(policy) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// Expects that exactly one rule is broken, whose message contains `remedy`.
fn refuses(sticky: &Value, remedy: &str) {
    let messages = broken(&policy("shop", sticky));
    assert_eq!(messages.len(), 1, "{sticky}: {messages:?}");
    assert!(messages[0].contains(remedy), "{sticky}: {messages:?}");
}

fn accepts(sticky: &Value) {
    assert_eq!(broken(&policy("shop", sticky)), Vec::<String>::new(), "{sticky}");
}

#[test]
fn names_become_labels() {
    for good in ["a", "shop-2", &"a".repeat(40)] {
        assert_eq!(
            broken(&policy(good, &Value::Null)),
            Vec::<String>::new(),
            "{good}"
        );
    }
    for bad in ["2shop", "shop.web", "shop-", &"a".repeat(41)] {
        let messages = broken(&policy(bad, &Value::Null));
        assert!(
            messages.len() == 1 && messages[0].contains("use at most 40 characters"),
            "{bad}: {messages:?}"
        );
    }
}

#[test]
fn the_target_is_immutable_and_the_rest_is_not() {
    let before = policy("shop", &Value::Null);
    let mut after = before.clone();
    after.spec.suspend = true;
    after.spec.sticky = Some(Sticky::default());
    assert!(validate_cel_update(&after, &before).is_ok());
    after.spec.target_ref.name = "other".into();
    let errors = validate_cel_update(&after, &before).unwrap_err().into_vec();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].message.contains("create one for the other target"),
        "{errors:?}"
    );
    assert_eq!(errors[0].field_path, "spec.targetRef");
}

#[test]
fn same_site_none_needs_secure() {
    let remedy = "set cookie.secure to true, or cookie.sameSite to Lax or Strict";
    refuses(&json!({"cookie": {"sameSite": "None"}}), remedy);
    refuses(&json!({"cookie": {"sameSite": "None", "secure": false}}), remedy);
    accepts(&json!({"cookie": {"sameSite": "None", "secure": true}}));
    accepts(&json!({"cookie": {"sameSite": "Lax"}}));
    accepts(&json!({"cookie": {}}));
}

#[test]
fn cookie_name_prefixes_demand_what_browsers_demand() {
    let host = "needs cookie.secure true, cookie.path / and no cookie.domain";
    refuses(&json!({"cookie": {"name": "__Host-s"}}), host);
    refuses(
        &json!({"cookie": {"name": "__Host-s", "secure": true, "path": "/x"}}),
        host,
    );
    refuses(
        &json!({"cookie": {"name": "__Host-s", "secure": true, "domain": "example.org"}}),
        host,
    );
    accepts(&json!({"cookie": {"name": "__Host-s", "secure": true}}));
    refuses(
        &json!({"cookie": {"name": "__Secure-s", "secure": false}}),
        "__Secure- needs cookie.secure true",
    );
    accepts(
        &json!({"cookie": {"name": "__Secure-s", "secure": true, "path": "/x", "domain": "example.org"}}),
    );
}

#[test]
fn a_cookie_needs_mode_cookie() {
    let remedy = "remove sticky.cookie, or set sticky.mode to Cookie";
    refuses(&json!({"mode": "ClientIP", "cookie": {}}), remedy);
    accepts(&json!({"mode": "ClientIP"}));
    accepts(&json!({"mode": "Cookie", "cookie": {}}));
}

#[test]
fn a_plain_service_needs_mode_client_ip() {
    let remedy = "with sticky.controller Service set sticky.mode to ClientIP";
    refuses(&json!({"controller": "Service"}), remedy);
    accepts(&json!({"controller": "Service", "mode": "ClientIP"}));
    accepts(&json!({"controller": "Traefik"}));
}

/// A policy with strategy Shared.
fn sharing(shared: &Value) -> SessionPolicy {
    let mut spec = json!({"targetRef": {"name": "shop"}, "strategy": "Shared"});
    if !shared.is_null() {
        spec["shared"] = shared.clone();
    }
    let object = json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": {"name": "shop", "namespace": "web"},
        "spec": spec
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn strategy_shared_needs_exactly_one_place() {
    let one = "exactly one of storeRef";
    let external = json!({"secretRef": {"name": "mine"}});
    for (shared, words) in [
        (Value::Null, "strategy Shared needs spec.shared"),
        (json!({}), one),
        (json!({"store": {}, "storeRef": {"name": "sessions"}}), one),
        (json!({"store": {}, "external": external}), one),
    ] {
        let messages = broken(&sharing(&shared));
        assert!(
            messages.len() == 1 && messages[0].contains(words),
            "{shared}: {messages:?}"
        );
    }
    for shared in [
        json!({"store": {}}),
        json!({"storeRef": {"name": "sessions", "keyPrefix": "shop"}}),
        json!({"external": external}),
    ] {
        assert_eq!(broken(&sharing(&shared)), Vec::<String>::new(), "{shared}");
    }
    // So that `strategy` alone can be edited.
    let mut policy = sharing(&json!({"store": {}}));
    policy.spec.strategy = Strategy::Sticky;
    assert_eq!(broken(&policy), Vec::<String>::new());
}

#[test]
fn a_store_keeps_its_engine_and_its_class_of_volumes() {
    let before = sharing(
        &json!({"store": {"engine": "Valkey", "persistence": {"size": "1Gi", "storageClassName": "a"}}}),
    );
    let grown = sharing(
        &json!({"store": {"engine": "Valkey", "persistence": {"size": "2Gi", "storageClassName": "a"}}}),
    );
    assert!(validate_cel_update(&grown, &before).is_ok());
    for (after, words) in [
        (
            json!({"store": {"engine": "Redis", "persistence": {"size": "1Gi", "storageClassName": "a"}}}),
            "spec.engine is immutable",
        ),
        (
            json!({"store": {"engine": "Valkey", "persistence": {"size": "1Gi", "storageClassName": "b"}}}),
            "storageClassName is immutable",
        ),
        (
            json!({"store": {"engine": "Valkey", "persistence": {"size": "1Gi"}}}),
            "storageClassName is immutable",
        ),
    ] {
        let errors = validate_cel_update(&sharing(&after), &before)
            .unwrap_err()
            .into_vec();
        assert!(
            errors.len() == 1 && errors[0].message.contains(words),
            "{after}: {errors:?}"
        );
    }
}

#[test]
fn replicas_need_topology_replicated() {
    let messages = broken(&sharing(&json!({"store": {"replicas": 2}})));
    assert!(
        messages.len() == 1 && messages[0].contains("set spec.topology to Replicated"),
        "{messages:?}"
    );
    for store in [
        json!({"topology": "Replicated"}),
        json!({"topology": "Replicated", "replicas": 1}),
    ] {
        assert_eq!(broken(&sharing(&json!({"store": store}))), Vec::<String>::new());
    }
}

#[test]
fn memcached_has_one_server_in_memory_without_tls() {
    let store = |change: &Value| {
        let mut store = json!({"engine": "Memcached", "tls": "Disabled"});
        for (key, value) in change.as_object().unwrap() {
            store[key] = value.clone();
        }
        broken(&sharing(&json!({"store": store})))
    };
    assert_eq!(store(&json!({"memory": "1Gi"})), Vec::<String>::new());
    for (change, words) in [
        (
            json!({"topology": "Replicated"}),
            "set spec.topology to Standalone",
        ),
        (
            json!({"persistence": {"size": "1Gi"}}),
            "keeps sessions in memory only",
        ),
        (json!({"tls": "Required"}), "set spec.tls to Disabled"),
    ] {
        let messages = store(&change);
        assert!(
            messages.len() == 1 && messages[0].contains(words),
            "{change}: {messages:?}"
        );
    }
}

#[test]
fn stores_with_several_servers_keep_their_volumes_or_have_none() {
    for topology in ["Replicated", "Cluster"] {
        keeps_its_volumes(topology);
    }
}

fn keeps_its_volumes(topology: &str) {
    let store = |persistence: Value| {
        let mut store = json!({"topology": topology});
        if !persistence.is_null() {
            store["persistence"] = persistence;
        }
        sharing(&json!({"store": store}))
    };
    let (memory, small, large) = (
        store(Value::Null),
        store(json!({"size": "1Gi"})),
        store(json!({"size": "2Gi"})),
    );
    assert!(validate_cel_update(&large, &small).is_ok());
    for (after, before) in [(&memory, &small), (&small, &memory)] {
        let errors = validate_cel_update(after, before).unwrap_err().into_vec();
        assert!(
            errors.len() == 1 && errors[0].message.contains("can be neither added nor removed"),
            "{errors:?}"
        );
    }
}

#[test]
fn shards_need_topology_cluster() {
    for (store, words) in [
        (
            json!({"shards": 3}),
            "a store of another topology cannot be scaled",
        ),
        (
            json!({"topology": "Replicated", "shards": 3}),
            "set spec.topology to Cluster",
        ),
        (
            json!({"replicasPerShard": 1}),
            "spec.replicasPerShard counts the copies of topology Cluster",
        ),
        (
            json!({"topology": "Cluster", "replicas": 1}),
            "set spec.topology to Replicated",
        ),
        (
            json!({"topology": "Cluster", "engine": "Memcached", "tls": "Disabled"}),
            "set spec.topology to Standalone",
        ),
    ] {
        let messages = broken(&sharing(&json!({"store": store})));
        assert!(
            messages.len() == 1 && messages[0].contains(words),
            "{store}: {messages:?}"
        );
    }
    for store in [
        json!({"topology": "Cluster"}),
        json!({"topology": "Cluster", "shards": 3, "replicasPerShard": 0}),
    ] {
        assert_eq!(broken(&sharing(&json!({"store": store}))), Vec::<String>::new());
    }
}

#[test]
fn one_copy_alone_is_no_backup() {
    let with = |replicated: Value| {
        let mut policy = policy("shop", &Value::Null);
        policy.spec.strategy = Strategy::Replicated;
        policy.spec.replicated = Some(serde_json::from_value(replicated).unwrap());
        broken(&policy)
    };
    let messages = with(json!({"mode": "Backup", "acknowledge": "Local"}));
    assert!(
        messages.len() == 1 && messages[0].contains("set replicated.acknowledge to Auto, One, Quorum or All"),
        "{messages:?}"
    );
    for good in [
        json!({}),
        json!({"acknowledge": "Local"}),
        json!({"mode": "Backup"}),
        json!({"mode": "Backup", "acknowledge": "One"}),
    ] {
        assert_eq!(with(good.clone()), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn every_rule_has_a_message_and_a_test() {
    let text = serde_json::to_string(&<SessionPolicy as kube::CustomResourceExt>::crd()).unwrap();
    let rules = text.matches("\"rule\":").count();
    assert_eq!(
        rules,
        text.matches("\"message\":\"").count(),
        "a rule without a message"
    );
    // name, target, two of sticky, three of cookie, strategy, replicated, shared, ten of the store: the tests above.
    assert_eq!(
        rules, 20,
        "a rule came or went: add or remove its tests here and in e2e/tests/api/schema.rs"
    );
}
