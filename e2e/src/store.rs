//! `SessionStores` that several policies of a test use.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::SessionStore;
use session_operator::api::session_store::{Rotation, RotationPhase, StoreRotation};
use tokio::process::Command;

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

/// Deletes a store that nobody uses any more, and waits until it is gone.
pub async fn delete(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    stores.delete(name, &DeleteParams::default()).await?;
    eventually(
        &format!("SessionStore {namespace}/{name} is gone"),
        STORE_LIMIT,
        || async {
            let left = stores.get_opt(name).await?;
            Ok(left.map_or(Ok(()), |_| Err("it is still there")))
        },
    )
    .await
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

/// Waits until a store serves so many key prefixes.
pub async fn serves(cluster: &Cluster, namespace: &str, name: &str, prefixes: usize) -> Result<()> {
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    eventually(
        &format!("SessionStore {namespace}/{name} serves {prefixes} key prefixes"),
        STORE_LIMIT,
        || async {
            let users = stores.get(name).await?.status.unwrap_or_default().users;
            Ok(if users.len() == prefixes {
                Ok(())
            } else {
                Err(users)
            })
        },
    )
    .await
}

/// How long a rotation may take: pods are replaced, and kubelets bring files within two minutes, twice for certificates.
const ROTATION_LIMIT: Duration = Duration::from_mins(12);

/// What is rotated.
#[derive(Clone, Copy, Debug)]
pub enum Rotates {
    /// Passwords of all users.
    Passwords,
    /// Authority and certificate.
    Certificates,
}

impl Rotates {
    fn of(self, rotation: StoreRotation) -> Option<Rotation> {
        match self {
            Self::Passwords => rotation.passwords,
            Self::Certificates => rotation.certificates,
        }
    }
}

/// Waits until a rotation is in one of these phases.
pub async fn rotating(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    what: Rotates,
    phases: &[RotationPhase],
) -> Result<RotationPhase> {
    let stores: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
    eventually(
        &format!("{what:?} of {namespace}/{name}: {phases:?}"),
        ROTATION_LIMIT,
        || async {
            let status = stores.get(name).await?.status.unwrap_or_default();
            let rotation = status.rotation.and_then(|rotation| what.of(rotation));
            let phase = rotation.as_ref().map(|rotation| rotation.phase);
            Ok(match phase.filter(|phase| phases.contains(phase)) {
                Some(phase) => Ok(phase),
                None => Err(rotation),
            })
        },
    )
    .await
}

/// A value of a Secret.
pub fn value(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = data.with_context(|| format!("Secret has no {key}"))?;
    Ok(String::from_utf8(bytes.0.clone())?)
}

/// What redis-cli prints when it sends a command from a node.
pub async fn redis_cli(client: &[String], command: &[&str]) -> Result<String> {
    let mut words = ["exec-net", "node2", "timeout", "10", "redis-cli"]
        .map(str::to_owned)
        .to_vec();
    words.extend(client.iter().cloned());
    words.extend(command.iter().map(|word| (*word).to_owned()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster");
    let output = Command::new(script)
        .args(&words)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
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
