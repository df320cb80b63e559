//! No proxy in front: kube-proxy keeps client addresses on pods, by the Service's own `sessionAffinity`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, condition_of, route};
use e2e::{snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use session_operator::api::Binds;
use session_operator::api::conditions::types;
use session_operator::drill::event::Event;

use super::support::{all_kept, short};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_port_keeps_an_address_on_one_pod_and_the_default_comes_back() -> Result<()> {
    with_temp_namespace("node-port", async |cluster, namespace| {
        let mut manifests = SHOP.manifests(namespace)?;
        manifests.service.spec.get_or_insert_default().type_ = Some("NodePort".into());
        let shop = manifests.create(&cluster.client, namespace).await?;
        Api::<Ingress>::namespaced(cluster.client.clone(), namespace)
            .delete("shop", &DeleteParams::default())
            .await?;
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        let ports = services
            .get("shop")
            .await?
            .spec
            .and_then(|spec| spec.ports)
            .unwrap_or_default();
        let port = ports
            .first()
            .and_then(|port| port.node_port)
            .context("the Service has no node port")?;
        let entry = cluster.expose(u16::try_from(port)?).await?;
        shop.routed(entry).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;

        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"mode": "ClientIP"}))
            .await?;
        let policy = policies.ready("shop").await?;
        let affinity = route(&policy, "Service", "shop")?;
        ensure!(
            affinity.binds == Binds::Pod && affinity.written_to.as_deref() == Some("Service/shop"),
            "{affinity:#?}"
        );
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(|message| message.contains("NAT")),
            "{message:?}"
        );
        shop.sticky(entry).await?;
        let report = shop
            .drill(entry, short(), &Event::Nothing(Duration::from_secs(3)))
            .await?;
        all_kept(&report)?;
        let used = report.pods.iter().filter(|pod| pod.users_before > 0).count();
        ensure!(
            used == 1,
            "one client address, and {used} pods: {}",
            report.table()
        );

        policies.remove("shop").await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}
