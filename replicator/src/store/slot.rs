//! One entry: 64 bytes and one allocation for key and value together.

use super::fields::Fields;
use super::nodes::NodeIndex;
use crate::core::{Hlc, Kind};

/// What an entry holds besides its versions.
///
/// Two words: the compiler keeps the variant in the null pointer of the other.
#[derive(Debug)]
pub(super) enum Body {
    /// Key, then memcached flags when there are any, then the value. For a tombstone: key, then the redirect.
    Blob(Box<[u8]>),
    /// The fields of a hash, set or sorted set; its key is in there.
    Fields(Box<Fields>),
}

/// Whether and as what an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// The slot is not in use.
    Free,
    /// A string.
    String,
    /// A string with memcached flags.
    Item,
    /// A hash.
    Hash,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A tombstone.
    Dead,
}

impl State {
    /// The type of a living entry.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Free | Self::Dead => None,
            Self::String | Self::Item => Some(Kind::String),
            Self::Hash => Some(Kind::Hash),
            Self::Set => Some(Kind::Set),
            Self::SortedSet => Some(Kind::SortedSet),
        }
    }

    /// The state of an entry of this type.
    pub(super) fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::String => Self::String,
            Kind::Hash => Self::Hash,
            Kind::Set => Self::Set,
            Kind::SortedSet => Self::SortedSet,
        }
    }
}

/// One entry. Nodes are places in the store's node table.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) body: Body,
    /// When the incarnation began.
    pub(super) incarnation_at: Hlc,
    /// When the value was written; of a tombstone, when it was deleted.
    pub(super) version_at: Hlc,
    /// When the expiry register was written.
    pub(super) expiry_at: Hlc,
    /// Milliseconds since the epoch; 0 for never.
    pub(super) expire_ms: u64,
    pub(super) incarnation_node: NodeIndex,
    pub(super) version_node: NodeIndex,
    pub(super) expiry_node: NodeIndex,
    pub(super) partition: u16,
    /// How much longer than `expire_ms` the entry lives here: a touch too small to tell the others of.
    pub(super) extension_ms: u16,
    pub(super) key_len: u16,
    pub(super) state: State,
    /// Whether a client has come back to the entry since its creation (what eviction goes by).
    pub(super) revisited: bool,
}

const _: () = assert!(size_of::<Slot>() == 64, "an entry is one cache line");

/// Length of the memcached flags in a blob.
pub(super) const FLAGS_LEN: usize = 4;

impl Slot {
    /// A slot that is not in use.
    pub(super) fn free() -> Self {
        Self {
            body: Body::Blob(Box::default()),
            incarnation_at: Hlc::ZERO,
            version_at: Hlc::ZERO,
            expiry_at: Hlc::ZERO,
            expire_ms: 0,
            incarnation_node: 0,
            version_node: 0,
            expiry_node: 0,
            partition: 0,
            extension_ms: 0,
            key_len: 0,
            state: State::Free,
            revisited: false,
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        match &self.body {
            Body::Blob(blob) => blob.get(..usize::from(self.key_len)).unwrap_or_default(),
            Body::Fields(fields) => &fields.key,
        }
    }

    /// What follows the key (and the flags): the value, or a tombstone's redirect.
    pub(super) fn tail(&self) -> &[u8] {
        let skip = if self.state == State::Item { FLAGS_LEN } else { 0 };
        match &self.body {
            Body::Blob(blob) => blob.get(usize::from(self.key_len) + skip..).unwrap_or_default(),
            Body::Fields(_) => &[],
        }
    }

    /// The memcached flags.
    pub(super) fn flags(&self) -> u32 {
        if self.state != State::Item {
            return 0;
        }
        let Body::Blob(blob) = &self.body else { return 0 };
        blob.get(usize::from(self.key_len)..)
            .and_then(|rest| rest.first_chunk::<FLAGS_LEN>())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// The fields, when the entry has any.
    pub(super) fn fields(&self) -> Option<&Fields> {
        match &self.body {
            Body::Fields(fields) => Some(fields),
            Body::Blob(_) => None,
        }
    }

    /// The fields, to change them.
    pub(super) fn fields_mut(&mut self) -> Option<&mut Fields> {
        match &mut self.body {
            Body::Fields(fields) => Some(fields),
            Body::Blob(_) => None,
        }
    }

    /// Whether it lives without an expiry.
    pub(super) fn is_unlimited(&self) -> bool {
        self.expire_ms == 0 && !matches!(self.state, State::Free | State::Dead)
    }

    /// How long past its known expiry an entry is kept for touches that its owner has not told: a twentieth of its
    /// time to live, at most a minute.
    pub(super) fn slack_ms(&self) -> u64 {
        touch_slack_ms(self.expire_ms.saturating_sub(self.expiry_at.ms()))
    }

    /// Bytes that the body takes, allocator overhead included.
    pub(super) fn body_bytes(&self) -> usize {
        match &self.body {
            Body::Blob(blob) => allocation_bytes(blob.len()),
            Body::Fields(fields) => fields.bytes(),
        }
    }
}

/// See [`Slot::slack_ms`].
pub fn touch_slack_ms(ttl_ms: u64) -> u64 {
    (ttl_ms / 20).min(60_000)
}

/// What the allocator takes for `len` bytes: a word of its own, rounded to 16.
pub(super) fn allocation_bytes(len: usize) -> usize {
    if len == 0 { 0 } else { (len + 8 + 15) & !15 }
}
