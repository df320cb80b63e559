//! What a client can ask, and what it is told: independent of the protocol it speaks.
//!
//! Commands borrow from the connection's read buffer. Times are absolute, in milliseconds since the Unix epoch: the
//! front converts relative ones.

use bytes::Bytes;

/// The type of an entry. Sets and sorted sets are hashes underneath (member → nothing, member → score), so that all
/// three merge per field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A string, or a memcached item.
    String = 0,
    /// A hash: field → value.
    Hash = 1,
    /// A set: the members are the fields, the values empty.
    Set = 2,
    /// A sorted set: the members are the fields, a value is the score's eight bytes (`f64`, little endian).
    SortedSet = 3,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Command<'a> {
    /// One operation on one key.
    Key {
        /// The key.
        key: &'a [u8],
        /// What to do with it.
        op: Op<'a>,
    },
    /// RENAME, RENAMENX. Replies [`Reply::Ok`], or `Int(0|1)` with `only_if_absent`.
    Rename {
        /// The present name.
        from: &'a [u8],
        /// The new name.
        to: &'a [u8],
        /// Only when nothing has the new name.
        only_if_absent: bool,
    },
    /// MULTI … EXEC, and scripts of several steps: all steps at once, at the home of the keys' one group. Replies an
    /// array, or [`Reply::Nil`] when a watched key has changed.
    Transaction {
        /// Watched keys with the tokens that [`Op::Watch`] gave.
        watches: Vec<(&'a [u8], i64)>,
        /// The steps in order.
        steps: Vec<(&'a [u8], Op<'a>)>,
    },
    /// KEYS: gathered from the whole cluster. Replies an array.
    Keys {
        /// A Redis glob.
        pattern: &'a [u8],
    },
    /// SCAN: `Array[Int(next cursor), Array[keys]]`.
    Scan {
        /// 0 to begin, else what the last reply said.
        cursor: u64,
        /// A Redis glob.
        pattern: Option<&'a [u8]>,
        /// About how many keys to look at.
        count: u32,
        /// Only keys of this type.
        kind: Option<Kind>,
    },
    /// DBSIZE: replies the number of live keys of the whole cluster.
    Count,
}

/// One operation on one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Op<'a> {
    /// GET: `Bytes` or `Nil`.
    Get,
    /// memcached get/gets: [`Reply::Item`] or `Nil`.
    GetItem,
    /// EXISTS, TOUCH: `Int(0|1)`.
    Exists,
    /// TYPE: [`Reply::Type`].
    Type,
    /// STRLEN: `Int`.
    Length,
    /// PTTL: `Int`, milliseconds, -1 without expiry, -2 without entry.
    TimeToLive,
    /// PEXPIRETIME: `Int`, milliseconds since the epoch, -1, -2.
    ExpireTime,
    /// WATCH: `Int`, a token that changes with every change of the key. Asked of the key's home.
    Watch,
    /// HGET, SISMEMBER, ZSCORE: `Bytes` or `Nil`.
    Field {
        /// The entry's type.
        kind: Kind,
        /// The field.
        field: &'a [u8],
    },
    /// HMGET: an array of `Bytes` or `Nil`.
    Fields {
        /// The entry's type.
        kind: Kind,
        /// The fields.
        fields: Vec<&'a [u8]>,
    },
    /// HGETALL, HKEYS, HVALS, SMEMBERS, the ZRANGE family: [`Reply::Map`].
    AllFields {
        /// The entry's type.
        kind: Kind,
    },
    /// HLEN, SCARD, ZCARD: `Int`.
    FieldCount {
        /// The entry's type.
        kind: Kind,
    },

    /// SET in all its forms, SETEX, SETNX, GETSET, memcached set/add/replace/cas.
    /// Replies `Ok`, or `Nil` when the condition failed; with `want_old` the old value instead, whatever happened.
    Set {
        /// The value.
        value: &'a [u8],
        /// memcached flags; 0 from Redis clients.
        flags: u32,
        /// What becomes of the expiry.
        expiry: SetExpiry,
        /// When to write at all.
        condition: Condition<'a>,
        /// SET … GET, GETSET.
        want_old: bool,
    },
    /// DEL, UNLINK, DELEX IFEQ, DELIFEQ, compare-and-delete scripts: `Int(0|1)`.
    Delete {
        /// When to delete.
        condition: Condition<'a>,
    },
    /// GETDEL: the value that was there, or `Nil`.
    Take,
    /// EXPIRE and its kin: `Int(0|1)`. A time that has passed deletes.
    Expire {
        /// When the entry is to end.
        at_ms: u64,
        /// NX, XX, GT, LT.
        condition: ExpireCondition,
    },
    /// Script "extend if the value is mine": EXPIRE when the value equals. `Int(0|1)`.
    ExpireIfEquals {
        /// The value that has to be there.
        value: &'a [u8],
        /// When the entry is to end.
        at_ms: u64,
    },
    /// PERSIST: `Int(0|1)`.
    Persist,
    /// GETEX: the value or `Nil`, and the expiry changed.
    GetAndExpire {
        /// [`SetExpiry::Keep`] is a plain GET, [`SetExpiry::Never`] PERSIST.
        expiry: SetExpiry,
    },
    /// APPEND (`Int`, the new length); memcached append and prepend (`Nil` when there is no entry).
    Append {
        /// What to add.
        value: &'a [u8],
        /// In front instead of behind.
        in_front: bool,
        /// Create the entry when there is none (Redis does, memcached does not).
        create: bool,
    },
    /// INCR, DECR, INCRBY, DECRBY: `Int`.
    Increment {
        /// By how much.
        by: i64,
    },
    /// INCRBYFLOAT: `Bytes`.
    IncrementFloat {
        /// By how much.
        by: f64,
    },
    /// memcached incr, decr: `Int` (bit pattern of the `u64`), `Nil` without entry. Increments wrap, decrements stop at 0.
    Counter {
        /// By how much.
        by: u64,
        /// Subtract instead of add.
        down: bool,
        /// Create with this value and expiry when there is no entry (binary protocol).
        initial: Option<(u64, SetExpiry)>,
    },
    /// HSET, HMSET, SADD, ZADD: `Int`, the number of new fields.
    PutFields {
        /// The entry's type.
        kind: Kind,
        /// Fields and values.
        fields: Vec<(&'a [u8], &'a [u8])>,
        /// HSETNX: only fields that are not there.
        only_absent: bool,
    },
    /// HDEL, SREM, ZREM: `Int`, the number of fields that were there. The last field takes the key with it.
    RemoveFields {
        /// The entry's type.
        kind: Kind,
        /// The fields.
        fields: Vec<&'a [u8]>,
    },
    /// HINCRBY: `Int`.
    IncrementField {
        /// The field.
        field: &'a [u8],
        /// By how much.
        by: i64,
    },
    /// HINCRBYFLOAT: `Bytes`; ZINCRBY with `kind` sorted set.
    IncrementFieldFloat {
        /// The entry's type.
        kind: Kind,
        /// The field.
        field: &'a [u8],
        /// By how much.
        by: f64,
    },
    /// RENAME's last step: makes the entry a tombstone that points to its new name, if it still is what was copied.
    /// `Int(0|1)`.
    Bury {
        /// The new name.
        redirect: &'a [u8],
        /// What [`Op::Watch`] gave when the copy was made.
        token: i64,
    },
    /// Puts a whole entry in the place of whatever is there, in a new incarnation: RENAME's second half, and the copy
    /// from an upstream store. `Int(0|1)`.
    Restore {
        /// What it holds.
        content: Restored<'a>,
        /// When it ends, milliseconds since the epoch; 0 for never.
        expires_ms: u64,
        /// Only when there is nothing.
        only_absent: bool,
    },
}

/// The content of a whole entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Restored<'a> {
    /// A string.
    String {
        /// The value.
        value: &'a [u8],
        /// memcached flags.
        flags: u32,
    },
    /// A hash, set or sorted set.
    Fields {
        /// Which.
        kind: Kind,
        /// Its fields.
        fields: Vec<(&'a [u8], &'a [u8])>,
    },
}

/// What a SET does to the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetExpiry {
    /// No expiry from now on (plain SET).
    Never,
    /// Leave it (KEEPTTL).
    Keep,
    /// Ends at this time, milliseconds since the epoch.
    At(u64),
}

/// When a write takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Always.
    Always,
    /// NX, add.
    Absent,
    /// XX, replace.
    Present,
    /// IFEQ: the string value equals.
    Equals(&'a [u8]),
    /// memcached cas: the token of [`Reply::Item`] is still the same.
    Token(i64),
}

/// The options of EXPIRE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExpireCondition {
    /// Always.
    Always,
    /// NX: only without expiry.
    NoExpiry,
    /// XX: only with expiry.
    HasExpiry,
    /// GT: only later than now set; no expiry counts as infinitely late.
    Later,
    /// LT: only earlier than now set.
    Earlier,
}

impl Op<'_> {
    /// Whether the operation leaves the store as it is.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Get
                | Self::GetItem
                | Self::Exists
                | Self::Type
                | Self::Length
                | Self::TimeToLive
                | Self::ExpireTime
                | Self::Watch
                | Self::Field { .. }
                | Self::Fields { .. }
                | Self::AllFields { .. }
                | Self::FieldCount { .. }
        )
    }

    /// Whether the outcome depends on the present state, so that only the key's home may decide it.
    pub fn is_conditional(&self) -> bool {
        match self {
            Self::Watch
            | Self::Take
            | Self::Append { .. }
            | Self::Increment { .. }
            | Self::IncrementFloat { .. }
            | Self::Counter { .. }
            | Self::IncrementField { .. }
            | Self::IncrementFieldFloat { .. }
            | Self::ExpireIfEquals { .. }
            | Self::Bury { .. }
            | Self::Restore { .. } => true,
            Self::Set {
                condition, want_old, ..
            } => *want_old || *condition != Condition::Always,
            Self::Delete { condition } => *condition != Condition::Always,
            Self::PutFields { only_absent, .. } => *only_absent,
            _ => false,
        }
    }
}

/// What the client is told. The front renders it in RESP2, RESP3 or memcached.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done.
    Ok,
    /// Nothing there, or a condition that failed.
    Nil,
    /// A number.
    Int(i64),
    /// A value.
    Bytes(Bytes),
    /// A memcached item.
    Item {
        /// The value.
        value: Bytes,
        /// What the client stored with it.
        flags: u32,
        /// The cas token.
        token: i64,
    },
    /// A type, `None` for no entry.
    Type(Option<Kind>),
    /// Several replies.
    Array(Vec<Reply>),
    /// Fields and values, in the order of insertion where one node wrote them.
    Map(Vec<(Bytes, Bytes)>),
    /// It was not done.
    Error(CommandError),
}

/// Why a command was not done. The `Display` text follows Redis' wording, code word first where Redis has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum CommandError {
    /// The entry has another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Not a number in range.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A hash's field is not a number in range.
    #[error("ERR hash value is not an integer")]
    FieldNotInteger,
    /// A hash's field is not a number.
    #[error("ERR hash value is not a float")]
    FieldNotFloat,
    /// The sum does not fit.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The sum is no number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// RENAME of what is not there. Spring Session tolerates exactly this text.
    #[error("ERR no such key")]
    NoSuchKey,
    /// Keys of several groups in one transaction.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossGroup,
    /// The memory limit is reached, here or at a member that has to hold the value.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,
    /// The write is kept, but fewer members than asked for have confirmed it in time.
    #[error("NOREPLICAS Not enough good replicas to write.")]
    NoReplicas,
    /// The key's home did not answer in time. Nothing is known of the outcome.
    #[error("TRYAGAIN the member that decides about this key did not answer in time")]
    HomeUnreachable,
    /// A lock was asked for without a majority of the members in reach.
    #[error("TRYAGAIN locks are not granted without a majority of the members in reach")]
    LockWithoutMajority,
    /// The key is longer than allowed.
    #[error("ERR key exceeds the size limit")]
    KeyTooLong,
    /// The value is longer than allowed.
    #[error("ERR value exceeds the size limit")]
    ValueTooLong,
    /// This member has not yet taken over the sessions.
    #[error("LOADING the session store is taking over its data from the other members")]
    Loading,
    /// Too many commands are waiting for other members.
    #[error("TRYAGAIN too many commands wait for other members")]
    Busy,
    /// A frame from a member could not be understood.
    #[error("ERR internal: malformed command")]
    Malformed,
    /// The session may be in the upstream store, which did not answer in time. Nothing was done.
    #[error("TRYAGAIN the upstream store did not answer in time")]
    UpstreamUnreachable,
}

/// All errors, in the order of their codes on the wire.
const ERRORS: [CommandError; 19] = [
    CommandError::WrongType,
    CommandError::NotInteger,
    CommandError::NotFloat,
    CommandError::FieldNotInteger,
    CommandError::FieldNotFloat,
    CommandError::Overflow,
    CommandError::NotFinite,
    CommandError::NoSuchKey,
    CommandError::CrossGroup,
    CommandError::OutOfMemory,
    CommandError::NoReplicas,
    CommandError::HomeUnreachable,
    CommandError::LockWithoutMajority,
    CommandError::KeyTooLong,
    CommandError::ValueTooLong,
    CommandError::Loading,
    CommandError::Busy,
    CommandError::Malformed,
    CommandError::UpstreamUnreachable,
];

impl CommandError {
    /// The error's number on the wire.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The error with this number.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        ERRORS.get(usize::from(code)).copied()
    }
}
