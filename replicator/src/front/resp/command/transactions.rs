//! MULTI, EXEC, DISCARD, WATCH, UNWATCH. What is queued runs at once at the home of the keys' one group.

use super::{Context, Plan, Planned, Refusal};
use crate::front::resp::request::Arguments;

/// MULTI
pub fn multi<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    if context.state.queue.is_some() {
        return Err(Refusal::Other("ERR MULTI calls can not be nested"));
    }
    context.state.queue = Some(super::super::connection::Queue::default());
    context.writer.ok();
    Ok(Plan::Written)
}

/// EXEC
pub fn exec<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    match &context.state.queue {
        None => Err(Refusal::Other("ERR EXEC without MULTI")),
        Some(queue) if queue.is_broken() => {
            context.state.leave_transaction();
            Err(Refusal::Other(
                "EXECABORT Transaction discarded because of previous errors.",
            ))
        }
        Some(_) => Ok(Plan::Exec),
    }
}

/// DISCARD
pub fn discard<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    if context.state.queue.is_none() {
        return Err(Refusal::Other("ERR DISCARD without MULTI"));
    }
    context.state.leave_transaction();
    context.writer.ok();
    Ok(Plan::Written)
}

/// WATCH key …
pub fn watch<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    if context.state.queue.is_some() {
        return Err(Refusal::Other("ERR WATCH inside MULTI is not allowed"));
    }
    if context.state.watches.len() + arguments.len() - 1 > super::super::connection::MAX_WATCHES {
        return Err(Refusal::Other("ERR too many watched keys"));
    }
    Ok(Plan::Watch(arguments.from(1).collect()))
}

/// UNWATCH
pub fn unwatch<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.state.watches.clear();
    context.writer.ok();
    Ok(Plan::Written)
}
