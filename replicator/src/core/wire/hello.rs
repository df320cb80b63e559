//! The first frame on a link: who is there, and which versions it speaks.

use super::{NEWEST, OLDEST, Read, Reader, WireError, Writer};
use crate::core::config::NodeInfo;
use crate::core::members::MemberState;

/// The first bytes of the first frame on a link.
const MAGIC: &[u8; 4] = b"SREP";

/// A member as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core) struct MemberRecord {
    pub(in crate::core) info: NodeInfo,
    pub(in crate::core) state: MemberState,
}

/// Both sides' first frame. Its layout is the same in all versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core) struct Hello {
    /// The newest version the sender speaks.
    pub(in crate::core) newest: u8,
    /// The oldest version the sender speaks.
    pub(in crate::core) oldest: u8,
    pub(in crate::core) me: MemberRecord,
    /// Everybody else the sender knows.
    pub(in crate::core) others: Vec<MemberRecord>,
    /// Number of copies beside the home; 255 for mode All.
    pub(in crate::core) backups: u8,
    pub(in crate::core) partitions: u16,
    pub(in crate::core) wall_ms: u64,
    /// It answers another hello, and wants no answer.
    pub(in crate::core) answers: bool,
}

/// The versions that a hello offers, before anything else is known of it.
pub(in crate::core) fn hello_versions(bytes: &[u8]) -> Read<(u8, u8)> {
    let mut reader = Reader::new(bytes, OLDEST);
    if reader.raw(MAGIC.len())? != MAGIC {
        return Err(WireError::Tag(0));
    }
    Ok((reader.u8()?, reader.u8()?))
}

impl Hello {
    pub(in crate::core) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(OLDEST);
        w.raw(MAGIC);
        w.u8(self.newest);
        w.u8(self.oldest);
        w.record(&self.me);
        w.list(&self.others, Writer::record);
        w.u8(self.backups);
        w.number(u64::from(self.partitions));
        w.number(self.wall_ms);
        w.bool(self.answers);
        w.into_bytes()
    }

    pub(in crate::core) fn decode(bytes: &[u8]) -> Read<Self> {
        let (newest, oldest) = hello_versions(bytes)?;
        let mut r = Reader::new(bytes.get(MAGIC.len() + 2..).unwrap_or_default(), OLDEST);
        let hello = Self {
            newest,
            oldest,
            me: r.record()?,
            others: r.list(Reader::record)?,
            backups: r.u8()?,
            partitions: r.u16()?,
            wall_ms: r.number()?,
            answers: r.bool()?,
        };
        r.end()?;
        Ok(hello)
    }

    /// The version to speak with the sender of this hello; `None` when there is none in common.
    pub(in crate::core) fn common_version(&self, own_newest: u8) -> Option<u8> {
        let version = self.newest.min(own_newest).min(NEWEST);
        (version >= OLDEST.max(self.oldest)).then_some(version)
    }
}

impl Writer {
    pub(super) fn record(&mut self, record: &MemberRecord) {
        let NodeInfo {
            id,
            name,
            address,
            zone,
            machine,
            started_ms,
        } = &record.info;
        self.node(*id);
        for text in [name, address, zone, machine] {
            self.bytes(text.as_bytes());
        }
        self.number(*started_ms);
        self.u8(record.state as u8);
    }
}

impl Reader<'_> {
    pub(super) fn record(&mut self) -> Read<MemberRecord> {
        let info = NodeInfo {
            id: self.node()?,
            name: self.text()?.to_owned(),
            address: self.text()?.to_owned(),
            zone: self.text()?.to_owned(),
            machine: self.text()?.to_owned(),
            started_ms: self.number()?,
        };
        Ok(MemberRecord {
            info,
            state: self.member_state()?,
        })
    }

    pub(super) fn member_state(&mut self) -> Read<MemberState> {
        let tag = self.u8()?;
        MemberState::from_tag(tag).ok_or(WireError::Tag(tag))
    }
}
