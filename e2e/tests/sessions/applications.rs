//! Applications that keep their sessions in files or in their memory, with their sessions in a store: through everything
//! that happens to pods.

use anyhow::{Result, anyhow, ensure};
use e2e::app::{App, SHOP, TICKETS};
use e2e::policy::{Policies, in_store, promise};
use e2e::users::{nobody_lost, users};
use e2e::with_temp_namespace;
use serde_json::json;
use session_operator::api::{Event as Promise, Outcome};
use session_operator::drill::event::Event;

use super::support::settled_before_marking;

/// Sets up an application with a store of its own and drills what status says that it survives.
async fn nobody_is_logged_out(app: App) -> Result<()> {
    with_temp_namespace(app.name, async |cluster, namespace| {
        let (running, entry) = app.manifests(namespace)?.behind_traefik(cluster).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = policies
            .shared(in_store(app, &json!({"store": {"engine": "Redis"}})))
            .await?;
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

        nobody_lost(&running.drill(entry, users(), &Event::Restart).await?)?;
        nobody_lost(&running.drill(entry, users(), &Event::DeletePod(None)).await?)?;
        nobody_lost(&running.drill(entry, users(), &Event::Scale(1)).await?)?;
        nobody_lost(&running.drill(entry, users(), &Event::Scale(3)).await?)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_survives_rollouts_lost_pods_and_scaling() -> Result<()> {
    nobody_is_logged_out(SHOP).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_survive_rollouts_lost_pods_and_scaling() -> Result<()> {
    nobody_is_logged_out(TICKETS).await
}
