//! The entries in memory.
//!
//! Owns the representation (64 bytes and one allocation per string entry, one table of eight bytes per bucket), the
//! merge of states, the digests per partition, the removal of what has expired, and the account of memory. Knows
//! nothing of members, homes or acknowledgements, has no clock and does no I/O. One thread owns it: there are no locks.

mod digest;
mod fields;
pub mod glob;
mod merge;
mod nodes;
mod slab;
mod slot;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use digest::key_hash;
pub use merge::Merged;
pub use slot::touch_slack_ms;
pub use state::{Content, EntryState, Expiry, FieldState};
pub use sweep::Swept;
pub use write::Placed;

use crate::core::{Hlc, Incarnation, Kind, NodeId, Version};
use nodes::{NodeIndex, NodeTable};
use slab::Slab;
use slot::{Slot, State};

/// Where an entry is. Valid until the entry is removed; then it may name another one, which every user has to bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(u32);

impl SlotId {
    /// A number for tables.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// A bucket of the table: enough of the hash to compare without looking at the entry and to grow without hashing.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    hash: u32,
    slot: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    table: HashTable<Bucket>,
    slots: Slab,
    nodes: NodeTable,
    digests: Vec<u64>,
    seed: u64,
    node: NodeId,
    body_bytes: usize,
    tombstones: usize,
    longest_ttl_ms: u64,
    /// Entries without expiry, and how long those live after they were last written; 0 for always.
    unlimited: usize,
    unlimited_ttl_ms: u64,
}

/// A look at an entry, living or dead.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    store: &'a Store,
    slot: &'a Slot,
}

impl Store {
    /// An empty store of the given process. `partitions` is the number of digests; `seed` keeps the order of the table
    /// secret from whoever chooses the keys.
    pub fn new(node: NodeId, partitions: u16, seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            slots: Slab::default(),
            nodes: NodeTable::default(),
            digests: vec![0; usize::from(partitions)],
            seed,
            node,
            body_bytes: 0,
            tombstones: 0,
            longest_ttl_ms: 0,
            unlimited: 0,
            unlimited_ttl_ms: 0,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of the hash is enough to tell most keys apart"
    )]
    fn hash(&self, key: &[u8]) -> (u64, u32) {
        let hash = xxh3_64_with_seed(key, self.seed);
        // The table takes its position from the low bits and its tags from the high bits of a 64-bit hash; both are
        // made from the 32 bits that a bucket keeps, so that growing needs nothing else.
        (spread(hash as u32), hash as u32)
    }

    /// The entry of a key, living or dead or expired.
    pub fn find(&self, key: &[u8]) -> Option<SlotId> {
        let (hash, short) = self.hash(key);
        self.table
            .find(hash, |bucket| {
                bucket.hash == short && self.slots.get(bucket.slot).is_some_and(|slot| slot.key() == key)
            })
            .map(|bucket| SlotId(bucket.slot))
    }

    /// The entry at a place.
    pub fn entry(&self, id: SlotId) -> Option<Entry<'_>> {
        let slot = self.slots.get(id.0).filter(|slot| slot.state != State::Free)?;
        Some(Entry { store: self, slot })
    }

    /// The entry of a key, living or dead or expired.
    pub fn lookup(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.find(key).and_then(|id| self.entry(id))
    }

    /// The entry of a key if a client may see it.
    pub fn live(&self, key: &[u8], now_ms: u64) -> Option<Entry<'_>> {
        self.lookup(key).filter(|entry| entry.is_live(now_ms))
    }

    /// All entries, from a position on.
    pub fn iter_from(&self, position: u32) -> impl Iterator<Item = (SlotId, Entry<'_>)> {
        self.slots
            .iter_from(position)
            .map(|(id, slot)| (SlotId(id), Entry { store: self, slot }))
    }

    /// One more than the highest position in use.
    pub fn end(&self) -> u32 {
        self.slots.end()
    }

    /// Number of entries, tombstones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nothing, not even a tombstone.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }

    /// Number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Bytes that entries take, allocator overhead included.
    pub fn used_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.table.capacity() * (size_of::<Bucket>() + 1)
            + self.body_bytes
    }

    /// Sets how long entries without expiry live after they were last written, milliseconds; 0 for always.
    pub fn set_unlimited_ttl(&mut self, ttl_ms: u64) {
        self.unlimited_ttl_ms = ttl_ms;
    }

    /// The longest time to live of any entry, milliseconds; `u64::MAX` when some live for ever.
    pub fn longest_ttl_ms(&self) -> u64 {
        match (self.unlimited, self.unlimited_ttl_ms) {
            (0, _) => self.longest_ttl_ms,
            (_, 0) => u64::MAX,
            (_, ttl_ms) => self.longest_ttl_ms.max(ttl_ms),
        }
    }

    /// The digest of a partition: equal on two members when they have the same incarnations, values, fields and
    /// tombstones in it, and the same expiries but for touches that were too small to be told.
    pub fn digest(&self, partition: u16) -> u64 {
        self.digests
            .get(usize::from(partition))
            .copied()
            .unwrap_or_default()
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.digests.len()).unwrap_or(u16::MAX)
    }

    fn version(&self, at: Hlc, node: NodeIndex) -> Version {
        Version {
            at,
            node: self.nodes.id(node),
        }
    }

    /// The place of a node in the table, making room when it is full.
    fn intern(&mut self, node: NodeId) -> NodeIndex {
        if self.nodes.is_nearly_full() {
            let mut used = vec![false; usize::from(NodeIndex::MAX) + 1];
            let mut mark = |place: NodeIndex| {
                if let Some(mark) = used.get_mut(usize::from(place)) {
                    *mark = true;
                }
            };
            for (_, slot) in self.slots.iter_from(0) {
                mark(slot.incarnation_node);
                mark(slot.version_node);
                mark(slot.expiry_node);
                slot.fields()
                    .into_iter()
                    .flat_map(fields::Fields::iter)
                    .for_each(|field| mark(field.node));
            }
            self.nodes.keep_only(&used);
        }
        self.nodes.intern(node).unwrap_or_default()
    }
}

/// 64 bits with all of them mixed, from 32.
fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<'a> Entry<'a> {
    /// The key.
    pub fn key(self) -> &'a [u8] {
        self.slot.key()
    }

    /// The partition of the key's group.
    pub fn partition(self) -> u16 {
        self.slot.partition
    }

    /// Whether it is a tombstone.
    pub fn is_dead(self) -> bool {
        self.slot.state == State::Dead
    }

    /// The type; `None` for a tombstone.
    pub fn kind(self) -> Option<Kind> {
        self.slot.state.kind()
    }

    /// Whether a client may see it: not dead, not expired, and with at least one field if it has fields.
    #[inline]
    pub fn is_live(self, now_ms: u64) -> bool {
        match self.slot.state {
            State::Free | State::Dead => false,
            State::String | State::Item => !self.is_expired(now_ms),
            _ => self.slot.fields().is_some_and(|fields| fields.live() > 0) && !self.is_expired(now_ms),
        }
    }

    /// Whether its time is over. The node that set the expiry knows it exactly; the others allow for touches that were
    /// too small to be told.
    #[inline]
    pub fn is_expired(self, now_ms: u64) -> bool {
        let slot = self.slot;
        if slot.expire_ms == 0 || now_ms < slot.expire_ms + u64::from(slot.extension_ms) {
            return false;
        }
        self.store.nodes.id(slot.expiry_node) == self.store.node || now_ms >= slot.expire_ms + slot.slack_ms()
    }

    /// The incarnation.
    pub fn incarnation(self) -> Incarnation {
        self.store
            .version(self.slot.incarnation_at, self.slot.incarnation_node)
    }

    /// The version of a string's value or of the deletion; of an entry with fields, that of the newest field written.
    pub fn version(self) -> Version {
        self.store.version(self.slot.version_at, self.slot.version_node)
    }

    /// The latest time of any register of the entry: a new write has to exceed it.
    pub fn newest(self) -> Hlc {
        self.slot
            .incarnation_at
            .max(self.slot.version_at)
            .max(self.slot.expiry_at)
    }

    /// The value of a string, or the redirect of a tombstone.
    pub fn value(self) -> &'a [u8] {
        self.slot.tail()
    }

    /// memcached flags.
    pub fn flags(self) -> u32 {
        self.slot.flags()
    }

    /// When it ends, milliseconds since the epoch, the small touches known only here included; `None` for never.
    pub fn expires_ms(self) -> Option<u64> {
        (self.slot.expire_ms != 0).then(|| self.slot.expire_ms + u64::from(self.slot.extension_ms))
    }

    /// The expiry register as members know it.
    pub fn expiry(self) -> Expiry {
        Expiry {
            at_ms: self.slot.expire_ms,
            version: self.store.version(self.slot.expiry_at, self.slot.expiry_node),
        }
    }

    /// Bytes of key and content, about.
    pub fn bytes(self) -> usize {
        self.slot.body_bytes()
    }

    /// Whether a client has come back to the entry.
    pub fn is_revisited(self) -> bool {
        self.slot.revisited
    }

    /// Number of live fields.
    pub fn field_count(self) -> usize {
        self.slot.fields().map_or(0, fields::Fields::live)
    }

    /// The value of a field.
    pub fn field(self, name: &[u8]) -> Option<&'a [u8]> {
        self.slot.fields()?.value(name)
    }

    /// When a field was last written or removed; [`Hlc::ZERO`] if never.
    pub fn field_at(self, name: &[u8]) -> Hlc {
        let fields = self.slot.fields();
        fields
            .and_then(|fields| fields.get(name))
            .map_or(Hlc::ZERO, |field| field.at)
    }

    /// All live fields.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let fields = self.slot.fields().into_iter().flat_map(fields::Fields::iter);
        fields.filter_map(|field| Some((&*field.name, field.value.as_deref()?)))
    }

    /// All fields with their versions, tombstones included.
    fn field_states(self) -> impl Iterator<Item = FieldState<'a>> {
        let store = self.store;
        self.slot
            .fields()
            .into_iter()
            .flat_map(fields::Fields::iter)
            .map(move |field| FieldState {
                name: &field.name,
                version: store.version(field.at, field.node),
                value: field.value.as_deref(),
            })
    }

    /// The whole state.
    pub fn state(self) -> EntryState<'a> {
        let content = match self.slot.state.kind() {
            None => Content::Dead {
                version: self.version(),
                redirect: self.slot.tail(),
            },
            Some(Kind::String) => Content::Value {
                version: self.version(),
                flags: self.slot.flags(),
                value: self.slot.tail(),
            },
            Some(kind) => Content::Fields {
                kind,
                whole: true,
                fields: self.field_states().collect(),
            },
        };
        let expiry = (!self.is_dead()).then(|| self.expiry());
        EntryState {
            key: self.key(),
            incarnation: self.incarnation(),
            content,
            expiry,
        }
    }

    /// The expiry alone.
    pub fn touch_state(self) -> EntryState<'a> {
        EntryState {
            key: self.key(),
            incarnation: self.incarnation(),
            content: Content::Unsaid,
            expiry: Some(self.expiry()),
        }
    }

    /// The fields that this process has written since a time, with the expiry. The whole state for other types.
    pub fn state_since(self, since: Hlc) -> EntryState<'a> {
        let Some(kind) = self.slot.state.kind().filter(|kind| *kind != Kind::String) else {
            return self.state();
        };
        let node = self.store.node;
        let fields = self
            .field_states()
            .filter(|f| f.version.at >= since && f.version.node == node)
            .collect();
        EntryState {
            key: self.key(),
            incarnation: self.incarnation(),
            content: Content::Fields {
                kind,
                whole: false,
                fields,
            },
            expiry: Some(self.expiry()),
        }
    }
}
