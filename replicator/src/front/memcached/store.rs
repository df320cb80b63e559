//! What memcached's operations are in the core's terms, the same for all three dialects.

use crate::core::{Command, CommandError, Condition, ExpireCondition, Op, Reply, SetExpiry};

/// The version of memcached whose behaviour is followed; Dalli wants 1.6.27 at least.
pub const VERSION: &str = "1.6.38";

/// Expiration times up to this are relative, in seconds: thirty days.
const LONGEST_RELATIVE: i64 = 60 * 60 * 24 * 30;

/// When an item ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// At this time, milliseconds since the epoch.
    At(u64),
}

impl Expiry {
    /// An expiration time as clients give it: 0 for never, negative for at once, up to thirty days from now on, more
    /// for seconds since the epoch.
    pub fn new(exptime: i64, now_ms: u64) -> Self {
        match exptime {
            0 => Self::Never,
            ..0 => Self::At(1),
            1..=LONGEST_RELATIVE => Self::At(now_ms.saturating_add_signed(exptime * 1_000)),
            absolute => Self::At(absolute.saturating_mul(1_000).unsigned_abs()),
        }
    }

    /// What a SET does with it.
    pub fn for_set(self) -> SetExpiry {
        match self {
            Self::Never => SetExpiry::Never,
            Self::At(at) => SetExpiry::At(at),
        }
    }

    /// The operation that gives it to an item that is there.
    pub fn operation<'a>(self) -> Op<'a> {
        match self {
            Self::Never => Op::Persist,
            Self::At(at_ms) => Op::Expire {
                at_ms,
                condition: ExpireCondition::Always,
            },
        }
    }
}

/// How an item is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whether there is one or not.
    Set,
    /// Only if there is none.
    Add,
    /// Only if there is one.
    Replace,
    /// Only if nobody has changed it.
    Cas(i64),
    /// Behind what there is.
    Append,
    /// In front of what there is.
    Prepend,
}

/// The command that stores an item.
pub fn store<'a>(mode: Mode, key: &'a [u8], value: &'a [u8], flags: u32, expiry: Expiry) -> Command<'a> {
    let set = |condition| Op::Set {
        value,
        flags,
        expiry: expiry.for_set(),
        condition,
        want_old: false,
    };
    let op = match mode {
        Mode::Set => set(Condition::Always),
        Mode::Add => set(Condition::Absent),
        Mode::Replace => set(Condition::Present),
        Mode::Append => Op::Append {
            value,
            in_front: false,
            create: false,
        },
        Mode::Prepend => Op::Append {
            value,
            in_front: true,
            create: false,
        },
        Mode::Cas(token) => {
            // Whether there was an item tells the two ways to fail apart.
            let steps = vec![(key, Op::Exists), (key, set(Condition::Token(token)))];
            return Command::Transaction {
                watches: Vec::new(),
                steps,
            };
        }
    };
    Command::Key { key, op }
}

/// What became of an item that was to be stored or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The mode's condition did not hold.
    NotStored,
    /// Somebody has changed it.
    Changed,
    /// There is none.
    NotFound,
    /// An error of the store.
    Failed(Failure),
}

/// Why the store did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No memory left.
    OutOfMemory,
    /// The value is too long.
    TooLarge,
    /// The value is no number.
    NotNumeric,
    /// Any other; memcached has no word for it.
    Other(&'static str),
}

impl Failure {
    /// The failure behind an error of the core.
    pub fn of(error: CommandError) -> Self {
        match error {
            CommandError::OutOfMemory => Self::OutOfMemory,
            CommandError::ValueTooLong => Self::TooLarge,
            CommandError::NotInteger | CommandError::Overflow => Self::NotNumeric,
            CommandError::WrongType => Self::Other("the key holds no memcached item"),
            CommandError::NoReplicas => Self::Other("not enough members have confirmed the write in time"),
            CommandError::Loading => Self::Other("the sessions are being taken over from other members"),
            CommandError::KeyTooLong => Self::Other("the key is too long"),
            _ => Self::Other("the members that decide about this key are not in reach"),
        }
    }

    /// The text protocol's line for it.
    pub fn line(self) -> String {
        match self {
            Self::OutOfMemory => "SERVER_ERROR out of memory storing object\r\n".to_owned(),
            Self::TooLarge => "SERVER_ERROR object too large for cache\r\n".to_owned(),
            Self::NotNumeric => "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n".to_owned(),
            Self::Other(text) => format!("SERVER_ERROR {text}\r\n"),
        }
    }
}

/// What the answer to [`store`] says.
pub fn stored(answer: &Reply) -> Outcome {
    match answer {
        Reply::Error(error) => Outcome::Failed(Failure::of(*error)),
        Reply::Array(parts) => match (parts.first(), parts.get(1)) {
            (_, Some(Reply::Ok)) => Outcome::Done,
            (_, Some(Reply::Error(error))) => Outcome::Failed(Failure::of(*error)),
            (Some(Reply::Int(0)), _) => Outcome::NotFound,
            _ => Outcome::Changed,
        },
        Reply::Nil => Outcome::NotStored,
        _ => Outcome::Done,
    }
}

/// The command that deletes an item.
pub fn delete(key: &[u8], token: Option<i64>) -> Command<'_> {
    match token {
        None => Command::Key {
            key,
            op: Op::Delete {
                condition: Condition::Always,
            },
        },
        Some(token) => Command::Transaction {
            watches: Vec::new(),
            steps: vec![
                (key, Op::Exists),
                (
                    key,
                    Op::Delete {
                        condition: Condition::Token(token),
                    },
                ),
            ],
        },
    }
}

/// What the answer to [`delete`] says.
pub fn deleted(answer: &Reply) -> Outcome {
    match answer {
        Reply::Error(error) => Outcome::Failed(Failure::of(*error)),
        Reply::Int(0) => Outcome::NotFound,
        Reply::Array(parts) => match (parts.first(), parts.get(1)) {
            (_, Some(Reply::Int(1))) => Outcome::Done,
            (_, Some(Reply::Error(error))) => Outcome::Failed(Failure::of(*error)),
            (Some(Reply::Int(0)), _) => Outcome::NotFound,
            _ => Outcome::Changed,
        },
        _ => Outcome::Done,
    }
}

/// The command that gives an item a new end, and gives it back with `fetch`.
pub fn touch(key: &[u8], expiry: Expiry, fetch: bool) -> Command<'_> {
    let first = if fetch { Op::GetItem } else { Op::Exists };
    let steps = vec![(key, first), (key, expiry.operation())];
    Command::Transaction {
        watches: Vec::new(),
        steps,
    }
}

/// The item in an answer: alone or as the first part of a transaction's.
pub fn item(answer: &Reply) -> Option<(&bytes::Bytes, u32, i64)> {
    match answer {
        Reply::Item { value, flags, token } => Some((value, *flags, *token)),
        Reply::Array(parts) => parts.first().and_then(item),
        _ => None,
    }
}

/// An error in an answer. An entry that is no string is no item to memcached, and no error either.
pub fn failure(answer: &Reply) -> Option<Failure> {
    match answer {
        Reply::Error(CommandError::WrongType) => None,
        Reply::Error(error) => Some(Failure::of(*error)),
        Reply::Array(parts) => parts.iter().find_map(failure),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiration_times_are_read_as_memcached_does() {
        assert_eq!(Expiry::new(0, 5_000), Expiry::Never);
        assert_eq!(Expiry::new(10, 5_000), Expiry::At(15_000));
        assert_eq!(Expiry::new(LONGEST_RELATIVE, 0), Expiry::At(2_592_000_000));
        assert_eq!(
            Expiry::new(LONGEST_RELATIVE + 1, 5_000),
            Expiry::At(2_592_001_000)
        );
        assert_eq!(Expiry::new(-1, 5_000), Expiry::At(1));
    }
}
