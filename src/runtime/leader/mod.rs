//! Leader election on a `coordination.k8s.io/v1` Lease, fail-stop.
//!
//! [`election`] decides and does no I/O; [`elector`] talks to the API server; [`Leadership`] is what the rest
//! of the program asks before it writes.
//!
//! The rules are those of client-go's `leaderelection` package, which every other Kubernetes controller follows:
//! whether somebody else's lease has run out is judged by our own monotonic clock, counted from when we saw the
//! record change, never by the times that stand in the record. Two things are stricter here. Leadership ends by
//! itself: [`Leadership::is_leader`] compares the clock with the start of the last successful renewal, so
//! that it turns false also while the electing task, or the whole process, does not run. And a process that has lost
//! the lease ends.
//!
//! What no lease can give: a request that was sent while leading may reach the API server later. Requests of the
//! leader are therefore abandoned before the lease can pass on ([`Leadership::write_deadline`]), and carry a uid or
//! resourceVersion where a late arrival could do harm.

mod election;
mod elector;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

pub use election::{Decision, LossReason, Observed, Timing, decide};
pub use elector::{Elector, Error};

/// How long a lease holds after others saw it renewed. 15 s is client-go's default: how long nothing is
/// reconciled after a node with the leader dies, against how long an API server may be away without a change of leader.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long after the start of its last successful renewal a holder goes on leading. Below [`LEASE_DURATION`] by
/// more than what two monotonic clocks differ in that time, and enough for a write in flight to be abandoned.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between renewals, and between looks of a candidate: four renewals may fail before leadership is lost.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Limit of one request about the lease: half of [`RENEW_DEADLINE`], so that a request that hangs leaves time for
/// another one.
pub const LEASE_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long past the end of leadership a write that began before it may still wait for its answer. One second less
/// than the shortest time in which another candidate can take the lease.
pub const WRITE_GRACE: Duration = Duration::from_secs(4);

const _: () = assert!(RENEW_DEADLINE.as_secs() + WRITE_GRACE.as_secs() < LEASE_DURATION.as_secs());
const _: () = assert!(RETRY_PERIOD.as_secs() + LEASE_REQUEST_TIMEOUT.as_secs() < RENEW_DEADLINE.as_secs());

/// Until when this process leads, as the elector last published it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// Not elected, or released.
    None,
    /// Elected; ends on its own at that time unless renewed.
    Until(Instant),
    /// There is no election: this process is the only one.
    Unlimited,
}

/// Answers whether this process leads. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Term>,
}

impl Leadership {
    /// Leadership of a process that runs without election.
    pub fn unlimited() -> Self {
        // The sender may go: a receiver keeps the last value.
        Self {
            term: watch::channel(Term::Unlimited).1,
        }
    }

    /// Leadership of a process that only reads.
    pub fn never() -> Self {
        Self {
            term: watch::channel(Term::None).1,
        }
    }

    /// Whether this process leads now. To be asked immediately before each write.
    pub fn is_leader(&self) -> bool {
        self.write_deadline().is_some()
    }

    /// When a write that begins now has to be abandoned, or `None` if this process does not lead and must not write.
    ///
    /// The deadline lies [`WRITE_GRACE`] after the present end of the term, which is before anybody else can hold
    /// the lease.
    pub fn write_deadline(&self) -> Option<WriteDeadline> {
        match *self.term.borrow() {
            Term::None => None,
            Term::Unlimited => Some(WriteDeadline(None)),
            Term::Until(end) => (Instant::now() < end).then(|| WriteDeadline(Some(end + WRITE_GRACE))),
        }
    }

    /// Resolves once this process leads; never, if the elector ends before.
    pub async fn acquired(&self) {
        let mut term = self.term.clone();
        let elected = |term: &Term| match *term {
            Term::None => false,
            Term::Unlimited => true,
            Term::Until(end) => Instant::now() < end,
        };
        if term.wait_for(elected).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Yields once, when this process becomes the leader; made for `Controller::reconcile_all_on`.
    ///
    /// Once is enough: a process that loses the lease ends.
    pub fn acquisitions(&self) -> impl Stream<Item = ()> + Send + 'static {
        let leadership = self.clone();
        futures::stream::once(async move { leadership.acquired().await })
    }
}

/// When a write has to be abandoned; `None` inside = no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteDeadline(Option<Instant>);

impl WriteDeadline {
    /// The earlier of this deadline and `other`.
    pub fn at_most(self, other: Instant) -> Instant {
        self.0.map_or(other, |deadline| deadline.min(other))
    }
}
