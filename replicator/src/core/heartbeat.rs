//! Signs of life, and what they carry.

use super::clock::Now;
use super::io::{Event, Output};
use super::members::{Member, MemberState};
use super::node::Core;
use super::version::NodeId;
use super::wire::{Heartbeat, PeerMessage};

/// Clock difference that is worth a log line, milliseconds.
const DRIFT_MS: u64 = 500;

impl Core {
    /// Sends heartbeats to everybody.
    pub(super) fn beat(&mut self, now: Now, out: &mut Vec<Output>) {
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            self.beat_to(now, id, out);
            let overdue = self.members.get(&id).is_some_and(|m| {
                m.unconfirmed_claims.is_some() && m.claims_sent_ms + self.config.resend_ms <= now.mono_ms
            });
            if overdue {
                self.send_claims(now, id, out);
            }
        }
    }

    /// Sends a heartbeat to one member.
    pub(super) fn beat_to(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let as_of = self.clock.reading(now.wall_ms);
        let (view, memory, settled) = (self.view_hash(), self.memory(), self.settling.settled);
        let longest_ttl_ms = self.store.longest_ttl_ms();
        let state = self.state;
        let Some(member) = self.members.get_mut(&id).filter(|m| m.link.is_some()) else {
            return;
        };
        let lease = member.lends();
        if lease {
            member.lent_ms = member.their_ms;
        }
        let beat = Heartbeat {
            state,
            sent_ms: now.mono_ms.max(1),
            echo_ms: member.their_ms,
            hears_you: now.mono_ms.saturating_sub(member.heard_ms) < self.config.suspect_after_ms,
            lease,
            as_of,
            head: member.out.head(),
            received: member.received,
            settled,
            longest_ttl_ms,
            memory,
            expelled: member.expelled,
            proved: member.proved,
            view,
        };
        self.send(id, &PeerMessage::Heartbeat(beat), out);
    }

    /// Sends a heartbeat to a member that has had no lease for long. It may become a home at any moment, and until a majority has
    /// lent it one it can decide nothing: requests would wait for the next heartbeats of everybody.
    pub(super) fn lend_at_once(&mut self, now: Now, id: NodeId, out: &mut Vec<Output>) {
        let long_ms = 2 * self.config.heartbeat_ms;
        let is_due =
            |m: &Member| m.lends() && m.their_ms > 0 && (m.lent_ms == 0 || m.their_ms > m.lent_ms + long_ms);
        if self.members.get(&id).is_some_and(is_due) {
            self.beat_to(now, id, out);
        }
    }

    /// A heartbeat has come.
    pub(super) fn on_heartbeat(&mut self, now: Now, from: NodeId, beat: &Heartbeat, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if beat.sent_ms <= member.their_ms {
            return;
        }
        member.their_ms = beat.sent_ms;
        if beat.lease {
            member.lease_from_ms = member.lease_from_ms.max(beat.echo_ms);
        }
        // What a member that has nothing from us yet says of hearing us is of no interest.
        let deaf = !beat.hears_you && beat.echo_ms != 0;
        if beat.proved == member.expelled {
            member.expelled = 0;
        }
        member.expelled_us = beat.expelled;
        let given_up = beat.expelled != 0 && beat.expelled != member.proved;
        let news = member.view != beat.view;
        member.view = beat.view;
        member.memory = beat.memory;
        member.longest_ttl_ms = beat.longest_ttl_ms;
        // One that has given this member up does not wait for what was written here.
        if beat.expelled == 0 {
            member.settled = member.settled.max(beat.settled);
        }
        if member.received >= beat.head {
            member.as_of = member.as_of.max(beat.as_of);
        }
        let done = member.out.confirm(beat.received, now.mono_ms);
        self.stirred |= member.out.is_due();
        let drift = beat.as_of.ms().abs_diff(now.wall_ms);
        if drift > DRIFT_MS && beat.as_of.ms() > now.wall_ms {
            out.push(Output::Log(Event::ClockDrift {
                node: from,
                ms: drift,
            }));
        }
        self.confirmed(now, &done, out);
        if deaf {
            self.suspect(now, from, out);
        } else {
            self.unsuspect(now, from, out);
        }
        if given_up {
            self.doubt(now, from, out);
        }
        let record = self.members.get(&from).map(|m| super::wire::MemberRecord {
            info: m.info.clone(),
            state: beat.state,
        });
        match record {
            // Its own word: everything it held is with others.
            Some(record) if record.state == MemberState::Left => self.remove_member(now, from, true, out),
            Some(record) => {
                self.learn(now, &record, out);
            }
            None => {}
        }
        if self.differs(now, from, beat.view, news) {
            let records = self.records();
            self.send(from, &PeerMessage::Members(records), out);
            if let Some(member) = self.members.get_mut(&from) {
                member.told_ms = now.mono_ms;
            }
        } else if news && beat.view == self.view_hash() {
            // What waited for the two to agree can go on.
            self.live(now, out);
        }
        self.end_past();
        self.lend_at_once(now, from, out);
    }

    /// Memory in use, in thousandths of the limit.
    fn memory(&self) -> u16 {
        if self.config.memory_limit == 0 {
            return 0;
        }
        let share = self.store.used_bytes().saturating_mul(1_000) / self.config.memory_limit;
        u16::try_from(share).unwrap_or(u16::MAX)
    }
}
