//! What a run has met: a property that was never put to the test has not been shown.

use std::fmt;

use crate::core::{Counters, Event};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $text:literal, $required:literal;)*) => {
        /// Counts of what happened.
        #[derive(Debug, Clone, Default)]
        pub struct Met {
            $($(#[$doc])* pub(super) $name: u64,)*
        }

        impl Met {
            /// Adds what another run has met.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// What should have happened, and did not.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if $required && self.$name == 0 { missing.push($text); })*
                missing
            }
        }

        impl fmt::Display for Met {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:>12}  {}", self.$name, $text)?;)*
                Ok(())
            }
        }
    };
}

counters! {
    runs: "runs", true;
    frames: "frames between members", true;
    bytes: "bytes between members", true;
    requests: "requests", true;
    writes: "writes confirmed", true;
    reads: "reads of a session", true;
    logins: "logins", true;
    logouts: "logouts confirmed", true;
    renames: "changes of id (RENAME)", true;
    redirects: "requests that followed a confirmed write at once", true;
    late_writes: "writes of requests that began before a logout", true;
    relogins: "logins under an id that was logged out", true;
    locks: "locks taken", true;
    lock_waits: "locks waited for", true;
    home_changes_under_lock: "homes changed while one of their locks was held", true;
    everywhere: "reads of what all members had, while not all was in order", true;
    partitions: "partitions", true;
    long_partitions: "partitions longer than the life of a session", true;
    touched_both_sides: "sessions used on both sides of a partition", true;
    one_way: "one-way cuts", true;
    cut_frames: "frames lost to cuts", true;
    dropped: "frames dropped", true;
    duplicated: "frames duplicated", true;
    reordered: "frames reordered", true;
    crashes: "crashes with loss of memory", true;
    restarts: "restarts of the process in its pod", true;
    lost_pods: "pods lost with their machine", true;
    pauses: "processes stopped for a while", true;
    slow: "slow members", true;
    skewed: "members with a wrong clock", true;
    rolls: "complete rolling replacements under load", true;
    scalings: "pods added or removed in order", true;
    shrinkings: "many pods removed at once", true;
    joins: "members that took over sessions", true;
    join_timeouts: "joins that timed out", false;
    overruns: "replay rings overrun", true;
    discarded: "returns after a cut longer than sessions live", true;
    mixed_wire: "runs with old and new wire version", true;
    takeovers: "homes taken over from members out of reach", true;
    handoffs: "homes handed over", true;
    conflicts: "states that lost a merge", true;
    repairs: "entries brought by comparing digests", true;
    evictions: "entries evicted", true;
    expirations: "entries expired", true;
    no_replicas: "writes answered with NOREPLICAS", true;
    unreachable: "commands whose home could not be reached", true;
    lock_refusals: "locks refused for want of a majority", true;
    out_of_memory: "writes refused for want of memory", false;
    excused: "losses that the level of acknowledgement allows", false;
}

impl Met {
    /// Takes note of what a core logs.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Joined { .. } => self.joins += 1,
            Event::JoinTimedOut { .. } => self.join_timeouts += 1,
            Event::RingOverrun(_) => self.overruns += 1,
            Event::Discarded(_) => self.discarded += 1,
            _ => {}
        }
    }

    /// Takes note of what a core has counted.
    pub(super) fn count(&mut self, counters: &Counters) {
        self.takeovers += counters.homes_taken_over;
        self.handoffs += counters.homes_taken - counters.homes_taken_over;
        self.conflicts += counters.conflicts;
        self.repairs += counters.repaired;
        self.evictions += counters.evicted;
        self.expirations += counters.expired;
    }
}
