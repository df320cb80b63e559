//! Strategy Sticky with a drain time: pods end without a failed request, by what is added to them.

use anyhow::{Context, Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, promise};
use e2e::{snapshot, with_temp_namespace};
use serde_json::json;
use session_operator::api::Event as Promise;
use session_operator::drill::event::Event;

use super::support::{SHARED_LIMIT, nothing_in_pods, users};

/// Seconds that users keep reaching a pod that has been told to end.
const DRAIN: i64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_time_with_handover_breaks_no_request() -> Result<()> {
    with_temp_namespace("drained", async |cluster, namespace| {
        let mut manifests = SHOP.manifests(namespace)?;
        let template = manifests.deployment.spec.as_mut().map(|spec| &mut spec.template);
        let pod = template
            .and_then(|template| template.spec.as_mut())
            .context("a template")?;
        pod.termination_grace_period_seconds = Some(DRAIN + 30);
        for container in &mut pod.containers {
            container.lifecycle = None;
        }
        let (shop, entry) = manifests.behind_traefik(cluster).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let spec = json!({
            "targetRef": {"name": "shop"},
            "strategy": "Sticky",
            "sticky": {"drainSeconds": DRAIN},
        });
        policies.create_with("shop", spec).await?;
        let policy = policies.ready_within("shop", SHARED_LIMIT).await?;
        let injected = policy
            .status
            .as_ref()
            .and_then(|status| status.injection.as_ref());
        ensure!(
            injected.is_some_and(|injection| injection.injected_pods == 3),
            "{:#?}",
            policy.status
        );
        let row = promise(&policy, Promise::RollingUpdate)?;
        ensure!(row.message.contains(&format!("{DRAIN} s")), "{row:#?}");
        shop.sticky(entry).await?;

        // Sessions are in the pods' files: they end with them. No request does.
        let report = shop.drill(entry, users(), &Event::Restart).await?;
        ensure!(report.failed() == 0, "{}", report.table());

        policies.remove_within("shop", SHARED_LIMIT).await?;
        shop.settled().await?;
        nothing_in_pods(cluster, namespace).await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}
