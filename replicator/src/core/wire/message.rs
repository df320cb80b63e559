//! The messages between members.

use super::MemberRecord;
use crate::core::client::Base;
use crate::core::clock::Hlc;
use crate::core::command::Reply;
use crate::core::members::MemberState;
use crate::core::version::{Incarnation, NodeId, Version};
use crate::store::EntryState;

/// Stands for a read that found nothing, where an incarnation is expected.
pub(super) const NOTHING: Version = Version {
    at: Hlc::MAX,
    node: NodeId(0),
};

/// Sign of life, and all that is worth saying each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct Heartbeat {
    pub(in crate::core) state: MemberState,
    /// The sender's monotonic time.
    pub(in crate::core) sent_ms: u64,
    /// The `sent_ms` of the last heartbeat from the receiver that arrived at the sender: what leases count from.
    pub(in crate::core) echo_ms: u64,
    /// Whether the sender hears the receiver.
    pub(in crate::core) hears_you: bool,
    /// Whether the echo renews the receiver's lease as a home.
    pub(in crate::core) lease: bool,
    /// The sender's clock, and the end of its stream to the receiver at that time.
    pub(in crate::core) as_of: Hlc,
    pub(in crate::core) head: u64,
    /// How much of the receiver's stream has arrived.
    pub(in crate::core) received: u64,
    /// Up to this time the sender knows all that it should.
    pub(in crate::core) settled: Hlc,
    pub(in crate::core) longest_ttl_ms: u64,
    /// Memory in use, in thousandths of the limit.
    pub(in crate::core) memory: u16,
    /// Not 0: the sender has given the receiver up, under this number, and may have dropped tombstones that the
    /// receiver has not seen.
    pub(in crate::core) expelled: u64,
    /// The number under which the receiver had given the sender up; its old entries have been proved since.
    pub(in crate::core) proved: u64,
    /// A hash of the members and states that the sender knows.
    pub(in crate::core) view: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::core) enum PeerMessage<'a> {
    Heartbeat(Heartbeat),
    Members(Vec<MemberRecord>),
    /// Part of the sender's stream: what changed at its numbers `first..=last`.
    Batch {
        first: u64,
        last: u64,
        /// The sender's clock when `last` was its newest number.
        as_of: Hlc,
        /// What came before `first` is lost and has to be found by comparing digests.
        reset: bool,
        entries: Vec<EntryState<'a>>,
    },
    Ack {
        upto: u64,
        /// Something before what has just arrived is missing.
        gap: bool,
    },
    Fetch {
        keys: Vec<&'a [u8]>,
    },
    /// States outside of streams: answers to `Fetch`.
    Entries(Vec<EntryState<'a>>),
    /// A command for the home.
    Forward {
        id: u64,
        /// The end of the sender's stream: all of it comes before the command.
        position: u64,
        base: Base,
        /// When it was given, by the sender's clock.
        given: Hlc,
        /// It may have been executed already.
        retry: bool,
        command: &'a [u8],
    },
    Answer {
        id: u64,
        /// The end of the home's stream: all of it comes before the reply.
        position: u64,
        /// The home's clock: what the asker does next comes after it.
        clock: Hlc,
        /// The incarnation that a read found.
        found: Incarnation,
        reply: Reply,
        /// What the receiver has to know before it passes the reply on.
        entries: Vec<EntryState<'a>>,
    },
    /// Not decided here, but there.
    Redirect {
        id: u64,
        to: NodeId,
    },
    /// The sender is to become the home of these partitions.
    HandoffRequest {
        round: u64,
        partitions: Vec<u16>,
    },
    HandoffReply {
        round: u64,
        /// Handed over: partition and new epoch.
        granted: Vec<(u16, u64)>,
        /// Not to be had: the sender believes this node to be the home, or wants to be it.
        pending: Vec<(u16, NodeId)>,
        /// Not here: partition and highest epoch known.
        refused: Vec<(u16, u64)>,
    },
    /// The sender acts as the home of these partitions, in these epochs.
    Claims {
        number: u64,
        claims: Vec<(u16, u64)>,
        /// What the sender knows of the homes of other partitions, with their epochs: for who may have missed it.
        others: Vec<(u16, u64, NodeId)>,
    },
    ClaimsAck {
        number: u64,
    },
    /// Digests of partitions, to be compared.
    SyncStart {
        id: u64,
        digests: Vec<(u16, u64)>,
    },
    /// What differs: for some partitions hash of key and state of all entries, and the partitions left to ask for.
    SyncDiff {
        id: u64,
        lists: Vec<(u16, Vec<(u64, u64)>)>,
        rest: Vec<u16>,
    },
    SyncWant {
        id: u64,
        number: u64,
        partitions: Vec<u16>,
        hashes: Vec<u64>,
    },
    SyncEntries {
        id: u64,
        number: u64,
        entries: Vec<EntryState<'a>>,
        unserved: Vec<u64>,
    },
    SyncPush {
        id: u64,
        number: u64,
        entries: Vec<EntryState<'a>>,
    },
    SyncPushed {
        id: u64,
        number: u64,
    },
    /// All entries of some partitions, from a position on.
    Pull {
        id: u64,
        cursor: u32,
        partitions: Vec<u16>,
    },
    Pulled {
        id: u64,
        cursor: u32,
        /// Where to go on; nothing at the end.
        next: Option<u32>,
        entries: Vec<EntryState<'a>>,
    },
    /// KEYS, SCAN, DBSIZE: the part that the receiver is the home of.
    Gather {
        id: u64,
        command: &'a [u8],
    },
    Gathered {
        id: u64,
        reply: Reply,
    },
}
