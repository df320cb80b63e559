//! Sessions in the pods of Deployments of several sizes: updates, scaling, and more than one pod at a time.

use anyhow::{Result, ensure};
use e2e::app::Running;
use e2e::policy::Policies;
use e2e::{Cluster, with_temp_namespace};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::drill::event::Event;
use session_operator::drill::{Class, Options, Report};

use super::super::replicated::in_pods;
use super::super::support::{SHARED_LIMIT, USERS, nobody_lost, shared, shop, users};

/// For Deployments of twenty pods.
fn patient() -> Options {
    Options {
        event_limit: 4 * SHARED_LIMIT,
        ..users()
    }
}

fn unharmed(report: &Report) -> Result<()> {
    eprintln!("{}", report.table());
    nobody_lost(report)?;
    ensure!(report.failed() == 0, "requests failed: {}", report.table());
    Ok(())
}

async fn patch(policies: &Policies, spec: &Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    policies
        .api()
        .patch("shop", &PatchParams::default(), &patch)
        .await?;
    policies.ready_within("shop", 2 * SHARED_LIMIT).await?;
    Ok(())
}

/// Updates of 3, 6 and 20 pods in one mode, with and without affinity.
async fn updates(name: &str, replicated: Value) -> Result<()> {
    with_temp_namespace(name, async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, in_pods(&replicated, &Value::Null)).await?;
        for sticky in [Value::Null, json!({})] {
            patch(&policies, &json!({"sticky": sticky})).await?;
            shop.routed(entry).await?;
            if !sticky.is_null() {
                shop.sticky(entry).await?;
            }
            for replicas in [3, 6, 20] {
                let scaled = shop.drill(entry, patient(), &Event::Scale(replicas)).await?;
                unharmed(&scaled)?;
                shop.routed(entry).await?;
                unharmed(&shop.drill(entry, patient(), &Event::Restart).await?)?;
            }
            unharmed(&shop.drill(entry, patient(), &Event::Scale(3)).await?)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_any_size_fail_no_request_in_mode_all() -> Result<()> {
    updates("sizes-all", json!({"mode": "All"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_any_size_fail_no_request_in_mode_backup() -> Result<()> {
    updates("sizes-backup", json!({"mode": "Backup", "backups": 1})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_three_pods_to_ten_and_to_two() -> Result<()> {
    with_temp_namespace("three-ten-two", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let backup = json!({"mode": "Backup", "backups": 1});
        shared(&policies, in_pods(&backup, &Value::Null)).await?;
        // The pods from before the policy do not hand over: none of them is to be asked any more.
        shop.routed(entry).await?;
        for replicas in [10, 2] {
            unharmed(&shop.drill(entry, patient(), &Event::Scale(replicas)).await?)?;
        }
        Ok(())
    })
    .await
}

/// Deletes some pods at the same moment, with so many seconds to end.
async fn delete(cluster: &Cluster, namespace: &str, shop: &Running, count: usize, grace: u32) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(grace),
        ..DeleteParams::default()
    };
    let names: Vec<String> = shop.workload.pods().await?.into_keys().take(count).collect();
    try_join_all(names.iter().map(|name| pods.delete(name, &params))).await?;
    shop.settled().await
}

/// With one backup, two pods that are deleted hand over, one after the other has or not; two that are killed take along the
/// sessions that only these two had, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn two_pods_of_backup_at_once() -> Result<()> {
    with_temp_namespace("two-at-once", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let backup = json!({"mode": "Backup", "backups": 1});
        shared(&policies, in_pods(&backup, &Value::Null)).await?;
        shop.drill(entry, patient(), &Event::Scale(4)).await?;
        shop.routed(entry).await?;
        let deleted = shop
            .drill_with(entry, patient(), "two pods deleted", async || {
                delete(cluster, namespace, &shop, 2, 60).await
            })
            .await?;
        eprintln!("{}", deleted.table());
        nobody_lost(&deleted)?;
        let killed = shop
            .drill_with(entry, patient(), "two pods killed", async || {
                delete(cluster, namespace, &shop, 2, 0).await
            })
            .await?;
        eprintln!("{}", killed.table());
        // Of four pods, one pair in six: about five users of thirty.
        let kept = killed.count(Class::Kept) + killed.count(Class::Moved);
        ensure!(kept > USERS / 2, "{}", killed.table());
        ensure!(killed.count(Class::BackAfterLogout) == 0, "{}", killed.table());
        Ok(())
    })
    .await
}
