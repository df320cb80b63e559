//! Applications that share a store, and their sessions if they say so.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{App, SHOP, SHOP_API};
use e2e::policy::{Policies, in_store};
use e2e::users::{USERS, nobody_lost, users};
use e2e::{store, with_temp_namespace};
use futures::future::{try_join, try_join_all};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::drill::Class;
use session_operator::drill::event::Event;

use super::support::SHARED_LIMIT;

/// A policy that keeps the sessions of an application in the store `sessions` under a prefix.
fn under(app: App, prefix: &str) -> Value {
    in_store(
        app,
        &json!({"storeRef": {"name": "sessions", "keyPrefix": prefix}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_and_the_api_share_a_login_under_one_prefix_and_not_under_two() -> Result<()> {
    with_temp_namespace("common", async |cluster, namespace| {
        let manifests = [SHOP.manifests(namespace)?, SHOP_API.manifests(namespace)?];
        let made = try_join_all(
            manifests
                .iter()
                .map(|manifests| manifests.behind_traefik(cluster)),
        );
        let (made, ()) = try_join(
            made,
            store::create(cluster, namespace, "sessions", json!({"engine": "Redis"})),
        )
        .await?;
        let [(shop, entry), (api, _)] = made.as_slice() else {
            anyhow::bail!("two applications");
        };
        let policies = Policies::new(&cluster.client, namespace);
        try_join(
            policies.shared(under(SHOP, "shop")),
            policies.shared(under(SHOP_API, "shop")),
        )
        .await?;
        // Logged in at the web, known to the API, and still so after every pod of the API was replaced.
        nobody_lost(&api.drill(*entry, users(), &Event::Restart).await?)?;

        let patch = json!({"spec": {"shared": {"storeRef": {"keyPrefix": "elsewhere"}}}});
        policies
            .api()
            .patch("shop-api", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        policies.ready_within("shop-api", SHARED_LIMIT).await?;
        let calm = Event::Nothing(Duration::from_secs(1));
        let strangers = api.drill(*entry, users(), &calm).await?;
        let known = strangers.count(Class::Kept) + strangers.count(Class::Moved);
        ensure!(
            known == 0 && strangers.count(Class::Lost) >= USERS,
            "the API knows users of another prefix: {}",
            strangers.table()
        );
        nobody_lost(&shop.drill(*entry, users(), &calm).await?)
    })
    .await
}
