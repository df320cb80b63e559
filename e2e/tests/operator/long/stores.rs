//! A store with topology Replicated while no operator runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replicated::{Scene, calm_users, cause, in_memory};
use e2e::users::nobody_lost;
use e2e::wait::eventually;
use e2e::{Cluster, with_temp_namespace};
use kube::ResourceExt;
use session_operator::api::session_store::FailoverCause;

use super::super::injection::scale_operator;
use super::super::support::{RECOVERY_LIMIT, pods, whole};

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

/// Does something while no operator runs, and brings it back whatever comes of it.
async fn without_operator<F>(cluster: &Cluster, event: F) -> Result<()>
where
    F: AsyncFnOnce() -> Result<()>,
{
    scale_operator(cluster, 0).await?;
    let ended = async {
        eventually("no operator runs", RECOVERY_LIMIT, || async {
            let left = pods(cluster).await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left.len()) })
        })
        .await?;
        event().await
    }
    .await;
    scale_operator(cluster, 2).await?;
    whole(cluster).await?;
    ended
}
