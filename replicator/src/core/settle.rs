//! When tombstones may go: when everybody knows everything up to their time.
//!
//! Each member says up to when it has all writes of all others (the time up to which each of them said it had sent
//! everything). The least of what all known members say, suspected ones included, is stable: no older write can still
//! appear, so a tombstone up to then has nothing left to stop. A member silent for longer than any session lives no
//! longer counts; when it returns it has to prove each of its old entries.

use std::collections::{BTreeSet, HashSet};

use super::clock::{Hlc, Now};
use super::io::{Event, Output};
use super::node::Core;
use super::version::NodeId;
use crate::store::{Content, Entry, EntryState, key_hash, touch_slack_ms};

/// How far clocks may be apart, milliseconds.
const CLOCK_SKEW_MS: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Up to when this member knows everything.
    pub(super) settled: Hlc,
    /// Up to when everybody does.
    pub(super) stable: Hlc,
    /// Something may be missing since then, until the comparisons are done.
    frozen: Option<Hlc>,
    awaited: BTreeSet<NodeId>,
    /// Since when this member has been without a majority.
    isolated_since: Option<(Hlc, u64)>,
    /// After an isolation: with whom it has yet to compare what it holds, and until when that is waited for.
    behind: Option<Behind>,
    doubt: Option<Doubt>,
    released: Hlc,
    next_release_ms: u64,
}

/// Others may have written while this member did not hear them.
#[derive(Debug)]
struct Behind {
    awaited: BTreeSet<NodeId>,
    until_ms: u64,
    /// Until then those that are not in reach are awaited as well: links are still being made, and the first words that come are
    /// old ones, of not hearing this member for example.
    settles_ms: u64,
}

/// After a long isolation: which entries are still valid?
#[derive(Debug)]
struct Doubt {
    before: Hlc,
    confirmed: HashSet<u64>,
    awaited: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
}

impl Settling {
    /// Something may have been missed since a time.
    pub(super) fn freeze(&mut self, since: Hlc) {
        self.frozen = Some(self.frozen.map_or(since, |frozen| frozen.min(since)));
    }

    /// A comparison with this member is needed before things are settled.
    pub(super) fn await_comparison(&mut self, peer: NodeId) {
        self.awaited.insert(peer);
    }

    /// Whether this member has been isolated and does not know yet what it has missed: what it holds may be old, and what it
    /// does not hold may be there.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Whether this member hears no majority of the others.
    pub(super) fn is_isolated(&self) -> bool {
        self.isolated_since.is_some()
    }

    /// Whether this member is finding out which entries are valid.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether an entry may have been deleted by others, so that it must not be told to anybody.
    pub(super) fn is_unconfirmed(&self, entry: &Entry<'_>) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| {
            entry.incarnation().at < doubt.before
                && !entry.is_dead()
                && !doubt.confirmed.contains(&key_hash(entry.key()))
        })
    }

    /// Another member has the entry too.
    pub(super) fn confirm(&mut self, entry: Option<Entry<'_>>) {
        if let (Some(doubt), Some(entry)) = (&mut self.doubt, entry) {
            doubt.confirmed.insert(key_hash(entry.key()));
        }
    }
}

impl Core {
    /// Takes note that another member has said something of an entry.
    pub(super) fn confirm_doubtful(&mut self, state: &EntryState<'_>) {
        let Some(doubt) = &mut self.settling.doubt else {
            return;
        };
        let here = self.store.lookup(state.key).map(Entry::incarnation);
        if here == Some(state.incarnation) && !matches!(state.content, Content::Dead { .. }) {
            doubt.confirmed.insert(key_hash(state.key));
        }
    }

    /// The stream of a member has a hole: digests have to be compared before anything counts as settled.
    pub(super) fn after_gap(&mut self, from: NodeId) {
        let since = self.members.get(&from).map_or(Hlc::ZERO, |m| m.as_of);
        self.settling.freeze(since);
        self.settling.await_comparison(from);
        self.comparisons.sweep(from);
    }

    /// A comparison is done.
    pub(super) fn comparison_settled(&mut self, now: Now, peer: NodeId, out: &mut Vec<Output>) {
        self.settling.awaited.remove(&peer);
        if let Some(behind) = &mut self.settling.behind {
            behind.awaited.remove(&peer);
        }
        self.end_catching_up(now);
        if let Some(doubt) = &mut self.settling.doubt {
            doubt.awaited.remove(&peer);
            self.end_doubt(now, out);
        }
    }

    /// Works out what is settled here and stable everywhere, and drops tombstones accordingly.
    pub(super) fn settle(&mut self, now: Now) {
        self.end_catching_up(now);
        let known: Vec<(Hlc, Hlc)> = self
            .members
            .values()
            .filter(|m| m.expelled == 0)
            .map(|m| (m.as_of, m.settled))
            .collect();
        let members = &self.members;
        self.settling
            .awaited
            .retain(|id| members.get(id).is_some_and(|m| m.expelled == 0));
        let complete = self.serves() && self.life.is_complete();
        let horizon_ms = self.horizon_ms();
        let own = self.clock.reading(now.wall_ms);
        let upstream = self.clean_upstream(own);
        // Who is out of reach of only some routes around members that others still reach, and holds copies of which these know
        // nothing: what is deleted meanwhile it does not hear of until all go by one view again and it has handed them over.
        let whole = now.mono_ms >= self.impaired_until_ms
            && self.members.values().all(|m| !m.suspect || m.expelled != 0);
        let settling = &mut self.settling;
        if settling.awaited.is_empty() {
            settling.frozen = None;
        }
        let heard = known.iter().map(|(as_of, _)| *as_of).min();
        let candidate = heard
            .unwrap_or(own)
            .min(own)
            .min(settling.frozen.unwrap_or(Hlc::MAX));
        if complete && whole && settling.doubt.is_none() {
            settling.settled = settling.settled.max(candidate);
        }
        let everywhere = known
            .iter()
            .map(|(_, settled)| *settled)
            .min()
            .unwrap_or(Hlc::MAX);
        // One that has been given up may come back with sessions that began while it was away.
        let all_here = self.members.values().all(|m| m.expelled == 0);
        let least_age_ms = if all_here {
            self.config.tombstone_min_ms
        } else {
            horizon_ms
        };
        let old_enough = Hlc::from_ms(now.wall_ms.saturating_sub(least_age_ms));
        let stable = settling.settled.min(everywhere).min(old_enough).min(upstream);
        #[cfg(test)]
        let stable = if self.config.faults == super::config::Faults::TombstoneDroppedEarly {
            own
        } else {
            stable
        };
        if settling.isolated_since.is_none() && settling.doubt.is_none() {
            settling.stable = settling.stable.max(stable);
        }
        if settling.stable > settling.released && now.mono_ms >= settling.next_release_ms {
            settling.next_release_ms = now.mono_ms + 5 * self.config.heartbeat_ms;
            settling.released = settling.stable;
            self.store.release_tombstones(self.settling.stable);
        }
    }

    /// Takes note of having a majority of the members in reach, or not. Of two equal halves the one with the lowest id
    /// counts as the majority, but only until an isolation: who comes back and hears one of three others does not know that
    /// those three have gone on as the majority.
    pub(super) fn watch_isolation(&mut self, now: Now) {
        let others = || self.members.iter().filter(|(_, m)| m.serves());
        let lowest = others().map(|(id, _)| *id).chain([self.me.id]).min();
        let heard = others().filter(|(_, m)| !m.suspect).count() + 1;
        let all = others().count() + 1;
        let has_lowest =
            others().any(|(id, m)| !m.suspect && Some(*id) == lowest) || lowest == Some(self.me.id);
        let settling = &mut self.settling;
        let half = heard * 2 == all && has_lowest && settling.isolated_since.is_none();
        let majority = heard * 2 > all || half;
        match settling.isolated_since {
            None if !majority => {
                let since = now.wall_ms.saturating_sub(self.config.suspect_after_ms);
                settling.isolated_since = Some((Hlc::from_ms(since), now.mono_ms));
            }
            Some((since, at_ms)) if majority => {
                settling.isolated_since = None;
                self.begin_to_catch_up(now);
                if now.mono_ms.saturating_sub(at_ms) + 2 * self.config.suspect_after_ms >= self.horizon_ms() {
                    self.begin_doubt(since);
                }
            }
            _ => {}
        }
    }

    /// Asks everybody in reach what was missed, and leaves deciding to them.
    fn begin_to_catch_up(&mut self, now: Now) {
        let others = self.members.iter().filter(|(_, m)| m.in_reach() && m.serves());
        let awaited: BTreeSet<NodeId> = others.map(|(id, _)| *id).collect();
        // The others are gone for good: there is no other side.
        self.give_back(!awaited.is_empty());
        self.catch_up_with(now, awaited);
    }

    fn catch_up_with(&mut self, now: Now, awaited: BTreeSet<NodeId>) {
        if awaited.is_empty() {
            return;
        }
        for id in &awaited {
            self.comparisons.sweep(*id);
        }
        self.stirred = true;
        self.settling.behind = Some(Behind {
            awaited,
            until_ms: now.mono_ms + self.config.dead_after_ms,
            settles_ms: self.stalled_until_ms,
        });
    }

    /// A member is met that had been given up, or that came to others while this one did not hear them. Which side was the majority
    /// neither can tell: both had new members meanwhile. What it has is compared before anything is decided, so that a request that
    /// waited on the way to this side is not answered by what was true before.
    pub(super) fn catch_up_after_parting(&mut self, now: Now, id: NodeId) {
        // Who is without a majority has more to find out, and does so with all others once there is one again.
        let just_awake = now.mono_ms < self.stalled_until_ms && self.settling.is_behind();
        if !self.serves() || (self.settling.is_isolated() && !just_awake) {
            return;
        }
        self.comparisons.sweep(id);
        self.stirred = true;
        let settles_ms = now.mono_ms + self.config.heartbeat_ms;
        let behind = self.settling.behind.get_or_insert_with(|| Behind {
            awaited: BTreeSet::new(),
            until_ms: 0,
            settles_ms: 0,
        });
        behind.awaited.insert(id);
        // Who is in reach and does not answer for so long will be suspected.
        behind.until_ms = behind.until_ms.max(now.mono_ms + self.config.suspect_after_ms);
        behind.settles_ms = behind.settles_ms.max(settles_ms);
    }

    /// This process has stood still for so long that others may have gone on without it, and handed what it decided about to
    /// somebody that it does not know yet. What they say of having heard it is old as well.
    pub(super) fn catch_up_after_standstill(&mut self, now: Now) {
        let awaited: BTreeSet<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.serves() && !m.dead)
            .map(|(id, _)| *id)
            .collect();
        if self.serves() {
            self.catch_up_with(now, awaited);
        }
    }

    /// What was missed is here, or those who have it are out of reach again.
    pub(super) fn end_catching_up(&mut self, now: Now) {
        let Some(behind) = &mut self.settling.behind else {
            return;
        };
        let members = &self.members;
        let settles = now.mono_ms < behind.settles_ms;
        behind.awaited.retain(|id| {
            members
                .get(id)
                .is_some_and(|m| m.serves() && (m.in_reach() || settles))
        });
        if behind.awaited.is_empty() || behind.until_ms <= now.mono_ms {
            self.settling.behind = None;
            self.stirred = true;
        }
    }

    /// How long a member may be silent before tombstones stop waiting for it.
    fn horizon_ms(&self) -> u64 {
        let theirs = self
            .members
            .values()
            .map(|m| m.longest_ttl_ms)
            .max()
            .unwrap_or_default();
        let ttl = theirs.max(self.store.longest_ttl_ms());
        let margin = touch_slack_ms(ttl) + CLOCK_SKEW_MS + self.config.tombstone_min_ms;
        ttl.saturating_add(margin)
    }

    /// Gives up members that have been silent for longer than sessions live.
    pub(super) fn expel_the_silent(&mut self, now: Now) {
        if self.settling.isolated_since.is_some() {
            return;
        }
        let horizon = self.horizon_ms();
        let mut lost = Vec::new();
        for member in self.members.values_mut() {
            if member.expelled == 0 && now.mono_ms.saturating_sub(member.heard_ms) > horizon {
                member.expelled = now.mono_ms.max(1);
                lost.extend(member.out.give_up());
            }
        }
        self.lost_tickets.extend(lost);
    }

    /// A member says that it had given this one up.
    pub(super) fn doubt(&mut self, now: Now, from: NodeId, out: &mut Vec<Output>) {
        let since = match self.settling.isolated_since {
            Some((since, _)) => since,
            None => self.members.get(&from).map_or(Hlc::ZERO, |m| m.as_of),
        };
        self.begin_doubt(since);
        self.end_doubt(now, out);
    }

    fn begin_doubt(&mut self, before: Hlc) {
        if self.settling.doubt.is_some() {
            return;
        }
        let awaited: BTreeSet<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.in_reach() && m.serves())
            .map(|(id, _)| *id)
            .collect();
        let mut lost = Vec::new();
        self.stirred = true;
        for (id, member) in &mut self.members {
            // What was written in isolation is told only after it has been confirmed.
            lost.extend(member.out.give_up());
            if awaited.contains(id) {
                self.comparisons.sweep(*id);
            }
        }
        self.lost_tickets.extend(lost);
        let asked = awaited.clone();
        self.settling.doubt = Some(Doubt {
            before,
            confirmed: HashSet::new(),
            awaited,
            asked,
        });
    }

    /// Ends the doubt when everybody has been asked: what nobody has confirmed goes.
    pub(super) fn end_doubt(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(doubt) = &mut self.settling.doubt else {
            return;
        };
        let members = &self.members;
        doubt
            .awaited
            .retain(|id| members.get(id).is_some_and(|m| m.in_reach() && m.serves()));
        if !doubt.awaited.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut doubt.asked);
        for (_, member) in self.members.iter_mut().filter(|(id, _)| asked.contains(id)) {
            member.proved = member.expelled_us;
        }
        let doubtful: Vec<_> = self
            .store
            .iter_from(0)
            .filter(|(_, entry)| self.settling.is_unconfirmed(entry))
            .map(|(id, _)| id)
            .collect();
        for id in &doubtful {
            self.store.remove(*id);
        }
        self.settling.doubt = None;
        self.beat(now, out);
        out.push(Output::Log(Event::Discarded(doubtful.len())));
    }
}
