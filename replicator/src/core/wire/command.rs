//! Commands and replies on the wire: for what is decided at another member.

use bytes::Bytes;

use super::entry::kind_of;
use super::{Read, Reader, WireError, Writer};
use crate::core::command::{
    Command, CommandError, Condition, ExpireCondition, Op, Reply, Restored, SetExpiry,
};

/// Depth of nested replies: an array of a transaction may hold arrays of fields.
const MAX_DEPTH: u8 = 4;

/// A command in bytes.
pub(in crate::core) fn encode_command(version: u8, command: &Command<'_>) -> Vec<u8> {
    let mut writer = Writer::new(version);
    writer.command(command);
    writer.into_bytes()
}

/// A command from bytes.
pub(in crate::core) fn decode_command(version: u8, bytes: &[u8]) -> Read<Command<'_>> {
    let mut reader = Reader::new(bytes, version);
    let command = reader.command()?;
    reader.end()?;
    Ok(command)
}

impl Writer {
    fn int(&mut self, value: i64) {
        self.fixed(value.cast_unsigned());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn command(&mut self, command: &Command<'_>) {
        match command {
            Command::Key { key, op } => {
                self.u8(0);
                self.bytes(key);
                self.op(op);
            }
            Command::Rename {
                from,
                to,
                only_if_absent,
            } => {
                self.u8(1);
                self.bytes(from);
                self.bytes(to);
                self.bool(*only_if_absent);
            }
            Command::Transaction { watches, steps } => {
                self.u8(2);
                self.list(watches, |w, (key, token)| {
                    w.bytes(key);
                    w.int(*token);
                });
                self.list(steps, |w, (key, op)| {
                    w.bytes(key);
                    w.op(op);
                });
            }
            Command::Keys { pattern } => {
                self.u8(3);
                self.bytes(pattern);
            }
            Command::Scan {
                cursor,
                pattern,
                count,
                kind,
            } => {
                self.u8(4);
                self.number(*cursor);
                self.optional(*pattern, Self::bytes);
                self.number(u64::from(*count));
                self.optional(*kind, |w, kind| w.u8(kind as u8));
            }
            Command::Count => self.u8(5),
        }
    }

    fn set_expiry(&mut self, expiry: SetExpiry) {
        match expiry {
            SetExpiry::Never => self.u8(0),
            SetExpiry::Keep => self.u8(1),
            SetExpiry::At(at_ms) => {
                self.u8(2);
                self.number(at_ms);
            }
        }
    }

    fn condition(&mut self, condition: Condition<'_>) {
        match condition {
            Condition::Always => self.u8(0),
            Condition::Absent => self.u8(1),
            Condition::Present => self.u8(2),
            Condition::Equals(value) => {
                self.u8(3);
                self.bytes(value);
            }
            Condition::Token(token) => {
                self.u8(4);
                self.int(token);
            }
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one arm per operation; splitting them hides which are missing"
    )]
    fn op(&mut self, op: &Op<'_>) {
        match op {
            Op::Get => self.u8(0),
            Op::GetItem => self.u8(1),
            Op::Exists => self.u8(2),
            Op::Type => self.u8(3),
            Op::Length => self.u8(4),
            Op::TimeToLive => self.u8(5),
            Op::ExpireTime => self.u8(6),
            Op::Watch => self.u8(7),
            Op::Field { kind, field } => {
                self.u8(8);
                self.u8(*kind as u8);
                self.bytes(field);
            }
            Op::Fields { kind, fields } => {
                self.u8(9);
                self.u8(*kind as u8);
                self.list(fields, |w, field| w.bytes(field));
            }
            Op::AllFields { kind } => {
                self.u8(10);
                self.u8(*kind as u8);
            }
            Op::FieldCount { kind } => {
                self.u8(11);
                self.u8(*kind as u8);
            }
            Op::Set {
                value,
                flags,
                expiry,
                condition,
                want_old,
            } => {
                self.u8(12);
                self.bytes(value);
                self.number(u64::from(*flags));
                self.set_expiry(*expiry);
                self.condition(*condition);
                self.bool(*want_old);
            }
            Op::Delete { condition } => {
                self.u8(13);
                self.condition(*condition);
            }
            Op::Take => self.u8(14),
            Op::Expire { at_ms, condition } => {
                self.u8(15);
                self.number(*at_ms);
                self.u8(*condition as u8);
            }
            Op::ExpireIfEquals { value, at_ms } => {
                self.u8(16);
                self.bytes(value);
                self.number(*at_ms);
            }
            Op::Persist => self.u8(17),
            Op::GetAndExpire { expiry } => {
                self.u8(18);
                self.set_expiry(*expiry);
            }
            Op::Append {
                value,
                in_front,
                create,
            } => {
                self.u8(19);
                self.bytes(value);
                self.bool(*in_front);
                self.bool(*create);
            }
            Op::Increment { by } => {
                self.u8(20);
                self.int(*by);
            }
            Op::IncrementFloat { by } => {
                self.u8(21);
                self.fixed(by.to_bits());
            }
            Op::Counter { by, down, initial } => {
                self.u8(22);
                self.number(*by);
                self.bool(*down);
                self.optional(*initial, |w, (value, expiry)| {
                    w.number(value);
                    w.set_expiry(expiry);
                });
            }
            Op::PutFields {
                kind,
                fields,
                only_absent,
            } => {
                self.u8(23);
                self.u8(*kind as u8);
                self.fields(fields);
                self.bool(*only_absent);
            }
            Op::RemoveFields { kind, fields } => {
                self.u8(24);
                self.u8(*kind as u8);
                self.list(fields, |w, field| w.bytes(field));
            }
            Op::IncrementField { field, by } => {
                self.u8(25);
                self.bytes(field);
                self.int(*by);
            }
            Op::IncrementFieldFloat { kind, field, by } => {
                self.u8(26);
                self.u8(*kind as u8);
                self.bytes(field);
                self.fixed(by.to_bits());
            }
            Op::Bury { redirect, token } => {
                self.u8(28);
                self.bytes(redirect);
                self.int(*token);
            }
            Op::Restore {
                content,
                expires_ms,
                only_absent,
            } => {
                self.u8(27);
                match content {
                    Restored::String { value, flags } => {
                        self.u8(0);
                        self.bytes(value);
                        self.number(u64::from(*flags));
                    }
                    Restored::Fields { kind, fields } => {
                        self.u8(*kind as u8);
                        self.fields(fields);
                    }
                }
                self.number(*expires_ms);
                self.bool(*only_absent);
            }
        }
    }

    fn fields(&mut self, fields: &[(&[u8], &[u8])]) {
        self.list(fields, |w, (name, value)| {
            w.bytes(name);
            w.bytes(value);
        });
    }

    pub(super) fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Ok => self.u8(0),
            Reply::Nil => self.u8(1),
            Reply::Int(value) => {
                self.u8(2);
                self.int(*value);
            }
            Reply::Bytes(bytes) => {
                self.u8(3);
                self.bytes(bytes);
            }
            Reply::Item { value, flags, token } => {
                self.u8(4);
                self.bytes(value);
                self.number(u64::from(*flags));
                self.int(*token);
            }
            Reply::Type(kind) => {
                self.u8(5);
                self.optional(*kind, |w, kind| w.u8(kind as u8));
            }
            Reply::Array(items) => {
                self.u8(6);
                self.list(items, Self::reply);
            }
            Reply::Map(pairs) => {
                self.u8(7);
                self.list(pairs, |w, (name, value)| {
                    w.bytes(name);
                    w.bytes(value);
                });
            }
            Reply::Error(error) => {
                self.u8(8);
                self.u8(error.code());
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn int(&mut self) -> Read<i64> {
        self.fixed().map(u64::cast_signed)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    fn kind(&mut self) -> Read<crate::core::Kind> {
        self.u8().and_then(kind_of)
    }

    fn names(&mut self) -> Read<Vec<&'a [u8]>> {
        self.list(Self::bytes)
    }

    fn fields(&mut self) -> Read<Vec<(&'a [u8], &'a [u8])>> {
        self.list(|reader| Ok((reader.bytes()?, reader.bytes()?)))
    }

    fn command(&mut self) -> Read<Command<'a>> {
        Ok(match self.u8()? {
            0 => Command::Key {
                key: self.bytes()?,
                op: self.op()?,
            },
            1 => Command::Rename {
                from: self.bytes()?,
                to: self.bytes()?,
                only_if_absent: self.bool()?,
            },
            2 => Command::Transaction {
                watches: self.list(|reader| Ok((reader.bytes()?, reader.int()?)))?,
                steps: self.list(|reader| Ok((reader.bytes()?, reader.op()?)))?,
            },
            3 => Command::Keys {
                pattern: self.bytes()?,
            },
            4 => Command::Scan {
                cursor: self.number()?,
                pattern: self.optional(Self::bytes)?,
                count: self.u32()?,
                kind: self.optional(Self::kind)?,
            },
            5 => Command::Count,
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn set_expiry(&mut self) -> Read<SetExpiry> {
        Ok(match self.u8()? {
            0 => SetExpiry::Never,
            1 => SetExpiry::Keep,
            2 => SetExpiry::At(self.number()?),
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn condition(&mut self) -> Read<Condition<'a>> {
        Ok(match self.u8()? {
            0 => Condition::Always,
            1 => Condition::Absent,
            2 => Condition::Present,
            3 => Condition::Equals(self.bytes()?),
            4 => Condition::Token(self.int()?),
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn expire_condition(&mut self) -> Read<ExpireCondition> {
        Ok(match self.u8()? {
            0 => ExpireCondition::Always,
            1 => ExpireCondition::NoExpiry,
            2 => ExpireCondition::HasExpiry,
            3 => ExpireCondition::Later,
            4 => ExpireCondition::Earlier,
            tag => return Err(WireError::Tag(tag)),
        })
    }

    fn op(&mut self) -> Read<Op<'a>> {
        Ok(match self.u8()? {
            0 => Op::Get,
            1 => Op::GetItem,
            2 => Op::Exists,
            3 => Op::Type,
            4 => Op::Length,
            5 => Op::TimeToLive,
            6 => Op::ExpireTime,
            7 => Op::Watch,
            8 => Op::Field {
                kind: self.kind()?,
                field: self.bytes()?,
            },
            9 => Op::Fields {
                kind: self.kind()?,
                fields: self.names()?,
            },
            10 => Op::AllFields { kind: self.kind()? },
            11 => Op::FieldCount { kind: self.kind()? },
            12 => Op::Set {
                value: self.bytes()?,
                flags: self.u32()?,
                expiry: self.set_expiry()?,
                condition: self.condition()?,
                want_old: self.bool()?,
            },
            13 => Op::Delete {
                condition: self.condition()?,
            },
            14 => Op::Take,
            15 => Op::Expire {
                at_ms: self.number()?,
                condition: self.expire_condition()?,
            },
            16 => Op::ExpireIfEquals {
                value: self.bytes()?,
                at_ms: self.number()?,
            },
            17 => Op::Persist,
            18 => Op::GetAndExpire {
                expiry: self.set_expiry()?,
            },
            19 => Op::Append {
                value: self.bytes()?,
                in_front: self.bool()?,
                create: self.bool()?,
            },
            20 => Op::Increment { by: self.int()? },
            21 => Op::IncrementFloat {
                by: f64::from_bits(self.fixed()?),
            },
            22 => Op::Counter {
                by: self.number()?,
                down: self.bool()?,
                initial: self.optional(|reader| Ok((reader.number()?, reader.set_expiry()?)))?,
            },
            23 => Op::PutFields {
                kind: self.kind()?,
                fields: self.fields()?,
                only_absent: self.bool()?,
            },
            24 => Op::RemoveFields {
                kind: self.kind()?,
                fields: self.names()?,
            },
            25 => Op::IncrementField {
                field: self.bytes()?,
                by: self.int()?,
            },
            26 => Op::IncrementFieldFloat {
                kind: self.kind()?,
                field: self.bytes()?,
                by: f64::from_bits(self.fixed()?),
            },
            27 => Op::Restore {
                content: match self.u8()? {
                    0 => Restored::String {
                        value: self.bytes()?,
                        flags: self.u32()?,
                    },
                    tag => Restored::Fields {
                        kind: kind_of(tag)?,
                        fields: self.fields()?,
                    },
                },
                expires_ms: self.number()?,
                only_absent: self.bool()?,
            },
            28 => Op::Bury {
                redirect: self.bytes()?,
                token: self.int()?,
            },
            tag => return Err(WireError::Tag(tag)),
        })
    }

    pub(super) fn reply(&mut self, depth: u8) -> Read<Reply> {
        if depth > MAX_DEPTH {
            return Err(WireError::Range);
        }
        Ok(match self.u8()? {
            0 => Reply::Ok,
            1 => Reply::Nil,
            2 => Reply::Int(self.int()?),
            3 => Reply::Bytes(Bytes::copy_from_slice(self.bytes()?)),
            4 => Reply::Item {
                value: Bytes::copy_from_slice(self.bytes()?),
                flags: self.u32()?,
                token: self.int()?,
            },
            5 => Reply::Type(self.optional(Self::kind)?),
            6 => Reply::Array(self.list(|reader| reader.reply(depth + 1))?),
            7 => Reply::Map(self.list(|reader| {
                Ok((
                    Bytes::copy_from_slice(reader.bytes()?),
                    Bytes::copy_from_slice(reader.bytes()?),
                ))
            })?),
            8 => {
                let code = self.u8()?;
                Reply::Error(CommandError::from_code(code).ok_or(WireError::Tag(code))?)
            }
            tag => return Err(WireError::Tag(tag)),
        })
    }
}
