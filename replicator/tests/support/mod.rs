//! Real processes and small clients for tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by several test binaries, none of which uses all of it; a failed helper is a failed test"
)]

pub mod certificates;
pub mod encode;
pub mod http;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod resp;
pub mod seeds;
pub mod tls;
pub mod transcript;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use self::resp::Client;

/// A number from the environment.
pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: {text:?} is no number"))
    })
}

/// How long anything may take that a healthy process does at once.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A folder that is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "session-replicator-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed does no harm in the system's temporary folder.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A port on loopback that was free a moment ago.
///
/// Below the range that the system gives to outgoing connections, and each process begins somewhere else: so no one
/// else takes it before it is used.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const SPAN: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(SPAN / 50)).unwrap() * 50;
    let taken = || start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN;
    std::iter::repeat_with(|| FIRST + taken())
        .take(usize::from(SPAN))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port is free on loopback")
}

/// Waits for something to become true.
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal to this process and no other.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name}");
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that was resident at any time, KiB.
    pub fn most_resident_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running replicator.
pub struct Replicator {
    pub process: Process,
    pub name: String,
    pub port: u16,
    pub memcached_port: u16,
    pub http_port: u16,
    pub peer_port: u16,
    folder: Folder,
}

/// How to start a replicator.
#[derive(Clone)]
pub struct Launch {
    pub name: String,
    pub peer_port: u16,
    pub arguments: Vec<String>,
}

impl Launch {
    /// One that stands alone.
    pub fn alone() -> Self {
        Self {
            name: "alone".to_owned(),
            peer_port: 0,
            arguments: Vec::new(),
        }
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub fn start(&self) -> Replicator {
        let folder = Folder::new();
        let (port, memcached_port, http_port) = (free_port(), free_port(), free_port());
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_session-replicator"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--memcached-listen", &format!("127.0.0.1:{memcached_port}")])
            .args(["--http-listen", &format!("127.0.0.1:{http_port}")])
            .args(["--unix-socket", &at("redis.sock")])
            .args(["--memcached-unix-socket", &at("memcached.sock")])
            .args(["--control-socket", &at("control.sock")])
            .args(["--pod-name", &self.name, "--log-format", "text"])
            .args(&self.arguments)
            .env_clear()
            // A test may say otherwise by its flag.
            .env("SESSION_REPLICATOR_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Replicator {
            process: Process(child),
            name: self.name.clone(),
            port,
            memcached_port,
            http_port,
            peer_port: self.peer_port,
            folder,
        }
    }

    /// Looks for these members, as discovery would list them.
    pub fn looking_for(self, ports: &[u16]) -> Self {
        let peers = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",");
        self.with(&["--peers", &peers])
    }

    pub fn start_ready(&self) -> Replicator {
        let mut started = self.start();
        started.wait_ready();
        started
    }
}

impl Replicator {
    pub fn client(&self) -> Client {
        Client::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    pub fn unix_socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub fn memcached_socket(&self) -> PathBuf {
        self.folder.path().join("memcached.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `ctl` with this request.
    pub fn control(&self, request: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_session-replicator"))
            .args(["ctl", "--control-socket"])
            .arg(self.folder.path().join("control.sock"))
            .arg(request)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.control("state")).unwrap()
    }

    pub fn is_ready(&self) -> bool {
        http_get(self.http_port, "/readyz").is_some_and(|response| response.starts_with("HTTP/1.1 200"))
    }

    pub fn wait_ready(&mut self) {
        let start = Instant::now();
        while !self.is_ready() {
            let ended = self.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {}", self.name, self.log());
            assert!(
                start.elapsed() < PATIENCE,
                "{} does not become ready: {}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A whole HTTP response, or nothing when nobody answers.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

/// Members of one policy. Whom they look for is said by [`Launch::looking_for`].
pub fn launches(count: usize, folder: &Folder, arguments: &[&str]) -> Vec<Launch> {
    certificates::write(folder.path(), "shop.web.sessions");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (ca, certificate, key) = (at("ca.pem"), at("cert.pem"), at("key.pem"));
    let launch = |number: usize| {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let base = Launch {
            name: format!("shop-{number}"),
            peer_port: port,
            arguments: Vec::new(),
        };
        base.with(&["--peer-listen", &listen, "--discovery-ms", "1500"])
            .with(&["--tls-ca", &ca, "--tls-cert", &certificate, "--tls-key", &key])
            .with(&["--peer-identity", "shop.web.sessions"])
            // A busy machine may confirm late: that is no failure of what is tested.
            .with(&["--acknowledge-timeout-ms", "20000"])
            .with(arguments)
    };
    (0..count).map(launch).collect()
}

/// Waits until every member is linked to all others.
pub fn wait_linked(members: &[Replicator]) {
    for member in members {
        wait_until(&format!("{} is linked to all", member.name), || {
            let state = member.state();
            let linked = state["members"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|m| m["linked"] == true)
                .count();
            linked >= members.len() - 1
        });
    }
}
