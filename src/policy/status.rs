//! Step 5: says what was done and seen. Writes only when something changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use serde_json::json;

use super::apply::{Applied, AppliedRoute};
use super::policy_key;
use super::sessions::{Sessions, Trouble};
use super::survives::{self, Facts, HandOver, RouteFact, StoreFacts};
use super::validate::{Kept, Unresolved, Validated};
use crate::affinity::model::{PlanOutcome, Refusal};
use crate::api::conditions::{reasons, types};
use crate::api::session_policy::Replication;
use crate::api::{Affinity, Binds, STATUS_FIELD_MANAGER, SessionPolicy, SessionPolicyStatus, Survival};
use crate::runtime::metrics::PolicyLabels;
use crate::runtime::writer::{WriteError, Writer};

/// Longest message that a condition may have (`metav1.Condition`: 32768).
const MESSAGE_LIMIT: usize = 32_768;

/// What a reconcile came to.
pub enum Verdict<'a> {
    /// The steps were gone through.
    Applied(&'a Validated, &'a Applied, Option<&'a Sessions>),
    /// There is nothing to work on.
    Unresolved(&'a Unresolved),
    /// The policy could not be worked on: a reason and a sentence.
    Failed(&'static str, String),
}

/// A change of the summary that a person wants to hear of.
#[derive(Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Normal or Warning.
    pub kind: AnnouncementKind,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub note: String,
}

/// Kind of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementKind {
    /// All is well.
    Normal,
    /// Somebody has to act.
    Warning,
}

impl From<AnnouncementKind> for EventType {
    fn from(kind: AnnouncementKind) -> Self {
        match kind {
            AnnouncementKind::Normal => Self::Normal,
            AnnouncementKind::Warning => Self::Warning,
        }
    }
}

/// The status after a reconcile. `now` is used for conditions that change.
pub fn compute(policy: &SessionPolicy, verdict: &Verdict<'_>, now: &Time) -> SessionPolicyStatus {
    let former = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    let mut status = SessionPolicyStatus {
        observed_generation: generation,
        ..SessionPolicyStatus::default()
    };
    let mut states = match verdict {
        Verdict::Applied(validated, applied, sessions) => {
            status.affinity = applied.routes.iter().map(affinity_entry).collect();
            status.survives = survival(validated, applied, *sessions);
            if let Some(sessions) = sessions {
                status.binding.clone_from(&sessions.binding);
                status.injection.clone_from(&sessions.injection);
                status.replication.clone_from(&sessions.replication);
            }
            let mut states = vec![(types::TARGET_RESOLVED, target_found(validated))];
            if validated.sticky.is_some() {
                states.push((types::AFFINITY_CONFIGURED, affinity_condition(validated, applied)));
            }
            states.extend(
                sessions
                    .iter()
                    .flat_map(|sessions| sessions_conditions(applied, sessions)),
            );
            states
        }
        Verdict::Unresolved(unresolved) => vec![
            (
                types::TARGET_RESOLVED,
                State::new("False", unresolved.reason, unresolved.message.clone()),
            ),
            (
                types::AFFINITY_CONFIGURED,
                State::new(
                    "False",
                    reasons::TARGET_UNRESOLVED,
                    "nothing is known of routes while the target is not resolved".into(),
                ),
            ),
        ],
        Verdict::Failed(reason, message) => {
            // What was known stays: a request that failed says nothing about what stands in the cluster.
            status.affinity.clone_from(&former.affinity);
            status.survives.clone_from(&former.survives);
            status.binding.clone_from(&former.binding);
            status.injection.clone_from(&former.injection);
            status.replication.clone_from(&former.replication);
            let target = former
                .conditions
                .iter()
                .find(|condition| condition.type_ == types::TARGET_RESOLVED);
            let target = target.map_or_else(
                || State::new("Unknown", reason, "not looked at yet".into()),
                |known| State::new(&known.status, &known.reason, known.message.clone()),
            );
            let others = [
                types::AFFINITY_CONFIGURED,
                types::STORE_READY,
                types::INJECTED,
                types::SESSIONS_REPLICATED,
            ];
            let unknown = others
                .into_iter()
                .filter(|type_| {
                    *type_ == types::AFFINITY_CONFIGURED
                        || former
                            .conditions
                            .iter()
                            .any(|condition| condition.type_ == *type_)
                })
                .map(|type_| (type_, State::new("Unknown", reason, message.clone())));
            std::iter::once((types::TARGET_RESOLVED, target))
                .chain(unknown)
                .collect()
        }
    };
    let parts: Vec<&State> = states.iter().map(|(_, state)| state).collect();
    let ready = summary(&parts);
    states.insert(0, (types::READY, ready));
    status.conditions = states
        .into_iter()
        .map(|(type_, state)| condition(&former, type_, state, generation, now))
        .collect();
    status
}

/// The status of a policy that cannot be read.
pub fn invalid(generation: Option<i64>, message: &str, now: &Time) -> SessionPolicyStatus {
    let nothing = SessionPolicyStatus::default();
    let conditions = [
        (types::READY, "False"),
        (types::TARGET_RESOLVED, "Unknown"),
        (types::AFFINITY_CONFIGURED, "Unknown"),
    ]
    .into_iter()
    .map(|(type_, status)| {
        condition(
            &nothing,
            type_,
            State::new(status, reasons::INVALID_SPEC, message.to_owned()),
            generation,
            now,
        )
    })
    .collect();
    SessionPolicyStatus {
        observed_generation: generation,
        conditions,
        ..nothing
    }
}

/// Labels of a policy for the gauge that counts them.
pub fn labels(policy: &SessionPolicy) -> PolicyLabels {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == types::READY);
    PolicyLabels {
        strategy: format!("{:?}", policy.spec.strategy),
        ready: ready.map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
    }
}

/// Writes `status` if it differs from what stands; returns what is worth an Event.
pub async fn update(
    writer: &Writer,
    policy: &SessionPolicy,
    status: SessionPolicyStatus,
) -> Result<Option<Announcement>, WriteError> {
    let former = policy.status.clone().unwrap_or_default();
    if former == status {
        return Ok(None);
    }
    let uid = policy.uid().unwrap_or_default();
    let key = policy_key(&policy.namespace().unwrap_or_default(), &policy.name_any(), &uid);
    writer
        .apply_status(&key, STATUS_FIELD_MANAGER, &json!(status))
        .await?;
    Ok(announcement(&former, &status))
}

/// An announcement if the summary changed its status or reason.
fn announcement(former: &SessionPolicyStatus, status: &SessionPolicyStatus) -> Option<Announcement> {
    let ready = |status: &SessionPolicyStatus| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::READY)
            .cloned()
    };
    let now = ready(status)?;
    if ready(former).is_some_and(|before| before.status == now.status && before.reason == now.reason) {
        return None;
    }
    let kind = if now.status == "False" {
        AnnouncementKind::Warning
    } else {
        AnnouncementKind::Normal
    };
    Some(Announcement {
        kind,
        reason: now.reason,
        note: now.message,
    })
}

struct State {
    status: String,
    reason: String,
    message: String,
}

impl State {
    fn new(status: &str, reason: &str, message: String) -> Self {
        Self {
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
        }
    }
}

fn condition(
    former: &SessionPolicyStatus,
    type_: &str,
    state: State,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let known = former
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_);
    let since = known
        .filter(|known| known.status == state.status)
        .map_or(now, |known| &known.last_transition_time);
    Condition {
        type_: type_.to_owned(),
        status: state.status,
        reason: state.reason,
        message: shorten(state.message),
        observed_generation: generation,
        last_transition_time: since.clone(),
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        let mut end = MESSAGE_LIMIT - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

fn summary(parts: &[&State]) -> State {
    let worst = parts
        .iter()
        .find(|part| part.status == "False")
        .or_else(|| parts.iter().find(|part| part.status != "True"));
    match worst {
        Some(part) => State::new(&part.status, &part.reason, part.message.clone()),
        None => State::new(
            "True",
            reasons::READY,
            parts.last().map(|part| part.message.clone()).unwrap_or_default(),
        ),
    }
}

fn target_found(validated: &Validated) -> State {
    let replicas = validated
        .target
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    State::new(
        "True",
        reasons::TARGET_FOUND,
        format!(
            "Deployment {} with {replicas} replicas",
            validated.target.name_any()
        ),
    )
}

/// StoreReady, Injected and SessionsReplicated.
fn sessions_conditions(applied: &Applied, sessions: &Sessions) -> Vec<(&'static str, State)> {
    let state = |outcome: &Result<String, Trouble>, reason: &str| match outcome {
        Ok(sentence) => State::new("True", reason, sentence.clone()),
        Err(trouble) => State::new("False", trouble.reason, trouble.message.clone()),
    };
    let mut states = Vec::with_capacity(3);
    if let Some(store) = &sessions.store {
        states.push((types::STORE_READY, state(store, reasons::STORE_REACHED)));
    }
    // A mark that could not be written says more than what was to follow it.
    let injected = match &applied.mark {
        Some(Err(refusal)) => Some(State::new("False", refusal.reason, refusal.message.clone())),
        _ => sessions
            .injected
            .as_ref()
            .map(|injected| state(injected, reasons::PODS_INJECTED)),
    };
    states.extend(injected.map(|injected| (types::INJECTED, injected)));
    if let Some(replicating) = &sessions.replicating {
        let unsupported = |replication: &Replication| !replication.unsupported_commands.is_empty();
        let reason = if sessions.replication.as_ref().is_some_and(unsupported) {
            reasons::COMMANDS_UNSUPPORTED
        } else {
            reasons::IN_SYNC
        };
        states.push((types::SESSIONS_REPLICATED, state(replicating, reason)));
    } else if sessions.replication.is_some() {
        let replaced = "pods are being replaced: what their sidecars say counts once all are there";
        states.push((
            types::SESSIONS_REPLICATED,
            State::new("Unknown", reasons::ROLLOUT_RUNNING, replaced.to_owned()),
        ));
    }
    states
}

fn affinity_condition(validated: &Validated, applied: &Applied) -> State {
    let failures: Vec<&Refusal> = applied
        .refusal
        .iter()
        .chain(
            applied
                .routes
                .iter()
                .filter_map(|route| route.outcome.as_ref().err()),
        )
        .collect();
    if let Some(first) = failures.first() {
        let mut messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
        messages.dedup();
        return State::new("False", first.reason, messages.join("; "));
    }
    let mut sentences: Vec<String> = applied.routes.iter().filter_map(describe).collect();
    let notes: Vec<&String> = applied
        .routes
        .iter()
        .filter_map(configured)
        .flat_map(|plan| &plan.notes)
        .collect();
    for note in notes {
        if !sentences.contains(note) {
            sentences.push(note.clone());
        }
    }
    if validated.suspended {
        sentences.push("spec.suspend is true: nothing is restored when it is removed".into());
    }
    State::new("True", reasons::AFFINITY_APPLIED, sentences.join("; "))
}

fn configured(route: &AppliedRoute) -> Option<&crate::affinity::model::Configured> {
    match &route.plan.outcome {
        PlanOutcome::Configured(configured) => Some(configured),
        PlanOutcome::Refused(_) | PlanOutcome::Reported(_) => None,
    }
}

fn describe(route: &AppliedRoute) -> Option<String> {
    let plan = configured(route)?;
    Some(format!(
        "{}/{} binds each user to {} (set on {})",
        route.plan.kind,
        route.plan.name,
        match plan.binds {
            Binds::Pod => "a pod",
            Binds::Hash => "a position on a hash ring",
            Binds::Node => "a node",
            Binds::None => "nothing",
        },
        plan.written_to.join(", ")
    ))
}

fn affinity_entry(route: &AppliedRoute) -> Affinity {
    let plan = configured(route);
    let stands = plan.filter(|_| route.outcome.is_ok());
    let mut notes: Vec<String> = plan.map(|plan| plan.notes.clone()).unwrap_or_default();
    match (&route.plan.outcome, &route.outcome) {
        (PlanOutcome::Reported(note), _) => notes.push(note.clone()),
        (_, Err(refusal)) => notes.insert(0, refusal.message.clone()),
        _ => {}
    }
    Affinity {
        kind: route.plan.kind.clone(),
        namespace: route.plan.namespace.clone(),
        name: route.plan.name.clone(),
        controller: route.plan.controller.clone(),
        written_to: stands.map(|plan| plan.written_to.join(", ")),
        binds: stands.map_or(Binds::None, |plan| plan.binds),
        keeps_terminating_pods: stands.is_some_and(|plan| plan.keeps_terminating_pods),
        unsupported: plan.map(|plan| plan.unsupported.clone()).unwrap_or_default(),
        notes,
    }
}

/// Only routes of the policy's namespace count: those elsewhere are not the policy's to promise for, and are reported.
pub fn survival(validated: &Validated, applied: &Applied, sessions: Option<&Sessions>) -> Vec<Survival> {
    let routes: Vec<RouteFact> = applied
        .routes
        .iter()
        .filter(|route| !matches!(route.plan.outcome, PlanOutcome::Reported(_)))
        .map(|route| {
            let plan = configured(route);
            RouteFact {
                route: format!("{} {}", route.plan.kind, route.plan.name),
                binds: plan.map_or(Binds::None, |plan| plan.binds),
                keeps_terminating_pods: plan.is_some_and(|plan| plan.keeps_terminating_pods),
                read_back: plan.is_some() && route.outcome.is_ok(),
            }
        })
        .collect();
    survives::compute(&Facts {
        store: sessions.and_then(store_facts),
        hand_over: sessions.and_then(|sessions| hand_over(validated, sessions)),
        target: &validated.target,
        routes: &routes,
    })
}

/// What was added to the pods for their end, once the template is marked.
fn hand_over(validated: &Validated, sessions: &Sessions) -> Option<HandOver> {
    let Kept::Application(drain) = validated.sessions.as_ref()?.kept else {
        return None;
    };
    let injection = sessions.injection.as_ref()?;
    injection.revision.as_ref()?;
    let everywhere = injection.injected_pods == injection.total_pods;
    Some(HandOver {
        seconds: if everywhere { i64::from(drain) } else { 0 },
        webhook: sessions.webhook,
    })
}

fn store_facts(sessions: &Sessions) -> Option<StoreFacts<'_>> {
    let injection = sessions.injection.as_ref()?;
    let count = |pods: i32| u32::try_from(pods).unwrap_or(0);
    let store = match (&sessions.store, &sessions.promise) {
        (Some(Ok(_)) | None, Some(promise)) => Ok(promise),
        (Some(Err(trouble)), _) => Err(trouble.message.as_str()),
        _ => return None,
    };
    Some(StoreFacts {
        injected: count(injection.injected_pods),
        total: count(injection.total_pods),
        marked: injection.revision.is_some(),
        store,
        webhook: sessions.webhook,
    })
}
