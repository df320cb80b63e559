//! The view: who is a member, in which state, in reach or not; and what follows when that changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::clock::Now;
use super::config::{Mode, NodeInfo};
use super::io::{Event, Output};
use super::members::{Member, MemberState};
use super::node::Core;
use super::placement::{self, Candidate, Plan};
use super::version::NodeId;
use super::wire::MemberRecord;
use crate::store::key_hash;

/// How long a member that has gone is remembered, milliseconds.
const REMEMBER_GONE_MS: u64 = 600_000;
/// A member whose view keeps differing is told whom this one knows after so long at the latest, milliseconds.
const TELL_MS: u64 = 5_000;

/// Who counts for placement.
#[derive(Debug)]
pub(super) struct Views {
    /// See [`Core::view_hash`].
    hash: u64,
    /// When that last changed, `mono_ms`.
    since_ms: u64,
    /// `present` and the plans are out of date.
    stale: bool,
    /// What follows from a change is still to be done.
    changed: bool,
    present: Vec<Candidate>,
    /// By partition: the last plan, if some members in reach may not have left it, or one before it, behind yet. Nothing
    /// when all go by the present view, and in mode All.
    past: Vec<Option<Arc<Plan>>>,
}

impl Views {
    /// The view of a member that knows nobody else.
    pub(super) fn new(me: NodeId, state: MemberState) -> Self {
        Self {
            hash: hash_of(me, state),
            since_ms: 0,
            stale: true,
            changed: false,
            present: Vec::new(),
            past: Vec::new(),
        }
    }
}

/// What a member adds to the hash of a view.
fn hash_of(id: NodeId, state: MemberState) -> u64 {
    key_hash(&(u128::from(id.0) << 8 | u128::from(state as u8)).to_le_bytes())
}

impl Core {
    /// The placement of a partition in the present view.
    pub(super) fn plan(&mut self, partition: u16) -> Arc<Plan> {
        if self.views.stale {
            self.renew_view();
        }
        if let Some(Some(plan)) = self.plans.get(usize::from(partition)) {
            return Arc::clone(plan);
        }
        let backups = match self.config.mode {
            Mode::All => None,
            Mode::Backup(backups) => Some(backups),
        };
        let mut plan = placement::plan(partition, &self.views.present, backups);
        if let Some(Some(past)) = self.views.past.get(usize::from(partition)) {
            plan.linger(past);
        }
        let plan = Arc::new(plan);
        if let Some(place) = self.plans.get_mut(usize::from(partition)) {
            *place = Some(Arc::clone(&plan));
        }
        plan
    }

    fn candidates(&self) -> Vec<Candidate> {
        let label = |text: &str| {
            if text.is_empty() {
                0
            } else {
                key_hash(text.as_bytes())
            }
        };
        let candidate = |info: &NodeInfo, name_hash, state, suspect| Candidate {
            id: info.id,
            name_hash,
            state,
            suspect,
            zone: label(&info.zone),
            machine: label(&info.machine),
        };
        self.members
            .values()
            .filter(|m| !m.dead)
            .map(|m| candidate(&m.info, m.name_hash, m.state, m.suspect))
            .chain([candidate(&self.me, self.name_hash, self.state, false)])
            .collect()
    }

    /// The view has changed. What follows is done at the end of the step, once, however much has changed in it: with
    /// hundreds of members it costs milliseconds.
    pub(super) fn view_changed(&mut self) {
        self.views.stale = true;
        self.views.changed = true;
        self.stirred = true;
    }

    /// Plans are from now on made for the members as they are.
    fn renew_view(&mut self) {
        self.views.stale = false;
        let present = self.candidates();
        if present != self.views.present {
            self.views.present = present;
            if self.config.mode != Mode::All {
                self.views.past.resize(self.plans.len(), None);
                for (past, plan) in self.views.past.iter_mut().zip(&mut self.plans) {
                    // It has in it what lingered before.
                    if let Some(plan) = plan.take() {
                        *past = Some(plan);
                    }
                }
            }
        }
        self.plans.fill(None);
    }

    /// Everything that follows from a change of the view.
    pub(super) fn follow_view(&mut self, now: Now, out: &mut Vec<Output>) {
        while std::mem::take(&mut self.views.changed) {
            self.views.since_ms = now.mono_ms;
            self.watch_isolation(now);
            self.rebalance(now, out);
            self.seek_homes(now, out);
            self.retry_asked(now, out);
        }
    }

    /// Whether a member that tells a view other than this one's is to be told whom this member knows. What has just
    /// changed it will hear from those concerned.
    pub(super) fn differs(&self, now: Now, id: NodeId, view: u64, news: bool) -> bool {
        let settled = !news && self.views.since_ms + self.config.heartbeat_ms <= now.mono_ms;
        let told_ms = self.members.get(&id).map(|m| m.told_ms);
        view != self.view_hash() && told_ms.is_some_and(|told_ms| settled || told_ms + TELL_MS <= now.mono_ms)
    }

    /// Whether a member knows the same members in the same states.
    pub(super) fn agrees(&self, id: NodeId, view: u64) -> bool {
        self.members.get(&id).is_some_and(|m| m.view == view)
    }

    /// Whether somebody in reach may still go by a view of the past. Never in mode All, where every member holds everything.
    pub(super) fn lingers(&self) -> bool {
        !self.views.past.is_empty()
    }

    /// Forgets the views of the past when nobody in reach goes by them any more.
    pub(super) fn end_past(&mut self) {
        if self.views.past.is_empty() {
            return;
        }
        let view = self.view_hash();
        if self.members.values().all(|m| m.suspect || m.view == view) {
            self.views.past = Vec::new();
            self.view_changed();
        }
    }

    /// Takes up a member, or news of one.
    pub(super) fn learn(&mut self, now: Now, record: &MemberRecord, out: &mut Vec<Output>) {
        self.learn_all(now, std::slice::from_ref(record), out);
    }

    /// Takes up all of these: however many there are, the view changes once.
    pub(super) fn learn_all(&mut self, now: Now, records: &[MemberRecord], out: &mut Vec<Output>) {
        let mut changed = false;
        for record in records {
            changed |= self.take_note(now, record, out);
        }
        if changed {
            self.view_changed();
        }
    }

    /// Takes note of a member; says whether the view has to change.
    fn take_note(&mut self, now: Now, record: &MemberRecord, out: &mut Vec<Output>) -> bool {
        let MemberRecord { info, state } = record;
        // Of two processes under one name this one is the newer.
        if info.id == self.me.id || info.name == self.me.name || self.gone.contains_key(&info.id) {
            return false;
        }
        if *state == MemberState::Left {
            if self.members.contains_key(&info.id) {
                self.remove_member(now, info.id, false, out);
            }
            self.gone.insert(info.id, now.mono_ms);
            return false;
        }
        if let Some(member) = self.members.get_mut(&info.id) {
            if *state <= member.state {
                return false;
            }
            self.views.hash ^= hash_of(info.id, member.state) ^ hash_of(info.id, *state);
            member.state = *state;
            if *state == MemberState::Draining {
                // It waits for the others to see it.
                self.beat_due_ms = now.mono_ms;
            }
            out.push(Output::Log(Event::Member(info.id, state.name())));
            return true;
        }
        // A new process under the name of an old one: the old one's memory is gone.
        let older = self.members.values().find(|m| m.info.name == info.name).map(|m| {
            (
                m.info.id,
                (m.info.started_ms, m.info.id) < (info.started_ms, info.id),
            )
        });
        match older {
            Some((_, false)) => return false,
            Some((old, true)) => self.remove_member(now, old, false, out),
            None => {}
        }
        let mut member = Member::new(info.clone(), *state, now.mono_ms, self.config.ring);
        // It may have come to a majority that this member has not been with for long.
        member.apart = self.settling.is_isolated();
        self.views.hash ^= hash_of(info.id, *state);
        self.members.insert(info.id, member);
        if *state != MemberState::Joining {
            self.catch_up_after_parting(now, info.id);
        }
        out.push(Output::Log(Event::Member(info.id, state.name())));
        out.push(Output::Dial {
            address: info.address.clone(),
        });
        // Let it know this member.
        self.beat_due_ms = now.mono_ms;
        true
    }

    /// A member is no more: it has left in order, or it is certain that it will not come back.
    pub(super) fn remove_member(&mut self, now: Now, id: NodeId, in_order: bool, out: &mut Vec<Output>) {
        let Some(mut member) = self.members.remove(&id) else {
            return;
        };
        self.views.hash ^= hash_of(id, member.state);
        self.gone.insert(id, now.mono_ms);
        self.gone
            .retain(|_, at_ms| *at_ms + REMEMBER_GONE_MS > now.mono_ms);
        if let Some(link) = member.link {
            if let Some(link) = self.links.get_mut(&link) {
                link.peer = None;
            }
            out.push(Output::Close {
                link,
                reason: "the member has gone",
            });
        }
        out.push(Output::Log(Event::Member(
            id,
            if in_order { "gone" } else { "lost" },
        )));
        let waiters = member.out.take_waiters();
        self.unconfirmed(now, &waiters, out);
        self.comparisons.forget(id);
        self.life.forget(id);
        if !in_order {
            self.settling.freeze(member.as_of);
            self.compare_with_all();
        }
        self.handoff_lost(now, id, out);
        self.view_changed();
    }

    /// Looks who is heard, and who no longer is.
    pub(super) fn watch_members(&mut self, now: Now, out: &mut Vec<Output>) {
        let (suspect_after, dead_after) = (self.config.suspect_after_ms, self.config.dead_after_ms);
        let (mut silent, mut died) = (Vec::new(), Vec::new());
        for (id, member) in &mut self.members {
            let quiet = now.mono_ms.saturating_sub(member.heard_ms);
            if quiet >= suspect_after && !member.suspect {
                silent.push(*id);
            }
            if quiet >= dead_after && !member.dead {
                member.dead = true;
                died.push(*id);
            }
        }
        for id in silent {
            self.suspect(now, id, out);
        }
        if !died.is_empty() {
            for id in &died {
                out.push(Output::Log(Event::Member(*id, "dead")));
                self.life.forget(*id);
                self.comparisons.forget(*id);
            }
            self.view_changed();
        }
        self.expel_the_silent(now);
        let trusted = self.members.values().filter(|m| !m.suspect);
        self.suspect_due_ms = trusted
            .map(|m| m.heard_ms + suspect_after)
            .min()
            .unwrap_or(u64::MAX);
    }

    /// Routes around a member.
    pub(super) fn suspect(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&id).filter(|m| !m.suspect) else {
            return;
        };
        member.suspect = true;
        member.apart = true;
        let waiters = member.out.take_waiters();
        out.push(Output::Log(Event::Member(id, "suspected")));
        self.leave_to_others(id);
        self.unconfirmed(now, &waiters, out);
        self.handoff_lost(now, id, out);
        self.view_changed();
    }

    /// A member is heard again.
    pub(super) fn unsuspect(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&id).filter(|m| m.suspect) else {
            return;
        };
        member.suspect = false;
        let was_given_up = std::mem::take(&mut member.dead);
        self.impaired_until_ms = now.mono_ms + self.config.dead_after_ms;
        member.out.rewind();
        out.push(Output::Log(Event::Member(id, "heard again")));
        self.watch_isolation(now);
        if !self.settling.is_isolated()
            && let Some(member) = self.members.get_mut(&id)
        {
            member.apart = false;
        }
        self.claims_for(now, id, out);
        // It may have suspected this member as well, and routes around it until it is told otherwise.
        self.beat_to(now, id, out);
        self.comparisons.sweep(id);
        if was_given_up {
            self.catch_up_after_parting(now, id);
        }
        self.view_changed();
    }

    /// A number that two members agree on when they know the same members in the same states. It goes along with each
    /// heartbeat, so it is kept, not worked out.
    pub(super) fn view_hash(&self) -> u64 {
        self.views.hash
    }

    /// This member goes on to another state.
    pub(super) fn become_state(&mut self, state: MemberState) {
        self.views.hash ^= hash_of(self.me.id, self.state) ^ hash_of(self.me.id, state);
        self.state = state;
    }

    /// Everybody that is known, those that have gone lately included, and this member.
    pub(super) fn records(&self) -> Vec<MemberRecord> {
        let gone = self.gone.keys().map(|id| MemberRecord {
            info: NodeInfo {
                id: *id,
                name: String::new(),
                address: String::new(),
                zone: String::new(),
                machine: String::new(),
                started_ms: 0,
            },
            state: MemberState::Left,
        });
        let others = self.members.values().map(Member::record);
        others.chain(gone).chain([self.record()]).collect()
    }

    pub(super) fn record(&self) -> MemberRecord {
        MemberRecord {
            info: self.me.clone(),
            state: self.state,
        }
    }

    /// Zones and machines of members, by name.
    pub(super) fn on_topology(&mut self, places: &[(String, String, String)]) {
        let mut changed = false;
        for (name, zone, machine) in places {
            let infos = self
                .members
                .values_mut()
                .map(|m| &mut m.info)
                .chain([&mut self.me]);
            for info in infos.filter(|info| info.name == *name) {
                changed |= info.zone != *zone || info.machine != *machine;
                info.zone.clone_from(zone);
                info.machine.clone_from(machine);
            }
        }
        if changed {
            self.view_changed();
        }
    }

    /// Discovery has answered. A member that it named before and no longer does, and that has been silent for long since
    /// (what discovery says may be old), will not come back: its pod is gone.
    pub(super) fn on_discovered(&mut self, now: Now, addresses: &BTreeSet<String>, out: &mut Vec<Output>) {
        self.life.others = Some(addresses.len());
        let silent_ms = 3 * self.config.dead_after_ms;
        let mut lost = Vec::new();
        for (id, member) in &mut self.members {
            if addresses.contains(&member.info.address) {
                member.listed = true;
            } else if member.dead && member.listed && now.mono_ms >= member.heard_ms + silent_ms {
                lost.push(*id);
            }
        }
        for id in lost {
            self.remove_member(now, id, false, out);
        }
    }

    /// The pods that exist: a silent member that is not among them will not come back.
    pub(super) fn on_exists(&mut self, now: Now, names: &[String], out: &mut Vec<Output>) {
        let lost: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| (m.suspect || m.link.is_none()) && !names.contains(&m.info.name))
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.remove_member(now, id, false, out);
        }
    }
}
