//! Pods that end behind two proxies: Envoy, configured by Contour, drops a pod at once when it is told to end; Traefik keeps
//! users there. Measured in the same way, without the operator and with sessions in the pods.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::Policies;
use e2e::{Cluster, contour, with_temp_namespace};
use serde_json::{Value, json};
use session_operator::drill::event::Event;
use session_operator::drill::{Class, Report};

use crate::replicated::in_pods;
use crate::support::{SHARED_LIMIT, nobody_lost, shared, users};

/// How long pods go on for the users that they have.
const DRAIN_SECONDS: u32 = 15;

/// The shop behind an HTTPProxy that spreads requests by `balancing`.
async fn behind_envoy(cluster: &Cluster, namespace: &str, balancing: &str) -> Result<(Running, SocketAddr)> {
    let mut proxy = contour::http_proxy(namespace);
    proxy["spec"]["routes"][0]["loadBalancerPolicy"] = json!({"strategy": balancing});
    contour::behind(cluster, namespace, proxy).await
}

fn unharmed(what: &str, report: &Report) -> Result<()> {
    println!("{what}: {} requests failed\n{}", report.failed(), report.table());
    nobody_lost(report)?;
    ensure!(
        report.failed() == 0,
        "{what}: requests failed: {}",
        report.table()
    );
    Ok(())
}

/// What leads users to the shop.
#[derive(Clone, Copy, Debug)]
enum Proxy {
    Traefik,
    /// With requests spread in this way, as an HTTPProxy has it.
    Envoy(&'static str),
}

/// What becomes of users when pods are replaced, first as the shop is by itself, then with its sessions in the pods.
async fn replaced(name: &str, proxy: Proxy, replicated: &Value) -> Result<()> {
    with_temp_namespace(name, async |cluster, namespace| {
        let (shop, entry) = match proxy {
            Proxy::Traefik => SHOP.manifests(namespace)?.behind_traefik(cluster).await?,
            Proxy::Envoy(balancing) => behind_envoy(cluster, namespace, balancing).await?,
        };
        let alone = shop.drill(entry, users(), &Event::Restart).await?;
        println!(
            "{proxy:?}, by itself: {} requests failed\n{}",
            alone.failed(),
            alone.table()
        );
        ensure!(
            alone.count(Class::Kept) + alone.count(Class::Moved) == 0,
            "without the operator somebody kept a session: {}",
            alone.table()
        );

        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, in_pods(replicated, &Value::Null)).await?;
        // The pods from before the policy do not hand over: none of them is to be asked any more.
        shop.routed(entry).await?;
        for event in [Event::Restart, Event::DeletePod(None)] {
            let report = shop.drill(entry, users(), &event).await?;
            unharmed(&format!("{proxy:?}, {replicated}, {event}"), &report)?;
            shop.routed(entry).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_hand_over_behind_traefik() -> Result<()> {
    replaced("traefik-all", Proxy::Traefik, &json!({"mode": "All"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_hand_over_behind_envoy_without_affinity() -> Result<()> {
    replaced("envoy-all", Proxy::Envoy("RoundRobin"), &json!({"mode": "All"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_hand_over_behind_envoy_with_its_own_cookie() -> Result<()> {
    let backup = json!({"mode": "Backup", "backups": 1});
    replaced("envoy-backup", Proxy::Envoy("Cookie"), &backup).await
}

/// What becomes of users under strategy Sticky with a drain, when all pods are replaced: they lose their sessions sooner or later,
/// as these are in the pods, and no request fails. Envoy keeps nobody on a pod that ends; there the pod serves on until it knows.
async fn drained(name: &str, proxy: Proxy) -> Result<()> {
    with_temp_namespace(name, async |cluster, namespace| {
        let (shop, entry) = match proxy {
            Proxy::Traefik => SHOP.manifests(namespace)?.behind_traefik(cluster).await?,
            Proxy::Envoy(_) => contour::behind(cluster, namespace, contour::http_proxy(namespace)).await?,
        };
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"drainSeconds": DRAIN_SECONDS}))
            .await?;
        let policy = policies.ready_within("shop", SHARED_LIMIT).await?;
        let found = policy.status.iter().flat_map(|status| &status.affinity).next();
        let found = found.context("no route")?;
        let is_refused = found
            .unsupported
            .iter()
            .any(|sentence| sentence.contains("drainSeconds"));
        let is_kept = matches!(proxy, Proxy::Traefik);
        ensure!(
            is_kept == found.keeps_terminating_pods && is_kept != is_refused,
            "{found:#?}"
        );
        // The pods from before do not drain.
        shop.settled().await?;
        shop.sticky(entry).await?;
        let report = shop.drill(entry, users(), &Event::Restart).await?;
        println!(
            "{proxy:?}, Sticky with drainSeconds {DRAIN_SECONDS}: {} of {} requests failed\n{}",
            report.failed(),
            report.requests,
            report.table()
        );
        ensure!(report.failed() == 0, "requests failed: {}", report.table());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sticky_pods_drain_behind_traefik() -> Result<()> {
    drained("traefik-drained", Proxy::Traefik).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sticky_pods_leave_envoy_in_order() -> Result<()> {
    drained("envoy-drained", Proxy::Envoy("Cookie")).await
}
