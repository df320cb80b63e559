//! Stores with topologies Replicated and Cluster while no operator runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replicated::{STORE, Scene, calm_users, cause, in_memory};
use e2e::users::nobody_lost;
use e2e::with_temp_namespace;
use kube::ResourceExt;
use session_operator::api::session_store::{FailoverCause, MemberRole};

use super::super::support::{whole, without_operator};

/// How long an empty server gets to do harm: replicas try each second to follow it.
const TEMPTATION: Duration = Duration::from_secs(8);

/// The primary's process is killed and back, empty, while nobody is there to let a replica take over: nobody is served, and
/// nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_primary_wipes_nothing_while_no_operator_runs() -> Result<()> {
    with_temp_namespace("op-down-store", async |cluster, namespace| {
        whole(cluster).await?;
        let scene = Scene::set_up(cluster, namespace, in_memory()).await?;
        let before = scene.whole().await?;
        let report = scene
            .drill(calm_users(), "primary killed without an operator", async || {
                without_operator(cluster, async || {
                    let primary = scene.primary().await?.name_any();
                    scene.kill(&primary).await?;
                    tokio::time::sleep(TEMPTATION).await;
                    ensure!(
                        scene.primary().await?.name_any() == primary,
                        "somebody changed the label"
                    );
                    Ok(())
                })
                .await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        ensure!(report.failed() > 0, "an empty server served: {}", report.table());
        nobody_lost(&report)?;
        let after = scene.whole().await?;
        ensure!(cause(&after) == Some(FailoverCause::ServerEnded), "{after:?}");
        Ok(())
    })
    .await
}

/// How long the servers have to elect, after which users are served again.
const ELECTION: Duration = Duration::from_secs(10);

/// The process of a shard's primary is killed and back, as a new server that has nothing, and nobody is there to take it in: the
/// others elect its replica.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_of_a_cluster_elect_while_no_operator_runs() -> Result<()> {
    with_temp_namespace("op-down-cluster", async |cluster, namespace| {
        whole(cluster).await?;
        let mut spec = in_memory();
        spec["topology"] = serde_json::json!("Cluster");
        let scene = Scene::set_up(cluster, namespace, spec).await?;
        let members = scene.well().await?.members.into_iter();
        let primaries = members.filter(|member| member.role == MemberRole::Primary);
        let killed = primaries.map(|member| member.name).next().unwrap_or_default();
        let failed_late = std::sync::Mutex::new(None);
        let report = scene
            .drill(
                calm_users(),
                "a shard's primary killed without an operator",
                async || {
                    without_operator(cluster, async || {
                        scene.kill(&killed).await?;
                        tokio::time::sleep(ELECTION).await;
                        // Who has not been served by now is not served before the operator is back.
                        let served = scene.drill(calm_users(), "no operator", async || Ok(())).await?;
                        *failed_late.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(served.failed());
                        Ok(())
                    })
                    .await?;
                    let status = scene.well().await?;
                    let failover = status.cluster.and_then(|cluster| cluster.last_failover);
                    ensure!(
                        failover.as_ref().and_then(|failover| failover.from.as_ref()) == Some(&killed),
                        "{STORE}: {failover:?}"
                    );
                    Ok(())
                },
            )
            .await?;
        let failed_late = failed_late.into_inner().unwrap_or_default();
        ensure!(
            failed_late == Some(0),
            "{failed_late:?} requests failed after the election"
        );
        nobody_lost(&report)
    })
    .await
}
