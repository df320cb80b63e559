//! The simulated world: processes, the network between them, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::lockers::Locker;
use super::met::Met;
use super::random::Random;
use super::requests::Request;
use super::scenario::Scenario;
use super::users::User;
use crate::core::{Config, Core, Event as CoreEvent, Input, LinkId, Now, Observed, Output, Reply, TicketId};

/// Milliseconds since the epoch at which every run begins.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    Frame { link: u64, to: usize, bytes: Bytes },
    LinkUp { link: u64, to: usize, dialled: bool },
    LinkDown { link: u64, to: usize },
    Connect { a: usize, b: usize },
    Tick { process: usize },
    Request { id: u64 },
    User { user: usize },
    Locker { locker: usize },
    Fault { number: usize },
    Heal { what: Healing },
    Operator,
    Check,
}

/// The end of a fault.
#[derive(Debug)]
pub(super) enum Healing {
    Cut(BTreeSet<(usize, usize)>),
    Restart { pod: usize },
    Replace,
    Resume { process: usize, dead: bool },
}

/// A replicator process.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not exclude each other"
)]
pub(super) struct Process {
    pub(super) core: Core,
    pub(super) pod: usize,
    pub(super) alive: bool,
    pub(super) ready: bool,
    pub(super) paused: bool,
    pub(super) drained: bool,
    /// How often it had become the home of a partition at the last look.
    pub(super) homes_taken: u64,
    pub(super) skew_ms: i64,
    pub(super) tick_us: u64,
    pub(super) backlog: Vec<Event>,
    /// Extra time that its frames take: a slow machine.
    pub(super) slow_us: u64,
}

/// A pod on its way out.
pub(super) struct Leaving {
    pub(super) process: usize,
    pub(super) stop_us: u64,
    pub(super) stopped: bool,
    pub(super) deadline_us: u64,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) property: &'static str,
    pub(super) detail: String,
}

/// See the module.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(super) random: Random,
    pub(super) processes: Vec<Process>,
    /// The live process of each pod that exists.
    pub(super) pods: BTreeMap<usize, Option<usize>>,
    pub(super) next_pod: usize,
    pub(super) links: BTreeMap<u64, (usize, usize)>,
    /// Pairs that have a link.
    pub(super) linked: BTreeSet<(usize, usize)>,
    pub(super) next_link: u64,
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) users: Vec<User>,
    pub(super) lockers: Vec<Locker>,
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) waiting: BTreeMap<(usize, TicketId), u64>,
    /// Replies that came before the request knew its ticket.
    pub(super) early: BTreeMap<(usize, TicketId), (Reply, Option<Observed>)>,
    pub(super) next_request: u64,
    pub(super) leaving: Vec<Leaving>,
    /// Pods still to be replaced, and the one that was started in place of the first.
    pub(super) rolling: VecDeque<usize>,
    pub(super) surge: Option<usize>,
    /// Faults under way that may cost availability.
    pub(super) disturbances: usize,
    pub(super) calm_from_us: u64,
    /// When a process became ready for the last time.
    pub(super) newest_ready_us: u64,
    /// Faults under way that may cost data or separate members, and since when there was none.
    pub(super) losses: usize,
    pub(super) whole_from_us: u64,
    pub(super) deaths_us: Vec<u64>,
    pub(super) met: Met,
    pub(super) violation: Option<Violation>,
    /// What has happened lately, in a run that is watched.
    pub(super) trace: VecDeque<String>,
    /// A key whose changes at each process go into the trace, and what each process had last.
    pub(super) watched: Option<(String, BTreeMap<usize, String>)>,
    pub(super) finishing: bool,
    /// Users do nothing more.
    pub(super) stopped: bool,
    pub(super) settings: fn(&mut Config),
    out: Vec<Output>,
}

impl World {
    pub(super) fn new(scenario: Scenario, settings: fn(&mut Config)) -> Self {
        let mut world = Self {
            now_us: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            random: Random::new(scenario.seed ^ 0xa11_ce5),
            processes: Vec::new(),
            pods: BTreeMap::new(),
            next_pod: 0,
            links: BTreeMap::new(),
            linked: BTreeSet::new(),
            next_link: 0,
            cut: BTreeSet::new(),
            users: Vec::new(),
            lockers: Vec::new(),
            requests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            early: BTreeMap::new(),
            next_request: 0,
            leaving: Vec::new(),
            rolling: VecDeque::new(),
            surge: None,
            disturbances: 0,
            calm_from_us: 0,
            newest_ready_us: 0,
            losses: 0,
            whole_from_us: 0,
            deaths_us: Vec::new(),
            met: Met::default(),
            violation: None,
            trace: VecDeque::new(),
            watched: None,
            finishing: false,
            stopped: false,
            settings,
            out: Vec::new(),
            scenario,
        };
        for _ in 0..world.scenario.nodes {
            world.start_pod();
        }
        world.make_users();
        for (number, (at_ms, _)) in world.scenario.faults.clone().into_iter().enumerate() {
            world.at(at_ms * 1_000, Event::Fault { number });
        }
        world.after(100_000, Event::Operator);
        world.after(1_000_000, Event::Check);
        world
    }

    /// Runs until a time.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while self.violation.is_none() {
            let Some((&(at_us, number), _)) = self.queue.first_key_value() else {
                break;
            };
            if at_us > until_us {
                break;
            }
            let Some(event) = self.queue.remove(&(at_us, number)) else {
                break;
            };
            self.now_us = at_us.max(self.now_us);
            self.happen(event);
        }
        self.now_us = self.now_us.max(until_us);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::User { .. } | Event::Locker { .. } if self.stopped => {}
            Event::Request { id } => self.continue_request(id),
            Event::User { user } => self.user_acts(user),
            Event::Locker { locker } => self.locker_acts(locker),
            Event::Fault { number } => self.fault(number),
            Event::Heal { what } => self.heal(what),
            Event::Operator => {
                self.operate();
                self.after(100_000, Event::Operator);
            }
            Event::Check => {
                self.check();
                self.after(1_000_000, Event::Check);
            }
            Event::Connect { a, b } => self.connect(a, b),
            Event::Tick { process } => {
                let due = self
                    .processes
                    .get(process)
                    .is_some_and(|p| p.tick_us <= self.now_us);
                if due {
                    self.input(process, Event::Tick { process });
                }
            }
            Event::Frame { to, .. } | Event::LinkUp { to, .. } | Event::LinkDown { to, .. } => {
                self.input(to, event);
            }
        }
    }

    pub(super) fn at(&mut self, at_us: u64, event: Event) {
        self.next_event += 1;
        self.queue.insert((at_us, self.next_event), event);
    }

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        const LINES: usize = 4_000;
        let Some((key, _)) = &self.watched else { return };
        let line = line();
        // Of requests only those on the key in question.
        if line.contains('→') && !line.contains(key.as_str()) {
            return;
        }
        if self.trace.len() >= LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{} {line}", seconds(self.now_us)));
    }

    pub(super) fn violate(&mut self, property: &'static str, detail: String) {
        if self.violation.is_none() {
            self.log(|| format!("VIOLATION {property}: {detail}"));
            self.violation = Some(Violation { property, detail });
        }
    }

    /// What a process takes for the time.
    pub(super) fn now_at(&self, process: usize) -> Now {
        let mono_ms = self.now_us / 1_000;
        let skew = self.processes.get(process).map_or(0, |p| p.skew_ms);
        Now {
            wall_ms: (EPOCH_MS + mono_ms).saturating_add_signed(skew),
            mono_ms,
        }
    }

    /// The true time of day.
    pub(super) fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.now_us / 1_000
    }

    /// Gives a process an input, or keeps it while the process stands still.
    pub(super) fn input(&mut self, to: usize, event: Event) {
        let now = self.now_at(to);
        let Some(process) = self.processes.get_mut(to).filter(|p| p.alive) else {
            return;
        };
        if process.paused {
            process.backlog.push(event);
            return;
        }
        let out = &mut self.out;
        match &event {
            Event::Frame { link, bytes, .. } => {
                process.core.step(
                    now,
                    &Input::Frame {
                        link: LinkId(*link),
                        bytes,
                    },
                    out,
                );
            }
            Event::LinkUp { link, dialled, .. } => {
                process.core.step(
                    now,
                    &Input::LinkUp {
                        link: LinkId(*link),
                        dialled: *dialled,
                    },
                    out,
                );
            }
            Event::LinkDown { link, .. } => {
                process
                    .core
                    .step(now, &Input::LinkDown { link: LinkId(*link) }, out);
            }
            _ => {
                process.tick_us = u64::MAX;
                process.core.step(now, &Input::Tick, out);
            }
        }
        self.carry_out(to);
    }

    /// Gives a process an input that comes from its own pod.
    pub(super) fn tell(&mut self, to: usize, input: &Input<'_>) {
        let now = self.now_at(to);
        let Some(process) = self.processes.get_mut(to).filter(|p| p.alive && !p.paused) else {
            return;
        };
        process.core.step(now, input, &mut self.out);
        self.carry_out(to);
    }

    /// Lets a process execute something, and carries out what follows.
    pub(super) fn with_core<R>(
        &mut self,
        process: usize,
        act: impl FnOnce(&mut Core, Now, &mut Vec<Output>) -> R,
    ) -> Option<R> {
        let now = self.now_at(process);
        let target = self.processes.get_mut(process).filter(|p| p.alive && !p.paused)?;
        let result = act(&mut target.core, now, &mut self.out);
        target.core.step(now, &Input::Flush, &mut self.out);
        self.carry_out(process);
        Some(result)
    }

    fn carry_out(&mut self, from: usize) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Send { link, frame } => self.transmit(from, link.0, &frame),
                Output::Close { link, .. } => self.close(link.0, from),
                Output::Complete {
                    ticket,
                    reply,
                    observed,
                } => match self.waiting.remove(&(from, ticket)) {
                    Some(request) => self.replied(request, &reply, observed),
                    None => {
                        self.early.insert((from, ticket), (reply, observed));
                    }
                },
                Output::Ready(ready) => {
                    if let Some(process) = self.processes.get_mut(from) {
                        process.ready = ready;
                    }
                    if ready {
                        self.newest_ready_us = self.now_us;
                    }
                    self.log(|| format!("p{from} ready {ready}"));
                    self.check_joined(from);
                }
                Output::Drained => {
                    if let Some(process) = self.processes.get_mut(from) {
                        process.drained = true;
                    }
                    self.log(|| format!("p{from} drained"));
                    self.check_handed_over(from);
                }
                Output::Log(event) => {
                    self.met.note(&event);
                    if !matches!(event, CoreEvent::ClockDrift { .. }) {
                        self.log(|| format!("p{from} {event}"));
                    }
                }
                Output::Dial { .. } | Output::Fetch { .. } | Output::KeyEvent { .. } => {}
            }
        }
        self.out = out;
        self.watch(from);
        if let Some(process) = self.processes.get_mut(from)
            && process.core.peek_homes_taken() != process.homes_taken
        {
            process.homes_taken = process.core.peek_homes_taken();
            let homes: Vec<u16> = process.core.peek_homes().collect();
            self.log(|| format!("p{from} is the home of {homes:?}"));
            self.check_homes(from);
        }
        self.schedule_tick(from);
    }

    /// Traces changes of the watched key.
    fn watch(&mut self, process: usize) {
        let Some((key, mut seen)) = self.watched.take() else {
            return;
        };
        let entry = self
            .processes
            .get(process)
            .and_then(|p| p.core.peek_any(key.as_bytes()));
        let text = entry.map_or_else(String::new, |e| {
            let value = if e.is_dead() { "dead" } else { "alive" };
            format!(
                "{value} in {:?} by {:?} until {:?}",
                e.incarnation(),
                e.version(),
                e.expires_ms()
            )
        });
        let home = self
            .processes
            .get(process)
            .map(|p| p.core.peek_home(key.as_bytes()))
            .unwrap_or_default();
        let text = format!("{text} ({home})");
        let news = (seen.get(&process) != Some(&text)).then(|| format!("p{process} now has {key}: {text}"));
        seen.insert(process, text);
        self.watched = Some((key, seen));
        if let Some(news) = news {
            self.log(|| news);
        }
    }

    pub(super) fn schedule_tick(&mut self, process: usize) {
        let now = self.now_at(process);
        let now_us = self.now_us;
        let Some(one) = self.processes.get_mut(process).filter(|p| p.alive) else {
            return;
        };
        let at_us = (one.core.next_tick_ms(now).saturating_mul(1_000)).max(now_us + 1_000);
        if at_us < one.tick_us {
            one.tick_us = at_us;
            self.at(at_us, Event::Tick { process });
        }
    }
}

/// A time as it is shown.
#[expect(clippy::cast_precision_loss, reason = "runs take minutes")]
pub(super) fn seconds(us: u64) -> String {
    format!("{:>10.3}", us as f64 / 1e6)
}
