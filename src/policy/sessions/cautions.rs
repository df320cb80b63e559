//! What stands around a Deployment and bears on sessions in its pods: budgets, autoscalers, kubelets. Pure.
//!
//! A kubelet that knows no native sidecars is a reason to refuse; the rest is said and left to the user.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::{DynamicObject, Selector, SelectorExt as _};

use super::Trouble;
use crate::api::conditions::reasons;

/// First minor version of Kubernetes 1 whose kubelet runs native sidecars without a feature gate.
const NATIVE_SIDECARS: u32 = 29;

/// What a namespace has of budgets and autoscalers.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Its budgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// What scales down to zero, in order of kind and name.
    pub to_zero: Vec<Scaler>,
}

/// An autoscaler that may remove the last pod of its target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scaler {
    kind: &'static str,
    name: String,
    /// Name of the Deployment.
    target: String,
    /// What to set.
    remedy: &'static str,
}

/// What a user should know, each a sentence without its full stop. Said in conditions, in `survives` and by
/// `kubectl session plan` in the same words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cautions {
    /// Drains of nodes may take all pods at once.
    pub drains: Option<String>,
    /// An autoscaler may remove the last pod.
    pub to_zero: Option<String>,
}

impl Cautions {
    /// All of them.
    pub fn sentences(&self) -> impl Iterator<Item = &str> {
        [&self.drains, &self.to_zero]
            .into_iter()
            .filter_map(|sentence| sentence.as_deref())
    }

    /// What to know of sessions in the pods of `target`.
    pub fn of(target: &Deployment, around: &Surroundings) -> Self {
        let name = target.name_any();
        let replicas = target.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let guarded = around
            .budgets
            .iter()
            .any(|budget| guards(budget, target, replicas));
        // A budget over one pod only blocks drains.
        let drains = (replicas > 1 && !guarded).then(|| {
            format!(
                "no PodDisruptionBudget keeps some pods of Deployment {name} when nodes are drained, so all may be evicted at once, with nobody left to take their sessions; add one with maxUnavailable: 1"
            )
        });
        // One is named at a time: each has a remedy of its own, and two for one target fight each other anyway.
        let scaler = around.to_zero.iter().find(|scaler| scaler.target == name);
        let to_zero = scaler.map(|scaler| {
            format!(
                "{} {} may scale Deployment {name} to zero, and sessions end with the last pod; {}",
                scaler.kind, scaler.name, scaler.remedy
            )
        });
        Self { drains, to_zero }
    }
}

/// Whether a budget keeps at least one pod of the target.
fn guards(budget: &PodDisruptionBudget, target: &Deployment, replicas: i32) -> bool {
    let Some(spec) = &budget.spec else { return false };
    // policy/v1: an empty selector selects every pod of the namespace, none at all selects nothing.
    let Some(selector) = spec.selector.clone() else {
        return false;
    };
    let template = target.spec.as_ref().map(|spec| &spec.template);
    let labels = template
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    if !Selector::try_from(selector).is_ok_and(|selector| selector.matches(&labels)) {
        return false;
    }
    let all_may_go = match (&spec.max_unavailable, &spec.min_available) {
        (Some(IntOrString::Int(most)), _) => *most >= replicas,
        (Some(IntOrString::String(most)), _) => most == "100%",
        (None, Some(IntOrString::Int(least))) => *least == 0,
        (None, Some(IntOrString::String(least))) => least == "0%",
        // The API's default of minAvailable is 1.
        (None, None) => false,
    };
    !all_may_go
}

/// A HorizontalPodAutoscaler that may remove the last pod of a Deployment.
pub fn of_autoscaler(scaler: &HorizontalPodAutoscaler) -> Option<Scaler> {
    let spec = scaler.spec.as_ref()?;
    let target = &spec.scale_target_ref;
    (target.kind == "Deployment" && spec.min_replicas == Some(0)).then(|| Scaler {
        kind: "HorizontalPodAutoscaler",
        name: scaler.name_any(),
        target: target.name.clone(),
        remedy: "set its minReplicas to 1 or more",
    })
}

/// A ScaledObject of KEDA (`keda.sh/v1alpha1`) that may remove the last pod of a Deployment.
pub fn of_scaled_object(scaler: &DynamicObject) -> Option<Scaler> {
    let spec = scaler.data.get("spec")?;
    let target = spec.get("scaleTargetRef")?;
    let kind = target.get("kind").and_then(|kind| kind.as_str());
    // KEDA's defaults: the kind is Deployment, minReplicaCount is 0.
    if kind.is_some_and(|kind| kind != "Deployment") {
        return None;
    }
    let count = |field: &str| spec.get(field).and_then(serde_json::Value::as_i64);
    let remedy = if count("minReplicaCount").unwrap_or(0) == 0 {
        "set its minReplicaCount to 1 or more"
    } else if count("idleReplicaCount") == Some(0) {
        "remove its idleReplicaCount"
    } else {
        return None;
    };
    Some(Scaler {
        kind: "ScaledObject",
        name: scaler.name_any(),
        target: target.get("name")?.as_str()?.to_owned(),
        remedy,
    })
}

/// A node whose kubelet knows no native sidecars.
#[derive(Clone, Debug, PartialEq)]
pub struct OldNode {
    node: Node,
    version: String,
}

impl OldNode {
    /// This node, if it is one. A version that cannot be read says nothing.
    pub fn of(node: &Node) -> Option<Self> {
        let version = &node.status.as_ref()?.node_info.as_ref()?.kubelet_version;
        let mut numbers = version.strip_prefix('v')?.split('.');
        let major: u32 = numbers.next()?.parse().ok()?;
        let minor: u32 = numbers.next()?.parse().ok()?;
        let mut node = node.clone();
        let version = version.clone();
        // Much of a node is a list of images that nobody needs here.
        node.status = None;
        node.metadata.managed_fields = None;
        (major == 1 && minor < NATIVE_SIDECARS).then_some(Self { node, version })
    }

    /// Whether pods of this template may come to it, by nodeSelector, taints and cordon. Affinity is not looked at.
    fn takes(&self, pod: &PodSpec) -> bool {
        let spec = self.node.spec.as_ref();
        if spec.and_then(|spec| spec.unschedulable) == Some(true) {
            return false;
        }
        let labels = self.node.labels();
        let chosen = pod.node_selector.iter().flatten();
        if !chosen
            .into_iter()
            .all(|(key, value)| labels.get(key) == Some(value))
        {
            return false;
        }
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let tolerations = pod.tolerations.as_deref().unwrap_or_default();
        taints
            .iter()
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key = match toleration.key.as_deref() {
        None | Some("") => exists,
        Some(key) => key == taint.key,
    };
    let value = exists
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    let effect = toleration
        .effect
        .as_deref()
        .is_none_or(|effect| effect.is_empty() || effect == taint.effect);
    key && value && effect
}

/// Why pods of this Deployment cannot have a sidecar on every node that may take them.
pub fn too_old(target: &Deployment, nodes: &[OldNode]) -> Option<Trouble> {
    let pod = target.spec.as_ref()?.template.spec.as_ref()?;
    let old = nodes
        .iter()
        .filter(|node| node.takes(pod))
        .min_by_key(|old| old.node.name_any())?;
    let node = old.node.name_any();
    Some(Trouble::new(
        reasons::KUBELET_TOO_OLD,
        format!(
            "node {node} has kubelet {}, which does not run native sidecars (1.{NATIVE_SIDECARS} and later do), and may take pods of Deployment {}; upgrade it, cordon it, or keep the pods away with a nodeSelector",
            old.version,
            target.name_any()
        ),
    ))
}
