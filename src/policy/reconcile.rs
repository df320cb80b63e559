//! What one reconcile does: the five steps, or the undoing of a policy that is being deleted.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};

use super::apply::{Applied, RestoreBudget, apply};
use super::build::{build, nothing};
use super::caches::Caches;
use super::census::Census;
use super::dereference::{Dereferenced, dereference};
use super::sessions::carry_out::{Memory, Tools, carry_out, collect_garbage, keep_peer_access, patience};
use super::sessions::revision::Images;
use super::sessions::undo::Outcome;
use super::sessions::{self, Sessions, hand_over};
use super::status::{self, Announcement, Verdict};
use super::validate::{Validated, validate};
use super::{GuardedPolicy, foreign_manager, policy_key, undo};
use crate::affinity::model::{PlanOutcome, RoutePlan};
use crate::api::conditions::{reasons, types};
use crate::api::{Binds, STATUS_FIELD_MANAGER, SessionPolicy};
use crate::runtime::backoff::Backoff;
use crate::runtime::events::Events;
use crate::runtime::leader::Leadership;
use crate::runtime::metrics::ReconcileMetrics;
use crate::runtime::writer::{WriteError, Writer, classify};

/// Longest that one reconcile may take; every request in it has its own, shorter limit.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long undoing is tried before the finalizer is given up, so that no namespace hangs for ever.
const CLEANUP_LIMIT: Duration = Duration::from_mins(10);

/// When to look again after a write met a newer object than the cache holds.
const STALE_CACHE_RETRY: Duration = Duration::from_millis(500);

/// Pause between looks at pods that still run with something of a policy that is being undone.
const ROLL_PERIOD: Duration = Duration::from_secs(2);

/// How long affinity may fail before users count as no longer bound to their pods, which replaces the pods.
const UNBOUND_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Everything that a reconcile needs.
pub struct Context {
    /// Read side.
    pub caches: Arc<Caches>,
    /// Write side.
    pub writer: Writer,
    /// Whether this replica may write.
    pub leadership: Leadership,
    /// Restores so far.
    pub budget: RestoreBudget,
    /// Events.
    pub events: Events,
    /// Measurements.
    pub metrics: ReconcileMetrics,
    /// Failures so far, by namespace/name.
    pub backoff: Backoff<String>,
    /// Policies by readiness.
    pub census: Arc<Census>,
    /// Images that are injected.
    pub images: Images,
    /// Whether a webhook of the operator injects.
    pub webhook: bool,
    /// What is known of admission and preflights between reconciles.
    pub memory: Memory,
}

/// Why a reconcile has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write or read failed.
    #[error("{}", .0.explain())]
    Write(#[from] WriteError),
    /// The reconcile as a whole took too long.
    #[error("reconcile took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// Low-cardinality label for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(WriteError::NotLeader) => "NotLeader",
            Self::Write(WriteError::Timeout) | Self::Timeout => "Timeout",
            Self::Write(error) => error.reason(),
        }
    }
}

/// Works on one policy.
pub async fn reconcile_guarded(policy: &GuardedPolicy, context: &Context) -> Result<Action, Error> {
    if policy.meta().deletion_timestamp.is_some() {
        return cleanup(policy, context).await;
    }
    match &policy.0 {
        Ok(policy) => reconcile_policy(policy, context).await,
        Err(invalid) => {
            report_invalid(context, policy.meta(), &invalid.error).await?;
            Ok(Action::await_change())
        }
    }
}

async fn reconcile_policy(policy: &SessionPolicy, context: &Context) -> Result<Action, Error> {
    let found = dereference(&context.caches, policy);
    let validated = match validate(policy, &found) {
        Ok(validated) => hand_over::settled(validated, &found),
        Err(unresolved) => {
            if unresolved.withdraw && !policy.spec.suspend {
                for object in nothing(&found).withdraw {
                    undo::withdraw_fields(
                        &context.writer,
                        &object,
                        &foreign_manager(&policy.uid().unwrap_or_default()),
                    )
                    .await?;
                }
            }
            publish(context, policy, &Verdict::Unresolved(&unresolved)).await?;
            return Ok(Action::await_change());
        }
    };
    let sessions = match sessions(context, policy, &validated, &found).await {
        Ok(sessions) => sessions,
        Err(WriteError::Changed) => return Ok(Action::requeue(STALE_CACHE_RETRY)),
        Err(error) => {
            publish(context, policy, &Verdict::Failed(error.reason(), error.explain())).await?;
            return Err(error.into());
        }
    };
    let mark = sessions.as_ref().and_then(|sessions| sessions.mark.as_deref());
    let desired = build(&validated, &found, mark);
    match apply(
        &context.writer,
        &context.budget,
        policy,
        &validated,
        &found,
        desired,
    )
    .await
    {
        Ok(applied) => {
            announce_changes(context, policy, &applied, sessions.as_ref()).await;
            let wanted = sessions.as_ref().map_or([None, None], |sessions| {
                [sessions.mark.as_deref(), sessions.coming.as_deref()]
            });
            collect_garbage(&context.writer, &validated, &found, wanted).await?;
            let verdict = Verdict::Applied(&validated, &applied, sessions.as_ref());
            publish(context, policy, &verdict).await?;
            let waits = [
                applied.retry_after,
                sessions.as_ref().and_then(|sessions| sessions.retry_after),
            ];
            Ok(waits
                .into_iter()
                .flatten()
                .min()
                .map_or_else(Action::await_change, Action::requeue))
        }
        Err(WriteError::Changed) => {
            // The cache is behind; the event that brings it up to date triggers the next try, too.
            Ok(Action::requeue(STALE_CACHE_RETRY))
        }
        Err(error) => {
            publish(context, policy, &Verdict::Failed(error.reason(), error.explain())).await?;
            Err(error.into())
        }
    }
}

/// Sets up where the sessions are to be, if that is outside the pods.
async fn sessions(
    context: &Context,
    policy: &SessionPolicy,
    validated: &Validated,
    found: &Dereferenced,
) -> Result<Option<Sessions>, WriteError> {
    let Some(wish) = &validated.sessions else {
        // What a former strategy needed may isolate the pods now.
        match keep_peer_access(&context.writer, validated, found).await? {
            Ok(None) => {}
            Ok(Some(changed)) => tracing::info!(changed, "access of members among each other"),
            Err(trouble) => tracing::warn!(reason = trouble.reason, "{}", trouble.message),
        }
        return Ok(None);
    };
    if !validated.suspended && !undo::has_finalizer(&policy.metadata) {
        undo::write_own_metadata(&context.writer, &policy.metadata, &validated.records).await?;
    }
    let tools = Tools {
        writer: &context.writer,
        images: &context.images,
        memory: &context.memory,
        bound_to_pods: is_bound_to_pods(policy, validated, found),
    };
    let sessions = carry_out(&tools, policy, validated, wish, found).await?;
    Ok(Some(Sessions {
        webhook: context.webhook,
        ..sessions
    }))
}

/// Whether every request of a user reaches the same pod, by what is to be configured and did not fail for long.
fn is_bound_to_pods(policy: &SessionPolicy, validated: &Validated, found: &Dereferenced) -> bool {
    let planned = build(validated, found, None);
    let binds = |plan: &RoutePlan| match &plan.outcome {
        PlanOutcome::Configured(configured) => Some(configured.binds),
        PlanOutcome::Refused(_) => Some(Binds::None),
        PlanOutcome::Reported(_) => None,
    };
    let mut all = planned.routes.iter().filter_map(binds).peekable();
    let planned = all.peek().is_some() && all.all(|binds| binds == Binds::Pod);
    // A setting that somebody took away is put back within moments: that replaces no pods.
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let failing = conditions
        .into_iter()
        .find(|condition| condition.type_ == types::AFFINITY_CONFIGURED && condition.status == "False")
        .is_some_and(|condition| {
            let since = jiff::Timestamp::now().duration_since(condition.last_transition_time.0);
            since > UNBOUND_AFTER
        });
    planned && !failing
}

/// Undoes what a policy did, then lets it go.
async fn cleanup(policy: &GuardedPolicy, context: &Context) -> Result<Action, Error> {
    let meta = policy.meta();
    if !undo::has_finalizer(meta) {
        return Ok(Action::await_change());
    }
    if !namespace_is_terminating(context, meta.namespace.as_deref().unwrap_or_default()).await? {
        match undo_everything(context, meta).await {
            Ok(changed) if changed.is_empty() => {}
            Ok(changed) => {
                let note = format!("took back what was written on {}", changed.join(", "));
                emit(context, meta, EventType::Normal, "Undone", "Undo", note).await;
            }
            Err(error) if overdue(meta, jiff::Timestamp::now()) => {
                let note = format!(
                    "gave up undoing after {} s: {}; fields of manager {} may remain in the namespace",
                    CLEANUP_LIMIT.as_secs(),
                    error.explain(),
                    foreign_manager(meta.uid.as_deref().unwrap_or_default())
                );
                tracing::error!(policy = meta.name, namespace = meta.namespace, note);
                emit(
                    context,
                    meta,
                    EventType::Warning,
                    reasons::CLEANUP_GIVEN_UP,
                    "Undo",
                    note,
                )
                .await;
            }
            Err(error) => {
                if let Ok(policy) = &policy.0 {
                    let message = format!("cannot undo yet: {}", error.explain());
                    publish(context, policy, &Verdict::Failed(reasons::DELETING, message)).await?;
                }
                return match error {
                    // A rollout is under way: no failure that has to be tried ever later.
                    WriteError::PodsLeft(_) => Ok(Action::requeue(patience(
                        meta.deletion_timestamp.as_ref(),
                        ROLL_PERIOD,
                    ))),
                    error => Err(error.into()),
                };
            }
        }
    }
    undo::release(&context.writer, meta).await?;
    context.budget.forget(meta.uid.as_deref().unwrap_or_default());
    Ok(Action::await_change())
}

async fn undo_everything(context: &Context, meta: &ObjectMeta) -> Result<Vec<String>, WriteError> {
    let mut changed = undo::undo(&context.writer, meta).await?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    match sessions::undo::undo(&context.writer, &text(&meta.namespace), &text(&meta.name)).await? {
        Outcome::Done(removed) => {
            changed.extend(removed);
            Ok(changed)
        }
        Outcome::PodsLeft(pods) => Err(WriteError::PodsLeft(pods)),
    }
}

async fn namespace_is_terminating(context: &Context, name: &str) -> Result<bool, Error> {
    let api = Api::<Namespace>::all(context.writer.client().clone());
    let namespace: Option<PartialObjectMeta<Namespace>> =
        api.get_metadata_opt(name).await.map_err(classify)?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// Whether undoing has been tried for longer than its limit.
fn overdue(meta: &ObjectMeta, now: jiff::Timestamp) -> bool {
    let limit = jiff::SignedDuration::try_from(CLEANUP_LIMIT).unwrap_or(jiff::SignedDuration::ZERO);
    meta.deletion_timestamp
        .as_ref()
        .is_some_and(|since| now.duration_since(since.0) > limit)
}

async fn publish(context: &Context, policy: &SessionPolicy, verdict: &Verdict<'_>) -> Result<(), Error> {
    let status = status::compute(policy, verdict, &Time(jiff::Timestamp::now()));
    if let Some(Announcement { kind, reason, note }) = status::update(&context.writer, policy, status).await?
    {
        emit(context, &policy.metadata, kind.into(), &reason, "Reconcile", note).await;
    }
    Ok(())
}

async fn announce_changes(
    context: &Context,
    policy: &SessionPolicy,
    applied: &Applied,
    sessions: Option<&Sessions>,
) {
    let written = sessions
        .map(|sessions| sessions.changed.join(", "))
        .unwrap_or_default();
    if !written.is_empty() {
        tracing::info!(changed = written, "set up where sessions are");
        let note = format!("wrote {written}");
        emit(
            context,
            &policy.metadata,
            EventType::Normal,
            "Written",
            "Apply",
            note,
        )
        .await;
    }
    if !applied.changed.is_empty() {
        let note = format!("configured {}", applied.changed.join(", "));
        tracing::info!(changed = applied.changed.join(", "), "configured");
        emit(
            context,
            &policy.metadata,
            EventType::Normal,
            "Configured",
            "Apply",
            note,
        )
        .await;
    }
}

/// A policy that this version cannot read: say so in its status, once.
async fn report_invalid(context: &Context, meta: &ObjectMeta, error: &str) -> Result<(), Error> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let key = policy_key(&text(&meta.namespace), &text(&meta.name), &text(&meta.uid));
    let Some(live) = context.writer.read(&key).await? else {
        return Ok(());
    };
    let message = format!(
        "SessionPolicy {}/{} cannot be read by this version of the operator: {error}; compare it with \
         kubectl explain sessionpolicy.spec",
        key.namespace, key.name
    );
    let known = live
        .data
        .pointer("/status/conditions")
        .and_then(serde_json::Value::as_array);
    let said = known.is_some_and(|conditions| {
        conditions.iter().any(|condition| {
            condition.pointer("/reason").and_then(serde_json::Value::as_str) == Some(reasons::INVALID_SPEC)
                && condition.pointer("/message").and_then(serde_json::Value::as_str) == Some(message.as_str())
        })
    });
    if said {
        return Ok(());
    }
    let status = status::invalid(live.metadata.generation, &message, &Time(jiff::Timestamp::now()));
    context
        .writer
        .apply_status(&key, STATUS_FIELD_MANAGER, &serde_json::json!(status))
        .await?;
    emit(
        context,
        meta,
        EventType::Warning,
        reasons::INVALID_SPEC,
        "Reconcile",
        message,
    )
    .await;
    Ok(())
}

async fn emit(
    context: &Context,
    meta: &ObjectMeta,
    type_: EventType,
    reason: &str,
    action: &str,
    note: String,
) {
    let reference = ObjectReference {
        api_version: Some(SessionPolicy::api_version(&()).into_owned()),
        kind: Some(SessionPolicy::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..Default::default()
    };
    context
        .events
        .publish(&reference, type_, reason, action, note)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoing_is_given_up_after_its_limit_and_not_before() {
        let deleted: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let meta = ObjectMeta {
            deletion_timestamp: Some(Time(deleted)),
            ..ObjectMeta::default()
        };
        let limit = jiff::SignedDuration::try_from(CLEANUP_LIMIT).unwrap();
        assert!(!overdue(&meta, deleted + limit));
        assert!(overdue(
            &meta,
            deleted + limit + jiff::SignedDuration::from_secs(1)
        ));
        assert!(!overdue(&ObjectMeta::default(), deleted + limit + limit));
    }
}
