//! Full stores, lost Secrets, and everything deleted at once.

use anyhow::{Context, Result, ensure};
use e2e::app::SHOP;
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, audit, snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use session_operator::api::{INJECTION_LABEL, SessionStore};
use session_operator::drill::Class;
use session_operator::drill::event::Event;

use super::super::hostile::{SECRETS_LIMIT, value};
use super::super::injection::{CALM, CALM_READS};
use super::super::support::{
    LEAVERS, SHARED_LIMIT, USERS, nobody_lost, nothing_in_pods, own_store, said, shared, shop, users,
};

/// What a client of the store of the shop's policy prints; it speaks from a node.
async fn redis(cluster: &Cluster, namespace: &str, script: &str) -> Result<String> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let address = services
        .get("shop-sessions")
        .await?
        .spec
        .and_then(|spec| spec.cluster_ip);
    let address = address.context("no cluster IP")?;
    let user = "shop-sessions-user-shop";
    let username = value(cluster, namespace, user, "username").await?;
    let password = value(cluster, namespace, user, "password").await?;
    let authority = std::env::temp_dir().join(format!("{namespace}-ca.crt"));
    tokio::fs::write(
        &authority,
        value(cluster, namespace, "shop-sessions-ca", "ca.crt").await?,
    )
    .await?;
    let client = format!(
        "redis() {{ timeout 10 redis-cli -h {address} --no-auth-warning --user {username} --pass {password} --tls \
         --cacert {} \"$@\"; }}; {script}",
        authority.display()
    );
    let said = cluster.run(["exec-net", "node2", "bash", "-c", &client]).await;
    tokio::fs::remove_file(&authority).await?;
    said
}

/// Nothing is evicted: who is in stays in, and status says that the store refuses writes until there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_keeps_whom_it_has() -> Result<()> {
    with_temp_namespace("full", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, own_store(&json!({"engine": "Redis", "memory": "64Mi"}))).await?;
        let report = shop
            .drill_with(entry, users(), "the store fills and empties", async || {
                let fill = "for i in $(seq 80); do head -c 1000000 /dev/zero | tr '\\0' x | redis -x SET shop:fill:$i; done; \
                            for i in $(seq 80 200); do head -c 20000 /dev/zero | tr '\\0' x | redis -x SET shop:fill:$i; done";
                let answers = redis(cluster, namespace, fill).await?;
                ensure!(answers.contains("OOM"), "not full: {answers}");
                let words = ["StoreRefusesWrites", "spec.memory"];
                said(cluster, namespace, "shop", ("StoreReady", "StoreNotReady"), &words).await?;
                let empty = "for i in $(seq 200); do echo DEL shop:fill:$i; done | redis";
                redis(cluster, namespace, empty).await?;
                policies.ready_within("shop", SHARED_LIMIT).await.map(|_| ())
            })
            .await?;
        eprintln!("{}", report.table());
        // Stock PHP answers before it writes the session. One whose lock still fitted in and whose value did not has lost
        // what was put into it, and nobody could tell; but nobody is logged out.
        let inside = report.count(Class::Kept) + report.count(Class::Moved) + report.count(Class::Corrupted);
        ensure!(
            inside == USERS && report.count(Class::LoggedOut) == LEAVERS,
            "{}",
            report.table()
        );
        Ok(())
    })
    .await
}

/// The Secrets of the policy and of its store are made anew, and whoever is logged in stays so.
#[tokio::test(flavor = "multi_thread")]
async fn lost_secrets_log_nobody_out() -> Result<()> {
    with_temp_namespace("secrets", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        let report = shop
            .drill_with(entry, users(), "Secrets deleted", async || {
                let lost = ["shop-session", "shop-sessions-user-shop", "shop-sessions-admin"];
                for name in lost {
                    secrets.delete(name, &DeleteParams::default()).await?;
                }
                for name in lost {
                    eventually(&format!("Secret {name} is back"), SECRETS_LIMIT, || async {
                        Ok(secrets.get_opt(name).await?.map(|_| ()).ok_or("gone"))
                    })
                    .await?;
                }
                policies.ready_within("shop", SHARED_LIMIT).await?;
                shop.settled().await?;
                Ok(())
            })
            .await?;
        nobody_lost(&report)?;
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;
        audit::stays_calm(cluster, namespace, CALM, CALM_READS, 0).await
    })
    .await
}

/// In either order, with what the store's deletionPolicy says, and without leaving anything in pods.
#[tokio::test(flavor = "multi_thread")]
async fn policy_and_store_deleted_together_are_undone_in_order() -> Result<()> {
    with_temp_namespace("together", async |cluster, namespace| {
        let (shop, _) = shop(cluster, namespace).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
        for objects in [
            ["sessionpolicy/shop", "sessionstore/shop-sessions"],
            ["sessionstore/shop-sessions", "sessionpolicy/shop"],
        ] {
            let store = json!({"engine": "Redis", "deletionPolicy": "Delete"});
            let policy = shared(&policies, own_store(&store)).await?;
            let injection = policy.status.and_then(|status| status.injection);
            let revision = injection
                .and_then(|injection| injection.revision)
                .context("no revision")?;
            an_ended_pod(cluster, namespace, &revision).await?;
            let mut arguments = vec!["kubectl", "--namespace", namespace, "delete", "--wait=false"];
            arguments.extend(objects);
            // The store of a policy that is not being deleted is refused, and then goes with the policy.
            let deleted = cluster.run(arguments).await;
            ensure!(
                deleted.is_ok() == (objects[0] == "sessionpolicy/shop"),
                "{deleted:?}"
            );
            eventually("policy and store are gone", SHARED_LIMIT, || async {
                let policy = policies.api().get_opt("shop").await?;
                let store = stores.get_opt("shop-sessions").await?;
                Ok(if policy.is_none() && store.is_none() {
                    Ok(())
                } else {
                    Err((
                        policy.and_then(|policy| policy.status),
                        store.and_then(|store| store.status),
                    ))
                })
            })
            .await?;
            shop.settled().await?;
            nothing_in_pods(cluster, namespace).await?;
        }
        eventually("everything is as it was", SHARED_LIMIT, || async {
            let now = snapshot::of(&cluster.client, namespace).await?;
            Ok(if now == before { Ok(()) } else { Err(now) })
        })
        .await
    })
    .await
}

/// A pod with the mark that has ended and that nobody deletes, as one that a kubelet has evicted: nothing waits for it.
async fn an_ended_pod(cluster: &Cluster, namespace: &str, revision: &str) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let template = SHOP
        .manifests(namespace)?
        .deployment
        .spec
        .context("a spec")?
        .template;
    let mut pod = json!({
        "metadata": {"name": format!("ended-{revision}"), "labels": {INJECTION_LABEL: revision}},
        "spec": template.spec,
    });
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"][0]["command"] = json!(["true"]);
    api.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    eventually("the pod has ended", SHARED_LIMIT, || async {
        let phase = api
            .get(&format!("ended-{revision}"))
            .await?
            .status
            .and_then(|status| status.phase);
        Ok(if phase.as_deref() == Some("Succeeded") {
            Ok(())
        } else {
            Err(phase)
        })
    })
    .await
}
