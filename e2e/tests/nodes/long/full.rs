//! A primary whose volume is full refuses writes. Its replica, which has everything and can write, takes over.

use anyhow::{Context, Result, ensure};
use e2e::replicated::{STORE, Scene, busy_users, in_memory, in_shards};
use e2e::users::{LEAVERS, nobody_lost};
use e2e::wait::eventually;
use e2e::{replicated, with_temp_namespace};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::Api;
use serde_json::{Value, json};
use session_operator::api::session_store::{FailoverCause, MemberRole};
use session_operator::drill::Class;

/// Room on each volume: enough for the sessions of some users.
const ROOM: &str = "64m";

/// What condition Ready says once the volume of a server that does not serve is full, and names it.
async fn is_told_of(scene: &Scene<'_>, server: &str) -> Result<()> {
    eventually(
        &format!("status names {server}"),
        replicated::WHOLE_LIMIT,
        || async {
            let status = scene.stores().get(STORE).await?.status.unwrap_or_default();
            let ready = status.conditions.first().context("a condition")?;
            let is_told =
                ready.status == "True" && ready.reason == "VolumeFailing" && ready.message.contains(server);
            Ok(if is_told { Ok(()) } else { Err(status) })
        },
    )
    .await
}

async fn a_full_volume(
    name: &str,
    mut store: Value,
    servers: usize,
    nobody_misses_anything: bool,
) -> Result<()> {
    with_temp_namespace(name, async |cluster, namespace| {
        for server in 0..servers {
            let volume = format!("{namespace}-{server}");
            cluster.run(["volume", volume.as_str(), "1Gi", ROOM]).await?;
        }
        store["persistence"] = json!({"size": "1Gi", "storageClassName": "local"});
        let scene = Scene::set_up(cluster, namespace, store).await?;
        let report = scene
            .drill(busy_users(), "the volume of a primary is full", async || {
                let members = scene.well().await?.members;
                let primary = members.iter().find(|member| member.role == MemberRole::Primary);
                let primary = primary.context("a primary")?;
                let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), namespace);
                let claim = claims.get(&format!("data-{}", primary.name)).await?;
                let volume = claim.spec.and_then(|spec| spec.volume_name).context("a volume")?;
                cluster.run(["fill", &volume]).await?;
                scene.another_in_place_of(primary).await?;
                is_told_of(&scene, &primary.name).await?;
                cluster.run(["clear", &volume]).await?;
                let status = scene.well().await?;
                let replication = status
                    .replication
                    .and_then(|replication| replication.last_failover);
                let failover = replication.or(status.cluster.and_then(|cluster| cluster.last_failover));
                let cause = failover.as_ref().map(|failover| failover.cause);
                ensure!(cause == Some(FailoverCause::VolumeFailed), "{failover:?}");
                Ok(())
            })
            .await?;
        if nobody_misses_anything {
            return nobody_lost(&report);
        }
        // PHP's handler for clusters has no locks, and writes after it has answered: a write that is refused goes unnoticed.
        let all_in = report.count(Class::Lost) + report.count(Class::Unknown) == 0;
        ensure!(
            all_in && report.count(Class::LoggedOut) == LEAVERS,
            "{}",
            report.table()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_from_a_primary_whose_volume_is_full() -> Result<()> {
    a_full_volume("full-replicated", in_memory(), 3, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_from_a_primary_of_a_shard_whose_volume_is_full() -> Result<()> {
    a_full_volume("full-shards", in_shards(), 6, false).await
}
