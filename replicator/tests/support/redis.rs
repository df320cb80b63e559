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
        let folder = Folder::new();
        let port = free_port();
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
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server cannot be started ({error}): install Debian's redis-server")
            });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until("redis-server answers", || Client::try_connect(address).is_ok());
        Self {
            process: Process(child),
            address,
            _folder: folder,
        }
    }
}
