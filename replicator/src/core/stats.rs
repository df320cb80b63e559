//! Figures for metrics and for humans.

use super::members::MemberState;
use super::node::{Core, Counters};
use super::version::NodeId;

/// The core at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// This member's state.
    pub state: MemberState,
    /// Entries here, tombstones included.
    pub entries: usize,
    /// Tombstones here.
    pub tombstones: usize,
    /// Bytes the entries take.
    pub used_bytes: usize,
    /// Partitions that this member is the home of.
    pub homes: usize,
    /// Commands that wait for other members.
    pub pending: usize,
    /// Comparisons of digests under way or waiting.
    pub comparisons: usize,
    /// Things counted since the start.
    pub counters: Counters,
    /// The other members.
    pub members: Vec<MemberStats>,
}

/// Another member at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStats {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its state.
    pub state: MemberState,
    /// Whether it is routed around.
    pub suspect: bool,
    /// Whether there is a link.
    pub linked: bool,
    /// Changes that it has not confirmed.
    pub lag: u64,
    /// Its memory in use, in thousandths of its limit.
    pub memory: u16,
}

impl Core {
    /// Figures of this moment.
    pub fn stats(&self) -> Stats {
        Stats {
            state: self.state,
            entries: self.store.len(),
            tombstones: self.store.tombstones(),
            used_bytes: self.store.used_bytes(),
            homes: self.homes.acting().count(),
            pending: self.waiting.len() + self.asked.len() + self.gathering.len(),
            comparisons: self.comparisons.open(),
            counters: self.counters,
            members: self
                .members
                .values()
                .map(|m| MemberStats {
                    id: m.info.id,
                    name: m.info.name.clone(),
                    address: m.info.address.clone(),
                    state: m.state,
                    suspect: m.suspect,
                    linked: m.link.is_some(),
                    lag: m.out.head() - m.out.acked(),
                    memory: m.memory,
                })
                .collect(),
        }
    }
}
