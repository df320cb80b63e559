//! Many candidates, one lease, and everything that can go wrong between them, in simulated time.
//!
//! Each candidate has a clock of its own (offset and rate), is paused at random, and its requests are
//! delayed, lost, or answered too late; a request that its sender has given up may still be stored. The claim: no
//! two candidates ever lead at once. Leading is what [`super::Leadership::is_leader`] says, which goes on to be asked
//! by other tasks while the electing one is paused.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use proptest::prelude::*;
use tokio::time::Instant;

use super::LEASE_REQUEST_TIMEOUT;
use super::election::{Attempt, Election, ReadOutcome, Step, Timing, WriteOutcome};

/// The API server: one record, optimistic concurrency.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn write(&mut self, attempt: &Attempt) -> WriteOutcome {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let (lease, fits) = match attempt {
            Attempt::Create(lease) => (lease, self.lease.is_none()),
            Attempt::Replace(lease) => (
                lease,
                self.lease
                    .as_ref()
                    .is_some_and(|stored| version(stored) == version(lease)),
            ),
        };
        if !fits {
            return WriteOutcome::LostRace;
        }
        self.version += 1;
        let mut stored = lease.clone();
        stored.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(stored.clone());
        WriteOutcome::Accepted(Box::new(stored))
    }
}

/// What a candidate waits for.
enum Activity {
    /// To decide.
    Thinking,
    /// That its read reaches the server.
    Reading { started: Instant },
    /// The answer to its read.
    GotRead { outcome: ReadOutcome, started: Instant },
    /// That its write reaches the server.
    Writing { attempt: Box<Attempt>, started: Instant },
    /// The outcome of its write.
    GotWrite { outcome: WriteOutcome, started: Instant },
    /// Nothing: its process has ended.
    Dead,
}

struct Candidate {
    election: Election,
    activity: Activity,
    /// When it goes on, in true time.
    due: Duration,
    /// Its clock: `epoch + offset + rate * true time`.
    offset: Duration,
    rate: f64,
    wall_skew_seconds: i64,
    /// In true time: since when it leads, and until when `is_leader` stays true without a renewal.
    term: Option<(Duration, Duration)>,
}

/// Faults, each with a probability.
#[derive(Clone, Copy, Debug)]
struct Faults {
    slow_request: f64,
    slow_answer: f64,
    lost_answer: f64,
    pause: f64,
    crash: f64,
}

const NONE: Faults = Faults {
    slow_request: 0.0,
    slow_answer: 0.0,
    lost_answer: 0.0,
    pause: 0.0,
    crash: 0.0,
};
const MANY: Faults = Faults {
    slow_request: 0.1,
    slow_answer: 0.1,
    lost_answer: 0.1,
    pause: 0.1,
    crash: 0.01,
};

struct Simulation {
    epoch: Instant,
    random: fastrand::Rng,
    faults: Faults,
    timing: Timing,
    server: Server,
    /// Writes whose sender has given up, with the time at which they reach the server.
    stray: Vec<(Duration, Box<Attempt>)>,
    candidates: Vec<Candidate>,
    started: usize,
    /// Terms as (candidate, from, until) in true time.
    terms: Vec<(usize, Duration, Duration)>,
}

impl Simulation {
    fn new(seed: u64, count: usize, timing: Timing, faults: Faults) -> Self {
        let mut simulation = Self {
            epoch: Instant::now(),
            random: fastrand::Rng::with_seed(seed),
            faults,
            timing,
            server: Server::default(),
            stray: Vec::new(),
            candidates: Vec::new(),
            started: 0,
            terms: Vec::new(),
        };
        for _ in 0..count {
            let candidate = simulation.candidate(Duration::ZERO);
            simulation.candidates.push(candidate);
        }
        simulation
    }

    fn candidate(&mut self, due: Duration) -> Candidate {
        self.started += 1;
        Candidate {
            election: Election::new("lease", format!("candidate-{}", self.started), self.timing),
            activity: Activity::Thinking,
            due,
            offset: Duration::from_millis(self.random.u64(0..1_000_000)),
            rate: 0.95 + 0.1 * self.random.f64(),
            wall_skew_seconds: self.random.i64(-100_000..100_000),
            term: None,
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    /// Milliseconds of delay: a few, or with that probability up to 20 s.
    fn latency(&mut self, slow: f64) -> Duration {
        let most = if self.chance(slow) { 20_000 } else { 20 };
        Duration::from_millis(self.random.u64(1..=most))
    }

    /// Runs until `end` of true time.
    fn run(&mut self, end: Duration) {
        loop {
            let next_stray = self.stray.iter().enumerate().min_by_key(|(_, (due, _))| *due);
            let next = self
                .candidates
                .iter()
                .enumerate()
                .min_by_key(|(_, candidate)| candidate.due);
            let (Some((index, candidate)), stray) = (next, next_stray) else {
                return;
            };
            if let Some((stray, (due, _))) = stray
                && *due <= candidate.due
            {
                let (_, attempt) = self.stray.swap_remove(stray);
                self.server.write(&attempt);
                continue;
            }
            if candidate.due > end {
                return;
            }
            self.advance(index);
        }
    }

    fn advance(&mut self, index: usize) {
        let now = self.candidates[index].due;
        let local =
            |candidate: &Candidate, at: Duration| self.epoch + candidate.offset + at.mul_f64(candidate.rate);
        let clock = local(&self.candidates[index], now);
        match std::mem::replace(&mut self.candidates[index].activity, Activity::Thinking) {
            Activity::Thinking => self.think(index, now, clock),
            Activity::Reading { started } => {
                let outcome = match self.server.lease.clone() {
                    Some(lease) => ReadOutcome::Found(Box::new(lease)),
                    None => ReadOutcome::Absent,
                };
                self.answer(index, now, |lost| Activity::GotRead {
                    outcome: if lost { ReadOutcome::Failed } else { outcome },
                    started,
                });
            }
            Activity::GotRead { outcome, started } => {
                self.candidates[index].election.on_read(outcome, started, clock);
                self.pause(index, now);
            }
            Activity::Writing { attempt, started } => {
                let outcome = self.server.write(&attempt);
                self.answer(index, now, |lost| Activity::GotWrite {
                    outcome: if lost { WriteOutcome::Failed } else { outcome },
                    started,
                });
            }
            Activity::GotWrite { outcome, started } => {
                self.candidates[index].election.on_write(outcome, started, clock);
                self.publish(index, now, clock);
                self.pause(index, now);
            }
            Activity::Dead => {
                let candidate = self.candidate(now);
                self.candidates[index] = candidate;
            }
        }
    }

    fn think(&mut self, index: usize, now: Duration, clock: Instant) {
        if self.chance(self.faults.crash) {
            return self.die(index, now);
        }
        let candidate = &mut self.candidates[index];
        let wall = jiff::Timestamp::UNIX_EPOCH
            + jiff::SignedDuration::from_secs(2_000_000_000 + candidate.wall_skew_seconds);
        match candidate.election.step(clock, wall) {
            Step::SleepUntil(until) => {
                candidate.due = now + (until - clock).div_f64(candidate.rate) + Duration::from_millis(1);
            }
            Step::Read => {
                candidate.activity = Activity::Reading { started: clock };
                self.candidates[index].due = now + self.latency(self.faults.slow_request);
            }
            Step::Write(attempt) => {
                let due = now + self.latency(self.faults.slow_request);
                let limit = now + LEASE_REQUEST_TIMEOUT;
                let candidate = &mut self.candidates[index];
                if due > limit {
                    // Given up by its sender, but still under way.
                    self.stray.push((due, attempt));
                    candidate.activity = Activity::GotWrite {
                        outcome: WriteOutcome::Failed,
                        started: clock,
                    };
                    candidate.due = limit;
                } else {
                    candidate.activity = Activity::Writing {
                        attempt,
                        started: clock,
                    };
                    candidate.due = due;
                }
            }
            Step::Lost(_) => self.die(index, now),
        }
    }

    /// The process ends; its `is_leader` is asked no more. Another one starts a little later.
    fn die(&mut self, index: usize, now: Duration) {
        self.close_term(index, now);
        let candidate = &mut self.candidates[index];
        candidate.activity = Activity::Dead;
        candidate.due = now + Duration::from_secs(1);
    }

    fn answer(&mut self, index: usize, now: Duration, make: impl FnOnce(bool) -> Activity) {
        let latency = self.latency(self.faults.slow_answer);
        let lost = self.chance(self.faults.lost_answer) || latency > LEASE_REQUEST_TIMEOUT;
        let candidate = &mut self.candidates[index];
        candidate.activity = make(lost);
        candidate.due = now + if lost { LEASE_REQUEST_TIMEOUT } else { latency };
        // The task itself may be paused before it looks at the answer.
        if self.random.f64() < self.faults.pause {
            let pause = Duration::from_millis(self.random.u64(0..30_000));
            self.candidates[index].due += pause;
        }
    }

    fn pause(&mut self, index: usize, now: Duration) {
        let pause = if self.chance(self.faults.pause) {
            self.random.u64(0..30_000)
        } else {
            0
        };
        self.candidates[index].due = now + Duration::from_millis(pause);
    }

    /// Notes what `is_leader` says from now on.
    fn publish(&mut self, index: usize, now: Duration, clock: Instant) {
        let candidate = &self.candidates[index];
        let Some(until) = candidate.election.lead_until() else {
            return;
        };
        let until = now + until.saturating_duration_since(clock).div_f64(candidate.rate);
        let since = match candidate.term {
            Some((since, previous)) if now <= previous => since,
            // The last term ran out before this renewal.
            Some((since, previous)) => {
                self.terms.push((index, since, previous));
                now
            }
            None => now,
        };
        self.candidates[index].term = Some((since, until));
    }

    fn close_term(&mut self, index: usize, now: Duration) {
        if let Some((since, until)) = self.candidates[index].term.take() {
            self.terms.push((index, since, until.min(now)));
        }
    }

    fn finish(mut self, end: Duration) -> Vec<(usize, Duration, Duration)> {
        self.run(end);
        for index in 0..self.candidates.len() {
            self.close_term(index, end);
        }
        self.terms.retain(|(_, since, until)| since < until);
        self.terms.sort_by_key(|(_, since, _)| *since);
        self.terms
    }
}

fn overlap(terms: &[(usize, Duration, Duration)]) -> Option<String> {
    let mut last_end = Duration::ZERO;
    for (index, since, until) in terms {
        if *since < last_end {
            return Some(format!(
                "candidate {index} leads from {since:?}, while another leads until {last_end:?}"
            ));
        }
        last_end = last_end.max(*until);
    }
    None
}

const HOUR: Duration = Duration::from_hours(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_two_leaders(seed: u64, count in 2_usize..5) {
        let terms = Simulation::new(seed, count, Timing::default(), MANY).finish(HOUR);
        prop_assert_eq!(overlap(&terms), None);
        prop_assert!(terms.len() > 10, "leadership changes hands under so many faults: {} terms", terms.len());
    }
}

#[test]
fn the_simulation_sees_a_renew_deadline_that_is_too_long() {
    let timing = Timing {
        renew_deadline: Duration::from_secs(25),
        ..Timing::default()
    };
    let seen = (0..50).any(|seed| overlap(&Simulation::new(seed, 3, timing, MANY).finish(HOUR)).is_some());
    assert!(
        seen,
        "a candidate that leads longer than its lease must be caught"
    );
}

#[test]
fn without_faults_the_first_leader_stays() {
    for seed in 0..20 {
        let terms = Simulation::new(seed, 3, Timing::default(), NONE).finish(HOUR);
        let [(_, since, until)] = terms.as_slice() else {
            panic!("one term expected: {terms:?}")
        };
        assert!(*since < Duration::from_secs(3), "elected at {since:?}");
        assert_eq!(*until, HOUR);
    }
}
