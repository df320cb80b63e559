//! The core of one process: its state, and the way of a client's command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::acknowledge::{Asker, Waiting};
use super::antientropy::Comparisons;
use super::apply::Change;
use super::client::{Base, Client};
use super::clock::{Clock, Hlc, Now};
use super::command::{Command, CommandError, Kind, Reply};
use super::config::{Config, Mode, NodeInfo};
use super::decide::{Asking, Verdict};
use super::forward::{Answered, Arriving, Asked, Held};
use super::gather::Gathering;
use super::groups::{group_of, is_lock};
use super::handoff::Homes;
use super::io::{LinkId, Output, TicketId};
use super::life::Life;
use super::members::{Member, MemberState};
use super::missed::Missed;
use super::placement::Plan;
use super::rename::Renaming;
use super::settle::Settling;
use super::step::Link;
use super::upstream::Upstream;
use super::version::{NodeId, Version};
use super::view::Views;
use crate::store::{Store, key_hash};

/// The replication core of one process. See the module's documentation for how it is used.
#[derive(Debug)]
pub struct Core {
    pub(super) config: Config,
    pub(super) me: NodeInfo,
    pub(super) name_hash: u64,
    pub(super) state: MemberState,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Members that have gone, and when: they are not to be taken up again because somebody still speaks of them.
    pub(super) gone: BTreeMap<NodeId, u64>,
    pub(super) plans: Vec<Option<Arc<Plan>>>,
    pub(super) views: Views,
    pub(super) homes: Homes,
    pub(super) waiting: BTreeMap<TicketId, Waiting>,
    pub(super) asked: BTreeMap<TicketId, Asked>,
    /// When which of the two above want attention.
    pub(super) deadlines: BTreeSet<(u64, TicketId)>,
    pub(super) held: Vec<Held>,
    pub(super) answered: BTreeMap<(NodeId, u64), Answered>,
    pub(super) arriving: Vec<Arriving>,
    pub(super) renaming: BTreeMap<TicketId, Renaming>,
    pub(super) gathering: BTreeMap<TicketId, Gathering>,
    pub(super) comparisons: Comparisons,
    pub(super) settling: Settling,
    pub(super) life: Life,
    pub(super) missed: Missed,
    pub(super) changes: Vec<Change>,
    pub(super) lost_tickets: Vec<TicketId>,
    pub(super) upstream: Option<Upstream>,
    /// Replies that wait for the upstream store no longer.
    pub(super) upstream_released: Vec<TicketId>,
    pub(super) counters: Counters,
    pub(super) key_events: bool,
    /// A stream may have something to send, or have been confirmed, since [`Core::flush`] last looked.
    pub(super) stirred: bool,
    /// A member in reach has not confirmed everything, when that was last looked at.
    pub(super) unconfirmed_out: bool,
    pub(super) beat_due_ms: u64,
    /// When the member that has been silent for longest is to be suspected, unless it is heard.
    pub(super) suspect_due_ms: u64,
    pub(super) impaired_until_ms: u64,
    /// Until then others may have replaced this member without its knowing.
    pub(super) stalled_until_ms: u64,
    /// When this core was last called, `mono_ms`.
    pub(super) awake_ms: u64,
    next_number: u64,
}

/// What [`Core::get`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The value, in place.
    Found {
        /// The value.
        value: &'a [u8],
        /// memcached flags.
        flags: u32,
    },
    /// There is none, for certain.
    Missing,
    /// The entry is no string.
    WrongType,
    /// Another member has to be asked: use [`Core::execute`].
    Elsewhere,
}

/// What became of a command.
#[derive(Debug, PartialEq)]
pub enum Executed {
    /// It is done.
    Done(Reply),
    /// Its reply comes as [`Output::Complete`].
    Pending(TicketId),
}

/// Things counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// States that arrived and lost against what was here.
    pub conflicts: u64,
    /// Commands decided at another member.
    pub forwarded: u64,
    /// Entries that a comparison of digests brought here.
    pub repaired: u64,
    /// Entries removed because of the memory limit.
    pub evicted: u64,
    /// Entries that expired here.
    pub expired: u64,
    /// Locks granted here.
    pub locks_granted: u64,
    /// Locks given here that too few had heard of in time, and that were taken back.
    pub locks_taken_back: u64,
    /// Partitions that this member became the home of.
    pub homes_taken: u64,
    /// Partitions taken over without the old home.
    pub homes_taken_over: u64,
}

impl Core {
    /// A core that has just been started. `seed` is random and secret.
    pub fn new(config: Config, me: NodeInfo, seed: u64, now: Now) -> Self {
        let mut store = Store::new(me.id, config.partitions, seed);
        store.set_unlimited_ttl(config.unlimited_ttl_ms);
        let mut clock = Clock::default();
        clock.reading(now.wall_ms);
        let partitions = usize::from(config.partitions);
        Self {
            name_hash: key_hash(me.name.as_bytes()),
            state: MemberState::Joining,
            store,
            clock,
            links: BTreeMap::new(),
            members: BTreeMap::new(),
            gone: BTreeMap::new(),
            plans: vec![None; partitions],
            views: Views::new(me.id, MemberState::Joining),
            homes: Homes::new(partitions),
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            held: Vec::new(),
            answered: BTreeMap::new(),
            arriving: Vec::new(),
            renaming: BTreeMap::new(),
            gathering: BTreeMap::new(),
            comparisons: Comparisons::new(seed, now.mono_ms + config.antientropy_ms),
            settling: Settling::default(),
            life: Life::new(partitions, now.mono_ms),
            missed: Missed::default(),
            changes: Vec::new(),
            lost_tickets: Vec::new(),
            upstream: config
                .upstream
                .clone()
                .map(|prefix| Upstream::new(prefix, config.ring)),
            upstream_released: Vec::new(),
            counters: Counters::default(),
            key_events: false,
            stirred: false,
            unconfirmed_out: false,
            beat_due_ms: now.mono_ms,
            suspect_due_ms: u64::MAX,
            impaired_until_ms: 0,
            stalled_until_ms: 0,
            awake_ms: now.mono_ms,
            next_number: 0,
            config,
            me,
        }
    }

    /// GET without a copy.
    pub fn get(&mut self, now: Now, client: &mut Client, key: &[u8]) -> Lookup<'_> {
        if !self.serves() || is_lock(&self.config.groups, key) {
            return Lookup::Elsewhere;
        }
        let Some(id) = self.store.find(key) else {
            return Lookup::Elsewhere;
        };
        let Some((partition, live)) = self
            .store
            .entry(id)
            .map(|e| (e.partition(), e.is_live(now.wall_ms)))
        else {
            return Lookup::Elsewhere;
        };
        if !live || !self.holds(partition) {
            return Lookup::Elsewhere;
        }
        let Some(entry) = self.store.entry(id) else {
            return Lookup::Elsewhere;
        };
        let (hash, incarnation) = (key_hash(key), entry.incarnation());
        client.note(hash, incarnation);
        self.missed.note(hash, false, now.mono_ms);
        let Some(entry) = self.store.entry(id) else {
            return Lookup::Elsewhere;
        };
        if entry.kind() != Some(Kind::String) {
            return Lookup::WrongType;
        }
        Lookup::Found {
            value: entry.value(),
            flags: entry.flags(),
        }
    }

    /// Executes a command.
    pub fn execute(
        &mut self,
        now: Now,
        client: &mut Client,
        command: &Command<'_>,
        out: &mut Vec<Output>,
    ) -> Executed {
        if !self.serves() {
            return Executed::Done(Reply::Error(CommandError::Loading));
        }
        if let Err(error) = self.check(command) {
            return Executed::Done(Reply::Error(error));
        }
        self.wake(now);
        let ticket = self.next_ticket();
        let asker = Asker::Client(ticket);
        let Some(key) = command.key() else {
            return match self.gather(now, asker, command, out) {
                Some(reply) => Executed::Done(reply),
                None => Executed::Pending(ticket),
            };
        };
        let place = self.locate(key);
        let hash = place.hash;
        let base = match client.base(hash) {
            // Without the guard a write means what it means to Redis: whatever was there is written over.
            _ if self.config.logout_guard_ms == 0 => Base::Unknown,
            Base::Unknown
                if self
                    .missed
                    .contains(hash, now.mono_ms.saturating_sub(self.config.logout_guard_ms)) =>
            {
                Base::Nothing
            }
            base => base,
        };
        let asking = Asking {
            asker,
            base,
            given: self.clock.reading(now.wall_ms),
            retry: false,
        };
        if self.decides(now, place, base, command) {
            match self.decide(now, asking, command, place, out) {
                Verdict::Done(outcome) => {
                    if outcome.read {
                        client.note(outcome.key, outcome.found);
                        self.missed
                            .note(outcome.key, outcome.found == Version::ZERO, now.mono_ms);
                    }
                    return Executed::Done(outcome.reply);
                }
                Verdict::Waiting => return Executed::Pending(ticket),
                Verdict::NotYet => {}
            }
        }
        if self.asked.len() >= self.config.max_pending {
            return Executed::Done(Reply::Error(CommandError::Busy));
        }
        self.ask(now, asking, command, out);
        Executed::Pending(ticket)
    }

    /// Refuses what can be refused without looking.
    fn check(&self, command: &Command<'_>) -> Result<(), CommandError> {
        if let Command::Key { key, .. } = command {
            return if key.len() > self.config.max_key {
                Err(CommandError::KeyTooLong)
            } else {
                Ok(())
            };
        }
        let keys = command.keys();
        if keys.iter().any(|key| key.len() > self.config.max_key) {
            return Err(CommandError::KeyTooLong);
        }
        if matches!(command, Command::Transaction { .. }) {
            let mut groups = keys.iter().map(|key| group_of(&self.config.groups, key));
            let first = groups.next();
            if groups.any(|group| Some(group) != first) {
                return Err(CommandError::CrossGroup);
            }
        }
        Ok(())
    }

    /// How long a member may be silent before it is suspected: heartbeats come several times as often.
    pub fn longest_silence(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.config.suspect_after_ms)
    }

    /// Whether this process serves clients.
    pub fn serves(&self) -> bool {
        matches!(self.state, MemberState::Active | MemberState::Draining) && !self.settling.is_doubtful()
    }

    /// Whether this member holds a partition, so that what is here may be answered.
    pub(super) fn holds(&mut self, partition: u16) -> bool {
        match self.config.mode {
            Mode::All => true,
            Mode::Backup(_) => {
                let me = self.me.id;
                self.life.is_held(partition) && self.plan(partition).holders.contains(&me)
            }
        }
    }

    /// Whether members are, or have just been, out of reach, so that two of them may have created one key.
    pub(super) fn is_impaired(&self, now: Now) -> bool {
        let quiet = |heard_ms: u64| now.mono_ms.saturating_sub(heard_ms) > 2 * self.config.heartbeat_ms;
        self.impaired_until_ms > now.mono_ms || self.members.values().any(|m| m.suspect || quiet(m.heard_ms))
    }

    pub(super) fn next_ticket(&mut self) -> TicketId {
        TicketId(self.next_number())
    }

    /// A number not used before.
    pub(super) fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Whether [`Output::KeyEvent`]s are wanted. Off at first: each costs an allocation.
    pub fn set_key_events(&mut self, wanted: bool) {
        self.key_events = wanted;
    }

    /// Up to when everybody knows everything, less the least age of tombstones.
    pub(super) fn stable(&self) -> Hlc {
        self.settling.stable
    }
}
