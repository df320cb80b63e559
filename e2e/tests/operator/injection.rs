//! Injected pods while no operator runs, and when one comes that remembers nothing.

use anyhow::{Context, Result, ensure};
use e2e::app::{ROLLOUT_LIMIT, Running, SHOP, host};
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, cluster, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use session_operator::api::SessionInjection;
use session_operator::drill::{Class, Options};

use super::support::{RECOVERY_LIMIT, manifests, whole, without_operator};

/// The agents image of the chart, without its tag.
pub const AGENTS: &str = "session-operator.dev/session-agents";

fn users() -> Options {
    Options {
        members: 20,
        leavers: 3,
        ..super::support::watching()
    }
}

/// The shop with its sessions in a store of its own.
pub async fn shared(cluster: &Cluster, namespace: &str) -> Result<(Running, std::net::SocketAddr, Policies)> {
    let shop = manifests(namespace)?.create(&cluster.client, namespace).await?;
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    shop.routed(entry).await?;
    let policies = Policies::new(&cluster.client, namespace);
    let spec = json!({
        "targetRef": {"name": "shop"}, "strategy": "Shared", "shared": {"store": {"engine": "Redis"}},
        "client": {"framework": "PHP"},
    });
    policies.create_with("shop", spec).await?;
    policies.ready_within("shop", ROLLOUT_LIMIT * 2).await?;
    Ok((shop, entry, policies))
}

/// Fails if somebody is logged out by what happens.
pub async fn nobody_lost(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    event: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let shop = Running::new(&cluster.client, SHOP, namespace, &host(SHOP, namespace));
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    let report = shop.drill_with(entry, users(), name, event).await?;
    let stayed = report.count(Class::Kept) + report.count(Class::Moved);
    ensure!(
        stayed == 20 && report.count(Class::LoggedOut) == 3,
        "{}",
        report.table()
    );
    Ok(())
}

/// Images of the agents in the pods of the shop, each with how many have it.
pub async fn agents(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = api.list(&ListParams::default().labels("app=shop")).await?;
    let image = |pod: &Pod| {
        let containers = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let mut images = containers.filter_map(|container| container.image.clone());
        images.find(|image| image.starts_with(AGENTS))
    };
    // Those of the template before may still have their time to end.
    let staying = pods
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    staying
        .map(|pod| image(pod).with_context(|| format!("{} is not injected", pod.name_any())))
        .collect()
}

/// The API server itself injects, so a rollout needs no operator.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_without_an_operator_is_injected() -> Result<()> {
    with_temp_namespace("op-down", async |cluster, namespace| {
        whole(cluster).await?;
        let (shop, _, policies) = shared(cluster, namespace).await?;
        let before = shop.workload.pods().await?;
        without_operator(cluster, async || {
            nobody_lost(cluster, namespace, "rollout without an operator", async || {
                let restart = [
                    "kubectl",
                    "--namespace",
                    namespace,
                    "rollout",
                    "restart",
                    "deployment/shop",
                ];
                cluster.run(restart).await?;
                shop.settled().await
            })
            .await?;
            let after = shop.workload.pods().await?;
            ensure!(
                after.keys().all(|pod| !before.contains_key(pod)),
                "not every pod is new"
            );
            ensure!(agents(cluster, namespace).await?.len() == after.len());
            Ok(())
        })
        .await?;
        policies.ready("shop").await?;
        a_lost_revision_is_made_anew(cluster, namespace, &shop).await?;
        policies.remove_within("shop", ROLLOUT_LIMIT * 2).await
    })
    .await
}

/// The operator has just started and knows nothing of what admission applied before.
async fn a_lost_revision_is_made_anew(cluster: &Cluster, namespace: &str, shop: &Running) -> Result<()> {
    let pods = shop.workload.pods().await?;
    let injections: Api<SessionInjection> = Api::namespaced(cluster.client.clone(), namespace);
    let revisions = injections.list(&ListParams::default()).await?;
    let lost = revisions.items.first().context("a revision")?.clone();
    injections
        .delete(&lost.name_any(), &DeleteParams::default())
        .await?;
    eventually("the revision is back", RECOVERY_LIMIT, || async {
        let found = injections.get_opt(&lost.name_any()).await?;
        let back = found.is_some_and(|found| found.uid() != lost.uid());
        Ok(if back { Ok(()) } else { Err("not yet") })
    })
    .await?;
    Policies::new(&cluster.client, namespace).ready("shop").await?;
    ensure!(shop.workload.pods().await? == pods, "pods were replaced");
    Ok(())
}
