//! Debian's redis-server, as the oracle.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::resp::Client;
use super::{Folder, Process, free_port, wait_until};

/// A running redis-server with nothing in it.
pub struct RedisServer {
    pub process: Process,
    pub address: SocketAddr,
    _folder: Folder,
}

impl RedisServer {
    pub fn start() -> Self {
        let server = Self::start_with(free_port(), &[]);
        wait_until("redis-server answers", || {
            Client::try_connect(server.address).is_ok()
        });
        server
    }

    /// On this port, with more arguments; it may not answer yet.
    pub fn start_with(port: u16, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--daemonize", "no"])
            .args(arguments)
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server cannot be started ({error}): install Debian's redis-server")
            });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            process: Process(child),
            address,
            _folder: folder,
        }
    }
}
