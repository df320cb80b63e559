//! What goes wrong ends in a condition that names cause and remedy, and the application goes on as it was.

use anyhow::{Result, ensure};
use e2e::policy::{Policies, condition_of};
use e2e::{Cluster, with_temp_namespace};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::support::{SHARED_LIMIT, own_store, shop};

/// Creates a policy that cannot work, waits for its condition and checks that no pod was replaced.
async fn fails(
    cluster: &Cluster,
    namespace: &str,
    spec: Value,
    (type_, reason, words): (&str, &str, &str),
) -> Result<()> {
    let (shop, _) = shop(cluster, namespace).await?;
    let before = shop.workload.pods().await?;
    let policies = Policies::new(&cluster.client, namespace);
    policies.create_with("shop", spec).await?;
    let policy = policies
        .condition_within("shop", type_, "False", Some(reason), SHARED_LIMIT)
        .await?;
    let message = condition_of(&policy, type_)
        .map(|condition| condition.message.clone())
        .unwrap_or_default();
    ensure!(message.contains(words), "{message}");
    ensure!(shop.workload.pods().await? == before, "pods were replaced");
    policies.remove_within("shop", SHARED_LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_the_handler() -> Result<()> {
    with_temp_namespace("handler", async |cluster, namespace| {
        let mut spec = own_store(&json!({"engine": "Redis", "deletionPolicy": "Delete"}));
        // A PHP image has no Python.
        spec["client"] = json!({"framework": "Django"});
        fails(cluster, namespace, spec, ("Injected", "HandlerMissing", "Django")).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_there() -> Result<()> {
    with_temp_namespace("container", async |cluster, namespace| {
        let mut spec = own_store(&json!({"engine": "Redis", "deletionPolicy": "Delete"}));
        spec["client"]["containers"] = json!(["php"]);
        fails(
            cluster,
            namespace,
            spec,
            ("Injected", "ContainerNotFound", "it has web"),
        )
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there() -> Result<()> {
    with_temp_namespace("secret", async |cluster, namespace| {
        let mut spec = own_store(&json!({"engine": "Redis"}));
        spec["shared"] = json!({"external": {"secretRef": {"name": "mine"}}});
        fails(
            cluster,
            namespace,
            spec,
            ("StoreReady", "SecretIncomplete", "Secret mine does not exist"),
        )
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer() -> Result<()> {
    with_temp_namespace("external", async |cluster, namespace| {
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "mine"},
            "stringData": {"host": format!("nothing.{namespace}.svc"), "password": "not-to-be-seen"},
        }))?;
        secrets.create(&PostParams::default(), &secret).await?;
        let mut spec = own_store(&json!({"engine": "Redis"}));
        spec["shared"] = json!({"external": {"secretRef": {"name": "mine"}}});
        fails(
            cluster,
            namespace,
            spec,
            ("StoreReady", "StoreUnreachable", "nothing."),
        )
        .await
    })
    .await
}
