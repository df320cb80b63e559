//! How far a drill is, for people who wait for it.

use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How often the line on a terminal is renewed.
const RENEWAL: Duration = Duration::from_millis(250);

/// The parts of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Users log in and fill their sessions.
    LoggingIn,
    /// Nothing has happened yet.
    Before,
    /// The event runs.
    During,
    /// The event is over; what it left behind settles.
    Settling,
    /// Every user is asked for the last time.
    FinalCheck,
}

impl Phase {
    fn label(self) -> &'static str {
        match self {
            Self::LoggingIn => "logging in",
            Self::Before => "before the event",
            Self::During => "event",
            Self::Settling => "settling",
            Self::FinalCheck => "final check",
        }
    }

    fn from_number(number: u8) -> Self {
        let all = [
            Self::LoggingIn,
            Self::Before,
            Self::During,
            Self::Settling,
            Self::FinalCheck,
        ];
        all.into_iter()
            .find(|phase| *phase as u8 == number)
            .unwrap_or(Self::LoggingIn)
    }
}

/// Counters of a running drill.
#[derive(Debug, Default)]
pub struct Counters {
    phase: AtomicU8,
    logged_in: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    lost: AtomicU32,
}

impl Counters {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(super) fn log_in(&self) {
        self.logged_in.fetch_add(1, Relaxed);
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// The part that runs now.
    pub fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Relaxed))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{:<16} {} logged in, {} requests, {} failed, {} lost",
            self.phase().label(),
            self.logged_in.load(Relaxed),
            self.requests.load(Relaxed),
            self.failures.load(Relaxed),
            self.lost.load(Relaxed),
        )
    }
}

/// Keeps one line on standard error up to date while it lives; silent where that is not a terminal.
#[derive(Debug)]
pub struct Line(Option<JoinHandle<()>>);

impl Line {
    /// Begins to show counters.
    pub fn show(counters: Arc<Counters>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let begun = Instant::now();
        Self(Some(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(RENEWAL);
            loop {
                ticks.tick().await;
                // Clears to the end of the line, so that a shorter line leaves nothing of a longer one.
                let written = write!(
                    std::io::stderr().lock(),
                    "\r{:>5.1} s  {}\x1b[K",
                    begun.elapsed().as_secs_f32(),
                    counters.line()
                );
                if written.is_err() {
                    return;
                }
            }
        })))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            eprint!("\r\x1b[K");
        }
    }
}
