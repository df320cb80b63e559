//! Events that the drill can cause itself: pods deleted, a node drained of them, a Deployment scaled or restarted.
//!
//! Each waits until what it did is over: the Deployment is as wanted again, and pods that had to go are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{self, Condition, await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::run::Marks;

/// Pause before the status of a Deployment that lags behind its pods is read again.
const STATUS_LAG: Duration = Duration::from_millis(100);

/// Pause before an eviction that a budget forbids is asked for again; that of `kubectl drain`.
const EVICTION_PAUSE: Duration = Duration::from_secs(5);

/// Something that happens to a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing, for so long.
    Nothing(Duration),
    /// A pod is deleted: the named one, or the first by name.
    DeletePod(Option<String>),
    /// The Deployment's pods are evicted from a node that takes no new ones meanwhile: the named one, or the one with most
    /// of them. Other pods on the node are left alone.
    DrainNode(Option<String>),
    /// The Deployment gets another number of replicas.
    Scale(i32),
    /// Every pod is replaced, as by `kubectl rollout restart`.
    Restart,
}

/// Why an event did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or did not answer.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// Waiting failed.
    #[error("waiting for the end of the event")]
    Wait(#[from] wait::Error),
    /// A Deployment without a selector, or without pods.
    #[error("Deployment {namespace}/{name} has no {what}")]
    Missing {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// What is missing.
        what: &'static str,
    },
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing(_) => f.write_str("nothing"),
            Self::DeletePod(None) => f.write_str("a pod deleted"),
            Self::DeletePod(Some(pod)) => write!(f, "pod {pod} deleted"),
            Self::DrainNode(None) => f.write_str("a node drained"),
            Self::DrainNode(Some(node)) => write!(f, "node {node} drained"),
            Self::Scale(replicas) => write!(f, "scaled to {replicas}"),
            Self::Restart => f.write_str("rollout restart"),
        }
    }
}

/// A Deployment, and a client to act on it.
#[derive(Clone)]
pub struct Workload {
    client: Client,
    namespace: String,
    name: String,
}

impl Workload {
    /// The Deployment `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Names and uids of the pods that are not terminating, by name.
    pub async fn pods(&self) -> Result<BTreeMap<String, String>, Error> {
        let deployment = self.deployments().get(&self.name).await?;
        let selector = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.match_labels.clone());
        let labels = selector.ok_or_else(|| self.missing("spec.selector.matchLabels"))?;
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let pods = self
            .pod_api()
            .list(&ListParams::default().labels(&labels.join(",")))
            .await?;
        let staying = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(staying
            .filter_map(|pod| Some((pod.name_any(), pod.uid()?)))
            .collect())
    }

    /// Waits until every replica is up to date and ready, and so many pods are there. The caller bounds the time.
    pub async fn settled(&self) -> Result<(), Error> {
        loop {
            let deployment = await_condition(self.deployments(), &self.name, is_settled()).await?;
            let wanted = deployment
                .as_ref()
                .and_then(|d| d.spec.as_ref()?.replicas)
                .unwrap_or(1);
            // Right after a pod's deletion the status still counts it.
            if i32::try_from(self.pods().await?.len()) == Ok(wanted) {
                return Ok(());
            }
            tokio::time::sleep(STATUS_LAG).await;
        }
    }

    /// Causes an event and waits for its end. The caller bounds the time.
    pub async fn cause(&self, event: &Event, marks: &Marks) -> Result<(), Error> {
        let before = self.pods().await?;
        match event {
            Event::Nothing(time) => {
                tokio::time::sleep(*time).await;
                return Ok(());
            }
            Event::DeletePod(name) => {
                let first = before.keys().next();
                let name = name.as_ref().or(first).ok_or_else(|| self.missing("pod"))?;
                // Noted before the request: whatever comes later came after the deletion had begun.
                marks.note("deleting", Some(name));
                self.pod_api().delete(name, &DeleteParams::default()).await?;
            }
            Event::DrainNode(node) => return self.drain(node.as_deref(), marks).await,
            Event::Scale(replicas) => {
                marks.note(&format!("scaling to {replicas}"), None);
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                self.deployments()
                    .patch_scale(&self.name, &PatchParams::default(), &patch)
                    .await?;
            }
            Event::Restart => {
                marks.note("restarting", None);
                self.deployments().restart(&self.name).await?;
            }
        }
        self.come_to_rest(&before, marks).await
    }

    /// Waits until the Deployment is as wanted again and pods that had to go are gone.
    async fn come_to_rest(&self, before: &BTreeMap<String, String>, marks: &Marks) -> Result<(), Error> {
        self.settled().await?;
        let after = self.pods().await?;
        for pod in after.keys().filter(|pod| !before.contains_key(*pod)) {
            marks.note("new", Some(pod));
        }
        let leaving = before.iter().filter(|(pod, uid)| after.get(*pod) != Some(uid));
        try_join_all(leaving.map(|(pod, uid)| self.gone(pod, uid, marks))).await?;
        Ok(())
    }

    /// Evicts the pods from a node, as `kubectl drain` does, with the node closed to new ones until they stand elsewhere.
    async fn drain(&self, node: Option<&str>, marks: &Marks) -> Result<(), Error> {
        let before = self.pods().await?;
        let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in before.keys() {
            let on = self
                .pod_api()
                .get(pod)
                .await?
                .spec
                .and_then(|spec| spec.node_name);
            if let Some(on) = on {
                by_node.entry(on).or_default().push(pod.clone());
            }
        }
        let (node, pods) = match node {
            Some(node) => by_node.remove_entry(node),
            None => by_node.into_iter().max_by_key(|(_, pods)| pods.len()),
        }
        .ok_or_else(|| self.missing("pod on that node"))?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let was_closed = nodes
            .get(&node)
            .await?
            .spec
            .and_then(|spec| spec.unschedulable)
            .unwrap_or(false);
        marks.note(&format!("draining node {node}"), None);
        if !was_closed {
            nodes.cordon(&node).await?;
        }
        let drained = async {
            for pod in &pods {
                marks.note("evicting", Some(pod));
                self.evict(pod).await?;
            }
            self.come_to_rest(&before, marks).await
        }
        .await;
        // Also when the drain failed: the node is left as it was found.
        if !was_closed {
            nodes.uncordon(&node).await?;
        }
        drained
    }

    /// Asks until a PodDisruptionBudget agrees.
    async fn evict(&self, pod: &str) -> Result<(), Error> {
        loop {
            match self.pod_api().evict(pod, &EvictParams::default()).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 429 => {
                    tokio::time::sleep(EVICTION_PAUSE).await;
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How many replicas the Deployment is to have.
    pub async fn replicas(&self) -> Result<i32, Error> {
        let deployment = self.deployments().get(&self.name).await?;
        Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    async fn gone(&self, pod: &str, uid: &str, marks: &Marks) -> Result<(), Error> {
        await_condition(self.pod_api(), pod, conditions::is_deleted(uid)).await?;
        marks.note("gone", Some(pod));
        Ok(())
    }

    fn missing(&self, what: &'static str) -> Error {
        Error::Missing {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            what,
        }
    }
}

/// The Deployment's controller has seen the last change, and every replica is up to date, ready and available.
fn is_settled() -> impl Condition<Deployment> {
    |deployment: Option<&Deployment>| {
        let Some(deployment) = deployment else {
            return false;
        };
        let wanted = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let Some(status) = &deployment.status else {
            return false;
        };
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
        ];
        status.observed_generation >= deployment.metadata.generation
            && counts.into_iter().all(|count| count.unwrap_or(0) == wanted)
    }
}
