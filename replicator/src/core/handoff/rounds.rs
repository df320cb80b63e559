//! Rounds of asking for partitions, and the answers.

use std::collections::BTreeSet;

use super::{Home, ROUND_MS, Round, Token, Wanted};
use crate::core::clock::Now;
use crate::core::io::Output;
use crate::core::members::{Member, MemberState};
use crate::core::node::Core;
use crate::core::placement::score;
use crate::core::version::NodeId;
use crate::core::wire::PeerMessage;

/// What a member says to a request for partitions.
#[derive(Debug, Clone, Copy)]
pub(in crate::core) struct Answer<'a> {
    /// Handed over, with their epochs.
    pub(in crate::core) granted: &'a [(u16, u64)],
    /// With somebody else, it thinks, which is refused as well; or not yet free.
    pub(in crate::core) pending: &'a [(u16, NodeId)],
    /// Not its own, and the highest epoch it knows of.
    pub(in crate::core) refused: &'a [(u16, u64)],
}

impl Core {
    /// Partitions that this member ought to be the home of, and is not.
    fn wanted(&mut self) -> Vec<u16> {
        if self.state != MemberState::Active {
            return Vec::new();
        }
        (0..self.config.partitions).filter(|p| self.wants(*p)).collect()
    }

    /// Whether this member ought to be the home of a partition, and is not.
    fn wants(&mut self, partition: u16) -> bool {
        let me = self.me.id;
        self.state == MemberState::Active
            && !self.homes.acts(partition)
            && !self.homes.is_taking(partition)
            && self.life.is_held(partition)
            && self.plan(partition).holders.first() == Some(&me)
    }

    /// Begins a round of asking, or goes on with one.
    pub(in crate::core) fn seek_homes(&mut self, now: Now, out: &mut Vec<Output>) {
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
    pub(in crate::core) fn on_handoff_request(
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
        for &partition in partitions {
            let home = self.homes.get(partition);
            let better = score(partition, self.name_hash) > score(partition, their_hash);
            match home.token {
                Token::Acting => {
                    let epoch = home.epoch + 1;
                    if let Some(home) = self.homes.get_mut(partition) {
                        #[cfg(test)]
                        if self.config.faults == crate::core::config::Faults::HandoffWithoutStopping {
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
                    || (better && self.wants(partition)) =>
                {
                    pending.push((partition, me));
                }
                _ => {
                    let other = home.claimed_by;
                    let heard = other != from && self.members.get(&other).is_some_and(|m| !m.suspect);
                    if heard {
                        pending.push((partition, other));
                    }
                    // It has none itself also where it believes another one to: that one may believe the same of it.
                    refused.push((partition, home.epoch));
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
    pub(in crate::core) fn on_handoff_reply(
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
    /// or who did not answer, it may have been handed on during the round, so that another round has to find the same, and the
    /// same epoch.
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
            if certain || found_before.get(&partition) == Some(&wanted.epoch) {
                self.counters.homes_taken_over += 1;
                claims.push((partition, wanted.epoch.max(known) + 1));
            } else {
                self.homes.doubtful.insert(partition, wanted.epoch);
            }
        }
        self.claim(now, &claims, out);
    }

    /// Who asks for partitions or acts for them has joined: that news may be on its way still.
    pub(super) fn learn_active(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        if let Some(mut record) = self.members.get(&id).map(Member::record)
            && record.state == MemberState::Joining
        {
            record.state = MemberState::Active;
            self.learn(now, &record, out);
        }
    }
}
