//! Keys of any type: existence, life time, names.

use super::{Combine, Context, Plan, Planned, Refusal, TimeUnit, at, integer, is_word, on_key, shown};
use crate::core::{Command, Condition, ExpireCondition, Kind, Op};
use crate::front::resp::keyspace;
use crate::front::resp::number::parse_i64;
use crate::front::resp::render::Render;
use crate::front::resp::request::Arguments;

/// Entries that one SCAN looks at at least. COUNT is a hint; looking at an entry costs far less than another request.
const SCAN_COUNT: u32 = 1_000;

fn on_each<'a>(arguments: &Arguments<'a>, op: &Op<'a>) -> Planned<'a> {
    if arguments.len() == 2 {
        return on_key(at(arguments, 1)?, op.clone(), Render::Plain);
    }
    let commands = arguments
        .from(1)
        .map(|key| Command::Key { key, op: op.clone() })
        .collect();
    Ok(Plan::Many(commands, Combine::Sum))
}

/// DEL key …, UNLINK key …
pub fn del<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_each(
        &arguments,
        &Op::Delete {
            condition: Condition::Always,
        },
    )
}

/// EXISTS key …, TOUCH key …
pub fn exists<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_each(&arguments, &Op::Exists)
}

/// TYPE key
pub fn type_of<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Type, Render::Plain)
}

fn expire_at<'a>(unit: TimeUnit, context: &Context<'_>, arguments: &Arguments<'a>) -> Planned<'a> {
    let amount = integer(at(arguments, 2)?)?;
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in arguments.from(3) {
        if is_word(option, "NX") {
            nx = true;
        } else if is_word(option, "XX") {
            xx = true;
        } else if is_word(option, "GT") {
            gt = true;
        } else if is_word(option, "LT") {
            lt = true;
        } else {
            return Err(Refusal::Detailed(format!(
                "ERR Unsupported option {}",
                shown(option)
            )));
        }
    }
    let condition = match (nx, xx, gt, lt) {
        (true, true, ..) | (true, _, true, _) | (true, _, _, true) => {
            return Err(Refusal::Other(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        (_, _, true, true) => {
            return Err(Refusal::Other(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        (_, true, _, true) => {
            return Err(Refusal::Other(
                "ERR XX and LT options at the same time are not supported",
            ));
        }
        (true, ..) => ExpireCondition::NoExpiry,
        // An entry without expiry counts as infinitely late: GT alone implies XX.
        (_, _, true, _) => ExpireCondition::Later,
        (_, _, _, true) => ExpireCondition::Earlier,
        (_, true, ..) => ExpireCondition::HasExpiry,
        _ => ExpireCondition::Always,
    };
    let at_ms = unit
        .absolute(amount, context.now_ms)
        .ok_or(Refusal::InvalidExpire(context.name))?;
    // A time before the epoch has passed like any other.
    let at_ms = u64::try_from(at_ms).unwrap_or(0);
    on_key(at(arguments, 1)?, Op::Expire { at_ms, condition }, Render::Plain)
}

/// EXPIRE key seconds `[NX|XX|GT|LT]`
pub fn expire<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    expire_at(TimeUnit::SECONDS, context, &arguments)
}

/// PEXPIRE key milliseconds `[NX|XX|GT|LT]`
pub fn pexpire<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    expire_at(TimeUnit::MILLISECONDS, context, &arguments)
}

/// EXPIREAT key unix-seconds `[NX|XX|GT|LT]`
pub fn expireat<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    expire_at(TimeUnit::UNIX_SECONDS, context, &arguments)
}

/// PEXPIREAT key unix-milliseconds `[NX|XX|GT|LT]`
pub fn pexpireat<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    expire_at(TimeUnit::UNIX_MILLISECONDS, context, &arguments)
}

/// TTL key
pub fn ttl<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::TimeToLive, Render::RoundedSeconds)
}

/// PTTL key
pub fn pttl<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::TimeToLive, Render::Plain)
}

/// EXPIRETIME key
pub fn expiretime<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::ExpireTime, Render::RoundedSeconds)
}

/// PEXPIRETIME key
pub fn pexpiretime<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::ExpireTime, Render::Plain)
}

/// PERSIST key
pub fn persist<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Persist, Render::Plain)
}

/// RENAME key newkey
pub fn rename<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let command = Command::Rename {
        from: at(&arguments, 1)?,
        to: at(&arguments, 2)?,
        only_if_absent: false,
    };
    Ok(Plan::One(command, Render::Plain))
}

/// RENAMENX key newkey
pub fn renamenx<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let command = Command::Rename {
        from: at(&arguments, 1)?,
        to: at(&arguments, 2)?,
        only_if_absent: true,
    };
    Ok(Plan::One(command, Render::Plain))
}

/// KEYS pattern
pub fn keys<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let database = context.state.database;
    Ok(Plan::One(
        Command::Keys {
            pattern: at(&arguments, 1)?,
        },
        Render::Keys { database },
    ))
}

/// SCAN cursor `[MATCH pattern] [COUNT count] [TYPE type]`
pub fn scan<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let cursor = std::str::from_utf8(at(&arguments, 1)?)
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .ok_or(Refusal::Other("ERR invalid cursor"))?;
    let mut pattern = None;
    let mut count = SCAN_COUNT;
    let mut kind = None;
    let mut impossible = false;
    let mut options = arguments.from(2);
    while let Some(option) = options.next() {
        let value = options.next().ok_or(Refusal::Syntax)?;
        if is_word(option, "MATCH") {
            pattern = Some(value);
        } else if is_word(option, "COUNT") {
            let wanted = parse_i64(value).ok_or(Refusal::NotInteger)?;
            if wanted < 1 {
                return Err(Refusal::Syntax);
            }
            count = u32::try_from(wanted).unwrap_or(u32::MAX).max(SCAN_COUNT);
        } else if is_word(option, "TYPE") {
            kind = kind_named(value);
            impossible = kind.is_none();
        } else {
            return Err(Refusal::Syntax);
        }
    }
    if impossible {
        context.writer.array(2);
        context.writer.bulk(b"0");
        context.writer.array(0);
        return Ok(Plan::Written);
    }
    let database = context.state.database;
    Ok(Plan::One(
        Command::Scan {
            cursor,
            pattern,
            count,
            kind,
        },
        Render::Scan { database },
    ))
}

fn kind_named(name: &[u8]) -> Option<Kind> {
    [
        (Kind::String, "string"),
        (Kind::Hash, "hash"),
        (Kind::Set, "set"),
        (Kind::SortedSet, "zset"),
    ]
    .into_iter()
    .find(|(_, known)| is_word(name, known))
    .map(|(kind, _)| kind)
}

/// DBSIZE. With keys in several databases it counts those of the connection's one.
pub fn dbsize<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    let database = context.state.database;
    Ok(Plan::One(
        Command::Keys { pattern: b"*" },
        Render::KeyCount { database },
    ))
}

/// What a pattern of KEYS or SCAN becomes in a database other than 0.
pub fn stored_pattern(database: u8, pattern: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(pattern.len() + keyspace::PREFIX);
    keyspace::encode_pattern(database, pattern, &mut stored);
    stored
}
