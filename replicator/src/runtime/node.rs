//! The process' one event loop's state: the core, the front, and the way from the core's outputs to sockets.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::core::{Core, Input, KeyEvent, Now, Output, TicketId};
use crate::front::mailbox::{Completion, Mailbox};
use crate::front::resp::keyspace;
use crate::front::server::Server;
use crate::net::link::Links;
use crate::runtime::upstream::Upstream;

/// How often the figures that INFO tells are taken from the core, milliseconds.
const FIGURES_MS: u64 = 1_000;

/// Shared by all tasks of the event loop; borrowed only between two awaits.
pub type Shared = Rc<RefCell<Node>>;

/// Bytes that one read takes at most.
const READ: usize = 64 << 10;
/// A larger buffer of replies is given back to the allocator.
const KEPT_OUTPUT: usize = 256 << 10;

/// Wall clock and steady clock from one reading. The wall clock is read anew with every tick.
#[derive(Debug)]
struct Clock {
    start: Instant,
    offset_ms: u64,
}

impl Clock {
    fn new() -> Self {
        let mut clock = Self {
            start: Instant::now(),
            offset_ms: 0,
        };
        clock.adjust();
        clock
    }

    fn adjust(&mut self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.offset_ms = millis(wall).saturating_sub(millis(self.start.elapsed()));
    }

    fn at(&self, instant: Instant) -> Now {
        let mono_ms = millis(instant.saturating_duration_since(self.start));
        Now {
            wall_ms: self.offset_ms + mono_ms,
            mono_ms,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where a process is in its life, as far as others may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "probes and the drain each ask for one of them"
)]
pub struct Phase {
    /// Whether it has taken over the sessions. Never goes back.
    pub started: bool,
    /// Whether it is in the last part of a drain: it serves, but wants no new users.
    pub leaving: bool,
    /// Whether it is handing over what it holds.
    pub draining: bool,
    /// Whether everything is handed over.
    pub drained: bool,
}

impl Phase {
    /// Whether the pod should get requests.
    pub fn is_ready(self) -> bool {
        self.started && !self.leaving
    }
}

/// See the module.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Node {
    /// The replication core.
    pub core: Core,
    /// The front.
    pub server: Server,
    /// What the core wants done and has not been done yet.
    pub outputs: Vec<Output>,
    /// Whom to tell a delayed reply, and when (on the steady clock) it was asked for.
    pub tickets: HashMap<TicketId, (Rc<Mailbox>, u64)>,
    /// Lent to a connection for the time of a read.
    pub input: Vec<u8>,
    /// Lent to a connection for the time of a read.
    pub output: Vec<u8>,
    /// Links to peers.
    pub links: Links,
    /// Addresses to dial that other members told.
    pub hints: BTreeSet<String>,
    /// Look-ups that the core wants done in the upstream store.
    pub fetches: Vec<(u64, Box<[u8]>)>,
    /// Told when there are such look-ups.
    pub fetch: Rc<Notify>,
    /// The upstream store, if there is one.
    pub upstream: Option<Rc<Upstream>>,
    /// Whether clients are passed on to it instead of being answered from here.
    pub follows: bool,
    /// How often new clients were made to wait.
    pub holds: u64,
    /// Whether new clients wait now.
    pub held: bool,
    /// Told when they need not wait any more.
    pub released: Rc<Notify>,
    /// Whether clients were ever answered from here.
    pub led: bool,
    /// Where the process is in its life.
    pub phase: Phase,
    /// Told when [`Node::phase`] changes.
    pub phase_changed: Rc<Notify>,
    /// Told when there is something to flush.
    pub flush: Rc<Notify>,
    /// Told when there is somebody new to dial.
    pub dial: Rc<Notify>,
    flush_requested: bool,
    figures_due_ms: u64,
    clock: Clock,
}

impl Node {
    /// A node that has not begun to work. `core` makes the core, given the time.
    pub fn new(core: impl FnOnce(Now) -> Core, server: impl FnOnce(Now) -> Server) -> Self {
        let clock = Clock::new();
        let now = clock.at(Instant::now());
        Self {
            core: core(now),
            server: server(now),
            outputs: Vec::new(),
            tickets: HashMap::new(),
            input: vec![0; READ],
            output: Vec::new(),
            links: Links::default(),
            hints: BTreeSet::new(),
            fetches: Vec::new(),
            fetch: Rc::default(),
            upstream: None,
            follows: false,
            holds: 0,
            held: false,
            released: Rc::default(),
            led: true,
            phase: Phase {
                started: false,
                leaving: false,
                draining: false,
                drained: false,
            },
            phase_changed: Rc::default(),
            flush: Rc::default(),
            dial: Rc::default(),
            flush_requested: false,
            figures_due_ms: 0,
            clock,
        }
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.clock.at(Instant::now())
    }

    /// The time of a reading of the steady clock.
    pub fn at(&self, instant: Instant) -> Now {
        self.clock.at(instant)
    }

    /// Sees to it that what the core wants done is done once all that can be read has been read.
    pub fn request_flush(&mut self) {
        if !self.flush_requested {
            self.flush_requested = true;
            self.flush.notify_one();
        }
    }

    /// The same, when there is anything to do: the task that does it is a large part of what a write costs.
    pub fn request_flush_if_due(&mut self) {
        if !self.outputs.is_empty() || self.core.wants_flush() {
            self.request_flush();
        }
    }

    /// Takes back the buffer of replies.
    pub fn give_back(&mut self, mut output: Vec<u8>) {
        output.clear();
        if output.capacity() <= KEPT_OUTPUT {
            self.output = output;
        }
    }

    /// Tells the core what happened, and does what it wants done before long.
    pub fn step(&mut self, input: &Input<'_>) {
        let now = self.now();
        self.core.step(now, input, &mut self.outputs);
        self.request_flush();
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.clock.adjust();
        self.step(&Input::Tick);
        let now = self.now();
        if now.mono_ms >= self.figures_due_ms {
            self.figures_due_ms = now.mono_ms + FIGURES_MS;
            self.server.used_memory = self.core.stats().used_bytes;
        }
        self.core
            .set_key_events(!self.server.channels.is_empty() && !self.server.key_events.is_empty());
    }

    /// Sends what waits and does all that the core wants done.
    pub fn carry_out(&mut self) {
        self.flush_requested = false;
        let now = self.now();
        self.core.step(now, &Input::Flush, &mut self.outputs);
        for output in std::mem::take(&mut self.outputs) {
            self.carry_out_one(now, output);
        }
        if let Some(upstream) = &self.upstream
            && self.core.upstream_stats().is_some_and(|stats| stats.pending > 0)
        {
            upstream.written.notify_one();
        }
    }

    fn carry_out_one(&mut self, now: Now, output: Output) {
        match output {
            Output::Send { link, frame } => self.links.send(link, frame),
            Output::Close { link, reason } => {
                info!(reason, "closing a link to a peer");
                self.links.close(link);
            }
            Output::Dial { address } => {
                self.hints.insert(address);
                self.dial.notify_one();
            }
            Output::Complete {
                ticket,
                reply,
                observed,
            } => {
                if let Some((mailbox, asked_ms)) = self.tickets.remove(&ticket) {
                    #[expect(clippy::cast_precision_loss, reason = "a duration of hours still is exact")]
                    let seconds = now.mono_ms.saturating_sub(asked_ms) as f64 / 1_000.0;
                    self.server.stats.latency_remote.observe(seconds, 1);
                    mailbox.complete(Completion {
                        ticket,
                        reply,
                        observed,
                    });
                }
            }
            Output::Fetch { number, key } => {
                self.fetches.push((number, key));
                self.fetch.notify_one();
            }
            Output::Ready(ready) => {
                self.phase.started |= ready;
                self.phase_changed.notify_waiters();
            }
            Output::Drained => {
                self.phase.drained = true;
                self.phase_changed.notify_waiters();
            }
            Output::Log(event) => warn!(%event, "core"),
            Output::KeyEvent { key, what } => self.publish_key_event(&key, what),
        }
    }

    /// Tells those who listen to key events, as Redis does when `notify-keyspace-events` asks for it.
    fn publish_key_event(&self, stored: &[u8], what: KeyEvent) {
        let (class, name) = match what {
            KeyEvent::Deleted => ('g', "del"),
            KeyEvent::Expired => ('x', "expired"),
        };
        let wanted = &self.server.key_events;
        if !wanted.contains(['A', class]) {
            return;
        }
        let (database, key) = keyspace::decode(stored);
        if wanted.contains('E') {
            let channel = format!("__keyevent@{database}__:{name}");
            self.server.channels.publish(channel.as_bytes(), key);
        }
        if wanted.contains('K') {
            let channel = [format!("__keyspace@{database}__:").as_bytes(), key].concat();
            self.server.channels.publish(&channel, name.as_bytes());
        }
    }
}
