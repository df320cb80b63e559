//! Homes: which member decides about a partition, and how that passes from one to another.
//!
//! Placement says who *ought* to be the home; being it is a thing that is handed over. The new home asks everybody in
//! reach; the old one stops deciding before it answers, and the new one begins after comparing what it holds with the
//! old one. Only if nobody in reach acts as the home, nor hears the member that does, the new one takes it over. So as
//! long as members hear each other there is never more than one, whatever they think of each other's state.
//! Epochs grow with each passing; after a partition the higher one stays. What was taken over without a majority is given back
//! when there is one again: what this member holds may be old.

mod claims;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::rounds::Answer;
use super::clock::Now;
use super::node::Core;
use super::version::NodeId;

/// What this member is for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Token {
    /// Nothing.
    #[default]
    None,
    /// The home.
    Acting,
    /// It was the home, and handed over.
    Handed(NodeId),
}

/// What is known of a partition's home.
#[derive(Debug, Clone, Copy, Default)]
struct Home {
    token: Token,
    /// The highest epoch known.
    epoch: u64,
    /// Who acts in it; 0 for not known.
    claimed_by: NodeId,
}

impl Home {
    /// Whether it is known, and none of these.
    fn is_of_another_than(&self, nodes: &[NodeId]) -> bool {
        self.claimed_by != NodeId::default() && !nodes.contains(&self.claimed_by)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Homes {
    by_partition: Vec<Home>,
    round: Option<Round>,
    /// Granted, and being compared with the old home: partition → old home and epoch.
    taking: BTreeMap<u16, (NodeId, u64)>,
    /// Partitions that the last round found free, though somebody was said to be their home, and their highest epoch.
    doubtful: BTreeMap<u16, u64>,
    /// What was known of partitions that have passed to another home since this member has been without a majority.
    before_isolation: BTreeMap<u16, Home>,
    next_round: u64,
    next_round_ms: u64,
    claims_number: u64,
}

/// One round of asking for partitions.
#[derive(Debug)]
struct Round {
    number: u64,
    wanted: BTreeMap<u16, Wanted>,
    peers: BTreeSet<NodeId>,
    /// Somebody went out of reach without an answer.
    incomplete: bool,
    sent_ms: u64,
}

/// What has been said about a partition in a round.
#[derive(Debug, Default)]
struct Wanted {
    /// The epoch known when the round began.
    before: u64,
    /// The highest epoch heard of in the round.
    epoch: u64,
    refused: Vec<NodeId>,
    /// Nodes that are said to be, or to want to be, the home.
    named: Vec<NodeId>,
    granted: bool,
}

/// Pause between rounds, milliseconds.
const ROUND_MS: u64 = 50;

impl Homes {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            by_partition: vec![Home::default(); partitions],
            round: None,
            taking: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            before_isolation: BTreeMap::new(),
            next_round: 0,
            next_round_ms: 0,
            claims_number: 0,
        }
    }

    /// Whether this member acts as the home of a partition.
    pub(super) fn acts(&self, partition: u16) -> bool {
        self.by_partition
            .get(usize::from(partition))
            .is_some_and(|home| home.token == Token::Acting)
    }

    /// All partitions that this member acts for.
    pub(super) fn acting(&self) -> impl Iterator<Item = u16> {
        (0u16..)
            .zip(&self.by_partition)
            .filter(|(_, home)| home.token == Token::Acting)
            .map(|(p, _)| p)
    }

    /// Whether a handover to this member is under way.
    pub(super) fn is_taking(&self, partition: u16) -> bool {
        self.taking.contains_key(&partition)
    }

    /// Whether a round is under way in which this member asks for a partition.
    fn is_asking(&self, partition: u16) -> bool {
        self.round
            .as_ref()
            .is_some_and(|round| round.wanted.contains_key(&partition))
    }

    /// What is known of a partition's home, in words.
    pub(super) fn describe(&self, partition: u16) -> String {
        let home = self.get(partition);
        let taking = self.taking.get(&partition);
        format!(
            "{:?} epoch {} of {:?} taking {taking:?}",
            home.token, home.epoch, home.claimed_by
        )
    }

    fn get_mut(&mut self, partition: u16) -> Option<&mut Home> {
        self.by_partition.get_mut(usize::from(partition))
    }

    fn get(&self, partition: u16) -> Home {
        self.by_partition
            .get(usize::from(partition))
            .copied()
            .unwrap_or_default()
    }

    /// When the next step is due, `mono_ms`.
    pub(super) fn next_ms(&self) -> u64 {
        if self.round.is_some() {
            self.next_round_ms
        } else {
            u64::MAX
        }
    }
}

impl Core {
    /// The member to ask about a partition: the one that acts, as far as known, else the one that ought to.
    pub(super) fn home_of(&mut self, partition: u16) -> Option<NodeId> {
        let home = self.homes.get(partition);
        if home.token == Token::Acting {
            return Some(self.me.id);
        }
        let claimed = self.members.get(&home.claimed_by).filter(|m| m.in_reach());
        if claimed.is_some() {
            return Some(home.claimed_by);
        }
        self.plan(partition).holders.first().copied()
    }

    /// The member that acts as the home of a partition, as far as known; it may not be among the holders yet, or any
    /// more.
    pub(super) fn acting_home(&self, partition: u16) -> NodeId {
        self.homes.get(partition).claimed_by
    }

    /// Takes all partitions: there is nobody else.
    pub(super) fn take_everything(&mut self) {
        let me = self.me.id;
        for home in &mut self.homes.by_partition {
            *home = Home {
                token: Token::Acting,
                epoch: home.epoch + 1,
                claimed_by: me,
            };
        }
    }

    /// Whether this member, as a home, may decide now. A majority of the members has to have said lately that it hears
    /// it, and so will not let anybody take over: a process that has stood still may long have been replaced.
    pub(super) fn may_decide(&self, now: Now) -> Standing {
        if self.settling.is_behind() {
            return Standing::Unconfirmed;
        }
        // Three quarters: a member suspects this one only after the whole time, counted from later.
        let lease_ms = self.config.suspect_after_ms * 3 / 4;
        let voters = || self.members.values().filter(|m| m.serves());
        let fresh = voters()
            .filter(|m| m.lease_from_ms + lease_ms > now.mono_ms)
            .count()
            + 1;
        let heard = voters().filter(|m| !m.suspect).count() + 1;
        let all = voters().count() + 1;
        if fresh * 2 > all {
            Standing::Confirmed
        } else if heard * 2 > all || now.mono_ms < self.stalled_until_ms {
            Standing::Unconfirmed
        } else {
            Standing::Minority
        }
    }
}

/// How a home stands with the other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A majority hears it.
    Confirmed,
    /// It hears a majority, but has not been told lately that it is heard.
    Unconfirmed,
    /// It does not hear a majority.
    Minority,
}

#[cfg(test)]
mod tests;
