//! Changes to single entries. Every change goes through [`Store::change`], which keeps digests and accounts right.

use super::fields::Fields;
use super::slot::{Body, FLAGS_LEN, Slot, State};
use super::{Bucket, Expiry, SlotId, Store, spread};
use crate::core::{Hlc, Incarnation, Kind, Version};

/// What [`Store::place`] found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub id: SlotId,
    /// Whether a new incarnation began.
    pub created: bool,
}

impl Store {
    /// Changes a slot, with digest and memory account kept up to date around it.
    pub(super) fn change(&mut self, id: u32, change: impl FnOnce(&mut Slot)) {
        self.toggle_digest(id);
        if let Some(slot) = self.slots.get_mut(id) {
            let before = slot.body_bytes();
            let dead_before = slot.state == State::Dead;
            let unlimited_before = slot.is_unlimited();
            change(slot);
            self.unlimited =
                self.unlimited + usize::from(slot.is_unlimited()) - usize::from(unlimited_before);
            self.body_bytes = self.body_bytes + slot.body_bytes() - before;
            let dead = slot.state == State::Dead;
            self.tombstones = self.tombstones + usize::from(dead) - usize::from(dead_before);
        }
        self.toggle_digest(id);
    }

    /// Makes a new, empty entry for a key that has none.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        partition: u16,
        state: State,
        incarnation: Incarnation,
    ) -> u32 {
        let node = self.intern(incarnation.node);
        let slot = Slot {
            body: empty_body(key, state),
            state,
            partition,
            key_len: u16::try_from(key.len()).unwrap_or(u16::MAX),
            incarnation_at: incarnation.at,
            incarnation_node: node,
            version_at: incarnation.at,
            version_node: node,
            ..Slot::free()
        };
        self.body_bytes += slot.body_bytes();
        self.tombstones += usize::from(state == State::Dead);
        self.unlimited += usize::from(slot.is_unlimited());
        let id = self.slots.insert(slot);
        let (hash, short) = self.hash(key);
        self.table.insert_unique(
            hash,
            Bucket {
                hash: short,
                slot: id,
            },
            |bucket| spread(bucket.hash),
        );
        self.toggle_digest(id);
        id
    }

    /// Starts a new incarnation in place: nothing of the old one stays.
    pub(super) fn renew(&mut self, id: u32, state: State, incarnation: Incarnation) {
        let node = self.intern(incarnation.node);
        self.change(id, |slot| {
            *slot = Slot {
                body: empty_body(slot.key(), state),
                state,
                partition: slot.partition,
                key_len: slot.key_len,
                incarnation_at: incarnation.at,
                incarnation_node: node,
                version_at: incarnation.at,
                version_node: node,
                ..Slot::free()
            };
        });
    }

    /// The entry of a key in the given incarnation, made or renewed when it is not there. `found` is where the key is,
    /// as [`Store::find`] says. The caller has made sure that the incarnation may be begun and is not older than what
    /// is there.
    pub fn place(
        &mut self,
        found: Option<SlotId>,
        key: &[u8],
        partition: u16,
        kind: Kind,
        incarnation: Incarnation,
    ) -> Placed {
        let state = State::of_kind(kind);
        match found {
            Some(id) => {
                let present = self.entry(id).map(|entry| (entry.incarnation(), entry.is_dead()));
                let created = present != Some((incarnation, false));
                if created {
                    self.renew(id.0, state, incarnation);
                }
                Placed { id, created }
            }
            None => Placed {
                id: SlotId(self.insert(key, partition, state, incarnation)),
                created: true,
            },
        }
    }

    /// Writes a string's value.
    pub fn set_value(&mut self, id: SlotId, value: &[u8], flags: u32, version: Version) {
        let node = self.intern(version.node);
        self.change(id.0, |slot| {
            slot.state = if flags == 0 { State::String } else { State::Item };
            slot.version_at = version.at;
            slot.version_node = node;
            let key_len = usize::from(slot.key_len);
            let head = key_len + if flags == 0 { 0 } else { FLAGS_LEN };
            let Body::Blob(blob) = &mut slot.body else { return };
            if blob.len() != head + value.len() {
                let mut grown = Vec::with_capacity(head + value.len());
                grown.extend_from_slice(blob.get(..key_len).unwrap_or_default());
                if flags != 0 {
                    grown.extend_from_slice(&flags.to_le_bytes());
                }
                grown.extend_from_slice(value);
                *blob = grown.into_boxed_slice();
                return;
            }
            let (before, tail) = blob.split_at_mut(head);
            tail.copy_from_slice(value);
            if flags != 0
                && let Some(place) = before.get_mut(key_len..)
            {
                place.copy_from_slice(&flags.to_le_bytes());
            }
        });
    }

    /// Writes or removes a field.
    pub fn put_field(&mut self, id: SlotId, name: &[u8], value: Option<&[u8]>, version: Version) {
        let node = self.intern(version.node);
        let newest = self.entry(id).is_some_and(|entry| entry.version() < version);
        self.change(id.0, |slot| {
            if newest {
                slot.version_at = version.at;
                slot.version_node = node;
            }
            if let Some(fields) = slot.fields_mut() {
                fields.put(name, value, version.at, node);
            }
        });
    }

    /// Writes the expiry register.
    pub fn set_expiry(&mut self, id: SlotId, expiry: Expiry) {
        let node = self.intern(expiry.version.node);
        let Some(slot) = self.slots.get(id.0) else {
            return;
        };
        let unlimited_before = slot.is_unlimited();
        self.change_expiry(id.0, |slot| {
            slot.expire_ms = expiry.at_ms;
            slot.expiry_at = expiry.version.at;
            slot.expiry_node = node;
            slot.extension_ms = 0;
        });
        let unlimited = self.slots.get(id.0).is_some_and(Slot::is_unlimited);
        self.unlimited = self.unlimited + usize::from(unlimited) - usize::from(unlimited_before);
        if expiry.at_ms != 0 {
            let ttl = expiry.at_ms.saturating_sub(expiry.version.at.ms());
            self.longest_ttl_ms = self.longest_ttl_ms.max(ttl);
            self.slots.wake(id.0, expiry.at_ms);
        } else if self.unlimited_ttl_ms != 0 {
            self.slots
                .wake(id.0, expiry.version.at.ms() + self.unlimited_ttl_ms);
        }
    }

    /// Extends an entry's life for this node alone, when that is little enough for the others not to notice. `false`
    /// when they have to be told instead.
    pub fn extend(&mut self, id: SlotId, at_ms: u64) -> bool {
        let node = self.node;
        let owned = self
            .entry(id)
            .is_some_and(|entry| entry.expiry().version.node == node);
        let Some(slot) = self.slots.get_mut(id.0) else {
            return false;
        };
        slot.revisited = true;
        // Members other than the owner of the register allow `slack` beyond it; only then does nobody drop it early.
        let Some(extension) = at_ms.checked_sub(slot.expire_ms).filter(|_| slot.expire_ms != 0) else {
            return false;
        };
        if extension > slot.slack_ms() || !owned {
            return false;
        }
        slot.extension_ms = u16::try_from(extension).unwrap_or(u16::MAX);
        true
    }

    /// Notes that a client has come back to the entry.
    pub fn revisit(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id.0) {
            slot.revisited = true;
        }
    }

    /// Turns an entry into a tombstone of its incarnation.
    pub fn kill(&mut self, id: SlotId, version: Version, redirect: &[u8]) {
        let node = self.intern(version.node);
        self.change(id.0, |slot| {
            let mut blob = Vec::with_capacity(slot.key().len() + redirect.len());
            blob.extend_from_slice(slot.key());
            blob.extend_from_slice(redirect);
            slot.body = Body::Blob(blob.into_boxed_slice());
            slot.state = State::Dead;
            slot.version_at = version.at;
            slot.version_node = node;
            slot.expire_ms = 0;
            slot.extension_ms = 0;
        });
    }

    /// Removes an entry without a trace.
    pub fn remove(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get(id.0) else { return };
        let (hash, short) = self.hash(slot.key());
        if let Ok(found) = self
            .table
            .find_entry(hash, |bucket| bucket.slot == id.0 && bucket.hash == short)
        {
            found.remove();
        }
        self.toggle_digest(id.0);
        if let Some(slot) = self.slots.remove(id.0) {
            self.body_bytes -= slot.body_bytes();
            self.tombstones -= usize::from(slot.state == State::Dead);
            self.unlimited -= usize::from(slot.is_unlimited());
        }
    }

    /// Drops field tombstones not later than `stable`.
    pub(super) fn purge_fields(&mut self, id: u32, stable: Hlc) {
        self.change(id, |slot| {
            if let Some(fields) = slot.fields_mut() {
                fields.purge(stable);
            }
        });
    }
}

/// A body with nothing but the key.
fn empty_body(key: &[u8], state: State) -> Body {
    match state {
        State::Hash | State::Set | State::SortedSet => Body::Fields(Box::new(Fields::new(key))),
        State::Free | State::String | State::Item | State::Dead => Body::Blob(key.into()),
    }
}
