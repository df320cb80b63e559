//! When the reply to a write may leave: what has to be confirmed by whom.

use super::client::Base;
use super::clock::Now;
use super::command::{CommandError, Condition, Op, Reply};
use super::config::{Acknowledge, Mode};
use super::handoff::Standing;
use super::io::{Output, TicketId};
use super::members::MemberState;
use super::node::Core;
use super::upstream::Upstream;
use super::version::{Incarnation, NodeId, Version};
use crate::store::Entry;

/// Who gets a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this process.
    Client(TicketId),
    /// Another member, under the number it gave.
    Member(NodeId, u64),
    /// This core itself: a step of a longer work.
    Own(TicketId),
}

/// A reply, with what its receiver has to learn beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) reply: Reply,
    /// Whether it answers a read.
    pub(super) read: bool,
    /// The key's hash and what a read found.
    pub(super) key: u64,
    pub(super) found: Incarnation,
    /// A lock that is given with it.
    pub(super) lock: Option<Granted>,
}

/// A lock as it was given to somebody.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Granted {
    pub(super) key: Box<[u8]>,
    version: Version,
}

impl Granted {
    /// What is under the key of a lock that was just taken.
    pub(super) fn of(lock: &Entry<'_>) -> Self {
        Self {
            key: lock.key().into(),
            version: lock.version(),
        }
    }
}

/// A reply that waits for confirmations.
#[derive(Debug)]
pub(super) struct Waiting {
    asker: Asker,
    outcome: Outcome,
    /// Confirmations still needed; `None` for all that can come.
    need: Option<usize>,
    /// Those that can come are waited for also when they are not needed.
    everybody: bool,
    /// Confirmations that can still come.
    outstanding: usize,
    /// The upstream store is waited for.
    upstream: bool,
    deadline_ms: u64,
}

impl Waiting {
    /// Whether everything that is waited for has come, or can come no more.
    fn is_done(&self) -> bool {
        let enough = self.need == Some(0) && !self.everybody;
        (enough || self.outstanding == 0) && !self.upstream
    }
}

/// How long confirmations are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// What was written is kept, whoever has confirmed it.
    OfWrites,
    /// A lock that is refused is tried for again and again, by a client that knows nothing better to do.
    OfLocks {
        /// When the command was given, by the logical clock.
        given_ms: u64,
    },
}

/// What a write of some partition needs.
struct Need {
    /// `None`: from all of `from`.
    count: Option<usize>,
    /// Wait for all of `from`, as long as they are in reach, also when fewer would do.
    everybody: bool,
    from: Vec<NodeId>,
}

impl Core {
    /// Publishes what `self.changes` says, and either returns the outcome or keeps it until it is confirmed.
    pub(super) fn conclude(
        &mut self,
        now: Now,
        asker: Asker,
        partition: u16,
        patience: Patience,
        outcome: Outcome,
    ) -> Option<Outcome> {
        if self.changes.is_empty() {
            return Some(outcome);
        }
        let ends = self
            .changes
            .iter()
            .any(|change| self.store.entry(change.id).is_some_and(Entry::is_dead));
        let numbers = self.publish();
        let need = self.need(partition, patience != Patience::OfWrites, ends);
        #[cfg(test)]
        if self.config.faults == super::config::Faults::AcknowledgeIgnored {
            return Some(outcome);
        }
        let mut waits: Vec<(NodeId, u64)> = Vec::with_capacity(need.from.len());
        waits.extend(numbers.iter().filter(|(node, _)| need.from.contains(node)));
        let wanted = need.count.unwrap_or(waits.len());
        let upstream = self.upstream.as_mut().and_then(Upstream::awaited);
        if wanted == 0 && (waits.is_empty() || !need.everybody) && upstream.is_none() {
            return Some(outcome);
        }
        if waits.len() < wanted {
            return Some(Outcome {
                reply: Reply::Error(CommandError::NoReplicas),
                ..outcome
            });
        }
        let ticket = self.next_ticket();
        for (node, number) in &waits {
            if let Some(member) = self.members.get_mut(node) {
                member.out.wait(*number, ticket);
            }
        }
        if let (Some(number), Some(store)) = (upstream, &mut self.upstream) {
            store.wait(number, ticket);
        }
        let patience_ms = match patience {
            Patience::OfWrites => self.config.acknowledge_timeout_ms,
            Patience::OfLocks { given_ms } => self.lock_patience_ms(now, given_ms),
        };
        let deadline_ms = now.mono_ms + patience_ms;
        self.deadlines.insert((deadline_ms, ticket));
        let outstanding = waits.len();
        self.waiting.insert(
            ticket,
            Waiting {
                asker,
                outcome,
                need: need.count,
                everybody: need.everybody,
                outstanding,
                upstream: upstream.is_some(),
                deadline_ms,
            },
        );
        None
    }

    /// How long a lock may wait for its confirmations: as long as whoever asks for it waits for the answer.
    pub(super) fn lock_patience_ms(&mut self, now: Now, given_ms: u64) -> u64 {
        let whole_ms = self.config.home_timeout_ms.saturating_sub(self.config.resend_ms);
        let over_ms = self.clock.reading(now.wall_ms).ms().saturating_sub(given_ms);
        whole_ms.saturating_sub(over_ms)
    }

    /// `ends`: a session ends with it. Then nobody in reach may show it any more, whatever the level says of values.
    fn need(&mut self, partition: u16, lock: bool, ends: bool) -> Need {
        if lock {
            // Whoever takes over must know of the lock before its owner does.
            let me = self.me.id;
            let plan = self.plan(partition);
            let from = plan
                .holders
                .iter()
                .copied()
                .filter(|id| *id != me)
                .take(1)
                .collect();
            return Need {
                count: None,
                everybody: true,
                from,
            };
        }
        let holders: Vec<NodeId> = match self.config.mode {
            Mode::All => self
                .members
                .iter()
                .filter(|(_, m)| m.is_active())
                .map(|(id, _)| *id)
                .collect(),
            Mode::Backup(_) => {
                let me = self.me.id;
                self.plan(partition)
                    .holders
                    .iter()
                    .copied()
                    .filter(|id| *id != me)
                    .collect()
            }
        };
        let (all, one) = (None, Some(1));
        let affinity = self.config.affinity;
        let count = match (self.config.acknowledge, self.config.mode, affinity) {
            (Acknowledge::Local, ..) | (Acknowledge::Auto, Mode::All, true) => Some(0),
            (Acknowledge::One, ..) => one,
            (Acknowledge::Auto, Mode::Backup(_), true) => Some(holders.len().min(1)),
            (Acknowledge::Quorum, ..) => Some(self.holders_known() / 2),
            (Acknowledge::All, ..) | (Acknowledge::Auto, _, false) => all,
        };
        if count.is_some() && !ends {
            return Need {
                count,
                everybody: false,
                from: holders,
            };
        }
        let mut from = holders;
        if self.config.mode != Mode::All {
            // Whoever may answer a read: also those that hold it in the eyes of a member with an older view, and the
            // home that a member without the entry asks.
            let readers = self.plan(partition).readers.clone();
            let home = self.acting_home(partition);
            let in_reach = |id: &NodeId| self.members.get(id).is_some_and(|m| m.serves() && m.in_reach());
            let more: Vec<NodeId> = readers
                .into_iter()
                .chain([home])
                .filter(|id| !from.contains(id) && in_reach(id))
                .collect();
            from.extend(more);
        }
        // A member that is about to become active, unknown to us, must not serve what it has not got.
        let joining = self
            .members
            .iter()
            .filter(|(_, m)| m.state == MemberState::Joining && m.in_reach());
        from.extend(joining.map(|(id, _)| *id));
        Need {
            count,
            everybody: true,
            from,
        }
    }

    /// How many holders a key has, this one included, in reach or not.
    fn holders_known(&self) -> usize {
        let serving = self.members.values().filter(|m| m.serves() && !m.dead).count() + 1;
        match self.config.mode {
            Mode::All => serving,
            Mode::Backup(backups) => serving.min(usize::from(backups) + 1),
        }
    }

    /// Confirmations have come for these.
    pub(super) fn confirmed(&mut self, now: Now, tickets: &[TicketId], out: &mut Vec<Output>) {
        for ticket in tickets {
            let Some(waiting) = self.waiting.get_mut(ticket) else {
                continue;
            };
            waiting.outstanding -= 1;
            if let Some(need) = &mut waiting.need {
                *need = need.saturating_sub(1);
            }
            if waiting.is_done() {
                self.finish_waiting(now, *ticket, None, out);
            }
        }
    }

    /// These cannot be confirmed by a member that is out of reach.
    pub(super) fn unconfirmed(&mut self, now: Now, tickets: &[TicketId], out: &mut Vec<Output>) {
        for ticket in tickets {
            let Some(waiting) = self.waiting.get_mut(ticket) else {
                continue;
            };
            waiting.outstanding -= 1;
            match waiting.need {
                Some(need) if waiting.outstanding < need => {
                    self.finish_waiting(now, *ticket, Some(CommandError::NoReplicas), out);
                }
                _ if waiting.is_done() => self.finish_waiting(now, *ticket, None, out),
                _ => {}
            }
        }
    }

    /// The upstream store has these, or is waited for no longer.
    pub(super) fn upstream_done(&mut self, now: Now, tickets: &[TicketId], out: &mut Vec<Output>) {
        for ticket in tickets {
            let Some(waiting) = self.waiting.get_mut(ticket) else {
                continue;
            };
            waiting.upstream = false;
            if waiting.is_done() {
                self.finish_waiting(now, *ticket, None, out);
            }
        }
    }

    fn finish_waiting(
        &mut self,
        now: Now,
        ticket: TicketId,
        error: Option<CommandError>,
        out: &mut Vec<Output>,
    ) {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return;
        };
        self.deadlines.remove(&(waiting.deadline_ms, ticket));
        let mut outcome = waiting.outcome;
        if let Some(error) = error {
            outcome.reply = Reply::Error(error);
            if let Some(lock) = outcome.lock.take() {
                self.take_back(now, &lock);
            }
        }
        self.deliver(now, waiting.asker, outcome, out);
    }

    /// A lock whose owner is told that there was an error is nobody's: without this, all would wait until its life is over, the
    /// one who asked for it among them. Only who still decides may do so: under another home it may have been given by now.
    fn take_back(&mut self, now: Now, lock: &Granted) {
        let place = self.locate(&lock.key);
        let stands = self
            .store
            .live(&lock.key, now.wall_ms)
            .is_some_and(|entry| entry.version() == lock.version);
        let decides = self.homes.acts(place.partition) && self.may_decide(now) == Standing::Confirmed;
        if stands && decides {
            self.changes.clear();
            let release = Op::Delete {
                condition: Condition::Always,
            };
            self.apply(now, Base::Nothing, None, &lock.key, place, &release);
            self.publish();
            self.counters.locks_taken_back += 1;
        }
    }

    /// The time of this ticket is over, if it still waits for confirmations.
    pub(super) fn acknowledge_timed_out(&mut self, now: Now, ticket: TicketId, out: &mut Vec<Output>) {
        let Some(waiting) = self.waiting.get(&ticket) else {
            return;
        };
        let enough = waiting.need == Some(0) || (waiting.need.is_none() && waiting.outstanding == 0);
        if waiting.upstream
            && let Some(upstream) = &mut self.upstream
        {
            upstream.lags();
        }
        let error = (!enough).then_some(CommandError::NoReplicas);
        self.finish_waiting(now, ticket, error, out);
    }
}

#[cfg(test)]
mod tests;
