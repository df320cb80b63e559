//! One RESP connection: bytes in, bytes out, and what it remembers in between.

use super::command::rewrite::{Rewritten, is_unneeded};
use super::command::{self, Combine, Context, Plan, Refusal, Spec};
use super::render::Render;
use super::reply::{Protocol, Writer};
use super::request::{Arguments, Parsed, Parser};
use crate::core::{Client, Command, CommandError, Lookup, Op, Reply, TicketId};
use crate::front::mailbox::Completion;
use crate::front::server::Server;
use crate::front::waiting::Waiting;
use crate::front::{Advanced, Backend, Dialect, Progress};

mod transaction;

pub use transaction::Queue;
use transaction::{Part, write_exec};

/// Keys that one connection may watch.
pub const MAX_WATCHES: usize = 1_024;

/// What a connection remembers between commands, as far as commands may see it.
#[derive(Debug)]
pub struct State {
    /// Its number.
    pub id: u64,
    /// The version it speaks.
    pub protocol: Protocol,
    /// The database it has selected.
    pub database: u8,
    /// Whether it may do anything but AUTH.
    pub authenticated: bool,
    /// What MULTI has queued.
    pub queue: Option<Queue>,
    /// Watched keys and their tokens.
    pub watches: Vec<(Vec<u8>, i64)>,
    /// Channels and patterns it listens to.
    pub subscriptions: usize,
}

impl State {
    /// Whether it listens to anything.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions > 0
    }

    /// Forgets what was queued and watched.
    pub fn leave_transaction(&mut self) {
        self.queue = None;
        self.watches.clear();
    }

    /// Makes the connection as it was at its start.
    pub fn reset(&mut self, authenticated: bool) {
        self.leave_transaction();
        self.protocol = Protocol::Resp2;
        self.database = 0;
        self.subscriptions = 0;
        self.authenticated = authenticated;
    }
}

/// What to do with the answers.
#[derive(Debug)]
enum Finish {
    One(Render),
    Combine(Combine),
    Watch(Vec<Vec<u8>>),
    Exec(Vec<Part>),
    Extend {
        key: Vec<u8>,
        value: Vec<u8>,
        by_ms: i64,
    },
}

/// One RESP connection.
#[derive(Debug)]
pub struct Connection {
    /// Apart from the rest: it lends the arguments while the rest is changed.
    parser: Parser,
    executor: Executor,
}

/// A connection without its parser.
#[derive(Debug)]
struct Executor {
    state: State,
    client: Client,
    waiting: Option<Waiting<Finish>>,
    rewritten: Rewritten,
    closing: bool,
}

impl Connection {
    /// A connection that has said nothing yet.
    pub fn new(id: u64, server: &Server) -> Self {
        let state = State {
            id,
            protocol: Protocol::Resp2,
            database: 0,
            authenticated: server.settings.password.is_none(),
            queue: None,
            watches: Vec::new(),
            subscriptions: 0,
        };
        Self {
            parser: Parser::new(server.settings.limits),
            executor: Executor {
                state,
                client: Client::new(),
                waiting: None,
                rewritten: Rewritten::default(),
                closing: false,
            },
        }
    }
}

impl Dialect for Connection {
    fn is_subscribed(&self) -> bool {
        self.executor.state.is_subscribed()
    }

    fn advance(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Advanced {
        let Self { parser, executor } = self;
        let mut consumed = 0;
        let mut requests = 0;
        let progress = loop {
            if let Some(ticket) = executor.waits_for() {
                break Progress::Wait(ticket);
            }
            if executor.closing {
                break Progress::Close;
            }
            if out.len() >= server.settings.flush_bytes {
                break Progress::Flush;
            }
            let rest = input.get(consumed..).unwrap_or_default();
            match parser.parse(rest, executor.state.authenticated) {
                Ok(Parsed::Incomplete { total }) => break Progress::Read { total },
                Ok(Parsed::Skip { consumed: skipped }) => consumed += skipped,
                Ok(Parsed::Request { consumed: taken }) => {
                    executor.request(server, backend, &parser.arguments(rest), out);
                    consumed += taken;
                    requests += 1;
                }
                Ok(Parsed::TooLarge { consumed: taken }) => {
                    consumed += taken;
                    requests += 1;
                    executor.refuse(server, out, &Refusal::Other("ERR request exceeds the size limit"));
                }
                Err(error) => {
                    server.stats.protocol_errors += 1;
                    executor.refuse(server, out, &Refusal::Detailed(format!("ERR {error}")));
                    executor.closing = true;
                }
            }
        };
        Advanced {
            consumed,
            requests,
            progress,
        }
    }

    fn complete(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        completion: Completion,
        out: &mut Vec<u8>,
    ) {
        self.executor.complete(server, backend, completion, out);
    }
}

impl Executor {
    fn complete(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        completion: Completion,
        out: &mut Vec<u8>,
    ) {
        if let Some(observed) = &completion.observed {
            self.client.observe(observed);
        }
        let Some(waiting) = &mut self.waiting else { return };
        waiting.answer(completion);
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.ticket().is_none()) {
            let (answers, finish) = waiting.into_answers();
            self.finish(server, backend, finish, answers, out);
        }
    }

    /// The ticket it waits for, if it waits.
    fn waits_for(&self) -> Option<TicketId> {
        self.waiting.as_ref().and_then(Waiting::ticket)
    }

    fn refuse(&mut self, server: &mut Server, out: &mut Vec<u8>, refusal: &Refusal) {
        if let Some(queue) = &mut self.state.queue {
            queue.break_off();
        }
        let text = refusal.to_string();
        server.stats.count_error(text.as_bytes());
        Writer::new(out, self.state.protocol).error(text);
    }

    fn request(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        arguments: &Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        match self.admit(server, arguments) {
            Ok(spec) => self.run(server, backend, spec, arguments, out),
            Err(refusal) => self.refuse(server, out, &refusal),
        }
    }

    /// Whether the command may run at all.
    fn admit(&mut self, server: &mut Server, arguments: &Arguments<'_>) -> Result<&'static Spec, Refusal> {
        let name = arguments.get(0).unwrap_or_default();
        let Some((place, spec)) = command::find(name) else {
            if self.state.authenticated {
                server.stats.count_unsupported(command::known_elsewhere(name));
            }
            return Err(unknown(name, arguments));
        };
        if let Some(count) = server.stats.commands.get_mut(place) {
            *count += 1;
        }
        if !spec.takes(arguments.len()) {
            return Err(Refusal::Arity(spec.name.to_owned()));
        }
        if !self.state.authenticated && !spec.flags.before_auth {
            return Err(Refusal::Other("NOAUTH Authentication required."));
        }
        if self.state.is_subscribed()
            && self.state.protocol == Protocol::Resp2
            && !spec.flags.while_subscribed
        {
            return Err(Refusal::Detailed(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                spec.name
            )));
        }
        if self.state.queue.is_some() && spec.flags.outside_multi {
            return Err(Refusal::Other("ERR Command not allowed inside a transaction"));
        }
        Ok(spec)
    }

    fn run(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        spec: &'static Spec,
        arguments: &Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        let mut rewritten = std::mem::take(&mut self.rewritten);
        let arguments = if is_unneeded(spec, self.state.database, arguments) {
            *arguments
        } else {
            rewritten.fill(spec, self.state.database, arguments);
            rewritten.arguments()
        };
        if self.state.queue.is_some() && !spec.flags.runs_in_multi {
            self.enqueue(server, spec, &arguments, out);
        } else {
            self.run_now(server, backend, spec, arguments, out);
        }
        self.rewritten = rewritten;
    }

    fn run_now(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        spec: &'static Spec,
        arguments: Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let writer = Writer::new(out, self.state.protocol);
        let mut context = Context {
            state: &mut self.state,
            server,
            writer,
            now_ms: backend.wall_ms(),
            name: spec.name,
        };
        match (spec.handler)(&mut context, arguments) {
            Err(refusal) => {
                // What a handler wrote before it refused is not sent.
                out.truncate(start);
                self.refuse(server, out, &refusal);
            }
            Ok(Plan::Written) => {}
            Ok(Plan::Close) => self.closing = true,
            Ok(Plan::One(Command::Key { key, op: Op::Get }, Render::Plain)) => {
                self.get(server, backend, key, out);
            }
            Ok(Plan::One(command, render)) => {
                self.ask(server, backend, &[command], Finish::One(render), out);
            }
            Ok(Plan::Many(commands, combine)) => {
                self.ask(server, backend, &commands, Finish::Combine(combine), out);
            }
            Ok(Plan::Watch(keys)) => {
                let finish = Finish::Watch(keys.iter().map(|key| key.to_vec()).collect());
                let commands: Vec<_> = keys
                    .into_iter()
                    .map(|key| Command::Key { key, op: Op::Watch })
                    .collect();
                self.ask(server, backend, &commands, finish, out);
            }
            Ok(Plan::Extend { key, value, by_ms }) => {
                let finish = Finish::Extend {
                    key: key.to_vec(),
                    value: value.to_vec(),
                    by_ms,
                };
                self.ask(
                    server,
                    backend,
                    &[Command::Key {
                        key,
                        op: Op::TimeToLive,
                    }],
                    finish,
                    out,
                );
            }
            Ok(Plan::Exec) => self.exec(server, backend, out),
        }
    }

    /// GET, the command that matters most: from the store into the output buffer.
    fn get(&mut self, server: &mut Server, backend: &mut Backend<'_>, key: &[u8], out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, self.state.protocol);
        match backend.get(&mut self.client, key) {
            Lookup::Found { value, .. } => {
                server.stats.hits += 1;
                writer.bulk(value);
            }
            Lookup::Missing => {
                server.stats.misses += 1;
                writer.nil();
            }
            Lookup::WrongType => {
                let text = CommandError::WrongType.to_string();
                server.stats.count_error(text.as_bytes());
                writer.error(text);
            }
            Lookup::Elsewhere => {
                self.ask(
                    server,
                    backend,
                    &[Command::Key { key, op: Op::Get }],
                    Finish::One(Render::Plain),
                    out,
                );
            }
        }
    }

    fn ask(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        commands: &[Command<'_>],
        finish: Finish,
        out: &mut Vec<u8>,
    ) {
        // The common case allocates nothing: one command, answered at once.
        if let ([command], Finish::One(render)) = (commands, &finish) {
            match backend.execute(&mut self.client, command) {
                Ok(reply) => self.write(server, *render, &reply, out),
                Err(ticket) => self.waiting = Some(Waiting::new([Err(ticket)], finish)),
            }
            return;
        }
        let answers = commands
            .iter()
            .map(|command| backend.execute(&mut self.client, command));
        let waiting = Waiting::new(answers, finish);
        if waiting.ticket().is_some() {
            self.waiting = Some(waiting);
        } else {
            let (answers, finish) = waiting.into_answers();
            self.finish(server, backend, finish, answers, out);
        }
    }

    fn write(&self, server: &mut Server, render: Render, reply: &Reply, out: &mut Vec<u8>) {
        match reply {
            Reply::Error(error) => server.stats.count_error(error.to_string().as_bytes()),
            Reply::Nil => server.stats.misses += 1,
            Reply::Bytes(_) => server.stats.hits += 1,
            _ => {}
        }
        render.write(reply, &mut Writer::new(out, self.state.protocol));
    }

    fn finish(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        finish: Finish,
        answers: Vec<Reply>,
        out: &mut Vec<u8>,
    ) {
        match finish {
            Finish::One(render) => {
                self.write(server, render, answers.first().unwrap_or(&Reply::Nil), out);
            }
            Finish::Combine(combine) => {
                write_combined(combine, &answers, &mut Writer::new(out, self.state.protocol));
            }
            Finish::Watch(keys) => {
                let mut writer = Writer::new(out, self.state.protocol);
                if let Some(error) = first_error(&answers) {
                    writer.error(error.to_string());
                    return;
                }
                for (key, answer) in keys.into_iter().zip(answers) {
                    if let Reply::Int(token) = answer
                        && !self.state.watches.iter().any(|(watched, _)| *watched == key)
                    {
                        self.state.watches.push((key, token));
                    }
                }
                writer.ok();
            }
            Finish::Exec(parts) => {
                write_exec(&parts, answers, &mut Writer::new(out, self.state.protocol));
            }
            Finish::Extend { key, value, by_ms } => match answers.first() {
                Some(Reply::Int(left @ 0..)) => {
                    let at_ms = backend
                        .wall_ms()
                        .saturating_add_signed(left.saturating_add(by_ms));
                    let op = Op::ExpireIfEquals { value: &value, at_ms };
                    let command = Command::Key { key: &key, op };
                    self.ask(server, backend, &[command], Finish::One(Render::Plain), out);
                }
                Some(error @ Reply::Error(_)) => self.write(server, Render::Plain, error, out),
                _ => Writer::new(out, self.state.protocol).integer(0),
            },
        }
    }
}

fn first_error(answers: &[Reply]) -> Option<&CommandError> {
    answers.iter().find_map(|answer| match answer {
        Reply::Error(error) => Some(error),
        _ => None,
    })
}

fn write_combined(combine: Combine, answers: &[Reply], out: &mut Writer<'_>) {
    if let Combine::Array(render) = combine {
        out.array(answers.len());
        for answer in answers {
            render.write(answer, out);
        }
        return;
    }
    if let Some(error) = first_error(answers) {
        out.error(error.to_string());
        return;
    }
    let numbers = answers.iter().map(|answer| match answer {
        Reply::Int(number) => *number,
        _ => 0,
    });
    match combine {
        Combine::Sum => out.integer(numbers.sum()),
        Combine::Any => out.integer(i64::from(numbers.into_iter().any(|number| number != 0))),
        Combine::Ok => out.ok(),
        Combine::First(render) | Combine::Array(render) => {
            render.write(answers.first().unwrap_or(&Reply::Nil), out);
        }
    }
}

/// Redis' answer to a command that it does not know.
fn unknown(name: &[u8], arguments: &Arguments<'_>) -> Refusal {
    const SHOWN: usize = 128;
    let mut words = String::new();
    for argument in arguments.from(1) {
        if words.len() >= SHOWN {
            break;
        }
        let length = argument.len().min(SHOWN - words.len());
        words.push('\'');
        words.push_str(&command::shown(argument.get(..length).unwrap_or_default()));
        words.push_str("' ");
    }
    Refusal::Detailed(format!(
        "ERR unknown command '{}', with args beginning with: {words}",
        command::shown(name)
    ))
}
