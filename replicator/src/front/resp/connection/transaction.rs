//! MULTI and EXEC: what a connection queues, and how the answers of one transaction become its reply.

use std::ops::Range;

use super::super::command::{Combine, Context, Plan, Refusal, Spec};
use super::super::render::Render;
use super::super::reply::Writer;
use super::super::request::Arguments;
use super::{Executor, Finish, write_combined};
use crate::core::{Command, Reply};
use crate::front::Backend;
use crate::front::server::Server;

/// Bytes of commands that one MULTI may queue.
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Commands that one MULTI may queue.
const MAX_QUEUED: usize = 4_096;

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Queue {
    requests: Vec<Queued>,
    bytes: usize,
    broken: bool,
}

impl Queue {
    /// Whether a command was refused, so that EXEC has to be.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Notes that a command was refused.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }
}

/// A queued command.
#[derive(Debug)]
struct Queued {
    spec: &'static Spec,
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Queued {
    fn new(spec: &'static Spec, arguments: &Arguments<'_>) -> Self {
        let mut bytes = Vec::with_capacity(arguments.total_bytes());
        let mut ranges = Vec::with_capacity(arguments.len());
        for argument in arguments.from(0) {
            let start = bytes.len();
            bytes.extend_from_slice(argument);
            ranges.push(start..bytes.len());
        }
        Self { spec, bytes, ranges }
    }

    fn arguments(&self) -> Arguments<'_> {
        Arguments::new(&self.bytes, &self.ranges)
    }
}

/// One command's share of the reply to EXEC.
#[derive(Debug)]
pub(super) enum Part {
    /// A reply that needed nothing from the core.
    Encoded(Vec<u8>),
    /// The next answer.
    One(Render),
    /// The next so many answers.
    Several(usize, Combine),
}

impl Executor {
    /// Queues a command for EXEC.
    pub(super) fn enqueue(
        &mut self,
        server: &mut Server,
        spec: &'static Spec,
        arguments: &Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        let Some(queue) = &mut self.state.queue else {
            return;
        };
        queue.bytes += arguments.total_bytes();
        if queue.bytes > MAX_QUEUED_BYTES || queue.requests.len() >= MAX_QUEUED {
            queue.requests.clear();
            self.refuse(
                server,
                out,
                &Refusal::Other("ERR transaction exceeds the size limit"),
            );
            return;
        }
        queue.requests.push(Queued::new(spec, arguments));
        Writer::new(out, self.state.protocol).status("QUEUED");
    }

    /// EXEC: everything that needs the core becomes one transaction, the rest is answered here.
    pub(super) fn exec(&mut self, server: &mut Server, backend: &mut Backend<'_>, out: &mut Vec<u8>) {
        let queue = self.state.queue.take().unwrap_or_default();
        let watches = std::mem::take(&mut self.state.watches);
        let mut parts = Vec::with_capacity(queue.requests.len());
        let mut steps = Vec::new();
        for queued in &queue.requests {
            let mut encoded = Vec::new();
            let writer = Writer::new(&mut encoded, self.state.protocol);
            let mut context = Context {
                state: &mut self.state,
                server,
                writer,
                now_ms: backend.wall_ms(),
                name: queued.spec.name,
            };
            let plan = (queued.spec.handler)(&mut context, queued.arguments());
            let part = match plan {
                Ok(Plan::One(Command::Key { key, op }, render)) => {
                    steps.push((key, op));
                    Part::One(render)
                }
                Ok(Plan::One(Command::Transaction { steps: inner, .. }, render)) => {
                    let count = inner.len();
                    steps.extend(inner);
                    Part::Several(count, Combine::First(render))
                }
                Ok(Plan::Many(commands, combine)) => {
                    let before = steps.len();
                    steps.extend(commands.into_iter().filter_map(|command| match command {
                        Command::Key { key, op } => Some((key, op)),
                        _ => None,
                    }));
                    Part::Several(steps.len() - before, combine)
                }
                Ok(Plan::Written) => Part::Encoded(encoded),
                Ok(_) => {
                    encoded.clear();
                    Writer::new(&mut encoded, self.state.protocol)
                        .error("ERR Command not allowed inside a transaction");
                    Part::Encoded(encoded)
                }
                Err(refusal) => {
                    encoded.clear();
                    Writer::new(&mut encoded, self.state.protocol).error(refusal.to_string());
                    Part::Encoded(encoded)
                }
            };
            parts.push(part);
        }
        if steps.is_empty() && watches.is_empty() {
            write_exec(
                &parts,
                vec![Reply::Array(Vec::new())],
                &mut Writer::new(out, self.state.protocol),
            );
            return;
        }
        let watches = watches
            .iter()
            .map(|(key, token)| (key.as_slice(), *token))
            .collect();
        let command = Command::Transaction { watches, steps };
        self.ask(server, backend, &[command], Finish::Exec(parts), out);
    }
}

/// Writes the reply to EXEC.
pub(super) fn write_exec(parts: &[Part], mut answers: Vec<Reply>, out: &mut Writer<'_>) {
    let answers = match answers.pop() {
        Some(Reply::Array(answers)) => answers,
        Some(Reply::Error(error)) => return out.error(error.to_string()),
        _ => return out.nil_array(),
    };
    let mut rest = answers.as_slice();
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count.min(rest.len()));
        rest = left;
        taken
    };
    out.array(parts.len());
    for part in parts {
        match part {
            Part::Encoded(encoded) => out.encoded(encoded),
            Part::One(render) => render.write(take(1).first().unwrap_or(&Reply::Nil), out),
            Part::Several(count, combine) => write_combined(*combine, take(*count), out),
        }
    }
}
