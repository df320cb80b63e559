//! The other members as this one knows them.

use super::clock::Hlc;
use super::config::NodeInfo;
use super::io::LinkId;
use super::stream::Stream;

/// The life of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemberState {
    /// It is taking over the sessions and does not serve yet.
    Joining = 0,
    /// It serves.
    Active = 1,
    /// It still serves, and hands over what it holds.
    Draining = 2,
    /// It has gone and holds nothing.
    Left = 3,
}

impl MemberState {
    /// The state with this number.
    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        [Self::Joining, Self::Active, Self::Draining, Self::Left]
            .get(usize::from(tag))
            .copied()
    }

    /// A word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Left => "left",
        }
    }
}

/// Another member.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is found out by itself")]
pub(super) struct Member {
    pub(super) info: NodeInfo,
    /// Hash of the name: what placement goes by.
    pub(super) name_hash: u64,
    pub(super) state: MemberState,
    /// The link to it, after the hellos.
    pub(super) link: Option<LinkId>,
    /// The wire version of the link.
    pub(super) wire: u8,
    /// Discovery has named its address.
    pub(super) listed: bool,
    /// When it was last heard, `mono_ms`.
    pub(super) heard_ms: u64,
    /// It has not been heard for too long, or says that it does not hear us.
    pub(super) suspect: bool,
    /// It was out of reach, or not there yet, while this member has been without a majority.
    pub(super) apart: bool,
    /// It has been silent so long that what it held has been copied again.
    pub(super) dead: bool,
    /// It has been silent for longer than sessions live; tombstones no longer wait for it.
    /// 0, or the number of this giving up.
    pub(super) expelled: u64,
    /// Under which number it has given this member up.
    pub(super) expelled_us: u64,
    /// Under which number this member has proved its entries since.
    pub(super) proved: u64,
    /// What goes to it.
    pub(super) out: Stream,
    /// How far its stream has arrived.
    pub(super) received: u64,
    /// Up to when all its writes have arrived.
    pub(super) as_of: Hlc,
    /// Up to when it knows all that it should.
    pub(super) settled: Hlc,
    /// The members and states that it knows, as a number.
    pub(super) view: u64,
    /// When it was last told whom this member knows, `mono_ms`.
    pub(super) told_ms: u64,
    pub(super) memory: u16,
    /// The longest time to live of its entries.
    pub(super) longest_ttl_ms: u64,
    /// Its `sent_ms` of the last heartbeat, to be sent back.
    pub(super) their_ms: u64,
    /// Our `sent_ms` that it last sent back with a lease.
    pub(super) lease_from_ms: u64,
    /// Its `sent_ms` that was last sent back to it with a lease; 0 for none.
    pub(super) lent_ms: u64,
    /// Number of the claims that it has to confirm before its heartbeats carry leases again.
    pub(super) unconfirmed_claims: Option<u64>,
    /// It may have missed what others claimed, and is told of that as well.
    pub(super) missed_claims: bool,
    /// When claims were last sent to it, `mono_ms`.
    pub(super) claims_sent_ms: u64,
}

impl Member {
    pub(super) fn new(info: NodeInfo, state: MemberState, now_ms: u64, ring: usize) -> Self {
        let name_hash = crate::store::key_hash(info.name.as_bytes());
        Self {
            info,
            name_hash,
            state,
            link: None,
            wire: super::wire::OLDEST,
            listed: false,
            heard_ms: now_ms,
            suspect: false,
            apart: false,
            dead: false,
            expelled: 0,
            expelled_us: 0,
            proved: 0,
            out: Stream::new(ring),
            received: 0,
            as_of: Hlc::ZERO,
            settled: Hlc::ZERO,
            view: 0,
            told_ms: 0,
            memory: 0,
            longest_ttl_ms: 0,
            their_ms: 0,
            lease_from_ms: 0,
            lent_ms: 0,
            unconfirmed_claims: None,
            missed_claims: false,
            claims_sent_ms: 0,
        }
    }

    /// What is passed on about it.
    pub(super) fn record(&self) -> super::wire::MemberRecord {
        super::wire::MemberRecord {
            info: self.info.clone(),
            state: self.state,
        }
    }

    /// Whether it can be talked to.
    pub(super) fn in_reach(&self) -> bool {
        !self.suspect && self.link.is_some()
    }

    /// Whether heartbeats to it carry a lease: it is heard, and knows what this member acts for.
    pub(super) fn lends(&self) -> bool {
        !self.suspect && self.unconfirmed_claims.is_none()
    }

    /// Whether it serves and is in reach: what counts for acknowledgements.
    pub(super) fn is_active(&self) -> bool {
        self.state == MemberState::Active && !self.suspect
    }

    /// Whether it has, or may have, sessions to take over.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, MemberState::Active | MemberState::Draining)
    }
}
