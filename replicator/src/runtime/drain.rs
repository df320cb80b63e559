//! The end of a process' life: hand over while still serving, then leave.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use super::node::{Node, Shared};
use crate::config::DrainTimes;
use crate::core::Input;

/// For the last frames to leave after the core has said that it is done.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// Hands over what this member holds, keeps its users for the drain time, then turns unready and serves on for a while.
/// Returns whether everything was handed over.
pub async fn drain(node: &Shared, times: DrainTimes) -> bool {
    let start = Instant::now();
    {
        let mut node = node.borrow_mut();
        node.phase.draining = true;
        node.step(&Input::Drain);
    }
    let drained = wait_for(node, start + times.handover, |node| node.phase.drained).await;
    if !drained {
        warn!("not everything was handed over in time");
    }
    sleep_until(start + times.keep).await;
    node.borrow_mut().phase.leaving = true;
    sleep(times.unready).await;
    drained
}

/// Waits for a state of the node; `false` when it does not come in time.
async fn wait_for(node: &Shared, until: Instant, reached: impl Fn(&Node) -> bool) -> bool {
    let changed = Rc::clone(&node.borrow().phase_changed);
    loop {
        let notified = changed.notified();
        if reached(&node.borrow()) {
            return true;
        }
        if timeout_at(until, notified).await.is_err() {
            return reached(&node.borrow());
        }
    }
}

/// Serves until SIGTERM or SIGINT, then leaves: what is not handed over yet is, within the bound.
///
/// # Errors
/// Signals cannot be caught.
pub async fn until_told(node: &Shared, times: DrainTimes) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("told to end");
    {
        let mut node = node.borrow_mut();
        node.phase.leaving = true;
        node.phase.drained = false;
        node.step(&Input::Stop);
    }
    if wait_for(node, Instant::now() + times.handover, |node| node.phase.drained).await {
        sleep(LAST_FRAMES).await;
        info!("everything is handed over");
    } else {
        warn!("ending without having handed over everything");
    }
    Ok(())
}
