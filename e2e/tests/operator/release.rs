//! The life of a Helm release: upgraded, refused to go, detached, gone, installed again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::Policies;
use e2e::{Cluster, cluster, snapshot, with_temp_namespace};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::drill::{Class, Drill};
use tokio::process::Command;

use super::support::{RELEASE, manifests, watching, whole};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/session-operator")
}

/// Runs Helm: the program that `HELM` names (another major version), else the cluster's.
async fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let Ok(program) = std::env::var("HELM") else {
        return cluster.run(["helm"].iter().chain(arguments)).await;
    };
    let ended = Command::new(&program)
        .args(arguments)
        .output()
        .await
        .with_context(|| format!("starting {program}"))?;
    ensure!(
        ended.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(String::from_utf8(ended.stdout)?)
}

/// Upgrades the release with changed values.
pub(super) async fn upgrade(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        RELEASE,
        "--reuse-values",
        "--wait",
        "--timeout",
        "3m",
    ];
    for setting in settings {
        // A null gives the chart's own value back.
        let option = if setting.ends_with("=null") {
            "--set"
        } else {
            "--set-string"
        };
        arguments.extend([option, setting]);
    }
    helm(cluster, &arguments).await.map(|_| ())
}

/// Upgrades the release with changed values while users go on; nobody may be lost or moved, and no request may fail.
async fn upgrade_under_load(cluster: &Cluster, shop: &Running) -> Result<()> {
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    shop.routed(entry).await?;
    shop.sticky(entry).await?;
    let drill = Drill::new(SHOP.application()?, shop.target(entry)?, watching())?;
    let report = drill
        .run("helm upgrade", async |_| {
            let upgraded = upgrade(cluster, &["log.level=debug", "podLabels.upgraded=once"]).await;
            upgraded.map_err(|error| std::io::Error::other(format!("{error:#}")))
        })
        .await?;
    ensure!(
        report.count(Class::Kept) == report.users && report.failed() == 0,
        "{}",
        report.table()
    );
    Ok(())
}

/// Uninstalling now would leave fields behind that nobody takes back: it is refused, says why, and nothing is gone.
async fn uninstall_is_refused(cluster: &Cluster, policy: &str) -> Result<()> {
    let refused = helm(
        cluster,
        &["uninstall", RELEASE, "--namespace", RELEASE, "--timeout", "1m"],
    )
    .await;
    ensure!(
        refused.is_err(),
        "uninstalled although a policy carries the finalizer"
    );
    let kubectl = ["kubectl", "--namespace", RELEASE];
    let kept = cluster
        .run(
            kubectl
                .iter()
                .chain(&["get", "deployment", RELEASE, "--output", "name"]),
        )
        .await?;
    ensure!(kept.contains("deployment.apps/session-operator"), "{kept}");
    let selector = "app.kubernetes.io/component=uninstall-guard";
    let said = cluster
        .run(
            kubectl
                .iter()
                .chain(&["logs", "--selector", selector, "--tail=-1"]),
        )
        .await?;
    ensure!(
        said.contains("kubectl session detach --all") && said.contains(policy),
        "{said}"
    );
    Ok(())
}

async fn detach_all() -> Result<()> {
    let program = std::env::var("KUBECTL_SESSION")
        .context("KUBECTL_SESSION names the kubectl-session binary; e2e/stage sets it")?;
    let detached = Command::new(program)
        .args(["detach", "--all", "--yes"])
        .output()
        .await?;
    ensure!(
        detached.status.success(),
        "{}",
        String::from_utf8_lossy(&detached.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_users_and_an_uninstall_waits_for_detach() -> Result<()> {
    with_temp_namespace("release", async |cluster, namespace| {
        let now = || snapshot::of(&cluster.client, namespace);
        whole(cluster).await?;
        let shop = manifests(namespace)?.create(&cluster.client, namespace).await?;
        let before = now().await?;
        let policies = Policies::new(&cluster.client, namespace);
        let created = policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;
        let configured = now().await?;

        upgrade_under_load(cluster, &shop).await?;
        helm(
            cluster,
            &["test", RELEASE, "--namespace", RELEASE, "--timeout", "1m"],
        )
        .await?;
        ensure!(
            policies.ready("shop").await?.uid() == created.uid(),
            "the policy was made anew"
        );
        ensure!(now().await? == configured, "the upgrade changed the application");

        uninstall_is_refused(cluster, &format!("{namespace}/shop")).await?;
        detach_all().await?;
        ensure!(now().await? == before, "detach left something behind");
        helm(
            cluster,
            &[
                "uninstall",
                RELEASE,
                "--namespace",
                RELEASE,
                "--wait",
                "--timeout",
                "2m",
            ],
        )
        .await?;
        let kept = policies.api().get("shop").await;
        let kept = kept.context("the policy, and so its CRD, must outlive the release")?;
        ensure!(
            kept.uid() == created.uid() && kept.spec.suspend && kept.finalizers().is_empty(),
            "{kept:#?}"
        );

        // Installed again: the policy waits, and goes on when it is told to.
        upgrade(cluster, &[]).await?;
        whole(cluster).await?;
        ensure!(now().await? == before, "a suspended policy was acted on");
        let patch = Patch::Merge(json!({"spec": {"suspend": false}}));
        policies
            .api()
            .patch("shop", &PatchParams::default(), &patch)
            .await?;
        policies.ready("shop").await?;
        ensure!(now().await? == configured, "not set up again");
        policies.remove("shop").await
    })
    .await
}
