//! Fields that others have set already.

use serde_json::{Value, json};

use crate::world::{World, annotation, deployment, essence, ingress, managed, manager_of, policy, service};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

fn service_with(annotation: &str, value: &str) -> Value {
    let mut object = service("shop");
    object["metadata"]["annotations"][annotation] = json!(value);
    object
}

#[tokio::test]
async fn a_field_that_another_apply_manager_holds_is_a_conflict_and_configured_once_it_lets_go() {
    let (world, _) = World::shared("held").await;
    world.create(&deployment("shop")).await;
    world.create(&ingress("shop", "traefik", &["shop"])).await;
    world.apply("flux", &service_with(STICKY, "false")).await;
    let before = essence(&world.get("Service", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert!(message.contains("field manager \"flux\""), "{message}");
    assert!(message.contains("Service/shop"), "{message}");
    assert!(message.contains(STICKY), "{message}");
    let after = world.get("Service", "shop").await;
    assert_eq!(essence(&after), before);
    let affinity = &world.get("SessionPolicy", "shop").await["status"]["affinity"][0];
    assert_eq!(affinity["binds"], "None");
    assert_eq!(affinity.get("writtenTo"), None);

    world.apply("flux", &service("shop")).await;
    let ready = world.until_ready("shop").await;
    let after = world.get("Service", "shop").await;
    assert_eq!(annotation(&after, STICKY), Some("true"));
    assert!(managed(&after, &manager_of(&ready)).is_some());
}

#[tokio::test]
async fn a_value_that_a_user_edited_in_is_not_overwritten() {
    let (world, _) = World::shared("edited").await;
    world.create(&deployment("shop")).await;
    world.create(&ingress("shop", "traefik", &["shop"])).await;
    world
        .create(&service_with(&format!("{STICKY}.name"), "mine"))
        .await;
    let before = essence(&world.get("Service", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "FieldConflict")
        .await;
    assert!(message.contains("field manager \"kubectl-edit\""), "{message}");
    assert_eq!(essence(&world.get("Service", "shop").await), before);
    // Either side can give in: here the policy takes over the user's name.
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"sticky": {"cookie": {"name": "mine"}}}}),
        )
        .await;
    world.until_ready("shop").await;
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("Service", "shop").await), before);
}

#[tokio::test]
async fn an_annotation_that_stood_before_with_the_same_value_outlives_the_policy() {
    let (world, _) = World::shared("equal").await;
    world.create(&deployment("shop")).await;
    world.create(&ingress("shop", "traefik", &["shop"])).await;
    world.create(&service_with(STICKY, "true")).await;
    let before = essence(&world.get("Service", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    assert_ne!(essence(&world.get("Service", "shop").await), before);
    world.delete_policy("shop").await;
    assert_eq!(essence(&world.get("Service", "shop").await), before);
}

fn client_ip() -> Value {
    json!({"mode": "ClientIP", "controller": "Service"})
}

#[tokio::test]
async fn a_defaulted_session_affinity_is_taken_over_and_put_back_exactly() {
    for (name, applied) in [("updated", false), ("applied", true)] {
        let (world, _) = World::shared(name).await;
        world.create(&deployment("shop")).await;
        if applied {
            world.apply("flux", &service("shop")).await;
        } else {
            world.create(&service("shop")).await;
        }
        let before = world.get("Service", "shop").await;
        assert_eq!(before["spec"]["sessionAffinity"], "None");
        world.create(&policy("shop", "shop", &client_ip())).await;
        world.until_ready("shop").await;
        let during = world.get("Service", "shop").await;
        assert_eq!(during["spec"]["sessionAffinity"], "ClientIP");
        assert_eq!(
            during["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
            10_800
        );
        world.delete_policy("shop").await;
        assert_eq!(
            essence(&world.get("Service", "shop").await),
            essence(&before),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_session_affinity_that_somebody_chose_is_not_taken_by_force() {
    let chosen = [
        (
            "none",
            json!({"sessionAffinity": "None"}),
            "flux",
            ".spec.sessionAffinity",
        ),
        (
            "timeout",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}),
            "kubectl-edit",
            "timeoutSeconds",
        ),
    ];
    for (name, fields, manager, words) in chosen {
        let (world, _) = World::shared(&format!("chosen-{name}")).await;
        world.create(&deployment("shop")).await;
        let mut object = service("shop");
        for (field, value) in fields.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        if manager == "flux" {
            world.apply(manager, &object).await;
        } else {
            world.create(&object).await;
        }
        let before = essence(&world.get("Service", "shop").await);
        world.create(&policy("shop", "shop", &client_ip())).await;
        let message = world
            .until_refused("shop", "AffinityConfigured", "FieldConflict")
            .await;
        assert!(message.contains(words) && message.contains(manager), "{message}");
        assert_eq!(essence(&world.get("Service", "shop").await), before);
    }
}
