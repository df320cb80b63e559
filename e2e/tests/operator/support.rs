//! What these tests know of the installed operator.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::Cluster;
use e2e::app::{Manifests, SHOP};
use e2e::wait::eventually;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;
use session_operator::drill::Options;

/// Namespace and name of the release.
pub const RELEASE: &str = "session-operator";

/// How long the operator may take to be whole again after a fault: a lease (15 s), a restart with back-off, and a
/// busy machine.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// A request to the API server that changes something, as the audit log has it.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Address of the client.
    pub from: String,
    /// When it came, RFC 3339 with microseconds: sorts as text.
    pub at: String,
    /// Verb and resource.
    pub what: String,
}

/// Writes of the operator, without those on its lease, in the order of the log.
pub async fn writes(cluster: &Cluster) -> Result<Vec<WriteRequest>> {
    let path = cluster.logs.join("audit.log");
    let log = tokio::fs::read_to_string(&path)
        .await
        .with_context(|| format!("reading {}", path.display()))?;
    let text = |entry: &Value, pointer: &str| {
        entry
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| text(entry, "/userAgent").starts_with("session-operator/"))
        .filter(|entry| {
            matches!(
                text(entry, "/verb").as_str(),
                "create" | "update" | "patch" | "delete"
            )
        })
        .filter(|entry| text(entry, "/objectRef/resource") != "leases")
        .map(|entry| WriteRequest {
            from: text(&entry, "/sourceIPs/0"),
            at: text(&entry, "/requestReceivedTimestamp"),
            what: format!(
                "{} {}/{}",
                text(&entry, "/verb"),
                text(&entry, "/objectRef/resource"),
                text(&entry, "/objectRef/name")
            ),
        })
        .collect())
}

/// The operator's pods.
pub async fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), RELEASE);
    let labels = "app.kubernetes.io/name=session-operator,app.kubernetes.io/component=operator";
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}

/// Name of the pod that holds the lease.
pub async fn leader(cluster: &Cluster) -> Result<Option<String>> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), RELEASE);
    let lease = api.get_opt(RELEASE).await?;
    let holder = lease
        .and_then(|lease| lease.spec?.holder_identity)
        .filter(|holder| !holder.is_empty());
    let pods = pods(cluster).await?;
    Ok(pods.iter().map(ResourceExt::name_any).find(|pod| {
        holder
            .as_ref()
            .is_some_and(|holder| holder.starts_with(pod.as_str()))
    }))
}

/// Waits until a pod other than `former` leads, and gives its name.
pub async fn leader_other_than(cluster: &Cluster, former: Option<&str>) -> Result<String> {
    eventually("another leader", RECOVERY_LIMIT, || async {
        let now = leader(cluster).await?;
        Ok(now
            .filter(|now| Some(now.as_str()) != former)
            .ok_or("nobody, or the former one"))
    })
    .await
}

/// Waits until both replicas are ready.
pub async fn whole(cluster: &Cluster) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), RELEASE);
    eventually("the operator has two ready replicas", RECOVERY_LIMIT, || async {
        let deployment = api.get(RELEASE).await?;
        let status = deployment.status.clone().unwrap_or_default();
        let settled = status.observed_generation == deployment.metadata.generation
            && status.ready_replicas == Some(2)
            && status.updated_replicas == Some(2)
            && status.replicas == Some(2);
        Ok(if settled { Ok(()) } else { Err(status) })
    })
    .await
}

/// Address of a pod.
pub async fn address(cluster: &Cluster, pod: &str) -> Result<String> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), RELEASE);
    let found = api.get(pod).await?;
    found
        .status
        .and_then(|status| status.pod_ip)
        .ok_or_else(|| anyhow!("pod {pod} has no address"))
}

/// Restarts of the operator's containers, by pod.
pub async fn restarts(cluster: &Cluster) -> Result<BTreeMap<String, i32>> {
    let count = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum()
    };
    Ok(pods(cluster)
        .await?
        .iter()
        .map(|pod| (pod.name_any(), count(pod)))
        .collect())
}

/// The shop with one pod per node less than usual: these tests are about the operator.
pub fn manifests(namespace: &str) -> Result<Manifests> {
    let mut manifests = SHOP.manifests(namespace)?;
    manifests.deployment.spec.get_or_insert_default().replicas = Some(2);
    Ok(manifests)
}

/// Options of a drill that lasts as long as its event.
pub fn watching() -> Options {
    Options {
        members: 20,
        period: Duration::from_millis(500),
        before: Duration::from_secs(1),
        settle: Duration::from_secs(2),
        ..Options::default()
    }
}

/// Runs a verb of `kubectl session` in a namespace.
pub async fn session(cluster: &Cluster, namespace: &str, arguments: &[&str]) -> Result<()> {
    let program = std::env::var("KUBECTL_SESSION")
        .context("KUBECTL_SESSION names the kubectl-session binary; e2e/stage sets it")?;
    let ended = tokio::process::Command::new(program)
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig)
        .args(["--namespace", namespace])
        .args(arguments)
        .output()
        .await?;
    anyhow::ensure!(
        ended.status.success(),
        "kubectl session {arguments:?}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

async fn scale_operator(cluster: &Cluster, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let arguments = [
        "kubectl",
        "--namespace",
        RELEASE,
        "scale",
        "deployment",
        RELEASE,
        &replicas,
    ];
    cluster.run(arguments).await.map(|_| ())
}

/// Does something while no operator runs, and brings it back whatever comes of it.
pub async fn without_operator<F>(cluster: &Cluster, event: F) -> Result<()>
where
    F: AsyncFnOnce() -> Result<()>,
{
    scale_operator(cluster, 0).await?;
    let ended = async {
        eventually("no operator runs", RECOVERY_LIMIT, || async {
            let left = pods(cluster).await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left.len()) })
        })
        .await?;
        event().await
    }
    .await;
    scale_operator(cluster, 2).await?;
    whole(cluster).await?;
    ended
}
