//! While nothing changes that concerns a policy, the operator only looks.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::audit::assert_none;
use crate::operator::Operator;
use crate::own::{Own, peace};
use crate::world::{World, deployment, policy, service, version};

const NAMES: [&str; 3] = ["shop", "blog", "game"];

/// Three applications, each with its own way of being sticky.
async fn three_policies(world: &World) {
    world.application("shop", "traefik").await;
    world.application("blog", "nginx").await;
    world.create(&deployment("game")).await;
    world.create(&service("game")).await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.create(&policy("blog", "blog", &Value::Null)).await;
    world
        .create(&policy("game", "game", &json!({"mode": "ClientIP"})))
        .await;
    for name in NAMES {
        world.until_ready(name).await;
    }
}

/// resourceVersions of everything that the operator could write.
async fn versions(world: &World) -> Vec<String> {
    let mut versions = Vec::new();
    for (kind, names) in [
        ("SessionPolicy", &NAMES[..]),
        ("Service", &NAMES[..]),
        ("Ingress", &NAMES[..2]),
    ] {
        for name in names {
            versions.push(format!(
                "{kind}/{name} at {}",
                version(&world.get(kind, name).await)
            ));
        }
    }
    versions
}

/// Makes the operator reconcile the policy of a Deployment, and waits until it has.
async fn after(operator: &Operator, change: impl Future<Output = ()>) {
    let before = operator.reconciles().await;
    change.await;
    operator.until_reconciled(before, 1.0).await;
}

async fn pod_churn(world: &World, name: &str, ready: u32) {
    let status = json!({"status": {"replicas": 3, "readyReplicas": ready, "updatedReplicas": 3, "observedGeneration": 1}});
    world
        .api("Deployment")
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_written_over_reconciles_pod_churn_and_a_restart() {
    let _peace = peace().await;
    let own = Own::new("steady").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    three_policies(world).await;
    operator.until_reconciled(0.0, 3.0).await;
    let (stable, written) = (versions(world).await, operator.writes().len());
    assert!(written > 0, "the audit log shows no write of the operator");

    for round in 0..4 {
        for name in NAMES {
            let note = json!({"metadata": {"annotations": {"note": format!("round {round}")}}});
            after(&operator, async {
                drop(world.patch("Deployment", name, &note).await);
            })
            .await;
            after(&operator, pod_churn(world, name, round % 3)).await;
        }
    }
    assert_eq!(versions(world).await, stable);
    assert_none("written in steady state", &operator.writes()[written..]);

    operator.stop().await;
    let operator = own.start_leader().await;
    operator.until_reconciled(0.0, 3.0).await;
    for name in NAMES {
        after(&operator, pod_churn(world, name, 3)).await;
    }
    assert_eq!(versions(world).await, stable);
    assert_none("written after a restart", &operator.writes());
}

#[tokio::test]
async fn a_change_of_something_else_on_a_written_object_is_no_reason_to_write() {
    let _peace = peace().await;
    let own = Own::new("others").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    three_policies(world).await;
    operator.until_reconciled(0.0, 3.0).await;
    let written = operator.writes().len();
    for (kind, name) in [("Service", "shop"), ("Ingress", "blog"), ("Service", "game")] {
        let note = json!({"metadata": {"annotations": {"note": "mine"}, "labels": {"tier": "front"}}});
        after(&operator, async { drop(world.patch(kind, name, &note).await) }).await;
    }
    assert_none("written for a foreign annotation", &operator.writes()[written..]);
}

#[tokio::test]
async fn a_change_of_a_route_reconciles_the_policies_that_it_concerns_and_no_others() {
    let _peace = peace().await;
    let own = Own::new("concerns").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    three_policies(world).await;
    operator.until_reconciled(0.0, 3.0).await;
    // An application without a policy: none of its changes is anybody's business.
    let before = operator.reconciles().await;
    world.application("wiki", "traefik").await;
    for kind in ["Deployment", "Service", "Ingress"] {
        world
            .patch(kind, "wiki", &json!({"metadata": {"labels": {"tier": "front"}}}))
            .await;
    }
    world
        .patch(
            "Service",
            "shop",
            &json!({"metadata": {"labels": {"tier": "front"}}}),
        )
        .await;
    operator.until_reconciled(before, 1.0).await;
    let reconciles = operator.reconciles().await - before;
    assert!(
        (reconciles - 1.0).abs() < f64::EPSILON,
        "{reconciles} reconciles for one change of one policy's Service"
    );
}
