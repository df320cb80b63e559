//! Room for what is written: the memory limit, and what goes when it is reached.

use super::client::Base;
use super::clock::Now;
use super::command::{Condition, Op};
use super::config::Mode;
use super::groups::is_lock;
use super::node::Core;
use crate::store::Entry;

impl Core {
    /// Makes room for a write; `false` when there is none to be had.
    pub(super) fn make_room(&mut self, now: Now, partition: u16) -> bool {
        let limit = self.config.memory_limit;
        if self.config.evict {
            for _ in 0..64 {
                if limit == 0 || self.store.used_bytes() < limit || !self.evict_one(now, partition) {
                    break;
                }
            }
        }
        let here = limit == 0 || self.store.used_bytes() < limit;
        here && (self.config.evict || !self.peers_are_full(partition))
    }

    /// Whether a member that has to hold the partition says it is at nine tenths of its memory.
    fn peers_are_full(&mut self, partition: u16) -> bool {
        const NINE_TENTHS: u16 = 900;
        let plan = match self.config.mode {
            Mode::All => None,
            Mode::Backup(_) => Some(self.plan(partition)),
        };
        self.members.iter().any(|(id, member)| {
            let needed = plan.as_ref().is_none_or(|plan| plan.holders.contains(id));
            needed && member.is_active() && member.memory >= NINE_TENTHS
        })
    }

    /// Deletes an entry that can best be spared, everywhere: among some, one that no client came back to, else the one
    /// that ends first. Nothing of the partition `but`: what is about to be written must not go.
    fn evict_one(&mut self, now: Now, but: u16) -> bool {
        const LOOK_AT: usize = 16;
        let start = self.comparisons.random_below(u64::from(self.store.end()));
        let start = u32::try_from(start).unwrap_or_default();
        let (wall, groups) = (now.wall_ms, &self.config.groups);
        let spare = |(id, entry): (crate::store::SlotId, Entry<'_>)| {
            let order = (entry.is_revisited(), entry.expires_ms().unwrap_or(u64::MAX));
            let spared = entry.partition() == but || is_lock(groups, entry.key());
            (entry.is_live(wall) && !spared).then_some((order, id))
        };
        let found = self.store.iter_from(start).filter_map(spare).take(LOOK_AT).min();
        let found = found.or_else(|| self.store.iter_from(0).filter_map(spare).take(LOOK_AT).min());
        let Some((_, id)) = found else { return false };
        let Some(key) = self.store.entry(id).map(|entry| Box::<[u8]>::from(entry.key())) else {
            return false;
        };
        self.counters.evicted += 1;
        #[cfg(test)]
        if self.config.faults == super::config::Faults::EvictionNotReplicated {
            self.store.remove(id);
            return true;
        }
        self.changes.clear();
        let place = self.locate(&key);
        self.apply(
            now,
            Base::Unknown,
            None,
            &key,
            place,
            &Op::Delete {
                condition: Condition::Always,
            },
        );
        self.publish();
        true
    }
}
