//! Visitors who come without cookies while the event runs: where a proxy sends new users.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::account::Failure;
use super::application::Values;
use super::client::{Client, Target};
use super::report::Newcomer;
use super::user::Shared;

/// Requests in flight at most; further visitors wait, so that a proxy that hangs is not flooded.
const AT_ONCE: usize = 64;

/// Sends a visitor each `period` until told to stop.
pub(super) async fn keep_coming(
    shared: Arc<Shared>,
    target: Target,
    timeout: Duration,
    period: Duration,
    mut stop: watch::Receiver<bool>,
) -> Vec<Newcomer> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut visits: JoinSet<Newcomer> = JoinSet::new();
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(visit) = visits.join_next() => seen.extend(visit.ok()),
            _ = ticks.tick(), if visits.len() < AT_ONCE => {
                visits.spawn(visit(Arc::clone(&shared), target.clone(), timeout));
            }
        }
    }
    while let Some(visit) = visits.join_next().await {
        seen.extend(visit.ok());
    }
    seen.sort_by_key(|newcomer| newcomer.at_ms);
    seen
}

async fn visit(shared: Arc<Shared>, target: Target, timeout: Duration) -> Newcomer {
    let at_ms = shared.now_ms();
    let step = &shared.application.check.request;
    let Ok(call) = step.call(
        Values {
            user: "newcomer",
            n: 0,
        },
        &[],
    ) else {
        return Newcomer {
            at_ms,
            pod: None,
            failure: Some(Failure::Unreadable),
        };
    };
    match Client::new(target, false, timeout).send(&call).await {
        Ok(answer) if answer.status >= 500 || answer.status == 404 => Newcomer {
            at_ms,
            pod: None,
            failure: Some(Failure::Status(answer.status)),
        },
        Ok(answer) => Newcomer {
            at_ms,
            pod: shared.pod(&answer),
            failure: None,
        },
        Err(failure) => Newcomer {
            at_ms,
            pod: None,
            failure: Some(failure),
        },
    }
}
