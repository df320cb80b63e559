//! Messages into bytes.

use super::Writer;
use super::message::{Heartbeat, NOTHING, PeerMessage};
use crate::core::client::Base;
use crate::core::clock::Hlc;
use crate::core::version::Version;

impl Writer {
    fn partitions(&mut self, partitions: &[u16]) {
        self.list(partitions, |w, p| w.number(u64::from(*p)));
    }

    fn epochs(&mut self, epochs: &[(u16, u64)]) {
        self.list(epochs, |w, (partition, epoch)| {
            w.number(u64::from(*partition));
            w.number(*epoch);
        });
    }

    fn base(&mut self, base: Base) {
        match base {
            Base::Unknown => self.version(Version::ZERO),
            Base::Nothing => self.version(NOTHING),
            Base::Read(incarnation) => self.version(incarnation),
        }
    }

    fn heartbeat(&mut self, beat: &Heartbeat) {
        self.u8(beat.state as u8);
        self.number(beat.sent_ms);
        self.number(beat.echo_ms);
        self.bool(beat.hears_you);
        self.bool(beat.lease);
        self.hlc(beat.as_of);
        self.number(beat.head);
        self.number(beat.received);
        self.hlc(beat.settled);
        self.number(beat.longest_ttl_ms);
        self.number(u64::from(beat.memory));
        self.number(beat.expelled);
        self.number(beat.proved);
        self.fixed(beat.view);
    }
}

/// Starts the frame of a batch; the entries and their end follow.
pub(in crate::core) fn batch_head(w: &mut Writer, first: u64, last: u64, as_of: Hlc, reset: bool) {
    w.u8(3);
    w.number(first);
    w.number(last);
    w.hlc(as_of);
    w.bool(reset);
}

/// Starts the frame of a push; the entries and their end follow.
pub(in crate::core) fn push_head(w: &mut Writer, id: u64, number: u64) {
    w.u8(18);
    w.number(id);
    w.number(number);
}

impl PeerMessage<'_> {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm per message; splitting them hides which are missing"
    )]
    pub(in crate::core) fn encode(&self, version: u8) -> Vec<u8> {
        let mut w = Writer::new(version);
        match self {
            Self::Heartbeat(beat) => {
                w.u8(1);
                w.heartbeat(beat);
            }
            Self::Members(members) => {
                w.u8(2);
                w.list(members, Writer::record);
            }
            Self::Batch {
                first,
                last,
                as_of,
                reset,
                entries,
            } => {
                batch_head(&mut w, *first, *last, *as_of, *reset);
                w.entries(entries);
            }
            Self::Ack { upto, gap } => {
                w.u8(4);
                w.number(*upto);
                w.bool(*gap);
            }
            Self::Fetch { keys } => {
                w.u8(5);
                w.list(keys, |w, key| w.bytes(key));
            }
            Self::Entries(entries) => {
                w.u8(6);
                w.entries(entries);
            }
            Self::Forward {
                id,
                position,
                base,
                given,
                retry,
                command,
            } => {
                w.u8(7);
                w.number(*id);
                w.number(*position);
                w.base(*base);
                w.hlc(*given);
                w.bool(*retry);
                w.bytes(command);
            }
            Self::Answer {
                id,
                position,
                clock,
                found,
                reply,
                entries,
            } => {
                w.u8(8);
                w.number(*id);
                w.number(*position);
                w.hlc(*clock);
                w.version(*found);
                w.reply(reply);
                w.entries(entries);
            }
            Self::Redirect { id, to } => {
                w.u8(9);
                w.number(*id);
                w.node(*to);
            }
            Self::HandoffRequest { round, partitions } => {
                w.u8(10);
                w.number(*round);
                w.partitions(partitions);
            }
            Self::HandoffReply {
                round,
                granted,
                pending,
                refused,
            } => {
                w.u8(11);
                w.number(*round);
                w.epochs(granted);
                w.list(pending, |w, (partition, node)| {
                    w.number(u64::from(*partition));
                    w.node(*node);
                });
                w.epochs(refused);
            }
            Self::Claims {
                number,
                claims,
                others,
            } => {
                w.u8(12);
                w.number(*number);
                w.epochs(claims);
                w.list(others, |w, (partition, epoch, node)| {
                    w.number(u64::from(*partition));
                    w.number(*epoch);
                    w.node(*node);
                });
            }
            Self::ClaimsAck { number } => {
                w.u8(13);
                w.number(*number);
            }
            Self::SyncStart { id, digests } => {
                w.u8(14);
                w.number(*id);
                w.list(digests, |w, (partition, digest)| {
                    w.number(u64::from(*partition));
                    w.fixed(*digest);
                });
            }
            Self::SyncDiff { id, lists, rest } => {
                w.u8(15);
                w.number(*id);
                w.list(lists, |w, (partition, hashes)| {
                    w.number(u64::from(*partition));
                    w.list(hashes, |w, (key, state)| {
                        w.fixed(*key);
                        w.fixed(*state);
                    });
                });
                w.partitions(rest);
            }
            Self::SyncWant {
                id,
                number,
                partitions,
                hashes,
            } => {
                w.u8(16);
                w.number(*id);
                w.number(*number);
                w.partitions(partitions);
                w.list(hashes, |w, hash| w.fixed(*hash));
            }
            Self::SyncEntries {
                id,
                number,
                entries,
                unserved,
            } => {
                w.u8(17);
                w.number(*id);
                w.number(*number);
                w.entries(entries);
                w.list(unserved, |w, hash| w.fixed(*hash));
            }
            Self::SyncPush { id, number, entries } => {
                push_head(&mut w, *id, *number);
                w.entries(entries);
            }
            Self::SyncPushed { id, number } => {
                w.u8(19);
                w.number(*id);
                w.number(*number);
            }
            Self::Pull {
                id,
                cursor,
                partitions,
            } => {
                w.u8(20);
                w.number(*id);
                w.number(u64::from(*cursor));
                w.partitions(partitions);
            }
            Self::Pulled {
                id,
                cursor,
                next,
                entries,
            } => {
                w.u8(21);
                w.number(*id);
                w.number(u64::from(*cursor));
                w.bool(next.is_some());
                w.number(u64::from(next.unwrap_or_default()));
                w.entries(entries);
            }
            Self::Gather { id, command } => {
                w.u8(22);
                w.number(*id);
                w.bytes(command);
            }
            Self::Gathered { id, reply } => {
                w.u8(23);
                w.number(*id);
                w.reply(reply);
            }
        }
        w.into_bytes()
    }
}
