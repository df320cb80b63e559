//! The upstream store: a Redis that held the sessions before, or is to hold them afterwards.
//!
//! What is not known here at all is asked of it, by the key's home and before anything is decided, so that a session
//! that lives only there is found. What is written here is written there: the upstream has a stream of changes of its
//! own, as a member has. A reply waits for it for a bounded time; once it lags behind, no reply waits until it has
//! caught up. Locks are not shared with it, except that they outlive a change of who answers clients.

mod lookup;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::clock::{Hlc, Now};
use super::command::Kind;
use super::decide::Asking;
use super::node::Core;
use super::stream::Stream;

/// What an entry holds, as another store takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A string.
    String(Vec<u8>),
    /// A hash, set or sorted set: fields and values, see [`Kind`].
    Fields(Kind, Vec<(Vec<u8>, Vec<u8>)>),
}

/// What the upstream store said of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// It has it.
    Found {
        /// What.
        stored: Stored,
        /// When it ends, milliseconds since the epoch; 0 for never.
        expires_ms: u64,
    },
    /// It has nothing under that key.
    Nothing,
    /// It has something that is no session, such as a list.
    Foreign,
    /// It did not answer, or with an error.
    Failed,
}

/// Something the upstream store has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamWrite {
    /// Put a whole entry in the place of whatever is there.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The entry.
        stored: Stored,
        /// When it ends, milliseconds since the epoch; 0 for never.
        expires_ms: u64,
    },
    /// Move the end of an entry.
    Expire {
        /// The key.
        key: Vec<u8>,
        /// When it ends, milliseconds since the epoch.
        at_ms: u64,
    },
    /// Delete.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Writes to be done in order and confirmed together.
#[derive(Debug)]
pub struct UpstreamPortion {
    /// What to confirm when all are done.
    pub last: u64,
    /// The writes.
    pub writes: Vec<UpstreamWrite>,
}

/// Figures about the upstream store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamStats {
    /// Whether the last attempt to write there came through.
    pub connected: bool,
    /// Changes that are not there yet.
    pub pending: u64,
    /// Changes that are there.
    pub written: u64,
    /// Sessions that came from there.
    pub fetched: u64,
    /// Look-ups that found nothing there.
    pub missed: u64,
    /// Look-ups that got no answer.
    pub failed: u64,
    /// Entries put on their way by copying everything there, since the copy began.
    pub copied: u64,
    /// Whether everything is being copied there.
    pub copying: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Upstream {
    /// What the keys begin with that are of concern.
    prefix: Vec<u8>,
    out: Stream,
    connected: bool,
    /// Replies do not wait for it until it has caught up.
    lagging: bool,
    /// What is being written came from there.
    quiet: bool,
    /// The number of what was published last, for the reply that may wait for it.
    published: Option<u64>,
    /// Everything up to then is there.
    clean_at: Hlc,
    copying: Option<Copying>,
    /// The last copy of what this member is the home of that has come to its end.
    copied: Option<Copied>,
    /// Until then (`mono_ms`) locks are looked up, too.
    locks_until_ms: u64,
    fetching: BTreeMap<u64, Fetching>,
    /// Keys of which the upstream has just said that it has nothing.
    absent: HashSet<u64>,
    counts: UpstreamStats,
}

/// No request of an application lasts longer.
const LONGEST_REQUEST_MS: u64 = 60_000;

/// A copy of what is here to the upstream, under way.
#[derive(Debug, Clone)]
struct Copying {
    /// The next position.
    next: u32,
    /// Also what other members are the homes of: this member's own changes could not be kept in order.
    all: bool,
    /// Locks, too.
    locks: bool,
    /// What an earlier copy has left there and did not change since need not be written again.
    earlier: Option<Copied>,
    /// What it is when it has come to its end.
    begun: Copied,
}

/// A copy of what is here to the upstream.
#[derive(Debug, Clone)]
struct Copied {
    /// When it was begun.
    at: Hlc,
    /// The partitions that this member was the home of.
    homes: BTreeSet<u16>,
}

/// A look-up under way, and the commands that wait for it.
#[derive(Debug)]
struct Fetching {
    key: Box<[u8]>,
    held: Vec<Suspended>,
    deadline_ms: u64,
}

/// A command that waits for a look-up.
#[derive(Debug)]
pub(super) struct Suspended {
    pub(super) asking: Asking,
    /// In the oldest layout.
    pub(super) command: Vec<u8>,
}

impl Upstream {
    pub(super) fn new(prefix: Vec<u8>, ring: usize) -> Self {
        Self {
            prefix,
            out: Stream::new(ring),
            connected: false,
            lagging: false,
            quiet: false,
            published: None,
            clean_at: Hlc::ZERO,
            copying: None,
            copied: None,
            locks_until_ms: 0,
            fetching: BTreeMap::new(),
            absent: HashSet::new(),
            counts: UpstreamStats::default(),
        }
    }

    /// Whether the key may be there. Those of other databases carry a mark in front.
    fn concerns(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && (key.first() == Some(&0)) == (self.prefix.first() == Some(&0))
    }

    /// Whether nothing is on its way to a decision or to the upstream.
    pub(super) fn is_idle(&self) -> bool {
        self.fetching.is_empty() && (!self.connected || self.out.head() == self.out.acked())
    }

    /// Whether there is something to write.
    pub(super) fn is_due(&self) -> bool {
        self.out.is_due()
    }

    fn is_clean(&self) -> bool {
        self.out.head() == self.out.acked() && self.copying.as_ref().is_none_or(|copying| !copying.all)
    }

    /// The number that a reply has to wait for, if any.
    pub(super) fn awaited(&mut self) -> Option<u64> {
        let published = self.published.take();
        published.filter(|_| self.connected && !self.lagging)
    }

    pub(super) fn wait(&mut self, number: u64, ticket: super::TicketId) {
        self.out.wait(number, ticket);
    }

    /// No reply waits any more until everything is there.
    pub(super) fn lags(&mut self) {
        self.lagging = true;
    }
}

impl Core {
    /// Clients that the upstream has answered so far are answered here from now on: some hold a lock there.
    pub fn lead_upstream(&mut self, now: Now) {
        if let Some(upstream) = &mut self.upstream {
            upstream.locks_until_ms = now.mono_ms + LONGEST_REQUEST_MS;
        }
    }

    /// Figures of this moment; `None` without an upstream store.
    pub fn upstream_stats(&self) -> Option<UpstreamStats> {
        self.upstream.as_ref().map(|upstream| UpstreamStats {
            connected: upstream.connected,
            pending: upstream.out.head() - upstream.out.acked(),
            copying: upstream.copying.is_some(),
            ..upstream.counts
        })
    }
}
