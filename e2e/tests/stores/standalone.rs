//! Topology Standalone.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::namespace::with_temp_namespace;
use e2e::wait::eventually;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use serde_json::json;
use session_operator::api::{SessionPolicy, SessionStore};

use crate::support::Store;

/// How long the user of a prefix outlives its last policy, and the operator's next look.
const USER_GOES: Duration = Duration::from_secs(150);

#[tokio::test]
async fn a_volume_keeps_sessions_and_every_prefix_has_its_own_user() -> Result<()> {
    with_temp_namespace("store-volume", async |cluster, namespace| {
        cluster.run(["volume", namespace, "1Gi"]).await?;
        let spec = json!({
            "engine": "Redis", "memory": "128Mi", "deletionPolicy": "Delete",
            "persistence": {"size": "1Gi", "storageClassName": "local"}
        });
        let store = Store::create(cluster, namespace, spec).await?;
        store.shared_by("web", Some("shop")).await?;
        store.shared_by("blog", None).await?;
        let prefixes = ["blog", "shop"];
        let ready = store.until_serving(&prefixes).await?;
        let status = ready.status.clone().unwrap_or_default();
        ensure!(status.version.as_deref() == Some("7.0.15"), "{status:?}");
        let max = status.memory.clone().map(|memory| memory.max);
        ensure!(max.as_deref() == Some("96Mi"), "{status:?}");

        let (shop, blog) = (store.as_user("shop").await?, store.as_user("blog").await?);
        store
            .expect(&shop, &["SET", "shop:1", "basket", "EX", "600"], "OK")
            .await?;
        store.refused(&blog, &["GET", "shop:1"], "NOPERM").await?;
        store.refused(&blog, &["SET", "shop:1", "x"], "NOPERM").await?;
        store.refused(&shop, &["SCAN", "0"], "NOPERM").await?;
        store.refused(&shop, &["CONFIG", "GET", "*"], "NOPERM").await?;
        store
            .refused(&store.anonymous().await?, &["GET", "shop:1"], "NOAUTH")
            .await?;
        let plain = store.say(&store.plain().await?, &["PING"]).await?;
        ensure!(
            !plain.contains("PONG") && !plain.contains("NOAUTH"),
            "without TLS: {plain:?}"
        );

        store.replace_pod(&prefixes).await?;
        store.expect(&shop, &["GET", "shop:1"], "basket").await?;
        // What is written is on the disk within a second.
        store
            .expect(&shop, &["SET", "shop:2", "more", "EX", "600"], "OK")
            .await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        store.kill_server(&prefixes).await?;
        store.expect(&shop, &["GET", "shop:2"], "more").await?;
        store.refused(&blog, &["GET", "shop:1"], "NOPERM").await
    })
    .await
}

#[tokio::test]
async fn without_a_volume_a_restart_loses_sessions_and_keeps_users() -> Result<()> {
    with_temp_namespace("store-memory", async |cluster, namespace| {
        // What a store is that says nothing of itself: Valkey, with TLS.
        let spec = json!({"memory": "64Mi", "deletionPolicy": "Delete"});
        let store = Store::create(cluster, namespace, spec).await?;
        store.shared_by("shop", None).await?;
        let ready = store.until_serving(&["shop"]).await?;
        let status = ready.status.clone().unwrap_or_default();
        ensure!(
            status
                .conditions
                .iter()
                .any(|ready| ready.message.contains("a restart of the server loses them")),
            "{status:?}"
        );
        let shop = store.as_user("shop").await?;
        store
            .expect(&shop, &["SET", "shop:1", "basket", "EX", "600"], "OK")
            .await?;

        // A user that comes while the server runs is there after each kind of restart.
        let pod = store.pod().await?;
        store.shared_by("blog", None).await?;
        store.until_ready(&["blog", "shop"]).await?;
        let blog = store.as_user("blog").await?;
        store
            .expect(&blog, &["SET", "blog:1", "x", "EX", "600"], "OK")
            .await?;
        ensure!(store.pod().await? == pod, "the server was restarted for a user");
        store.expect(&shop, &["GET", "shop:1"], "basket").await?;

        store.kill_server(&["blog", "shop"]).await?;
        store.expect(&shop, &["GET", "shop:1"], "").await?;
        store
            .expect(&blog, &["SET", "blog:1", "x", "EX", "600"], "OK")
            .await?;
        store.replace_pod(&["blog", "shop"]).await?;
        store.expect(&blog, &["GET", "blog:1"], "").await?;

        // And one that nobody needs any more goes, with its Secret.
        let policies = store.api::<SessionPolicy>();
        policies.delete("blog", &DeleteParams::default()).await?;
        eventually("the user to go", USER_GOES, || async {
            let secret = store.api::<Secret>().get_opt("sessions-user-blog").await?;
            Ok(secret.map_or(Ok(()), |_| Err("its Secret is there")))
        })
        .await?;
        store.until_ready(&["shop"]).await?;
        store.refused(&blog, &["GET", "blog:1"], "WRONGPASS").await?;
        store
            .expect(&shop, &["SET", "shop:1", "basket", "EX", "600"], "OK")
            .await
    })
    .await
}

#[tokio::test]
async fn a_drain_is_not_blocked_and_a_lost_secret_changes_nothing_for_clients() -> Result<()> {
    with_temp_namespace("store-evicted", async |cluster, namespace| {
        let spec = json!({"engine": "Redis", "memory": "64Mi", "deletionPolicy": "Delete"});
        let store = Store::create(cluster, namespace, spec).await?;
        store.shared_by("shop", None).await?;
        store.until_ready(&["shop"]).await?;
        let shop = store.as_user("shop").await?;
        for secret in ["sessions-user-shop", "sessions-admin"] {
            store
                .api::<Secret>()
                .delete(secret, &DeleteParams::default())
                .await?;
            eventually("the Secret to be made again", Duration::from_secs(90), || async {
                let there = store.api::<Secret>().get_opt(secret).await?;
                Ok(there.map(|_| ()).ok_or("it is not there"))
            })
            .await?;
        }
        store.until_ready(&["shop"]).await?;
        ensure!(
            store.as_user("shop").await? == shop,
            "the password is another one"
        );

        // What `kubectl drain` asks for.
        let pod = store.pod().await?;
        store
            .api::<Pod>()
            .evict("sessions-0", &EvictParams::default())
            .await?;
        eventually("another pod", Duration::from_secs(90), || async {
            let now = store.api::<Pod>().get_opt("sessions-0").await?;
            let other = now.and_then(|now| now.metadata.uid).filter(|uid| *uid != pod);
            Ok(other.map(|_| ()).ok_or("not yet"))
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_quota_is_named_and_the_store_comes_up_when_it_is_raised() -> Result<()> {
    with_temp_namespace("store-quota", async |cluster, namespace| {
        let quota: ResourceQuota = serde_json::from_value(json!({
            "metadata": {"name": "small"}, "spec": {"hard": {"limits.memory": "32Mi"}}
        }))?;
        let quotas: kube::Api<ResourceQuota> = kube::Api::namespaced(cluster.client.clone(), namespace);
        quotas.create(&PostParams::default(), &quota).await?;
        let spec = json!({"memory": "64Mi", "tls": "Disabled", "deletionPolicy": "Delete"});
        let store = Store::create(cluster, namespace, spec).await?;
        let refused = store.until("QuotaExceeded", &[]).await?;
        let message = refused
            .status
            .and_then(|status| Some(status.conditions.first()?.message.clone()));
        ensure!(
            message.is_some_and(|message| message.contains("small")),
            "the quota is not named"
        );
        let raised = json!({"spec": {"hard": {"limits.memory": "1Gi"}}});
        quotas
            .patch("small", &PatchParams::default(), &Patch::Merge(&raised))
            .await?;
        // The StatefulSet's own pauses between attempts grow; a new pod is asked for within seconds here.
        store.until_ready(&[]).await?;
        store
            .api::<SessionStore>()
            .delete("sessions", &DeleteParams::default())
            .await?;
        eventually("everything to be removed", Duration::from_mins(1), || async {
            let secrets = store.api::<Secret>().get_opt("sessions-admin").await?;
            let pod = store.api::<Pod>().get_opt("sessions-0").await?;
            Ok(if secrets.is_none() && pod.is_none() {
                Ok(())
            } else {
                Err("something is left")
            })
        })
        .await
    })
    .await
}
