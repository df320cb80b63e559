//! An operator with other images comes; too long for CI's budget.

mod rotation;
mod stores;

use anyhow::{Context, Result, ensure};
use e2e::app::{ROLLOUT_LIMIT, Running};
use e2e::policy::{Policies, condition_of};
use e2e::wait::eventually;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use session_operator::api::SessionPolicy;
use session_operator::api::session_policy::Injection;

use super::injection::{AGENTS, agents, nobody_lost, shared};
use super::release::upgrade;
use super::support::{RECOVERY_LIMIT, RELEASE, session, whole};

/// Another agents image under another tag, on every node.
async fn another_agents_image(cluster: &Cluster, tag: &str) -> Result<()> {
    let of_release = cluster
        .run([
            "kubectl",
            "--namespace",
            RELEASE,
            "get",
            "deployment",
            RELEASE,
            "--output",
            "json",
        ])
        .await?;
    let deployment: Deployment = serde_json::from_str(&of_release)?;
    let template = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .context("a template")?;
    let arguments = template
        .containers
        .iter()
        .flat_map(|container| container.args.iter().flatten());
    let mut images = arguments.filter_map(|argument| argument.strip_prefix("--agents-image="));
    let present = images.next().context("no --agents-image")?;
    let folder = std::env::temp_dir().join(format!("session-operator-agents-{tag}"));
    tokio::fs::create_dir_all(&folder).await?;
    tokio::fs::write(
        folder.join("Containerfile"),
        format!("FROM {present}\nLABEL release={tag}\n"),
    )
    .await?;
    let image = format!("{AGENTS}:{tag}");
    let context = folder.to_string_lossy().into_owned();
    let built = cluster.run(["image", "build", &image, &context]).await;
    tokio::fs::remove_dir_all(&folder).await?;
    built?;
    cluster.run(["load", &image]).await.map(|_| ())
}

async fn injection(policies: &Policies) -> Result<(SessionPolicy, Injection)> {
    let policy = policies.api().get("shop").await?;
    let injection = policy.status.as_ref().and_then(|status| status.injection.clone());
    Ok((policy, injection.context("no status.injection")?))
}

/// Upgrades the operator to other agents, and waits until the policy offers them.
async fn offered(cluster: &Cluster, policies: &Policies, settings: &[&str]) -> Result<()> {
    let (_, before) = injection(policies).await?;
    upgrade(cluster, settings).await?;
    whole(cluster).await?;
    eventually("the update is offered", RECOVERY_LIMIT, || async {
        let (_, now) = injection(policies).await?;
        let another = now.update_available && now.next_revision != before.next_revision;
        Ok(if another { Ok(()) } else { Err(now) })
    })
    .await
}

/// An upgrade replaces no pods; a person says when, and an image that cannot be pulled takes nobody's session.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_other_images_rolls_nothing_until_it_is_told_to() -> Result<()> {
    with_temp_namespace("op-images", async |cluster, namespace| {
        whole(cluster).await?;
        another_agents_image(cluster, "next").await?;
        let (shop, _, policies) = shared(cluster, namespace).await?;
        let ended = told_to(cluster, namespace, &shop, &policies).await;
        let reset = upgrade(cluster, &["agents.image.tag=", "agents.imagePullSecrets=null"]).await;
        ended?;
        reset?;
        whole(cluster).await?;
        policies.remove_within("shop", ROLLOUT_LIMIT * 2).await
    })
    .await
}

async fn told_to(cluster: &Cluster, namespace: &str, shop: &Running, policies: &Policies) -> Result<()> {
    let before = (shop.workload.pods().await?, agents(cluster, namespace).await?);
    let since = audit::now();
    offered(cluster, policies, &["agents.image.tag=nowhere"]).await?;
    let (policy, _) = injection(policies).await?;
    let ready = condition_of(&policy, "Ready").context("no Ready")?;
    ensure!(
        ready.status == "True" && ready.message.contains("kubectl session rollout shop"),
        "{ready:?}"
    );
    ensure!(
        (shop.workload.pods().await?, agents(cluster, namespace).await?) == before,
        "pods were replaced"
    );
    let written = audit::requests(cluster, namespace, &since).await?;
    let written = written
        .iter()
        .any(|request| request.is_write() && request.object.starts_with("deployments/"));
    ensure!(!written, "the Deployment was written");

    nobody_lost(cluster, namespace, "an image that is nowhere", async || {
        session(cluster, namespace, &["rollout", "shop", "--no-wait"]).await?;
        eventually("the image is named", RECOVERY_LIMIT, || async {
            let (policy, _) = injection(policies).await?;
            let found = condition_of(&policy, "Injected");
            let image = format!("{AGENTS}:nowhere");
            let words = [image.as_str(), "cannot be pulled", "agents.imagePullSecrets"];
            let named = found.is_some_and(|found| {
                found.reason == "RolloutBlocked" && words.iter().all(|word| found.message.contains(word))
            });
            Ok(if named { Ok(()) } else { Err(policy.status) })
        })
        .await
    })
    .await?;

    let settings = ["agents.image.tag=next", "agents.imagePullSecrets[0]=mirror"];
    offered(cluster, policies, &settings).await?;
    nobody_lost(cluster, namespace, "kubectl session rollout", async || {
        session(cluster, namespace, &["rollout", "shop"]).await?;
        policies.ready_within("shop", ROLLOUT_LIMIT * 2).await.map(|_| ())
    })
    .await?;
    let images = agents(cluster, namespace).await?;
    ensure!(images.iter().all(|image| image.ends_with(":next")), "{images:?}");
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    for pod in api.list(&ListParams::default().labels("app=shop")).await? {
        let spec = pod.spec.clone().context("a spec")?;
        let secrets = spec.image_pull_secrets.unwrap_or_default();
        ensure!(
            secrets.iter().any(|secret| secret.name == "mirror"),
            "{}: {secrets:?}",
            pod.name_any()
        );
    }
    Ok(())
}
