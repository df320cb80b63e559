//! The side of a comparison that keeps no state: it answers each request from its store.

use std::collections::{HashMap, HashSet};

use super::{LIST_KEYS, PORTION_BYTES};
use crate::core::io::Output;
use crate::core::node::Core;
use crate::core::version::NodeId;
use crate::core::wire::PeerMessage;

impl Core {
    /// Answers with what differs.
    pub(super) fn on_digests(
        &mut self,
        from: NodeId,
        id: u64,
        digests: &[(u16, u64)],
        out: &mut Vec<Output>,
    ) {
        let differ: HashSet<u16> = digests
            .iter()
            .filter(|(p, digest)| self.store.digest(*p) != *digest)
            .map(|(p, _)| *p)
            .collect();
        let mut lists: HashMap<u16, Vec<(u64, u64)>> = differ.iter().map(|p| (*p, Vec::new())).collect();
        if !differ.is_empty() {
            for (slot, key, state) in self.store.hashes(|p| differ.contains(&p)) {
                let Some(entry) = self.store.entry(slot) else {
                    continue;
                };
                if self.settling.is_unconfirmed(&entry) {
                    continue;
                }
                if let Some(list) = lists.get_mut(&entry.partition()) {
                    list.push((key, state));
                }
            }
        }
        let mut sorted: Vec<(u16, Vec<(u64, u64)>)> = lists.into_iter().collect();
        sorted.sort_unstable_by_key(|(p, _)| *p);
        let mut keys = 0;
        let mut fits = 0;
        for (_, list) in &sorted {
            keys += list.len();
            if fits > 0 && keys > LIST_KEYS {
                break;
            }
            fits += 1;
        }
        let rest = sorted.split_off(fits).into_iter().map(|(p, _)| p).collect();
        self.send(
            from,
            &PeerMessage::SyncDiff {
                id,
                lists: sorted,
                rest,
            },
            out,
        );
    }

    /// Answers with the entries asked for, as many as fit.
    pub(super) fn on_want(
        &mut self,
        from: NodeId,
        (id, number): (u64, u64),
        partitions: &[u16],
        hashes: Vec<u64>,
        out: &mut Vec<Output>,
    ) {
        let partitions: HashSet<u16> = partitions.iter().copied().collect();
        let mut unserved: HashSet<u64> = hashes.iter().copied().collect();
        let mut entries = Vec::new();
        let (mut bytes, mut full) = (0, false);
        for (slot, key, _) in self.store.hashes(|p| partitions.contains(&p)) {
            if !unserved.contains(&key) {
                continue;
            }
            let Some(entry) = self.store.entry(slot) else {
                continue;
            };
            if bytes > 0 && bytes + entry.bytes() > PORTION_BYTES {
                full = true;
                break;
            }
            bytes += entry.bytes();
            unserved.remove(&key);
            entries.push(entry.state());
        }
        // What was not found has gone meanwhile.
        let unserved = if full {
            hashes.into_iter().filter(|h| unserved.contains(h)).collect()
        } else {
            Vec::new()
        };
        let message = PeerMessage::SyncEntries {
            id,
            number,
            entries,
            unserved,
        };
        let Some(member) = self.members.get(&from) else {
            return;
        };
        let frame = message.encode(member.wire);
        self.send_frame(from, frame, out);
    }

    /// Answers with all entries of some partitions, as many as fit.
    pub(super) fn on_pull(
        &mut self,
        from: NodeId,
        id: u64,
        cursor: u32,
        partitions: &[u16],
        out: &mut Vec<Output>,
    ) {
        let wanted: HashSet<u16> = partitions.iter().copied().collect();
        let (mut bytes, mut next) = (0, None);
        let mut entries = Vec::new();
        for (slot, entry) in self.store.iter_from(cursor) {
            if !wanted.contains(&entry.partition()) || self.settling.is_unconfirmed(&entry) {
                continue;
            }
            if bytes > 0 && bytes + entry.bytes() > PORTION_BYTES {
                next = Some(slot.number());
                break;
            }
            bytes += entry.bytes();
            entries.push(entry.state());
        }
        let message = PeerMessage::Pulled {
            id,
            cursor,
            next,
            entries,
        };
        let Some(member) = self.members.get(&from) else {
            return;
        };
        let frame = message.encode(member.wire);
        self.send_frame(from, frame, out);
    }
}
