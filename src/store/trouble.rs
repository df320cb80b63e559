//! Why a pod of a store does not serve, from what the cluster says of it.

use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};

use super::dereference::Dereferenced;
use super::names::Names;
use super::status::Unready;
use super::validate::Validated;
use crate::api::conditions::reasons;

/// Why no pod serves, from what the cluster says of them: of the first that has more to say than that it starts. `refused` is
/// why a pod could not be made, if that is known.
pub fn unready(found: &Dereferenced, refused: Option<&str>) -> Unready {
    let mut ordinals: Vec<usize> = found.pods.keys().copied().collect();
    if ordinals.is_empty() || refused.is_some() {
        let missing = (0..=ordinals.len()).find(|ordinal| !ordinals.contains(ordinal));
        ordinals.insert(0, missing.unwrap_or_default());
    }
    let mut first = None;
    for ordinal in ordinals {
        let trouble = unready_pod(found, ordinal, refused);
        if trouble.reason != reasons::STORE_STARTING {
            return trouble;
        }
        first.get_or_insert(trouble);
    }
    first.unwrap_or_else(|| unready_pod(found, 0, refused))
}

/// The same for shards.
pub fn unready_shards(store: &Validated, found: &Dereferenced, refused: Option<&str>) -> Unready {
    let names = &found.names;
    let places = (0..store.shards.len())
        .flat_map(|shard| (0..store.servers_per_shard()).map(move |ordinal| (shard, ordinal)));
    let mut first = None;
    for (shard, ordinal) in places {
        let name = names.shard_member(shard, ordinal);
        let claim = Names::volume_of(&name);
        let pod = found.shard_pods.get(&(shard, ordinal));
        let trouble = trouble_of(found, &name, pod.map(AsRef::as_ref), &[claim], refused);
        if trouble.reason != reasons::STORE_STARTING {
            return trouble;
        }
        first.get_or_insert(trouble);
    }
    first.unwrap_or_else(|| unready_pod(found, 0, refused))
}

fn unready_pod(found: &Dereferenced, ordinal: usize, refused: Option<&str>) -> Unready {
    let names = &found.names;
    let name = names.member(ordinal);
    let claims = [names.volume(), names.member_volume(ordinal)];
    let pod = found.pods.get(&ordinal);
    trouble_of(found, &name, pod.map(AsRef::as_ref), &claims, refused)
}

fn trouble_of(
    found: &Dereferenced,
    name: &str,
    pod: Option<&Pod>,
    claims: &[String],
    refused: Option<&str>,
) -> Unready {
    let unready = |reason: &'static str, message: String| Unready { reason, message };
    let Some(pod) = pod else {
        return match refused {
            Some(text) if text.contains("quota") => unready(
                reasons::QUOTA_EXCEEDED,
                format!("no pod may be made: {text}; raise the quota of the namespace or lower spec.memory"),
            ),
            Some(text) => unready(reasons::POD_REFUSED, format!("no pod may be made: {text}")),
            None => unready(reasons::STORE_STARTING, format!("pod {name} is being made")),
        };
    };
    if let Some(message) = unschedulable(pod) {
        let pending = claims
            .iter()
            .find_map(|claim| found.volumes.get_key_value(claim))
            .filter(|(_, volume)| phase(volume) == "Pending");
        // The scheduler says whether it is the volume: "unbound immediate PersistentVolumeClaims", "didn't find available
        // persistent volumes to bind".
        if let (Some((claim, volume)), true) = (pending, message.to_lowercase().contains("volume")) {
            return unbound(claim, volume, &message);
        }
        return unready(
            reasons::POD_UNSCHEDULABLE,
            format!("no node takes pod {name}: {message}; add nodes or lower spec.memory"),
        );
    }
    let mut statuses = pod.status.iter().flat_map(|status| {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
    });
    statuses
        .find_map(|container| container_trouble(container, name))
        .unwrap_or_else(|| {
            unready(
                reasons::STORE_STARTING,
                format!("the server in pod {name} is starting"),
            )
        })
}

fn unbound(name: &str, volume: &PersistentVolumeClaim, said: &str) -> Unready {
    let class = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref());
    let class = class.map_or_else(
        || "the default class".to_owned(),
        |class| format!("class {class}"),
    );
    Unready {
        reason: reasons::VOLUME_PENDING,
        message: format!(
            "volume claim {name} is not bound: no volume of {class} has been made for it ({said}); check that the class \
             exists and can make volumes (kubectl describe pvc {name})"
        ),
    }
}

fn phase(volume: &PersistentVolumeClaim) -> &str {
    volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether the pod's probes succeed, so that its Service leads to it.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .map(|condition| condition.message.clone().unwrap_or_default())
}

fn container_trouble(container: &ContainerStatus, pod: &str) -> Option<Unready> {
    let state = container.state.as_ref()?;
    let ended = state
        .terminated
        .as_ref()
        .or_else(|| container.last_state.as_ref()?.terminated.as_ref());
    let waiting = state.waiting.as_ref();
    let reason = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default();
    let said = waiting
        .and_then(|waiting| waiting.message.as_deref())
        .unwrap_or_default();
    if matches!(
        reason,
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
    ) {
        return Some(Unready {
            reason: reasons::IMAGE_PULL_FAILED,
            message: format!(
                "the image {} of pod {pod} cannot be pulled ({reason}): {said}; check the chart's values under stores, and \
                 the pull Secrets that they name in this namespace",
                container.image
            ),
        });
    }
    if container.ready || (state.running.is_some() && container.started == Some(true)) {
        return None;
    }
    if ended.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled")) {
        return Some(Unready {
            reason: reasons::OUT_OF_MEMORY,
            message: format!(
                "the server in pod {pod} was killed because it used more than spec.memory; raise it"
            ),
        });
    }
    let failed = ended.filter(|ended| ended.exit_code != 0);
    if reason == "CrashLoopBackOff" || (waiting.is_some() && failed.is_some()) {
        return Some(Unready {
            reason: reasons::SERVER_FAILING,
            message: format!(
                "container {} of pod {pod} ends again and again (status {}); see kubectl logs {pod} --container {} --previous",
                container.name,
                failed.map_or(0, |ended| ended.exit_code),
                container.name
            ),
        });
    }
    if matches!(
        reason,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"
    ) {
        return Some(Unready {
            reason: reasons::SERVER_FAILING,
            message: format!(
                "container {} of pod {pod} cannot be started ({reason}): {said}",
                container.name
            ),
        });
    }
    None
}
