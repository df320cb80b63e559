//! How long a pod of the target goes on serving once it is being deleted, and what a wished-for drain lacks.
//!
//! A drain without failed requests has three parts: the pod serves on for the drain time, then turns unready, then
//! still serves for [`HANDOVER_SECONDS`] while controllers learn of it. The preStop hook does the waiting; the grace
//! period has to be longer than all of it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};

/// How long a pod has to serve on after it turned unready. Kubelet notices within one probe period, the
/// `EndpointSlice` and the controller follow within two seconds.
pub const HANDOVER_SECONDS: i64 = 5;

/// Spare time for the application to end by itself after its preStop hook.
const EXIT_SECONDS: i64 = 10;

/// How long the sidecar that hands users over serves on after it turned unready: longer than [`HANDOVER_SECONDS`], as it is
/// paid for by nobody but a terminating pod.
pub const UNREADY_SECONDS: i64 = 10;

/// Grace period beyond drain and [`UNREADY_SECONDS`], in which the application ends by itself.
const LEAVING_SECONDS: i64 = 5;

/// Default of `terminationGracePeriodSeconds` (core/v1 `PodSpec`).
const DEFAULT_GRACE_SECONDS: i64 = 30;

const DEFAULT_CONTAINER_ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Words of a shell script after which the sum of its sleeps says nothing of its duration.
const CONTROL_WORDS: [&str; 10] = [
    "if", "while", "until", "for", "case", "trap", "exit", "&", "||", "wait",
];

/// How long a preStop hook takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreStop {
    /// There is none.
    Absent,
    /// At least these seconds.
    Seconds(i64),
    /// It does something whose duration cannot be seen.
    Unknown,
}

/// What a wished-for drain lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is missing, each with what to add.
    pub unsupported: Vec<String>,
    /// What cannot be judged, or costs requests.
    pub notes: Vec<String>,
}

/// Seconds for which a pod of `deployment` surely serves on after its deletion, as far as the template shows.
pub fn window_seconds(deployment: &Deployment) -> i64 {
    let Some(template) = template(deployment) else {
        return 0;
    };
    match main_container(template).map_or(PreStop::Absent, pre_stop) {
        PreStop::Seconds(seconds) => seconds.min(grace_seconds(template)),
        PreStop::Absent | PreStop::Unknown => 0,
    }
}

/// Whether a sidecar that turns unready when the drain time is over would make the drain whole, and the template does not
/// do it by itself. The application needs a preStop hook that lasts until then, or none: then one is added.
pub fn lacks_hand_over(deployment: &Deployment, wanted: i32) -> bool {
    let Some((template, container)) = template(deployment).and_then(|it| Some((it, main_container(it)?)))
    else {
        return false;
    };
    let by_itself = judge(deployment, wanted, "", true, false) == Verdict::default();
    wanted > 0
        && !by_itself
        && can_hand_over(template, container, i64::from(wanted))
        && grace_seconds(template) >= needed_grace(i64::from(wanted))
}

/// Grace period that a pod needs which is handed over.
fn needed_grace(wanted: i64) -> i64 {
    wanted + UNREADY_SECONDS + LEAVING_SECONDS
}

fn can_hand_over(template: &PodTemplateSpec, container: &Container, wanted: i64) -> bool {
    let host_network = template.spec.as_ref().and_then(|pod| pod.host_network) == Some(true);
    let lasts = match pre_stop(container) {
        PreStop::Absent => true,
        PreStop::Seconds(seconds) => seconds >= wanted + UNREADY_SECONDS,
        PreStop::Unknown => false,
    };
    // The sidecar's port would be one of the node.
    lasts && !host_network
}

/// Holds the template of `deployment` against a drain of `wanted` seconds behind `controller`. `injects` is whether the
/// policy's strategy adds a sidecar that hands over, where the template lets it.
pub fn judge(
    deployment: &Deployment,
    wanted: i32,
    controller: &str,
    keeps_terminating_pods: bool,
    injects: bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    if wanted <= 0 {
        return verdict;
    }
    if !keeps_terminating_pods {
        let serves_on = if injects && lacks_hand_over(deployment, wanted) {
            format!(
                " (a sidecar has it serve on for {UNREADY_SECONDS} s until that is so, and no request fails meanwhile)"
            )
        } else {
            String::new()
        };
        verdict.unsupported.push(format!(
            "drainSeconds {wanted}: {controller} sends a terminating pod nothing more, whatever its grace period{serves_on}; \
             set drainSeconds to 0, or serve the target with a controller that keeps terminating pods, such as Traefik"
        ));
        return verdict;
    }
    let wanted = i64::from(wanted);
    let Some((template, container)) = template(deployment).and_then(|it| Some((it, main_container(it)?)))
    else {
        return verdict;
    };
    if injects && can_hand_over(template, container, wanted) {
        let grace = grace_seconds(template);
        let needed = needed_grace(wanted);
        if grace < needed {
            verdict.unsupported.push(format!(
                "drainSeconds {wanted}: terminationGracePeriodSeconds is {grace}, but has to be {needed} or more (drain and \
                 hand-over, which are then added to the pods); set in spec.template of the Deployment:\nspec:\n  \
                 terminationGracePeriodSeconds: {needed}"
            ));
        }
        return verdict;
    }
    judge_pre_stop(container, wanted, &mut verdict);
    judge_grace(template, container, wanted, &mut verdict);
    judge_readiness(container, wanted, &mut verdict);
    verdict
}

fn judge_pre_stop(container: &Container, wanted: i64, verdict: &mut Verdict) {
    let name = &container.name;
    let found = match pre_stop(container) {
        PreStop::Absent => "has no preStop hook and so ends at once".to_owned(),
        PreStop::Seconds(seconds) if seconds < wanted => format!("has a preStop hook of {seconds} s"),
        PreStop::Seconds(_) => return,
        PreStop::Unknown => {
            verdict.notes.push(format!(
                "drainSeconds {wanted}: how long the preStop hook of container {name} takes cannot be seen; it has to \
                 take at least {} s",
                wanted + HANDOVER_SECONDS
            ));
            return;
        }
    };
    verdict.unsupported.push(format!(
        "drainSeconds {wanted}: container {name} {found}; set in spec.template of the Deployment:\n{}",
        snippet(
            name,
            &format!(
                "lifecycle:\n  preStop:\n    exec:\n      command: [/bin/sh, -c, \"sleep {wanted}; touch /tmp/draining; \
                 sleep {HANDOVER_SECONDS}\"]"
            )
        )
    ));
}

fn judge_grace(template: &PodTemplateSpec, container: &Container, wanted: i64, verdict: &mut Verdict) {
    let planned = match pre_stop(container) {
        PreStop::Seconds(seconds) => seconds,
        PreStop::Absent | PreStop::Unknown => 0,
    };
    let needed = planned.max(wanted + HANDOVER_SECONDS);
    let grace = grace_seconds(template);
    if grace > needed {
        return;
    }
    verdict.unsupported.push(format!(
        "drainSeconds {wanted}: terminationGracePeriodSeconds is {grace}, but has to be above {needed} (drain and \
         hand-over); set in spec.template of the Deployment:\nspec:\n  terminationGracePeriodSeconds: {}",
        needed + EXIT_SECONDS
    ));
}

fn judge_readiness(container: &Container, wanted: i64, verdict: &mut Verdict) {
    let name = &container.name;
    let Some(probe) = &container.readiness_probe else {
        verdict.unsupported.push(format!(
            "drainSeconds {wanted}: container {name} has no readiness probe, so nobody learns that its drain is over \
             before it is gone; set in spec.template of the Deployment:\n{}",
            snippet(
                name,
                "readinessProbe:\n  exec:\n    command: [/bin/sh, -c, \"test ! -e /tmp/draining\"]\n  periodSeconds: 1\n  \
                 failureThreshold: 1"
            )
        ));
        return;
    };
    // Defaults of core/v1 Probe.
    let period = i64::from(probe.period_seconds.unwrap_or(10));
    let threshold = i64::from(probe.failure_threshold.unwrap_or(3));
    let delay = period.saturating_mul(threshold);
    if delay > HANDOVER_SECONDS {
        verdict.unsupported.push(format!(
            "drainSeconds {wanted}: the readiness probe of container {name} turns false only after {delay} s \
             ({period} s x {threshold}), longer than the {HANDOVER_SECONDS} s of the hand-over; set in spec.template of \
             the Deployment:\n{}",
            snippet(name, "readinessProbe:\n  periodSeconds: 1\n  failureThreshold: 1")
        ));
    }
    if is_plain_sleep(container) {
        verdict.notes.push(format!(
            "drainSeconds {wanted}: container {name} stays ready until it ends, so requests of its last users fail for \
             some seconds; let its preStop hook turn it unready {HANDOVER_SECONDS} s before its end"
        ));
    }
}

fn snippet(container: &str, fields: &str) -> String {
    format!(
        "spec:\n  containers:\n  - name: {container}\n    {}",
        fields.replace('\n', "\n    ")
    )
}

fn template(deployment: &Deployment) -> Option<&PodTemplateSpec> {
    deployment.spec.as_ref().map(|spec| &spec.template)
}

fn main_container(template: &PodTemplateSpec) -> Option<&Container> {
    let containers = &template.spec.as_ref()?.containers;
    let named = template.metadata.as_ref().and_then(|metadata| {
        let name = metadata.annotations.as_ref()?.get(DEFAULT_CONTAINER_ANNOTATION)?;
        containers.iter().find(|container| &container.name == name)
    });
    named.or_else(|| containers.first())
}

fn grace_seconds(template: &PodTemplateSpec) -> i64 {
    let grace = template
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    grace.unwrap_or(DEFAULT_GRACE_SECONDS)
}

fn pre_stop(container: &Container) -> PreStop {
    let Some(hook) = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
    else {
        return PreStop::Absent;
    };
    if let Some(sleep) = &hook.sleep {
        return PreStop::Seconds(sleep.seconds);
    }
    let command = hook.exec.as_ref().and_then(|exec| exec.command.as_deref());
    command
        .and_then(sleeps)
        .map_or(PreStop::Unknown, PreStop::Seconds)
}

fn is_plain_sleep(container: &Container) -> bool {
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    hook.is_some_and(|hook| {
        let command = hook
            .exec
            .as_ref()
            .and_then(|exec| exec.command.as_deref())
            .unwrap_or_default();
        hook.sleep.is_some() || words(command).len() == 2 && sleeps(command).is_some()
    })
}

/// The sum of the sleeps of a command without branches, if there are any.
fn sleeps(command: &[String]) -> Option<i64> {
    let words = words(command);
    if words.iter().any(|word| CONTROL_WORDS.contains(&word.as_str())) {
        return None;
    }
    let mut total: Option<i64> = None;
    for pair in words.windows(2) {
        if let [first, duration] = pair
            && (first == "sleep" || first.ends_with("/sleep"))
        {
            total = Some(total.unwrap_or(0).checked_add(seconds(duration)?)?);
        }
    }
    total
}

fn words(command: &[String]) -> Vec<String> {
    let joined = command
        .join(" ")
        .replace(';', " ; ")
        .replace("&&", " ; ")
        .replace('&', " & ");
    joined
        .split_whitespace()
        .filter(|word| *word != ";")
        .map(str::to_owned)
        .collect()
}

/// A duration as sleep(1) takes it.
fn seconds(text: &str) -> Option<i64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 's') => (text.get(..at)?, 1),
        (at, 'm') => (text.get(..at)?, 60),
        (at, 'h') => (text.get(..at)?, 3600),
        _ => (text, 1),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|value| i64::from(value).checked_mul(unit))
}
