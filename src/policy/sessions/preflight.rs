//! The preflight: a pod that runs once in the target's image, outside its Services, and says what the image has.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::Trouble;
use super::names;
use crate::api::conditions::reasons;
use crate::api::session_policy::{Framework, PreflightResult};
use crate::framework::{Preflight, escaped};
use crate::policy::validate::Validated;

/// Longest that a preflight may take, image pull included. After it the kubelet ends the pod.
const DEADLINE_SECONDS: i64 = 180;

/// Name of the one container.
const CONTAINER: &str = "preflight";

/// What decides on the answer; equal values need no second look.
pub fn key(framework: Framework, container: &Container, preflight: &Preflight) -> String {
    names::digest(&(
        framework,
        &container.image,
        &container.env,
        &container.env_from,
        &preflight.command,
    ))
}

/// Name of the pod for a key.
pub fn name(policy: &str, key: &str) -> String {
    format!("{policy}-preflight-{key}")
}

/// The pod. It has none of the target's labels, so no Service and no ReplicaSet takes it for one of theirs.
pub fn pod(policy: &Validated, container: &Container, preflight: &Preflight, key: &str) -> Pod {
    let template = template_spec(&policy.target);
    let volumes: Vec<Volume> = template
        .volumes
        .iter()
        .flatten()
        .filter(|volume| is_harmless(volume))
        .cloned()
        .collect();
    let mounts = container.volume_mounts.iter().flatten();
    let mounts = mounts
        .filter(|mount| volumes.iter().any(|volume| volume.name == mount.name))
        .cloned()
        .collect();
    Pod {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([(
                "cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(),
                "true".to_owned(),
            )])),
            ..names::metadata(policy, name(&policy.name, key))
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(1),
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                image: container.image.clone(),
                image_pull_policy: container.image_pull_policy.clone(),
                // A shell's $ is the shell's: the kubelet would turn two into one.
                command: Some(preflight.command.iter().map(|word| escaped(word)).collect()),
                env: container.env.clone(),
                env_from: container.env_from.clone(),
                working_dir: container.working_dir.clone(),
                resources: container.resources.clone(),
                security_context: container.security_context.clone(),
                volume_mounts: Some(mounts),
                ..Container::default()
            }],
            volumes: Some(volumes),
            service_account_name: template.service_account_name.clone(),
            image_pull_secrets: template.image_pull_secrets.clone(),
            security_context: template.security_context.clone(),
            node_selector: template.node_selector.clone(),
            affinity: template
                .affinity
                .as_ref()
                .map(|affinity| k8s_openapi::api::core::v1::Affinity {
                    node_affinity: affinity.node_affinity.clone(),
                    ..Default::default()
                }),
            tolerations: template.tolerations.clone(),
            runtime_class_name: template.runtime_class_name.clone(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn template_spec(target: &Deployment) -> PodSpec {
    let spec = target.spec.as_ref();
    spec.and_then(|spec| spec.template.spec.clone())
        .unwrap_or_default()
}

/// Volumes that a second pod can have without taking them from the application.
fn is_harmless(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.empty_dir.is_some()
        || volume.downward_api.is_some()
}

/// How far a preflight is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet; the sentence says what it waits for.
    Running(String),
    /// It gave its answer.
    Answered(PreflightResult),
    /// It ended without one.
    Failed(Trouble),
}

/// What a preflight writes.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Answer {
    Missing { missing: String, remedy: String },
    Facts { facts: BTreeMap<String, String> },
}

/// Reads the pod's state.
pub fn progress(pod: &Pod, key: &str) -> Progress {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let state = status
        .container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == CONTAINER)
        .and_then(|container| container.state.clone())
        .unwrap_or_default();
    if let Some(terminated) = &state.terminated {
        let text = terminated.message.as_deref().unwrap_or_default();
        return match serde_json::from_str(text) {
            Ok(Answer::Facts { facts }) => Progress::Answered(PreflightResult {
                of: key.to_owned(),
                facts,
                missing: None,
            }),
            Ok(Answer::Missing { missing, remedy }) => Progress::Answered(PreflightResult {
                of: key.to_owned(),
                facts: BTreeMap::new(),
                missing: Some(format!("{missing}; {remedy}")),
            }),
            Err(_) => Progress::Failed(failed(
                pod_name,
                &format!(
                    "its command ended with status {} and no answer ({})",
                    terminated.exit_code,
                    terminated.reason.as_deref().unwrap_or("no reason given")
                ),
            )),
        };
    }
    match status.phase.as_deref() {
        Some("Failed") => Progress::Failed(failed(
            pod_name,
            &format!(
                "{}: {}",
                status.reason.as_deref().unwrap_or("it failed"),
                status.message.as_deref().unwrap_or("no message")
            ),
        )),
        _ => Progress::Running(waits_for(image_of(pod), &status, state.waiting.as_ref())),
    }
}

fn image_of(pod: &Pod) -> &str {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut images = containers
        .into_iter()
        .filter_map(|container| container.image.as_deref());
    images.next().unwrap_or_default()
}

fn waits_for(
    image: &str,
    status: &k8s_openapi::api::core::v1::PodStatus,
    waiting: Option<&k8s_openapi::api::core::v1::ContainerStateWaiting>,
) -> String {
    if let Some(waiting) = waiting
        && let Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") =
            waiting.reason.as_deref()
    {
        return format!(
            "image {image} cannot be pulled: {}; check the image in the Deployment and its pull Secrets",
            waiting.message.as_deref().unwrap_or("no message")
        );
    }
    if let Some(waiting) = waiting
        && let Some(reason) = &waiting.reason
        && reason != "ContainerCreating"
    {
        return format!("{reason}: {}", waiting.message.as_deref().unwrap_or("no message"));
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    match unscheduled.and_then(|condition| condition.message.as_deref()) {
        Some(message) => format!("it is not scheduled: {message}"),
        None => "it is starting".to_owned(),
    }
}

fn failed(pod: &str, why: &str) -> Trouble {
    Trouble::new(
        reasons::PREFLIGHT_FAILED,
        format!("pod {pod}, which looks at the image, gave no answer: {why}; it is tried again in a while"),
    )
}
