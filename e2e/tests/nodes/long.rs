//! Sessions in the pods while pods cannot hear each other, or nobody can ask the API server.

mod disruptor;
mod full;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, SHARED_LIMIT};
use e2e::users::nobody_lost;
use e2e::{Cluster, node, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use session_operator::drill::event::Event;
use session_operator::drill::{Options, Report};
use tokio::time::sleep;

use super::calm_users;

/// Where sidecars reach each other.
const PEERS: &str = "7946";

/// The least idle life of a session that a policy can ask for.
const TTL: Duration = Duration::from_mins(1);

/// Until proxies, kubelets and controllers have caught up after the API server was away.
const CAUGHT_UP: Duration = Duration::from_secs(5);

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(30);

/// For events that take longer than others.
fn patient_users() -> Options {
    Options {
        event_limit: 2 * SHARED_LIMIT,
        ..calm_users()
    }
}

/// The shop, each pod on a node of its own, with its sessions in the pods and users bound to pods.
async fn in_pods(cluster: &Cluster, namespace: &str, replicated: Value) -> Result<(Running, SocketAddr)> {
    let mut manifests = SHOP.manifests(namespace)?;
    let template = &mut manifests.deployment.spec.get_or_insert_default().template;
    let spread = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": ["pod-template-hash"],
        "labelSelector": {"matchLabels": {"app": SHOP.name}},
    }]);
    let pod = template.spec.get_or_insert_default();
    pod.topology_spread_constraints = serde_json::from_value(spread)?;
    let (shop, entry) = manifests.behind_traefik(cluster).await?;
    let policies = Policies::new(&cluster.client, namespace);
    let spec = json!({
        "targetRef": {"name": SHOP.name},
        "strategy": "Replicated",
        "replicated": replicated,
        "sticky": {},
        "client": {"framework": SHOP.framework, "ttlSeconds": TTL.as_secs()},
    });
    policies.shared(spec).await?;
    shop.routed(entry).await?;
    shop.sticky(entry).await?;
    Ok((shop, entry))
}

/// Replaces the pods on a node, so that their users find what other pods have.
async fn replace_pods_on(cluster: &Cluster, shop: &Running, namespace: &str, node: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let here = node::staying_pods(cluster, namespace, node).await?;
    ensure!(!here.is_empty(), "no pod on {node}");
    for pod in here {
        pods.delete(&pod, &DeleteParams::default()).await?;
    }
    shop.settled().await
}

/// Pods on one node hear those on the others no more, for longer than sessions live; users go on at both sides, new ones log
/// in, some log out. Then they hear each other again.
async fn split(name: &str, replicated: Value) -> Result<()> {
    with_temp_namespace(name, async |cluster, namespace| {
        let (shop, entry) = in_pods(cluster, namespace, replicated).await?;
        let [other, _] = node::OTHERS;
        let meanwhile: RefCell<Option<Report>> = RefCell::default();
        let before = shop
            .drill_with(entry, patient_users(), "peers split", async || {
                cluster.run(["cut-port", other, PEERS]).await?;
                sleep(TTL + TTL / 6).await;
                let report = shop
                    .drill_with(entry, patient_users(), "peers together again", async || {
                        cluster.run(["heal-port", other, PEERS]).await?;
                        sleep(TTL / 3).await;
                        replace_pods_on(cluster, &shop, namespace, other).await
                    })
                    .await;
                if report.is_err() {
                    cluster.run(["heal-port", other, PEERS]).await?;
                }
                *meanwhile.borrow_mut() = Some(report?);
                Ok(())
            })
            .await?;
        let meanwhile = meanwhile.into_inner().context("users during the split")?;
        eprintln!(
            "logged in before:\n{}\nmeanwhile:\n{}",
            before.table(),
            meanwhile.table()
        );
        nobody_lost(&before)?;
        nobody_lost(&meanwhile)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_longer_than_sessions_live_in_mode_all() -> Result<()> {
    split("split-all", json!({"mode": "All"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_longer_than_sessions_live_in_mode_backup() -> Result<()> {
    split("split-backup", json!({"mode": "Backup", "backups": 1})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_away_during_a_rollout() -> Result<()> {
    with_temp_namespace("rollout-no-api", async |cluster, namespace| {
        let (shop, entry) = in_pods(cluster, namespace, json!({"mode": "Backup", "backups": 1})).await?;
        let report = shop
            .drill_with(
                entry,
                patient_users(),
                "API server away during a rollout",
                async || {
                    cluster
                        .run([
                            "kubectl",
                            "rollout",
                            "restart",
                            "deployment/shop",
                            "--namespace",
                            namespace,
                        ])
                        .await?;
                    // The first pods are on their way.
                    sleep(Duration::from_secs(5)).await;
                    cluster.run(["kill-apiserver"]).await?;
                    sleep(AWAY).await;
                    cluster.run(["start-apiserver"]).await?;
                    sleep(CAUGHT_UP).await;
                    shop.settled().await
                },
            )
            .await?;
        eprintln!("{}", report.table());
        nobody_lost(&report)?;
        nobody_lost(&shop.drill(entry, calm_users(), &Event::Restart).await?)
    })
    .await
}
