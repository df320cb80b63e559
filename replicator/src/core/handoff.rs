//! Homes: which member decides about a partition, and how that passes from one to another.
//!
//! Placement says who *ought* to be the home; being it is a thing that is handed over. The new home asks everybody in
//! reach; the old one stops deciding before it answers, and the new one begins after comparing what it holds with the
//! old one. Only if nobody in reach acts as the home, nor hears the member that does, the new one takes it over. So as
//! long as members hear each other there is never more than one, whatever they think of each other's state.
//! Epochs grow with each passing; after a partition the higher one stays.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Now;
use super::io::Output;
use super::members::{Member, MemberState};
use super::node::Core;
use super::placement::score;
use super::version::NodeId;
use super::wire::PeerMessage;

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

/// What a member says to a request for partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    /// Handed over, with their epochs.
    pub(super) granted: &'a [(u16, u64)],
    /// With somebody else, it thinks, or not yet free.
    pub(super) pending: &'a [(u16, NodeId)],
    /// Not its own, and the highest epoch it knows of.
    pub(super) refused: &'a [(u16, u64)],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Homes {
    by_partition: Vec<Home>,
    round: Option<Round>,
    /// Granted, and being compared with the old home: partition → old home and epoch.
    taking: BTreeMap<u16, (NodeId, u64)>,
    /// Partitions that the last round found free, though somebody was said to be their home.
    doubtful: BTreeSet<u16>,
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
            doubtful: BTreeSet::new(),
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

    /// Partitions that this member ought to be the home of, and is not.
    fn wanted(&mut self) -> Vec<u16> {
        if self.state != MemberState::Active {
            return Vec::new();
        }
        let me = self.me.id;
        (0..self.config.partitions)
            .filter(|p| {
                !self.homes.acts(*p)
                    && !self.homes.is_taking(*p)
                    && self.life.is_held(*p)
                    && self.plan(*p).holders.first() == Some(&me)
            })
            .collect()
    }

    /// Begins a round of asking, or goes on with one.
    pub(super) fn seek_homes(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some(round) = &mut self.homes.round {
            let members = &self.members;
            round.incomplete |= round
                .peers
                .iter()
                .any(|id| members.get(id).is_none_or(|m| !m.in_reach()));
            round
                .peers
                .retain(|id| members.get(id).is_some_and(|m| m.in_reach() && m.serves()));
            if round.peers.is_empty() {
                self.end_round(now, out);
            } else if now.mono_ms >= round.sent_ms + self.config.resend_ms {
                self.send_round(now, out);
            }
            return;
        }
        if now.mono_ms < self.homes.next_round_ms {
            return;
        }
        let wanted = self.wanted();
        if wanted.is_empty() {
            return;
        }
        self.homes.next_round += 1;
        // Also those that seem to be joining still: the news of their being active may be on its way.
        let peers = self
            .members
            .iter()
            .filter(|(_, m)| m.in_reach())
            .map(|(id, _)| *id)
            .collect();
        let asked = |partition: u16| Wanted {
            before: self.homes.get(partition).epoch,
            ..Wanted::default()
        };
        let wanted = wanted.into_iter().map(|p| (p, asked(p))).collect();
        self.homes.round = Some(Round {
            number: self.homes.next_round,
            wanted,
            peers,
            incomplete: false,
            sent_ms: 0,
        });
        self.send_round(now, out);
        if self
            .homes
            .round
            .as_ref()
            .is_some_and(|round| round.peers.is_empty())
        {
            self.end_round(now, out);
        }
    }

    fn send_round(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(round) = &mut self.homes.round else {
            return;
        };
        round.sent_ms = now.mono_ms;
        self.homes.next_round_ms = now.mono_ms + self.config.resend_ms;
        let message = PeerMessage::HandoffRequest {
            round: round.number,
            partitions: round.wanted.keys().copied().collect(),
        };
        for id in round.peers.clone() {
            self.send(id, &message, out);
        }
    }

    /// Another member asks for partitions.
    pub(super) fn on_handoff_request(
        &mut self,
        now: Now,
        from: NodeId,
        round: u64,
        partitions: &[u16],
        out: &mut Vec<Output>,
    ) {
        self.learn_active(now, from, out);
        let (mut granted, mut pending, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let me = self.me.id;
        let their_hash = self.members.get(&from).map_or(0, |m| m.name_hash);
        let wanted: BTreeSet<u16> = self.wanted().into_iter().collect();
        for &partition in partitions {
            let home = self.homes.get(partition);
            let better = score(partition, self.name_hash) > score(partition, their_hash);
            match home.token {
                Token::Acting => {
                    let epoch = home.epoch + 1;
                    if let Some(home) = self.homes.get_mut(partition) {
                        #[cfg(test)]
                        if self.config.faults == super::config::Faults::HandoffWithoutStopping {
                            granted.push((partition, epoch));
                            continue;
                        }
                        *home = Home {
                            token: Token::Handed(from),
                            epoch,
                            claimed_by: from,
                        };
                    }
                    granted.push((partition, epoch));
                }
                Token::Handed(to) if to == from && home.claimed_by == from => {
                    granted.push((partition, home.epoch));
                }
                // Somebody may have granted it to this member, and the news of it be on its way.
                _ if self.homes.is_taking(partition)
                    || self.homes.is_asking(partition)
                    || (wanted.contains(&partition) && better) =>
                {
                    pending.push((partition, me));
                }
                _ => {
                    let other = home.claimed_by;
                    let heard = other != from && self.members.get(&other).is_some_and(|m| !m.suspect);
                    if heard {
                        pending.push((partition, other));
                    } else {
                        refused.push((partition, home.epoch));
                    }
                }
            }
        }
        // What is handed over must be there first: the rest of the stream goes ahead of the grant.
        self.flush_to(now, from, out);
        let any = !granted.is_empty();
        self.send(
            from,
            &PeerMessage::HandoffReply {
                round,
                granted,
                pending,
                refused,
            },
            out,
        );
        if any {
            self.retry_asked(now, out);
        }
    }

    /// A member has answered a request for partitions.
    pub(super) fn on_handoff_reply(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        answer: &Answer<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(round) = self.homes.round.as_mut().filter(|round| round.number == number) else {
            return;
        };
        if !round.peers.remove(&from) {
            return;
        }
        let mut taken = Vec::new();
        for (partition, epoch) in answer.granted {
            if let Some(wanted) = round.wanted.get_mut(partition) {
                wanted.granted = true;
                taken.push(*partition);
                self.homes.taking.insert(*partition, (from, *epoch));
            }
        }
        for (partition, node) in answer.pending {
            if let Some(wanted) = round.wanted.get_mut(partition) {
                wanted.named.push(*node);
            }
        }
        for (partition, epoch) in answer.refused {
            if let Some(wanted) = round.wanted.get_mut(partition) {
                wanted.refused.push(from);
                wanted.epoch = wanted.epoch.max(*epoch);
            }
        }
        if !taken.is_empty() {
            self.compare_for_handoff(now, from, taken, out);
        }
        self.seek_homes(now, out);
    }

    /// Everybody in reach has answered: what nobody has is taken over. If somebody was said to have it who denies that,
    /// or who did not answer, it may have been handed on during the round, so that another round has to find the same.
    fn end_round(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(round) = self.homes.round.take() else {
            return;
        };
        self.homes.next_round_ms = now.mono_ms + ROUND_MS;
        let still: BTreeSet<u16> = self.wanted().into_iter().collect();
        let found_before = std::mem::take(&mut self.homes.doubtful);
        let mut claims = Vec::new();
        for (partition, wanted) in round.wanted {
            let known = self.homes.get(partition).epoch;
            let free = wanted.named.iter().all(|node| wanted.refused.contains(node));
            if wanted.granted || !free || known != wanted.before || !still.contains(&partition) {
                continue;
            }
            let certain = wanted.named.is_empty() && !round.incomplete;
            if certain || found_before.contains(&partition) {
                self.counters.homes_taken_over += 1;
                claims.push((partition, wanted.epoch.max(known) + 1));
            } else {
                self.homes.doubtful.insert(partition);
            }
        }
        self.claim(now, &claims, out);
    }

    /// The comparison with the old home is done, or the old home is gone: from now on this member decides.
    pub(super) fn handoff_done(&mut self, now: Now, partitions: &[u16], out: &mut Vec<Output>) {
        let taking = &mut self.homes.taking;
        let claims: Vec<(u16, u64)> = partitions
            .iter()
            .filter_map(|p| taking.remove(p).map(|(_, epoch)| (*p, epoch)))
            .collect();
        self.claim(now, &claims, out);
    }

    /// An old home is out of reach in the middle of a handover: it has stopped deciding, that is what counts.
    pub(super) fn handoff_lost(&mut self, now: Now, old: NodeId, out: &mut Vec<Output>) {
        let partitions: Vec<u16> = self
            .homes
            .taking
            .iter()
            .filter(|(_, (from, _))| *from == old)
            .map(|(p, _)| *p)
            .collect();
        self.handoff_done(now, &partitions, out);
    }

    fn claim(&mut self, now: Now, claims: &[(u16, u64)], out: &mut Vec<Output>) {
        if claims.is_empty() {
            return;
        }
        let me = self.me.id;
        for (partition, epoch) in claims {
            if let Some(home) = self.homes.get_mut(*partition) {
                if *epoch < home.epoch && home.claimed_by != me {
                    continue;
                }
                *home = Home {
                    token: Token::Acting,
                    epoch: *epoch,
                    claimed_by: me,
                };
                self.counters.homes_taken += 1;
            }
        }
        self.announce_claims(now, out);
        self.retry_asked(now, out);
    }

    /// Tells everybody which partitions this member acts for, until they confirm it.
    fn announce_claims(&mut self, now: Now, out: &mut Vec<Output>) {
        self.homes.claims_number += 1;
        let number = self.homes.claims_number;
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.unconfirmed_claims = Some(number);
            }
            self.send_claims(now, id, out);
        }
    }

    /// Sends the claims to a member that has been out of reach, or that is new.
    pub(super) fn claims_for(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let number = self.homes.claims_number;
        if let Some(member) = self.members.get_mut(&id) {
            member.unconfirmed_claims = Some(number);
        }
        self.send_claims(now, id, out);
    }

    /// Sends the claims if they are not confirmed.
    pub(super) fn send_claims(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&id).filter(|m| m.link.is_some()) else {
            return;
        };
        let Some(number) = member.unconfirmed_claims else {
            return;
        };
        member.claims_sent_ms = now.mono_ms;
        let claims = self
            .homes
            .acting()
            .map(|p| (p, self.homes.get(p).epoch))
            .collect();
        self.send(id, &PeerMessage::Claims { number, claims }, out);
    }

    /// A member says which partitions it acts for.
    pub(super) fn on_claims(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        claims: &[(u16, u64)],
        out: &mut Vec<Output>,
    ) {
        let mut contested = false;
        if !claims.is_empty() {
            self.learn_active(now, from, out);
        }
        for (partition, epoch) in claims {
            let Some(home) = self.homes.get_mut(*partition) else {
                continue;
            };
            let newer = *epoch > home.epoch || (*epoch == home.epoch && from <= home.claimed_by);
            if newer || (*epoch == home.epoch && home.claimed_by == NodeId::default()) {
                *home = Home {
                    token: Token::None,
                    epoch: *epoch,
                    claimed_by: from,
                };
            } else if home.token == Token::Acting {
                contested = true;
            }
        }
        self.send(from, &PeerMessage::ClaimsAck { number }, out);
        if contested {
            self.claims_for(now, from, out);
        }
        self.retry_asked(now, out);
    }

    /// Who asks for partitions or acts for them has joined: that news may be on its way still.
    fn learn_active(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        if let Some(mut record) = self.members.get(&id).map(Member::record)
            && record.state == MemberState::Joining
        {
            record.state = MemberState::Active;
            self.learn(now, &record, out);
        }
    }

    pub(super) fn on_claims_ack(&mut self, from: NodeId, number: u64) {
        if let Some(member) = self.members.get_mut(&from)
            && member.unconfirmed_claims.is_some_and(|wanted| wanted <= number)
        {
            member.unconfirmed_claims = None;
        }
    }

    /// Whether this member, as a home, may decide now. A majority of the members has to have said lately that it hears
    /// it, and so will not let anybody take over: a process that has stood still may long have been replaced.
    pub(super) fn may_decide(&self, now: Now) -> Standing {
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
