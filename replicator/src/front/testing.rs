//! Connections without sockets, for tests and fuzzers: bytes in, bytes out, against a core of one member.

use std::collections::BTreeSet;

use crate::core::{Config, Core, Input, NodeId, NodeInfo, Now, Output};
use crate::front::resp::connection::Connection;
use crate::front::server::{Server, Settings};
use crate::front::{Backend, Dialect, Progress, memcached};

/// One member's core and front, with a clock that stands still unless it is moved.
#[derive(Debug)]
pub struct Harness {
    core: Core,
    server: Server,
    now: Now,
    outputs: Vec<Output>,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Harness {
    /// A front with these settings, of a member that knows that it is alone.
    pub fn new(settings: Settings) -> Self {
        let mut harness = Self::member(settings, 1);
        harness.step(&Input::Discovered {
            addresses: &BTreeSet::new(),
        });
        harness.step(&Input::Tick);
        harness
    }

    /// A member that has not been told yet whether there are others.
    pub fn member(settings: Settings, id: u64) -> Self {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 0,
        };
        let me = NodeInfo {
            id: NodeId(id),
            name: format!("test-{id}"),
            address: "127.0.0.1:0".to_owned(),
            zone: String::new(),
            machine: String::new(),
            started_ms: now.wall_ms,
        };
        let config = Config {
            discovery_ms: 0,
            // Quick to make: fuzzers make thousands of members.
            partitions: 16,
            ring: 64,
            ..Config::default()
        };
        Self {
            core: Core::new(config, me, 7, now),
            server: Server::new(settings, "0".repeat(40), now.wall_ms),
            now,
            outputs: Vec::new(),
        }
    }

    /// Tells the core what happened.
    pub fn step(&mut self, input: &Input<'_>) {
        self.core.step(self.now, input, &mut self.outputs);
    }

    /// What the core wants done since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The front's shared state.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Moves the clock.
    pub fn pass(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.mono_ms += ms;
        self.step(&Input::Tick);
    }

    /// A new RESP connection.
    pub fn connect(&mut self) -> Connection {
        let admitted = self
            .server
            .admit("test".to_owned(), "127.0.0.1:6379".to_owned(), self.now.wall_ms);
        Connection::new(admitted.map_or(0, |(id, _)| id), &self.server)
    }

    /// What a fresh RESP connection answers.
    pub fn resp(&mut self, input: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        self.feed(&mut connection, input, usize::MAX)
    }

    /// What a fresh memcached connection answers.
    pub fn memcached(&mut self, input: &[u8]) -> Vec<u8> {
        self.memcached_in_pieces(input, usize::MAX)
    }

    /// What a fresh memcached connection answers to input that comes in pieces.
    pub fn memcached_in_pieces(&mut self, input: &[u8], step: usize) -> Vec<u8> {
        self.feed(&mut memcached::Connection::default(), input, step)
    }

    /// Feeds a connection as its socket would, and gives all that it answers. Input behind the end of the connection is
    /// left unread.
    pub fn feed(&mut self, connection: &mut impl Dialect, input: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut buffer = Vec::new();
        for piece in input.chunks(step.clamp(1, input.len().max(1))) {
            buffer.extend_from_slice(piece);
            loop {
                let mut backend = Backend::new(&mut self.core, self.now, &mut self.outputs);
                let mut replies = Vec::new();
                let advanced = connection.advance(&mut self.server, &mut backend, &buffer, &mut replies);
                backend.finish(|_| {});
                buffer.drain(..advanced.consumed.min(buffer.len()));
                out.append(&mut replies);
                match advanced.progress {
                    Progress::Flush => {}
                    Progress::Read { .. } => break,
                    Progress::Close | Progress::Wait(_) => return out,
                }
            }
        }
        out
    }
}
