//! What a sidecar says of itself: `GET /state` of session-replicator, as far as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Whether it has what it is to hold and may get requests.
    #[serde(default)]
    pub ready: bool,
    /// Connections of clients.
    pub connections: u64,
    /// Entries, those of deleted keys included.
    #[serde(default)]
    pub entries: u64,
    /// Deleted keys that are still remembered.
    #[serde(default)]
    pub tombstones: u64,
    /// Bytes that sessions take.
    #[serde(default)]
    pub used_bytes: u64,
    /// Bytes that they may take; 0 for no limit.
    #[serde(default)]
    pub memory_limit: u64,
    /// Bytes that it has sent to the others since it was started.
    #[serde(default)]
    pub sent_bytes: u64,
    /// The other sidecars, as it sees them.
    #[serde(default)]
    pub members: Vec<Peer>,
    /// Commands that the application sent and that are not spoken there, and how often.
    #[serde(default)]
    pub unsupported_commands: BTreeMap<String, u64>,
    /// The store beside it.
    pub upstream: Option<Upstream>,
}

/// What one sidecar says of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Peer {
    /// The pod's name.
    #[serde(default)]
    pub name: String,
    /// There is a connection.
    pub linked: bool,
    /// It does not answer.
    pub suspect: bool,
    /// Changes that it has not confirmed.
    pub lag: u64,
}

/// What a sidecar says of the store beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the sidecar tells them")]
pub struct Upstream {
    /// Clients are passed on to the store.
    pub follows: bool,
    /// New clients wait.
    pub held: bool,
    /// The last attempt to write there came through.
    pub connected: bool,
    /// Changes that are not there yet.
    pub pending: u64,
    /// Copying everything from there.
    pub copy_in: CopyIn,
    /// How often copying everything there was begun.
    pub copy_out_begun: u64,
    /// Whether that is under way.
    pub copy_out_running: bool,
    /// Whether it was begun while clients wait.
    pub copy_out_held: bool,
    /// Entries that it has put on their way.
    pub copy_out_entries: u64,
}

/// How copying everything from the store goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CopyIn {
    /// It is under way.
    pub running: bool,
    /// Copies that came to their end.
    pub completed: u64,
    /// Copies that were given up.
    pub abandoned: u64,
    /// Keys that the present or last copy has come upon.
    pub seen: u64,
}
