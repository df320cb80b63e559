//! Versions and incarnations: what decides which of two states of a key is the newer one.

use super::clock::Hlc;

/// One start of one replicator process. Random, never reused: a process that comes back without its memory must not
/// pass for the one that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// When and where a write was made. Totally ordered: by time, then by node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// The time of the write.
    pub at: Hlc,
    /// The node that made it.
    pub node: NodeId,
}

impl Version {
    /// Below every version that a write can have.
    pub const ZERO: Self = Self {
        at: Hlc::ZERO,
        node: NodeId(0),
    };
}

/// The version of an entry's creation. A key that is deleted and created again is in a new incarnation; writes that
/// belong to the old one cannot touch it.
pub type Incarnation = Version;
