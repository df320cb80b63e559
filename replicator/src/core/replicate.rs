//! Changes on their way: from the store into the streams, from the streams into frames, from frames into the store.

use bytes::Bytes;

use super::apply::{Change, What};
use super::clock::{Hlc, Now};
use super::config::Mode;
use super::io::{Event, KeyEvent, Output};
use super::members::Member;
use super::node::Core;
use super::upstream::Upstream;
use super::version::NodeId;
use super::wire::{PeerMessage, Writer};
use crate::store::{Content, EntryState, Store};

/// Bytes of entries in a batch, about; a single longer entry goes alone.
const BATCH_BYTES: usize = 64 << 10;

/// Entries encoded for one member, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    wire: u8,
    changes: Vec<Change>,
    body: Vec<u8>,
}

impl Core {
    /// Puts `self.changes` into the streams of those that have to know, and says under which numbers.
    pub(super) fn publish(&mut self) -> Vec<(NodeId, u64)> {
        let mut numbers: Vec<(NodeId, u64)> = Vec::new();
        let changes = std::mem::take(&mut self.changes);
        self.stirred |= !changes.is_empty();
        let mut lost = Vec::new();
        for change in &changes {
            let writers = match self.config.mode {
                Mode::All => None,
                Mode::Backup(_) => {
                    let partition = self.store.entry(change.id).map(crate::store::Entry::partition);
                    let partition = partition.unwrap_or_default();
                    Some((self.plan(partition), self.acting_home(partition)))
                }
            };
            self.publish_upstream(change);
            for (id, member) in &mut self.members {
                let concerned = writers
                    .as_ref()
                    .is_none_or(|(plan, home)| home == id || plan.writers.binary_search(id).is_ok());
                if !concerned {
                    continue;
                }
                let (number, dropped) = member.out.push(change);
                if !dropped.is_empty() {
                    lost.extend(dropped);
                }
                match numbers.iter_mut().find(|(node, _)| node == id) {
                    Some((_, last)) => *last = number,
                    None => numbers.push((*id, number)),
                }
            }
        }
        self.changes = changes;
        self.changes.clear();
        self.lost_tickets.extend(lost);
        numbers
    }

    /// Sends what waits for everybody, as far as there is room.
    pub(super) fn flush(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.lost_tickets.is_empty() {
            let lost = std::mem::take(&mut self.lost_tickets);
            self.unconfirmed(now, &lost, out);
        }
        if !self.upstream_released.is_empty() {
            let released = std::mem::take(&mut self.upstream_released);
            self.upstream_done(now, &released, out);
        }
        // Most of what happens concerns no stream, and with hundreds of members a look at each costs more than it does.
        if !std::mem::take(&mut self.stirred) {
            return;
        }
        let mut encoded = Encoded::default();
        let due: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.in_reach() && m.out.is_due())
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.flush_member(now, id, &mut encoded, out);
        }
        let unconfirmed = |m: &Member| m.in_reach() && m.out.head() > m.out.acked();
        self.unconfirmed_out = self.members.values().any(unconfirmed);
    }

    /// Whether [`Input::Flush`](super::Input::Flush) has anything to do: a member that is alone has nobody to tell.
    pub fn wants_flush(&self) -> bool {
        let upstream = self.upstream.as_ref().is_some_and(Upstream::is_due);
        upstream
            || !self.lost_tickets.is_empty()
            || (self.stirred && self.members.values().any(|m| m.in_reach() && m.out.is_due()))
    }

    /// Sends what waits for one member.
    pub(super) fn flush_to(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        self.flush_member(now, id, &mut Encoded::default(), out);
    }

    fn flush_member(&mut self, now: Now, id: NodeId, encoded: &mut Encoded, out: &mut Vec<Output>) {
        let Self {
            members,
            store,
            clock,
            ..
        } = self;
        let Some(member) = members.get_mut(&id) else {
            return;
        };
        let Some(link) = member.link else { return };
        while member.out.is_due() {
            let size = |slot| store.entry(slot).map_or(0, crate::store::Entry::bytes);
            let portion = member.out.next(BATCH_BYTES, size);
            if encoded.wire != member.wire || encoded.changes != portion.changes {
                *encoded = encode(store, member.wire, portion.changes);
            }
            let newest = portion.last == member.out.head();
            let as_of = if newest {
                clock.reading(now.wall_ms)
            } else {
                Hlc::ZERO
            };
            let mut writer = Writer::new(member.wire);
            super::wire::batch_head(&mut writer, portion.first, portion.last, as_of, portion.reset);
            writer.raw(&encoded.body);
            let frame = Bytes::from(writer.into_bytes());
            member.out.sent(portion.last, frame.len(), now.mono_ms);
            out.push(Output::Send { link, frame });
            if portion.last < portion.first {
                break;
            }
        }
    }

    /// A batch has come.
    pub(super) fn on_batch(
        &mut self,
        now: Now,
        from: NodeId,
        (first, last, reset): (u64, u64, bool),
        as_of: Hlc,
        entries: &[EntryState<'_>],
        out: &mut Vec<Output>,
    ) {
        self.absorb(now, from, entries, out);
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if reset && first > member.received + 1 {
            member.received = first - 1;
            self.after_gap(from);
            out.push(Output::Log(Event::RingOverrun(from)));
        }
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let gap = first > member.received + 1;
        if !gap {
            if last >= member.received && as_of > member.as_of {
                member.as_of = as_of;
            }
            member.received = member.received.max(last);
        }
        let upto = member.received;
        self.send(from, &PeerMessage::Ack { upto, gap }, out);
        if !gap {
            self.arrived(now, from, out);
        }
    }

    /// A confirmation has come.
    pub(super) fn on_ack(&mut self, now: Now, from: NodeId, upto: u64, gap: bool, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let done = member.out.confirm(upto, now.mono_ms);
        #[cfg(test)]
        let gap = gap && self.config.faults != super::config::Faults::NothingSentAgain;
        if gap {
            member.out.rewind();
        }
        self.stirred |= member.out.is_due();
        self.confirmed(now, &done, out);
    }

    /// Merges states that a member has sent.
    pub(super) fn absorb(
        &mut self,
        now: Now,
        from: NodeId,
        entries: &[EntryState<'_>],
        out: &mut Vec<Output>,
    ) {
        let stable = self.stable();
        let mut missing: Vec<&[u8]> = Vec::new();
        for state in entries {
            let partition = self.partition(state.key);
            self.clock.observe(newest(state));
            self.confirm_doubtful(state);
            let merged = self.store.merge(partition, state, now.wall_ms, stable);
            if merged.incomplete {
                missing.push(state.key);
            }
            if merged.lost {
                self.counters.conflicts += 1;
            }
            if merged.changed && self.key_events && matches!(state.content, Content::Dead { .. }) {
                out.push(Output::KeyEvent {
                    key: state.key.into(),
                    what: KeyEvent::Deleted,
                });
            }
        }
        if !missing.is_empty() {
            self.send(from, &PeerMessage::Fetch { keys: missing }, out);
        }
    }

    /// A member asks for the whole of some entries.
    pub(super) fn on_fetch(&mut self, from: NodeId, keys: &[&[u8]], out: &mut Vec<Output>) {
        let states: Vec<_> = keys
            .iter()
            .filter_map(|key| self.store.lookup(key))
            .map(crate::store::Entry::state)
            .collect();
        let frame = self
            .members
            .get(&from)
            .map(|m| PeerMessage::Entries(states).encode(m.wire));
        if let Some(frame) = frame {
            self.send_frame(from, frame, out);
        }
    }

    /// Sends again what should have been confirmed by now.
    pub(super) fn resend_overdue(&mut self, now: Now) {
        #[cfg(test)]
        if self.config.faults == super::config::Faults::NothingSentAgain {
            return;
        }
        let before_ms = now.mono_ms.saturating_sub(self.config.resend_ms);
        for member in self.members.values_mut() {
            if member.in_reach() && member.out.is_overdue(before_ms) {
                member.out.rewind();
            }
        }
    }
}

fn encode(store: &Store, wire: u8, changes: Vec<Change>) -> Encoded {
    let mut writer = Writer::new(wire);
    for change in &changes {
        // What has expired since need not be told.
        let Some(entry) = store.entry(change.id) else {
            continue;
        };
        let state = match change.what {
            What::Touch if !entry.is_dead() => entry.touch_state(),
            What::Fields => entry.state_since(change.since),
            What::Touch | What::Whole => entry.state(),
        };
        writer.entry(&state);
    }
    writer.end_entries();
    Encoded {
        wire,
        changes,
        body: writer.into_bytes(),
    }
}

/// The latest time in a state.
fn newest(state: &EntryState<'_>) -> Hlc {
    let content = match &state.content {
        Content::Unsaid => Hlc::ZERO,
        Content::Dead { version, .. } | Content::Value { version, .. } => version.at,
        Content::Fields { fields, .. } => fields.iter().map(|f| f.version.at).max().unwrap_or_default(),
    };
    content
        .max(state.incarnation.at)
        .max(state.expiry.map_or(Hlc::ZERO, |e| e.version.at))
}
