//! From Sticky to Shared and back, rollbacks, changes by others, and undoing without a trace.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, snapshot, with_temp_namespace};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::{INJECTION_LABEL, SessionInjection};
use session_operator::drill::Class;
use session_operator::drill::event::Event;

use super::support::{
    SHARED_LIMIT, USERS, nobody_lost, nothing_in_pods, own_store, session, shared, shop, users,
};

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_policy_leaves_no_trace() -> Result<()> {
    with_temp_namespace("undo", async |cluster, namespace| {
        let (shop, _) = shop(cluster, namespace).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let store = json!({"engine": "Redis", "deletionPolicy": "Delete"});
        shared(&policies, own_store(&store)).await?;
        ensure!(
            snapshot::of(&cluster.client, namespace).await? != before,
            "nothing was set up"
        );

        policies.remove_within("shop", SHARED_LIMIT).await?;
        shop.settled().await?;
        nothing_in_pods(cluster, namespace).await?;
        let after = snapshot::without_stores(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        let injections: Api<SessionInjection> = Api::namespaced(cluster.client.clone(), namespace);
        ensure!(injections.list(&ListParams::default()).await?.items.is_empty());
        eventually(
            "what belonged to the store goes with it",
            Duration::from_mins(1),
            || async { leftovers(cluster, namespace).await },
        )
        .await
    })
    .await
}

/// Secrets and StatefulSets of the namespace.
async fn leftovers(cluster: &Cluster, namespace: &str) -> Result<Result<(), Vec<String>>> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), namespace);
    let mut left: Vec<String> = Vec::new();
    let secrets = secrets.list_metadata(&ListParams::default()).await?.items;
    left.extend(
        secrets
            .iter()
            .map(|secret| format!("Secret/{}", secret.name_any())),
    );
    let sets = sets.list_metadata(&ListParams::default()).await?.items;
    left.extend(sets.iter().map(|set| format!("StatefulSet/{}", set.name_any())));
    Ok(if left.is_empty() { Ok(()) } else { Err(left) })
}

#[tokio::test(flavor = "multi_thread")]
async fn from_sticky_to_shared_and_back_loses_what_was_said() -> Result<()> {
    with_temp_namespace("switch", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let mut spec = own_store(&json!({"engine": "Redis"}));
        spec["strategy"] = json!("Sticky");
        policies.create_with("shop", spec).await?;
        policies.ready("shop").await?;
        shop.sticky(entry).await?;
        let plan = super::support::plan(cluster, namespace, "shop", "Shared").await?;
        ensure!(
            plan.contains("sessions that are in these pods now end with them"),
            "{plan}"
        );

        // Everybody who is logged in while the pods are replaced was in a pod.
        let to_shared = strategy(&policies, "Shared");
        let report = shop
            .drill_with(entry, users(), "to Shared", async || {
                to_shared.await?;
                policies.ready_within("shop", SHARED_LIMIT).await.map(|_| ())
            })
            .await?;
        ensure!(
            report.count(Class::Lost) == USERS,
            "the plan said so: {}",
            report.table()
        );
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;

        let plan = super::support::plan(cluster, namespace, "shop", "Sticky").await?;
        ensure!(
            plan.contains("sessions that are in the store now are not found by the new pods"),
            "{plan}"
        );
        let to_sticky = strategy(&policies, "Sticky");
        let report = shop
            .drill_with(entry, users(), "to Sticky", async || {
                to_sticky.await?;
                policies.ready("shop").await?;
                unmarked(cluster, namespace).await
            })
            .await?;
        ensure!(
            report.count(Class::Lost) == USERS,
            "the plan said so: {}",
            report.table()
        );
        shop.settled().await?;
        nothing_in_pods(cluster, namespace).await
    })
    .await
}

async fn strategy(policies: &Policies, strategy: &str) -> Result<()> {
    let patch = json!({"spec": {"strategy": strategy}});
    let params = PatchParams::default();
    policies
        .api()
        .patch("shop", &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn unmarked(cluster: &Cluster, namespace: &str) -> Result<()> {
    eventually("every pod runs without a mark", SHARED_LIMIT, || async {
        let pods = super::support::pods(cluster, namespace, INJECTION_LABEL).await?;
        let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        Ok(if names.is_empty() { Ok(()) } else { Err(names) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_runs_with_the_revision_of_its_time_and_nothing_loops() -> Result<()> {
    with_temp_namespace("rollback", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        let first = mark(cluster, namespace).await?;
        // Another revision, and one more of the owner's own.
        let patch = json!({"spec": {"ttlSeconds": 1200}});
        policies
            .api()
            .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        policies.ready_within("shop", SHARED_LIMIT).await?;
        let second = mark(cluster, namespace).await?;
        ensure!(first != second, "a new revision has a new name");

        // kubectl rollout undo: the template of the ReplicaSet before.
        nobody_lost(
            &shop
                .drill_with(entry, users(), "rollout undo", async || {
                    cluster
                        .run([
                            "kubectl",
                            "--namespace",
                            namespace,
                            "rollout",
                            "undo",
                            "deployment/shop",
                        ])
                        .await?;
                    shop.settled().await?;
                    policies.ready_within("shop", SHARED_LIMIT).await?;
                    Ok(())
                })
                .await?,
        )?;
        let injections: Api<SessionInjection> = Api::namespaced(cluster.client.clone(), namespace);
        let names: BTreeSet<String> = injections
            .list(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        ensure!(
            names.contains(&first) && names.contains(&second),
            "{names:?}: a rollback needs both"
        );
        ensure!(mark(cluster, namespace).await? == first, "the rollback stands");

        // Forward again, once a person says so.
        nobody_lost(
            &shop
                .drill_with(entry, users(), "kubectl session rollout", async || {
                    session(cluster, namespace, &["rollout", "shop"]).await?;
                    shop.settled().await?;
                    policies.ready_within("shop", SHARED_LIMIT).await?;
                    Ok(())
                })
                .await?,
        )?;
        ensure!(
            mark(cluster, namespace).await? == second,
            "the template has the present revision"
        );
        Ok(())
    })
    .await
}

/// The revision that the template names.
async fn mark(cluster: &Cluster, namespace: &str) -> Result<String> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let deployment = api.get("shop").await?;
    let value: Value = serde_json::to_value(&deployment)?;
    let label = format!(
        "/spec/template/metadata/labels/{}",
        INJECTION_LABEL.replace('/', "~1")
    );
    value
        .pointer(&label)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("the template is not marked"))
}

#[tokio::test(flavor = "multi_thread")]
async fn under_manual_nothing_is_replaced_until_a_person_says_so() -> Result<()> {
    with_temp_namespace("manual", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let pods = || async { anyhow::Ok(shop.workload.pods().await?) };
        let before = pods().await?;
        let policies = Policies::new(&cluster.client, namespace);
        let mut spec = own_store(&json!({"engine": "Redis"}));
        spec["rollout"] = json!("Manual");
        policies.create_with("shop", spec).await?;
        policies
            .condition_within("shop", "Injected", "False", Some("RolloutNeeded"), SHARED_LIMIT)
            .await?;
        ensure!(pods().await? == before, "pods were replaced");
        session(cluster, namespace, &["rollout", "shop"]).await?;
        policies.ready_within("shop", SHARED_LIMIT).await?;
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)
    })
    .await
}
