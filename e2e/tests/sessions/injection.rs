//! What users do to a Deployment whose pods are injected: the injection comes back or stays, nobody is blocked, and the
//! operator writes the Deployment once where something was taken away and never where nothing was.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, condition_of};
use e2e::wait::eventually;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use serde_json::{Value, json};
use session_operator::api::INJECTION_LABEL;

use super::support::{SHARED_LIMIT, nobody_lost, own_store, pods, shared, shop, users};

/// How long nothing may be written once all is well.
pub const CALM: Duration = Duration::from_secs(20);

/// Requests of the operator in a namespace within [`CALM`] once all is well: it looks at policy and store about twice a
/// minute.
pub const CALM_READS: usize = 60;

pub fn deployments(cluster: &Cluster, namespace: &str) -> Api<Deployment> {
    Api::namespaced(cluster.client.clone(), namespace)
}

pub fn redis() -> Value {
    own_store(&json!({"engine": "Redis"}))
}

/// How often the operator has changed the Deployment since a time.
pub async fn marked(cluster: &Cluster, namespace: &str, since: &str) -> Result<usize> {
    let requests = audit::requests(cluster, namespace, since).await?;
    let writes = requests.iter().filter(|request| {
        request.is_write()
            && request.code < 300
            && request.object.starts_with("deployments/")
            && request.object.ends_with("/shop")
    });
    Ok(writes.count())
}

/// Waits until every pod of the shop is injected again, whatever the template was in between.
pub async fn whole_again(cluster: &Cluster, namespace: &str, shop: &Running) -> Result<()> {
    let policies = Policies::new(&cluster.client, namespace);
    eventually("every pod is injected", SHARED_LIMIT, || async {
        let policy = policies.api().get("shop").await?;
        let injected = condition_of(&policy, "Injected").is_some_and(|found| found.status == "True");
        let marked = pods(cluster, namespace, &format!("app=shop,{INJECTION_LABEL}"))
            .await?
            .len();
        let all = pods(cluster, namespace, "app=shop").await?.len();
        Ok(if injected && marked == all {
            Ok(())
        } else {
            Err(policy.status)
        })
    })
    .await?;
    shop.settled().await
}

/// The manifest of the shop, as its owner has it in a file: without anything of ours.
pub fn manifest(namespace: &str) -> Result<Value> {
    let mut object = serde_json::to_value(SHOP.manifests(namespace)?.deployment)?;
    object["apiVersion"] = json!("apps/v1");
    object["kind"] = json!("Deployment");
    Ok(object)
}

async fn replace(cluster: &Cluster, namespace: &str, object: &Value) -> Result<()> {
    let file = std::env::temp_dir().join(format!("{namespace}.json"));
    tokio::fs::write(&file, object.to_string()).await?;
    let name = file.to_string_lossy().into_owned();
    let replaced = cluster
        .run([
            "kubectl",
            "--namespace",
            namespace,
            "replace",
            "--filename",
            &name,
        ])
        .await;
    tokio::fs::remove_file(&file).await?;
    replaced.map(|_| ())
}

/// The mark is put back before the pods without it are ready, so nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_replace_without_the_mark_is_put_right_at_once() -> Result<()> {
    with_temp_namespace("replace", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, redis()).await?;
        let first = mark(cluster, namespace).await?;
        let since = audit::now();
        let mut release = manifest(namespace)?;
        release["spec"]["template"]["metadata"]["annotations"] = json!({"release": "2"});
        let report = shop
            .drill_with(entry, users(), "kubectl replace", async || {
                replace(cluster, namespace, &release).await?;
                whole_again(cluster, namespace, &shop).await
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(
            marked(cluster, namespace, &since).await? == 1,
            "one write puts it right"
        );
        ensure!(mark(cluster, namespace).await? == first);

        // A manifest that was once read from the cluster, with the mark of a revision that is long gone.
        release["spec"]["template"]["metadata"]["labels"][INJECTION_LABEL] = json!("shop-0123456789");
        let since = audit::now();
        replace(cluster, namespace, &release).await?;
        whole_again(cluster, namespace, &shop).await?;
        ensure!(
            marked(cluster, namespace, &since).await? == 1,
            "one write puts it right"
        );
        audit::stays_calm(cluster, namespace, CALM, CALM_READS, 0).await
    })
    .await
}

/// The revision that the template names.
pub async fn mark(cluster: &Cluster, namespace: &str) -> Result<String> {
    let deployment = deployments(cluster, namespace).get("shop").await?;
    let template = deployment
        .spec
        .context("a spec")?
        .template
        .metadata
        .context("metadata")?;
    let labels = template.labels.unwrap_or_default();
    labels
        .get(INJECTION_LABEL)
        .cloned()
        .ok_or_else(|| anyhow!("the template is not marked"))
}
