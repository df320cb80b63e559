//! A client of the upstream store: a Redis or Valkey server, or a cluster of them.
//!
//! Requests go over a few connections that are kept; one that failed is dropped. In a cluster the map of slots is
//! learnt from `MOVED`, as clients do. Every call is bounded in time.

mod resp;
mod url;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::resp::Value;
pub use self::url::Target;
use crate::core::{Fetched, Kind, Stored, UpstreamWrite};
use crate::front::resp::command::cluster::slot_of;

/// Connections to one server that are kept while nothing is asked.
pub const KEPT: usize = 16;
/// Times that a request follows a redirection.
const REDIRECTIONS: usize = 4;
/// Keys asked for at once by a scan.
const SCAN_COUNT: &str = "500";

type Words = Vec<Vec<u8>>;
/// Commands on one key.
type Keyed<'k> = (&'k [u8], Vec<Words>);
/// Fields and values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Why the upstream store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The connection.
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    /// An error reply.
    #[error("it answers: {0}")]
    Refused(String),
    /// A reply that makes no sense.
    #[error("it answers something unexpected to {0}")]
    Unexpected(&'static str),
}

/// A stream, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection to a server.
pub type Connection = BufReader<Box<dyn Stream>>;

/// See the module.
pub struct Store {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    /// Which server has a slot, as far as learnt.
    slots: RefCell<BTreeMap<u16, String>>,
    idle: RefCell<BTreeMap<String, Vec<Connection>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Store").field(&self.target).finish()
    }
}

impl Store {
    /// A client that has not connected yet. Each call takes `timeout` at most, per server asked.
    pub fn new(target: Target, tls: Option<(TlsConnector, ServerName<'static>)>, timeout: Duration) -> Self {
        Self {
            target,
            tls,
            timeout,
            slots: RefCell::default(),
            idle: RefCell::default(),
        }
    }

    /// The database that it is about.
    pub fn database(&self) -> u8 {
        self.target.database
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        let replies = self.call(&self.target.address(), &[words(&["PING"])]).await?;
        match replies.into_iter().next() {
            Some(Value::Error(text)) => Err(UpstreamError::Refused(text)),
            _ => Ok(()),
        }
    }

    /// Looks a key up.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn fetch(&self, key: &[u8], wall_ms: u64) -> Result<Fetched, UpstreamError> {
        let asked = |name: &str, rest: &[&str]| {
            let mut all = vec![name.into(), key.to_vec()];
            all.extend(rest.iter().map(|word| (*word).into()));
            all
        };
        let first = [asked("TYPE", &[]), asked("PTTL", &[]), asked("GET", &[])];
        let replies = self.on_key(key, &first).await?;
        let [Value::Status(kind), Value::Int(ttl_ms), value] = replies.as_slice() else {
            return Err(unexpected(&replies, "TYPE"));
        };
        let expires_ms = match u64::try_from(*ttl_ms) {
            Ok(ttl_ms) => wall_ms + ttl_ms.max(1),
            Err(_) if *ttl_ms == -1 => 0,
            Err(_) => return Ok(Fetched::Nothing),
        };
        let (kind, command) = match (kind.as_str(), value) {
            ("none", _) | ("string", Value::Nil) => return Ok(Fetched::Nothing),
            ("string", Value::Bytes(value)) => {
                return Ok(Fetched::Found {
                    stored: Stored::String(value.clone()),
                    expires_ms,
                });
            }
            ("hash", _) => (Kind::Hash, asked("HGETALL", &[])),
            ("set", _) => (Kind::Set, asked("SMEMBERS", &[])),
            ("zset", _) => (Kind::SortedSet, asked("ZRANGE", &["0", "-1", "WITHSCORES"])),
            _ => return Ok(Fetched::Foreign),
        };
        let mut replies = self.on_key(key, &[command]).await?;
        let strings = match replies.pop() {
            Some(Value::Array(items)) => Value::Array(items).into_strings(),
            other => return Err(unexpected(other.as_slice(), "HGETALL")),
        };
        let fields = fields(kind, strings)?;
        if fields.is_empty() {
            return Ok(Fetched::Nothing);
        }
        Ok(Fetched::Found {
            stored: Stored::Fields(kind, fields),
            expires_ms,
        })
    }

    /// Does some writes. They may be done twice when it fails in between.
    ///
    /// # Errors
    /// Not all of them are done.
    pub async fn write(&self, writes: &[UpstreamWrite], wall_ms: u64) -> Result<(), UpstreamError> {
        // By server: one pipeline each.
        let mut by_server: BTreeMap<String, Vec<Keyed<'_>>> = BTreeMap::new();
        for write in writes {
            let (key, commands) = commands(write, wall_ms);
            let server = self.server_of(key);
            by_server.entry(server).or_default().push((key, commands));
        }
        for (server, writes) in by_server {
            let all: Vec<Words> = writes.iter().flat_map(|(_, c)| c.iter().cloned()).collect();
            let mut replies = self.call(&server, &all).await?.into_iter();
            for (key, commands) in writes {
                let own: Vec<Value> = replies.by_ref().take(commands.len()).collect();
                if own.iter().any(is_redirection) {
                    let again = self.on_key(key, &commands).await?;
                    refused(&again)?;
                } else {
                    refused(&own)?;
                }
            }
        }
        Ok(())
    }

    /// All servers that hold keys.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn servers(&self) -> Result<Vec<String>, UpstreamError> {
        let own = self.target.address();
        let replies = self.call(&own, &[words(&["CLUSTER", "SLOTS"])]).await?;
        let Some(Value::Array(ranges)) = replies.into_iter().next() else {
            // It is no cluster.
            return Ok(vec![own]);
        };
        let mut servers: Vec<String> = ranges
            .into_iter()
            .filter_map(|range| master(range, &own))
            .collect();
        servers.sort();
        servers.dedup();
        if servers.is_empty() {
            servers.push(own);
        }
        Ok(servers)
    }

    /// The next keys of a server, and the cursor to go on with; 0 at the end.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn scan(
        &self,
        server: &str,
        cursor: u64,
        pattern: &[u8],
    ) -> Result<(u64, Vec<Vec<u8>>), UpstreamError> {
        let mut scan = words(&["SCAN", &cursor.to_string(), "MATCH"]);
        scan.push(pattern.to_vec());
        scan.extend(words(&["COUNT", SCAN_COUNT]));
        let replies = self.call(server, &[scan]).await?;
        let Some(Value::Array(parts)) = replies.first() else {
            return Err(unexpected(&replies, "SCAN"));
        };
        let [Value::Bytes(next), keys] = parts.as_slice() else {
            return Err(UpstreamError::Unexpected("SCAN"));
        };
        let next = std::str::from_utf8(next).ok().and_then(|next| next.parse().ok());
        let next = next.ok_or(UpstreamError::Unexpected("SCAN"))?;
        Ok((next, keys.clone().into_strings()))
    }

    fn server_of(&self, key: &[u8]) -> String {
        let slots = self.slots.borrow();
        slots
            .get(&slot_of(key))
            .cloned()
            .unwrap_or_else(|| self.target.address())
    }

    /// Some commands on one key, wherever that is.
    async fn on_key(&self, key: &[u8], commands: &[Words]) -> Result<Vec<Value>, UpstreamError> {
        let mut server = self.server_of(key);
        let mut asking = false;
        for _ in 0..REDIRECTIONS {
            let replies = if asking {
                let ask = |command: &Words| [words(&["ASKING"]), command.clone()];
                let all: Vec<Words> = commands.iter().flat_map(ask).collect();
                let replies = self.call(&server, &all).await?;
                replies.into_iter().skip(1).step_by(2).collect()
            } else {
                self.call(&server, commands).await?
            };
            let Some(Value::Error(text)) = replies.iter().find(|reply| is_redirection(reply)) else {
                return Ok(replies);
            };
            let mut parts = text.split(' ');
            asking = parts.next() == Some("ASK");
            let place = parts.nth(1).unwrap_or_default();
            // An empty host means the one that was asked.
            server = match place.strip_prefix(':') {
                Some(port) => format!("{}:{port}", self.target.host),
                None => place.to_owned(),
            };
            if !asking {
                self.slots.borrow_mut().insert(slot_of(key), server.clone());
            }
        }
        Err(UpstreamError::Unexpected("a key: redirected again and again"))
    }

    /// Sends commands to a server and reads their replies.
    async fn call(&self, server: &str, commands: &[Words]) -> Result<Vec<Value>, UpstreamError> {
        timeout(self.timeout, async {
            let kept = self.idle.borrow_mut().get_mut(server).and_then(Vec::pop);
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(server).await?,
            };
            let replies = match exchange(&mut connection, commands).await {
                // The server may have closed it while nothing was asked.
                Err(_) if !fresh => {
                    connection = self.connect(server).await?;
                    exchange(&mut connection, commands).await?
                }
                other => other?,
            };
            let mut idle = self.idle.borrow_mut();
            let kept = idle.entry(server.to_owned()).or_default();
            if kept.len() < KEPT {
                kept.push(connection);
            }
            Ok(replies)
        })
        .await?
    }

    /// A connection of its own to the server that the URL names, logged in; nothing has been asked on it.
    ///
    /// # Errors
    /// It is not in reach, or does not let us in.
    pub async fn open(&self) -> Result<Connection, UpstreamError> {
        timeout(self.timeout, self.connect(&self.target.address())).await?
    }

    async fn connect(&self, server: &str) -> Result<Connection, UpstreamError> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
            None => Box::new(stream),
        };
        let mut connection = BufReader::new(stream);
        let mut greeting = Vec::new();
        if let Some(password) = &self.target.password {
            let mut login = words(&["AUTH"]);
            login.extend(self.target.user.iter().map(|user| user.clone().into_bytes()));
            login.push(password.clone().into_bytes());
            greeting.push(login);
        }
        if self.target.database != 0 {
            greeting.push(words(&["SELECT", &self.target.database.to_string()]));
        }
        refused(&exchange(&mut connection, &greeting).await?)?;
        Ok(connection)
    }
}

async fn exchange(connection: &mut Connection, commands: &[Words]) -> io::Result<Vec<Value>> {
    let mut request = Vec::new();
    for command in commands {
        resp::encode(command, &mut request);
    }
    connection.get_mut().write_all(&request).await?;
    connection.get_mut().flush().await?;
    let mut replies = Vec::with_capacity(commands.len());
    for _ in commands {
        replies.push(resp::read(connection).await?);
    }
    Ok(replies)
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).into()).collect()
}

fn is_redirection(reply: &Value) -> bool {
    matches!(reply, Value::Error(text) if text.starts_with("MOVED ") || text.starts_with("ASK "))
}

/// The first error among replies, also within what EXEC answers.
fn refused(replies: &[Value]) -> Result<(), UpstreamError> {
    for reply in replies {
        match reply {
            Value::Error(text) => return Err(UpstreamError::Refused(text.clone())),
            Value::Array(inner) => refused(inner)?,
            _ => {}
        }
    }
    Ok(())
}

fn unexpected(replies: &[Value], command: &'static str) -> UpstreamError {
    match refused(replies) {
        Err(error) => error,
        Ok(()) => UpstreamError::Unexpected(command),
    }
}

/// The master of a range of slots.
fn master(range: Value, own: &str) -> Option<String> {
    let Value::Array(parts) = range else { return None };
    let Value::Array(node) = parts.into_iter().nth(2)? else {
        return None;
    };
    let [host, Value::Int(port), ..] = node.as_slice() else {
        return None;
    };
    match host {
        Value::Bytes(host) if !host.is_empty() => {
            let host = String::from_utf8_lossy(host);
            Some(if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            })
        }
        _ => Some(own.to_owned()),
    }
}

/// Fields as they are kept, from what HGETALL, SMEMBERS or ZRANGE answered.
fn fields(kind: Kind, strings: Vec<Vec<u8>>) -> Result<Fields, UpstreamError> {
    if kind == Kind::Set {
        return Ok(strings.into_iter().map(|member| (member, Vec::new())).collect());
    }
    let mut fields = Vec::with_capacity(strings.len() / 2);
    let mut strings = strings.into_iter();
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        let value = if kind == Kind::SortedSet {
            let score: f64 = std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(UpstreamError::Unexpected("ZRANGE"))?;
            score.to_le_bytes().to_vec()
        } else {
            value
        };
        fields.push((name, value));
    }
    Ok(fields)
}

/// A write in Redis' words: understood since Redis 4.
fn commands(write: &UpstreamWrite, wall_ms: u64) -> Keyed<'_> {
    match write {
        UpstreamWrite::Delete { key } => (named(key), vec![vec![b"DEL".to_vec(), named(key).to_vec()]]),
        UpstreamWrite::Expire { key, at_ms } => {
            let at = at_ms.to_string().into_bytes();
            (
                named(key),
                vec![vec![b"PEXPIREAT".to_vec(), named(key).to_vec(), at]],
            )
        }
        UpstreamWrite::Put {
            key,
            stored: Stored::String(value),
            expires_ms,
        } => {
            let mut set = vec![b"SET".to_vec(), named(key).to_vec(), value.clone()];
            if *expires_ms != 0 {
                let left = expires_ms.saturating_sub(wall_ms).max(1);
                set.extend([b"PX".to_vec(), left.to_string().into_bytes()]);
            }
            (named(key), vec![set])
        }
        UpstreamWrite::Put {
            key,
            stored: Stored::Fields(kind, fields),
            expires_ms,
        } => {
            let name = match kind {
                Kind::SortedSet => "ZADD",
                Kind::Set => "SADD",
                Kind::Hash | Kind::String => "HMSET",
            };
            let mut put = vec![name.into(), named(key).to_vec()];
            for (field, value) in fields {
                match kind {
                    Kind::SortedSet => put.extend([score(value).into_bytes(), field.clone()]),
                    Kind::Set => put.push(field.clone()),
                    Kind::Hash | Kind::String => put.extend([field.clone(), value.clone()]),
                }
            }
            let mut all = vec![words(&["MULTI"]), vec![b"DEL".to_vec(), named(key).to_vec()]];
            if !fields.is_empty() {
                all.push(put);
            }
            if *expires_ms != 0 {
                let at = expires_ms.to_string().into_bytes();
                all.push(vec![b"PEXPIREAT".to_vec(), named(key).to_vec(), at]);
            }
            all.push(words(&["EXEC"]));
            (named(key), all)
        }
    }
}

/// The client's name of a stored key.
fn named(stored: &[u8]) -> &[u8] {
    crate::front::resp::keyspace::decode(stored).1
}

fn score(value: &[u8]) -> String {
    let bytes: [u8; 8] = value.try_into().unwrap_or_default();
    f64::from_le_bytes(bytes).to_string()
}
