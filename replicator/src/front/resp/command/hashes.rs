//! Hashes: Spring Session, ASP.NET Core and Redisson store one attribute per field.

use super::{Context, Planned, Refusal, at, float, integer, on_key, without_repeats};
use crate::core::{Kind, Op};
use crate::front::resp::render::Render;
use crate::front::resp::request::Arguments;

const KIND: Kind = Kind::Hash;

fn put<'a>(context: &Context<'_>, arguments: &Arguments<'a>, render: Render) -> Planned<'a> {
    if !arguments.len().is_multiple_of(2) {
        return Err(Refusal::Arity(context.name.to_owned()));
    }
    let mut words = arguments.from(2);
    let mut fields = Vec::with_capacity(arguments.len() / 2);
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        fields.push((field, value));
    }
    let fields = without_repeats(fields, false);
    on_key(
        at(arguments, 1)?,
        Op::PutFields {
            kind: KIND,
            fields,
            only_absent: false,
        },
        render,
    )
}

/// HSET key field value …
pub fn hset<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    put(context, &arguments, Render::Plain)
}

/// HMSET key field value …
pub fn hmset<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    put(context, &arguments, Render::AlwaysOk)
}

/// HSETNX key field value
pub fn hsetnx<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = vec![(at(&arguments, 2)?, at(&arguments, 3)?)];
    on_key(
        at(&arguments, 1)?,
        Op::PutFields {
            kind: KIND,
            fields,
            only_absent: true,
        },
        Render::Plain,
    )
}

/// HGET key field
pub fn hget<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Field {
            kind: KIND,
            field: at(&arguments, 2)?,
        },
        Render::Plain,
    )
}

/// HEXISTS key field
pub fn hexists<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Field {
            kind: KIND,
            field: at(&arguments, 2)?,
        },
        Render::Presence,
    )
}

/// HSTRLEN key field
pub fn hstrlen<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Field {
            kind: KIND,
            field: at(&arguments, 2)?,
        },
        Render::Length,
    )
}

/// HMGET key field …
pub fn hmget<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).collect();
    on_key(
        at(&arguments, 1)?,
        Op::Fields { kind: KIND, fields },
        Render::Plain,
    )
}

/// HGETALL key
pub fn hgetall<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::AllFields { kind: KIND }, Render::Pairs)
}

/// HKEYS key
pub fn hkeys<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::AllFields { kind: KIND }, Render::Names)
}

/// HVALS key
pub fn hvals<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::AllFields { kind: KIND }, Render::Values)
}

/// HLEN key
pub fn hlen<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::FieldCount { kind: KIND }, Render::Plain)
}

/// HDEL key field …
pub fn hdel<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).collect();
    on_key(
        at(&arguments, 1)?,
        Op::RemoveFields { kind: KIND, fields },
        Render::Plain,
    )
}

/// HINCRBY key field increment
pub fn hincrby<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let by = integer(at(&arguments, 3)?)?;
    on_key(
        at(&arguments, 1)?,
        Op::IncrementField {
            field: at(&arguments, 2)?,
            by,
        },
        Render::Plain,
    )
}

/// HINCRBYFLOAT key field increment
pub fn hincrbyfloat<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let by = float(at(&arguments, 3)?)?;
    let op = Op::IncrementFieldFloat {
        kind: KIND,
        field: at(&arguments, 2)?,
        by,
    };
    on_key(at(&arguments, 1)?, op, Render::Plain)
}
