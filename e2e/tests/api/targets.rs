//! Which target, whose, and what leads to it: every answer that a policy can get before anything is written.

use serde_json::{Value, json};

use crate::world::{World, annotation, condition, deployment, essence, ingress, policy, service};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

/// Waits until the operator's clock has passed into the next second: ages of policies count in seconds.
async fn older_than_a_second(world: &World, name: &str) {
    let created = world.get("SessionPolicy", name).await["metadata"]["creationTimestamp"].clone();
    crate::wait::until("a second to pass", || async {
        // The API server's clock, by the time stamp that it would give.
        let probe =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("{name}-probe")}});
        let params = kube::api::PostParams {
            dry_run: true,
            ..kube::api::PostParams::default()
        };
        let probe = serde_json::from_value(probe).unwrap();
        let answer = world.api("Namespace").create(&params, &probe).await.unwrap();
        let now = crate::world::value(&answer)["metadata"]["creationTimestamp"].clone();
        (now != created)
            .then_some(())
            .ok_or_else(|| "same second".to_owned())
    })
    .await;
}

#[tokio::test]
async fn the_older_of_two_policies_has_the_target_and_the_younger_takes_over() {
    let (world, _) = World::shared("claimed").await;
    world.application("shop", "traefik").await;
    world
        .create(&policy("zebra", "shop", &json!({"cookie": {"name": "first"}})))
        .await;
    world.until_ready("zebra").await;
    older_than_a_second(&world, "zebra").await;
    world
        .create(&policy("ape", "shop", &json!({"cookie": {"name": "second"}})))
        .await;
    let message = world
        .until_refused("ape", "TargetResolved", "TargetClaimed")
        .await;
    assert!(message.contains("zebra is older"), "{message}");
    assert!(message.contains("delete one of the two"), "{message}");
    world.until_ready("zebra").await;
    let name = format!("{STICKY}.name");
    assert_eq!(
        annotation(&world.get("Service", "shop").await, &name),
        Some("first")
    );

    world.delete_policy("zebra").await;
    world.until_ready("ape").await;
    assert_eq!(
        annotation(&world.get("Service", "shop").await, &name),
        Some("second")
    );
    world.delete_policy("ape").await;
    assert_eq!(annotation(&world.get("Service", "shop").await, &name), None);
}

#[tokio::test]
async fn a_target_may_come_after_its_policy() {
    let (world, _) = World::shared("after").await;
    world.create(&service("shop")).await;
    world.create(&ingress("shop", "traefik", &["shop"])).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "TargetResolved", "TargetNotFound")
        .await;
    assert!(
        message.contains(&format!("Deployment {}/shop does not exist", world.namespace)),
        "{message}"
    );
    let unknown = world.get("SessionPolicy", "shop").await;
    assert_eq!(
        condition(&unknown, "AffinityConfigured").unwrap()["reason"],
        "TargetUnresolved"
    );
    world.create(&deployment("shop")).await;
    world.until_ready("shop").await;
}

#[tokio::test]
async fn services_and_routes_may_come_one_by_one_and_each_step_says_what_is_missing() {
    let (world, _) = World::shared("steps").await;
    world.create(&deployment("shop")).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "NoService")
        .await;
    assert!(message.contains("app=shop"), "{message}");
    assert!(message.contains("create one whose selector matches"), "{message}");
    world.create(&service("shop")).await;
    let message = world.until_refused("shop", "AffinityConfigured", "NoRoute").await;
    assert!(message.contains("routes to Service shop"), "{message}");
    world.create(&ingress("shop", "traefik", &["shop"])).await;
    world.until_ready("shop").await;
    world.delete("Ingress", "shop").await;
    world.until_refused("shop", "AffinityConfigured", "NoRoute").await;
    let service = world.get("Service", "shop").await;
    assert_eq!(
        annotation(&service, STICKY),
        None,
        "what was set up for a route that is gone is taken back"
    );
}

#[tokio::test]
async fn a_controller_that_is_not_known_is_named_and_nothing_is_written_until_the_policy_says_whose_it_is() {
    let (world, _) = World::shared("unknown").await;
    world.application("shop", "apisix").await;
    let before = essence(&world.get("Ingress", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "ControllerNotRecognised")
        .await;
    assert!(message.contains("apisix.apache.org/apisix-ingress"), "{message}");
    assert!(message.contains("set spec.sticky.controller to"), "{message}");
    assert_eq!(essence(&world.get("Ingress", "shop").await), before);
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"sticky": {"controller": "Traefik"}}}),
        )
        .await;
    let ready = world.until_ready("shop").await;
    assert_eq!(ready["status"]["affinity"][0]["controller"], "Traefik");
}

#[tokio::test]
async fn a_route_without_class_or_with_one_that_does_not_exist_is_refused() {
    for (name, class, words) in [
        (
            "classless",
            None,
            "it names no class, and no IngressClass is the default",
        ),
        ("nowhere", Some("kong"), "names no IngressClass that exists"),
    ] {
        let (world, _) = World::shared(name).await;
        world.application("shop", "traefik").await;
        world
            .replace("Ingress", "shop", |object| match class {
                Some(class) => object["spec"]["ingressClassName"] = json!(class),
                None => drop(object["spec"].as_object_mut().unwrap().remove("ingressClassName")),
            })
            .await;
        world.create(&policy("shop", "shop", &Value::Null)).await;
        let message = world
            .until_refused("shop", "AffinityConfigured", "ControllerNotRecognised")
            .await;
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn a_service_that_also_selects_other_pods_is_refused_unless_allowed() {
    let (world, _) = World::shared("overlap").await;
    world.application("shop", "traefik").await;
    let mut canary = deployment("canary");
    canary["spec"]["template"]["metadata"]["labels"]["app"] = json!("shop");
    canary["spec"]["template"]["metadata"]["labels"]["track"] = json!("canary");
    canary["spec"]["selector"]["matchLabels"] = json!({"app": "shop", "track": "canary"});
    world.create(&canary).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "SharedRoute")
        .await;
    assert!(
        message.contains("also selects the pods of Deployment canary"),
        "{message}"
    );
    assert_eq!(annotation(&world.get("Service", "shop").await, STICKY), None);
    world.delete("Deployment", "canary").await;
    world.until_ready("shop").await;
}
