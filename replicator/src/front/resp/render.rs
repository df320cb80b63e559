//! How the core's answers become replies.

use bytes::Bytes;

use super::command::sorted_sets::score_of;
use super::keyspace;
use super::number::parse_f64;
use super::reply::{Protocol, Writer};
use crate::core::{CommandError, Kind, Reply};

/// How one answer is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Render {
    /// As it is.
    Plain,
    /// `Ok` → 1, `Nil` → 0 (SETNX).
    WhetherDone,
    /// `+OK` whatever number came back (HMSET).
    AlwaysOk,
    /// Bytes; nil also for an entry that is no string (MGET).
    StringOrNil,
    /// Milliseconds as seconds (TTL); negative numbers stay.
    RoundedSeconds,
    /// Whether there is a value: 1 or 0.
    Presence,
    /// How long the value is.
    Length,
    /// Fields and values.
    Pairs,
    /// Field names.
    Names,
    /// Values.
    Values,
    /// The members of a set.
    Members,
    /// A score.
    Score,
    /// A score that came as text (ZINCRBY).
    ScoreText,
    /// The members of a sorted set in a range of scores.
    ScoreRange(ScoreRange),
    /// An array of the keys that are in this database.
    Keys {
        /// The database.
        database: u8,
    },
    /// How many keys are in this database.
    KeyCount {
        /// The database.
        database: u8,
    },
    /// SCAN's pair of cursor and keys.
    Scan {
        /// The database.
        database: u8,
    },
    /// Always this number, unless there was an error (scripts).
    Number(i64),
}

/// An end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The score.
    pub value: f64,
    /// Whether the score itself is outside.
    pub exclusive: bool,
}

/// What ZRANGEBYSCORE and its kin ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    /// The lower end.
    pub min: Bound,
    /// The upper end.
    pub max: Bound,
    /// From the highest to the lowest.
    pub reverse: bool,
    /// Write scores as well.
    pub with_scores: bool,
    /// Members to pass over.
    pub offset: usize,
    /// Members to write at most.
    pub count: usize,
}

impl Render {
    /// Writes an answer.
    pub fn write(self, reply: &Reply, out: &mut Writer<'_>) {
        match (self, reply) {
            (Self::StringOrNil, Reply::Error(CommandError::WrongType)) => out.nil(),
            (_, Reply::Error(error)) => out.error(error.to_string()),
            (Self::WhetherDone | Self::Presence, Reply::Nil) => out.integer(0),
            (Self::AlwaysOk, _) => out.ok(),
            (Self::Number(number), _) => out.integer(number),
            (Self::RoundedSeconds, Reply::Int(ms)) => {
                out.integer(if *ms < 0 {
                    *ms
                } else {
                    ms.saturating_add(500) / 1_000
                });
            }
            (Self::Presence, Reply::Array(items)) => {
                out.array(items.len());
                for item in items {
                    self.write(item, out);
                }
            }
            (Self::WhetherDone, Reply::Ok) | (Self::Presence, _) => out.integer(1),
            (Self::Length, Reply::Bytes(bytes)) => {
                out.integer(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            }
            (Self::Length, _) => out.integer(0),
            (Self::Score, Reply::Bytes(bytes)) => match score_of(bytes) {
                Some(score) => out.double(score),
                None => out.nil(),
            },
            (Self::ScoreText, Reply::Bytes(text)) => match parse_f64(text) {
                Some(score) => out.double(score),
                None => out.bulk(text),
            },
            (Self::Pairs | Self::Names | Self::Values | Self::Members | Self::ScoreRange(_), reply) => {
                self.write_fields(reply, out);
            }
            (Self::Keys { database }, Reply::Array(keys)) => write_keys(database, keys, out),
            (Self::KeyCount { database }, Reply::Array(keys)) => {
                let count = keys
                    .iter()
                    .filter(|key| client_key(database, key).is_some())
                    .count();
                out.integer(i64::try_from(count).unwrap_or(i64::MAX));
            }
            (Self::Scan { database }, Reply::Array(parts)) => write_scan(database, parts, out),
            (_, other) => write_plain(other, out),
        }
    }

    fn write_fields(self, reply: &Reply, out: &mut Writer<'_>) {
        let fields = match reply {
            Reply::Map(fields) => fields.as_slice(),
            _ => &[],
        };
        match self {
            Self::Pairs => {
                out.map(fields.len());
                for (name, value) in fields {
                    out.bulk(name);
                    out.bulk(value);
                }
            }
            Self::Names => {
                out.array(fields.len());
                for (name, _) in fields {
                    out.bulk(name);
                }
            }
            Self::Values => {
                out.array(fields.len());
                for (_, value) in fields {
                    out.bulk(value);
                }
            }
            Self::Members => {
                out.set(fields.len());
                for (name, _) in fields {
                    out.bulk(name);
                }
            }
            Self::ScoreRange(range) => range.write(fields, out),
            _ => out.array(0),
        }
    }
}

impl ScoreRange {
    fn holds(&self, score: f64) -> bool {
        let above = if self.min.exclusive {
            score > self.min.value
        } else {
            score >= self.min.value
        };
        let below = if self.max.exclusive {
            score < self.max.value
        } else {
            score <= self.max.value
        };
        above && below
    }

    fn write(&self, fields: &[(Bytes, Bytes)], out: &mut Writer<'_>) {
        let mut members: Vec<(f64, &Bytes)> = fields
            .iter()
            .filter_map(|(member, score)| score_of(score).map(|score| (score, member)))
            .filter(|(score, _)| self.holds(*score))
            .collect();
        members.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        if self.reverse {
            members.reverse();
        }
        let wanted = members.get(self.offset.min(members.len())..).unwrap_or_default();
        let wanted = wanted.get(..self.count.min(wanted.len())).unwrap_or_default();
        match (self.with_scores, out.protocol()) {
            (false, _) => {
                out.array(wanted.len());
                for (_, member) in wanted {
                    out.bulk(member);
                }
            }
            (true, Protocol::Resp2) => {
                out.array(wanted.len() * 2);
                for (score, member) in wanted {
                    out.bulk(member);
                    out.double(*score);
                }
            }
            (true, Protocol::Resp3) => {
                out.array(wanted.len());
                for (score, member) in wanted {
                    out.array(2);
                    out.bulk(member);
                    out.double(*score);
                }
            }
        }
    }
}

/// The client's name of a key in a reply, if the key is in the database.
fn client_key(database: u8, reply: &Reply) -> Option<&[u8]> {
    let Reply::Bytes(stored) = reply else { return None };
    let (of, key) = keyspace::decode(stored);
    (of == database).then_some(key)
}

fn write_keys(database: u8, keys: &[Reply], out: &mut Writer<'_>) {
    let keys: Vec<&[u8]> = keys.iter().filter_map(|key| client_key(database, key)).collect();
    out.array(keys.len());
    for key in keys {
        out.bulk(key);
    }
}

fn write_scan(database: u8, parts: &[Reply], out: &mut Writer<'_>) {
    let (Some(Reply::Int(cursor)), Some(Reply::Array(keys))) = (parts.first(), parts.get(1)) else {
        out.error(CommandError::Malformed.to_string());
        return;
    };
    out.array(2);
    // The cursor is the bit pattern of an unsigned number.
    out.bulk(cursor.cast_unsigned().to_string().as_bytes());
    write_keys(database, keys, out);
}

fn write_plain(reply: &Reply, out: &mut Writer<'_>) {
    match reply {
        Reply::Ok => out.ok(),
        Reply::Nil => out.nil(),
        Reply::Int(value) => out.integer(*value),
        Reply::Bytes(bytes) | Reply::Item { value: bytes, .. } => out.bulk(bytes),
        Reply::Type(kind) => out.status(match kind {
            None => "none",
            Some(Kind::String) => "string",
            Some(Kind::Hash) => "hash",
            Some(Kind::Set) => "set",
            Some(Kind::SortedSet) => "zset",
        }),
        Reply::Array(items) => {
            out.array(items.len());
            for item in items {
                write_plain(item, out);
            }
        }
        Reply::Map(fields) => {
            out.map(fields.len());
            for (name, value) in fields {
                out.bulk(name);
                out.bulk(value);
            }
        }
        Reply::Error(error) => out.error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(render: Render, reply: &Reply, protocol: Protocol) -> String {
        let mut out = Vec::new();
        render.write(reply, &mut Writer::new(&mut out, protocol));
        out.escape_ascii().to_string()
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn seconds_are_rounded_and_marks_kept() {
        let seconds = |ms| written(Render::RoundedSeconds, &Reply::Int(ms), Protocol::Resp2);
        assert_eq!(seconds(1_499), r":1\r\n");
        assert_eq!(seconds(1_500), r":2\r\n");
        assert_eq!(seconds(-2), r":-2\r\n");
    }

    #[test]
    fn keys_of_other_databases_are_left_out() {
        let keys = Reply::Array(vec![
            Reply::Bytes(bytes("a")),
            Reply::Bytes(bytes("\0\u{2}b")),
            Reply::Bytes(bytes("\0\0\0c")),
        ]);
        assert_eq!(
            written(Render::Keys { database: 0 }, &keys, Protocol::Resp2),
            r"*2\r\n$1\r\na\r\n$2\r\n\x00c\r\n"
        );
        assert_eq!(
            written(Render::Keys { database: 2 }, &keys, Protocol::Resp2),
            r"*1\r\n$1\r\nb\r\n"
        );
        assert_eq!(
            written(Render::KeyCount { database: 1 }, &keys, Protocol::Resp2),
            r":0\r\n"
        );
    }

    #[test]
    fn members_come_in_the_order_of_their_scores() {
        let score = |value: f64| Bytes::copy_from_slice(&value.to_le_bytes());
        let members = Reply::Map(vec![
            (bytes("c"), score(2.0)),
            (bytes("b"), score(1.5)),
            (bytes("a"), score(1.5)),
            (bytes("z"), score(9.0)),
        ]);
        let range = ScoreRange {
            min: Bound {
                value: 1.0,
                exclusive: false,
            },
            max: Bound {
                value: 9.0,
                exclusive: true,
            },
            reverse: false,
            with_scores: false,
            offset: 0,
            count: usize::MAX,
        };
        assert_eq!(
            written(Render::ScoreRange(range), &members, Protocol::Resp2),
            r"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"
        );
        let limited = ScoreRange {
            reverse: true,
            offset: 1,
            count: 1,
            with_scores: true,
            ..range
        };
        assert_eq!(
            written(Render::ScoreRange(limited), &members, Protocol::Resp2),
            r"*2\r\n$1\r\nb\r\n$3\r\n1.5\r\n"
        );
        assert_eq!(
            written(Render::ScoreRange(limited), &members, Protocol::Resp3),
            r"*1\r\n*2\r\n$1\r\nb\r\n,1.5\r\n"
        );
    }
}
