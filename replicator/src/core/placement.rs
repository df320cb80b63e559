//! Who holds which partition: rendezvous hashing over the members' names, apart in zones and machines.
//!
//! Every member computes the same from the same view; nobody announces what it holds. After Thaler and Ravishankar,
//! "A Name-Based Mapping Scheme for Rendezvous" (1996).

use std::cmp::Reverse;

use super::members::MemberState;
use super::version::NodeId;

/// What placement has to know of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: NodeId,
    pub(super) name_hash: u64,
    pub(super) state: MemberState,
    pub(super) suspect: bool,
    pub(super) zone: u64,
    pub(super) machine: u64,
}

/// The placement of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Serving members in reach, best first: the first is to be the home, the second its successor. In mode Backup
    /// these are the holders; in mode All everybody holds, and only the first two are listed.
    pub(super) holders: Vec<NodeId>,
    /// Members that writes go to in mode Backup: holders of the old view and of the coming one, suspects included.
    pub(super) writers: Vec<NodeId>,
    /// Members that answer reads in mode Backup, as far as anybody may think: the holders of this view and of those
    /// before it that are still in use somewhere.
    pub(super) readers: Vec<NodeId>,
}

impl Plan {
    /// Takes into account that some members may still go by an older plan.
    pub(super) fn linger(&mut self, past: &Self) {
        for (all, more) in [
            (&mut self.writers, &past.writers),
            (&mut self.readers, &past.readers),
        ] {
            all.extend(more);
            all.sort_unstable();
            all.dedup();
        }
    }
}

/// How well a member suits a partition.
pub(super) fn score(partition: u16, name_hash: u64) -> u64 {
    let mut z = name_hash
        ^ u64::from(partition)
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The placement of a partition. `backups` is `None` in mode All.
pub(super) fn plan(partition: u16, candidates: &[Candidate], backups: Option<u8>) -> Plan {
    let mut ranking = Ranking::new(partition, candidates);
    let active = |c: &Candidate| c.state == MemberState::Active;
    let Some(backups) = backups else {
        return Plan {
            holders: ranking.pick(2, false, |c| active(c) && !c.suspect),
            ..Plan::default()
        };
    };
    let count = usize::from(backups) + 1;
    let mut best = |qualifies: &dyn Fn(&Candidate) -> bool| ranking.pick(count, true, qualifies);
    let holders = best(&|c| active(c) && !c.suspect);
    let mut writers = holders.clone();
    // Also those that were, or are to be, holders; mostly there is nobody else to ask.
    let any = |qualifies: &dyn Fn(&Candidate) -> bool| candidates.iter().any(qualifies);
    let suspects = if any(&|c| c.suspect) {
        &[false, true][..]
    } else {
        &[false][..]
    };
    for suspects in suspects {
        let seen = |c: &Candidate| *suspects || !c.suspect;
        if *suspects {
            writers.extend(best(&|c| active(c)));
        }
        for other in [MemberState::Draining, MemberState::Joining] {
            if any(&|c| c.state == other) {
                writers.extend(best(&|c| seen(c) && (active(c) || c.state == other)));
            }
        }
    }
    writers.sort_unstable();
    writers.dedup();
    let readers = holders.clone();
    Plan {
        holders,
        writers,
        readers,
    }
}

/// How many places of a ranking are worked out at first: more than are mostly looked at.
const FIRST_PLACES: usize = 8;

/// Candidates from the one that suits a partition best on. Of hundreds only a few are wanted, so the order is worked out as far
/// as somebody looks.
struct Ranking<'c> {
    candidates: &'c [Candidate],
    /// Score, id and index of each; those in the first places are in order, and none of the others comes before them.
    order: Vec<(u64, Reverse<NodeId>, usize)>,
    ordered: usize,
}

impl<'c> Ranking<'c> {
    fn new(partition: u16, candidates: &'c [Candidate]) -> Self {
        let entry = |(at, c): (usize, &Candidate)| (score(partition, c.name_hash), Reverse(c.id), at);
        Self {
            candidates,
            order: candidates.iter().enumerate().map(entry).collect(),
            ordered: 0,
        }
    }

    /// The candidate in a place, from 0.
    fn get(&mut self, place: usize) -> Option<&'c Candidate> {
        if place >= self.ordered {
            self.go_on();
        }
        let (.., at) = self.order.get(place)?;
        self.candidates.get(*at)
    }

    /// Works out as many places again.
    fn go_on(&mut self) {
        let more = self.ordered.max(FIRST_PLACES);
        let Some(rest) = self.order.get_mut(self.ordered..) else {
            return;
        };
        let next = if more < rest.len() {
            rest.select_nth_unstable_by(more, |a, b| b.cmp(a)).0
        } else {
            rest
        };
        next.sort_unstable_by(|a, b| b.cmp(a));
        self.ordered += next.len();
    }

    /// The best `count` that qualify; `spread` puts each as far as possible in a zone, or at least on a machine, of its own.
    fn pick(&mut self, count: usize, spread: bool, qualifies: impl Fn(&Candidate) -> bool) -> Vec<NodeId> {
        let mut picked: Vec<&Candidate> = Vec::with_capacity(count);
        while picked.len() < count {
            let apart = |c: &Candidate| {
                let zone = picked.iter().all(|p| p.zone != c.zone || c.zone == 0);
                let machine = picked.iter().all(|p| p.machine != c.machine || c.machine == 0);
                u8::from(zone) * 2 + u8::from(machine)
            };
            let mut best: Option<(u8, &Candidate)> = None;
            let mut place = 0;
            while let Some(candidate) = self.get(place) {
                place += 1;
                if !qualifies(candidate) || picked.iter().any(|p| p.id == candidate.id) {
                    continue;
                }
                let apart = if spread { apart(candidate) } else { ANYWHERE };
                // Rank decides among equals.
                if best.is_none_or(|(most, _)| apart > most) {
                    best = Some((apart, candidate));
                }
                if apart == ANYWHERE {
                    break;
                }
            }
            let Some((_, best)) = best else {
                break;
            };
            picked.push(best);
        }
        picked.iter().map(|c| c.id).collect()
    }
}

/// In a zone and on a machine of its own, or it does not matter: nothing is better.
const ANYWHERE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u64) -> Vec<Candidate> {
        (1..=count)
            .map(|n| Candidate {
                id: NodeId(n),
                name_hash: crate::store::key_hash(format!("pod-{n}").as_bytes()),
                state: MemberState::Active,
                suspect: false,
                zone: n % 3 + 1,
                machine: n,
            })
            .collect()
    }

    #[test]
    fn holders_are_in_different_zones_and_evenly_spread() {
        let members = candidates(9);
        let mut homes = std::collections::BTreeMap::<NodeId, u32>::new();
        for partition in 0..4096 {
            let plan = plan(partition, &members, Some(1));
            assert_eq!(plan.holders.len(), 2);
            let zone = |id: NodeId| members.iter().find(|c| c.id == id).unwrap().zone;
            assert_ne!(zone(plan.holders[0]), zone(plan.holders[1]));
            *homes.entry(plan.holders[0]).or_default() += 1;
        }
        for (member, count) in homes {
            assert!(
                (350..560).contains(&count),
                "{member:?} is the home of {count} partitions"
            );
        }
    }

    #[test]
    fn a_member_that_goes_moves_only_its_own_partitions() {
        let before = candidates(9);
        let after: Vec<_> = before.iter().filter(|c| c.id != NodeId(4)).cloned().collect();
        for partition in 0..512 {
            let (old, new) = (
                plan(partition, &before, Some(1)),
                plan(partition, &after, Some(1)),
            );
            if !old.holders.contains(&NodeId(4)) {
                assert_eq!(old.holders, new.holders);
            }
        }
    }

    #[test]
    fn writes_reach_the_old_and_the_coming_holders() {
        let mut members = candidates(5);
        members[0].state = MemberState::Joining;
        members[1].state = MemberState::Draining;
        for partition in 0..64 {
            let now = plan(partition, &members, Some(1));
            assert!(now.holders.iter().all(|id| now.writers.contains(id)));
            let mut later = members.clone();
            later[0].state = MemberState::Active;
            let coming = plan(partition, &later, Some(1));
            assert!(coming.holders.iter().all(|id| now.writers.contains(id)));
        }
    }
}
