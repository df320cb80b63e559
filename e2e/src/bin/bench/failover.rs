//! What users of the shop notice when the primary of their store crashes, is deleted, or is restarted with all other servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::Cluster;
use e2e::replicated::{STORE, Scene, busy_users, calm_users, in_memory, longest_gap};
use e2e::users::nobody_lost;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{Figure, figure};

/// Crashes of which the median is taken.
const CRASHES: usize = 7;

/// Primaries that are deleted.
const DELETIONS: usize = 3;

/// Time between the last write and a crash, so that nothing is under way.
const AT_REST: Duration = Duration::from_millis(1_500);

/// The figures of topology Replicated: one primary, two replicas, Redis over TLS, in memory.
pub async fn measure(cluster: &Cluster, namespace: &str) -> Result<Vec<Figure>> {
    let begun = Instant::now();
    e2e::store::create(cluster, namespace, STORE, in_memory()).await?;
    let ready = begun.elapsed();
    let scene = Scene::in_present_store(cluster, namespace).await?;

    let mut gaps = Vec::new();
    for crash in 0..CRASHES {
        let before = scene.whole().await?;
        let report = scene
            .drill(calm_users(), &format!("crash {}", crash + 1), async || {
                tokio::time::sleep(AT_REST).await;
                scene.kill(&scene.primary().await?.name_any()).await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        gaps.push(longest_gap(&report));
    }
    gaps.sort_unstable();

    let (mut deleted, mut asked) = (0, 0);
    for deletion in 0..DELETIONS {
        let before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), &format!("deletion {}", deletion + 1), async || {
                let primary = scene.primary().await?.name_any();
                scene.pods().delete(&primary, &DeleteParams::default()).await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        deleted += report.failed();
        asked += report.requests;
    }

    let uids = scene.uids().await?;
    let restarted = scene
        .drill(busy_users(), "every server restarted", async || {
            let patch = Patch::Merge(json!({"spec": {"memory": "80Mi"}}));
            scene
                .stores()
                .patch(STORE, &PatchParams::default(), &patch)
                .await?;
            scene.rolled(&uids).await
        })
        .await?;
    nobody_lost(&restarted)?;

    let median = gaps.get(gaps.len() / 2).context("no crash was measured")?;
    let longest = gaps.last().context("no crash was measured")?;
    println!(
        "longest row of failed requests of one user in each crash: {gaps:.1?}; the longest {longest:.1?}\n"
    );
    Ok(vec![
        figure("Replicated: from apply to Ready", ready.as_secs_f64(), "s", 60.0),
        figure(
            &format!(
                "Replicated: longest row of failed requests of one user when the primary crashes, median of {CRASHES}"
            ),
            median.as_secs_f64(),
            "s",
            3.0,
        ),
        figure(
            &format!(
                "Replicated: failed requests (of {asked}) in {DELETIONS} deletions of the primary's pod"
            ),
            count(deleted),
            "",
            0.0,
        ),
        figure(
            &format!(
                "Replicated: failed requests (of {}) while every server is restarted",
                restarted.requests
            ),
            count(restarted.failed()),
            "",
            0.0,
        ),
    ])
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn count(requests: u64) -> f64 {
    requests as f64
}
