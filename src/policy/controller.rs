//! Runs the five steps for each policy that something happened to.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::GuardedPolicy;
use super::apply::RestoreBudget;
use super::caches::{self, Scope, Watches};
use super::census::Census;
use super::reconcile::{Context, Error, RECONCILE_TIMEOUT, reconcile_guarded};
use super::sessions::carry_out::Memory;
use super::sessions::revision::Images;
use crate::runtime::backoff::Backoff;
use crate::runtime::events::Events;
use crate::runtime::metrics::ReconcileResult;
use crate::runtime::writer::Writer;
use crate::runtime::{self, Runtime};

/// Name of this controller in metrics and Events.
const CONTROLLER: &str = "sessionpolicy";

/// Reconciles at the same time. Each is a few small requests; more would only queue in the API server.
const CONCURRENCY: u16 = 8;

/// How long triggers of one policy are gathered: an apply of several objects becomes one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Runs the controller until shutdown is requested: one for all namespaces, or one for each that is named.
pub async fn run(runtime: Runtime) -> Result<(), std::convert::Infallible> {
    let scopes = match &runtime.scope {
        runtime::Scope::All => vec![Scope::All],
        runtime::Scope::Namespaces(names) => names.iter().cloned().map(Scope::Namespace).collect(),
    };
    let census = Arc::new(Census::new(runtime.metrics.clone()));
    futures::future::join_all(
        scopes
            .into_iter()
            .map(|scope| run_scope(runtime.clone(), scope, census.clone())),
    )
    .await;
    Ok(())
}

async fn run_scope(runtime: Runtime, scope: Scope, census: Arc<Census>) {
    let mut tasks = JoinSet::new();
    let Watches {
        caches,
        policies,
        triggers,
    } = caches::start(&runtime.client, &scope, &mut tasks);
    let awaited = runtime.readiness.wait_for(format!("caches of {scope}"));
    tokio::select! {
        () = runtime.shutdown.requested() => return,
        ready = caches.wait_until_ready() => match ready {
            Ok(()) => awaited.arrived(),
            Err(error) => return tracing::error!(%scope, %error, "a watch ended before it began"),
        },
    }
    let metrics = runtime.metrics.reconcile(CONTROLLER);
    let context = Arc::new(Context {
        caches: caches.clone(),
        writer: Writer::new(runtime.client.clone()),
        leadership: runtime.leadership.clone(),
        budget: RestoreBudget::default(),
        events: Events::new(runtime.client.clone(), &runtime.identity),
        metrics: metrics.clone(),
        backoff: Backoff::default(),
        census: census.clone(),
        images: Images {
            agents: runtime.injection.agents_image.clone(),
            replicator: runtime.injection.replicator_image.clone(),
            pull_policy: runtime.injection.agents_image_pull_policy.clone(),
            pull_secrets: runtime.injection.agents_pull_secrets.clone(),
        },
        webhook: runtime.webhook,
        memory: Memory::default(),
    });
    let policies = policies.inspect_ok(move |policy| metrics.enqueued(&key(policy)));
    let work = Controller::for_stream(policies, caches.policies.clone())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(futures::stream::unfold(triggers, |mut triggers| async move {
            Some((triggers.recv().await?, triggers))
        }))
        .reconcile_all_on(runtime.leadership.acquisitions())
        .graceful_shutdown_on(runtime.shutdown.requested())
        .run(reconcile, retry, context.clone())
        .for_each(|outcome| {
            report(outcome, &census);
            std::future::ready(())
        });
    // kube's controller holds reconciles until its store is filled, and a shutdown ends the watch that fills it: before
    // that it would wait for ever, and nothing is under way.
    let nothing_began = async {
        runtime.shutdown.requested().await;
        if caches.policies.wait_until_ready().now_or_never().is_none() {
            return;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = nothing_began => {}
    }
}

/// What went wrong outside reconciles; their own failures are reported where they happen.
fn report(
    outcome: Result<(ObjectRef<GuardedPolicy>, Action), controller::Error<Error, watcher::Error>>,
    census: &Census,
) {
    match outcome {
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            census.forget(&format!("{}/{}", gone.namespace.unwrap_or_default(), gone.name));
        }
        Err(error) => tracing::warn!(%error, "watch of SessionPolicies failed; it is tried again"),
    }
}

/// One reconcile: bounded in time, measured and logged.
async fn reconcile(policy: Arc<GuardedPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    context.census.observe(&key(&policy), &policy);
    if !context.leadership.is_leader() {
        context.metrics.dropped(&key(&policy));
        return Ok(Action::await_change());
    }
    let span = tracing::info_span!(
        "reconcile",
        kind = "SessionPolicy",
        namespace = policy.namespace(),
        name = policy.name_any(),
        generation = policy.meta().generation
    );
    let measured = context.metrics.start(&key(&policy));
    let work = reconcile_guarded(&policy, &context).instrument(span);
    let outcome = tokio::time::timeout(RECONCILE_TIMEOUT, work)
        .await
        .unwrap_or(Err(Error::Timeout));
    match &outcome {
        Ok(_) => {
            context.backoff.succeeded(&key(&policy));
            measured.finish(ReconcileResult::Done);
        }
        Err(error) => measured.finish(ReconcileResult::Error(error.reason())),
    }
    outcome
}

/// Every failure that gets here is worth another try, each time later.
#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn retry(policy: Arc<GuardedPolicy>, error: &Error, context: Arc<Context>) -> Action {
    let after = context.backoff.failed(key(&policy));
    tracing::warn!(
        namespace = policy.namespace(),
        name = policy.name_any(),
        reason = error.reason(),
        %error,
        retry_after_ms = after.as_millis(),
        "reconcile failed"
    );
    Action::requeue(after)
}

fn key(policy: &GuardedPolicy) -> String {
    format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any())
}
