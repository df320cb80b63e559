//! A client of one Memcached, for the few commands that the operator sends: memcached's text protocol
//! (<https://github.com/memcached/memcached/blob/master/doc/protocol.txt>).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::connect::tcp;
use super::{COMMAND_TIMEOUT, Endpoint, Failure, Reached};
use crate::api::session_store::Engine;

/// Longest line of an answer.
const LONGEST_LINE: u64 = 4096;

/// Most lines of one answer: memcached has some hundred figures, and some twenty for each of at most 64 sizes of items.
const MOST_LINES: usize = 8192;

/// Seconds that a probe key lives when it cannot be deleted again.
const PROBE_TTL: u32 = 10;

/// Bytes of a probe where nothing is known of the sessions, and of the largest one.
const PROBE_BYTES: std::ops::RangeInclusive<usize> = 64..=65_536;

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    server: String,
    stream: BufReader<TcpStream>,
}

/// What the server counts, by the names of its command `stats`.
pub type Figures = BTreeMap<String, String>;

/// Connects and asks for the version, which is the first that every server answers.
pub async fn connect(endpoint: &Endpoint) -> Result<(Connection, String), Failure> {
    let stream = tcp(endpoint).await?;
    let mut connection = Connection {
        server: endpoint.server(),
        stream: BufReader::new(stream),
    };
    let answer = connection.ask("version\r\n", "version").await?;
    match answer.strip_prefix("VERSION ") {
        Some(version) => Ok((connection, version.to_owned())),
        None => Err(connection.refused("version", &answer)),
    }
}

/// Connects as an application would, and writes, reads and deletes a value under `prefix`.
pub async fn check(endpoint: &Endpoint, prefix: &str) -> Result<Reached, Failure> {
    let (mut connection, version) = connect(endpoint).await?;
    connection.try_out(prefix, 0).await?;
    Ok(Reached {
        engine: Engine::Memcached,
        version,
        cluster: false,
        lists: false,
    })
}

impl Connection {
    /// `stats` of one kind; "" for the general ones.
    pub async fn stats(&mut self, kind: &str) -> Result<Figures, Failure> {
        let command = if kind.is_empty() {
            "stats".to_owned()
        } else {
            format!("stats {kind}")
        };
        let mut line = self.ask(&format!("{command}\r\n"), &command).await?;
        let mut figures = Figures::new();
        for _ in 0..MOST_LINES {
            if line == "END" {
                return Ok(figures);
            }
            let Some((name, value)) = line
                .strip_prefix("STAT ")
                .and_then(|figure| figure.split_once(' '))
            else {
                return Err(self.refused(&command, &line));
            };
            figures.insert(name.to_owned(), value.to_owned());
            line = self.line().await?;
        }
        Err(self.refused(&command, "it does not end"))
    }

    /// Does what a session handler does: writes a value of `bytes` under `prefix`, reads it, and deletes it.
    pub async fn try_out(&mut self, prefix: &str, bytes: usize) -> Result<(), Failure> {
        let key = format!("{prefix}:session-operator-probe-{:08x}", fastrand::u32(..));
        let bytes = bytes.clamp(*PROBE_BYTES.start(), *PROBE_BYTES.end());
        let value: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(bytes)
            .collect();
        let answer = self
            .ask(&format!("set {key} 0 {PROBE_TTL} {bytes}\r\n{value}\r\n"), "set")
            .await?;
        if answer != "STORED" {
            return Err(Failure::RefusesWrites {
                server: self.server.clone(),
                cause: if answer.contains("out of memory") {
                    format!("its memory is full ({answer})")
                } else {
                    answer
                },
            });
        }
        let answer = self.ask(&format!("get {key}\r\n"), "get").await?;
        if answer != format!("VALUE {key} 0 {bytes}") {
            return Err(self.lost(&answer));
        }
        let read = self.until_line_end(bytes as u64 + 2).await?;
        let end = self.line().await?;
        if read != value || end != "END" {
            return Err(self.lost("another value"));
        }
        match self.ask(&format!("delete {key}\r\n"), "delete").await?.as_str() {
            "DELETED" => Ok(()),
            answer => Err(self.refused("delete", answer)),
        }
    }

    /// Sends a command, and gives the first line of its answer.
    async fn ask(&mut self, words: &str, command: &str) -> Result<String, Failure> {
        let sent = tokio::time::timeout(COMMAND_TIMEOUT, self.stream.write_all(words.as_bytes())).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => return Err(self.broken(silence(COMMAND_TIMEOUT))),
        }
        let line = self.line().await?;
        let is_error = ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR "]
            .iter()
            .any(|error| line.starts_with(error));
        // What a write is refused with is told apart by who wrote.
        if is_error && command != "set" {
            return Err(self.refused(command, &line));
        }
        Ok(line)
    }

    async fn line(&mut self) -> Result<String, Failure> {
        self.until_line_end(LONGEST_LINE).await
    }

    async fn until_line_end(&mut self, longest: u64) -> Result<String, Failure> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(longest);
        let reading = limited.read_until(b'\n', &mut line);
        match tokio::time::timeout(COMMAND_TIMEOUT, reading).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => return Err(self.broken(silence(COMMAND_TIMEOUT))),
        }
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => Err(self.broken("it closed the connection")),
            None => Err(self.refused("the protocol", "its answer cannot be read")),
        }
    }

    fn broken(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::Unreachable {
            server: self.server.clone(),
            cause: cause.to_string(),
        }
    }

    fn refused(&self, command: &str, cause: &str) -> Failure {
        Failure::Refused {
            server: self.server.clone(),
            command: command.to_owned(),
            cause: cause.to_owned(),
        }
    }

    /// What was written a moment ago is not there.
    fn lost(&self, answer: &str) -> Failure {
        Failure::RefusesWrites {
            server: self.server.clone(),
            cause: format!("what was written is not found ({answer})"),
        }
    }
}

fn silence(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Server;

    impl Connection {
        /// Writes so many values of so many bytes, or as many as the server takes; tells how many.
        pub(in crate::store) async fn fill(&mut self, count: usize, bytes: usize) -> usize {
            let value = "x".repeat(bytes);
            for number in 0..count {
                // As long as the key of a probe.
                let key = format!("shop:session-operator-fill-{number:09}");
                let answer = self
                    .ask(&format!("set {key} 0 0 {bytes}\r\n{value}\r\n"), "set")
                    .await
                    .unwrap();
                if answer != "STORED" {
                    return number;
                }
            }
            count
        }
    }

    async fn connected(server: &Server) -> Connection {
        connect(&server.endpoint()).await.unwrap().0
    }

    #[tokio::test]
    async fn a_server_that_serves_is_found_out_and_nothing_is_left_in_it() {
        let server = Server::memcached(&[]);
        let (mut connection, version) = connect(&server.endpoint()).await.unwrap();
        assert!(version.starts_with("1."), "{version}");
        for bytes in [0, 500, 1 << 20] {
            connection.try_out("shop", bytes).await.unwrap();
        }
        let figures = connection.stats("").await.unwrap();
        assert_eq!(figures["curr_items"], "0");
        assert_eq!(figures["cmd_set"], "3");
        let reached = check(&server.endpoint(), "shop").await.unwrap();
        assert_eq!((reached.engine, reached.version), (Engine::Memcached, version));
        assert!(
            connection
                .stats("slabs")
                .await
                .unwrap()
                .contains_key("total_malloced")
        );
    }

    #[tokio::test]
    async fn a_server_that_takes_no_more_says_so() {
        // One page for each size of items is all that such a small memory has.
        let server = Server::memcached(&["--memory-limit=2", "--disable-evictions"]);
        let mut connection = connected(&server).await;
        assert!(connection.fill(1000, 60_000).await < 1000, "it takes everything");
        let failure = connection.try_out("shop", 60_000).await.unwrap_err();
        assert!(
            matches!(&failure, Failure::RefusesWrites { cause, .. } if cause.starts_with("its memory is full")),
            "{failure}"
        );
        // The connection is of use after that.
        assert_ne!(connection.stats("").await.unwrap()["store_no_memory"], "0");
    }

    #[tokio::test]
    async fn who_is_not_memcached_is_told_apart() {
        let redis = Server::plain(&[]);
        let failure = connect(&redis.endpoint()).await.unwrap_err();
        assert!(
            matches!(&failure, Failure::Refused { command, .. } if command == "version"),
            "{failure}"
        );
        let mut nobody = Server::memcached(&[]);
        nobody.kill();
        let failure = connect(&nobody.endpoint()).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
    }
}
