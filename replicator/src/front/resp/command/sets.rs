//! Sets: Spring's indexed repository and Redisson's broadcast sets.

use super::{Context, Planned, at, on_key};
use crate::core::{Kind, Op};
use crate::front::resp::render::Render;
use crate::front::resp::request::Arguments;

const KIND: Kind = Kind::Set;

/// SADD key member …
pub fn sadd<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).map(|member| (member, b"".as_slice())).collect();
    on_key(
        at(&arguments, 1)?,
        Op::PutFields {
            kind: KIND,
            fields,
            only_absent: false,
        },
        Render::Plain,
    )
}

/// SREM key member …
pub fn srem<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).collect();
    on_key(
        at(&arguments, 1)?,
        Op::RemoveFields { kind: KIND, fields },
        Render::Plain,
    )
}

/// SMEMBERS key
pub fn smembers<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::AllFields { kind: KIND }, Render::Members)
}

/// SISMEMBER key member
pub fn sismember<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Field {
            kind: KIND,
            field: at(&arguments, 2)?,
        },
        Render::Presence,
    )
}

/// SMISMEMBER key member …
pub fn smismember<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).collect();
    on_key(
        at(&arguments, 1)?,
        Op::Fields { kind: KIND, fields },
        Render::Presence,
    )
}

/// SCARD key
pub fn scard<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::FieldCount { kind: KIND }, Render::Plain)
}
