//! Writes: what an operation does to the store of the node that decides about the key.

mod fields;
mod strings;

use super::client::Base;
use super::clock::{Clock, Now};
use super::command::{CommandError, Condition, ExpireCondition, Kind, Op, Reply, Restored, SetExpiry};
use super::read::{self, token};
use super::version::{NodeId, Version};
use super::{Hlc, Incarnation};
use crate::store::{Content, Entry, EntryState, Expiry, SlotId, Store};

/// What of an entry the others have to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: SlotId,
    pub(super) what: What,
    /// The earliest time of the change; fields written since are part of it.
    pub(super) since: Hlc,
}

/// The extent of a change. Later ones include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The expiry alone.
    Touch,
    /// Some fields, and the expiry.
    Fields,
    /// Everything.
    Whole,
}

/// How far apart the clocks of members may be, milliseconds, for a deletion to hold of what this member has not seen written.
const CLOCKS_AGREE_MS: u64 = 1_000;

/// The limits that writes obey.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_value: usize,
    pub(super) logout_guard_ms: u64,
    /// Some members are, or have just been, out of reach: what only they know under the key is deleted, too.
    pub(super) blind: bool,
    /// For a lock: the longest life.
    pub(super) max_ttl_ms: Option<u64>,
    /// Broken on purpose: every write starts anew where the old incarnation is over.
    #[cfg(test)]
    pub(super) ignore_incarnation: bool,
}

/// One operation in the making.
pub(super) struct Apply<'a> {
    /// The entry of the key, if there is one.
    pub(super) id: Option<SlotId>,
    pub(super) store: &'a mut Store,
    pub(super) clock: &'a mut Clock,
    pub(super) changes: &'a mut Vec<Change>,
    pub(super) now: Now,
    pub(super) node: NodeId,
    pub(super) key: &'a [u8],
    pub(super) partition: u16,
    pub(super) base: Base,
    /// When the command was given, if it may have been carried out before. What was written since either is its own work or
    /// comes after it: it must not be undone.
    pub(super) given: Option<Hlc>,
    pub(super) limits: Limits,
}

/// Where a write goes.
#[derive(Clone, Copy)]
struct Target {
    id: SlotId,
    created: bool,
    version: Version,
}

type Outcome = Result<Reply, CommandError>;

impl Apply<'_> {
    /// Carries out an operation and says what to answer.
    pub(super) fn run(&mut self, op: &Op<'_>) -> Reply {
        if op.is_read() {
            return read::answer(self.live(), op, self.now.wall_ms);
        }
        self.write(op).unwrap_or_else(Reply::Error)
    }

    fn write(&mut self, op: &Op<'_>) -> Outcome {
        match op {
            Op::Set {
                value,
                flags,
                expiry,
                condition,
                want_old,
            } => self.set(value, *flags, *expiry, *condition, *want_old),
            Op::Delete { condition } => self.delete(*condition),
            Op::Take => {
                let reply = read::answer(self.live(), &Op::Get, self.now.wall_ms);
                if matches!(reply, Reply::Bytes(_)) {
                    self.kill();
                }
                Ok(reply)
            }
            Op::Expire { at_ms, condition } => Ok(self.expire(*at_ms, *condition)),
            Op::ExpireIfEquals { value, at_ms } => {
                if self.live_string()?.is_some_and(|entry| entry.value() == *value) {
                    return Ok(self.expire(*at_ms, ExpireCondition::Always));
                }
                Ok(Reply::Int(0))
            }
            Op::Persist => Ok(self.persist()),
            Op::GetAndExpire { expiry } => {
                let reply = read::answer(self.live(), &Op::Get, self.now.wall_ms);
                if matches!(reply, Reply::Bytes(_)) {
                    match expiry {
                        SetExpiry::Keep => {}
                        SetExpiry::Never => {
                            self.persist();
                        }
                        SetExpiry::At(at_ms) => {
                            self.expire(*at_ms, ExpireCondition::Always);
                        }
                    }
                }
                Ok(reply)
            }
            Op::Append {
                value,
                in_front,
                create,
            } => self.append(value, *in_front, *create),
            Op::Increment { by } => self.increment(*by),
            Op::IncrementFloat { by } => self.increment_float(*by),
            Op::Counter { by, down, initial } => self.counter(*by, *down, *initial),
            Op::PutFields {
                kind,
                fields,
                only_absent,
            } => self.put_fields(*kind, fields, *only_absent),
            Op::RemoveFields { kind, fields } => self.remove_fields(*kind, fields),
            Op::IncrementField { field, by } => self.increment_field(field, *by),
            Op::IncrementFieldFloat { kind, field, by } => self.increment_field_float(*kind, field, *by),
            Op::Bury {
                redirect,
                token: expected,
            } => {
                if self.live().is_some_and(|entry| token(Some(entry)) != *expected) {
                    return Ok(Reply::Int(0));
                }
                let version = self.stamp();
                self.bury(version, version, redirect);
                Ok(Reply::Int(1))
            }
            Op::Restore {
                content,
                expires_ms,
                only_absent,
            } => Ok(self.restore(content, *expires_ms, *only_absent)),
            _ => Err(CommandError::Malformed),
        }
    }

    /// Puts a whole entry in a new incarnation.
    fn restore(&mut self, content: &Restored<'_>, expires_ms: u64, only_absent: bool) -> Reply {
        let begun = self.live().map(|entry| entry.incarnation().at);
        // A try before may have put it there, and its user may have logged out since.
        let ended = self
            .entry()
            .filter(|entry| entry.is_dead())
            .map(|entry| entry.version().at);
        if begun.or(ended).is_some_and(|at| self.is_overtaken_by(at)) {
            self.confirm();
            return Reply::Int(1);
        }
        if only_absent && begun.is_some() {
            return Reply::Int(0);
        }
        let version = self.stamp();
        let kind = match content {
            Restored::String { .. } => Kind::String,
            Restored::Fields { kind, .. } => *kind,
        };
        let placed = self.store.place(self.id, self.key, self.partition, kind, version);
        self.id = Some(placed.id);
        match content {
            Restored::String { value, flags } => self.store.set_value(placed.id, value, *flags, version),
            Restored::Fields { fields, .. } => {
                for (name, value) in fields {
                    self.store.put_field(placed.id, name, Some(value), version);
                }
            }
        }
        let at_ms = if expires_ms == 0 {
            self.never()
        } else {
            self.cap(expires_ms)
        };
        self.store.set_expiry(placed.id, Expiry { at_ms, version });
        self.changed(placed.id, What::Whole, version.at);
        Reply::Int(1)
    }

    /// The entry, living or dead or expired.
    fn entry(&self) -> Option<Entry<'_>> {
        self.id.and_then(|id| self.store.entry(id))
    }

    fn live(&self) -> Option<Entry<'_>> {
        self.entry().filter(|entry| entry.is_live(self.now.wall_ms))
    }

    fn live_string(&self) -> Result<Option<Entry<'_>>, CommandError> {
        self.live_of(Kind::String)
    }

    fn live_of(&self, kind: Kind) -> Result<Option<Entry<'_>>, CommandError> {
        match self.live() {
            Some(entry) if entry.kind() != Some(kind) => Err(CommandError::WrongType),
            entry => Ok(entry),
        }
    }

    /// Whether what was written at a time stands, as the command is of before.
    fn is_overtaken_by(&self, at: Hlc) -> bool {
        self.given.is_some_and(|given| at > given)
    }

    /// Lets others confirm what is here, as if it had been written now: the answer must not come before.
    fn confirm(&mut self) {
        if let (Some(id), Some(given)) = (self.id, self.given) {
            self.changed(id, What::Whole, given);
        }
    }

    /// A version above everything known of the key.
    fn stamp(&mut self) -> Version {
        if let Some(newest) = self.entry().map(Entry::newest) {
            self.clock.observe(newest);
        }
        Version {
            at: self.clock.tick(self.now.wall_ms),
            node: self.node,
        }
    }

    /// The incarnation that a write belongs to; `None` when that one is over, so that the write has no effect: it is
    /// as if it had come before the deletion. `create` says that the client asked for a new entry expressly.
    fn incarnation(&self, kind: Kind, create: bool, stamp: Version) -> Option<Incarnation> {
        let base = if create { Base::Unknown } else { self.base };
        #[cfg(test)]
        let (base, create) = if self.limits.ignore_incarnation {
            (Base::Unknown, true)
        } else {
            (base, create)
        };
        let Some(entry) = self.entry() else {
            // Whoever decides knows of every incarnation that lives: what was read and is not known has ended.
            return (!matches!(base, Base::Read(_))).then_some(stamp);
        };
        let here = entry.incarnation();
        match base {
            Base::Read(read) if here > read => None,
            Base::Read(read) if here < read => Some(read),
            Base::Read(_) if entry.is_dead() => None,
            Base::Read(read) => Some(if entry.kind() == Some(kind) { read } else { stamp }),
            Base::Unknown if entry.is_dead() && !create => {
                let age = self.now.wall_ms.saturating_sub(entry.version().at.ms());
                let guarded = age < self.limits.logout_guard_ms;
                (!guarded).then_some(stamp)
            }
            Base::Unknown | Base::Nothing => {
                let goes_on = entry.is_live(self.now.wall_ms) && entry.kind() == Some(kind);
                Some(if goes_on { here } else { stamp })
            }
        }
    }

    fn target(&mut self, kind: Kind, create: bool) -> Option<Target> {
        let version = self.stamp();
        let incarnation = self.incarnation(kind, create, version)?;
        let placed = self
            .store
            .place(self.id, self.key, self.partition, kind, incarnation);
        self.id = Some(placed.id);
        if placed.created {
            self.store.set_expiry(
                placed.id,
                Expiry {
                    at_ms: self.never(),
                    version,
                },
            );
        }
        Some(Target {
            id: placed.id,
            created: placed.created,
            version,
        })
    }

    /// The expiry of an entry for which none is asked: 0, but for locks.
    fn never(&self) -> u64 {
        self.limits.max_ttl_ms.map_or(0, |ttl| self.now.wall_ms + ttl)
    }

    fn cap(&self, at_ms: u64) -> u64 {
        self.limits
            .max_ttl_ms
            .map_or(at_ms, |ttl| at_ms.min(self.now.wall_ms + ttl))
    }

    fn changed(&mut self, id: SlotId, what: What, since: Hlc) {
        self.changes.push(Change { id, what, since });
    }

    fn check_size(&self, len: usize) -> Result<(), CommandError> {
        if len > self.limits.max_value {
            Err(CommandError::ValueTooLong)
        } else {
            Ok(())
        }
    }

    /// What to answer when a condition does not hold.
    fn refused(&self, condition: Condition<'_>) -> Result<Option<Reply>, CommandError> {
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => self.live().is_none(),
            Condition::Present => self.live().is_some(),
            Condition::Equals(value) => self.live_string()?.is_some_and(|entry| entry.value() == value),
            Condition::Token(expected) => match self.live() {
                Some(entry) if token(Some(entry)) != expected => return Ok(Some(Reply::Int(0))),
                entry => entry.is_some(),
            },
        };
        Ok((!holds).then_some(Reply::Nil))
    }

    /// Moves the end of an entry's life, and tells the others when it matters to them.
    fn touch(&mut self, id: SlotId, at_ms: u64, version: Version) {
        let at_ms = self.cap(at_ms);
        if !self.store.extend(id, at_ms) {
            self.store.set_expiry(id, Expiry { at_ms, version });
            self.changed(id, What::Touch, version.at);
        }
    }

    fn set_expiry(&mut self, id: SlotId, at_ms: u64, version: Version) -> bool {
        if self
            .store
            .entry(id)
            .is_some_and(|entry| entry.expires_ms().unwrap_or(0) == at_ms)
        {
            return false;
        }
        self.store.set_expiry(id, Expiry { at_ms, version });
        self.changed(id, What::Touch, version.at);
        true
    }

    fn delete(&mut self, condition: Condition<'_>) -> Outcome {
        if self.refused(condition)?.is_some() {
            return Ok(Reply::Int(0));
        }
        // A session that began after its deletion. In doubt it ends: a logout has to hold, whatever clocks say.
        let began_since = self
            .given
            .zip(self.entry())
            .is_some_and(|(given, entry)| entry.incarnation().at.ms() > given.ms() + CLOCKS_AGREE_MS);
        if condition == Condition::Always && began_since {
            self.confirm();
            return Ok(Reply::Int(1));
        }
        Ok(Reply::Int(i64::from(self.kill())))
    }

    /// Deletes the entry, and says whether a client could see it.
    fn kill(&mut self) -> bool {
        let was_live = self.live().is_some();
        let version = self.stamp();
        match self.entry().map(Entry::is_dead) {
            Some(true) | None if self.limits.blind => {
                // Whoever created it there may have a clock that is ahead of this one.
                let at = self.clock.tick(self.now.wall_ms + CLOCKS_AGREE_MS);
                let version = Version { at, ..version };
                self.bury(version, version, &[]);
            }
            Some(true) => return false,
            // Everything created before now is over, also what another member may have created in a view of its own.
            Some(false) => self.bury(version, version, &[]),
            None => {
                // What the client has read is not known here (any more); its deletion has to hold all the same.
                let Base::Read(incarnation) = self.base else {
                    return false;
                };
                self.bury(incarnation, version, &[]);
            }
        }
        was_live
    }

    /// Puts a tombstone: of one incarnation and all before it.
    fn bury(&mut self, incarnation: Incarnation, version: Version, redirect: &[u8]) {
        let content = Content::Dead { version, redirect };
        let state = EntryState {
            key: self.key,
            incarnation,
            content,
            expiry: None,
        };
        self.store
            .merge(self.partition, &state, self.now.wall_ms, Hlc::ZERO);
        self.id = self.store.find(self.key);
        if let Some(id) = self.id {
            self.changed(id, What::Whole, version.at);
        }
    }

    fn expire(&mut self, at_ms: u64, condition: ExpireCondition) -> Reply {
        let Some(entry) = self.live() else {
            return Reply::Int(0);
        };
        if let Base::Read(read) = self.base
            && entry.incarnation() > read
        {
            return Reply::Int(1);
        }
        let present = entry.expires_ms();
        let holds = match condition {
            ExpireCondition::Always => true,
            ExpireCondition::NoExpiry => present.is_none(),
            ExpireCondition::HasExpiry => present.is_some(),
            ExpireCondition::Later => present.is_some_and(|present| at_ms > present),
            ExpireCondition::Earlier => present.is_none_or(|present| at_ms < present),
        };
        let Some(id) = self.id.filter(|_| holds) else {
            return Reply::Int(0);
        };
        if at_ms <= self.now.wall_ms {
            self.kill();
        } else {
            let version = self.stamp();
            self.touch(id, at_ms, version);
        }
        Reply::Int(1)
    }

    fn persist(&mut self) -> Reply {
        let had_expiry = self.live().is_some_and(|entry| entry.expires_ms().is_some());
        let Some(id) = self.id.filter(|_| had_expiry) else {
            return Reply::Int(0);
        };
        let version = self.stamp();
        let at_ms = self.never();
        self.set_expiry(id, at_ms, version);
        Reply::Int(1)
    }
}
