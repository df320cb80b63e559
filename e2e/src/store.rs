//! `SessionStores` that several policies of a test use.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use session_operator::api::SessionStore;

use crate::Cluster;
use crate::wait::eventually;

/// How long a store may take to be ready, or to be ready again.
pub const STORE_LIMIT: Duration = Duration::from_mins(2);

/// Makes a `SessionStore` and waits until it is ready.
pub async fn create(cluster: &Cluster, namespace: &str, name: &str, spec: Value) -> Result<()> {
    let store: SessionStore = serde_json::from_value(json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionStore",
        "metadata": {"name": name},
        "spec": spec,
    }))?;
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    stores.create(&PostParams::default(), &store).await?;
    ready(cluster, namespace, name).await
}

/// Waits until a store is ready.
pub async fn ready(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    eventually(
        &format!("SessionStore {namespace}/{name} is ready"),
        STORE_LIMIT,
        || async {
            let status = stores.get(name).await?.status.unwrap_or_default();
            let ready = status
                .conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            Ok(if ready { Ok(()) } else { Err(status) })
        },
    )
    .await
}

/// Name of the pod with the only server of a store.
pub fn server(store: &str) -> String {
    format!("{store}-0")
}

/// The pod with the only server of a store.
pub async fn server_pod(cluster: &Cluster, namespace: &str, store: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    Ok(pods.get(&server(store)).await?)
}

/// The node on which the only server of a store is.
pub async fn node(cluster: &Cluster, namespace: &str, store: &str) -> Result<String> {
    let pod = server_pod(cluster, namespace, store).await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    node.with_context(|| format!("the server of {store} is on no node"))
}

/// Waits until the server that had the uid `former` is replaced by one that serves.
pub async fn replaced(cluster: &Cluster, namespace: &str, store: &str, former: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    eventually(&format!("another server of {store}"), STORE_LIMIT, || async {
        let pod = pods.get_opt(&server(store)).await?.unwrap_or_default();
        let is_other = pod.metadata.uid.as_deref().is_some_and(|uid| uid != former);
        let conditions = pod
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let is_ready = conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Ok(if is_other && is_ready {
            Ok(())
        } else {
            Err(conditions)
        })
    })
    .await?;
    ready(cluster, namespace, store).await
}
