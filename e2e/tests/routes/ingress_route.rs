//! Traefik's `IngressRoute`: the setting is part of an atomic list, so it is patched, or advised.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{Running, SHOP, host};
use e2e::policy::{Policies, condition_of, promise, route};
use e2e::{Cluster, snapshot, with_temp_namespace};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::conditions::{reasons, types};
use session_operator::api::{Binds, Event as Promise, Outcome};
use session_operator::drill::event::Event;
use session_operator::policy::caches::INGRESS_ROUTE;

use super::support::{merge, nobody_moves, short, traefik};

fn ingress_route(namespace: &str) -> Value {
    json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {"entryPoints": ["web"], "routes": [{
            "kind": "Rule",
            "match": format!("Host(`{}`)", host(SHOP, namespace)),
            "services": [{"name": "shop", "port": 80}],
        }]},
    })
}

fn routes(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client.clone(), namespace, &INGRESS_ROUTE.resource())
}

/// A shop to which nothing leads yet.
async fn shop_without_ingress(cluster: &Cluster, namespace: &str) -> Result<Running> {
    let manifests = SHOP.manifests(namespace)?;
    manifests.create_without_ingress(&cluster.client, namespace).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_made_by_hand_is_patched_and_undone_exactly() -> Result<()> {
    with_temp_namespace("route", async |cluster, namespace| {
        let shop = shop_without_ingress(cluster, namespace).await?;
        let api = routes(cluster, namespace);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(ingress_route(namespace))?,
        )
        .await?;
        let entry = traefik(cluster, &shop).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let policy = policies.ready("shop").await?;
        ensure!(
            route(&policy, "IngressRoute", "shop")?.binds == Binds::Pod,
            "{policy:#?}"
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
async fn client_ip_by_hrw_sends_one_address_to_one_pod_and_says_what_that_is_worth() -> Result<()> {
    with_temp_namespace("hrw", async |cluster, namespace| {
        let shop = shop_without_ingress(cluster, namespace).await?;
        let api = routes(cluster, namespace);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(ingress_route(namespace))?,
        )
        .await?;
        let entry = traefik(cluster, &shop).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"mode": "ClientIP"}))
            .await?;
        let policy = policies.ready("shop").await?;
        ensure!(
            route(&policy, "IngressRoute", "shop")?.binds == Binds::Hash,
            "{policy:#?}"
        );
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(|message| message.contains("NAT")),
            "{message:?}"
        );
        ensure!(
            promise(&policy, Promise::ScaleUp)?.outcome == Outcome::Partly,
            "{policy:#?}"
        );

        shop.sticky(entry).await?;
        let report = shop
            .drill(entry, short(), &Event::Nothing(Duration::from_secs(3)))
            .await?;
        super::support::all_kept(&report)?;
        let used = report.pods.iter().filter(|pod| pod.users_before > 0).count();
        ensure!(
            used == 1,
            "one client address, and {used} pods: {}",
            report.table()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_somebody_applies_is_left_alone_and_the_yaml_to_add_works() -> Result<()> {
    with_temp_namespace("applied", async |cluster, namespace| {
        let shop = shop_without_ingress(cluster, namespace).await?;
        let api = routes(cluster, namespace);
        let applied = PatchParams::apply("helm");
        let mut object = ingress_route(namespace);
        api.patch("shop", &applied, &Patch::Apply(&object)).await?;
        let entry = traefik(cluster, &shop).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"cookie": {"name": "advised"}}))
            .await?;
        let reason = Some(reasons::MANUAL_CHANGE_NEEDED);
        let policy = policies
            .condition("shop", types::AFFINITY_CONFIGURED, "False", reason)
            .await?;
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED)
            .map(|found| found.message.clone())
            .unwrap_or_default();
        let untouched = api.get("shop").await?;
        ensure!(
            untouched
                .data
                .pointer("/spec/routes/0/services/0/sticky")
                .is_none(),
            "{untouched:#?}"
        );

        // What a person does: take the YAML from the message and apply it as the owner.
        let (_, yaml) = message.split_once("add:\n").unwrap_or_default();
        let advice: Value = serde_saphyr::from_str(yaml)?;
        let sticky = find(&advice, "sticky");
        ensure!(sticky.is_some(), "no sticky in the advice: {message}");
        object["spec"]["routes"][0]["services"][0]["sticky"] = sticky.cloned().unwrap_or_default();
        api.patch("shop", &applied, &Patch::Apply(&object)).await?;
        let policy = policies.ready("shop").await?;
        ensure!(
            route(&policy, "IngressRoute", "shop")?.binds == Binds::Pod,
            "{policy:#?}"
        );
        nobody_moves(&shop, entry).await?;
        policies.remove("shop").await?;
        ensure!(
            api.get("shop")
                .await?
                .data
                .pointer("/spec/routes/0/services/0/sticky")
                .is_some(),
            "theirs was removed"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_owner_changed_since_is_theirs() -> Result<()> {
    with_temp_namespace("changed-hands", async |cluster, namespace| {
        shop_without_ingress(cluster, namespace).await?;
        let api = routes(cluster, namespace);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(ingress_route(namespace))?,
        )
        .await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        policies.ready("shop").await?;
        merge(policies.api(), "shop", json!({"spec": {"suspend": true}})).await?;
        let mut changed = ingress_route(namespace)["spec"].clone();
        changed["routes"][0]["services"][0]["sticky"] = json!({"cookie": {"name": "theirs"}});
        merge(&api, "shop", json!({"spec": changed})).await?;
        policies.remove("shop").await?;
        let left = api.get("shop").await?;
        let name = left.data.pointer("/spec/routes/0/services/0/sticky/cookie/name");
        ensure!(name == Some(&json!("theirs")), "{left:#?}");
        Ok(())
    })
    .await
}

/// The first value under `key`, at any depth.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields
            .get(key)
            .or_else(|| fields.values().find_map(|field| find(field, key))),
        Value::Array(entries) => entries.iter().find_map(|entry| find(entry, key)),
        _ => None,
    }
}
