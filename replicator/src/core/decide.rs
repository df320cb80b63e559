//! Deciding a command: whether this member may, and what it comes to.

use super::Hlc;
use super::acknowledge::{Asker, Granted, Outcome, Patience};
use super::apply::{Apply, Limits};
use super::client::Base;
use super::clock::Now;
use super::command::{Command, CommandError, Condition, Kind, Op, Reply};
use super::groups::Located;
use super::handoff::Standing;
use super::io::Output;
use super::node::Core;
use super::read;
use super::upstream::Suspended;
use super::version::Version;
use super::wire::{OLDEST, encode_command};
use crate::store::Entry;

/// How a command went at the node that decides.
pub(super) enum Verdict {
    Done(Outcome),
    /// The reply waits for confirmations.
    Waiting,
    /// It cannot be decided at this moment.
    NotYet,
}

/// Who wants a command decided, and what they know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) asker: Asker,
    pub(super) base: Base,
    /// When the command was given.
    pub(super) given: Hlc,
    /// It may have been carried out before, and only its answer been lost.
    pub(super) retry: bool,
}

impl Asking {
    /// When the command was given, if it may have been carried out before.
    fn repeated(&self) -> Option<Hlc> {
        self.retry.then_some(self.given)
    }
}

impl Core {
    /// Whether this member may decide a command: it acts as the key's home, or the command is a plain read or write
    /// of an entry that is here and alive, in the incarnation that the client knows.
    pub(super) fn decides(&mut self, now: Now, place: Located, base: Base, command: &Command<'_>) -> bool {
        if self.homes.acts(place.partition) {
            return true;
        }
        let Command::Key { key, op } = command else {
            return false;
        };
        if op.is_conditional() || place.lock || !self.holds(place.partition) || self.settling.is_behind() {
            return false;
        }
        let Some(entry) = self.store.live(key, now.wall_ms) else {
            #[cfg(test)]
            return self.config.faults == super::config::Faults::MissNotAsked && op.is_read();
            #[cfg(not(test))]
            return false;
        };
        let current = match base {
            Base::Unknown | Base::Nothing => true,
            Base::Read(read) => read == entry.incarnation(),
        };
        current && (!matches!(op, Op::Set { .. }) || entry.kind() == Some(Kind::String))
    }

    /// Executes a command here, which decides about its keys. `place` is that of its first key.
    pub(super) fn decide(
        &mut self,
        now: Now,
        asking: Asking,
        command: &Command<'_>,
        place: Located,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Asking { asker, base, .. } = asking;
        let key = command.key().unwrap_or_default();
        let Located { hash, partition, .. } = place;
        let mut outcome = Outcome {
            reply: Reply::Nil,
            read: command.is_read(),
            key: hash,
            found: Version::ZERO,
            lock: None,
        };
        let lock = !command.is_read() && place.lock;
        // A read of what is here may be a little old; that there is nothing has to be certain.
        let here = command.is_read() && self.store.live(key, now.wall_ms).is_some();
        let certain = here && !self.settling.is_behind();
        if !certain && self.homes.acts(partition) {
            match self.may_decide(now) {
                Standing::Unconfirmed => return Verdict::NotYet,
                // Without a majority sessions go on, locks do not.
                Standing::Minority if lock && !self.config.lock_without_majority => {
                    outcome.reply = Reply::Error(CommandError::LockWithoutMajority);
                    return Verdict::Done(outcome);
                }
                Standing::Confirmed | Standing::Minority => {}
            }
        }
        if self.homes.acts(partition)
            && let Some(unknown) = self.unknown_key(now, command)
        {
            let suspended = Suspended {
                asking,
                command: encode_command(OLDEST, command),
            };
            return self.look_upstream(now, unknown, suspended, out);
        }
        if let Command::Rename {
            from,
            to,
            only_if_absent,
        } = command
        {
            return self.rename(now, asking, from, to, *only_if_absent, out);
        }
        if let Command::Key { key, op } = command
            && !op.is_read()
            && let Some(name) = self.new_name(base, key)
        {
            let asking = Asking {
                base: Base::Unknown,
                ..asking
            };
            let command = Command::Key {
                key: &name,
                op: op.clone(),
            };
            self.ask(now, asking, &command, out);
            return Verdict::Waiting;
        }
        // Nobody would know that the lock is theirs.
        if lock && command.grows() && self.lock_patience_ms(now, asking.given.ms()) == 0 {
            outcome.reply = Reply::Error(CommandError::HomeUnreachable);
            return Verdict::Done(outcome);
        }
        if command.grows() && !self.make_room(now, partition) {
            outcome.reply = Reply::Error(CommandError::OutOfMemory);
            return Verdict::Done(outcome);
        }
        self.changes.clear();
        outcome.reply = self.run(now, base, asking.repeated(), command, place);
        if lock {
            self.after_lock(command, asking.retry, &mut outcome);
        }
        outcome.found = self
            .store
            .live(key, now.wall_ms)
            .map_or(Version::ZERO, Entry::incarnation);
        let patience = if lock {
            let given_ms = asking.given.ms();
            Patience::OfLocks { given_ms }
        } else {
            Patience::OfWrites
        };
        match self.conclude(now, asker, partition, patience, outcome) {
            Some(outcome) => Verdict::Done(outcome),
            None => Verdict::Waiting,
        }
    }

    /// Looks whether a lock was granted.
    fn after_lock(&mut self, command: &Command<'_>, retry: bool, outcome: &mut Outcome) {
        let Command::Key {
            key,
            op:
                Op::Set {
                    value,
                    condition: Condition::Absent,
                    ..
                },
        } = command
        else {
            return;
        };
        // The first try may have come through, and only its answer been lost.
        let mine = self
            .store
            .lookup(key)
            .is_some_and(|entry| !entry.is_dead() && entry.value() == *value);
        if retry && mine && outcome.reply == Reply::Nil {
            outcome.reply = Reply::Ok;
        }
        if outcome.reply == Reply::Ok {
            self.counters.locks_granted += 1;
            outcome.lock = self.store.lookup(key).as_ref().map(Granted::of);
        }
    }

    /// Carries out a command on the store. `repeated` as [`Asking::repeated`] says.
    fn run(
        &mut self,
        now: Now,
        base: Base,
        repeated: Option<Hlc>,
        command: &Command<'_>,
        place: Located,
    ) -> Reply {
        match command {
            Command::Key { key, op } => self.apply(now, base, repeated, key, place, op),
            Command::Transaction { watches, steps } => {
                let changed = watches
                    .iter()
                    .any(|(key, token)| read::token(self.store.live(key, now.wall_ms)) != *token);
                if changed {
                    return Reply::Nil;
                }
                Reply::Array(
                    steps
                        .iter()
                        .map(|(key, op)| self.apply(now, Base::Unknown, None, key, self.locate(key), op))
                        .collect(),
                )
            }
            _ => Reply::Error(CommandError::Malformed),
        }
    }

    /// Carries out an operation on the store. `repeated` as [`Asking::repeated`] says.
    pub(super) fn apply(
        &mut self,
        now: Now,
        base: Base,
        repeated: Option<Hlc>,
        key: &[u8],
        place: Located,
        op: &Op<'_>,
    ) -> Reply {
        let Located { partition, lock, .. } = place;
        let limits = Limits {
            max_value: self.config.max_value,
            logout_guard_ms: self.config.logout_guard_ms,
            blind: self.is_impaired(now),
            max_ttl_ms: lock.then_some(self.config.max_lock_ttl_ms),
            #[cfg(test)]
            ignore_incarnation: self.config.faults == super::config::Faults::IncarnationIgnored,
        };
        // A lock is nobody's session: what is taken after a release is a new lock.
        let base = if lock { Base::Nothing } else { base };
        let limits = if lock {
            Limits {
                blind: false,
                ..limits
            }
        } else {
            limits
        };
        let Self {
            store,
            clock,
            changes,
            me,
            ..
        } = self;
        Apply {
            id: store.find(key),
            store,
            clock,
            changes,
            now,
            node: me.id,
            key,
            partition,
            base,
            given: repeated,
            limits,
        }
        .run(op)
    }

    /// Hands an outcome to whoever asked.
    pub(super) fn deliver(&mut self, now: Now, asker: Asker, outcome: Outcome, out: &mut Vec<Output>) {
        match asker {
            Asker::Client(ticket) => {
                let observed = outcome.read.then_some(super::client::Observed {
                    key: outcome.key,
                    incarnation: outcome.found,
                });
                if outcome.read && !matches!(outcome.reply, Reply::Error(_)) {
                    self.missed
                        .note(outcome.key, outcome.found == Version::ZERO, now.mono_ms);
                }
                out.push(Output::Complete {
                    ticket,
                    reply: outcome.reply,
                    observed,
                });
            }
            Asker::Member(node, id) => self.answer(now, node, id, &outcome, out),
            Asker::Own(ticket) => self.renamed(now, ticket, &outcome.reply, out),
        }
    }
}
