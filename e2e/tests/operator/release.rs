//! The life of a Helm release: upgraded, refused to go, detached, gone, installed again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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

async fn upgrade(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let mut arguments = vec![
        "helm",
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
        arguments.extend(["--set-string", setting]);
    }
    cluster.run(arguments).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_users_and_an_uninstall_waits_for_detach() -> Result<()> {
    with_temp_namespace("release", async |cluster, namespace| {
        whole(cluster).await?;
        let shop = manifests(namespace)?.create(&cluster.client, namespace).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let created = policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;
        let configured = snapshot::of(&cluster.client, namespace).await?;

        // Upgraded with changed values: the same policy, the same fields, no user moved.
        let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
        shop.routed(entry).await?;
        shop.sticky(entry).await?;
        let drill = Drill::new(e2e::shop::application()?, shop.target(entry)?, watching())?;
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
        ensure!(
            policies.ready("shop").await?.uid() == created.uid(),
            "the policy was made anew"
        );
        ensure!(
            snapshot::of(&cluster.client, namespace).await? == configured,
            "the upgrade changed the application"
        );

        // Uninstalling would leave fields behind that nobody takes back: refused, and nothing is gone.
        let refused = cluster
            .run([
                "helm",
                "uninstall",
                RELEASE,
                "--namespace",
                RELEASE,
                "--timeout",
                "1m",
            ])
            .await;
        ensure!(
            refused.is_err(),
            "uninstalled although a policy carries the finalizer"
        );
        let hook = cluster
            .run([
                "kubectl",
                "--namespace",
                RELEASE,
                "get",
                "deployment",
                RELEASE,
                "--output",
                "name",
            ])
            .await?;
        ensure!(hook.contains("deployment.apps/session-operator"), "{hook}");
        let said = cluster
            .run([
                "kubectl",
                "--namespace",
                RELEASE,
                "logs",
                "--selector",
                "app.kubernetes.io/component=uninstall-guard",
                "--tail=-1",
            ])
            .await?;
        ensure!(
            said.contains("kubectl session detach --all") && said.contains(&format!("{namespace}/shop")),
            "{said}"
        );

        // Detached with the user's rights: undone, kept, suspended.
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
        ensure!(
            snapshot::of(&cluster.client, namespace).await? == before,
            "detach left something behind"
        );
        cluster
            .run([
                "helm",
                "uninstall",
                RELEASE,
                "--namespace",
                RELEASE,
                "--wait",
                "--timeout",
                "2m",
            ])
            .await?;
        let kept = policies
            .api()
            .get("shop")
            .await
            .context("the policy, and so its CRD, must outlive the release")?;
        ensure!(
            kept.uid() == created.uid() && kept.spec.suspend && kept.finalizers().is_empty(),
            "{kept:#?}"
        );

        // Installed again: the policy waits, and goes on when it is told to.
        upgrade(cluster, &[]).await?;
        whole(cluster).await?;
        ensure!(
            snapshot::of(&cluster.client, namespace).await? == before,
            "a suspended policy was acted on"
        );
        let patch = Patch::Merge(json!({"spec": {"suspend": false}}));
        policies
            .api()
            .patch("shop", &PatchParams::default(), &patch)
            .await?;
        policies.ready("shop").await?;
        ensure!(
            snapshot::of(&cluster.client, namespace).await? == configured,
            "not set up again"
        );
        policies.remove("shop").await
    })
    .await
}
