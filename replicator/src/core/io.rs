//! What goes into the core and what comes out of it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::client::Observed;
use super::command::Reply;
use super::upstream::Fetched;
use super::version::NodeId;

/// A connection to a peer, numbered by whoever made it. Numbers are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A command whose reply comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketId(pub u64);

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection to a peer stands: authenticated, frames can go both ways. Both sides get this.
    LinkUp {
        /// The connection.
        link: LinkId,
        /// Whether this side dialled. Of two connections between the same two members one is closed, by a rule that
        /// both sides apply alike.
        dialled: bool,
    },
    /// A connection is gone.
    LinkDown {
        /// The connection.
        link: LinkId,
    },
    /// A frame from a peer. Anything that is not understood closes the link.
    Frame {
        /// The connection.
        link: LinkId,
        /// The frame, without its length.
        bytes: &'a [u8],
    },
    /// Discovery has answered in full: the other addresses at which there are members. None means that there is
    /// nobody else.
    Discovered {
        /// `host:port` each.
        addresses: &'a BTreeSet<String>,
    },
    /// Time has passed; due at the latest at [`super::Core::next_tick_ms`].
    Tick,
    /// All that was to be read at once has been read: send what waits.
    Flush,
    /// The pod is going: hand over everything. Clients are still served.
    Drain,
    /// No more clients: send the rest and leave. Follows `Drain`, or stands for both.
    Stop,
    /// The upstream store has answered [`Output::Fetch`].
    Fetched {
        /// The look-up.
        number: u64,
        /// What it said.
        fetched: &'a Fetched,
    },
    /// The upstream store has done what [`super::Core::next_upstream`] asked.
    UpstreamConfirmed {
        /// [`super::UpstreamPortion::last`]; 0 when it only is in reach.
        upto: u64,
    },
    /// The upstream store is out of reach, or could not do what was asked.
    UpstreamLost,
    /// Zone and machine of members, by name, as the operator's file says.
    Topology {
        /// `(name, zone, machine)`.
        places: Vec<(String, String, String)>,
    },
    /// The operator says which pods exist: a suspected member that is not among them is dead, without waiting.
    Exists {
        /// Names of the pods.
        names: Vec<String>,
    },
}

/// What the outside has to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a frame to a peer. Frames of one link stay in order. The core itself bounds what is under way on a link.
    Send {
        /// The connection.
        link: LinkId,
        /// The frame, without its length.
        frame: Bytes,
    },
    /// Close a connection, after what was sent on it.
    Close {
        /// The connection.
        link: LinkId,
        /// Why, for the log.
        reason: &'static str,
    },
    /// Somebody to connect to, learnt from another member.
    Dial {
        /// `host:port`.
        address: String,
    },
    /// The reply to a command that had to wait.
    Complete {
        /// The command.
        ticket: TicketId,
        /// Its reply.
        reply: Reply,
        /// To be handed to [`super::Client::observe`] of its connection.
        observed: Option<Observed>,
    },
    /// Look a key up in the upstream store, and answer by [`Input::Fetched`].
    Fetch {
        /// The look-up.
        number: u64,
        /// The key, with the mark of its database.
        key: Box<[u8]>,
    },
    /// Readiness changed.
    Ready(bool),
    /// The hand-over is complete: everything this member held is held by others. After `Stop` the process may end.
    Drained,
    /// Something to log.
    Log(Event),
    /// A key came to its end here: for clients that listen to key events.
    KeyEvent {
        /// The key.
        key: Box<[u8]>,
        /// What happened.
        what: KeyEvent,
    },
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// It was deleted, here or by another member.
    Deleted,
    /// Its time was over.
    Expired,
}

/// Things that an operator of the cluster may want to read in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Event {
    /// Started as the first member.
    #[error("no other member found: starting with an empty store")]
    First,
    /// Took over all sessions.
    #[error("joined: {keys} keys taken over in {ms} ms")]
    Joined {
        /// Entries in the store.
        keys: usize,
        /// Duration.
        ms: u64,
    },
    /// Started without having everything.
    #[error(
        "join timed out after {ms} ms with {missing} members not compared: starting with what has arrived"
    )]
    JoinTimedOut {
        /// Duration.
        ms: u64,
        /// Members not compared with.
        missing: usize,
    },
    /// A member joined or changed its state.
    #[error("member {0:?} is {1}")]
    Member(NodeId, &'static str),
    /// A member's clock is off.
    #[error("the clock of member {node:?} is {ms} ms away")]
    ClockDrift {
        /// The member.
        node: NodeId,
        /// How far.
        ms: u64,
    },
    /// A member was refused.
    #[error("member refused: {0}")]
    Refused(&'static str),
    /// The replay ring was too short for a peer; digests are compared instead.
    #[error("member {0:?} fell behind the replay ring: comparing digests")]
    RingOverrun(NodeId),
    /// This member was cut off for longer than sessions live.
    #[error("cut off for longer than the longest session: {0} doubtful keys dropped")]
    Discarded(usize),
}
