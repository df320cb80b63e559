//! The connection itself: greeting, password, name, database.

use super::{Context, Plan, Planned, Refusal, at, integer, is_word, shown};
use crate::front::resp::number::parse_i64;
use crate::front::resp::reply::{Protocol, Writer};
use crate::front::resp::request::Arguments;
use crate::front::server::{ClientInfo, REDIS_VERSION};

const WRONG_PASSWORD: Refusal =
    Refusal::Other("WRONGPASS invalid username-password pair or user is disabled.");

/// HELLO `[protover [AUTH username password] [SETNAME clientname]]`
pub fn hello<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let mut protocol = context.state.protocol;
    if let Some(version) = arguments.get(1) {
        protocol = match parse_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Refusal::Other("NOPROTO unsupported protocol version")),
            None => {
                return Err(Refusal::Other(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let mut name = None;
    let mut options = arguments.from(2);
    while let Some(option) = options.next() {
        let unknown = || Refusal::Detailed(format!("ERR Syntax error in HELLO option '{}'", shown(option)));
        if is_word(option, "AUTH") {
            let (Some(user), Some(password)) = (options.next(), options.next()) else {
                return Err(unknown());
            };
            check_password(context, user, password)?;
        } else if is_word(option, "SETNAME") {
            name = Some(client_name(options.next().ok_or_else(unknown)?)?);
        } else {
            return Err(unknown());
        }
    }
    if !context.state.authenticated {
        return Err(Refusal::Other(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
             AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
             version at the same time",
        ));
    }
    context.state.protocol = protocol;
    let id = context.state.id;
    if let Some(info) = context.server.clients.get_mut(&id) {
        info.protocol = protocol.number();
        if let Some(name) = name {
            info.name = name;
        }
    }
    let Context { writer, state, .. } = context;
    writer.set_protocol(protocol);
    greeting(writer, protocol, state.id);
    Ok(Plan::Written)
}

fn greeting(writer: &mut Writer<'_>, protocol: Protocol, id: u64) {
    writer.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        writer.bulk(name.as_bytes());
        writer.bulk(value.as_bytes());
    }
    writer.bulk(b"proto");
    writer.integer(protocol.number());
    writer.bulk(b"id");
    writer.integer(i64::try_from(id).unwrap_or(i64::MAX));
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        writer.bulk(name.as_bytes());
        writer.bulk(value.as_bytes());
    }
    writer.bulk(b"modules");
    writer.array(0);
}

fn check_password(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), Refusal> {
    let right = match &context.server.settings.password {
        // Redis' default user without a password takes any.
        None => user == b"default",
        Some(expected) => user == b"default" && same(expected, password),
    };
    if !right {
        return Err(WRONG_PASSWORD);
    }
    context.state.authenticated = true;
    Ok(())
}

/// Compares without telling by its duration how much of a guess was right.
fn same(expected: &[u8], given: &[u8]) -> bool {
    let difference = expected
        .iter()
        .zip(given.iter().chain(std::iter::repeat(&0)))
        .fold(0_u8, |difference, (a, b)| difference | (a ^ b));
    difference == 0 && expected.len() == given.len()
}

/// AUTH `[username]` password
pub fn auth<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    match arguments.len() {
        2 => {
            if context.server.settings.password.is_none() {
                return Err(Refusal::Other(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            check_password(context, b"default", at(&arguments, 1)?)?;
        }
        3 => check_password(context, at(&arguments, 1)?, at(&arguments, 2)?)?,
        _ => return Err(Refusal::Syntax),
    }
    context.writer.ok();
    Ok(Plan::Written)
}

/// PING `[message]`
pub fn ping<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    if arguments.len() > 2 {
        return Err(Refusal::Arity(context.name.to_owned()));
    }
    let message = arguments.get(1);
    if context.state.is_subscribed() && context.state.protocol == Protocol::Resp2 {
        context.writer.array(2);
        context.writer.bulk(b"pong");
        context.writer.bulk(message.unwrap_or_default());
    } else if let Some(message) = message {
        context.writer.bulk(message);
    } else {
        context.writer.status("PONG");
    }
    Ok(Plan::Written)
}

/// ECHO message
pub fn echo<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    context.writer.bulk(at(&arguments, 1)?);
    Ok(Plan::Written)
}

/// QUIT
pub fn quit<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.writer.ok();
    Ok(Plan::Close)
}

/// RESET
pub fn reset<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    let id = context.state.id;
    context.server.channels.leave(id);
    context.state.reset(context.server.settings.password.is_none());
    if let Some(info) = context.server.clients.get_mut(&id) {
        info.name.clear();
        info.database = 0;
        info.protocol = Protocol::Resp2.number();
    }
    context.writer.set_protocol(Protocol::Resp2);
    context.writer.status("RESET");
    Ok(Plan::Written)
}

/// SELECT index
pub fn select<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let index = integer(at(&arguments, 1)?)?;
    let database = u8::try_from(index)
        .ok()
        .filter(|index| *index < context.server.settings.databases)
        .ok_or(Refusal::Other("ERR DB index is out of range"))?;
    context.state.database = database;
    let id = context.state.id;
    if let Some(info) = context.server.clients.get_mut(&id) {
        info.database = database;
    }
    context.writer.ok();
    Ok(Plan::Written)
}

/// A name that CLIENT LIST can print.
fn client_name(name: &[u8]) -> Result<String, Refusal> {
    if name.len() > 1_024 || !name.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::Other(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// CLIENT subcommand …
pub fn client<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let subcommand = at(&arguments, 1)?;
    let id = context.state.id;
    let word = subcommand.to_ascii_lowercase();
    let count = arguments.len();
    match (word.as_slice(), count) {
        (b"setname", 3) => {
            let name = client_name(at(&arguments, 2)?)?;
            if let Some(info) = context.server.clients.get_mut(&id) {
                info.name = name;
            }
            context.writer.ok();
        }
        (b"getname", 2) => match context.server.clients.get(&id) {
            Some(info) if !info.name.is_empty() => context.writer.bulk(info.name.as_bytes()),
            _ => context.writer.nil(),
        },
        (b"setinfo", 4) => {
            set_info(context, at(&arguments, 2)?, at(&arguments, 3)?)?;
            context.writer.ok();
        }
        (b"id", 2) => context.writer.integer(i64::try_from(id).unwrap_or(i64::MAX)),
        (b"info", 2) => {
            let line = context
                .server
                .clients
                .get(&id)
                .map(|info| describe(id, info, context.now_ms));
            context.writer.verbatim(&line.unwrap_or_default());
        }
        (b"list", _) => {
            let now = context.now_ms;
            let lines: String = context
                .server
                .clients
                .iter()
                .map(|(id, info)| describe(*id, info, now))
                .collect();
            context.writer.verbatim(&lines);
        }
        (b"no-evict" | b"no-touch", 3) => context.writer.ok(),
        (b"setname" | b"getname" | b"setinfo" | b"id" | b"info" | b"no-evict" | b"no-touch", _) => {
            return Err(Refusal::Arity(format!(
                "client|{}",
                String::from_utf8_lossy(&word)
            )));
        }
        _ => {
            return Err(Refusal::Subcommand {
                command: "CLIENT",
                name: shown(subcommand),
            });
        }
    }
    Ok(Plan::Written)
}

fn set_info(context: &mut Context<'_>, attribute: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let id = context.state.id;
    let Some(info) = context.server.clients.get_mut(&id) else {
        return Ok(());
    };
    if value.len() > 256 || !value.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::Detailed(format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            shown(attribute)
        )));
    }
    let value = String::from_utf8_lossy(value).into_owned();
    if is_word(attribute, "lib-name") {
        info.library = value;
    } else if is_word(attribute, "lib-ver") {
        info.library_version = value;
    } else {
        return Err(Refusal::Detailed(format!(
            "ERR Unrecognized option '{}'",
            shown(attribute)
        )));
    }
    Ok(())
}

fn describe(id: u64, info: &ClientInfo, now_ms: u64) -> String {
    format!(
        "id={id} addr={} laddr={} name={} age={} idle={} flags=N db={} lib-name={} lib-ver={} user=default \
         resp={}\n",
        info.address,
        info.local,
        info.name,
        now_ms.saturating_sub(info.since_ms) / 1_000,
        now_ms.saturating_sub(info.mailbox.active_ms()) / 1_000,
        info.database,
        info.library,
        info.library_version,
        info.protocol,
    )
}
