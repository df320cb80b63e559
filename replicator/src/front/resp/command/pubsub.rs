//! Publish and subscribe, within this process: Spring's and Redisson's listeners, StackExchange.Redis' bookkeeping.

use super::{Context, Plan, Planned, Refusal, at, is_word, shown};
use crate::front::resp::pubsub::Place;
use crate::front::resp::request::Arguments;

fn join<'a>(context: &mut Context<'_>, arguments: &Arguments<'a>, place: Place) -> Planned<'a> {
    let id = context.state.id;
    let Some(mailbox) = context
        .server
        .clients
        .get(&id)
        .map(|info| std::rc::Rc::clone(&info.mailbox))
    else {
        return Err(Refusal::Other("ERR the connection is closing"));
    };
    for name in arguments.from(1) {
        if !context
            .server
            .channels
            .join(id, &mailbox, context.state.protocol, place, name)
        {
            return Err(Refusal::Other("ERR too many subscriptions on this connection"));
        }
        let count = context.server.channels.count(id);
        context.state.subscriptions = count;
        context.writer.push(3);
        context.writer.bulk(match place {
            Place::Channel => b"subscribe".as_slice(),
            Place::Pattern => b"psubscribe",
        });
        context.writer.bulk(name);
        context.writer.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    Ok(Plan::Written)
}

fn part<'a>(context: &mut Context<'_>, arguments: &Arguments<'_>, place: Place) -> Plan<'a> {
    let id = context.state.id;
    let verb = match place {
        Place::Channel => b"unsubscribe".as_slice(),
        Place::Pattern => b"punsubscribe",
    };
    let names: Vec<Vec<u8>> = if arguments.len() > 1 {
        arguments.from(1).map(<[u8]>::to_vec).collect()
    } else {
        context.server.channels.joined(id, place)
    };
    if names.is_empty() {
        context.writer.push(3);
        context.writer.bulk(verb);
        context.writer.nil();
        let count = context.server.channels.count(id);
        context.writer.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    for name in names {
        context.server.channels.part(id, place, &name);
        let count = context.server.channels.count(id);
        context.writer.push(3);
        context.writer.bulk(verb);
        context.writer.bulk(&name);
        context.writer.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    context.state.subscriptions = context.server.channels.count(id);
    Plan::Written
}

/// SUBSCRIBE channel …
pub fn subscribe<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    join(context, &arguments, Place::Channel)
}

/// PSUBSCRIBE pattern …
pub fn psubscribe<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    join(context, &arguments, Place::Pattern)
}

/// UNSUBSCRIBE `[channel …]`
pub fn unsubscribe<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    Ok(part(context, &arguments, Place::Channel))
}

/// PUNSUBSCRIBE `[pattern …]`
pub fn punsubscribe<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    Ok(part(context, &arguments, Place::Pattern))
}

/// PUBLISH channel message
pub fn publish<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let reached = context
        .server
        .channels
        .publish(at(&arguments, 1)?, at(&arguments, 2)?);
    context.writer.integer(i64::try_from(reached).unwrap_or(i64::MAX));
    Ok(Plan::Written)
}

/// PUBSUB CHANNELS|NUMSUB|NUMPAT …
pub fn pubsub<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let subcommand = at(&arguments, 1)?;
    let channels = &context.server.channels;
    let writer = &mut context.writer;
    if is_word(subcommand, "CHANNELS") && arguments.len() <= 3 {
        let pattern = arguments.get(2).unwrap_or(b"*");
        let names: Vec<&[u8]> = channels
            .channels()
            .filter(|name| crate::store::glob::matches(pattern, name))
            .collect();
        writer.array(names.len());
        for name in names {
            writer.bulk(name);
        }
    } else if is_word(subcommand, "NUMSUB") {
        writer.map(arguments.len() - 2);
        for name in arguments.from(2) {
            writer.bulk(name);
            writer.integer(i64::try_from(channels.subscribers(name)).unwrap_or(i64::MAX));
        }
    } else if is_word(subcommand, "NUMPAT") && arguments.len() == 2 {
        writer.integer(i64::try_from(channels.patterns()).unwrap_or(i64::MAX));
    } else {
        return Err(Refusal::Subcommand {
            command: "PUBSUB",
            name: shown(subcommand),
        });
    }
    Ok(Plan::Written)
}
