//! What somebody else removes is put back, but not fought over.

use serde_json::{Value, json};

use crate::operator::Operator;
use crate::own::{Own, peace};
use crate::world::{World, annotation, policy};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

/// How often the operator puts something back within an hour.
const RESTORES: usize = 5;

fn written(operator: &Operator, world: &World, resource: &str) -> usize {
    let mut writes = operator.writes();
    writes.retain(|request| request.resource == resource && request.namespace == world.namespace);
    writes.len()
}

#[tokio::test]
async fn what_is_removed_again_and_again_is_restored_five_times_and_then_reported_without_a_loop() {
    let _peace = peace().await;
    let own = Own::new("removed").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    let present = |service: &Value| annotation(service, STICKY) == Some("true");
    let removal = json!({"metadata": {"annotations": {STICKY: null}}});
    for _ in 0..RESTORES {
        world.until("Service", "shop", "our annotation", present).await;
        world.patch("Service", "shop", &removal).await;
        world
            .until("Service", "shop", "our annotation again", present)
            .await;
    }
    world.until_ready("shop").await;
    world.patch("Service", "shop", &removal).await;
    let message = world
        .until_refused("shop", "AffinityConfigured", "RemovedRepeatedly")
        .await;
    assert!(message.contains("put back 5 times within an hour"), "{message}");
    assert!(message.contains("--show-managed-fields"), "{message}");
    assert_eq!(written(&operator, world, "services"), 1 + RESTORES);
    world.until_event("shop", "RemovedRepeatedly").await;

    let (status, events) = (
        written(&operator, world, "sessionpolicies/status"),
        written(&operator, world, "events"),
    );
    let start = operator.reconciles().await;
    for round in 0..5 {
        let before = operator.reconciles().await;
        let note = json!({"metadata": {"annotations": {"note": format!("round {round}")}}});
        world.patch("Service", "shop", &note).await;
        operator.until_reconciled(before, 1.0).await;
    }
    assert_eq!(annotation(&world.get("Service", "shop").await, STICKY), None);
    assert_eq!(written(&operator, world, "services"), 1 + RESTORES);
    // The message says how long it waits only in the operator's own head: nothing is written per round.
    assert_eq!(written(&operator, world, "sessionpolicies/status"), status);
    assert_eq!(written(&operator, world, "events"), events);
    let reconciles = operator.reconciles().await - start;
    assert!(reconciles <= 10.0, "{reconciles} reconciles for 5 changes");
    // Another wish is another matter.
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"sticky": {"cookie": {"name": "renamed"}}}}),
        )
        .await;
    world.until_ready("shop").await;
}
