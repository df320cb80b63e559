//! Beginning to act as the home of partitions, and telling everybody.

use super::{Home, Homes, Token};
use crate::core::clock::Now;
use crate::core::io::Output;
use crate::core::node::Core;
use crate::core::version::NodeId;
use crate::core::wire::PeerMessage;

/// Pause between two contests with one member, milliseconds.
const CONTEST_MS: u64 = 20;

impl Homes {
    /// Keeps what is known of a partition's home, to go back to it when the isolation is over.
    fn remember(&mut self, isolated: bool, partition: u16) {
        if isolated {
            let known = self.get(partition);
            self.before_isolation.entry(partition).or_insert(known);
        }
    }
}

impl Core {
    /// There is a majority again: what passed to another home without one is as it was, but that nobody acts here; unless
    /// there is nobody else.
    pub(in crate::core) fn give_back(&mut self, to_others: bool) {
        for (partition, before) in std::mem::take(&mut self.homes.before_isolation) {
            if let Some(home) = self.homes.get_mut(partition).filter(|_| to_others) {
                *home = Home {
                    token: Token::None,
                    ..before
                };
            }
        }
        for member in self.members.values_mut() {
            member.apart = false;
        }
    }

    /// The comparison with the old home is done, or the old home is gone: from now on this member decides.
    pub(in crate::core) fn handoff_done(&mut self, now: Now, partitions: &[u16], out: &mut Vec<Output>) {
        let taking = &mut self.homes.taking;
        let claims: Vec<(u16, u64)> = partitions
            .iter()
            .filter_map(|p| taking.remove(p).map(|(_, epoch)| (*p, epoch)))
            .collect();
        self.claim(now, &claims, out);
    }

    /// An old home is out of reach in the middle of a handover: it has stopped deciding, that is what counts.
    pub(in crate::core) fn handoff_lost(&mut self, now: Now, old: NodeId, out: &mut Vec<Output>) {
        let partitions: Vec<u16> = self
            .homes
            .taking
            .iter()
            .filter(|(_, (from, _))| *from == old)
            .map(|(p, _)| *p)
            .collect();
        self.handoff_done(now, &partitions, out);
    }

    pub(super) fn claim(&mut self, now: Now, claims: &[(u16, u64)], out: &mut Vec<Output>) {
        if claims.is_empty() {
            return;
        }
        let (me, isolated) = (self.me.id, self.settling.is_isolated());
        for (partition, epoch) in claims {
            self.homes.remember(isolated, *partition);
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

    /// Sends the claims to a member that claims what is held here; if it was just told, it is told again a little later.
    fn contest(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let just_told = self
            .members
            .get(&id)
            .is_some_and(|member| now.mono_ms < member.claims_sent_ms + CONTEST_MS);
        if !just_told {
            self.claims_for(now, id, out);
        } else if let Some(member) = self.members.get_mut(&id) {
            member.unconfirmed_claims = Some(self.homes.claims_number);
        }
    }

    /// Sends the claims to a member that has been out of reach, or that is new.
    pub(in crate::core) fn claims_for(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let number = self.homes.claims_number;
        if let Some(member) = self.members.get_mut(&id) {
            member.unconfirmed_claims = Some(number);
            member.missed_claims = true;
        }
        self.send_claims(now, id, out);
    }

    /// Sends the claims if they are not confirmed.
    pub(in crate::core) fn send_claims(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let me = self.me.id;
        let Some(member) = self.members.get_mut(&id).filter(|m| m.link.is_some()) else {
            return;
        };
        let Some(number) = member.unconfirmed_claims else {
            return;
        };
        member.claims_sent_ms = now.mono_ms;
        // Who was not there when they were taken over may belong to a majority that has other homes.
        let all = !member.apart;
        let missed = member.missed_claims;
        let homes = &self.homes;
        let told = |p: &u16| all || !homes.before_isolation.contains_key(p);
        let claims = homes
            .acting()
            .filter(told)
            .map(|p| (p, homes.get(p).epoch))
            .collect();
        // The leases of a majority let a member decide, and not every member of it need be a home: it has to learn from each
        // what passed to others.
        let others = (0u16..)
            .zip(&homes.by_partition)
            .filter(|(p, home)| missed && told(p) && home.is_of_another_than(&[me, id]))
            .map(|(p, home)| (p, home.epoch, home.claimed_by))
            .collect();
        let message = PeerMessage::Claims {
            number,
            claims,
            others,
        };
        self.send(id, &message, out);
    }

    /// A member says which partitions it acts for.
    pub(in crate::core) fn on_claims(
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
        let isolated = self.settling.is_isolated();
        let apart = self.members.get(&from).is_some_and(|member| member.apart);
        for (partition, epoch) in claims {
            self.homes.remember(isolated, *partition);
            // What it is not told of (see `send_claims`) it cannot give up: to contest it would go to and fro for ever.
            let told = !apart || !self.homes.before_isolation.contains_key(partition);
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
                contested |= told;
            }
        }
        self.send(from, &PeerMessage::ClaimsAck { number }, out);
        if contested {
            self.contest(now, from, out);
        }
        self.retry_asked(now, out);
    }

    /// A member says which homes others have, as this one may have missed it.
    pub(in crate::core) fn learn_homes(&mut self, others: &[(u16, u64, NodeId)]) {
        let isolated = self.settling.is_isolated();
        for (partition, epoch, node) in others.iter().filter(|(_, _, node)| *node != self.me.id) {
            self.homes.remember(isolated, *partition);
            if let Some(home) = self.homes.get_mut(*partition).filter(|home| home.epoch < *epoch) {
                *home = Home {
                    token: Token::None,
                    epoch: *epoch,
                    claimed_by: *node,
                };
            }
        }
    }

    pub(in crate::core) fn on_claims_ack(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        out: &mut Vec<Output>,
    ) {
        if let Some(member) = self.members.get_mut(&from)
            && member.unconfirmed_claims.is_some_and(|wanted| wanted <= number)
        {
            member.unconfirmed_claims = None;
            member.missed_claims = false;
            self.lend_at_once(now, from, out);
        }
    }
}
