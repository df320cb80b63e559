//! The decisions of leader election, without I/O: times and answers come in, steps to take go out.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use tokio::time::Instant;

/// The three times of an election. Production uses [`Timing::default`]; the simulation also tries bad ones.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// See [`super::LEASE_DURATION`].
    pub lease_duration: Duration,
    /// See [`super::RENEW_DEADLINE`].
    pub renew_deadline: Duration,
    /// See [`super::RETRY_PERIOD`].
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: super::LEASE_DURATION,
            renew_deadline: super::RENEW_DEADLINE,
            retry_period: super::RETRY_PERIOD,
        }
    }
}

/// What is known of the lease.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The record as last read or written; `None` = there is none.
    pub lease: Option<Lease>,
    /// Until when another holder may be leading, by our monotonic clock.
    pub rival_until: Option<Instant>,
}

impl Observed {
    /// Takes note of the record as the API server had it. `now` must not lie before the answer arrived: a later time
    /// only makes us wait longer.
    pub fn observe(&mut self, lease: Option<Lease>, identity: &str, timing: &Timing, now: Instant) {
        let Some(lease) = lease else {
            // Deleted under a holder, who may not know yet: its time goes on to count.
            self.lease = None;
            return;
        };
        let changed = self
            .lease
            .as_ref()
            .is_none_or(|known| known.metadata.resource_version != lease.metadata.resource_version);
        if changed {
            self.rival_until = match holder(&lease) {
                Some(other) if other != identity => Some(now + validity(&lease, timing)),
                // Released, or ours.
                _ => None,
            };
        }
        self.lease = Some(lease);
    }
}

/// What to do about the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no record: create it.
    Create,
    /// The record is ours: renew it.
    Renew,
    /// The record is nobody's, or its holder has been silent for the whole lease: take it.
    TakeOver,
    /// Somebody else may be leading until then.
    Wait(Instant),
}

/// What to do, seen what was observed, at time `now` of our monotonic clock.
pub fn decide(observed: &Observed, identity: &str, now: Instant) -> Decision {
    if let Some(until) = observed.rival_until
        && now < until
    {
        return Decision::Wait(until);
    }
    match &observed.lease {
        None => Decision::Create,
        Some(lease) if holder(lease) == Some(identity) => Decision::Renew,
        Some(_) => Decision::TakeOver,
    }
}

/// The holder of a lease; an empty identity means released (client-go writes it so).
fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|identity| !identity.is_empty())
}

/// How long a record of another holder counts: its own duration, but never less than ours.
fn validity(lease: &Lease, timing: &Timing) -> Duration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or_default();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).max(timing.lease_duration)
}

/// Why leadership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// No renewal succeeded within the renew deadline.
    NotRenewed,
    /// The record names another holder.
    TakenOver,
}

/// What the driver has to do next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Read the record, then call [`Election::on_read`].
    Read,
    /// Write the record, then call [`Election::on_write`].
    Write(Box<Attempt>),
    /// Nothing until then.
    SleepUntil(Instant),
    /// Stop: leadership is lost.
    Lost(LossReason),
}

/// A write of the record.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// POST.
    Create(Lease),
    /// PUT with the resourceVersion that was read.
    Replace(Lease),
}

/// How a read ended.
#[derive(Clone, Debug)]
pub(super) enum ReadOutcome {
    /// The record as stored.
    Found(Box<Lease>),
    /// There is no record.
    Absent,
    /// No answer.
    Failed,
}

/// How a write ended.
#[derive(Clone, Debug)]
pub(super) enum WriteOutcome {
    /// Accepted; the record as stored.
    Accepted(Box<Lease>),
    /// Refused because somebody else wrote meanwhile, or the record is gone.
    LostRace,
    /// Failed or unknown: it may have been stored.
    Failed,
}

/// One candidate's view of the election.
#[derive(Debug)]
pub(super) struct Election {
    name: String,
    identity: String,
    timing: Timing,
    observed: Observed,
    /// Whether `observed` may be written upon; after any failure it is read again first.
    fresh: bool,
    lead_until: Option<Instant>,
    next_attempt: Option<Instant>,
}

impl Election {
    pub(super) fn new(name: impl Into<String>, identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            name: name.into(),
            identity: identity.into(),
            timing,
            observed: Observed::default(),
            fresh: false,
            lead_until: None,
            next_attempt: None,
        }
    }

    /// Name of the lease.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// End of the present term, if there is one.
    pub(super) fn lead_until(&self) -> Option<Instant> {
        self.lead_until
    }

    /// Name of the present holder as last seen.
    pub(super) fn observed_holder(&self) -> Option<&str> {
        self.observed.lease.as_ref().and_then(holder)
    }

    /// What to do at `now`; `wall` only goes into the record, for people to read.
    pub(super) fn step(&mut self, now: Instant, wall: jiff::Timestamp) -> Step {
        if let Some(until) = self.lead_until
            && now >= until
        {
            return Step::Lost(LossReason::NotRenewed);
        }
        if let Some(next) = self.next_attempt
            && now < next
        {
            return Step::SleepUntil(self.lead_until.map_or(next, |until| until.min(next)));
        }
        if !self.fresh {
            return Step::Read;
        }
        match decide(&self.observed, &self.identity, now) {
            Decision::Wait(_) if self.lead_until.is_some() => Step::Lost(LossReason::TakenOver),
            Decision::Wait(_) => {
                // Not until the rival's end: it may release the lease before.
                self.fresh = false;
                let next = now + self.timing.retry_period;
                self.next_attempt = Some(next);
                Step::SleepUntil(next)
            }
            Decision::Create => Step::Write(Box::new(Attempt::Create(self.record(None, wall)))),
            Decision::Renew | Decision::TakeOver => {
                let known = self.observed.lease.clone();
                Step::Write(Box::new(Attempt::Replace(self.record(known, wall))))
            }
        }
    }

    /// Takes the outcome of a read that was begun at `started`.
    pub(super) fn on_read(&mut self, outcome: ReadOutcome, started: Instant, now: Instant) {
        let lease = match outcome {
            ReadOutcome::Found(lease) => Some(*lease),
            ReadOutcome::Absent => None,
            ReadOutcome::Failed => {
                self.next_attempt = Some(started + self.timing.retry_period);
                return;
            }
        };
        self.observed.observe(lease, &self.identity, &self.timing, now);
        self.fresh = true;
        self.next_attempt = None;
    }

    /// Takes the outcome of a write that was begun at `started` (before the request was sent).
    pub(super) fn on_write(&mut self, outcome: WriteOutcome, started: Instant, now: Instant) {
        match outcome {
            WriteOutcome::Accepted(lease) => {
                self.observed
                    .observe(Some(*lease), &self.identity, &self.timing, now);
                self.fresh = true;
                let until = started + self.timing.renew_deadline;
                if now < until {
                    self.lead_until = Some(until);
                    self.next_attempt = Some(started + self.timing.retry_period);
                } else {
                    // The answer took so long that the term is over already. A leader is told so by the next
                    // step; a candidate, who never led, renews what is now its own.
                    self.next_attempt = None;
                }
            }
            WriteOutcome::LostRace => {
                self.fresh = false;
                // A leader has to know at once whether it still is one.
                self.next_attempt = self.lead_until.is_none().then(|| now + self.timing.retry_period);
            }
            WriteOutcome::Failed => {
                self.fresh = false;
                // Counted from the start: a request that hung has used up the pause.
                self.next_attempt = Some(started + self.timing.retry_period);
            }
        }
    }

    /// Ends the term and gives the record that says so, if it is ours. Whoever calls this has stopped writing.
    pub(super) fn release(&mut self, wall: jiff::Timestamp) -> Option<Lease> {
        self.lead_until = None;
        let known = self
            .observed
            .lease
            .clone()
            .filter(|lease| holder(lease) == Some(&self.identity))?;
        let mut record = self.record(Some(known), wall);
        if let Some(spec) = &mut record.spec {
            spec.holder_identity = Some(String::new());
        }
        Some(record)
    }

    /// The record with us as its holder, made from the known one (whose resourceVersion and metadata it keeps).
    fn record(&self, known: Option<Lease>, wall: jiff::Timestamp) -> Lease {
        let mut lease = known.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let previous = lease.spec.take().unwrap_or_default();
        let ours = previous.holder_identity.as_deref() == Some(self.identity.as_str());
        // Others tell a renewal by the change of the record: it has to change even if the wall clock stands still
        // or goes back.
        let earliest = previous
            .renew_time
            .as_ref()
            .map(|last| last.0 + jiff::SignedDuration::from_micros(1));
        let renew_time = if ours {
            earliest.map_or(wall, |earliest| earliest.max(wall))
        } else {
            wall
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.timing.lease_duration.as_secs()).unwrap_or(i32::MAX),
            ),
            renew_time: Some(MicroTime(renew_time)),
            acquire_time: if ours {
                previous.acquire_time
            } else {
                Some(MicroTime(wall))
            },
            lease_transitions: if ours {
                previous.lease_transitions
            } else {
                Some(
                    previous
                        .lease_transitions
                        .map_or(0, |count| count.saturating_add(1)),
                )
            },
            preferred_holder: previous.preferred_holder,
            strategy: previous.strategy,
        });
        lease
    }
}
