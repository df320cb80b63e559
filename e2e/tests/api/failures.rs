//! Operators and API servers that end, hang and come back.

use serde_json::{Value, json};

use crate::audit::assert_none;
use crate::operator::Operator;
use crate::own::{Own, STAGE, alone, peace};
use crate::world::{World, annotation, policy};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

/// One more application with a policy, and the policy's changes in force.
async fn one_more(world: &World, name: &str) {
    world.application(name, "traefik").await;
    world.create(&policy(name, name, &Value::Null)).await;
    world.until_ready(name).await;
}

/// Waits until there is nothing left to do for `operator`.
async fn settled(operator: &Operator) {
    let now = operator.reconciles().await;
    operator.until_reconciled(now, 0.0).await;
}

#[tokio::test]
async fn the_operator_recovers_from_an_api_server_that_was_killed() {
    let _alone = alone().await;
    let own = Own::new("outage").await;
    let world = &own.world;
    let mut operator = own.start_leader().await;
    one_more(world, "shop").await;
    STAGE.restart_api_server();
    if !operator.is_running() {
        // An outage longer than its renew deadline ends it, by design; the kubelet would start it again.
        let log = std::fs::read_to_string(&operator.log).unwrap();
        assert!(log.contains("lost leadership"), "{log}");
        operator = own.start().await;
    }
    one_more(world, "blog").await;
    // Watches of everything that it looks at are back: a change of each kind has its effect.
    world
        .patch(
            "Service",
            "shop",
            &json!({"metadata": {"annotations": {STICKY: null}}}),
        )
        .await;
    world
        .until("Service", "shop", "restored", |service| {
            annotation(service, STICKY) == Some("true")
        })
        .await;
    world.delete("Ingress", "blog").await;
    world.until_refused("blog", "AffinityConfigured", "NoRoute").await;
    world.delete("Deployment", "shop").await;
    world
        .until_refused("shop", "TargetResolved", "TargetNotFound")
        .await;
    drop(operator);
}

#[tokio::test]
async fn of_two_operators_one_writes_and_the_other_takes_over_when_it_is_killed() {
    let _peace = peace().await;
    let own = Own::new("two").await;
    let world = &own.world;
    let first = own.start_leader().await;
    let second = own.start().await;
    one_more(world, "shop").await;
    assert!(!first.writes().is_empty());
    assert_none("written by the one that does not lead", &second.writes());
    let lease = || async {
        STAGE.kubectl(&[
            "-n",
            &own.release,
            "get",
            "lease",
            "session-operator",
            "-o",
            "json",
        ])
    };
    let before: Value = serde_json::from_str(&lease().await).unwrap();
    first.kill();
    second.until_leading().await;
    one_more(world, "blog").await;
    assert!(!second.writes().is_empty());
    let after: Value = serde_json::from_str(&lease().await).unwrap();
    assert_ne!(after["spec"]["holderIdentity"], before["spec"]["holderIdentity"]);
    assert_eq!(
        after["spec"]["leaseTransitions"],
        json!(before["spec"]["leaseTransitions"].as_i64().unwrap_or(0) + 1)
    );
    second.stop().await;
}

#[tokio::test]
async fn an_operator_that_is_asked_to_end_hands_over_at_once() {
    let _peace = peace().await;
    let own = Own::new("handover").await;
    let first = own.start_leader().await;
    let second = own.start().await;
    first.stop().await;
    let lease = STAGE.kubectl(&[
        "-n",
        &own.release,
        "get",
        "lease",
        "session-operator",
        "-o",
        "json",
    ]);
    let lease: Value = serde_json::from_str(&lease).unwrap();
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    assert!(
        holder.is_empty() || second.is_called(holder),
        "the lease is still held by {holder}"
    );
    second.until_leading().await;
    second.stop().await;
}

#[tokio::test]
async fn a_leader_that_was_stopped_past_its_lease_never_writes_again_and_ends() {
    let _peace = peace().await;
    let own = Own::new("stopped").await;
    let world = &own.world;
    let mut first = own.start_leader().await;
    one_more(world, "shop").await;
    settled(&first).await;
    first.signal("STOP");
    let written = first.writes().len();
    let second = own.start().await;
    // Work for the first one to find when it wakes: changes that wait in its connections.
    world
        .patch(
            "Service",
            "shop",
            &json!({"metadata": {"annotations": {STICKY: null}}}),
        )
        .await;
    world.application("blog", "traefik").await;
    world.create(&policy("blog", "blog", &Value::Null)).await;
    second.until_leading().await;
    world.until_ready("blog").await;
    world
        .until("Service", "shop", "restored", |service| {
            annotation(service, STICKY) == Some("true")
        })
        .await;
    world
        .patch(
            "Service",
            "blog",
            &json!({"metadata": {"annotations": {STICKY: null}}}),
        )
        .await;
    world
        .until("Service", "blog", "restored", |service| {
            annotation(service, STICKY) == Some("true")
        })
        .await;
    first.signal("CONT");
    let status = first.until_ended().await;
    assert!(!status.success(), "it ended as if it had been asked to");
    let log = std::fs::read_to_string(&first.log).unwrap();
    assert!(log.contains("lost leadership"), "{log}");
    assert_none(
        "written after its lease had passed on",
        &first.writes()[written..],
    );
    one_more(world, "wiki").await;
    second.stop().await;
}

#[tokio::test]
async fn an_operator_that_is_killed_half_way_is_continued_by_the_next_one() {
    let _peace = peace().await;
    let own = Own::new("halfway").await;
    let world = &own.world;
    for name in ["shop", "blog", "wiki", "game"] {
        world.application(name, "traefik").await;
    }
    let operator = own.start_leader().await;
    for name in ["shop", "blog", "wiki", "game"] {
        world.create(&policy(name, name, &Value::Null)).await;
    }
    // At its first write to a Service it has not yet written the others, nor this policy's status.
    crate::wait::until("a first write to a Service", || async {
        let writes = operator.writes();
        let first = writes.iter().any(|request| request.resource == "services");
        first
            .then_some(())
            .ok_or_else(|| format!("{} writes", writes.len()))
    })
    .await;
    operator.kill();
    // Restarted by the kubelet, it has to wait until its former self's lease has run out.
    let operator = own.start_leader().await;
    for name in ["shop", "blog", "wiki", "game"] {
        world.until_ready(name).await;
    }
    operator.stop().await;
}
