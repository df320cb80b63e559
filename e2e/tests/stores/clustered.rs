//! Topology Cluster: users of the shop while servers are deleted, killed and replaced.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::policy::{Policies, promise};
use e2e::replicated::{STORE, Scene, WHOLE_LIMIT, busy_users, calm_users};
use e2e::users::nobody_lost;
use e2e::wait::eventually;
use e2e::with_temp_namespace;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::session_store::{Failover, FailoverCause, MemberRole, StoreCluster};
use session_operator::api::{Event as Promise, Outcome};

/// Longest time after all servers were deleted at once until the store serves again (issue: stores that stay up).
const HEAL_LIMIT: Duration = Duration::from_mins(1);

/// What status calls "within seconds" for a replica that takes over from a primary that crashed, on cores that servers and users of
/// another test share. `make bench` has the figure.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// How long slots may take to move to a new shard, or away from one, key by key under load.
const SCALED_LIMIT: Duration = Duration::from_mins(4);

/// Time between the last write and a crash, so that nothing is under way.
const AT_REST: Duration = Duration::from_millis(1500);

/// Three shards in memory. Some tests change the engine.
fn in_memory() -> Value {
    json!({"engine": "Redis", "topology": "Cluster", "memory": "64Mi", "deletionPolicy": "Delete"})
}

/// How the shards are.
async fn cluster(scene: &Scene<'_>) -> Result<StoreCluster> {
    let status = scene.stores().get(STORE).await?.status.unwrap_or_default();
    Ok(status.cluster.unwrap_or_default())
}

/// The pod that is primary of a shard.
async fn primary(scene: &Scene<'_>, shard: i32) -> Result<String> {
    let status = scene.well().await?;
    let mut members = status.members.into_iter();
    let primary = members.find(|member| member.shard == Some(shard) && member.role == MemberRole::Primary);
    Ok(primary.context("a primary")?.name)
}

/// Waits until another change of a primary is told than `former`.
async fn another_failover(scene: &Scene<'_>, former: &StoreCluster) -> Result<Failover> {
    eventually("another primary", WHOLE_LIMIT, || async {
        let now = cluster(scene).await?;
        Ok(match &now.last_failover {
            Some(failover) if former.last_failover.as_ref() != Some(failover) => Ok(failover.clone()),
            _ => Err(now),
        })
    })
    .await
}

/// Waits until status says that something is amiss: what it said before is no news.
async fn noticed(scene: &Scene<'_>) -> Result<()> {
    eventually("the outage to be noticed", WHOLE_LIMIT, || async {
        let status = scene.stores().get(STORE).await?.status.unwrap_or_default();
        let ready = status.conditions.first().map(|ready| ready.reason.clone());
        Ok(if ready.as_deref() == Some("Ready") {
            Err(ready)
        } else {
            Ok(())
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_keep_their_sessions_when_a_primary_is_deleted_killed_or_replaced() -> Result<()> {
    with_temp_namespace("store-clustered", async |cluster_of_tests, namespace| {
        let scene = Scene::set_up(cluster_of_tests, namespace, in_memory()).await?;
        let policies = Policies::new(&cluster_of_tests.client, namespace);
        let policy = policies.ready("shop").await?;
        for (event, outcome) in [
            (Promise::StoreRestart, Outcome::Kept),
            (Promise::StoreLoss, Outcome::Lost),
            (Promise::OperatorDown, Outcome::Kept),
        ] {
            let row = promise(&policy, event)?;
            ensure!(row.outcome == outcome, "{row:#?}");
        }

        // A primary's pod is deleted: it hands over before it ends, and what is written meanwhile stays.
        let before = cluster(&scene).await?;
        let report = scene
            .drill(busy_users(), "a primary's pod deleted", async || {
                let primary = primary(&scene, 1).await?;
                scene.pods().delete(&primary, &DeleteParams::default()).await?;
                another_failover(&scene, &before).await?;
                scene.well().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        let after = cluster(&scene).await?;
        let cause = after.last_failover.as_ref().map(|failover| failover.cause);
        ensure!(cause == Some(FailoverCause::Planned), "{after:?}");

        // The process of a primary is killed: its container is back, empty, within a second.
        let report = scene
            .drill(calm_users(), "a primary's process killed", async || {
                tokio::time::sleep(AT_REST).await;
                let primary = primary(&scene, 0).await?;
                let begun = Instant::now();
                scene.kill(&primary).await?;
                let next = another_failover(&scene, &after).await?;
                eprintln!("a primary again after {:?}", begun.elapsed());
                ensure!(begun.elapsed() < TAKEN_OVER, "{:?}", begun.elapsed());
                ensure!(next.to != primary, "{next:?}");
                scene.well().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(cluster(&scene).await?.last_loss.is_none());

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

        // What `kubectl drain` asks for, at a primary.
        let before = cluster(&scene).await?;
        let report = scene
            .drill(busy_users(), "a primary evicted", async || {
                let primary = primary(&scene, 2).await?;
                // Refused until the kubelets have seen that all servers are well again.
                eventually("the eviction to be allowed", WHOLE_LIMIT, || async {
                    let evicted = scene.pods().evict(&primary, &EvictParams::default()).await;
                    Ok(evicted.map(|_| ()))
                })
                .await?;
                another_failover(&scene, &before).await?;
                scene.well().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

/// Has as many shards, as `kubectl scale` does, and waits until they share the slots.
async fn scale(scene: &Scene<'_>, shards: i32) -> Result<()> {
    let replicas = format!("--replicas={shards}");
    let arguments = [
        "kubectl",
        "--namespace",
        scene.namespace,
        "scale",
        "sessionstore",
        STORE,
        &replicas,
    ];
    scene.cluster.run(arguments).await?;
    let begun = Instant::now();
    eventually("the shards to share the slots", SCALED_LIMIT, || async {
        let store = scene.stores().get(STORE).await?;
        let status = store.status.unwrap_or_default();
        let sizes: Vec<i32> = status.members.iter().filter_map(|member| member.slots).collect();
        let is_even = sizes.iter().all(|slots| (slots - 16384 / shards).abs() <= 1);
        let is_current = status.observed_generation == store.metadata.generation;
        let count = i32::try_from(sizes.len()).unwrap_or_default();
        Ok(
            if is_even
                && is_current
                && count == shards
                && scene.servers().await?.len() == store.spec.servers()
            {
                Ok(())
            } else {
                Err(status)
            },
        )
    })
    .await?;
    eprintln!("{shards} shards share the slots after {:?}", begun.elapsed());
    scene.well().await.map(|_| ())
}

/// Users are at work while a shard comes and goes.
async fn shards_come_and_go(name: &str, spec: Value) -> Result<()> {
    with_temp_namespace(name, async |cluster_of_tests, namespace| {
        let scene = Scene::set_up(cluster_of_tests, namespace, spec).await?;
        for shards in [4, 3] {
            let name = format!("{shards} shards asked for");
            let report = scene
                .drill(busy_users(), &name, async || scale(&scene, shards).await)
                .await?;
            nobody_lost(&report)?;
        }
        ensure!(cluster(&scene).await?.last_loss.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_come_and_go_under_load_key_by_key() -> Result<()> {
    shards_come_and_go("store-clus-keys", in_memory()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_come_and_go_under_load_slots_as_a_whole() -> Result<()> {
    let mut spec = in_memory();
    spec["engine"] = json!("Valkey");
    spec["tls"] = json!("Disabled");
    shards_come_and_go("store-clus-slots", spec).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_volumes_all_servers_deleted_at_once_are_back_in_time() -> Result<()> {
    with_temp_namespace("store-clus-volume", async |cluster_of_tests, namespace| {
        for server in 0..6 {
            let volume = format!("{namespace}-{server}");
            cluster_of_tests.run(["volume", volume.as_str(), "1Gi"]).await?;
        }
        let mut spec = in_memory();
        spec["persistence"] = json!({"size": "1Gi", "storageClassName": "local"});
        let scene = Scene::set_up(cluster_of_tests, namespace, spec).await?;
        let uids = scene.uids().await?;
        let report = scene
            .drill(calm_users(), "all servers deleted", async || {
                tokio::time::sleep(AT_REST).await;
                let begun = Instant::now();
                scene.delete_all().await?;
                noticed(&scene).await?;
                scene.rolled(&uids).await?;
                eprintln!("whole again after {:?}", begun.elapsed());
                ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
                Ok(())
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(cluster(&scene).await?.last_loss.is_none());

        let uids = scene.uids().await?;
        let report = scene
            .drill(busy_users(), "rollout restart", async || {
                for shard in 0..3 {
                    let set = format!("statefulset/{STORE}-{shard}");
                    let restart = ["kubectl", "--namespace", namespace, "rollout", "restart", &set];
                    cluster_of_tests.run(restart).await?;
                }
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_volumes_a_store_whose_servers_were_all_deleted_serves_again_in_time() -> Result<()> {
    with_temp_namespace("store-clus-all", async |cluster_of_tests, namespace| {
        let mut spec = in_memory();
        spec["engine"] = json!("Valkey");
        let scene = Scene::set_up(cluster_of_tests, namespace, spec).await?;
        let uids = scene.uids().await?;
        ensure!(uids.len() == 6, "{uids:?}");
        let begun = Instant::now();
        scene.delete_all().await?;
        noticed(&scene).await?;
        scene.rolled(&uids).await?;
        eprintln!("whole again after {:?}", begun.elapsed());
        ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
        let loss = cluster(&scene).await?.last_loss;
        ensure!(loss.is_some(), "{:?}", scene.well().await?);
        // The next to come find a store that works.
        let report = scene.drill(calm_users(), "nothing", async || Ok(())).await?;
        nobody_lost(&report)
    })
    .await
}
