//! Looks into a core, for the simulation's checks.

use super::clock::Now;
use super::config::Mode;
use super::members::Member;
use super::node::Core;
use super::version::NodeId;
use crate::store::Entry;

impl Core {
    /// The live entry of a key here, whoever may hold it.
    pub(crate) fn peek(&self, now: Now, key: &[u8]) -> Option<Entry<'_>> {
        self.store.live(key, now.wall_ms)
    }

    /// What is known of a key's home, in words.
    pub(crate) fn peek_home(&self, key: &[u8]) -> String {
        self.homes.describe(self.partition(key))
    }

    /// Whatever is here of a key.
    pub(crate) fn peek_any(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.store.lookup(key)
    }

    /// The digests of the partitions that this member ought to hold.
    pub(crate) fn peek_digests(&mut self) -> Vec<(u16, u64)> {
        let me = self.me.id;
        let all = 0..self.config.partitions;
        let held: Vec<u16> = match self.config.mode {
            Mode::All => all.collect(),
            Mode::Backup(_) => all.filter(|p| self.plan(*p).holders.contains(&me)).collect(),
        };
        held.into_iter().map(|p| (p, self.store.digest(p))).collect()
    }

    /// Every entry of a partition, for a report on why digests differ.
    pub(crate) fn peek_partition(&self, partition: u16) -> Vec<String> {
        let mut lines: Vec<String> = self
            .store
            .iter_from(0)
            .filter(|(_, e)| e.partition() == partition)
            .map(|(_, e)| {
                let key = String::from_utf8_lossy(e.key()).into_owned();
                format!(
                    "{key} {:?} inc {:?} ver {:?} expiry {:?}",
                    e.kind(),
                    e.incarnation(),
                    e.version(),
                    e.expiry()
                )
            })
            .collect();
        lines.sort();
        lines
    }

    /// Whether everybody that this member knows is in reach, serves, and is compared with.
    pub(crate) fn peek_calm(&self, exists: impl Fn(NodeId) -> bool) -> bool {
        let fine = |id: NodeId, m: &Member| {
            if exists(id) {
                m.in_reach() && m.serves()
            } else {
                m.dead
            }
        };
        self.serves() && self.members.iter().all(|(id, m)| fine(*id, m))
    }

    /// This member's id.
    pub(crate) fn peek_id(&self) -> NodeId {
        self.me.id
    }

    /// Whether clients are answered from what is here of a key.
    pub(crate) fn peek_holds(&mut self, key: &[u8]) -> bool {
        let partition = self.partition(key);
        self.holds(partition)
    }

    /// Whether this member acts as the home of a key.
    pub(crate) fn peek_acts(&self, key: &[u8]) -> bool {
        self.homes.acts(self.partition(key))
    }

    /// The partitions that this member acts as the home of.
    pub(crate) fn peek_homes(&self) -> impl Iterator<Item = u16> {
        self.homes.acting()
    }

    /// How often it has become the home of a partition.
    pub(crate) fn peek_homes_taken(&self) -> u64 {
        self.counters.homes_taken
    }

    /// Every entry that is alive in partitions that this member holds, and the members it has to be with
    /// when this one has left.
    pub(crate) fn peek_left_to(&mut self, now: Now) -> Vec<(Box<[u8]>, Vec<NodeId>)> {
        let alive: Vec<(Box<[u8]>, u16)> = self
            .store
            .iter_from(0)
            .filter(|(_, e)| e.is_live(now.wall_ms) && self.life.is_held(e.partition()))
            .map(|(_, e)| (e.key().into(), e.partition()))
            .collect();
        alive
            .into_iter()
            .map(|(key, partition)| (key, self.plan(partition).holders.clone()))
            .collect()
    }

    /// Bytes in use and the limit.
    pub(crate) fn peek_memory(&self) -> (usize, usize) {
        (self.store.used_bytes(), self.config.memory_limit)
    }

    /// What is not at rest, in words.
    pub(crate) fn peek_unrest(&self) -> String {
        format!(
            "state {:?} settled {:?} stable {:?} comparisons {} complete {} members {:?}",
            self.state,
            self.settling.settled,
            self.settling.stable,
            self.comparisons.open(),
            self.life.is_complete(),
            self.members
                .iter()
                .map(|(id, m)| (
                    *id,
                    m.state,
                    m.suspect,
                    m.as_of,
                    m.settled,
                    m.out.head() - m.out.acked()
                ))
                .collect::<Vec<_>>()
        )
    }
}
