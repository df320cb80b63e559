//! What members say to each other, in bytes.
//!
//! Compact, bounded, never trusting: every length is checked against what is there before anything is allocated, and
//! a frame that does not decode to its last byte is refused as a whole. The version is negotiated per link in the
//! [`Hello`], which alone has a layout fixed for all time; a build speaks its newest version and the one before, so
//! that old and new members live side by side during a rollout. Version 1 has numbers of eight bytes throughout;
//! version 2 writes them in as many as they need.

mod command;
mod decode;
mod encode;
mod entry;
mod hello;
mod message;

pub(super) use command::{decode_command, encode_command};
pub(super) use encode::{batch_head, push_head};
pub(super) use hello::{Hello, MemberRecord, hello_versions};
pub(super) use message::{Heartbeat, PeerMessage};

use super::clock::Hlc;
use super::version::{NodeId, Version};

/// The newest version this build speaks.
pub const NEWEST: u8 = 2;
/// The oldest version this build speaks.
pub const OLDEST: u8 = 1;

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("frame ends too early")]
    Short,
    /// Something follows its end.
    #[error("frame is longer than its content")]
    Long,
    /// A tag that this version does not know.
    #[error("unknown tag {0}")]
    Tag(u8),
    /// A number out of its range.
    #[error("number out of range")]
    Range,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
}

/// Writes a frame.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    version: u8,
}

impl Writer {
    pub(super) fn new(version: u8) -> Self {
        Self {
            bytes: Vec::new(),
            version,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Eight bytes in every version: for what is random or nearly so.
    pub(super) fn fixed(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// A number that is often small.
    #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
    pub(super) fn number(&mut self, mut value: u64) {
        if self.version < 2 {
            return self.fixed(value);
        }
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    pub(super) fn length(&mut self, len: usize) {
        self.number(u64::try_from(len).unwrap_or(u64::MAX));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    pub(super) fn hlc(&mut self, at: Hlc) {
        self.fixed(at.0);
    }

    pub(super) fn node(&mut self, node: NodeId) {
        self.fixed(node.0);
    }

    pub(super) fn version(&mut self, version: Version) {
        self.hlc(version.at);
        self.node(version.node);
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for one in items {
            item(self, one);
        }
    }
}

/// Reads a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    version: u8,
}

type Read<T> = Result<T, WireError>;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], version: u8) -> Self {
        Self { rest: bytes, version }
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Long)
        }
    }

    pub(super) fn raw(&mut self, len: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        let (&head, rest) = self.rest.split_first().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(WireError::Tag(tag)),
        }
    }

    pub(super) fn fixed(&mut self) -> Read<u64> {
        let (head, rest) = self.rest.split_first_chunk::<8>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*head))
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        if self.version < 2 {
            return self.fixed();
        }
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Range);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Range)
    }

    pub(super) fn u16(&mut self) -> Read<u16> {
        u16::try_from(self.number()?).map_err(|_| WireError::Range)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        u32::try_from(self.number()?).map_err(|_| WireError::Range)
    }

    pub(super) fn length(&mut self) -> Read<usize> {
        usize::try_from(self.number()?).map_err(|_| WireError::Range)
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.length()?;
        self.raw(len)
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Text)
    }

    pub(super) fn hlc(&mut self) -> Read<Hlc> {
        self.fixed().map(Hlc)
    }

    pub(super) fn node(&mut self) -> Read<NodeId> {
        self.fixed().map(NodeId)
    }

    pub(super) fn version(&mut self) -> Read<Version> {
        Ok(Version {
            at: self.hlc()?,
            node: self.node()?,
        })
    }

    /// A list. An item has at least one byte, so that a count beyond the frame's length is a lie.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.length()?;
        if count > self.rest.len() {
            return Err(WireError::Short);
        }
        // Not reserved at once: an item in memory can be many times its smallest size on the wire.
        let mut items = Vec::with_capacity(count.min(1_024));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
