//! What all connections of the front share.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::mailbox::Mailbox;
use super::resp::command::script::Scripts;
use super::resp::pubsub::Channels;
use super::resp::request::Limits;
use super::stats::Stats;

/// The version of Redis whose behaviour is followed; clients choose features by it.
pub const REDIS_VERSION: &str = "7.0.15";

/// Settings that connections need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The password of AUTH; none means that nobody has to give one.
    pub password: Option<Vec<u8>>,
    /// Bounds of a RESP request.
    pub limits: Limits,
    /// Bytes of replies after which a connection sends before it goes on.
    pub flush_bytes: usize,
    /// Bytes of replies that one connection may have waiting; above, it is cut off.
    pub output_limit: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Seconds after which an idle connection is ended; 0 for never.
    pub idle_seconds: u64,
    /// Number of databases for SELECT.
    pub databases: u8,
    /// The memory limit, bytes; 0 for none. For INFO and CONFIG GET only: the core keeps it.
    pub memory_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            password: None,
            limits: Limits::default(),
            flush_bytes: 64 << 10,
            output_limit: 32 << 20,
            max_connections: 10_000,
            idle_seconds: 0,
            databases: 16,
            memory_limit: 0,
        }
    }
}

/// What CLIENT LIST says of a connection.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// `address:port`, or the socket's path.
    pub address: String,
    /// The address it was accepted on.
    pub local: String,
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
    /// The database.
    pub database: u8,
    /// 2 or 3.
    pub protocol: i64,
    /// Wall time of the connection's start, milliseconds.
    pub since_ms: u64,
    /// The last command.
    pub last_command: &'static str,
    /// Reaches the connection.
    pub mailbox: Rc<Mailbox>,
}

/// Shared state of the front; one thread owns it.
#[derive(Debug)]
pub struct Server {
    /// Settings.
    pub settings: Settings,
    /// Counters.
    pub stats: Stats,
    /// Scripts that clients have loaded.
    pub scripts: Scripts,
    /// Publish and subscribe.
    pub channels: Channels,
    /// Connections by id.
    pub clients: BTreeMap<u64, ClientInfo>,
    /// CONFIG SET notify-keyspace-events, as a client would read it back.
    pub key_events: String,
    /// Wall time of the start, milliseconds.
    pub started_ms: u64,
    /// This process' id, 40 hexadecimal digits, for CLUSTER and INFO.
    pub run_id: String,
    /// Bytes that sessions take, as last reported by the core.
    pub used_memory: usize,
    next_client: u64,
}

impl Server {
    /// A front without connections.
    pub fn new(settings: Settings, run_id: String, started_ms: u64) -> Self {
        Self {
            settings,
            stats: Stats {
                commands: vec![0; super::resp::command::TABLE.len()],
                ..Stats::default()
            },
            scripts: Scripts::default(),
            channels: Channels::default(),
            clients: BTreeMap::new(),
            key_events: String::new(),
            started_ms,
            run_id,
            used_memory: 0,
            next_client: 1,
        }
    }

    /// Takes a connection into the list; `None` at the limit.
    pub fn admit(&mut self, address: String, local: String, now_ms: u64) -> Option<(u64, Rc<Mailbox>)> {
        if self.clients.len() >= self.settings.max_connections {
            self.stats.connections_refused += 1;
            return None;
        }
        let id = self.next_client;
        self.next_client += 1;
        let mailbox = Rc::new(Mailbox::new(self.settings.output_limit));
        self.clients.insert(
            id,
            ClientInfo {
                address,
                local,
                name: String::new(),
                library: String::new(),
                library_version: String::new(),
                database: 0,
                protocol: 2,
                since_ms: now_ms,
                last_command: "NULL",
                mailbox: Rc::clone(&mailbox),
            },
        );
        self.stats.connections_accepted += 1;
        self.stats.connections_open += 1;
        Some((id, mailbox))
    }

    /// Takes a connection off the list.
    pub fn dismiss(&mut self, id: u64) {
        if self.clients.remove(&id).is_some() {
            self.stats.connections_open -= 1;
        }
        self.channels.leave(id);
    }
}
