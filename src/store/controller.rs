//! Runs the five steps for each store that something happened to.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::caches::{self, Watches};
use super::memory::Memory;
use super::reconcile::{self as work, Context, Error, RECONCILE_TIMEOUT, reconcile_guarded};
use super::{GuardedStore, watches};
use crate::policy::caches::Scope;
use crate::runtime::backoff::Backoff;
use crate::runtime::events::Events;
use crate::runtime::metrics::ReconcileResult;
use crate::runtime::writer::Writer;
use crate::runtime::{self, Runtime};

/// Name of this controller in metrics.
const CONTROLLER: &str = "sessionstore";

/// Reconciles at the same time. Each waits most of its life, for the API server or a store.
const CONCURRENCY: u16 = 8;

/// How long triggers of one store are gathered.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Pause between looks whether all caches are filled.
const READY_POLL_PERIOD: Duration = Duration::from_millis(100);

/// Runs the controller until shutdown is requested: one for all namespaces, or one for each that is named.
pub async fn run(runtime: Runtime) {
    let scopes = match &runtime.scope {
        runtime::Scope::All => vec![Scope::All],
        runtime::Scope::Namespaces(names) => names.iter().cloned().map(Scope::Namespace).collect(),
    };
    futures::future::join_all(scopes.into_iter().map(|scope| run_scope(runtime.clone(), scope))).await;
}

async fn run_scope(runtime: Runtime, scope: Scope) {
    let Watches {
        caches,
        stores,
        triggers,
    } = caches::start(&runtime.client, &scope);
    let awaited = runtime.readiness.wait_for(format!("caches of stores of {scope}"));
    let metrics = runtime.metrics.reconcile(CONTROLLER);
    let events = Events::new(runtime.client.clone(), &runtime.identity);
    let tools = watches::Tools {
        caches: caches.clone(),
        client: runtime.client.clone(),
        leadership: runtime.leadership.clone(),
        events: events.clone(),
        metrics: runtime.metrics.stores(),
    };
    let (to_look_at, observed) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        caches: caches.clone(),
        writer: Writer::new(runtime.client.clone()),
        settings: runtime.stores.clone(),
        leadership: runtime.leadership.clone(),
        events,
        watches: watches::Watches::new(tools.clone(), to_look_at.clone()),
        clusters: watches::Watches::new(tools, to_look_at),
        metrics: metrics.clone(),
        stores: runtime.metrics.stores(),
        backoff: Backoff::default(),
        memory: Memory::default(),
    });
    let stores = stores.inspect_ok(move |store| metrics.enqueued(&key(store)));
    // What happens to a pod is looked at before the reconcile that it triggers.
    let nudged = context.clone();
    let triggers = triggers.inspect(move |trigger| {
        let namespace = trigger.namespace.as_deref().unwrap_or_default();
        let key = format!("{namespace}/{}", trigger.name);
        nudged.watches.nudge(&key);
        nudged.clusters.nudge(&key);
    });
    let observed = futures::stream::unfold(observed, |mut observed| async move {
        observed.recv().await.map(|trigger| (trigger, observed))
    });
    let work = Controller::for_stream(stores, caches.stores.clone())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(triggers)
        .reconcile_on(observed)
        .reconcile_all_on(runtime.leadership.acquisitions())
        .graceful_shutdown_on(runtime.shutdown.requested())
        .run(reconcile, retry, context.clone())
        .for_each(|outcome| {
            report(outcome, &context);
            std::future::ready(())
        });
    // The controller polls the watches, so readiness is watched beside it.
    let readiness = async {
        while !caches.are_ready() {
            tokio::time::sleep(READY_POLL_PERIOD).await;
        }
        awaited.arrived();
        std::future::pending::<()>().await;
    };
    // kube's controller holds reconciles until its store is filled, and a shutdown ends the watch that fills it: before
    // that it would wait for ever, and nothing is under way.
    let nothing_began = async {
        runtime.shutdown.requested().await;
        if caches.stores.wait_until_ready().now_or_never().is_none() {
            return;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = readiness => {}
        () = nothing_began => {}
    }
}

/// What went wrong outside reconciles; their own failures are reported where they happen.
fn report(
    outcome: Result<(ObjectRef<GuardedStore>, Action), controller::Error<Error, watcher::Error>>,
    context: &Context,
) {
    match outcome {
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        // Also for a child whose store is gone, as Retain leaves it.
        Err(controller::Error::ObjectNotFound(gone)) => {
            context.forget(&gone.namespace.unwrap_or_default(), &gone.name);
        }
        Err(error) => tracing::warn!(%error, "watch of SessionStores failed; it is tried again"),
    }
}

/// One reconcile: bounded in time, measured and logged.
async fn reconcile(store: Arc<GuardedStore>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.leadership.is_leader() || !context.caches.are_ready() {
        context.metrics.dropped(&key(&store));
        // What a cache lacks would be looked up and found missing. A leader is told when it becomes one.
        return Ok(if context.leadership.is_leader() {
            Action::requeue(READY_POLL_PERIOD)
        } else {
            Action::await_change()
        });
    }
    let span = tracing::info_span!(
        "reconcile",
        kind = "SessionStore",
        namespace = store.namespace(),
        name = store.name_any(),
        generation = store.meta().generation
    );
    let measured = context.metrics.start(&key(&store));
    let work = reconcile_guarded(&store, &context).instrument(span);
    let outcome = tokio::time::timeout(RECONCILE_TIMEOUT, work)
        .await
        .unwrap_or(Err(Error::Timeout));
    match &outcome {
        Ok(_) => {
            context.backoff.succeeded(&key(&store));
            measured.finish(ReconcileResult::Done);
        }
        Err(error) => measured.finish(ReconcileResult::Error(error.reason())),
    }
    outcome
}

/// Every failure that gets here is worth another try, each time later.
#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn retry(store: Arc<GuardedStore>, error: &Error, context: Arc<Context>) -> Action {
    let after = context.backoff.failed(key(&store));
    tracing::warn!(
        namespace = store.namespace(),
        name = store.name_any(),
        reason = error.reason(),
        %error,
        retry_after_ms = after.as_millis(),
        "reconcile failed"
    );
    Action::requeue(after)
}

fn key(store: &GuardedStore) -> String {
    work::key(store.meta())
}
