//! Nodes of the cluster: kept free of pods, cut off, plugged in again.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::Cluster;
use crate::wait::eventually;

/// The node with the control plane and the ingress controllers, which is never cut off.
pub const FIRST: &str = "node1";

/// The nodes that may be cut off.
pub const OTHERS: [&str; 2] = ["node2", "node3"];

/// How long it may take until a node that answers no more counts as lost and its pods are evicted, or until one that is back
/// counts as ready.
pub const NODE_LIMIT: Duration = Duration::from_mins(2);

/// Whether the scheduler gives a node further pods.
pub async fn schedulable(cluster: &Cluster, node: &str, may_have_pods: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = json!({"spec": {"unschedulable": !may_have_pods}});
    nodes
        .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("changing spec.unschedulable of {node}"))?;
    Ok(())
}

/// Names of the pods of a namespace that are on a node and not terminating.
pub async fn staying_pods(cluster: &Cluster, namespace: &str, node: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = pods.list(&here).await?.items.into_iter();
    Ok(pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| pod.name_any())
        .collect())
}

/// Cuts a node off and waits until every pod that a namespace has there is evicted.
pub async fn lose(cluster: &Cluster, namespace: &str, node: &str) -> Result<()> {
    cluster.run(["cut", node]).await?;
    eventually(&format!("pods on {node} are evicted"), NODE_LIMIT, || async {
        let left = staying_pods(cluster, namespace, node).await?;
        Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    })
    .await
}

/// Plugs a node in again and waits until it is ready.
pub async fn bring_back(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.run(["heal", node]).await?;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually(&format!("{node} is ready again"), NODE_LIMIT, || async {
        let conditions = nodes
            .get(node)
            .await?
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(if ready.is_some_and(|ready| ready.status == "True") {
            Ok(())
        } else {
            Err(conditions)
        })
    })
    .await
}
