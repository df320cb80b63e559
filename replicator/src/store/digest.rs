//! Digests: per partition the XOR of a hash of every entry's state, kept up to date by each change.

use xxhash_rust::xxh3::xxh3_64;

use super::slot::{Slot, State};
use super::{Entry, NodeIndex, SlotId, Store};
use crate::core::Hlc;

/// The hash of a key that all members agree on.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Mixes two words (the finaliser of `SplitMix64`).
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(29) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Store {
    fn mix_version(&self, seed: u64, at: Hlc, node: NodeIndex) -> u64 {
        mix(mix(seed, at.0), self.nodes.id(node).0)
    }

    /// The hash of a state: incarnation, and value, fields or tombstone with their versions, and the expiry with its own.
    fn state_hash(&self, slot: &Slot) -> u64 {
        self.content_hash(slot) ^ self.expiry_hash(slot)
    }

    /// The part of a state's hash that its expiry register makes up. What never ends has none, whenever that was written.
    pub(super) fn expiry_hash(&self, slot: &Slot) -> u64 {
        if slot.expire_ms == 0 || matches!(slot.state, State::Free | State::Dead) {
            return 0;
        }
        self.mix_version(!key_hash(slot.key()), slot.expiry_at, slot.expiry_node)
    }

    fn content_hash(&self, slot: &Slot) -> u64 {
        let base = self.mix_version(key_hash(slot.key()), slot.incarnation_at, slot.incarnation_node);
        match slot.state {
            State::Free => 0,
            State::String | State::Item => self.mix_version(base, slot.version_at, slot.version_node),
            State::Dead => self.mix_version(!base, slot.version_at, slot.version_node),
            State::Hash | State::Set | State::SortedSet => slot
                .fields()
                .into_iter()
                .flat_map(super::fields::Fields::iter)
                .fold(base, |sum, field| {
                    sum ^ self.mix_version(mix(base, xxh3_64(&field.name)), field.at, field.node)
                }),
        }
    }

    /// Puts a slot's state into its partition's digest, or takes it out.
    pub(super) fn toggle_digest(&mut self, id: u32) {
        let Some(slot) = self.slots.get(id) else { return };
        let (hash, partition) = (self.state_hash(slot), usize::from(slot.partition));
        if let Some(digest) = self.digests.get_mut(partition) {
            *digest ^= hash;
        }
    }

    /// Changes a slot's expiry register, with the digest kept up to date around it: a session is touched by every request, and its
    /// fields need not be gone through for that.
    pub(super) fn change_expiry(&mut self, id: u32, change: impl FnOnce(&mut Slot)) {
        let hash = |store: &Self| store.slots.get(id).map_or(0, |slot| store.expiry_hash(slot));
        let before = hash(self);
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let partition = usize::from(slot.partition);
        change(slot);
        let after = hash(self);
        if let Some(digest) = self.digests.get_mut(partition) {
            *digest ^= before ^ after;
        }
    }

    /// All entries of the partitions that `wanted` names: place, hash of the key, hash of the state.
    pub fn hashes(&self, wanted: impl Fn(u16) -> bool) -> Vec<(SlotId, u64, u64)> {
        self.slots
            .iter_from(0)
            .filter(|(_, slot)| wanted(slot.partition))
            .map(|(id, slot)| (SlotId(id), key_hash(slot.key()), self.state_hash(slot)))
            .collect()
    }
}

impl Entry<'_> {
    /// The hash of the entry's state, as it goes into the digest.
    pub fn state_hash(self) -> u64 {
        self.store.state_hash(self.slot)
    }
}
