//! Nothing remains of a policy.

use serde_json::{Value, json};
use session_operator::affinity::model::ObjectKey;
use session_operator::policy::undo;
use session_operator::runtime::writer::{WriteError, Writer};

use crate::audit;
use crate::world::{
    World, annotation, condition, deployment, essence, has_finalizer, manager_of, policy, service,
};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

async fn essences(world: &World, name: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for kind in ["Deployment", "Service", "Ingress"] {
        all.push(essence(&world.get(kind, name).await));
    }
    all
}

#[tokio::test]
async fn deletion_leaves_deployment_service_and_ingress_as_they_were() {
    let sticky = json!({"drainSeconds": 20, "cookie": {"name": "s", "path": "/x", "maxAgeSeconds": 60, "secure": true,
        "httpOnly": false, "sameSite": "None", "domain": "example.org"}});
    for (class, wish) in [
        ("traefik", Value::Null),
        ("traefik", sticky.clone()),
        ("nginx", sticky),
        ("nginx", json!({"mode": "ClientIP"})),
        ("traefik", json!({"mode": "ClientIP", "controller": "Service"})),
    ] {
        let (world, _) = World::shared("undone").await;
        world.application("shop", class).await;
        let before = essences(&world, "shop").await;
        world.create(&policy("shop", "shop", &wish)).await;
        world.until_ready("shop").await;
        assert_ne!(
            essences(&world, "shop").await,
            before,
            "{class}, {wish}: nothing was written"
        );
        world.delete_policy("shop").await;
        assert_eq!(essences(&world, "shop").await, before, "{class}, {wish}");
        world.until_event("shop", "Undone").await;
    }
}

#[tokio::test]
async fn a_target_that_was_deleted_first_does_not_keep_the_policy() {
    let (world, _) = World::shared("orphan").await;
    world.application("shop", "traefik").await;
    let before = essence(&world.get("Service", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    world.delete("Deployment", "shop").await;
    let message = world
        .until_refused("shop", "TargetResolved", "TargetNotFound")
        .await;
    assert!(message.contains("create it, or delete this policy"), "{message}");
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("Service", "shop").await), before);
}

#[tokio::test]
async fn a_service_that_was_made_anew_under_the_same_name_is_another_one() {
    let (world, _) = World::shared("anew").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    world.delete("Service", "shop").await;
    let mut other = service("shop");
    other["spec"]["selector"] = json!({"app": "something-else"});
    world.create(&other).await;
    world
        .until_refused("shop", "AffinityConfigured", "NoService")
        .await;
    let stands = world.get("Service", "shop").await;
    assert_eq!(annotation(&stands, STICKY), None);
    world.delete_policy("shop").await;
    assert_eq!(
        world.get("Service", "shop").await,
        stands,
        "deletion touched an object that was never ours"
    );
}

#[tokio::test]
async fn a_write_that_was_meant_for_the_former_object_does_nothing() {
    let (world, _) = World::shared("stale").await;
    let former = world.create(&service("shop")).await;
    world.delete("Service", "shop").await;
    let key = ObjectKey {
        api_version: "v1".into(),
        kind: "Service".into(),
        plural: "services".into(),
        namespace: world.namespace.clone(),
        name: "shop".into(),
        uid: former["metadata"]["uid"].as_str().unwrap().to_owned(),
    };
    let writer = Writer::new(world.client.clone());
    let fields = json!({"metadata": {"annotations": {STICKY: "true"}}});
    let apply = || writer.apply(&key, "session-operator.stale", &fields, false);

    assert!(
        matches!(apply().await, Err(WriteError::Gone)),
        "an apply on nothing"
    );
    assert!(
        world.api("Service").get_opt("shop").await.unwrap().is_none(),
        "it created the Service"
    );
    let anew = world.create(&service("shop")).await;
    assert!(
        matches!(apply().await, Err(WriteError::Gone)),
        "an apply on another object"
    );
    let operations = vec![json!({"op": "add", "path": "/metadata/labels/x", "value": "y"})];
    let version = anew["metadata"]["resourceVersion"].as_str().unwrap();
    let patched = writer
        .patch(&key, "session-operator.stale", version, operations)
        .await;
    assert!(
        matches!(patched, Err(WriteError::Changed)),
        "a patch on another object: {patched:?}"
    );
    assert!(
        !undo::withdraw_fields(&writer, &key, "session-operator.stale")
            .await
            .unwrap()
    );
    assert_eq!(world.get("Service", "shop").await, anew);
}

#[tokio::test]
async fn a_policy_in_a_namespace_that_is_going_is_let_go_and_nothing_else_is_written() {
    let (world, operator) = World::shared("going").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    world.delete("Namespace", &world.namespace).await;
    assert_eq!(
        world.get("Namespace", &world.namespace).await["status"]["phase"],
        "Terminating"
    );
    let writes = |resource: &str| {
        let mut writes = operator.writes();
        writes.retain(|request| request.namespace == world.namespace && request.resource == resource);
        writes.len()
    };
    let before = writes("services");
    world.delete_policy("shop").await;
    assert_eq!(
        writes("services"),
        before,
        "a Service that is going anyway was written"
    );
}

#[tokio::test]
async fn foreground_deletion_undoes_as_any_other() {
    let (world, _) = World::shared("foreground").await;
    world.application("shop", "traefik").await;
    let before = essences(&world, "shop").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    world.delete_in_foreground("SessionPolicy", "shop").await;
    world
        .until("SessionPolicy", "shop", "our finalizer gone", |policy| {
            !has_finalizer(policy)
        })
        .await;
    assert_eq!(essences(&world, "shop").await, before);
    // The garbage collector's own finalizer: none runs here.
    let params = kube::api::PatchParams::default();
    let none = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world
        .api("SessionPolicy")
        .patch("shop", &params, &none)
        .await
        .unwrap();
    world.until_gone("SessionPolicy", "shop").await;
}

#[tokio::test]
async fn a_suspended_policy_writes_nothing_and_deletion_still_undoes() {
    let (world, operator) = World::shared("suspended").await;
    world.application("shop", "traefik").await;
    let before = essences(&world, "shop").await;
    let mut object = policy("shop", "shop", &Value::Null);
    object["spec"]["suspend"] = json!(true);
    world.create(&object).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "Suspended")
        .await;
    assert!(
        message.contains("not written while spec.suspend is true"),
        "{message}"
    );
    assert_eq!(essences(&world, "shop").await, before);
    assert!(!has_finalizer(&world.get("SessionPolicy", "shop").await));
    let mut writes = operator.writes();
    writes.retain(|request| request.namespace == world.namespace);
    writes.retain(|request| !matches!(request.resource.as_str(), "sessionpolicies/status" | "events"));
    audit::assert_none("written while suspended", &writes);

    world
        .patch("SessionPolicy", "shop", &json!({"spec": {"suspend": false}}))
        .await;
    world.until_ready("shop").await;
    world
        .patch("SessionPolicy", "shop", &json!({"spec": {"suspend": true}}))
        .await;
    world
        .until("SessionPolicy", "shop", "suspended and set up", |policy| {
            condition(policy, "AffinityConfigured").is_some_and(|configured| configured["status"] == "True")
        })
        .await;
    world
        .patch(
            "Service",
            "shop",
            &json!({"metadata": {"annotations": {STICKY: null}}}),
        )
        .await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "Suspended")
        .await;
    assert!(message.contains("sticky.cookie"), "{message}");
    assert_eq!(
        annotation(&world.get("Service", "shop").await, STICKY),
        None,
        "it was restored"
    );
    world.delete_policy("shop").await;
    assert_eq!(essences(&world, "shop").await, before);
}

#[tokio::test]
async fn a_finalizer_that_was_removed_by_hand_comes_back() {
    let (world, _) = World::shared("byhand").await;
    world.application("shop", "traefik").await;
    let before = essences(&world, "shop").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    for _ in 0..3 {
        world
            .patch(
                "SessionPolicy",
                "shop",
                &json!({"metadata": {"finalizers": null}}),
            )
            .await;
        world
            .until("SessionPolicy", "shop", "the finalizer again", has_finalizer)
            .await;
    }
    world.delete_policy("shop").await;
    assert_eq!(essences(&world, "shop").await, before);
}

#[tokio::test]
async fn what_is_left_of_a_policy_that_was_forced_away_does_not_disturb_its_successor() {
    let (world, _) = World::shared("forced").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let first = world.until_ready("shop").await;
    world.delete("SessionPolicy", "shop").await;
    // Before or after the operator has undone it: both end with the policy gone.
    let params = kube::api::PatchParams::default();
    let none = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    match world.api("SessionPolicy").patch("shop", &params, &none).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("{error}"),
    }
    world.until_gone("SessionPolicy", "shop").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let second = world.until_ready("shop").await;
    assert_ne!(manager_of(&first), manager_of(&second));
}

#[tokio::test]
async fn routes_are_given_back_when_they_stop_leading_to_the_target() {
    let (world, _) = World::shared("released").await;
    world.application("shop", "nginx").await;
    world.create(&deployment("blog")).await;
    world.create(&service("blog")).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    world
        .replace("Ingress", "shop", |object| {
            object["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("blog");
        })
        .await;
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;
    let left = world.get("Ingress", "shop").await;
    assert_eq!(left["metadata"]["annotations"], json!({"owner": "somebody"}));
}
