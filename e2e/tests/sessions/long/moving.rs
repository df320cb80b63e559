//! Sessions on their way between a store and the pods, with users there.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::policy::Policies;
use e2e::users::LEAVERS;
use e2e::{Cluster, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use session_operator::drill::{Class, Options, Report};

use crate::support::{SHARED_LIMIT, own_store, plan, pods, shared, shop, users};

/// Users of a busy day, by the test's measure.
const MANY: u32 = 500;

/// Edits `strategy` alone, and waits until every pod keeps its sessions there.
async fn switch(policies: &Policies, strategy: &str) -> Result<()> {
    let patch = json!({"spec": {"strategy": strategy}});
    policies
        .api()
        .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    policies.ready_within("shop", 2 * SHARED_LIMIT).await?;
    Ok(())
}

/// Pods of the shop that are not about to go.
async fn staying(cluster: &Cluster, namespace: &str) -> Result<Vec<Pod>> {
    let mut pods = pods(cluster, namespace, "app=shop").await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// Takes the operator away while sessions are on their way: the next one goes on.
async fn replace_operator(cluster: &Cluster, policies: &Policies) -> Result<()> {
    policies
        .condition_within(
            "shop",
            "Injected",
            "False",
            Some("SessionsMoving"),
            2 * SHARED_LIMIT,
        )
        .await?;
    for pod in pods(
        cluster,
        "session-operator",
        "app.kubernetes.io/component=operator",
    )
    .await?
    {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "session-operator");
        api.delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn nobody_missed_anything(report: &Report) -> Result<()> {
    println!("{}", report.table());
    ensure!(
        report.count(Class::Kept) + report.count(Class::Moved) == MANY
            && report.count(Class::LoggedOut) == LEAVERS,
        "{}",
        report.table()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_between_a_store_and_the_pods_logs_nobody_out() -> Result<()> {
    with_temp_namespace("moving", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        // Without affinity: each request of a user may meet a pod of another kind.
        shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        let plan = plan(cluster, namespace, "shop", "Replicated").await?;
        ensure!(plan.contains("nobody is logged out"), "{plan}");
        let options = || Options {
            members: MANY,
            period: Duration::from_secs(12),
            event_limit: 3 * SHARED_LIMIT,
            ..users()
        };
        let there = shop
            .drill_with(entry, options(), "Shared to Replicated", async || {
                tokio::try_join!(
                    switch(&policies, "Replicated"),
                    replace_operator(cluster, &policies)
                )?;
                Ok(())
            })
            .await?;
        nobody_missed_anything(&there)?;
        let binding = policies
            .api()
            .get("shop")
            .await?
            .status
            .and_then(|status| status.binding);
        ensure!(binding.is_some_and(|binding| binding.name == "shop-session-pods"));
        for pod in staying(cluster, namespace).await? {
            let text = serde_json::to_string(&pod)?;
            ensure!(
                !text.contains("SESSION_REPLICATOR_UPSTREAM"),
                "{} still knows the store",
                pod.name_any()
            );
        }
        let back = shop
            .drill_with(entry, options(), "Replicated to Shared", async || {
                switch(&policies, "Shared").await
            })
            .await?;
        nobody_missed_anything(&back)?;
        // Pods without a sidecar end as they always did; those with one hand over.
        ensure!(back.failed() == 0, "{}", back.table());
        for pod in staying(cluster, namespace).await? {
            let text = serde_json::to_string(&pod)?;
            ensure!(
                !text.contains("session-replicator"),
                "{} still has a sidecar",
                pod.name_any()
            );
        }
        Ok(())
    })
    .await
}
