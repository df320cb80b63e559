//! The plain way: a Deployment, a Service and an Ingress of Traefik's class, and a policy.

use serde_json::{Value, json};
use session_operator::api::FINALIZER;

use crate::world::{World, annotation, condition, has_finalizer, managed, manager_of, policy};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

#[tokio::test]
async fn the_service_is_annotated_under_the_policys_own_manager_and_status_says_so() {
    let (world, _) = World::shared("plain").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;

    let ready = world.until_ready("shop").await;
    assert!(has_finalizer(&ready), "{FINALIZER} is missing: {ready}");
    for type_ in ["TargetResolved", "AffinityConfigured"] {
        assert_eq!(condition(&ready, type_).unwrap()["status"], "True", "{type_}");
    }
    assert_eq!(
        ready["status"]["observedGeneration"],
        ready["metadata"]["generation"]
    );
    let routes = ready["status"]["affinity"].as_array().unwrap();
    assert_eq!(routes.len(), 1, "{routes:?}");
    let route = &routes[0];
    assert_eq!(
        json!([
            route["kind"],
            route["namespace"],
            route["name"],
            route["controller"],
            route["writtenTo"],
            route["binds"]
        ]),
        json!([
            "Ingress",
            world.namespace,
            "shop",
            "Traefik",
            "Service/shop",
            "Pod"
        ])
    );
    assert_eq!(ready["status"]["survives"].as_array().unwrap().len(), 10);

    let service = world.get("Service", "shop").await;
    assert_eq!(annotation(&service, STICKY), Some("true"));
    let entry = managed(&service, &manager_of(&ready)).expect("the policy's manager owns something");
    assert_eq!(entry["operation"], "Apply");
    let owned = entry["fieldsV1"]["f:metadata"]["f:annotations"]
        .as_object()
        .unwrap();
    assert!(owned.contains_key(&format!("f:{STICKY}")), "{owned:?}");
    assert!(!owned.contains_key("f:owner"), "{owned:?}");
    let route = world.get("Ingress", "shop").await;
    assert!(
        managed(&route, &manager_of(&ready)).is_none(),
        "Traefik reads the Service; the Ingress is left alone"
    );

    assert!(
        world
            .until_event("shop", "Configured")
            .await
            .contains("Service/shop")
    );
    world.until_event("shop", "Ready").await;
}

#[tokio::test]
async fn kubectl_shows_the_columns_by_short_name_and_category() {
    let (world, _) = World::shared("columns").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    let table = |arguments: &[&str]| {
        let mut all = vec!["--namespace", &world.namespace, "get"];
        all.extend(arguments);
        let text = world.stage.kubectl(&all);
        text.lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let narrow = table(&["sesspol"]);
    assert_eq!(narrow[0], ["NAME", "STRATEGY", "TARGET", "READY", "AGE"]);
    assert_eq!(narrow[1][..4], ["shop", "Sticky", "shop", "True"]);
    let wide = table(&["sesspol", "--output", "wide"]);
    assert_eq!(wide[0], ["NAME", "STRATEGY", "TARGET", "READY", "REASON", "AGE"]);
    assert_eq!(wide[1][..5], ["shop", "Sticky", "shop", "True", "Ready"]);
    let category = table(&["sessions", "--output", "name"]);
    assert_eq!(category, [["sessionpolicy.session-operator.dev/shop"]]);
}

#[tokio::test]
async fn a_change_of_the_wish_changes_the_annotations_and_takes_back_what_is_not_wished_any_more() {
    let (world, _) = World::shared("change").await;
    world.application("shop", "traefik").await;
    let wish = json!({"cookie": {"name": "basket", "sameSite": "Lax"}});
    world.create(&policy("shop", "shop", &wish)).await;
    world.until_ready("shop").await;
    let service = world.get("Service", "shop").await;
    assert_eq!(annotation(&service, &format!("{STICKY}.samesite")), Some("lax"));
    let change = json!({"spec": {"sticky": {"cookie": {"name": "trolley", "sameSite": null}}}});
    world.patch("SessionPolicy", "shop", &change).await;
    world.until_ready("shop").await;
    let service = world.get("Service", "shop").await;
    assert_eq!(annotation(&service, &format!("{STICKY}.name")), Some("trolley"));
    assert_eq!(annotation(&service, &format!("{STICKY}.samesite")), None);
    assert_eq!(annotation(&service, "owner"), Some("somebody"));
}
