//! A policy that this version of the operator cannot read.

use serde_json::{Value, json};

use crate::own::{Own, STAGE, alone};
use crate::stage::POLICY_CRD;
use crate::world::{annotation, condition, essence, has_finalizer, policy};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

/// Adds a strategy to the CRD that the operator does not know, as a newer version would.
fn allow_unknown_strategy() {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/strategy/enum/-";
    let patch = json!([{"op": "add", "path": path, "value": "Telepathy"}]).to_string();
    STAGE.kubectl(&["patch", "crd", POLICY_CRD, "--type=json", "--patch", &patch]);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_says_so_and_does_not_stop_the_others() {
    let _alone = alone().await;
    let own = Own::new("unreadable").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.application("shop", "traefik").await;
    world.application("blog", "traefik").await;
    world.application("wiki", "traefik").await;
    let before = essence(&world.get("Service", "wiki").await);
    world.create(&policy("wiki", "wiki", &Value::Null)).await;
    world.until_ready("wiki").await;

    allow_unknown_strategy();
    let mut unreadable = policy("shop", "shop", &Value::Null);
    unreadable["spec"]["strategy"] = json!("Telepathy");
    crate::wait::until("the changed schema to be in force", || async {
        world
            .try_create(&unreadable, "Strict")
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    // One that was set up before, too.
    world
        .patch(
            "SessionPolicy",
            "wiki",
            &json!({"spec": {"strategy": "Telepathy"}}),
        )
        .await;
    STAGE.restore_policy_crd();

    for name in ["shop", "wiki"] {
        let policy = world
            .until("SessionPolicy", name, "InvalidSpec", |policy| {
                condition(policy, "Ready").is_some_and(|ready| ready["reason"] == "InvalidSpec")
            })
            .await;
        let message = condition(&policy, "Ready").unwrap()["message"].as_str().unwrap();
        assert!(message.contains("Telepathy"), "{message}");
        assert!(
            message.contains("kubectl explain sessionpolicy.spec"),
            "{message}"
        );
    }
    world.until_event("shop", "InvalidSpec").await;
    world.create(&policy("blog", "blog", &Value::Null)).await;
    world.until_ready("blog").await;

    // What stands is left alone, and deletion undoes it.
    assert_eq!(
        annotation(&world.get("Service", "wiki").await, STICKY),
        Some("true")
    );
    assert!(has_finalizer(&world.get("SessionPolicy", "wiki").await));
    world.delete_policy("wiki").await;
    assert_eq!(essence(&world.get("Service", "wiki").await), before);
    world.delete_policy("shop").await;

    let writes = operator.writes();
    let statuses = writes
        .iter()
        .filter(|request| request.name == "shop" && request.resource == "sessionpolicies/status")
        .count();
    assert_eq!(statuses, 1, "what is wrong is said once");
    operator.stop().await;
}
