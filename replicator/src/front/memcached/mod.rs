//! memcached's protocols: text, meta and binary, on the same entries as Redis' database 0.
//!
//! The first byte of a connection tells binary from text, as memcached does it; meta commands are lines like those of
//! the text protocol.

mod binary;
mod meta;
mod store;
mod text;

use crate::core::{Client, Command, Reply, TicketId};
use crate::front::mailbox::Completion;
use crate::front::server::Server;
use crate::front::waiting::Waiting;
use crate::front::{Advanced, Backend, Dialect, Progress};

pub use store::{Expiry, VERSION};

/// The longest key that memcached takes.
const MAX_KEY: usize = 250;
/// The longest command line: enough for a hundred of the longest keys.
const MAX_LINE: usize = 32 << 10;

/// What one command came to.
enum Handled {
    /// So many bytes are done with.
    Consumed(usize),
    /// More input is needed: at least so many bytes in all.
    Incomplete(usize),
    /// So many bytes are done with, so many more have to be dropped as they come.
    Swallow(usize, usize),
    /// The connection ends.
    Close,
}

/// How the answers of the core become a reply.
#[derive(Debug)]
enum Finish {
    Text(text::Finish),
    Meta(meta::Finish),
    Binary(binary::Finish),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Text,
    Binary,
}

/// One memcached connection.
#[derive(Debug)]
pub struct Connection {
    form: Form,
    client: Client,
    waiting: Option<Waiting<Finish>>,
    /// Bytes of a value above the limit that are still to come.
    swallow: usize,
    closing: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            form: Form::Unknown,
            client: Client::new(),
            waiting: None,
            swallow: 0,
            closing: false,
        }
    }
}

impl Dialect for Connection {
    fn advance(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Advanced {
        let mut consumed = 0;
        let mut requests = 0;
        let progress = loop {
            if let Some(ticket) = self.waits_for() {
                break Progress::Wait(ticket);
            }
            if self.closing {
                break Progress::Close;
            }
            if out.len() >= server.settings.flush_bytes {
                break Progress::Flush;
            }
            let rest = input.get(consumed..).unwrap_or_default();
            if self.swallow > 0 {
                let dropped = self.swallow.min(rest.len());
                self.swallow -= dropped;
                consumed += dropped;
                if self.swallow > 0 {
                    break Progress::Read { total: 1 };
                }
                continue;
            }
            let Some(first) = rest.first() else {
                break Progress::Read { total: 1 };
            };
            if self.form == Form::Unknown {
                self.form = if *first == binary::REQUEST {
                    Form::Binary
                } else {
                    Form::Text
                };
            }
            let mut work = Work {
                connection: self,
                server,
                backend,
                out,
            };
            let handled = match work.connection.form {
                Form::Binary => binary::handle(&mut work, rest),
                Form::Text | Form::Unknown => text::handle(&mut work, rest),
            };
            match handled {
                Handled::Consumed(bytes) => {
                    consumed += bytes;
                    requests += 1;
                }
                Handled::Incomplete(total) => break Progress::Read { total },
                Handled::Swallow(bytes, more) => {
                    consumed += bytes;
                    requests += 1;
                    self.swallow = more;
                }
                Handled::Close => self.closing = true,
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
        if let Some(observed) = &completion.observed {
            self.client.observe(observed);
        }
        let Some(waiting) = &mut self.waiting else { return };
        waiting.answer(completion);
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.ticket().is_none()) {
            let (answers, finish) = waiting.into_answers();
            Work {
                connection: self,
                server,
                backend,
                out,
            }
            .finish(&finish, &answers);
        }
    }
}

impl Connection {
    fn waits_for(&self) -> Option<TicketId> {
        self.waiting.as_ref().and_then(Waiting::ticket)
    }
}

/// All that a command needs.
struct Work<'w, 'b> {
    connection: &'w mut Connection,
    server: &'w mut Server,
    backend: &'w mut Backend<'b>,
    out: &'w mut Vec<u8>,
}

impl Work<'_, '_> {
    fn now_ms(&self) -> u64 {
        self.backend.wall_ms()
    }

    fn count(&mut self, name: &'static str) {
        *self.server.stats.memcached.entry(name).or_default() += 1;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The longest value.
    fn max_value(&self) -> usize {
        self.server.settings.limits.argument
    }

    /// Asks the core, and writes the reply as soon as all answers are there.
    fn ask(&mut self, commands: &[Command<'_>], finish: Finish) {
        let client = &mut self.connection.client;
        let answers = commands
            .iter()
            .map(|command| self.backend.execute(client, command));
        let waiting = Waiting::new(answers, finish);
        if waiting.ticket().is_some() {
            self.connection.waiting = Some(waiting);
        } else {
            let (answers, finish) = waiting.into_answers();
            self.finish(&finish, &answers);
        }
    }

    fn finish(&mut self, finish: &Finish, answers: &[Reply]) {
        for answer in answers {
            match answer {
                Reply::Item { .. } => self.server.stats.hits += 1,
                Reply::Error(error) => self.server.stats.count_error(error.to_string().as_bytes()),
                _ => {}
            }
        }
        match finish {
            Finish::Text(finish) => finish.write(answers, self.out),
            Finish::Meta(finish) => finish.write(answers, self.out),
            Finish::Binary(finish) => finish.write(answers, self.out),
        }
    }
}

#[cfg(test)]
mod tests;
