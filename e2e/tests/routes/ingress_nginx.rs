//! ingress-nginx annotations, as Traefik's provider for them reads them.

use anyhow::{Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, condition_of, route};
use e2e::{Cluster, cluster, snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use session_operator::api::Binds;
use session_operator::api::conditions::{reasons, types};

use super::support::{merge, nobody_moves};

async fn nginx_shop(cluster: &Cluster, namespace: &str, paths: &[(&str, &str)]) -> Result<Running> {
    let mut manifests = SHOP.manifests(namespace)?;
    let spec = manifests.ingress.spec.get_or_insert_default();
    spec.ingress_class_name = Some("nginx".into());
    for rule in spec.rules.iter_mut().flatten() {
        let paths = paths.iter().map(|(path, service)| {
            json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}})
        });
        rule.http = serde_json::from_value(json!({"paths": paths.collect::<Vec<_>>()}))?;
    }
    manifests.create(&cluster.client, namespace).await
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_on_the_ingress_keep_users_and_the_ambiguity_is_said() -> Result<()> {
    with_temp_namespace("nginx", async |cluster, namespace| {
        let shop = nginx_shop(cluster, namespace, &[("/", "shop")]).await?;
        let entry = cluster.expose(cluster::TRAEFIK_NGINX_PORT).await?;
        shop.routed(entry).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let policy = policies.ready("shop").await?;
        let affinity = route(&policy, "Ingress", "shop")?;
        ensure!(
            affinity.binds == Binds::Pod && affinity.written_to.as_deref() == Some("Ingress/shop"),
            "{affinity:#?}"
        );
        ensure!(
            affinity.notes.iter().any(|note| note.contains("Traefik")),
            "{affinity:#?}"
        );
        nobody_moves(&shop, entry).await?;
        policies.remove("shop").await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_to_two_targets_is_refused_unless_allowed() -> Result<()> {
    with_temp_namespace("nginx-shared", async |cluster, namespace| {
        let other = json!({"metadata": {"name": "other"}, "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}});
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        services.create(&PostParams::default(), &serde_json::from_value(other)?).await?;
        let shop = nginx_shop(cluster, namespace, &[("/", "shop"), ("/other", "other")]).await?;
        let entry = cluster.expose(cluster::TRAEFIK_NGINX_PORT).await?;
        shop.routed(entry).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let reason = Some(reasons::SHARED_ROUTE);
        let policy = policies.condition("shop", types::AFFINITY_CONFIGURED, "False", reason).await?;
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED).map(|found| found.message.as_str());
        ensure!(message.is_some_and(|message| message.contains("other") && message.contains("sharedRoutes")), "{message:?}");
        ensure!(snapshot::of(&cluster.client, namespace).await? == before, "something was written all the same");

        merge(policies.api(), "shop", json!({"spec": {"sticky": {"sharedRoutes": "Allow"}}})).await?;
        policies.ready("shop").await?;
        nobody_moves(&shop, entry).await
    })
    .await
}
