//! What must not leave the cluster, in the places where it is found.

use serde_json::{Value, json};

use super::super::redact::Redactor;

fn redactor() -> Redactor {
    Redactor::new().unwrap()
}

fn masked(text: &str) -> String {
    redactor().text(text).into_owned()
}

#[test]
fn credentials_in_texts_are_masked() {
    for (text, expected) in [
        (
            "connect to redis://shop:hunter2@redis.web.svc:6379/0 failed",
            "connect to redis://***@redis.web.svc:6379/0 failed",
        ),
        (
            "rediss://:p%40ss/w@rd@[::1]:6379, mysql://root@db/shop",
            "rediss://***@[::1]:6379, mysql://***@db/shop",
        ),
        (
            "GET https://shop.example/cart?token=abcdef&lang=en",
            "GET https://shop.example/cart?token=***&lang=en",
        ),
        (
            r#"{"level":"INFO","password":"hun ter2","user":"shop"}"#,
            r#"{"level":"INFO","password":***,"user":"shop"}"#,
        ),
        (
            r#"{"fields":"{\"api_key\":\"0123\"}"}"#,
            r#"{"fields":"{\"api_key\":***}"}"#,
        ),
        ("DB_PASSWORD=hunter2 LANG=C", "DB_PASSWORD=*** LANG=C"),
        (
            "Authorization: Bearer abc.def.ghi\nnext",
            "Authorization: ***\nnext",
        ),
        (
            "proxy_set_header X-Key \"Basic c2hvcDpodW50ZXIy\";",
            "proxy_set_header X-Key \"Basic ***\";",
        ),
        (
            "Set-Cookie: PHPSESSID=k3jh4; path=/\r\nok",
            "Set-Cookie: ***\r\nok",
        ),
        (
            "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl from it",
            "got *** from it",
        ),
        (
            "redis-server --requirepass hunter2",
            "redis-server --requirepass ***",
        ),
        (
            "mysql --user shop --password hunter2 db",
            "mysql --user shop --password *** db",
        ),
    ] {
        assert_eq!(masked(text), expected);
    }
}

#[test]
fn a_private_key_is_masked_also_where_its_end_is_cut_off() {
    let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIIGl\n";
    let whole = format!("before\n{key}-----END EC PRIVATE KEY-----\nafter");
    assert_eq!(masked(&whole), "before\n***\nafter");
    assert_eq!(masked(&format!("before\n{key}")), "before\n***");
}

#[test]
fn what_is_said_of_objects_stays_readable() {
    for text in [
        "SessionStore sessions is not ready (StoreStarting: pod sessions-0 is starting); see kubectl describe sessionstore sessions",
        "Secret my-redis has no key password; add it",
        "image registry.example:5000/shop@sha256:0123 of container php",
        "rbac.authorization.k8s.io/v1 serves https://10.0.0.1:6443/apis",
        "shop-token is missing, and user-password was not found",
        "sticky:\n  cookie:\n    name: shop",
        "2026-11-25T22:00:00Z INFO members=3 sessions=120 lag=0",
    ] {
        assert_eq!(masked(text), text);
    }
}

/// A pod with a credential in each place where one may stand.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "shop-1", "namespace": "web",
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:x": {}}}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"env\":\"CLASSIFIED-1\"}",
                "example.org/dsn": "postgres://shop:CLASSIFIED-2@db/shop",
                "example.org/record": "{\"spec\":{\"password\":\"CLASSIFIED-3\",\"env\":[{\"name\":\"A\",\"value\":\"CLASSIFIED-4\"}],\"size\":3}}",
                "example.org/api-token": "CLASSIFIED-5"
            }
        },
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [{
                "name": "php", "image": "shop:1",
                "command": ["sh", "-c", "exec shop --secret=CLASSIFIED-6"],
                "args": ["--password", "CLASSIFIED-7", "--verbose", "--db-token=CLASSIFIED-8"],
                "env": [
                    {"name": "STRIPE", "value": "CLASSIFIED-9"},
                    {"name": "TZ", "value": "Europe/Berlin"},
                    {"name": "SESSION_OPERATOR_PREFIX", "value": "shop"},
                    {"name": "NODE_OPTIONS", "value": "--require /x.js --token=CLASSIFIED-10"},
                    {"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "shop-session", "key": "uri"}}}
                ],
                "readinessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "X-Probe", "value": "CLASSIFIED-11"}]}}
            }],
            "volumes": [{"name": "tls", "secret": {"secretName": "shop-tls"}}]
        },
        "status": {"containerStatuses": [{"name": "php", "state": {"waiting": {"message": "bad redis://u:CLASSIFIED-12@h"}}}]}
    })
}

#[test]
fn a_pod_keeps_its_shape_and_loses_its_credentials() {
    let shown = redactor().object(&pod());
    let text = shown.to_string();
    assert!(!text.contains("CLASSIFIED"), "{shown:#}");
    assert_eq!(shown.pointer("/metadata/managedFields"), None);
    let at = |pointer: &str| shown.pointer(pointer).cloned().unwrap();
    assert!(
        !at("/metadata/annotations")
            .as_object()
            .unwrap()
            .contains_key("kubectl.kubernetes.io/last-applied-configuration")
    );
    assert_eq!(
        at("/metadata/annotations/example.org~1dsn"),
        "postgres://***@db/shop"
    );
    assert!(
        at("/metadata/annotations/example.org~1record")
            .as_str()
            .unwrap()
            .contains("\"size\":3")
    );
    let container = "/spec/containers/0";
    assert_eq!(
        at(&format!("{container}/args")),
        json!(["--password", "***", "--verbose", "--db-token=***"])
    );
    assert_eq!(
        at(&format!("{container}/env")),
        json!([
            {"name": "STRIPE", "value": "***"},
            {"name": "TZ", "value": "Europe/Berlin"},
            {"name": "SESSION_OPERATOR_PREFIX", "value": "shop"},
            {"name": "NODE_OPTIONS", "value": "--require /x.js --token=***"},
            {"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "shop-session", "key": "uri"}}}
        ])
    );
    assert_eq!(at("/spec/volumes/0/secret/secretName"), "shop-tls");
    assert_eq!(at("/spec/imagePullSecrets/0/name"), "registry");
    assert_eq!(
        at("/status/containerStatuses/0/state/waiting/message"),
        "bad redis://***@h"
    );
}

fn secret() -> Value {
    // "CLASSIFIED-PASSWORD", "redis", "web.svc", each in base64.
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "servicebinding.io/redis",
        "metadata": {"name": "shop-session", "namespace": "web", "annotations": {"a": "CLASSIFIED"}},
        "data": {"password": "Q0xBU1NJRklFRC1QQVNTV09SRA==", "type": "cmVkaXM=", "host": "d2ViLnN2Yw=="}
    })
}

#[test]
fn of_a_secret_only_name_type_and_keys_are_shown() {
    let shown = redactor().object(&secret());
    assert_eq!(shown["keys"], json!(["host", "password", "type"]));
    assert_eq!(shown["type"], "servicebinding.io/redis");
    let text = shown.to_string();
    for value in ["CLASSIFIED", "Q0xBU1", "cmVkaXM="] {
        assert!(!text.contains(value), "{text}");
    }
}

#[test]
fn known_values_are_masked_wherever_they_turn_up() {
    let log = "said CLASSIFIED-PASSWORD to redis at web.svc";
    assert_eq!(masked(log), log, "nothing tells that this is a credential");
    let mut redactor = redactor();
    redactor.learn(&secret());
    assert_eq!(redactor.text(log), "said *** to redis at web.svc");
    assert_eq!(redactor.text("Q0xBU1NJRklFRC1QQVNTV09SRA=="), "***");
}
