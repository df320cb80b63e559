//! Stores, Secrets, quotas and images that do not do what they should: each ends in a condition that names cause and
//! remedy, nothing is lost that was promised, and the operator does not ask ever faster.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::SHOP;
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::{SessionInjection, SessionStore};
use session_operator::drill::event::Event;

use super::injection::{CALM, CALM_READS};
use super::support::{SHARED_LIMIT, nobody_lost, own_store, said, session, shared, shop, users};

/// Longest until a Secret that is not watched is read again, on a busy machine.
pub const SECRETS_LIMIT: Duration = Duration::from_secs(75);

/// A Deployment without pods: what is wrong shows before any pod is needed.
async fn idle(cluster: &Cluster, namespace: &str, name: &str, image: &str) -> Result<()> {
    let mut deployment = SHOP.manifests(namespace)?.deployment;
    deployment.metadata.name = Some(name.to_owned());
    let mut object = serde_json::to_value(&deployment)?;
    object["spec"]["replicas"] = json!(0);
    object["spec"]["selector"]["matchLabels"]["app"] = json!(name);
    object["spec"]["template"]["metadata"]["labels"]["app"] = json!(name);
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

/// A policy for a Deployment without pods.
async fn policy(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    framework: &str,
    shared: &Value,
) -> Result<()> {
    let spec = json!({
        "targetRef": {"name": name}, "strategy": "Shared", "shared": shared, "client": {"framework": framework},
    });
    let policies = Policies::new(&cluster.client, namespace);
    policies.create_with(name, spec).await.map(|_| ())
}

async fn secret(cluster: &Cluster, namespace: &str, name: &str, data: &Value) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let secret = json!({"metadata": {"name": name}, "stringData": data});
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret)?)
        .await?;
    Ok(())
}

async fn store(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    let store = json!({
        "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionStore",
        "metadata": {"name": name}, "spec": {"engine": "Redis", "memory": "64Mi"},
    });
    stores
        .create(&PostParams::default(), &serde_json::from_value(store)?)
        .await?;
    Ok(())
}

/// A value of a Secret, as soon as there is one.
pub async fn value(cluster: &Cluster, namespace: &str, name: &str, key: &str) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("Secret {namespace}/{name} has {key}");
    eventually(&what, SHARED_LIMIT, || async {
        let found = secrets.get_opt(name).await?;
        let found = found.and_then(|secret| secret.data?.get(key).cloned());
        Ok(found
            .map(|value| String::from_utf8_lossy(&value.0).into_owned())
            .ok_or("none"))
    })
    .await
}

/// One after another of what can be wrong with stores, images and quotas, each with a Deployment and a policy of its own.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_cannot_be_used_is_named_and_left_in_peace() -> Result<()> {
    with_temp_namespace("hostile", async |cluster, namespace| {
        let shop_image = "localhost/shop:1";
        store(cluster, namespace, "sessions").await?;
        store(cluster, namespace, "others").await?;
        for name in ["unreachable", "password", "authority", "plain", "incomplete", "deleted", "volume", "quota"] {
            idle(cluster, namespace, name, shop_image).await?;
        }
        idle(cluster, namespace, "image", "localhost/nowhere:1").await?;
        let reference = |prefix: &str| json!({"storeRef": {"name": "sessions", "keyPrefix": prefix}});
        // Users of the store for those that are to reach it in the end; these policies have no target.
        for name in ["password", "deleted"] {
            policy(cluster, namespace, &format!("user-of-{name}"), "Generic", &reference(name)).await?;
        }
        policy(cluster, namespace, "image", "PHP", &reference("image")).await?;
        let volume = json!({"store": {"engine": "Redis", "persistence": {"size": "1Gi", "storageClassName": "nowhere"}}});
        policy(cluster, namespace, "volume", "PHP", &volume).await?;

        let password = value(cluster, namespace, "sessions-user-deleted", "password").await?;
        let authority = value(cluster, namespace, "sessions-ca", "ca.crt").await?;
        let another = value(cluster, namespace, "others-ca", "ca.crt").await?;
        let policies = Policies::new(&cluster.client, namespace);
        let host = format!("sessions.{namespace}.svc");
        let right = json!({"host": host, "username": "app-deleted", "password": password, "ca.crt": authority});
        let with = |key: &str, value: &str| {
            let mut data = right.clone();
            data[key] = json!(value);
            data
        };
        let mut wrong = with("password", "not-to-be-seen");
        wrong["username"] = json!("app-password");
        let mut plain = with("tls", "false");
        plain["ca.crt"] = json!("");
        for (name, data) in [
            ("unreachable", with("port", "6380")),
            ("password", wrong),
            ("authority", with("ca.crt", &another)),
            ("plain", plain),
            ("incomplete", with("host", "")),
            ("deleted", right.clone()),
        ] {
            secret(cluster, namespace, name, &data).await?;
            let external = json!({"external": {"secretRef": {"name": name}}});
            policy(cluster, namespace, name, "Generic", &external).await?;
        }
        let host = host.as_str();
        let cases: [(&str, (&str, &str), &[&str]); 7] = [
            ("unreachable", ("StoreReady", "StoreUnreachable"), &[host, ":6380", "check host, port"]),
            ("password", ("StoreReady", "AuthenticationFailed"), &[host, "app-password", "check username and password"]),
            ("authority", ("StoreReady", "TlsFailed"), &[host, "ca.crt is the authority"]),
            ("plain", ("StoreReady", "TlsFailed"), &[host, "TLS on this port"]),
            ("incomplete", ("StoreReady", "SecretIncomplete"), &["Secret incomplete", "host", "add it"]),
            ("volume", ("StoreReady", "StoreNotReady"), &["VolumePending", "nowhere", "check that the class exists"]),
            ("image", ("Injected", "PreflightRunning"), &["localhost/nowhere:1", "cannot be pulled", "check the image"]),
        ];
        for (name, condition, words) in cases {
            said(cluster, namespace, name, condition, words).await?;
        }
        policies.ready_within("deleted", SHARED_LIMIT).await?;

        no_more_room(cluster, namespace, &reference("quota")).await?;
        audit::stays_calm(cluster, namespace, CALM, 200, 10).await?;
        let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), namespace);
        quotas.delete("small", &DeleteParams::default()).await?;
        a_password_is_corrected(cluster, namespace).await?;
        an_external_secret_goes_and_comes(cluster, namespace, &right).await
    })
    .await
}

/// A quota that leaves no room for another pod, as for the one that looks at the image.
async fn no_more_room(cluster: &Cluster, namespace: &str, shared: &Value) -> Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), namespace);
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}});
    quotas
        .create(&PostParams::default(), &serde_json::from_value(quota)?)
        .await?;
    policy(cluster, namespace, "quota", "PHP", shared).await?;
    let words = ["exceeded quota: small", "raise the quota"];
    said(
        cluster,
        namespace,
        "quota",
        ("Injected", "PreflightFailed"),
        &words,
    )
    .await
}

async fn a_password_is_corrected(cluster: &Cluster, namespace: &str) -> Result<()> {
    let password = value(cluster, namespace, "sessions-user-password", "password").await?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let right = json!({"stringData": {"password": password}});
    secrets
        .patch("password", &PatchParams::default(), &Patch::Merge(&right))
        .await?;
    let policies = Policies::new(&cluster.client, namespace);
    let corrected = policies.ready_within("password", SECRETS_LIMIT).await;
    corrected.map(|_| ())
}

async fn an_external_secret_goes_and_comes(cluster: &Cluster, namespace: &str, data: &Value) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let injections: Api<SessionInjection> = Api::namespaced(cluster.client.clone(), namespace);
    let revision = |all: kube::core::ObjectList<SessionInjection>| {
        let of_policy = all
            .items
            .into_iter()
            .filter(|found| found.spec.policy.name == "deleted");
        of_policy.map(|found| found.metadata.name).collect::<Vec<_>>()
    };
    let before = revision(injections.list(&ListParams::default()).await?);
    secrets.delete("deleted", &DeleteParams::default()).await?;
    let words = ["Secret deleted does not exist", "create it"];
    said(
        cluster,
        namespace,
        "deleted",
        ("StoreReady", "SecretIncomplete"),
        &words,
    )
    .await?;
    // What the pods were told stands: they go on without it.
    ensure!(
        secrets.get_opt("deleted-session").await?.is_some(),
        "the binding is gone"
    );
    secret(cluster, namespace, "deleted", data).await?;
    let policies = Policies::new(&cluster.client, namespace);
    policies.ready_within("deleted", SECRETS_LIMIT).await?;
    ensure!(
        revision(injections.list(&ListParams::default()).await?) == before,
        "another revision"
    );
    Ok(())
}

/// The rollout is not begun where its pods would be refused, and goes on by itself once they are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_forbids_injected_pods_is_named_and_nothing_is_replaced() -> Result<()> {
    with_temp_namespace("quota", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let mut spec = own_store(&json!({"engine": "Redis"}));
        spec["rollout"] = json!("Manual");
        policies.create_with("shop", spec).await?;
        policies
            .condition_within("shop", "Injected", "False", Some("RolloutNeeded"), SHARED_LIMIT)
            .await?;
        let before = shop.workload.pods().await?;
        let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), namespace);
        // Three of the shop and the store: none more.
        let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": "4"}}});
        quotas
            .create(&PostParams::default(), &serde_json::from_value(quota)?)
            .await?;
        session(cluster, namespace, &["rollout", "shop", "--no-wait"]).await?;
        let words = ["exceeded quota: small", "raise the quota"];
        said(cluster, namespace, "shop", ("Injected", "RolloutBlocked"), &words).await?;
        audit::stays_calm(cluster, namespace, CALM, CALM_READS, 2).await?;
        ensure!(shop.workload.pods().await? == before, "pods were replaced");
        let raised = json!({"spec": {"hard": {"pods": "10"}}});
        quotas
            .patch("small", &PatchParams::default(), &Patch::Merge(&raised))
            .await?;
        policies.ready_within("shop", SHARED_LIMIT).await?;
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)
    })
    .await
}

/// The operator neither holds it up nor makes anything anew in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_policy_and_store_goes_at_once() -> Result<()> {
    with_temp_namespace("going", async |cluster, namespace| {
        shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let since = audit::now();
        namespaces.delete(namespace, &DeleteParams::default()).await?;
        // Pods have 30 s to end.
        eventually("the namespace is gone", Duration::from_secs(100), || async {
            let left = namespaces.get_opt(namespace).await?;
            Ok(left.map_or(Ok(()), |left| Err(left.status)))
        })
        .await?;
        let requests = audit::requests(cluster, namespace, &since).await?;
        let created = requests.iter().filter(|request| request.verb == "create").count();
        let written = requests.iter().filter(|request| request.is_write()).count();
        eprintln!(
            "{namespace}: {} requests, {written} of them writes",
            requests.len()
        );
        let touched = requests
            .iter()
            .any(|request| request.object.starts_with("deployments/"));
        ensure!(
            !touched && created <= 3 && written <= 30 && requests.len() <= 200,
            "{requests:#?}"
        );
        Ok(())
    })
    .await
}
