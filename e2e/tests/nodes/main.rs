//! Nodes that are cut off while the sessions of their pods are in a store.
//!
//! Cut cables concern everything in the cluster, so nothing else may run beside these tests.
#![cfg(test)]

mod long;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::{App, Running, SHOP, TICKETS};
use e2e::policy::{Policies, in_store, promise};
use e2e::users::{USERS, drill_together, nobody_lost, users};
use e2e::{Cluster, node, store, with_temp_namespace};
use futures::future::try_join_all;
use serde_json::json;
use session_operator::api::{Event as Promise, Outcome};
use session_operator::drill::{Class, Options};

/// Applications that have a pod on each node.
const APPS: [App; 2] = [SHOP, TICKETS];

/// Seconds that a pod stays bound to a node that answers no more; in this cluster 15 unless it says so itself.
const TOLERATION_SECONDS: u32 = 2;

/// Few requests: what is shown is sessions, not load.
fn calm_users() -> Options {
    Options {
        period: Duration::from_secs(1),
        ..users()
    }
}

/// Sets an application up with its sessions in the store `sessions`, on every node; its pods leave a lost one soon.
async fn in_common_store(cluster: &Cluster, namespace: &str, app: App) -> Result<(Running, SocketAddr)> {
    let mut manifests = app.manifests(namespace)?;
    let template = &mut manifests.deployment.spec.get_or_insert_default().template;
    let tolerations = ["unreachable", "not-ready"].map(|taint| {
        json!({
            "key": format!("node.kubernetes.io/{taint}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_SECONDS,
        })
    });
    // Of the present revision a pod on each node that can have one, after a rolling update too.
    let spread = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Honor",
        "matchLabelKeys": ["pod-template-hash"],
        "labelSelector": {"matchLabels": {"app": app.name}},
    }]);
    let pod = template.spec.get_or_insert_default();
    pod.tolerations = serde_json::from_value(json!(tolerations))?;
    pod.topology_spread_constraints = serde_json::from_value(spread)?;
    let running = manifests.behind_traefik(cluster).await?;
    let policies = Policies::new(&cluster.client, namespace);
    let policy = policies
        .shared(in_store(app, &json!({"storeRef": {"name": "sessions"}})))
        .await?;
    let row = promise(&policy, Promise::NodeLoss)?;
    ensure!(
        row.outcome == Outcome::Partly
            && row
                .message
                .contains("all are kept when the node carries the application only")
            && row.message.contains("all are lost"),
        "{row:#?}"
    );
    Ok(running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_loses_sessions_only_with_the_store() -> Result<()> {
    with_temp_namespace("nodes", async |cluster, namespace| {
        // Away from the node that cannot be cut off.
        node::schedulable(cluster, node::FIRST, false).await?;
        let made = store::create(cluster, namespace, "sessions", json!({"engine": "Redis"})).await;
        node::schedulable(cluster, node::FIRST, true).await?;
        made?;
        let with_store = store::node(cluster, namespace, "sessions").await?;
        let other = node::OTHERS.into_iter().find(|node| *node != with_store);
        let other = other.context("a node without the store")?;
        let applications = try_join_all(APPS.map(|app| in_common_store(cluster, namespace, app))).await?;
        for app in APPS {
            let here = node::staying_pods(cluster, namespace, other).await?;
            ensure!(
                here.iter().any(|pod| pod.starts_with(app.name)),
                "{} has no pod on {other}: {here:?}",
                app.name
            );
        }

        let lost = drill_together(&applications, &calm_users(), "node cut off", async {
            node::lose(cluster, namespace, other).await?;
            try_join_all(applications.iter().map(|(running, _)| running.settled())).await?;
            Ok(())
        })
        .await;
        node::bring_back(cluster, other).await?;
        lost?.iter().try_for_each(nobody_lost)?;

        // Its own container would go on with all sessions; it is lost once it is evicted.
        let former = store::server_pod(cluster, namespace, "sessions").await?;
        let former = former.metadata.uid.context("a uid")?;
        let policies = Policies::new(&cluster.client, namespace);
        let reports = drill_together(&applications, &calm_users(), "the store's node cut off", async {
            let lost = node::lose(cluster, namespace, &with_store).await;
            node::bring_back(cluster, &with_store).await?;
            lost?;
            store::replaced(cluster, namespace, "sessions", &former).await?;
            for (running, _) in &applications {
                running.settled().await?;
                policies.ready_within(running.app.name, node::NODE_LIMIT).await?;
            }
            Ok(())
        })
        .await?;
        for report in &reports {
            ensure!(
                report.count(Class::Lost) == USERS,
                "all are lost, says status: {}",
                report.table()
            );
        }
        // The next to come find an application that works.
        let calm = drill_together(&applications, &calm_users(), "nothing", async { Ok(()) }).await?;
        calm.iter().try_for_each(nobody_lost)
    })
    .await
}
