//! Strategy Sticky with `drainSeconds`: a sidecar that keeps no sessions, and lets a pod's end cost no requests. Pure.
//!
//! Once the drain time of a terminating pod is over the sidecar turns unready, and with it the pod: proxies move its users,
//! once, while the application still serves them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::moving::Place;
use super::names;
use super::revision::{self, Images, Wanted};
use super::sidecar::{
    CONTROL_DIR, CONTROL_VOLUME, HTTP_PORT, UNREADY_SECONDS, drain_first, in_memory, is_guaranteed, mount,
    probe,
};
use crate::affinity::model::{PlanOutcome, RoutePlan};
use crate::api::SessionInjectionSpec;
use crate::api::session_injection::{ContainerInjection, PolicyReference};
use crate::policy::build::build;
use crate::policy::dereference::Dereferenced;
use crate::policy::sessions::pods;
use crate::policy::validate::{Kept, Validated};

/// Name of the container.
pub const CONTAINER: &str = "session-handover";

/// Memory of the sidecar: several times what it uses.
const MEMORY: &str = "32Mi";

/// CPU of the sidecar, which does nothing but answer probes.
const CPU: &str = "10m";

/// The policy with the wish for this sidecar as the routes allow it: where one keeps nobody on pods that terminate, a pod turns
/// unready at once and only serves on until proxies have followed, so that no request fails.
///
/// While there is no route at all, as when one is replaced, what stands stays: the pods are not replaced for that.
pub fn settled(mut validated: Validated, found: &Dereferenced) -> Validated {
    let wish = validated.sessions.as_ref();
    let Some(Kept::Application(wanted)) = wish.map(|wish| &wish.kept) else {
        return validated;
    };
    let wanted = *wanted;
    let planned = build(&validated, found, None);
    let drain = match keep_terminating_pods(&planned.routes) {
        Some(true) => Some(wanted),
        Some(false) => Some(0),
        None => standing(&validated, found, wanted),
    };
    validated.sessions = validated.sessions.zip(drain).map(|(mut wish, drain)| {
        wish.kept = Kept::Application(drain);
        wish
    });
    validated
}

/// The drain of the pods as they are; `wanted` where a revision is marked that cannot be seen.
fn standing(validated: &Validated, found: &Dereferenced, wanted: i32) -> Option<i32> {
    let mark = pods::mark_of(&validated.target).filter(|mark| names::is_revision(&validated.name, mark))?;
    let injection = found
        .injections
        .iter()
        .find(|injection| injection.metadata.name.as_deref() == Some(mark));
    let sleeps = injection.and_then(|injection| injection.spec.containers.first()?.pre_stop_sleep_seconds);
    let drain = sleeps.and_then(|sleeps| i32::try_from(sleeps - UNREADY_SECONDS - 1).ok());
    Some(drain.unwrap_or(wanted))
}

/// Whether all routes do; `None` without one.
fn keep_terminating_pods(routes: &[RoutePlan]) -> Option<bool> {
    let mut all = routes
        .iter()
        .filter_map(|route| match &route.outcome {
            PlanOutcome::Configured(configured) => Some(configured.keeps_terminating_pods),
            PlanOutcome::Refused(_) => Some(false),
            PlanOutcome::Reported(_) => None,
        })
        .peekable();
    all.peek().is_some().then(|| all.all(|keeps| keeps))
}

/// What admission is to add for a drain of so many seconds to the pods with these containers.
pub fn revision(
    policy: &Validated,
    drain_seconds: i32,
    containers: &[&Container],
    images: &Images,
) -> Wanted {
    let template = policy.target.spec.as_ref().map(|spec| &spec.template);
    let pod = template.and_then(|template| template.spec.as_ref());
    let names: Vec<String> = containers
        .iter()
        .map(|container| container.name.clone())
        .collect();
    let inputs = names::digest(&("hand-over", drain_seconds, &names));
    let spec = SessionInjectionSpec {
        policy: PolicyReference {
            name: policy.name.clone(),
            uid: policy.uid.clone(),
        },
        containers: names
            .into_iter()
            .map(|name| ContainerInjection {
                name,
                pre_stop_sleep_seconds: Some(i64::from(drain_seconds) + UNREADY_SECONDS + 1),
                ..ContainerInjection::default()
            })
            .collect(),
        volumes: vec![in_memory(CONTROL_VOLUME), revision::no_token_volume()],
        init_containers: vec![sidecar(drain_seconds, pod, images)],
        image_pull_secrets: revision::pull_secrets(true, images),
    };
    Wanted {
        name: format!("{}-{}", policy.name, names::digest(&(&inputs, &spec))),
        place: Place::Application,
        inputs,
        credentials: None,
        spec,
    }
}

fn sidecar(drain_seconds: i32, pod: Option<&PodSpec>, images: &Images) -> Container {
    let memory = || ("memory".to_owned(), Quantity(MEMORY.to_owned()));
    let cpu = || ("cpu".to_owned(), Quantity(CPU.to_owned()));
    let mut limits = BTreeMap::from([memory()]);
    if pod.is_some_and(is_guaranteed) {
        limits.extend([cpu()]);
    }
    Container {
        name: CONTAINER.to_owned(),
        image: Some(images.replicator.clone()),
        image_pull_policy: images.pull_policy.clone(),
        restart_policy: Some("Always".to_owned()),
        args: Some(vec![
            "linger".to_owned(),
            format!("--http-listen=[::]:{HTTP_PORT}"),
            format!("--control-socket={CONTROL_DIR}/control.sock"),
            format!("--drain-seconds={drain_seconds}"),
            format!("--unready-seconds={UNREADY_SECONDS}"),
        ]),
        readiness_probe: Some(probe("/readyz", 1, 1)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        lifecycle: Some(drain_first()),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([cpu(), memory()])),
            limits: Some(limits),
            ..ResourceRequirements::default()
        }),
        security_context: Some(revision::restricted()),
        volume_mounts: Some(vec![
            mount(CONTROL_VOLUME, CONTROL_DIR, false),
            revision::without_token(),
        ]),
        ..Container::default()
    }
}
