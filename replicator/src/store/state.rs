//! The state of an entry as members tell it each other: whole, or only what changed.

use crate::core::{Incarnation, Kind, Version};

/// What a member says about a key.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryState<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The incarnation that the rest is about.
    pub incarnation: Incarnation,
    /// The content, or the part of it that changed.
    pub content: Content<'a>,
    /// The expiry register; `None` when it is not said.
    pub expiry: Option<Expiry>,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<'a> {
    /// Not said: only the expiry changed.
    Unsaid,
    /// Deleted.
    Dead {
        /// When and where.
        version: Version,
        /// The new name after a RENAME, else empty.
        redirect: &'a [u8],
    },
    /// A string.
    Value {
        /// When and where it was written.
        version: Version,
        /// memcached flags.
        flags: u32,
        /// The value.
        value: &'a [u8],
    },
    /// Fields.
    Fields {
        /// Hash, set or sorted set.
        kind: Kind,
        /// Whether these are all the fields there are.
        whole: bool,
        /// The fields.
        fields: Vec<FieldState<'a>>,
    },
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldState<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// When and where it was written.
    pub version: Version,
    /// Its value; `None` when it was removed.
    pub value: Option<&'a [u8]>,
}

/// The expiry register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Milliseconds since the epoch; 0 for never.
    pub at_ms: u64,
    /// When and where it was written.
    pub version: Version,
}
