//! Other owners of the same objects: nothing of theirs is overwritten, nothing is fought over.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, condition_of};
use e2e::wait::eventually;
use e2e::{snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::conditions::{reasons, types};

use super::support::merge;

const NAME: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie.name";

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_somebody_else_set_is_a_conflict_until_both_agree() -> Result<()> {
    with_temp_namespace("conflict", async |cluster, namespace| {
        SHOP.manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        let theirs =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"annotations": {NAME: "theirs"}}});
        services
            .patch(
                "shop",
                &PatchParams::apply("platform-team"),
                &Patch::Apply(&theirs),
            )
            .await?;
        let before = snapshot::of(&cluster.client, namespace).await?;

        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let reason = Some(reasons::FIELD_CONFLICT);
        let policy = policies
            .condition("shop", types::AFFINITY_CONFIGURED, "False", reason)
            .await?;
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(|message| message.contains("platform-team") && message.contains(NAME)),
            "{message:?}"
        );
        ensure!(
            snapshot::of(&cluster.client, namespace).await? == before,
            "something was written all the same"
        );

        merge(
            policies.api(),
            "shop",
            json!({"spec": {"sticky": {"cookie": {"name": "theirs"}}}}),
        )
        .await?;
        policies.ready("shop").await?;
        policies.remove("shop").await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(
            after == before,
            "their annotation must stay, and nothing else: {before:#?} became {after:#?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_somebody_removes_is_restored() -> Result<()> {
    with_temp_namespace("removed", async |cluster, namespace| {
        SHOP.manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;
        let wanted = services.get("shop").await?.annotations().clone();
        merge(
            &services,
            "shop",
            json!({"metadata": {"annotations": {NAME: null}}}),
        )
        .await?;
        eventually("the annotation is back", Duration::from_secs(10), || async {
            let found = services.get("shop").await?.annotations().clone();
            Ok(if found == wanted { Ok(()) } else { Err(found) })
        })
        .await
    })
    .await
}
