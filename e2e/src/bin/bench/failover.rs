//! What users of the shop notice when the primary of their store crashes, is deleted, or is restarted with all other servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::Cluster;
use e2e::replicated::{STORE, Scene, busy_users, calm_users, in_memory, in_shards, longest_gap};
use e2e::users::nobody_lost;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::session_store::{MemberRole, StoreMember};

use crate::{Figure, figure};

/// Crashes of which the median is taken.
const CRASHES: usize = 7;

/// Primaries that are deleted.
const DELETIONS: usize = 3;

/// Time between the last write and a crash, so that nothing is under way.
const AT_REST: Duration = Duration::from_millis(1_500);

/// What is measured of one topology.
pub struct Kind {
    name: &'static str,
    store: fn() -> Value,
    /// Seconds that the median of the longest rows of failed requests may take.
    gap_seconds: f64,
}

/// Redis over TLS, in memory: a primary and two replicas; three shards, each with a primary and a replica.
pub const KINDS: [Kind; 2] = [
    Kind {
        name: "Replicated",
        store: in_memory,
        gap_seconds: 3.0,
    },
    Kind {
        name: "Cluster",
        store: in_shards,
        gap_seconds: 5.0,
    },
];

async fn primary(scene: &Scene<'_>) -> Result<StoreMember> {
    let mut members = scene.well().await?.members.into_iter();
    let primary = members.find(|member| member.role == MemberRole::Primary);
    primary.context("no primary")
}

/// The figures of a topology.
pub async fn measure(cluster: &Cluster, namespace: &str, kind: &Kind) -> Result<Vec<Figure>> {
    let begun = Instant::now();
    e2e::store::create(cluster, namespace, STORE, (kind.store)()).await?;
    let ready = begun.elapsed();
    let scene = Scene::in_present_store(cluster, namespace).await?;

    let mut gaps = Vec::new();
    for crash in 1..=CRASHES {
        let primary = primary(&scene).await?;
        let report = scene
            .drill(calm_users(), &format!("crash {crash}"), async || {
                tokio::time::sleep(AT_REST).await;
                scene.kill(&primary.name).await?;
                scene.another_in_place_of(&primary).await?;
                scene.well().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        gaps.push(longest_gap(&report));
    }
    gaps.sort_unstable();

    let (mut failed, mut asked) = (0, 0);
    for deletion in 1..=DELETIONS {
        let primary = primary(&scene).await?;
        let report = scene
            .drill(busy_users(), &format!("deletion {deletion}"), async || {
                scene
                    .pods()
                    .delete(&primary.name, &DeleteParams::default())
                    .await?;
                scene.another_in_place_of(&primary).await?;
                scene.well().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        failed += report.failed();
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
    let name = kind.name;
    println!("{name}: longest row of failed requests of one user in each crash: {gaps:.1?}\n");
    Ok(vec![
        figure(
            &format!("{name}: from apply to Ready"),
            ready.as_secs_f64(),
            "s",
            60.0,
        ),
        figure(
            &format!(
                "{name}: longest row of failed requests of one user when a primary crashes, median of {CRASHES}"
            ),
            median.as_secs_f64(),
            "s",
            kind.gap_seconds,
        ),
        figure(
            &format!("{name}: failed requests (of {asked}) in {DELETIONS} deletions of a primary's pod"),
            count(failed),
            "",
            0.0,
        ),
        figure(
            &format!(
                "{name}: failed requests (of {}) while every server is restarted",
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
