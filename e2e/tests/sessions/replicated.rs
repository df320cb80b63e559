//! The shop with its sessions in its own pods: no store, and nobody is logged out by what happens to single pods.

use anyhow::{Result, ensure};
use e2e::policy::{Policies, promise};
use e2e::{snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use session_operator::api::conditions::types;
use session_operator::api::{Event as Promise, Outcome};
use session_operator::drill::event::Event;

use super::support::{SHARED_LIMIT, nobody_lost, nothing_in_pods, shared, shop, users};

pub fn in_pods(replicated: &Value, sticky: &Value) -> Value {
    let mut spec = json!({
        "targetRef": {"name": "shop"},
        "strategy": "Replicated",
        "replicated": replicated,
        "client": {"framework": "PHP"},
    });
    if !sticky.is_null() {
        spec["sticky"] = sticky.clone();
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_has_every_session() -> Result<()> {
    with_temp_namespace("repl-all", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = shared(&policies, in_pods(&json!({}), &Value::Null)).await?;
        for event in [
            Promise::PodLoss,
            Promise::RollingUpdate,
            Promise::ScaleUp,
            Promise::ScaleDown,
            Promise::OperatorDown,
        ] {
            ensure!(
                promise(&policy, event)?.outcome == Outcome::Kept,
                "{:#?}",
                policy.status
            );
        }
        ensure!(promise(&policy, Promise::ScaleToZero)?.outcome == Outcome::Lost);
        let said = policies
            .condition("shop", types::SESSIONS_REPLICATED, "True", Some("InSync"))
            .await?;
        let replication = said
            .status
            .as_ref()
            .and_then(|status| status.replication.as_ref());
        ensure!(
            replication.is_some_and(|replication| replication.members == 3 && replication.total_members == 3),
            "{:#?}",
            said.status
        );

        // Without affinity the login itself goes round all pods.
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Scale(5)).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Scale(2)).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Scale(3)).await?)?;

        policies.remove_within("shop", SHARED_LIMIT).await?;
        shop.settled().await?;
        nothing_in_pods(cluster, namespace).await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        let left: Vec<String> = secrets
            .list(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let maps: Vec<String> = maps
            .list(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        ensure!(!maps.iter().any(|name| name.contains("peers")), "{maps:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_backups_and_handover_breaks_no_request() -> Result<()> {
    with_temp_namespace("repl-backup", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let spec = in_pods(&json!({"mode": "Backup", "backups": 1}), &json!({}));
        let policy = shared(&policies, spec).await?;
        let row = promise(&policy, Promise::PodLoss)?;
        ensure!(row.outcome == Outcome::Kept, "{row:#?}");
        shop.sticky(entry).await?;

        let report = shop.drill(entry, users(), &Event::Restart).await?;
        nobody_lost(&report)?;
        ensure!(report.failed() == 0, "{}", report.table());
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)
    })
    .await
}
