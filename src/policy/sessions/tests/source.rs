use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::api::SessionStore;
use crate::api::conditions::reasons;
use crate::api::session_policy::{Framework, Shared};
use crate::api::session_store::Engine;
use crate::framework::preset;
use crate::policy::sessions::binding::data;
use crate::policy::sessions::source::{Place, Shards, access, external, of_store, others, place, unlisted};

fn secret(name: &str, data: &Value) -> Secret {
    let encoded: serde_json::Map<String, Value> = data
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let bytes = k8s_openapi::ByteString(value.as_str().unwrap().as_bytes().to_vec());
            (key.clone(), serde_json::to_value(bytes).unwrap())
        })
        .collect();
    serde_json::from_value(json!({"metadata": {"name": name}, "data": encoded})).unwrap()
}

fn shared(value: &Value) -> Shared {
    serde_json::from_value(value.clone()).unwrap()
}

fn store(status: &Value) -> Arc<SessionStore> {
    Arc::new(
        serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionStore",
            "metadata": {"name": "sessions", "namespace": "web", "generation": 2},
            "spec": {"persistence": {"size": "1Gi"}},
            "status": status,
        }))
        .unwrap(),
    )
}

fn ready() -> Value {
    json!({
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "endpoint": {"host": "sessions.web.svc", "port": 6379, "caSecret": "sessions-ca"},
        "users": [{"keyPrefix": "shop", "secret": "sessions-user-shop"}],
    })
}

#[test]
fn prefixes_are_the_policys_own_unless_it_names_another() {
    let store = |name: &str, key_prefix: &str| Place::Store {
        name: name.to_owned(),
        key_prefix: key_prefix.to_owned(),
    };
    assert_eq!(
        place(
            "web",
            &shared(&json!({"storeRef": {"name": "sessions", "keyPrefix": "shop"}}))
        ),
        store("sessions", "shop")
    );
    assert_eq!(
        place("web", &shared(&json!({"storeRef": {"name": "sessions"}}))),
        store("sessions", "web")
    );
    assert_eq!(
        place("web", &shared(&json!({"store": {}}))),
        store("web-sessions", "web")
    );
    let external = place(
        "web",
        &shared(&json!({"external": {"secretRef": {"name": "mine"}}})),
    );
    assert_eq!(
        external,
        Place::External {
            secret: "mine".to_owned(),
            key_prefix: "web".to_owned()
        }
    );
}

#[test]
fn a_store_is_used_once_it_is_ready_and_knows_the_prefix() {
    let ready_store = store(&ready());
    let (_, found) = access("sessions", "shop", Some(&ready_store)).unwrap();
    let user = secret(
        "sessions-user-shop",
        &json!({"username": "shop", "password": "geheim"}),
    );
    let ca = secret("sessions-ca", &json!({"ca.crt": "PEM"}));
    let source = of_store(&ready_store, &found, "shop", Some(&user), Some(&ca)).unwrap();
    assert!(source.endpoint.tls && source.endpoint.own_authority);
    assert_eq!(source.ca.as_deref(), Some("PEM"));
    assert_eq!(source.endpoint.password.as_deref(), Some("geheim"));
    assert!(source.lists, "it has the store to itself");

    for (spoil, reason, word) in [
        (json!({"users": []}), reasons::STORE_NOT_READY, "key prefix shop"),
        (
            json!({"observedGeneration": 1}),
            reasons::STORE_NOT_READY,
            "not set it up",
        ),
        (
            json!({"conditions": []}),
            reasons::STORE_NOT_READY,
            "not set it up",
        ),
        (
            json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Pending", "message": "no node", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
            reasons::STORE_NOT_READY,
            "Pending: no node",
        ),
    ] {
        let mut status = ready();
        for (key, value) in spoil.as_object().unwrap() {
            status[key] = value.clone();
        }
        let trouble = access("sessions", "shop", Some(&store(&status))).unwrap_err();
        assert_eq!(trouble.reason, reason);
        assert!(trouble.message.contains(word), "{}", trouble.message);
    }
    let mut spoilt = (*store(&ready())).clone();
    spoilt.spec.engine = Engine::Memcached;
    let memcached = Arc::new(spoilt);
    let trouble = access("sessions", "blog", Some(&memcached)).unwrap_err();
    assert_eq!(trouble.reason, reasons::KEY_PREFIX_TAKEN);
    assert!(
        trouble.message.contains("serves the key prefix shop alone"),
        "{trouble:?}"
    );
    assert_eq!(
        access("sessions", "shop", None).unwrap_err().reason,
        reasons::STORE_NOT_FOUND
    );
}

#[test]
fn who_shares_a_store_may_not_list_its_keys() {
    let mut status = ready();
    status["users"] = json!([
        {"keyPrefix": "blog", "secret": "sessions-user-blog"},
        {"keyPrefix": "shop", "secret": "sessions-user-shop"}
    ]);
    let store = store(&status);
    let (_, found) = access("sessions", "shop", Some(&store)).unwrap();
    let credentials = json!({"username": "shop", "password": "geheim"});
    let user = secret("sessions-user-shop", &credentials);
    let ca = secret("sessions-ca", &json!({"ca.crt": "PEM"}));
    let source = of_store(&store, &found, "shop", Some(&user), Some(&ca)).unwrap();
    assert!(!source.lists);
    assert_eq!(others(&store, "shop"), ["blog"]);
    let sentence = unlisted("sessions", "shop", &["blog"]);
    for words in [
        "SessionStore sessions",
        "(blog)",
        "the user of shop",
        "a store of their own",
    ] {
        assert!(sentence.contains(words), "{sentence}");
    }
}

#[test]
fn a_users_own_secret_says_how_to_reach_the_store() {
    let source = external(&secret("mine", &json!({"host": "redis.example\n"})), "shop").unwrap();
    assert_eq!(
        (source.endpoint.host.as_str(), source.endpoint.port),
        ("redis.example", 6379)
    );
    assert!(!source.endpoint.tls && source.endpoint.password.is_none());
    let source = external(
        &secret(
            "mine",
            &json!({"host": "h", "port": "7000", "ca.crt": "PEM", "cluster": "true", "password": "p"}),
        ),
        "shop",
    )
    .unwrap();
    assert!(source.endpoint.tls && source.endpoint.own_authority && source.endpoint.cluster);
    assert_eq!(source.endpoint.port, 7000);
    let memcached = json!({"provider": "memcached", "host": "h", "tls": "false"});
    let source = external(&secret("mine", &memcached), "shop").unwrap();
    assert_eq!(
        (source.endpoint.engine, source.endpoint.port),
        (Engine::Memcached, 11211)
    );
}

#[test]
fn a_wrong_key_is_named_and_its_value_is_not() {
    for (data, key) in [
        (json!({}), "host"),
        (json!({"host": ""}), "host"),
        (json!({"host": "h", "port": "geheim"}), "port"),
        (json!({"host": "h", "port": "0"}), "port"),
        (json!({"host": "h", "tls": "geheim"}), "tls"),
        (json!({"host": "h", "tls": "false", "ca.crt": "geheim"}), "tls"),
        (json!({"host": "h", "cluster": "geheim"}), "cluster"),
        (
            json!({"provider": "memcached", "host": "h", "password": "geheim"}),
            "password",
        ),
        (
            json!({"provider": "memcached", "host": "h", "tls": "true"}),
            "tls",
        ),
    ] {
        let trouble = external(&secret("mine", &data), "shop").unwrap_err();
        assert_eq!(trouble.reason, reasons::SECRET_INCOMPLETE);
        assert!(
            trouble.message.contains("Secret mine") && trouble.message.contains(key),
            "{}",
            trouble.message
        );
        assert!(!trouble.message.contains("geheim"), "{}", trouble.message);
    }
}

#[test]
fn memcached_has_no_credentials() {
    let mut status = ready();
    status["users"] = json!([{"keyPrefix": "shop"}]);
    status["endpoint"] = json!({"host": "sessions.web.svc", "port": 11211});
    let mut subject = (*store(&status)).clone();
    subject.spec = serde_json::from_value(json!({"engine": "Memcached", "tls": "Disabled"})).unwrap();
    let subject = Arc::new(subject);
    let (found, access) = access("sessions", "shop", Some(&subject)).unwrap();
    assert_eq!((&access.user_secret, &access.ca_secret), (&None, &None));
    let source = of_store(found, &access, "shop", None, None).unwrap();
    let endpoint = source.endpoint;
    assert_eq!((endpoint.engine, endpoint.port), (Engine::Memcached, 11211));
    assert_eq!(
        (endpoint.username, endpoint.password, endpoint.tls),
        (None, None, false)
    );
}

#[test]
fn what_shards_are_good_for_follows_from_who_is_where() {
    let shards = |members: &[(i32, &str, bool, &str)]| {
        let members: Vec<Value> = members
            .iter()
            .enumerate()
            .map(|(at, (shard, role, is_ready, node))| {
                json!({"name": format!("s-{at}"), "role": role, "ready": is_ready, "shard": shard, "node": node})
            })
            .collect();
        let mut status = ready();
        status["members"] = json!(members);
        let mut store = SessionStore::clone(&store(&status));
        store.spec = serde_json::from_value(json!({"topology": "Cluster"})).unwrap();
        Shards::of(&store).unwrap()
    };
    let whole = [
        (0, "Primary", true, "node1"),
        (0, "Replica", true, "node2"),
        (1, "Primary", true, "node2"),
        (1, "Replica", true, "node3"),
        (2, "Primary", true, "node3"),
        (2, "Replica", true, "node1"),
    ];
    let told = |covered, elsewhere, voters_together| Shards {
        count: 3,
        covered,
        elsewhere,
        voters_together,
    };
    assert_eq!(shards(&whole), told(3, 3, false));
    let mut behind = whole;
    behind[3].2 = false;
    assert_eq!(shards(&behind), told(2, 2, false));
    let mut near = whole;
    near[5].3 = "node3";
    assert_eq!(shards(&near), told(3, 2, false));
    let mut together = whole;
    together[2].3 = "node1";
    assert_eq!(shards(&together), told(3, 3, true));
    let mut headless = whole;
    headless[0].2 = false;
    assert_eq!(
        shards(&headless),
        told(2, 2, true),
        "two are left, each on one of two nodes"
    );
    assert_eq!(Shards::of(&store(&ready())), None);
}

#[test]
fn clients_of_shards_are_told_that_they_are() {
    let mut sharded = SessionStore::clone(&store(&ready()));
    sharded.spec = serde_json::from_value(json!({"topology": "Cluster"})).unwrap();
    let sharded = Arc::new(sharded);
    let (found, access) = access("sessions", "shop", Some(&sharded)).unwrap();
    let user = secret(
        "sessions-user-shop",
        &json!({"username": "app-shop", "password": "p"}),
    );
    let source = of_store(found, &access, "shop", Some(&user), None).unwrap();
    assert!(source.endpoint.cluster);
    let told = data(&source.endpoint, None, preset(Framework::Generic), None);
    // The Service alone may lead to a server that is out of reach.
    let nodes = "sessions.web.svc:6379,sessions-0-0.sessions-members.web.svc:6379,\
                 sessions-1-0.sessions-members.web.svc:6379,sessions-2-0.sessions-members.web.svc:6379";
    assert_eq!(told.get("nodes").map(String::as_str), Some(nodes));
    assert_eq!(told.get("cluster").map(String::as_str), Some("true"));
}
