//! A Memcached as clients meet it: without users and without TLS.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::wait::eventually;
use session_operator::api::session_store::Engine;
use session_operator::framework::Endpoint;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::store::{PREFIX, Place, START_LIMIT, free_port};

/// How long a list of all keys may take.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// A running server.
pub struct Memcached {
    port: u16,
    // Ends when dropped.
    process: Child,
}

impl Memcached {
    /// Starts a server.
    pub async fn start() -> Result<Self> {
        Self::start_at(free_port()?).await
    }

    /// Ends it, and starts another one, which is empty, at the same port.
    pub async fn start_again(mut self) -> Result<Self> {
        self.stop().await?;
        Self::start_at(self.port).await
    }

    /// Ends it.
    pub async fn stop(&mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    async fn start_at(port: u16) -> Result<Self> {
        // Settings as of the operator's own stores, but that keys can be listed.
        let process = Command::new("memcached")
            .args(["--listen=127.0.0.1", "--udp-port=0", "--user=nobody"])
            .arg(format!("--port={port}"))
            .args(["--disable-evictions", "--disable-flush-all", "--disable-watch"])
            .args(["--memory-limit=48", "--max-item-size=8388608"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("memcached")?;
        let server = Self { port, process };
        eventually("the store answers", START_LIMIT, || async {
            Ok(server
                .lines("version", "VERSION")
                .await
                .map_err(|error| error.to_string()))
        })
        .await?;
        Ok(server)
    }

    /// Sends a command; gives the lines up to the one that begins with `last`, which has to come.
    async fn lines(&self, command: &str, last: &str) -> Result<Vec<String>> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(LIST_LIMIT, stream.read_line(&mut line)).await??;
            ensure!(read > 0, "the server closed the connection after {lines:?}");
            let line = line.trim_end().to_owned();
            if line.starts_with(last) {
                return Ok(lines);
            }
            ensure!(!line.contains("ERROR"), "{command}: {line}");
            lines.push(line);
        }
    }

    /// What the server counts under a name.
    pub async fn count(&self, name: &str) -> Result<u64> {
        let figures = self.lines("stats", "END").await?;
        let figure = figures
            .iter()
            .find_map(|figure| figure.strip_prefix(&format!("STAT {name} ")));
        Ok(figure.with_context(|| format!("no {name}"))?.parse()?)
    }
}

impl Place for Memcached {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            engine: Engine::Memcached,
            cluster: false,
            host: "localhost".to_owned(),
            members: Vec::new(),
            port: self.port,
            tls: false,
            own_authority: false,
            username: None,
            password: None,
            key_prefix: PREFIX.to_owned(),
        }
    }

    fn authority(&self) -> Option<PathBuf> {
        None
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let lines = eventually("a list of the keys", LIST_LIMIT, || async {
            let listed = self.lines("lru_crawler metadump all", "END").await;
            Ok(listed.map_err(|error| error.to_string()))
        })
        .await?;
        lines
            .iter()
            .map(|line| {
                let key = line.split(' ').find_map(|field| field.strip_prefix("key="));
                Ok(key
                    .with_context(|| format!("no key in {line}"))?
                    .replace("%3A", ":"))
            })
            .collect()
    }

    async fn life(&self, key: &str) -> Result<i64> {
        let answer = self.lines(&format!("mg {key} t\r\nmn"), "MN").await?;
        let life = answer.first().and_then(|line| line.strip_prefix("HD t"));
        Ok(life
            .with_context(|| format!("no life of {key}: {answer:?}"))?
            .parse()?)
    }
}
