//! Joining, holding more or less than before, and leaving: how entries get to those that are to hold them, and when a
//! member may say that it has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::antientropy::Purpose;
use super::clock::Now;
use super::config::Mode;
use super::io::{Event, Output};
use super::members::MemberState;
use super::node::Core;
use super::placement::Plan;
use super::version::NodeId;
use super::wire::PeerMessage;

/// See the module.
#[derive(Debug)]
pub(super) struct Life {
    /// Partitions of which everything is here.
    held: Vec<bool>,
    /// Partitions to be filled, and the members that may have something of them.
    fills: BTreeMap<u16, BTreeSet<NodeId>>,
    /// Partitions to be given away, and the members that have got them.
    given: BTreeMap<u16, BTreeSet<NodeId>>,
    /// The placement at the last look.
    previous: Vec<Option<Arc<Plan>>>,
    started_ms: u64,
    /// Other addresses that discovery knows; nothing until it has answered.
    pub(super) others: Option<usize>,
    /// While joining: the members compared with, over these partitions.
    compared: BTreeSet<NodeId>,
    comparing: Vec<u16>,
    stopping: bool,
    drained: bool,
}

impl Life {
    pub(super) fn new(partitions: usize, now_ms: u64) -> Self {
        Self {
            held: vec![false; partitions],
            fills: BTreeMap::new(),
            given: BTreeMap::new(),
            previous: vec![None; partitions],
            started_ms: now_ms,
            others: None,
            compared: BTreeSet::new(),
            comparing: Vec::new(),
            stopping: false,
            drained: false,
        }
    }

    /// Whether all of a partition is here.
    pub(super) fn is_held(&self, partition: u16) -> bool {
        self.held.get(usize::from(partition)).copied().unwrap_or(false)
    }

    fn hold(&mut self, partition: u16, held: bool) {
        if let Some(place) = self.held.get_mut(usize::from(partition)) {
            *place = held;
        }
    }

    /// Whether nothing is on its way to this member, and nothing here is of no concern to it.
    pub(super) fn is_complete(&self) -> bool {
        self.fills.is_empty() && self.given.is_empty()
    }

    /// A member will not send or receive anything any more.
    pub(super) fn forget(&mut self, id: NodeId) {
        let mut filled = Vec::new();
        for (partition, sources) in &mut self.fills {
            if sources.remove(&id) && sources.is_empty() {
                filled.push(*partition);
            }
        }
        for partition in filled {
            self.fills.remove(&partition);
            self.hold(partition, true);
        }
        self.compared.remove(&id);
    }
}

impl Core {
    /// Moves joining and leaving on.
    pub(super) fn live(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.state {
            MemberState::Joining => self.join(now, out),
            MemberState::Draining => {
                self.fill_up();
                self.give_away();
                self.check_drained(now, out);
            }
            MemberState::Active => {
                self.fill_up();
                self.give_away();
            }
            MemberState::Left => {}
        }
        self.end_doubt(now, out);
    }

    fn join(&mut self, now: Now, out: &mut Vec<Output>) {
        let waited = now.mono_ms.saturating_sub(self.life.started_ms);
        let serving: Vec<(NodeId, bool)> = self
            .members
            .iter()
            .filter(|(_, m)| m.serves() && !m.dead)
            .map(|(id, m)| (*id, m.in_reach()))
            .collect();
        #[cfg(test)]
        if self.config.faults == super::config::Faults::JoinReadyTooSoon && !serving.is_empty() {
            return self.become_active(now, Event::Joined { keys: 0, ms: waited }, out);
        }
        if serving.is_empty() {
            self.join_as_first(now, waited, out);
            return;
        }
        let due = self.coming_partitions();
        if due != self.life.comparing {
            self.life.comparing.clone_from(&due);
            self.life.compared.clear();
        }
        let view = self.view_hash();
        let everybody_told = self.config.mode == Mode::All;
        let mut missing = 0;
        for (id, in_reach) in serving {
            if self.life.compared.contains(&id) {
                continue;
            }
            missing += 1;
            // In mode Backup a member sends what it writes only if it goes by the same view.
            let told = everybody_told || self.agrees(id, view);
            if in_reach && told && !self.comparisons.is_pending(id, Purpose::Fill) {
                self.comparisons.queue(id, Purpose::Fill, due.clone());
            }
        }
        if missing == 0 {
            let event = Event::Joined {
                keys: self.store.len(),
                ms: waited,
            };
            self.become_active(now, event, out);
        } else if waited >= self.config.join_timeout_ms {
            self.become_active(now, Event::JoinTimedOut { ms: waited, missing }, out);
        }
    }

    /// The partitions that this member holds when it has joined.
    fn coming_partitions(&mut self) -> Vec<u16> {
        let all = 0..self.config.partitions;
        if self.config.mode == Mode::All {
            return all.collect();
        }
        let me = self.me.id;
        all.filter(|p| self.plan(*p).writers.contains(&me)).collect()
    }

    /// Nobody serves: of those that look for each other the oldest begins.
    fn join_as_first(&mut self, now: Now, waited: u64, out: &mut Vec<Output>) {
        let known = self.members.values().filter(|m| m.link.is_some()).count();
        let expected = self.life.others.unwrap_or(usize::MAX);
        let patience = if known >= expected {
            self.config.discovery_ms
        } else {
            self.config.join_timeout_ms
        };
        let me = (self.me.started_ms, self.me.id);
        let oldest = self
            .members
            .iter()
            .filter(|(_, m)| m.in_reach())
            .all(|(id, m)| me < (m.info.started_ms, *id));
        if waited < patience || !oldest {
            return;
        }
        self.become_active(now, Event::First, out);
        self.take_everything();
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            self.claims_for(now, id, out);
        }
    }

    fn become_active(&mut self, now: Now, event: Event, out: &mut Vec<Output>) {
        self.become_state(MemberState::Active);
        let held = if event == Event::First {
            (0..self.config.partitions).collect()
        } else {
            self.coming_partitions()
        };
        for partition in held {
            self.life.hold(partition, true);
        }
        out.push(Output::Log(event));
        out.push(Output::Ready(true));
        self.view_changed();
        self.beat(now, out);
    }

    /// Partitions have come in from a member.
    pub(super) fn filled(&mut self, now: Now, peer: NodeId, partitions: &[u16], out: &mut Vec<Output>) {
        if self.state == MemberState::Joining {
            if partitions == self.life.comparing {
                self.life.compared.insert(peer);
            }
            self.live(now, out);
            return;
        }
        for partition in partitions {
            let Some(sources) = self.life.fills.get_mut(partition) else {
                continue;
            };
            sources.remove(&peer);
            if sources.is_empty() {
                self.life.fills.remove(partition);
                self.life.hold(*partition, true);
            }
        }
        self.fill_up();
        self.seek_homes(now, out);
    }

    /// Looks what this member has to hold in the present view, and gets what it lacks. Mode Backup only.
    pub(super) fn rebalance(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.config.mode == Mode::All || !self.serves() {
            return;
        }
        let me = self.me.id;
        let mut repairs: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
        for partition in 0..self.config.partitions {
            let plan = self.plan(partition);
            let held = self.life.is_held(partition);
            if plan.writers.contains(&me) {
                if !held && !self.life.fills.contains_key(&partition) {
                    let serving = |id: &&NodeId| self.members.get(id).is_some_and(|m| m.serves() && !m.dead);
                    let home = self.acting_home(partition);
                    let sources: BTreeSet<NodeId> = plan
                        .writers
                        .iter()
                        .chain([&home])
                        .filter(serving)
                        .copied()
                        .collect();
                    if sources.is_empty() {
                        self.life.hold(partition, true);
                    }
                    if !sources.is_empty() {
                        self.life.fills.insert(partition, sources);
                    }
                }
            } else {
                self.life.fills.remove(&partition);
            }
            let previous = self.life.previous.get_mut(usize::from(partition));
            let old = previous.and_then(|place| place.replace(Arc::clone(&plan)));
            if old.as_ref().is_some_and(|old| old.holders != plan.holders) {
                self.life.given.remove(&partition);
            }
            if held && let Some(old) = old.filter(|old| old.writers != plan.writers) {
                // Writes made before the view changed have not gone to those that are new in it.
                for id in plan
                    .writers
                    .iter()
                    .filter(|id| **id != me && !old.writers.contains(id))
                {
                    repairs.entry(*id).or_default().push(partition);
                }
            }
        }
        self.fill_up();
        for (id, partitions) in repairs {
            self.comparisons.queue(id, Purpose::Repair, partitions);
        }
        self.give_away();
        self.compare(now, out);
    }

    /// Gets what this member lacks from those that know that it is to hold it: what they write from then on comes by
    /// itself, and they answer only when it is here.
    fn fill_up(&mut self) {
        if self.life.fills.is_empty() {
            return;
        }
        let mut fills: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
        for (partition, sources) in &self.life.fills {
            for source in sources {
                fills.entry(*source).or_default().push(*partition);
            }
        }
        let view = self.view_hash();
        for (id, partitions) in fills {
            if self.agrees(id, view) && !self.comparisons.is_pending(id, Purpose::Fill) {
                self.comparisons.queue(id, Purpose::Fill, partitions);
            }
        }
    }

    /// Gives partitions that are here, and not to stay, to those that hold them from now on.
    fn give_away(&mut self) {
        let draining = self.state == MemberState::Draining;
        if !draining && self.config.mode == Mode::All {
            return;
        }
        let me = self.me.id;
        let mut giving: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
        for partition in 0..self.config.partitions {
            let plan = self.plan(partition);
            // Also what has strayed here: from members that took this one for a holder.
            let here = self.life.is_held(partition) || self.store.digest(partition) != 0;
            let leaves = here && (draining || !plan.writers.contains(&me));
            if !leaves {
                self.life.given.remove(&partition);
                continue;
            }
            let done = self.life.given.entry(partition).or_default();
            let left: Vec<NodeId> = plan
                .holders
                .iter()
                .filter(|id| !done.contains(id))
                .copied()
                .collect();
            if left.is_empty() && !plan.holders.is_empty() && !draining && !self.homes.acts(partition) {
                self.life.given.remove(&partition);
                self.life.hold(partition, false);
                self.drop_partition(partition);
            }
            for id in left {
                giving.entry(id).or_default().push(partition);
            }
        }
        // One that does not see yet that it is to hold them would give them away and drop them again.
        let view = self.view_hash();
        for (id, partitions) in giving {
            if self.agrees(id, view) && !self.comparisons.is_pending(id, Purpose::Leave) {
                self.comparisons.queue(id, Purpose::Leave, partitions);
            }
        }
    }

    fn drop_partition(&mut self, partition: u16) {
        let ids: Vec<_> = self
            .store
            .iter_from(0)
            .filter(|(_, e)| e.partition() == partition)
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.store.remove(id);
        }
    }

    /// A member has everything of these partitions.
    pub(super) fn handed(&mut self, now: Now, peer: NodeId, partitions: &[u16], out: &mut Vec<Output>) {
        for partition in partitions {
            if let Some(done) = self.life.given.get_mut(partition) {
                done.insert(peer);
            }
        }
        self.live(now, out);
    }

    /// The pod is going.
    pub(super) fn drain(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.state != MemberState::Active {
            return;
        }
        self.become_state(MemberState::Draining);
        self.beat(now, out);
        self.view_changed();
        self.live(now, out);
    }

    /// No more clients.
    pub(super) fn stop(&mut self, now: Now, out: &mut Vec<Output>) {
        self.life.stopping = true;
        if self.state == MemberState::Joining {
            self.leave(now, out);
            return;
        }
        self.drain(now, out);
        self.live(now, out);
    }

    fn check_drained(&mut self, now: Now, out: &mut Vec<Output>) {
        // One that is silent and still exists may be heard again, and has not got what was written here meanwhile.
        let successors = self
            .members
            .values()
            .any(|m| m.state == MemberState::Active && (!m.suspect || m.listed));
        // While all who stay are silent nobody holds anything instead.
        let given = (0..self.config.partitions).all(|p| {
            let plan = self.plan(p);
            let has = |done: &BTreeSet<NodeId>| plan.holders.iter().all(|id| done.contains(id));
            !self.life.is_held(p) || !plan.holders.is_empty() && self.life.given.get(&p).is_some_and(has)
        });
        let quiet = self
            .members
            .values()
            .filter(|m| m.is_active())
            .all(|m| m.out.head() == m.out.acked())
            && self.waiting.is_empty()
            && self.asked.is_empty()
            && self
                .upstream
                .as_ref()
                .is_none_or(super::upstream::Upstream::is_idle);
        let deciding = self.homes.acting().next().is_some();
        let done = !successors || (given && quiet && !deciding);
        #[cfg(test)]
        let done = done || self.config.faults == super::config::Faults::DrainWithoutWaiting;
        if !done {
            return;
        }
        if !self.life.drained {
            self.life.drained = true;
            if !self.life.stopping {
                out.push(Output::Drained);
            }
        }
        if self.life.stopping {
            self.leave(now, out);
        }
    }

    fn leave(&mut self, now: Now, out: &mut Vec<Output>) {
        self.flush(now, out);
        self.say_who_stays(out);
        self.become_state(MemberState::Left);
        self.beat(now, out);
        out.push(Output::Drained);
    }

    /// One that has heard nothing for a while would take itself for the only one that is left.
    fn say_who_stays(&mut self, out: &mut Vec<Output>) {
        let view = self.view_hash();
        let behind = self.members.iter().filter(|(_, m)| m.view != view);
        for id in behind.map(|(id, _)| *id).collect::<Vec<_>>() {
            let records = self.records();
            self.send(id, &PeerMessage::Members(records), out);
        }
    }
}
