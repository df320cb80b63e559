//! The commands: a table of names, and one file per group that turns arguments into a [`Plan`].
//!
//! A handler looks at arguments and at the connection, never at the sessions: it either writes its reply itself or says
//! what to ask the core and how the answer is to be written. So a command runs the same alone, inside MULTI and when
//! its reply has to wait for another member.

pub mod cluster;
pub mod connection;
pub mod hashes;
pub mod introspection;
pub mod keys;
pub mod pubsub;
pub mod rewrite;
pub mod script;
pub mod server;
pub mod sets;
pub mod sorted_sets;
pub mod strings;
mod table;
pub mod transactions;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::connection::State;
use super::number::{parse_f64, parse_i64};
use super::render::Render;
use super::reply::Writer;
use super::request::Arguments;
use crate::core::{Command, Op};
use crate::front::server::Server;

pub use table::{TABLE, find, known_elsewhere};

/// What a handler may look at and change.
#[derive(Debug)]
pub struct Context<'c> {
    /// The connection.
    pub state: &'c mut State,
    /// What all connections share.
    pub server: &'c mut Server,
    /// Where a handler that needs nothing from the core writes its reply.
    pub writer: Writer<'c>,
    /// Wall time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The command, as errors name it.
    pub name: &'static str,
}

/// What has to be done for a command.
#[derive(Debug)]
pub enum Plan<'a> {
    /// Nothing: the reply is written.
    Written,
    /// Nothing: the reply is written, and the connection ends.
    Close,
    /// Ask the core one thing.
    One(Command<'a>, Render),
    /// Ask the core several things, one after the other, and make one reply of the answers.
    Many(Vec<Command<'a>>, Combine),
    /// Watch keys.
    Watch(Vec<&'a [u8]>),
    /// Lengthen the life of a key by so many milliseconds if it has this value: two questions in sequence.
    Extend {
        /// The key.
        key: &'a [u8],
        /// The value that it has to have.
        value: &'a [u8],
        /// Milliseconds.
        by_ms: i64,
    },
    /// Run what MULTI has queued.
    Exec,
}

/// How several answers become one reply. The first error wins in all of them but [`Combine::Array`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combine {
    /// The sum of numbers.
    Sum,
    /// `+OK`.
    Ok,
    /// An array, each answer written the same way.
    Array(Render),
    /// 1 if any number is not 0, else 0.
    Any,
    /// The first answer.
    First(Render),
}

/// Why a command was refused before the core was asked. The text is the reply, as Redis words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// Options that do not exist or do not go together.
    #[error("ERR syntax error")]
    Syntax,
    /// Not a number in range.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A time that is not after the epoch, or too far away.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// A subcommand that is not spoken here.
    #[error("ERR unknown subcommand '{name}'. Try {command} HELP.")]
    Subcommand {
        /// The command.
        command: &'static str,
        /// The subcommand, as the client wrote it.
        name: String,
    },
    /// Anything else, in Redis' words.
    #[error("{0}")]
    Other(&'static str),
    /// Anything else, with a part of the request in it.
    #[error("{0}")]
    Detailed(String),
}

/// What a handler gives.
pub type Planned<'a> = Result<Plan<'a>, Refusal>;
/// A handler.
pub type Handler = for<'a> fn(&mut Context<'_>, Arguments<'a>) -> Planned<'a>;

/// Where the keys of a command are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// No keys.
    None,
    /// From `first` to `last` (counted from the end when negative), every `step`-th argument.
    Range {
        /// The first key.
        first: usize,
        /// The last key; -1 is the last argument.
        last: isize,
        /// The distance of keys.
        step: usize,
    },
    /// As many as the argument at this place says, right behind it.
    Counted(usize),
}

/// One key behind the command's name.
pub const ONE_KEY: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};
/// All arguments are keys.
pub const ALL_KEYS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 1,
};

/// What a command is, beyond its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "properties of a command that have nothing to do with each other"
)]
pub struct Flags {
    /// It can change something.
    pub write: bool,
    /// It may be sent before AUTH.
    pub before_auth: bool,
    /// It may not be queued by MULTI.
    pub outside_multi: bool,
    /// It is run and not queued between MULTI and EXEC.
    pub runs_in_multi: bool,
    /// A RESP2 connection may send it while it is subscribed.
    pub while_subscribed: bool,
}

/// A command.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Lower-case name.
    pub name: &'static str,
    /// Number of arguments with the name; at least that many when negative.
    pub arity: i64,
    /// Where its keys are.
    pub keys: Keys,
    /// What its arguments need before the handler sees them.
    pub rewrite: rewrite::Rewrite,
    /// What it is.
    pub flags: Flags,
    /// What it does.
    pub handler: Handler,
}

impl Spec {
    /// Whether a request has a number of arguments that the command takes.
    pub fn takes(&self, arguments: usize) -> bool {
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if self.arity >= 0 {
            arguments == self.arity
        } else {
            arguments >= -self.arity
        }
    }

    /// The places of the keys in a request.
    pub fn key_places(&self, arguments: &Arguments<'_>) -> impl Iterator<Item = usize> + use<> {
        let length = arguments.len();
        let (first, end, step) = match self.keys {
            Keys::None => (0, 0, 1),
            Keys::Range { first, last, step } => {
                let end = match usize::try_from(last) {
                    Ok(last) => last + 1,
                    Err(_) => (length + 1).saturating_add_signed(last),
                };
                (first, end.min(length), step)
            }
            Keys::Counted(place) => {
                let count = arguments
                    .get(place)
                    .and_then(parse_i64)
                    .and_then(|n| usize::try_from(n).ok());
                (
                    place + 1,
                    (place + 1).saturating_add(count.unwrap_or(0)).min(length),
                    1,
                )
            }
        };
        (first..end.max(first)).step_by(step)
    }
}

/// The argument at a place that the table's arity guarantees.
pub fn at<'a>(arguments: &Arguments<'a>, place: usize) -> Result<&'a [u8], Refusal> {
    arguments.get(place).ok_or(Refusal::Syntax)
}

/// A whole number.
pub fn integer(text: &[u8]) -> Result<i64, Refusal> {
    parse_i64(text).ok_or(Refusal::NotInteger)
}

/// A floating point number.
pub fn float(text: &[u8]) -> Result<f64, Refusal> {
    parse_f64(text).ok_or(Refusal::NotFloat)
}

/// Whether a word of a request is this keyword.
pub fn is_word(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// A part of a request for an error text, shortened.
pub fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text.get(..text.len().min(128)).unwrap_or_default()).into_owned()
}

/// One operation on one key with this answer.
pub fn on_key<'a>(key: &'a [u8], op: Op<'a>, render: Render) -> Planned<'a> {
    Ok(Plan::One(Command::Key { key, op }, render))
}

/// Fields with their values.
pub type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Leaves one value for each field: the last one, or the first one where a field that is there is not to be touched.
/// Within one command the core does not tell earlier from later.
pub fn without_repeats(fields: Fields<'_>, keep_first: bool) -> Fields<'_> {
    if fields.len() < 2 {
        return fields;
    }
    let mut places = BTreeMap::new();
    let mut kept: Fields<'_> = Vec::with_capacity(fields.len());
    for (field, value) in fields {
        match places.entry(field) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((field, value));
            }
            Entry::Occupied(place) => {
                if let Some(slot) = kept.get_mut(*place.get()).filter(|_| !keep_first) {
                    slot.1 = value;
                }
            }
        }
    }
    kept
}

/// How a command gives a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeUnit {
    /// Milliseconds per unit.
    pub scale: i64,
    /// From now on, not since the epoch.
    pub relative: bool,
}

impl TimeUnit {
    /// EX, EXPIRE.
    pub const SECONDS: Self = Self {
        scale: 1_000,
        relative: true,
    };
    /// PX, PEXPIRE.
    pub const MILLISECONDS: Self = Self {
        scale: 1,
        relative: true,
    };
    /// EXAT, EXPIREAT.
    pub const UNIX_SECONDS: Self = Self {
        scale: 1_000,
        relative: false,
    };
    /// PXAT, PEXPIREAT.
    pub const UNIX_MILLISECONDS: Self = Self {
        scale: 1,
        relative: false,
    };

    /// The unit that an option of SET and GETEX names.
    pub fn of_option(word: &[u8]) -> Option<Self> {
        if is_word(word, "EX") {
            Some(Self::SECONDS)
        } else if is_word(word, "PX") {
            Some(Self::MILLISECONDS)
        } else if is_word(word, "EXAT") {
            Some(Self::UNIX_SECONDS)
        } else if is_word(word, "PXAT") {
            Some(Self::UNIX_MILLISECONDS)
        } else {
            None
        }
    }

    /// Milliseconds since the epoch; `None` when that does not fit.
    pub fn absolute(self, amount: i64, now_ms: u64) -> Option<i64> {
        let scaled = amount.checked_mul(self.scale)?;
        if self.relative {
            scaled.checked_add_unsigned(now_ms)
        } else {
            Some(scaled)
        }
    }

    /// A time that a value is to be stored until: it has to be positive.
    pub fn expiry(self, text: &[u8], context: &Context<'_>) -> Result<u64, Refusal> {
        let amount = integer(text)?;
        if amount <= 0 {
            return Err(Refusal::InvalidExpire(context.name));
        }
        self.absolute(amount, context.now_ms)
            .and_then(|at| u64::try_from(at).ok())
            .ok_or(Refusal::InvalidExpire(context.name))
    }
}
