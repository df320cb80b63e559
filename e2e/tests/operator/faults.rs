//! The operator or the API server is gone: users must not notice, and there are never two writers.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{Running, SHOP, host};
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, cluster, with_temp_namespace};
use kube::ResourceExt;
use kube::api::{ListParams, PatchParams};
use serde_json::{Value, json};
use session_operator::drill::{Class, Drill, Report};

use super::support::{
    RECOVERY_LIMIT, RELEASE, address, leader, leader_other_than, manifests, pods, restarts, watching, whole,
    writes,
};

/// Drills the shop of a namespace while `fault` runs. Nobody may be lost or moved, and no request may fail.
async fn users_notice_nothing<F>(cluster: &Cluster, namespace: &str, name: &str, fault: F) -> Result<Report>
where
    F: AsyncFnOnce() -> Result<()>,
{
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    let shop = Running::new(&cluster.client, SHOP, namespace, &host(SHOP, namespace));
    shop.routed(entry).await?;
    shop.sticky(entry).await?;
    let drill = Drill::new(SHOP.application()?, shop.target(entry)?, watching())?;
    let report = drill
        .run(name, async |_| {
            fault()
                .await
                .map_err(|error| std::io::Error::other(format!("{error:#}")))
        })
        .await?;
    ensure!(
        report.count(Class::Kept) == report.users && report.failed() == 0,
        "{}",
        report.table()
    );
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_replicas_killed_while_policies_arrive() -> Result<()> {
    with_temp_namespace("op-killed", async |cluster, namespace| {
        whole(cluster).await?;
        manifests(namespace)?.create(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;
        users_notice_nothing(cluster, namespace, "operator killed", async || {
            for round in 0..4 {
                policies
                    .create(&format!("late-{round}"), &format!("nothing-{round}"), Value::Null)
                    .await?;
                if round == 1 {
                    for pod in pods(cluster).await? {
                        cluster.run(["kill", "-n", RELEASE, &pod.name_any()]).await?;
                    }
                }
            }
            eventually("every policy has a status again", RECOVERY_LIMIT, || async {
                let mut silent = Vec::new();
                for policy in policies.api().list(&ListParams::default()).await?.items {
                    if policy.status.is_none() {
                        silent.push(policy.name_any());
                    }
                }
                Ok(if silent.is_empty() { Ok(()) } else { Err(silent) })
            })
            .await
        })
        .await?;
        whole(cluster).await?;
        policies.remove("shop").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_never_writes_beside_its_successor() -> Result<()> {
    with_temp_namespace("op-cut", async |cluster, namespace| {
        whole(cluster).await?;
        manifests(namespace)?.create(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;

        let former = leader_other_than(cluster, None).await?;
        let former_address = address(cluster, &former).await?;
        let former_restarts = restarts(cluster).await?;
        cluster.run(["cut-pod", &format!("{RELEASE}/{former}")]).await?;
        let successor = leader_other_than(cluster, Some(&former)).await;
        let healed = async {
            successor?;
            // The successor works: what it writes is in the log before the former leader can speak again.
            policies.create("after-cut", "nothing", Value::Null).await?;
            policies.condition("after-cut", "Ready", "False", None).await?;
            eventually("the cut-off leader ends itself", RECOVERY_LIMIT, || async {
                let now = restarts(cluster).await?;
                Ok(if now.get(&former) > former_restarts.get(&former) {
                    Ok(())
                } else {
                    Err(now)
                })
            })
            .await
        }
        .await;
        cluster.run(["heal-pod", &format!("{RELEASE}/{former}")]).await?;
        healed?;

        whole(cluster).await?;
        policies.create("after-heal", "nothing", Value::Null).await?;
        policies.condition("after-heal", "Ready", "False", None).await?;
        let log = writes(cluster).await?;
        let taken_over = log
            .iter()
            .find(|write| write.from != former_address && write.what.contains("after-cut"));
        ensure!(
            taken_over.is_some(),
            "the successor's write is not in the audit log: {log:#?}"
        );
        let since = taken_over.map(|write| write.at.clone()).unwrap_or_default();
        // The former leader's container may lead again one day, but not without the successor giving up the lease.
        let stale: Vec<_> = log
            .iter()
            .filter(|write| write.from == former_address && write.at > since)
            .collect();
        ensure!(
            leader(cluster).await?.as_deref() != Some(&former) && stale.is_empty(),
            "two writers: {stale:#?}"
        );
        policies.remove("shop").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts() -> Result<()> {
    with_temp_namespace("op-api", async |cluster, namespace| {
        whole(cluster).await?;
        manifests(namespace)?.create(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let before = policies.ready("shop").await?;
        users_notice_nothing(cluster, namespace, "API server restarted", async || {
            cluster.run(["kill-apiserver"]).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.run(["start-apiserver"]).await?;
            Ok(())
        })
        .await?;
        whole(cluster).await?;
        policies
            .api()
            .patch(
                "shop",
                &PatchParams::default(),
                &kube::api::Patch::Merge(json!({"spec": {"sticky": {"cookie": {"name": "renamed"}}}})),
            )
            .await?;
        let after = policies.ready("shop").await?;
        ensure!(after.metadata.generation > before.metadata.generation);
        policies.remove("shop").await
    })
    .await
}
