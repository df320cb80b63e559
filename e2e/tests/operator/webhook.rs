//! The webhook in a real cluster: its Service, its certificate, and one of its two replicas lost while pods are made.

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::{INJECTION_LABEL, SessionInjection};
use session_operator::injection::contains;

use super::release::upgrade;
use super::support::{RELEASE, manifests, pods, whole};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_of_the_webhook_lost_goes_unnoticed() -> Result<()> {
    with_temp_namespace("op-webhook", async |cluster, namespace| {
        whole(cluster).await?;
        upgrade(cluster, &["injection.mode=Webhook"]).await?;
        let ended = lose_replicas(cluster, namespace).await;
        upgrade(cluster, &["injection.mode=Auto"]).await?;
        whole(cluster).await?;
        ended
    })
    .await
}

async fn lose_replicas(cluster: &Cluster, namespace: &str) -> Result<()> {
    whole(cluster).await?;
    let injection = injection(cluster, namespace).await?;
    let mut manifests = manifests(namespace)?;
    let spec = manifests.deployment.spec.get_or_insert_default();
    spec.replicas = Some(4);
    let labels = spec
        .template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(INJECTION_LABEL.to_owned(), injection.name_any());
    let shop = manifests.create(&cluster.client, namespace).await?;
    all_injected(cluster, namespace, &injection).await?;

    // One by a crash, one by an eviction. The pod's address is known to API server and kube-proxies until somebody notices.
    for round in 0..2 {
        let replicas = pods(cluster).await?;
        let lost = replicas.get(round).context("no replica")?.name_any();
        if round == 0 {
            cluster.run(["kill", "-n", RELEASE, &lost]).await?;
        } else {
            let api: Api<Pod> = Api::namespaced(cluster.client.clone(), RELEASE);
            api.delete(&lost, &DeleteParams::default()).await?;
        }
        restart(cluster, namespace, round).await?;
        shop.settled().await?;
        all_injected(cluster, namespace, &injection).await?;
        whole(cluster).await?;
    }
    report_refusals(cluster, namespace).await?;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    api.delete("shop", &DeleteParams::default()).await?;
    Ok(())
}

/// An injection, written as the operator writes one.
async fn injection(cluster: &Cluster, namespace: &str) -> Result<SessionInjection> {
    let object = json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionInjection",
        "metadata": {"name": "shop-1"},
        "spec": {
            "policy": {"name": "shop", "uid": "none"},
            "containers": [{
                "name": "web",
                "env": [{"name": "SESSION_HOST", "value": "sessions"}],
                "volumeMounts": [{"name": "session-operator-agent", "mountPath": "/session-operator/agent"}]
            }],
            "volumes": [{"name": "session-operator-agent", "emptyDir": {}}]
        }
    });
    let path = format!("/apis/session-operator.dev/v1alpha1/namespaces/{namespace}/sessioninjections");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .header(
            "impersonate-user",
            format!("system:serviceaccount:{RELEASE}:{RELEASE}"),
        )
        .header("impersonate-group", "system:masters")
        .body(serde_json::to_vec(&object)?)?;
    Ok(cluster.client.request(request).await?)
}

/// What `kubectl rollout restart` does.
async fn restart(cluster: &Cluster, namespace: &str, round: usize) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"round": round.to_string()}}}}});
    api.patch("shop", &PatchParams::default(), &Patch::Merge(change))
        .await?;
    Ok(())
}

async fn all_injected(cluster: &Cluster, namespace: &str, injection: &SessionInjection) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = api.list(&ListParams::default()).await?.items;
    ensure!(pods.len() >= 4, "{} pods", pods.len());
    for pod in pods {
        let verdict = contains(&pod, &injection.spec);
        ensure!(verdict.is_ok(), "{}: {verdict:?}", pod.name_any());
    }
    Ok(())
}

/// Requests that a dying replica was answering are repeated by the ReplicaSet: that is allowed, and seldom.
async fn report_refusals(cluster: &Cluster, namespace: &str) -> Result<()> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let events = api.list(&ListParams::default()).await?.items;
    let refusals: Vec<Value> = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FailedCreate"))
        .map(|event| json!({"message": event.message, "count": event.count}))
        .collect();
    eprintln!("creations that were repeated: {refusals:#?}");
    let foreign = refusals
        .iter()
        .find(|refusal| !refusal["message"].to_string().contains("webhook"));
    ensure!(foreign.is_none(), "{foreign:?}");
    Ok(())
}
