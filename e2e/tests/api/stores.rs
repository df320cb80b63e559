//! What the operator makes of a SessionStore, and what remains when it is deleted. No pod starts here, so no store gets
//! ready.

use kube::api::ListParams;
use serde_json::{Value, json};
use session_operator::api::{FINALIZER, POLICY_LABEL, STORE_LABEL};

use crate::audit::assert_none;
use crate::operator::Operator;
use crate::own::{Own, peace};
use crate::wait::until;
use crate::world::{World, condition, deployment, version};

/// A store called `sessions`.
pub fn store(spec: &Value) -> Value {
    json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionStore",
        "metadata": {"name": "sessions"},
        "spec": spec
    })
}

/// A policy that keeps its sessions in the store `sessions`.
pub fn sharing(name: &str, key_prefix: Option<&str>) -> Value {
    let mut reference = json!({"name": "sessions"});
    if let Some(prefix) = key_prefix {
        reference["keyPrefix"] = json!(prefix);
    }
    json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": {"name": name},
        "spec": {"targetRef": {"name": name}, "strategy": "Shared", "shared": {"storeRef": reference}}
    })
}

/// What a store is made of, apart from users' Secrets.
const CHILDREN: [(&str, &str); 9] = [
    ("StatefulSet", "sessions"),
    ("Service", "sessions"),
    ("PodDisruptionBudget", "sessions"),
    ("PersistentVolumeClaim", "sessions-data"),
    ("Secret", "sessions-admin"),
    ("Secret", "sessions-users"),
    ("Secret", "sessions-authority"),
    ("Secret", "sessions-ca"),
    ("Secret", "sessions-tls"),
];

async fn until_made(world: &World) -> Vec<Value> {
    let mut children = Vec::new();
    for (kind, name) in CHILDREN {
        children.push(world.until(kind, name, "made", |_| true).await);
    }
    children
}

/// Waits for the Ready condition of the store to have a reason, and returns its message.
pub async fn until_reason(world: &World, reason: &str) -> String {
    let store = world
        .until("SessionStore", "sessions", reason, |store| {
            condition(store, "Ready").is_some_and(|ready| ready["reason"] == reason)
        })
        .await;
    condition(&store, "Ready").unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn persistent(deletion_policy: &str) -> Value {
    store(&json!({"persistence": {"size": "1Gi"}, "deletionPolicy": deletion_policy}))
}

/// A value of a Secret, in base64.
pub fn data(secret: &Value, key: &str) -> String {
    secret["data"][key].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn everything_carries_the_store_and_nothing_an_owner() {
    let (world, _) = World::shared("store").await;
    let created = world.create(&persistent("Delete")).await;
    for child in until_made(&world).await {
        let labels = &child["metadata"]["labels"];
        assert_eq!(labels[STORE_LABEL], "sessions", "{child}");
        assert_eq!(
            labels["session-operator.dev/store-uid"], created["metadata"]["uid"],
            "{child}"
        );
        assert_eq!(child["metadata"]["ownerReferences"], Value::Null, "{child}");
        assert_eq!(labels[POLICY_LABEL], Value::Null, "{child}");
    }
    let message = until_reason(&world, "StoreStarting").await;
    assert!(message.contains("sessions-0"), "{message}");
    let store = world
        .until("SessionStore", "sessions", "an endpoint", |store| {
            store["status"]["endpoint"].is_object()
        })
        .await;
    assert_eq!(
        store["status"]["endpoint"],
        json!({"host": format!("sessions.{}.svc", world.namespace), "port": 6379, "caSecret": "sessions-ca"})
    );
    assert_eq!(
        store["status"]["users"],
        Value::Null,
        "no server knows any user yet"
    );
}

/// Fails if the operator writes anything of the store, or what it is made of changes, while nobody does anything.
pub async fn writes_nothing(world: &World, operator: &Operator, made: &[(&str, &str)]) {
    let of_stores = || {
        let mut writes = operator.writes();
        writes.retain(|write| {
            !write.resource.starts_with("sessionpolicies") && write.name.contains("sessions")
        });
        writes
    };
    // The Event of the last change comes after it.
    operator.until_reconciled(operator.reconciles().await, 2.0).await;
    let mut versions = Vec::new();
    for (kind, name) in made.iter().chain(&[("SessionStore", "sessions")]) {
        versions.push((kind, name, version(&world.get(kind, name).await)));
    }
    let (before, reconciles) = (of_stores().len(), operator.reconciles().await);
    assert!(before >= made.len(), "the audit log shows {before} writes");
    // A server that starts is looked for again and again.
    operator.until_reconciled(reconciles, 4.0).await;
    let writes = of_stores();
    assert_none("written although nothing changed", &writes[before..]);
    for (kind, name, former) in versions {
        assert_eq!(version(&world.get(kind, name).await), former, "{kind} {name}");
    }
}

#[tokio::test]
async fn a_store_that_waits_for_its_server_writes_nothing_and_lists_no_secrets() {
    let _peace = peace().await;
    let own = Own::new("store-steady").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    world.create(&persistent("Delete")).await;
    until_made(world).await;
    world
        .until("Secret", "sessions-user-shop", "made", |_| true)
        .await;
    until_reason(world, "StoreStarting").await;

    writes_nothing(world, &operator, &CHILDREN).await;

    let mut secrets = operator.requests();
    secrets.retain(|request| request.resource == "secrets");
    assert!(secrets.len() > 10, "{}", secrets.len());
    secrets.retain(|request| !["get", "create", "patch", "delete"].contains(&request.verb.as_str()));
    assert_none("Secrets are read by name only", &secrets);
}

#[tokio::test]
async fn what_somebody_changes_or_deletes_is_put_back() {
    let (world, _) = World::shared("store-drift").await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    world.create(&persistent("Retain")).await;
    until_made(&world).await;
    let user = world
        .until("Secret", "sessions-user-shop", "made", |_| true)
        .await;
    let admin = world.get("Secret", "sessions-admin").await;

    world
        .patch("StatefulSet", "sessions", &json!({"spec": {"replicas": 3}}))
        .await;
    world
        .until("StatefulSet", "sessions", "one replica", |set| {
            set["spec"]["replicas"] == 1
        })
        .await;
    world.delete("Service", "sessions").await;
    world.until("Service", "sessions", "made again", |_| true).await;
    for (name, before) in [("sessions-user-shop", &user), ("sessions-admin", &admin)] {
        world.delete("Secret", name).await;
        let again = world.until("Secret", name, "made again", |_| true).await;
        assert_ne!(again["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(data(&again, "password"), data(before, "password"), "{name}");
    }
}

#[tokio::test]
async fn a_user_is_made_for_every_prefix_and_policies_with_one_prefix_share_it() {
    let (world, _) = World::shared("store-users").await;
    world.create(&store(&json!({}))).await;
    for (policy, prefix) in [("web", Some("shop")), ("api", Some("shop")), ("blog", None)] {
        world.create(&deployment(policy)).await;
        world.create(&sharing(policy, prefix)).await;
    }
    for (secret, name) in [
        ("sessions-user-shop", "app-shop"),
        ("sessions-user-blog", "app-blog"),
    ] {
        let secret = world.until("Secret", secret, "made", |_| true).await;
        let username = secret["data"]["username"].as_str().unwrap();
        assert_eq!(decoded(username), name);
    }
    let users = world
        .until("Secret", "sessions-users", "two users", |secret| {
            let file = decoded(&data(secret, "users.acl"));
            file.contains("user app-shop on") && file.contains("user app-blog on")
        })
        .await;
    let file = decoded(&data(&users, "users.acl"));
    assert_eq!(file.matches("user app-").count(), 2, "{file}");
    let password = decoded(&data(
        &world.get("Secret", "sessions-user-shop").await,
        "password",
    ));
    assert!(!file.contains(&password), "the file has hashes");
}

/// Text from base64.
pub fn decoded(base64: &str) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(base64)).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

async fn all_gone(world: &World) {
    for (kind, name) in CHILDREN {
        world.until_gone(kind, name).await;
    }
}

#[tokio::test]
async fn delete_removes_everything() {
    let (world, _) = World::shared("store-delete").await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    world.create(&persistent("Delete")).await;
    until_made(&world).await;
    world
        .until("Secret", "sessions-user-shop", "made", |_| true)
        .await;
    world.delete("SessionPolicy", "shop").await;
    world.until_gone("SessionPolicy", "shop").await;
    world.delete("SessionStore", "sessions").await;
    world.until_gone("SessionStore", "sessions").await;
    all_gone_but_protected(&world).await;
    let labelled = ListParams::default().labels(STORE_LABEL);
    let secrets = world.api("Secret").list(&labelled).await.unwrap();
    assert_eq!(secrets.items.len(), 0, "{secrets:?}");
}

/// Here nobody takes the protection off a volume claim that is deleted.
async fn all_gone_but_protected(world: &World) {
    world
        .until("PersistentVolumeClaim", "sessions-data", "deleted", |claim| {
            claim["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    world
        .patch(
            "PersistentVolumeClaim",
            "sessions-data",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    all_gone(world).await;
}

#[tokio::test]
async fn retain_leaves_everything_to_the_next_store_of_that_name() {
    let (world, _) = World::shared("store-retain").await;
    world.create(&persistent("Retain")).await;
    let before = until_made(&world).await;
    // The order of Argo CD's prune: dependants first.
    world.delete_in_foreground("SessionStore", "sessions").await;
    // As the garbage collector does, which does not run here, once no dependant is left.
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    world.until_gone("SessionStore", "sessions").await;
    for ((kind, name), child) in CHILDREN.iter().zip(&before) {
        let still = world.get(kind, name).await;
        assert_eq!(
            still["metadata"]["uid"], child["metadata"]["uid"],
            "{kind} {name}"
        );
        assert_eq!(
            still["metadata"]["deletionTimestamp"],
            Value::Null,
            "{kind} {name}"
        );
    }

    let next = world.create(&persistent("Retain")).await;
    for ((kind, name), child) in CHILDREN.iter().zip(&before) {
        let adopted = world
            .until(kind, name, "adopted", |child| {
                child["metadata"]["labels"]["session-operator.dev/store-uid"] == next["metadata"]["uid"]
            })
            .await;
        assert_eq!(
            adopted["metadata"]["uid"], child["metadata"]["uid"],
            "{kind} {name}"
        );
        assert_eq!(adopted["data"], child["data"], "{kind} {name}");
        assert_eq!(adopted["spec"], child["spec"], "{kind} {name}");
    }
}

#[tokio::test]
async fn a_store_needs_the_operator_to_be_deleted_only_if_something_is_to_be_removed() {
    let (world, _) = World::shared("store-finalizer").await;
    world.create(&persistent("Delete")).await;
    let held = |store: &Value| store["metadata"]["finalizers"] == json!([FINALIZER]);
    world.until("SessionStore", "sessions", "held", held).await;
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"spec": {"deletionPolicy": "Retain"}}),
        )
        .await;
    world
        .until("SessionStore", "sessions", "let go", |store| !held(store))
        .await;
    until_reason(&world, "StoreStarting").await;
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone() {
    let (world, _) = World::shared("store-foreign").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "sessions"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}}
    });
    let theirs = world.create(&theirs).await;
    world.create(&persistent("Delete")).await;
    let message = until_reason(&world, "NameTaken").await;
    assert!(
        message.contains("Service sessions exists") && message.contains("another name"),
        "{message}"
    );
    assert_eq!(version(&world.get("Service", "sessions").await), version(&theirs));

    // It is not removed with the store either.
    world.delete("SessionStore", "sessions").await;
    world.until_gone("SessionStore", "sessions").await;
    assert_eq!(version(&world.get("Service", "sessions").await), version(&theirs));
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_neither_used_nor_changed() {
    let (world, _) = World::shared("store-secret").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sessions-admin"}, "stringData": {"password": "theirs"}
    });
    let theirs = world.create(&theirs).await;
    world.create(&store(&json!({}))).await;
    let message = until_reason(&world, "NameTaken").await;
    assert!(message.contains("Secret sessions-admin exists"), "{message}");
    assert_eq!(
        version(&world.get("Secret", "sessions-admin").await),
        version(&theirs)
    );
    world.delete("Secret", "sessions-admin").await;
    // Nothing tells the operator of it; it tries again, each time later.
    until_reason(&world, "StoreStarting").await;
}

#[tokio::test]
async fn a_change_of_the_server_reaches_its_pod() {
    let (world, _) = World::shared("store-change").await;
    world.create(&store(&json!({"memory": "128Mi"}))).await;
    let argument = |set: &Value, name: &str| {
        let arguments = set["spec"]["template"]["spec"]["containers"][0]["args"]
            .as_array()
            .unwrap();
        let at = arguments.iter().position(|word| word == name).unwrap();
        arguments[at + 1].as_str().unwrap().to_owned()
    };
    let first = world.until("StatefulSet", "sessions", "made", |_| true).await;
    assert_eq!(argument(&first, "--maxmemory"), (96 << 20).to_string());
    world
        .patch("SessionStore", "sessions", &json!({"spec": {"memory": "1Gi"}}))
        .await;
    let limit = "/spec/template/spec/containers/0/resources/limits/memory";
    let second = world
        .until("StatefulSet", "sessions", "1Gi", |set| {
            set.pointer(limit) == Some(&json!("1Gi"))
        })
        .await;
    assert_eq!(argument(&second, "--maxmemory"), (768 << 20).to_string());
}

#[tokio::test]
async fn the_leader_that_comes_next_goes_on() {
    let own = Own::new("store-restart").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.create(&persistent("Delete")).await;
    let before = until_made(world).await;
    until_reason(world, "StoreStarting").await;
    operator.kill();
    world.delete("Service", "sessions").await;
    let operator = own.start_leader().await;
    until("the Service to be made again", || async {
        let found = world.api("Service").get_opt("sessions").await.unwrap();
        found.map(|_| ()).ok_or_else(|| "it is not there".to_owned())
    })
    .await;
    let admin = world.get("Secret", "sessions-admin").await;
    let known = before
        .iter()
        .find(|child| child["metadata"]["name"] == "sessions-admin")
        .unwrap();
    assert_eq!(data(&admin, "password"), data(known, "password"));
    operator.stop().await;
}
