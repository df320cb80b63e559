//! Graceful shutdown: a signal asks the operator to stop taking work; what is under way is finished within a bound.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long reconciles may go on after the request to stop. Together with the release of the lease (5 s) below
/// Kubernetes' default terminationGracePeriodSeconds of 30.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// The request to stop, as seen by every part of the program.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Resolves when the program has been asked to stop. Made for `Controller::graceful_shutdown_on`.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        self.token.clone().cancelled_owned()
    }

    /// Whether the program has been asked to stop.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks the program to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Resolves [`SHUTDOWN_TIMEOUT`] after the request to stop.
    pub async fn overdue(&self) {
        self.requested().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    }

    /// Requests the stop at the first SIGTERM or SIGINT. Returns at a second one, which means "at once".
    pub async fn listen(&self, mut signals: Signals) {
        tracing::info!(
            signal = signals.next().await,
            "stopping: finishing what is under way"
        );
        self.request();
        tracing::warn!(signal = signals.next().await, "second signal: stopping at once");
    }
}

/// Registered signal handlers. From their registration on, the signals no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Registers the handlers.
    pub fn register() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn overdue_counts_from_the_request() {
        let shutdown = Shutdown::default();
        let early = tokio::time::timeout(Duration::from_hours(1), shutdown.overdue()).await;
        assert!(early.is_err(), "without a request nothing is overdue");

        shutdown.request();
        assert!(shutdown.is_requested());
        let begin = tokio::time::Instant::now();
        shutdown.overdue().await;
        assert_eq!(begin.elapsed().as_secs(), SHUTDOWN_TIMEOUT.as_secs());
    }
}
