//! The state of entries on the wire.

use super::{Read, Reader, WireError, Writer};
use crate::core::Kind;
use crate::store::{Content, EntryState, Expiry, FieldState};

const UNSAID: u8 = 0;
const DEAD: u8 = 1;
const VALUE: u8 = 2;
const FIELDS: u8 = 3;
/// Added to the tag when the expiry follows.
const WITH_EXPIRY: u8 = 0x10;
/// Ends a sequence of entries.
const END: u8 = 0xff;

pub(super) fn kind_of(tag: u8) -> Read<Kind> {
    match tag {
        0 => Ok(Kind::String),
        1 => Ok(Kind::Hash),
        2 => Ok(Kind::Set),
        3 => Ok(Kind::SortedSet),
        tag => Err(WireError::Tag(tag)),
    }
}

impl Writer {
    pub(in crate::core) fn entry(&mut self, state: &EntryState<'_>) {
        let tag = match &state.content {
            Content::Unsaid => UNSAID,
            Content::Dead { .. } => DEAD,
            Content::Value { .. } => VALUE,
            Content::Fields { .. } => FIELDS,
        };
        self.u8(tag | if state.expiry.is_some() { WITH_EXPIRY } else { 0 });
        self.bytes(state.key);
        self.version(state.incarnation);
        match &state.content {
            Content::Unsaid => {}
            Content::Dead { version, redirect } => {
                self.version(*version);
                self.bytes(redirect);
            }
            Content::Value {
                version,
                flags,
                value,
            } => {
                self.version(*version);
                self.number(u64::from(*flags));
                self.bytes(value);
            }
            Content::Fields { kind, whole, fields } => {
                self.u8(*kind as u8);
                self.bool(*whole);
                self.list(fields, |writer, field| {
                    writer.bytes(field.name);
                    writer.version(field.version);
                    writer.bool(field.value.is_some());
                    if let Some(value) = field.value {
                        writer.bytes(value);
                    }
                });
            }
        }
        if let Some(expiry) = state.expiry {
            self.number(expiry.at_ms);
            self.version(expiry.version);
        }
    }

    /// Ends a sequence of entries.
    pub(in crate::core) fn end_entries(&mut self) {
        self.u8(END);
    }

    pub(super) fn entries(&mut self, entries: &[EntryState<'_>]) {
        for entry in entries {
            self.entry(entry);
        }
        self.end_entries();
    }
}

impl<'a> Reader<'a> {
    pub(super) fn entries(&mut self) -> Read<Vec<EntryState<'a>>> {
        let mut entries = Vec::new();
        loop {
            match self.u8()? {
                END => return Ok(entries),
                tag => entries.push(self.entry(tag)?),
            }
        }
    }

    fn entry(&mut self, tag: u8) -> Read<EntryState<'a>> {
        let key = self.bytes()?;
        let incarnation = self.version()?;
        let content = match tag & !WITH_EXPIRY {
            UNSAID => Content::Unsaid,
            DEAD => Content::Dead {
                version: self.version()?,
                redirect: self.bytes()?,
            },
            VALUE => Content::Value {
                version: self.version()?,
                flags: self.u32()?,
                value: self.bytes()?,
            },
            FIELDS => Content::Fields {
                kind: self.u8().and_then(kind_of)?,
                whole: self.bool()?,
                fields: self.list(|reader| {
                    let (name, version) = (reader.bytes()?, reader.version()?);
                    let value = if reader.bool()? {
                        Some(reader.bytes()?)
                    } else {
                        None
                    };
                    Ok(FieldState { name, version, value })
                })?,
            },
            tag => return Err(WireError::Tag(tag)),
        };
        let expiry = if tag & WITH_EXPIRY != 0 {
            Some(Expiry {
                at_ms: self.number()?,
                version: self.version()?,
            })
        } else {
            None
        };
        Ok(EntryState {
            key,
            incarnation,
            content,
            expiry,
        })
    }
}
