//! Whether pods contain what the revision that their label names says. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use crate::api::{INJECTION_LABEL, SessionInjection, SessionInjectionSpec};
use crate::injection;

/// The pods of a target, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Pods of the target that run or are to run.
    pub total: u32,
    /// Those that contain what their revision says.
    pub injected: u32,
    /// Those that name a revision of the policy and lack a part of it: name and what they lack.
    pub lacking: Vec<(String, Vec<String>)>,
}

/// Counts. `pods` are those of the namespace that carry the injection label.
pub fn count(target: &Deployment, pods: &[Arc<Pod>], revisions: &[Arc<SessionInjection>]) -> Count {
    let replicas = target
        .status
        .as_ref()
        .and_then(|status| status.replicas)
        .unwrap_or(0);
    let mut count = Count {
        total: u32::try_from(replicas).unwrap_or(0),
        ..Count::default()
    };
    for pod in pods {
        let over = pod.metadata.deletion_timestamp.is_some() || has_ended(pod);
        let Some(revision) = revision_of(pod, revisions).filter(|_| !over) else {
            continue;
        };
        let mut lacks = absent(pod.spec.as_ref(), &revision.spec);
        lacks.extend(injection::contains(pod, &revision.spec).err().unwrap_or_default());
        if lacks.is_empty() {
            count.injected += 1;
        } else {
            count.lacking.push((pod.name_any(), lacks));
        }
    }
    // The Deployment's own count may be a moment behind.
    let seen = count
        .injected
        .saturating_add(u32::try_from(count.lacking.len()).unwrap_or(u32::MAX));
    count.total = count.total.max(seen);
    count
}

/// Names of the pods that have been told to end and have not ended yet, in order. A Deployment does not count them.
pub fn ending<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<String> {
    let mut names: Vec<String> = pods
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !has_ended(pod))
        .map(ResourceExt::name_any)
        .collect();
    names.sort_unstable();
    names
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// Containers of a revision that a pod does not have, as after a renaming. Admission passes them over, and the application
/// in the container of the new name is told nothing.
pub fn absent(pod: Option<&PodSpec>, revision: &SessionInjectionSpec) -> Vec<String> {
    let has = |name: &str| {
        let mut containers = pod.iter().flat_map(|pod| &pod.containers);
        containers.any(|container| container.name == name)
    };
    let wanted = revision.containers.iter().filter(|wanted| !has(&wanted.name));
    wanted
        .map(|wanted| format!("container {}", wanted.name))
        .collect()
}

fn revision_of<'a>(pod: &Pod, revisions: &'a [Arc<SessionInjection>]) -> Option<&'a Arc<SessionInjection>> {
    let name = pod.labels().get(INJECTION_LABEL)?;
    revisions.iter().find(|revision| revision.name_any() == *name)
}

/// Whether every pod of the Deployment is of its newest template and available.
pub fn is_rolled_out(target: &Deployment) -> bool {
    let wanted = target.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &target.status else {
        return false;
    };
    status.observed_generation == target.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
}

/// Whether the Deployment is paused.
pub fn is_paused(target: &Deployment) -> bool {
    target.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

/// The revision that the template names.
pub fn mark_of(target: &Deployment) -> Option<&str> {
    let template = &target.spec.as_ref()?.template;
    let labels = template.metadata.as_ref()?.labels.as_ref()?;
    labels.get(INJECTION_LABEL).map(String::as_str)
}
