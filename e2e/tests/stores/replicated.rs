//! Topology Replicated: users of the shop while servers are deleted, killed and replaced.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::policy::{Policies, promise};
use e2e::replicated::{STORE, Scene, WHOLE_LIMIT, busy_users, calm_users, cause, in_memory};
use e2e::users::nobody_lost;
use e2e::wait::eventually;
use e2e::with_temp_namespace;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use serde_json::json;
use session_operator::api::session_store::FailoverCause;
use session_operator::api::{Event as Promise, Outcome};

/// Longest time after all servers were deleted at once until the store serves again (issue: stores that stay up).
const HEAL_LIMIT: Duration = Duration::from_mins(1);

/// What status calls "within seconds" for a replica that takes over from a primary that crashed, on cores that servers and users of
/// another test share. `make bench` has the figure.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// Time between the last write and a crash, so that nothing is under way.
const AT_REST: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn users_keep_their_sessions_when_the_primary_is_deleted_killed_or_replaced() -> Result<()> {
    with_temp_namespace("store-replicated", async |cluster, namespace| {
        let scene = Scene::set_up(cluster, namespace, in_memory()).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = policies.ready("shop").await?;
        for (event, outcome) in [
            (Promise::StoreRestart, Outcome::Kept),
            (Promise::NodeLoss, Outcome::Kept),
            (Promise::StoreLoss, Outcome::Lost),
            (Promise::OperatorDown, Outcome::Partly),
        ] {
            let row = promise(&policy, event)?;
            ensure!(row.outcome == outcome, "{row:#?}");
        }

        // The primary's pod is deleted: it hands over before it ends, and what is written meanwhile stays.
        let before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), "primary's pod deleted", async || {
                let primary = scene.primary().await?.name_any();
                scene.pods().delete(&primary, &DeleteParams::default()).await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        let after = scene.whole().await?;
        ensure!(cause(&after) == Some(FailoverCause::Planned), "{after:?}");

        // The process of the primary is killed: its container is back, empty, within a second.
        let report = scene
            .drill(calm_users(), "primary's process killed", async || {
                tokio::time::sleep(AT_REST).await;
                let primary = scene.primary().await?.name_any();
                let begun = Instant::now();
                scene.kill(&primary).await?;
                let next = scene.another_than(&after).await?;
                eprintln!("a primary again after {:?}", begun.elapsed());
                ensure!(begun.elapsed() < TAKEN_OVER, "{:?}", begun.elapsed());
                ensure!(next.primary.as_ref() != Some(&primary), "{next:?}");
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;

        // A planned restart of every server.
        let uids = scene.uids().await?;
        let report = scene
            .drill(busy_users(), "memory changed", async || {
                let patch = json!({"spec": {"memory": "80Mi"}});
                let params = PatchParams::default();
                scene
                    .stores()
                    .patch(STORE, &params, &Patch::Merge(&patch))
                    .await?;
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)?;

        // What `kubectl drain` asks for, at the primary.
        let before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), "primary evicted", async || {
                let primary = scene.primary().await?.name_any();
                // Refused until the kubelets have seen that all servers are well again.
                eventually("the eviction to be allowed", WHOLE_LIMIT, || async {
                    let evicted = scene.pods().evict(&primary, &EvictParams::default()).await;
                    Ok(evicted.map(|_| ()))
                })
                .await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_volumes_all_servers_deleted_at_once_are_back_in_time() -> Result<()> {
    with_temp_namespace("store-repl-volume", async |cluster, namespace| {
        for server in 0..3 {
            let volume = format!("{namespace}-{server}");
            cluster.run(["volume", volume.as_str(), "1Gi"]).await?;
        }
        let mut spec = in_memory();
        spec["persistence"] = json!({"size": "1Gi", "storageClassName": "local"});
        let scene = Scene::set_up(cluster, namespace, spec).await?;
        let before = scene.whole().await?;
        let uids = scene.uids().await?;
        let report = scene
            .drill(calm_users(), "all servers deleted", async || {
                tokio::time::sleep(AT_REST).await;
                let begun = Instant::now();
                scene.delete_all().await?;
                scene.another_than(&before).await?;
                eprintln!("a primary again after {:?}", begun.elapsed());
                ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)?;

        let uids = scene.uids().await?;
        let report = scene
            .drill(busy_users(), "rollout restart", async || {
                let set = format!("statefulset/{STORE}");
                let restart = ["kubectl", "--namespace", namespace, "rollout", "restart", &set];
                cluster.run(restart).await?;
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_volumes_a_store_whose_servers_were_all_deleted_serves_again_in_time() -> Result<()> {
    with_temp_namespace("store-repl-all", async |cluster, namespace| {
        let mut spec = in_memory();
        spec["engine"] = json!("Valkey");
        spec["replicas"] = json!(1);
        let scene = Scene::set_up(cluster, namespace, spec).await?;
        let (before, uids) = (scene.whole().await?, scene.uids().await?);
        ensure!(uids.len() == 2, "{uids:?}");
        let begun = Instant::now();
        scene.delete_all().await?;
        // The operator may see one of them go before the other, which takes over for as long as it is there, or is about to.
        let mut after = scene.another_than(&before).await?;
        while matches!(
            cause(&after),
            None | Some(FailoverCause::Planned | FailoverCause::PodLost)
        ) {
            after = scene.another_than(&after).await?;
        }
        eprintln!("a primary again after {:?}", begun.elapsed());
        ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
        ensure!(cause(&after) == Some(FailoverCause::AllLost), "{after:?}");
        scene.rolled(&uids).await?;
        // The next to come find a store that works.
        let report = scene.drill(calm_users(), "nothing", async || Ok(())).await?;
        nobody_lost(&report)
    })
    .await
}
