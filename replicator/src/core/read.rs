//! Reads: what an entry says to a question.

use bytes::Bytes;

use super::command::{CommandError, Kind, Op, Reply};
use crate::store::Entry;

/// Answers a read. `entry` is the key's live entry.
pub(super) fn answer(entry: Option<Entry<'_>>, op: &Op<'_>, now_ms: u64) -> Reply {
    match op {
        Op::Exists => Reply::Int(i64::from(entry.is_some())),
        Op::Type => Reply::Type(entry.and_then(Entry::kind)),
        Op::TimeToLive | Op::ExpireTime => Reply::Int(match entry.map(Entry::expires_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(at_ms)) => {
                let from = if *op == Op::TimeToLive { now_ms } else { 0 };
                i64::try_from(at_ms.saturating_sub(from)).unwrap_or(i64::MAX)
            }
        }),
        Op::Watch => Reply::Int(token(entry)),
        Op::Get | Op::GetItem | Op::Length => answer_string(entry, op),
        _ => answer_fields(entry, op),
    }
}

/// A number that changes with every change of the entry; 0 when there is none.
pub(super) fn token(entry: Option<Entry<'_>>) -> i64 {
    entry.map_or(0, |entry| entry.state_hash().cast_signed())
}

fn answer_string(entry: Option<Entry<'_>>, op: &Op<'_>) -> Reply {
    let Some(entry) = entry else {
        return if *op == Op::Length {
            Reply::Int(0)
        } else {
            Reply::Nil
        };
    };
    if entry.kind() != Some(Kind::String) {
        return Reply::Error(CommandError::WrongType);
    }
    match op {
        Op::Length => Reply::Int(length(entry.value().len())),
        Op::GetItem => Reply::Item {
            value: Bytes::copy_from_slice(entry.value()),
            flags: entry.flags(),
            token: token(Some(entry)),
        },
        _ => Reply::Bytes(Bytes::copy_from_slice(entry.value())),
    }
}

fn answer_fields(entry: Option<Entry<'_>>, op: &Op<'_>) -> Reply {
    let (Op::Field { kind, .. } | Op::Fields { kind, .. } | Op::AllFields { kind } | Op::FieldCount { kind }) =
        op
    else {
        return Reply::Error(CommandError::Malformed);
    };
    if entry.is_some_and(|entry| entry.kind() != Some(*kind)) {
        return Reply::Error(CommandError::WrongType);
    }
    let field = |name: &[u8]| match entry.and_then(|entry| entry.field(name)) {
        Some(value) => Reply::Bytes(Bytes::copy_from_slice(value)),
        None => Reply::Nil,
    };
    match op {
        Op::Field { field: name, .. } => field(name),
        Op::Fields { fields, .. } => Reply::Array(fields.iter().map(|name| field(name)).collect()),
        Op::FieldCount { .. } => Reply::Int(length(entry.map_or(0, Entry::field_count))),
        _ => Reply::Map(
            entry
                .into_iter()
                .flat_map(Entry::fields)
                .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
                .collect(),
        ),
    }
}

/// A length as a reply's number.
pub(super) fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
