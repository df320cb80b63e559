//! What the core has to be told at its start.

use super::version::NodeId;

/// Who holds what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every member holds every session.
    All,
    /// A session's home and this many backups hold it.
    Backup(u8),
}

/// What has to be confirmed before a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// Nothing beyond this process.
    Local,
    /// One other holder.
    One,
    /// A majority of the holders, this member included; members that are suspected count as missing.
    Quorum,
    /// All active holders.
    All,
    /// With affinity [`Acknowledge::Local`] in mode All and [`Acknowledge::One`] in mode Backup, as far as there are
    /// other members; without affinity all that are in reach.
    Auto,
}

/// Who a member is. The same for the whole life of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Random, drawn at the start of the process.
    pub id: NodeId,
    /// The Pod's uid, or any name that outlives a restart of the process: a new process of the same name replaces the
    /// old one.
    pub name: String,
    /// Where peers reach it, `host:port`.
    pub address: String,
    /// Failure domain; empty when not known.
    pub zone: String,
    /// The machine; empty when not known.
    pub machine: String,
    /// Wall time of the start, milliseconds since the epoch: among members that start together the oldest goes first.
    pub started_ms: u64,
}

/// Settings. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who holds what. The same on all members.
    pub mode: Mode,
    /// What has to be confirmed before a write is answered.
    pub acknowledge: Acknowledge,
    /// Whether requests of one user come to one pod as a rule.
    pub affinity: bool,
    /// After this long a write is answered with `NOREPLICAS`. If it is longer than `suspect_after_ms`, a member that crashes makes
    /// writes wait, and none fail.
    pub acknowledge_timeout_ms: u64,
    /// After this long without an answer from the key's home a command fails; longer than `suspect_after_ms` for the same reason.
    pub home_timeout_ms: u64,
    /// After this long without a confirmation something is sent again.
    pub resend_ms: u64,
    /// Interval of heartbeats.
    pub heartbeat_ms: u64,
    /// Silence after which a member is suspected: it is routed around.
    pub suspect_after_ms: u64,
    /// Silence after which a member counts as dead: what it held is copied again.
    pub dead_after_ms: u64,
    /// How long a starting process looks for others before it believes to be the first.
    pub discovery_ms: u64,
    /// After this long a joining member starts with what it has, and says so.
    pub join_timeout_ms: u64,
    /// Interval of the digest comparison with one other member.
    pub antientropy_ms: u64,
    /// Tombstones are kept at least this long.
    pub tombstone_min_ms: u64,
    /// A write that has not been preceded by a read does not bring back what was deleted less than this long ago.
    /// 0 lets every write create what is not there, also one that is based on what was deleted.
    pub logout_guard_ms: u64,
    /// Entries without an end of their own go so long after they were last written; 0 for never, and then a member that
    /// is out of reach is waited for without end.
    pub unlimited_ttl_ms: u64,
    /// What is held at most, bytes; 0 for no bound.
    pub memory_limit: usize,
    /// At the limit remove entries (those first that no client came back to) instead of answering `OOM`.
    pub evict: bool,
    /// Longest key, bytes.
    pub max_key: usize,
    /// Longest value, bytes.
    pub max_value: usize,
    /// Grant locks also without a majority of the members in reach.
    pub lock_without_majority: bool,
    /// The longest life of a lock, also of one that asks for no end.
    pub max_lock_ttl_ms: u64,
    /// Number of partitions of the key space: a power of two up to 32768, the same on all members.
    pub partitions: u16,
    /// Entries in a replay ring.
    pub ring: usize,
    /// Tickets that may be open at once.
    pub max_pending: usize,
    /// There is an upstream store for the keys that begin so (with the mark of their database).
    pub upstream: Option<Vec<u8>>,
    /// After this long without an answer a look-up in the upstream store has failed.
    pub upstream_timeout_ms: u64,
    /// Look-ups in the upstream store at once.
    pub max_fetches: usize,
    /// Newest wire version to offer.
    pub wire_version: u8,
    /// How lock keys and satellites are recognised.
    pub groups: GroupRules,
    /// Rules broken on purpose, to see that the simulation notices.
    #[cfg(test)]
    pub faults: Faults,
}

/// Rules that a core can be told to break.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Faults {
    /// None.
    #[default]
    None,
    /// Tombstones are dropped without waiting for anybody.
    TombstoneDroppedEarly,
    /// A home executes without waiting for what the asker wrote before.
    LockBeforeData,
    /// A draining member leaves at once.
    DrainWithoutWaiting,
    /// Writes always begin a new incarnation where the old one is over.
    IncarnationIgnored,
    /// A joining member becomes active without having compared.
    JoinReadyTooSoon,
    /// Eviction is not told to others.
    EvictionNotReplicated,
    /// Writes are answered without confirmations.
    AcknowledgeIgnored,
    /// A home hands its partitions over and goes on deciding.
    HandoffWithoutStopping,
    /// A missing entry is answered without asking the home.
    MissNotAsked,
    /// What a member did not confirm is not sent again.
    NothingSentAgain,
}

/// How keys are grouped with the session they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRules {
    /// `(prefix, suffix)` around the session's key in the name of its lock.
    pub locks: Vec<(Vec<u8>, Vec<u8>)>,
    /// `(prefix, replacement)`: satellites of a session, by the start of their name.
    pub satellites: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for GroupRules {
    fn default() -> Self {
        let pair = |a: &str, b: &str| (a.as_bytes().to_vec(), b.as_bytes().to_vec());
        Self {
            locks: vec![
                // phpredis: <key>_LOCK; php-memcached: lock.<sid> inside the prefix; memcached-session-manager and
                // most hand-written ones: lock:<key>.
                pair("", "_LOCK"),
                pair("memc.sess.key.lock.", ""),
                pair("memc.sess.lock.", ""),
                pair("lock:", ""),
            ],
            satellites: vec![
                pair("memc.sess.key.lock.", "memc.sess.key."),
                pair("memc.sess.lock.", "memc.sess."),
                pair("lock:", ""),
                pair("spring:session:sessions:expires:", "spring:session:sessions:"),
            ],
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::All,
            acknowledge: Acknowledge::Auto,
            affinity: true,
            acknowledge_timeout_ms: 4_500,
            home_timeout_ms: 4_750,
            resend_ms: 500,
            heartbeat_ms: 1_000,
            suspect_after_ms: 4_000,
            dead_after_ms: 10_000,
            discovery_ms: 3_000,
            join_timeout_ms: 120_000,
            antientropy_ms: 30_000,
            tombstone_min_ms: 600_000,
            logout_guard_ms: 30_000,
            unlimited_ttl_ms: 86_400_000,
            memory_limit: 0,
            evict: false,
            max_key: 4_096,
            max_value: 1 << 20,
            lock_without_majority: false,
            max_lock_ttl_ms: 900_000,
            partitions: 4_096,
            ring: 65_536,
            max_pending: 65_536,
            upstream: None,
            upstream_timeout_ms: 1_000,
            max_fetches: 1_024,
            wire_version: super::WIRE_VERSION,
            groups: GroupRules::default(),
            #[cfg(test)]
            faults: Faults::None,
        }
    }
}
