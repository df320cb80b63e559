//! Why pods cannot be replaced, from what the cluster says of them. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::Trouble;
use crate::api::conditions::reasons;
use crate::framework::AGENT_VOLUME;

/// Why the rollout of the target does not go on, if that is known. `pods` are those with an injection's label.
pub fn why(target: &Deployment, pods: &[Arc<Pod>]) -> Option<Trouble> {
    let conditions = target
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let refused = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    if let Some(condition) = refused {
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(self::refused(target, message));
    }
    let mut ours = pods.iter().filter(|pod| {
        let selector = target
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.match_labels.as_ref());
        pod.metadata.deletion_timestamp.is_none()
            && selector
                .into_iter()
                .flatten()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    });
    ours.find_map(|pod| trouble(pod))
}

/// Pods of the target's template are refused, in the API server's words.
pub fn refused(target: &Deployment, words: &str) -> Trouble {
    blocked(format!(
        "pods of Deployment {} are refused: {}",
        target.name_any(),
        with_remedy(words)
    ))
}

/// Why the API server refuses a pod, in its own words, and what to do about it.
pub fn with_remedy(words: &str) -> String {
    // Before it stands the pod's name, which is another one at each try.
    let words = words.split_once(" is forbidden: ").map_or(words, |(_, why)| why);
    let remedy = if words.contains("quota") {
        "raise the quota of the namespace: there has to be room for one more pod, and what is injected has requests and limits of its own"
    } else {
        "correct the pod template, or what refuses it"
    };
    format!("{words}; {remedy}")
}

fn blocked(message: String) -> Trouble {
    Trouble::new(reasons::ROLLOUT_BLOCKED, message)
}

fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        return Some(blocked(format!(
            "no node takes pod {}: {}",
            pod.name_any(),
            condition.message.as_deref().unwrap_or_default()
        )));
    }
    let first = status.init_container_statuses.iter().flatten();
    first
        .chain(status.container_statuses.iter().flatten())
        .find_map(|container| of_container(pod, container))
}

fn of_container(pod: &Pod, container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let name = &container.name;
    let pod = pod.name_any();
    let message = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            let remedy = if *name == AGENT_VOLUME {
                "check the chart's values agents.image and agents.imagePullSecrets"
            } else {
                "check the image in the Deployment and its pull Secrets"
            };
            format!(
                "image {} of container {name} of pod {pod} cannot be pulled: {said}; {remedy}",
                container.image
            )
        }
        "CreateContainerConfigError" => format!(
            "container {name} of pod {pod} cannot be started: {said}; Secrets of the operator's own are written anew within a minute"
        ),
        "CrashLoopBackOff" => format!(
            "container {name} of pod {pod} ends again and again; see kubectl logs {pod} --container {name} --previous"
        ),
        _ => return None,
    };
    Some(blocked(message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(conditions: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": {}},
            "status": {"conditions": conditions}
        }))
        .unwrap()
    }

    fn pod(app: &str, status: &Value) -> Vec<Arc<Pod>> {
        let pod = json!({"metadata": {"name": "shop-1", "labels": {"app": app}}, "status": status});
        vec![Arc::new(serde_json::from_value(pod).unwrap())]
    }

    fn said(target: &Deployment, pods: &[Arc<Pod>]) -> String {
        let trouble = why(target, pods).unwrap();
        assert_eq!(trouble.reason, reasons::ROLLOUT_BLOCKED);
        trouble.message
    }

    #[test]
    fn a_quota_is_named_with_what_it_needs_room_for() {
        let message = "pods \"shop-2\" is forbidden: exceeded quota: small";
        let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]);
        let said = said(&target(&failure), &[]);
        assert!(
            said.contains("refused: exceeded quota: small; raise the quota"),
            "{said}"
        );
        let over = json!([{"type": "ReplicaFailure", "status": "False"}]);
        assert_eq!(why(&target(&over), &[]), None);
    }

    #[test]
    fn an_image_is_named_with_whose_setting_it_is() {
        let waiting = |container: &str| {
            json!({"initContainerStatuses": [{
                "name": container, "image": "agents:2", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
            }]})
        };
        let nothing = target(&json!([]));
        let ours = said(&nothing, &pod("shop", &waiting(AGENT_VOLUME)));
        for word in ["agents:2", "not found", "agents.imagePullSecrets"] {
            assert!(ours.contains(word), "{word}: {ours}");
        }
        let theirs = said(&nothing, &pod("shop", &waiting("migrate")));
        assert!(theirs.contains("image in the Deployment"), "{theirs}");
        assert_eq!(why(&nothing, &pod("blog", &waiting(AGENT_VOLUME))), None);
    }

    #[test]
    fn pods_that_are_starting_are_no_trouble() {
        let starting = json!({"containerStatuses": [{
            "name": "web", "image": "shop:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "PodInitializing"}}
        }]});
        assert_eq!(why(&target(&json!([])), &pod("shop", &starting)), None);
    }

    #[test]
    fn a_pod_that_no_node_takes_says_why() {
        let status = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]});
        assert!(said(&target(&json!([])), &pod("shop", &status)).contains("Insufficient cpu"));
    }
}
