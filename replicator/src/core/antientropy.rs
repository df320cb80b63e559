//! Comparing what two members hold, by digests of partitions: for a member that joins, that takes a partition over,
//! that leaves, and now and then to be sure.
//!
//! Only the side that began keeps state; the other answers each request from its store. So a lost message costs one
//! repetition, and nothing is left behind by a member that dies in the middle.

mod answer;

use std::collections::{HashMap, HashSet, VecDeque};

use super::clock::Now;
use super::config::Mode;
use super::io::Output;
use super::node::Core;
use super::version::NodeId;
use super::wire::{PeerMessage, Writer};
use crate::store::SlotId;

/// Why a comparison is made, and so what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To get everything of partitions that this member is to hold.
    Fill,
    /// To be the partitions' home next.
    Handoff,
    /// To give everything to members that stay.
    Leave,
    /// To tell members that have just become holders what was written before everybody wrote to them.
    Repair,
    /// To find what may have been missed, in all that both hold.
    Sweep,
}

/// Comparisons under way at once.
const PARALLEL: usize = 4;
/// Keys in one list of hashes, about.
const LIST_KEYS: usize = 32_768;
/// Bytes of entries in one message, about.
const PORTION_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Comparisons {
    jobs: Vec<Job>,
    queued: VecDeque<(NodeId, Purpose, Vec<u16>)>,
    random: u64,
    periodic_ms: u64,
}

#[derive(Debug)]
struct Job {
    id: u64,
    peer: NodeId,
    purpose: Purpose,
    partitions: Vec<u16>,
    /// Partitions not yet compared.
    open: Vec<u16>,
    /// The partitions that the present list was about.
    listed: Vec<u16>,
    want: Vec<u64>,
    push: VecDeque<SlotId>,
    /// The request that waits for an answer, its number, and when it was sent.
    request: Vec<u8>,
    number: u64,
    sent_ms: u64,
}

impl Comparisons {
    pub(super) fn new(seed: u64, periodic_ms: u64) -> Self {
        Self {
            jobs: Vec::new(),
            queued: VecDeque::new(),
            random: seed,
            periodic_ms,
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.queued.is_empty()
    }

    /// Number of comparisons under way or waiting.
    pub(super) fn open(&self) -> usize {
        self.jobs.len() + self.queued.len()
    }

    /// Asks for a comparison of all that both hold.
    pub(super) fn sweep(&mut self, peer: NodeId) {
        self.queue(peer, Purpose::Sweep, Vec::new());
    }

    /// Asks for a comparison of some partitions.
    pub(super) fn queue(&mut self, peer: NodeId, purpose: Purpose, partitions: Vec<u16>) {
        let same = |q: &&mut (NodeId, Purpose, Vec<u16>)| q.0 == peer && q.1 == purpose;
        match self.queued.iter_mut().find(same) {
            Some((_, _, queued)) => {
                queued.extend(partitions);
                queued.sort_unstable();
                queued.dedup();
            }
            None => self.queued.push_back((peer, purpose, partitions)),
        }
    }

    /// Whether a comparison with a member for this purpose is under way or waiting.
    pub(super) fn is_pending(&self, peer: NodeId, purpose: Purpose) -> bool {
        self.jobs.iter().any(|j| j.peer == peer && j.purpose == purpose)
            || self.queued.iter().any(|q| q.0 == peer && q.1 == purpose)
    }

    /// Gives up everything with a member.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.jobs.retain(|job| job.peer != peer);
        self.queued.retain(|queued| queued.0 != peer);
    }

    /// A number below `bound`, from the seed (`SplitMix64`).
    pub(super) fn random_below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

impl Core {
    /// Begins what is due, and repeats what has not been answered.
    pub(super) fn compare(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono_ms >= self.comparisons.periodic_ms {
            self.comparisons.periodic_ms = now.mono_ms + self.config.antientropy_ms;
            self.compare_with_somebody();
        }
        for _ in 0..self.comparisons.queued.len() {
            if self.comparisons.jobs.len() >= PARALLEL {
                break;
            }
            let Some((peer, purpose, partitions)) = self.comparisons.queued.pop_front() else {
                break;
            };
            let in_reach = self
                .members
                .get(&peer)
                .is_some_and(super::members::Member::in_reach);
            // One that returns takes itself for a holder of all that nobody else is heard of to hold: what it is to have it
            // can only say when all go by the same view again.
            let unclear = purpose == Purpose::Sweep && self.lingers();
            if in_reach && !unclear {
                self.begin(now, peer, purpose, partitions, out);
            } else if self.members.contains_key(&peer) {
                self.comparisons.queued.push_back((peer, purpose, partitions));
            }
        }
        let overdue_ms = now.mono_ms.saturating_sub(2 * self.config.resend_ms);
        let overdue: Vec<(NodeId, Vec<u8>)> = self
            .comparisons
            .jobs
            .iter_mut()
            .filter(|job| job.sent_ms <= overdue_ms)
            .map(|job| {
                job.sent_ms = now.mono_ms;
                (job.peer, job.request.clone())
            })
            .collect();
        for (peer, request) in overdue {
            if self
                .members
                .get(&peer)
                .is_some_and(super::members::Member::in_reach)
            {
                self.send_frame(peer, request, out);
            }
        }
    }

    fn compare_with_somebody(&mut self) {
        if !self.serves() {
            return;
        }
        let peers: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.in_reach() && m.serves())
            .map(|(id, _)| *id)
            .collect();
        let at = self
            .comparisons
            .random_below(u64::try_from(peers.len()).unwrap_or(1));
        if let Some(peer) = usize::try_from(at).ok().and_then(|at| peers.get(at)) {
            self.comparisons.sweep(*peer);
        }
    }

    /// Compares with every member that serves: something may have been lost on its way to only some of them.
    pub(super) fn compare_with_all(&mut self) {
        let peers: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.serves())
            .map(|(id, _)| *id)
            .collect();
        for peer in peers {
            self.settling.await_comparison(peer);
            self.comparisons.sweep(peer);
        }
    }

    /// Compares before acting as the home.
    pub(super) fn compare_for_handoff(
        &mut self,
        now: Now,
        from: NodeId,
        partitions: Vec<u16>,
        out: &mut Vec<Output>,
    ) {
        // At once, whatever else is under way: clients wait for it.
        self.begin(now, from, Purpose::Handoff, partitions, out);
    }

    /// The partitions that both this member and another one hold.
    fn shared(&mut self, peer: NodeId) -> Vec<u16> {
        let all = 0..self.config.partitions;
        if self.config.mode == Mode::All {
            return all.collect();
        }
        let me = self.me.id;
        all.filter(|p| {
            let plan = self.plan(*p);
            plan.writers.contains(&me) && plan.writers.contains(&peer)
        })
        .collect()
    }

    fn begin(
        &mut self,
        now: Now,
        peer: NodeId,
        purpose: Purpose,
        partitions: Vec<u16>,
        out: &mut Vec<Output>,
    ) {
        let partitions = if purpose == Purpose::Sweep {
            self.shared(peer)
        } else {
            partitions
        };
        let job = Job {
            id: self.next_number(),
            peer,
            purpose,
            open: partitions.clone(),
            partitions,
            listed: Vec::new(),
            want: Vec::new(),
            push: VecDeque::new(),
            request: Vec::new(),
            number: 0,
            sent_ms: now.mono_ms,
        };
        let id = job.id;
        let all_at_once = purpose == Purpose::Fill && self.store.is_empty() && !job.open.is_empty();
        let open = job.open.clone();
        self.comparisons.jobs.push(job);
        if all_at_once {
            self.request(
                now,
                id,
                |_| PeerMessage::Pull {
                    id,
                    cursor: 0,
                    partitions: open,
                },
                out,
            );
        } else {
            self.go_on(now, id, out);
        }
    }

    /// Sends a request, and keeps it to be repeated.
    fn request<'m>(
        &mut self,
        now: Now,
        id: u64,
        message: impl FnOnce(u64) -> PeerMessage<'m>,
        out: &mut Vec<Output>,
    ) {
        let Some(job) = self.comparisons.jobs.iter_mut().find(|job| job.id == id) else {
            return;
        };
        job.number += 1;
        let wire = self
            .members
            .get(&job.peer)
            .map_or(super::wire::OLDEST, |m| m.wire);
        job.request = message(job.number).encode(wire);
        job.sent_ms = now.mono_ms;
        let (peer, request) = (job.peer, job.request.clone());
        self.send_frame(peer, request, out);
    }

    /// The next step of a comparison: get, give, compare the rest, or be done.
    fn go_on(&mut self, now: Now, id: u64, out: &mut Vec<Output>) {
        let Some(at) = self.comparisons.jobs.iter().position(|job| job.id == id) else {
            return;
        };
        let Some(job) = self.comparisons.jobs.get_mut(at) else {
            return;
        };
        if !job.want.is_empty() {
            let (partitions, hashes) = (job.listed.clone(), job.want.clone());
            let message = |number| PeerMessage::SyncWant {
                id,
                number,
                partitions,
                hashes,
            };
            return self.request(now, id, message, out);
        }
        if !job.push.is_empty() {
            return self.push_portion(now, id, out);
        }
        if !job.open.is_empty() {
            let digests = job.open.iter().map(|p| (*p, self.store.digest(*p))).collect();
            return self.request(now, id, |_| PeerMessage::SyncStart { id, digests }, out);
        }
        let job = self.comparisons.jobs.remove(at);
        self.compared(now, job.peer, job.purpose, &job.partitions, out);
    }

    fn compared(
        &mut self,
        now: Now,
        peer: NodeId,
        purpose: Purpose,
        partitions: &[u16],
        out: &mut Vec<Output>,
    ) {
        match purpose {
            Purpose::Fill => self.filled(now, peer, partitions, out),
            Purpose::Handoff => self.handoff_done(now, partitions, out),
            Purpose::Leave => self.handed(now, peer, partitions, out),
            Purpose::Repair => {}
            Purpose::Sweep => self.comparison_settled(now, peer, out),
        }
        self.compare(now, out);
    }

    fn push_portion(&mut self, now: Now, id: u64, out: &mut Vec<Output>) {
        let Some(job) = self.comparisons.jobs.iter_mut().find(|job| job.id == id) else {
            return;
        };
        let wire = self
            .members
            .get(&job.peer)
            .map_or(super::wire::OLDEST, |m| m.wire);
        job.number += 1;
        let mut writer = Writer::new(wire);
        super::wire::push_head(&mut writer, id, job.number);
        while let Some(slot) = job.push.front() {
            let Some(entry) = self.store.entry(*slot) else {
                job.push.pop_front();
                continue;
            };
            if writer.len() > 64 && writer.len() + entry.bytes() > PORTION_BYTES {
                break;
            }
            writer.entry(&entry.state());
            job.push.pop_front();
        }
        writer.end_entries();
        job.request = writer.into_bytes();
        job.sent_ms = now.mono_ms;
        let (peer, request) = (job.peer, job.request.clone());
        self.send_frame(peer, request, out);
    }

    /// A message of a comparison.
    pub(super) fn on_comparison(
        &mut self,
        now: Now,
        from: NodeId,
        message: PeerMessage<'_>,
        out: &mut Vec<Output>,
    ) {
        match message {
            PeerMessage::SyncStart { id, digests } => self.on_digests(from, id, &digests, out),
            PeerMessage::SyncWant {
                id,
                number,
                partitions,
                hashes,
            } => {
                self.on_want(from, (id, number), &partitions, hashes, out);
            }
            PeerMessage::Pull {
                id,
                cursor,
                partitions,
            } => self.on_pull(from, id, cursor, &partitions, out),
            PeerMessage::SyncPush { id, number, entries } => {
                self.repair(now, from, &entries, out);
                self.send(from, &PeerMessage::SyncPushed { id, number }, out);
            }
            PeerMessage::SyncDiff { id, lists, rest } => self.on_diff(now, id, &lists, rest, out),
            PeerMessage::SyncEntries {
                id,
                number,
                entries,
                unserved,
            } => {
                self.repair(now, from, &entries, out);
                if let Some(job) = self.job(id, number) {
                    job.want = unserved;
                    self.go_on(now, id, out);
                }
            }
            PeerMessage::SyncPushed { id, number } if self.job(id, number).is_some() => {
                self.go_on(now, id, out);
            }
            PeerMessage::Pulled {
                id,
                cursor: _,
                next,
                entries,
            } => {
                self.repair(now, from, &entries, out);
                self.on_pulled(now, id, next, out);
            }
            _ => {}
        }
    }

    /// A comparison that waits for the answer with this number.
    fn job(&mut self, id: u64, number: u64) -> Option<&mut Job> {
        self.comparisons
            .jobs
            .iter_mut()
            .find(|job| job.id == id && job.number == number)
    }

    fn repair(
        &mut self,
        now: Now,
        from: NodeId,
        entries: &[crate::store::EntryState<'_>],
        out: &mut Vec<Output>,
    ) {
        self.counters.repaired += u64::try_from(entries.len()).unwrap_or_default();
        self.absorb(now, from, entries, out);
    }

    /// The other side has said what differs.
    fn on_diff(
        &mut self,
        now: Now,
        id: u64,
        lists: &[(u16, Vec<(u64, u64)>)],
        rest: Vec<u16>,
        out: &mut Vec<Output>,
    ) {
        let Some(job) = self.comparisons.jobs.iter().find(|job| job.id == id) else {
            return;
        };
        // A repeated answer must not start the same work twice.
        if !job.want.is_empty() || !job.push.is_empty() || job.open.is_empty() {
            return;
        }
        let listed: Vec<u16> = lists.iter().map(|(p, _)| *p).collect();
        let wanted: HashSet<u16> = listed.iter().copied().collect();
        let mut mine: HashMap<u64, (SlotId, u64)> = self
            .store
            .hashes(|p| wanted.contains(&p))
            .into_iter()
            .map(|(slot, k, s)| (k, (slot, s)))
            .collect();
        let mut want = Vec::new();
        let mut push: Vec<SlotId> = Vec::new();
        for (key, state) in lists.iter().flat_map(|(_, list)| list) {
            match mine.remove(key) {
                None => want.push(*key),
                Some((slot, own)) if own != *state => {
                    want.push(*key);
                    push.push(slot);
                }
                Some((slot, _)) => self.settling.confirm(self.store.entry(slot)),
            }
        }
        push.extend(mine.into_values().map(|(slot, _)| slot));
        push.retain(|slot| {
            self.store
                .entry(*slot)
                .is_some_and(|e| !self.settling.is_unconfirmed(&e))
        });
        push.sort_unstable();
        if let Some(job) = self.comparisons.jobs.iter_mut().find(|job| job.id == id) {
            job.listed = listed;
            job.open = rest;
            job.want = want;
            job.push = push.into();
        }
        self.go_on(now, id, out);
    }

    fn on_pulled(&mut self, now: Now, id: u64, next: Option<u32>, out: &mut Vec<Output>) {
        let Some(job) = self.comparisons.jobs.iter().find(|job| job.id == id) else {
            return;
        };
        let partitions = job.open.clone();
        match next {
            Some(cursor) => self.request(
                now,
                id,
                |_| PeerMessage::Pull {
                    id,
                    cursor,
                    partitions,
                },
                out,
            ),
            // What changed meanwhile shows in the digests.
            None => self.go_on(now, id, out),
        }
    }
}
