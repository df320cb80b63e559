//! Sorted sets: Spring's expiration store.

use super::{Context, Planned, Refusal, at, is_word, on_key, shown, without_repeats};
use crate::core::{Kind, Op};
use crate::front::resp::number::{parse_f64, parse_i64};
use crate::front::resp::render::{Bound, Render, ScoreRange};
use crate::front::resp::request::Arguments;

const KIND: Kind = Kind::SortedSet;

/// ZADD key `[NX] [INCR]` score member …. The scores have been made bytes already.
pub fn zadd<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let mut only_absent = false;
    let mut increment = false;
    let mut place = 2;
    for word in arguments.from(2) {
        if is_word(word, "NX") {
            only_absent = true;
        } else if is_word(word, "INCR") {
            increment = true;
        } else if ["XX", "GT", "LT", "CH"]
            .iter()
            .any(|option| is_word(word, option))
        {
            return Err(Refusal::Detailed(format!(
                "ERR option {} of ZADD is not supported",
                shown(word)
            )));
        } else {
            break;
        }
        place += 1;
    }
    let mut words = arguments.from(place);
    let pairs = arguments.len() - place;
    if pairs == 0 || !pairs.is_multiple_of(2) {
        return Err(Refusal::Syntax);
    }
    let mut fields = Vec::with_capacity(pairs / 2);
    while let (Some(score), Some(member)) = (words.next(), words.next()) {
        score_of(score).ok_or(Refusal::NotFloat)?;
        fields.push((member, score));
    }
    let key = at(&arguments, 1)?;
    if !increment {
        let fields = without_repeats(fields, only_absent);
        return on_key(
            key,
            Op::PutFields {
                kind: KIND,
                fields,
                only_absent,
            },
            Render::Plain,
        );
    }
    match fields.as_slice() {
        [(field, score)] if !only_absent => {
            let by = score_of(score).ok_or(Refusal::NotFloat)?;
            on_key(
                key,
                Op::IncrementFieldFloat {
                    kind: KIND,
                    field,
                    by,
                },
                Render::ScoreText,
            )
        }
        [_] => Err(Refusal::Other(
            "ERR options NX and INCR of ZADD are not supported together",
        )),
        _ => Err(Refusal::Other(
            "ERR INCR option supports a single increment-element pair",
        )),
    }
}

/// A score from the bytes that are stored.
pub fn score_of(bytes: &[u8]) -> Option<f64> {
    bytes.try_into().ok().map(f64::from_le_bytes)
}

/// ZINCRBY key increment member
pub fn zincrby<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let by = parse_f64(at(&arguments, 2)?).ok_or(Refusal::NotFloat)?;
    let op = Op::IncrementFieldFloat {
        kind: KIND,
        field: at(&arguments, 3)?,
        by,
    };
    on_key(at(&arguments, 1)?, op, Render::ScoreText)
}

/// ZREM key member …
pub fn zrem<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let fields = arguments.from(2).collect();
    on_key(
        at(&arguments, 1)?,
        Op::RemoveFields { kind: KIND, fields },
        Render::Plain,
    )
}

/// ZSCORE key member
pub fn zscore<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(
        at(&arguments, 1)?,
        Op::Field {
            kind: KIND,
            field: at(&arguments, 2)?,
        },
        Render::Score,
    )
}

/// ZCARD key
pub fn zcard<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    on_key(at(&arguments, 1)?, Op::FieldCount { kind: KIND }, Render::Plain)
}

/// ZRANGEBYSCORE key min max `[WITHSCORES] [LIMIT offset count]`
pub fn zrangebyscore<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    by_score(&arguments, at(&arguments, 2)?, at(&arguments, 3)?, false)
}

/// ZREVRANGEBYSCORE key max min `[WITHSCORES] [LIMIT offset count]`
pub fn zrevrangebyscore<'a>(_: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    by_score(&arguments, at(&arguments, 3)?, at(&arguments, 2)?, true)
}

fn by_score<'a>(arguments: &Arguments<'a>, min: &[u8], max: &[u8], reverse: bool) -> Planned<'a> {
    let mut range = ScoreRange {
        min: bound(min)?,
        max: bound(max)?,
        reverse,
        with_scores: false,
        offset: 0,
        count: usize::MAX,
    };
    let mut options = arguments.from(4);
    while let Some(option) = options.next() {
        if is_word(option, "WITHSCORES") {
            range.with_scores = true;
        } else if is_word(option, "LIMIT") {
            let mut number = || {
                options
                    .next()
                    .ok_or(Refusal::Syntax)
                    .and_then(|n| parse_i64(n).ok_or(Refusal::NotInteger))
            };
            let (offset, count) = (number()?, number()?);
            // A negative offset gives nothing, a negative count everything.
            range.offset = usize::try_from(offset).unwrap_or(usize::MAX);
            range.count = usize::try_from(count).unwrap_or(usize::MAX);
        } else {
            return Err(Refusal::Syntax);
        }
    }
    on_key(
        at(arguments, 1)?,
        Op::AllFields { kind: KIND },
        Render::ScoreRange(range),
    )
}

fn bound(text: &[u8]) -> Result<Bound, Refusal> {
    let (exclusive, number) = match text {
        [b'(', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let value = parse_f64(number).ok_or(Refusal::Other("ERR min or max is not a float"))?;
    Ok(Bound { value, exclusive })
}
