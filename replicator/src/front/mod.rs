//! What applications speak to: RESP2, RESP3 and the memcached dialects.
//!
//! A connection is a state machine over bytes: it does no I/O, so that tests and fuzzers drive the same code that the
//! sockets do.

pub mod mailbox;
pub mod memcached;
pub mod resp;
pub mod server;
pub mod stats;
pub mod testing;
pub mod waiting;

use self::mailbox::Completion;
use self::server::Server;
use crate::core::{Client, Command, Core, Executed, Lookup, Now, Output, Reply, TicketId};

/// The way from a connection into the replication core, for the time of one drained read.
#[derive(Debug)]
pub struct Backend<'a> {
    core: &'a mut Core,
    now: Now,
    outputs: &'a mut Vec<Output>,
    asked: bool,
    tickets: Vec<TicketId>,
}

impl<'a> Backend<'a> {
    /// Everything that is asked through it happens at `now`; what the core wants done is appended to `outputs`.
    pub fn new(core: &'a mut Core, now: Now, outputs: &'a mut Vec<Output>) -> Self {
        Self {
            core,
            now,
            outputs,
            asked: false,
            tickets: Vec::new(),
        }
    }

    /// The time, milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.now.wall_ms
    }

    /// Looks a string up without copying it.
    pub fn get(&mut self, client: &mut Client, key: &[u8]) -> Lookup<'_> {
        self.core.get(self.now, client, key)
    }

    /// Asks for anything else.
    ///
    /// # Errors
    /// The answer comes later, under this ticket.
    pub fn execute(&mut self, client: &mut Client, command: &Command<'_>) -> Result<Reply, TicketId> {
        self.asked = true;
        match self.core.execute(self.now, client, command, self.outputs) {
            Executed::Done(reply) => Ok(reply),
            Executed::Pending(ticket) => {
                self.tickets.push(ticket);
                Err(ticket)
            }
        }
    }

    /// Gives the tickets that were issued, and tells whether the core was asked for more than look-ups: then it may
    /// have something to send.
    pub fn finish(self, mut issued: impl FnMut(TicketId)) -> bool {
        self.tickets.into_iter().for_each(&mut issued);
        self.asked
    }
}

/// Where a connection stands after it has worked on its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It needs more input: at least `total` bytes together with what it left over.
    Read {
        /// Bytes that the next request has at least.
        total: usize,
    },
    /// It waits for this ticket; what is left of the input has to wait too.
    Wait(TicketId),
    /// The replies have to be sent before it goes on.
    Flush,
    /// Send the replies, then end.
    Close,
}

/// How far a connection got with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advanced {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Requests that were answered or begun.
    pub requests: u64,
    /// What has to happen next.
    pub progress: Progress,
}

/// A protocol that clients speak: one connection's side of it.
pub trait Dialect {
    /// Works on as much of the input as it can, and writes the replies behind what `out` holds.
    fn advance(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Advanced;

    /// Takes a reply that had to wait. What is left of the input has to be given to [`Dialect::advance`] afterwards.
    fn complete(
        &mut self,
        server: &mut Server,
        backend: &mut Backend<'_>,
        completion: Completion,
        out: &mut Vec<u8>,
    );

    /// Whether it may be silent for long, listening to messages.
    fn is_subscribed(&self) -> bool {
        false
    }
}
