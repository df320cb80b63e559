//! Bytes into messages.

use super::message::{Heartbeat, NOTHING, PeerMessage};
use super::{Read, Reader, WireError};
use crate::core::client::Base;
use crate::core::version::Version;

impl Reader<'_> {
    fn partitions(&mut self) -> Read<Vec<u16>> {
        self.list(Self::u16)
    }

    fn epochs(&mut self) -> Read<Vec<(u16, u64)>> {
        self.list(|r| Ok((r.u16()?, r.number()?)))
    }

    fn base(&mut self) -> Read<Base> {
        let incarnation = self.version()?;
        Ok(match incarnation {
            Version::ZERO => Base::Unknown,
            NOTHING => Base::Nothing,
            incarnation => Base::Read(incarnation),
        })
    }

    fn heartbeat(&mut self) -> Read<Heartbeat> {
        Ok(Heartbeat {
            state: self.member_state()?,
            sent_ms: self.number()?,
            echo_ms: self.number()?,
            hears_you: self.bool()?,
            lease: self.bool()?,
            as_of: self.hlc()?,
            head: self.number()?,
            received: self.number()?,
            settled: self.hlc()?,
            longest_ttl_ms: self.number()?,
            memory: self.u16()?,
            expelled: self.number()?,
            proved: self.number()?,
            view: self.fixed()?,
        })
    }
}

impl<'a> PeerMessage<'a> {
    pub(in crate::core) fn decode(bytes: &'a [u8], version: u8) -> Read<Self> {
        let mut r = Reader::new(bytes, version);
        let tag = r.u8()?;
        let message = match tag {
            1..=9 => Self::decode_stream(tag, &mut r)?,
            10..=13 => Self::decode_homes(tag, &mut r)?,
            _ => Self::decode_sync(tag, &mut r)?,
        };
        r.end()?;
        Ok(message)
    }

    fn decode_stream(tag: u8, r: &mut Reader<'a>) -> Read<Self> {
        Ok(match tag {
            1 => Self::Heartbeat(r.heartbeat()?),
            2 => Self::Members(r.list(Reader::record)?),
            3 => Self::Batch {
                first: r.number()?,
                last: r.number()?,
                as_of: r.hlc()?,
                reset: r.bool()?,
                entries: r.entries()?,
            },
            4 => Self::Ack {
                upto: r.number()?,
                gap: r.bool()?,
            },
            5 => Self::Fetch {
                keys: r.list(Reader::bytes)?,
            },
            6 => Self::Entries(r.entries()?),
            7 => Self::Forward {
                id: r.number()?,
                position: r.number()?,
                base: r.base()?,
                given: r.hlc()?,
                retry: r.bool()?,
                command: r.bytes()?,
            },
            8 => Self::Answer {
                id: r.number()?,
                position: r.number()?,
                clock: r.hlc()?,
                found: r.version()?,
                reply: r.reply(0)?,
                entries: r.entries()?,
            },
            9 => Self::Redirect {
                id: r.number()?,
                to: r.node()?,
            },
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn decode_homes(tag: u8, r: &mut Reader<'a>) -> Read<Self> {
        Ok(match tag {
            10 => Self::HandoffRequest {
                round: r.number()?,
                partitions: r.partitions()?,
            },
            11 => Self::HandoffReply {
                round: r.number()?,
                granted: r.epochs()?,
                pending: r.list(|r| Ok((r.u16()?, r.node()?)))?,
                refused: r.epochs()?,
            },
            12 => Self::Claims {
                number: r.number()?,
                claims: r.epochs()?,
                others: r.list(|r| Ok((r.u16()?, r.number()?, r.node()?)))?,
            },
            13 => Self::ClaimsAck { number: r.number()? },
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn decode_sync(tag: u8, r: &mut Reader<'a>) -> Read<Self> {
        Ok(match tag {
            14 => Self::SyncStart {
                id: r.number()?,
                digests: r.list(|r| Ok((r.u16()?, r.fixed()?)))?,
            },
            15 => Self::SyncDiff {
                id: r.number()?,
                lists: r.list(|r| Ok((r.u16()?, r.list(|r| Ok((r.fixed()?, r.fixed()?)))?)))?,
                rest: r.partitions()?,
            },
            16 => Self::SyncWant {
                id: r.number()?,
                number: r.number()?,
                partitions: r.partitions()?,
                hashes: r.list(Reader::fixed)?,
            },
            17 => Self::SyncEntries {
                id: r.number()?,
                number: r.number()?,
                entries: r.entries()?,
                unserved: r.list(Reader::fixed)?,
            },
            18 => Self::SyncPush {
                id: r.number()?,
                number: r.number()?,
                entries: r.entries()?,
            },
            19 => Self::SyncPushed {
                id: r.number()?,
                number: r.number()?,
            },
            20 => Self::Pull {
                id: r.number()?,
                cursor: r.u32()?,
                partitions: r.partitions()?,
            },
            21 => Self::Pulled {
                id: r.number()?,
                cursor: r.u32()?,
                next: {
                    let more = r.bool()?;
                    let next = r.u32()?;
                    more.then_some(next)
                },
                entries: r.entries()?,
            },
            22 => Self::Gather {
                id: r.number()?,
                command: r.bytes()?,
            },
            23 => Self::Gathered {
                id: r.number()?,
                reply: r.reply(0)?,
            },
            tag => return Err(WireError::Tag(tag)),
        })
    }
}
