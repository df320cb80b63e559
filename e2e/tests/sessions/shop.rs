//! The shop, which keeps its sessions in files, with its sessions in a store: through everything that happens to pods.

use anyhow::{Result, anyhow, ensure};
use e2e::policy::{Policies, promise};
use e2e::with_temp_namespace;
use serde_json::json;
use session_operator::api::{Event as Promise, Outcome};
use session_operator::drill::event::Event;

use super::support::{nobody_lost, own_store, settled_before_marking, shared, shop, users};

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_lost_pods_and_scaling_log_nobody_out() -> Result<()> {
    with_temp_namespace("shared", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        for event in [
            Promise::ContainerRestart,
            Promise::PodLoss,
            Promise::RollingUpdate,
            Promise::ScaleUp,
            Promise::ScaleDown,
            Promise::ScaleToZero,
            Promise::OperatorDown,
        ] {
            ensure!(
                promise(&policy, event)?.outcome == Outcome::Kept,
                "{:#?}",
                policy.status
            );
        }
        settled_before_marking(cluster, namespace).await?;
        let injection = policy.status.clone().and_then(|status| status.injection);
        let injection = injection.ok_or_else(|| anyhow!("no status.injection"))?;
        ensure!(
            injection.injected_pods == 3 && injection.total_pods == 3,
            "{injection:#?}"
        );

        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Scale(1)).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Scale(3)).await?)?;
        Ok(())
    })
    .await
}
