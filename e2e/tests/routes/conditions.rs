//! Order of creation, and what is said while something is missing.

use anyhow::{Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, condition_of};
use e2e::with_temp_namespace;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::Api;
use serde_json::{Value, json};
use session_operator::api::conditions::{reasons, types};

use super::support::{merge, nobody_moves, traefik};

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_come_before_its_target() -> Result<()> {
    with_temp_namespace("policy-first", async |cluster, namespace| {
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let reason = Some(reasons::TARGET_NOT_FOUND);
        let policy = policies
            .condition("shop", types::TARGET_RESOLVED, "False", reason)
            .await?;
        let message = condition_of(&policy, types::READY).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(|message| message.contains(&format!("{namespace}/shop"))),
            "{message:?}"
        );

        let shop = SHOP
            .manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let entry = traefik(cluster, &shop).await?;
        policies.ready("shop").await?;
        nobody_moves(&shop, entry).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_of_an_unknown_class_is_named_and_left_alone() -> Result<()> {
    with_temp_namespace("unknown-class", async |cluster, namespace| {
        SHOP.manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let ingresses: Api<Ingress> = Api::namespaced(cluster.client.clone(), namespace);
        merge(
            &ingresses,
            "shop",
            json!({"spec": {"ingressClassName": "nobody-knows"}}),
        )
        .await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let reason = Some(reasons::CONTROLLER_NOT_RECOGNISED);
        let policy = policies
            .condition("shop", types::AFFINITY_CONFIGURED, "False", reason)
            .await?;
        let message = condition_of(&policy, types::READY).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(
                |message| message.contains("nobody-knows") && message.contains("sticky.controller")
            ),
            "{message:?}"
        );
        Ok(())
    })
    .await
}
