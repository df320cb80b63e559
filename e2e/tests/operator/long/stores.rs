//! A store with topology Replicated while no operator runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replicated::{Scene, calm_users, cause, in_memory};
use e2e::users::nobody_lost;
use e2e::with_temp_namespace;
use kube::ResourceExt;
use session_operator::api::session_store::FailoverCause;

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
