//! Engine Memcached: what it keeps, and that it says what it does not.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{SHOP, SHOP_API};
use e2e::policy::{Policies, condition_of, in_store, promise};
use e2e::users::{USERS, nobody_lost, users};
use e2e::wait::eventually;
use e2e::{store, with_temp_namespace};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use session_operator::api::conditions::{reasons, types};
use session_operator::api::{Event as Promise, Outcome, SessionStore};
use session_operator::drill::Class;
use session_operator::drill::event::Event;

/// How long a policy without a binding may take to be told what keeps it from one.
const TOLD_LIMIT: Duration = Duration::from_mins(1);

/// How long everything that belongs to a store may take to go with it.
const GONE_LIMIT: Duration = Duration::from_mins(2);

fn under(app: e2e::app::App, prefix: &str) -> Value {
    in_store(
        app,
        &json!({"storeRef": {"name": "sessions", "keyPrefix": prefix}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn users_outlive_their_pods_and_not_the_server_and_status_says_so() -> Result<()> {
    with_temp_namespace("store-memcached", async |cluster, namespace| {
        let spec =
            json!({"engine": "Memcached", "tls": "Disabled", "memory": "64Mi", "deletionPolicy": "Delete"});
        let (made, shop) = tokio::join!(store::create(cluster, namespace, "sessions", spec), async {
            SHOP.manifests(namespace)?.behind_traefik(cluster).await
        });
        made?;
        let (shop, entry) = shop?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = policies.shared(under(SHOP, "shop")).await?;
        for (event, outcome) in [
            (Promise::PodLoss, Outcome::Kept),
            (Promise::RollingUpdate, Outcome::Kept),
            (Promise::OperatorDown, Outcome::Kept),
            (Promise::NodeLoss, Outcome::Partly),
            (Promise::StoreRestart, Outcome::Lost),
            (Promise::StoreLoss, Outcome::Lost),
        ] {
            let row = promise(&policy, event)?;
            ensure!(row.outcome == outcome, "{row:#?}");
        }
        let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
        let status = stores.get("sessions").await?.status.unwrap_or_default();
        let max = status.memory.as_ref().map(|memory| memory.max.as_str());
        ensure!(max == Some("16Mi"), "{status:?}");
        ensure!(
            status
                .version
                .as_deref()
                .is_some_and(|version| version.starts_with("1.")),
            "{status:?}"
        );
        ensure!(
            status
                .conditions
                .iter()
                .any(|ready| ready.message.contains("knows no users")),
            "{status:?}"
        );

        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)?;

        // Nobody else is let in, and that costs the shop nothing.
        SHOP_API
            .manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        policies
            .create_with(SHOP_API.name, under(SHOP_API, "elsewhere"))
            .await?;
        let other = policies
            .condition_within(
                SHOP_API.name,
                types::STORE_READY,
                "False",
                Some(reasons::KEY_PREFIX_TAKEN),
                TOLD_LIMIT,
            )
            .await?;
        let told = condition_of(&other, types::STORE_READY).map(|condition| condition.message.clone());
        ensure!(
            told.as_deref()
                .is_some_and(|told| told.contains("serves the key prefix shop alone")),
            "{told:?}"
        );
        policies.remove(SHOP_API.name).await?;
        policies.ready(SHOP.name).await?;

        // As promised, everybody is lost with the server, and the next one serves.
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let report = shop
            .drill_with(entry, users(), "server deleted", async || {
                let before = store::server_pod(cluster, namespace, "sessions").await?;
                let before = before.metadata.uid.unwrap_or_default();
                pods.delete(&store::server("sessions"), &DeleteParams::default())
                    .await?;
                store::replaced(cluster, namespace, "sessions", &before).await
            })
            .await?;
        ensure!(report.count(Class::Lost) == USERS, "{}", report.table());
        let calm = Event::Nothing(Duration::from_secs(1));
        nobody_lost(&shop.drill(entry, users(), &calm).await?)?;

        // Nothing is left of it.
        policies.remove(SHOP.name).await?;
        stores.delete("sessions", &DeleteParams::default()).await?;
        let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        let ours = ListParams::default().labels("session-operator.dev/store=sessions");
        eventually("everything of the store to go", GONE_LIMIT, || async {
            let left = (
                sets.list(&ours).await?.items.len(),
                pods.list(&ours).await?.items.len(),
                secrets.list(&ours).await?.items.len(),
                stores.list(&ListParams::default()).await?.items.len(),
            );
            Ok(if left == (0, 0, 0, 0) { Ok(()) } else { Err(left) })
        })
        .await
    })
    .await
}
