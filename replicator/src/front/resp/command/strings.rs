//! Strings: what most session handlers store a session in.

use super::{Combine, Context, Plan, Planned, Refusal, TimeUnit, at, float, integer, is_word, on_key};
use crate::core::{Command, Condition, Op, SetExpiry};
use crate::front::resp::render::Render;
use crate::front::resp::request::Arguments;

/// GET key
pub fn get<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Get, Render::Plain)
}

/// SET key value `[NX|XX|IFEQ value] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]`
pub fn set<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let (key, value) = (at(&arguments, 1)?, at(&arguments, 2)?);
    let mut condition = Condition::Always;
    let mut expiry = None;
    let mut want_old = false;
    let mut options = arguments.from(3);
    while let Some(option) = options.next() {
        let free = condition == Condition::Always;
        if is_word(option, "NX") && (free || condition == Condition::Absent) {
            condition = Condition::Absent;
        } else if is_word(option, "XX") && (free || condition == Condition::Present) {
            condition = Condition::Present;
        } else if is_word(option, "IFEQ") && free {
            condition = Condition::Equals(options.next().ok_or(Refusal::Syntax)?);
        } else if is_word(option, "GET") {
            want_old = true;
        } else if is_word(option, "KEEPTTL") && matches!(expiry, None | Some(SetExpiry::Keep)) {
            expiry = Some(SetExpiry::Keep);
        } else if let Some(unit) = TimeUnit::of_option(option).filter(|_| expiry.is_none()) {
            let amount = options.next().ok_or(Refusal::Syntax)?;
            expiry = Some(SetExpiry::At(unit.expiry(amount, context)?));
        } else {
            return Err(Refusal::Syntax);
        }
    }
    let op = Op::Set {
        value,
        flags: 0,
        expiry: expiry.unwrap_or(SetExpiry::Never),
        condition,
        want_old,
    };
    on_key(key, op, Render::Plain)
}

fn set_until<'a>(unit: TimeUnit, context: &Context<'_>, arguments: &Arguments<'a>) -> Planned<'a> {
    let expiry = SetExpiry::At(unit.expiry(at(arguments, 2)?, context)?);
    let op = Op::Set {
        value: at(arguments, 3)?,
        flags: 0,
        expiry,
        condition: Condition::Always,
        want_old: false,
    };
    on_key(at(arguments, 1)?, op, Render::Plain)
}

/// SETEX key seconds value
pub fn setex<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    set_until(TimeUnit::SECONDS, context, &arguments)
}

/// PSETEX key milliseconds value
pub fn psetex<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    set_until(TimeUnit::MILLISECONDS, context, &arguments)
}

/// SETNX key value
pub fn setnx<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let op = Op::Set {
        value: at(&arguments, 2)?,
        flags: 0,
        expiry: SetExpiry::Never,
        condition: Condition::Absent,
        want_old: false,
    };
    on_key(at(&arguments, 1)?, op, Render::WhetherDone)
}

/// GETSET key value
pub fn getset<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let op = Op::Set {
        value: at(&arguments, 2)?,
        flags: 0,
        expiry: SetExpiry::Never,
        condition: Condition::Always,
        want_old: true,
    };
    on_key(at(&arguments, 1)?, op, Render::Plain)
}

/// GETEX key `[EX s|PX ms|EXAT s|PXAT ms|PERSIST]`
pub fn getex<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let mut expiry = SetExpiry::Keep;
    let mut options = arguments.from(2);
    while let Some(option) = options.next() {
        if expiry != SetExpiry::Keep {
            return Err(Refusal::Syntax);
        }
        if is_word(option, "PERSIST") {
            expiry = SetExpiry::Never;
        } else {
            let unit = TimeUnit::of_option(option).ok_or(Refusal::Syntax)?;
            expiry = SetExpiry::At(unit.expiry(options.next().ok_or(Refusal::Syntax)?, context)?);
        }
    }
    on_key(at(&arguments, 1)?, Op::GetAndExpire { expiry }, Render::Plain)
}

/// GETDEL key
pub fn getdel<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Take, Render::Plain)
}

/// MGET key …
pub fn mget<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let commands = arguments
        .from(1)
        .map(|key| Command::Key { key, op: Op::Get })
        .collect();
    Ok(Plan::Many(commands, Combine::Array(Render::StringOrNil)))
}

/// MSET key value …. Atomic per key, not over all of them: they may have different homes.
pub fn mset<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    if arguments.len().is_multiple_of(2) {
        return Err(Refusal::Arity(context.name.to_owned()));
    }
    let mut words = arguments.from(1);
    let mut commands = Vec::with_capacity(arguments.len() / 2);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        let op = Op::Set {
            value,
            flags: 0,
            expiry: SetExpiry::Never,
            condition: Condition::Always,
            want_old: false,
        };
        commands.push(Command::Key { key, op });
    }
    Ok(Plan::Many(commands, Combine::Ok))
}

/// APPEND key value
pub fn append<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let op = Op::Append {
        value: at(&arguments, 2)?,
        in_front: false,
        create: true,
    };
    on_key(at(&arguments, 1)?, op, Render::Plain)
}

/// STRLEN key
pub fn strlen<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Length, Render::Plain)
}

/// INCR key
pub fn incr<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Increment { by: 1 }, Render::Plain)
}

/// DECR key
pub fn decr<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::Increment { by: -1 }, Render::Plain)
}

/// INCRBY key increment
pub fn incrby<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Increment {
            by: integer(at(&arguments, 2)?)?,
        },
        Render::Plain,
    )
}

/// DECRBY key decrement
pub fn decrby<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let by = integer(at(&arguments, 2)?)?
        .checked_neg()
        .ok_or(Refusal::Other("ERR decrement would overflow"))?;
    on_key(at(&arguments, 1)?, Op::Increment { by }, Render::Plain)
}

/// INCRBYFLOAT key increment
pub fn incrbyfloat<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let by = float(at(&arguments, 2)?)?;
    on_key(at(&arguments, 1)?, Op::IncrementFloat { by }, Render::Plain)
}

/// DELEX key `[IFEQ value]` (Redis 8)
pub fn delex<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let condition = match arguments.len() {
        2 => Condition::Always,
        4 if is_word(at(&arguments, 2)?, "IFEQ") => Condition::Equals(at(&arguments, 3)?),
        _ => return Err(Refusal::Syntax),
    };
    on_key(at(&arguments, 1)?, Op::Delete { condition }, Render::Plain)
}

/// DELIFEQ key value (Valkey 9)
pub fn delifeq<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let condition = Condition::Equals(at(&arguments, 2)?);
    on_key(at(&arguments, 1)?, Op::Delete { condition }, Render::Plain)
}
