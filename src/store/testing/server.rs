//! A redis-server or a memcached on loopback, with a folder of its own. Both go when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::store::client::{Authority, Endpoint};

/// Ports for servers: below those that the kernel gives to outgoing connections, and the bus of a cluster (10000 above)
/// still is a port.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A certificate and the authority that vouches for it.
pub struct Certificates {
    /// The authority, PEM.
    pub authority: String,
    /// The server's certificate, PEM.
    pub certificate: String,
    /// The same, DER.
    pub der: Vec<u8>,
    /// The key, PEM.
    pub key: String,
}

impl Certificates {
    /// A certificate for `name`, by an authority of its own.
    pub fn new(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        Self {
            authority: pem,
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
        }
    }
}

/// The first of some ports one after the other that no other test of this process gets.
pub fn free_ports(count: u16) -> u16 {
    let first = free_port();
    let mut last = first;
    while last < first + count {
        let next = free_port();
        if next != last + 1 {
            return free_ports(count);
        }
        last = next;
    }
    first
}

/// A port that no other test of this process gets.
fn free_port() -> u16 {
    static NEXT: LazyLock<Mutex<u16>> = LazyLock::new(|| Mutex::new(fastrand::u16(PORTS)));
    let mut next = NEXT.lock().unwrap();
    loop {
        *next = if PORTS.contains(&(*next + 1)) {
            *next + 1
        } else {
            PORTS.start
        };
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(*next) && is_free(*next + 10_000) {
            return *next;
        }
    }
}

/// The valkey-server that `replicator/tests/install valkey` has got.
pub fn valkey_server() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("replicator/tests/install");
        let output = Command::new(install).args(["where", "valkey"]).output().unwrap();
        let folder = String::from_utf8(output.stdout).unwrap();
        let mut folders = vec![PathBuf::from(folder.trim())];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; run replicator/tests/install valkey",
                    folder.display()
                )
            });
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.file_name().is_some_and(|name| name == "valkey-server") {
                    return path.display().to_string();
                }
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        panic!("there is no valkey-server; run replicator/tests/install valkey")
    });
    &PROGRAM
}

/// A running server.
pub struct Server {
    program: String,
    child: Child,
    /// Its folder.
    pub folder: PathBuf,
    /// Its port.
    pub port: u16,
    words: Vec<String>,
}

fn spawn(program: &str, folder: &Path, words: &[String]) -> Child {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {program}: {error}; install Debian's {program}"))
}

impl Server {
    /// Without TLS.
    pub fn plain(arguments: &[&str]) -> Self {
        Self::start(arguments, |_, port| vec!["--port".into(), port.to_string()])
    }

    /// With TLS only.
    pub fn tls(certificates: &Certificates, arguments: &[&str]) -> Self {
        Self::start(arguments, |folder, port| {
            let mut words = vec!["--port".to_owned(), "0".to_owned()];
            words.extend(["--tls-port".to_owned(), port.to_string()]);
            words.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
            for (name, content) in [
                ("cert", &certificates.certificate),
                ("key", &certificates.key),
                ("ca-cert", &certificates.authority),
            ] {
                let file = folder.join(name);
                std::fs::write(&file, content).unwrap();
                words.extend([format!("--tls-{name}-file"), file.display().to_string()]);
            }
            words
        })
    }

    fn start(arguments: &[&str], listen: impl Fn(&PathBuf, u16) -> Vec<String>) -> Self {
        Self::with_words(|folder, port| {
            let mut words = ["--bind", "127.0.0.1", "--save", "", "--dir"]
                .map(str::to_owned)
                .to_vec();
            words.push(folder.display().to_string());
            words.extend(listen(folder, port));
            words.extend(arguments.iter().map(|word| (*word).to_owned()));
            words
        })
    }

    /// Memcached.
    pub fn memcached(arguments: &[&str]) -> Self {
        Self::run("memcached", |_, port| {
            let mut words = vec![format!("--port={port}"), "--listen=127.0.0.1".to_owned()];
            // It does not run as root.
            words.push("--user=nobody".to_owned());
            words.extend(arguments.iter().map(|word| (*word).to_owned()));
            words
        })
    }

    /// A redis-server with the words that are made for its folder and port.
    pub fn with_words(words: impl Fn(&PathBuf, u16) -> Vec<String>) -> Self {
        Self::run("redis-server", words)
    }

    /// A program, perhaps one that starts a server, with the words that are made for its folder and port.
    pub fn run(program: &str, words: impl Fn(&PathBuf, u16) -> Vec<String>) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("session-operator-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let words = words(&folder, port);
        let child = spawn(program, &folder, &words);
        let server = Self {
            program: program.to_owned(),
            child,
            folder,
            port,
            words,
        };
        server.until_started();
        server
    }

    /// SIGKILL, and the same again at once, at the same port and in the same folder.
    pub fn kill_and_start(&mut self) {
        self.kill();
        self.start_again();
    }

    /// The same again, at the same port and in the same folder.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.folder, &self.words);
        self.until_started();
    }

    /// The same again in the same folder, at another port: as a pod that is made anew gets another address.
    pub fn move_away(&mut self) {
        let before = self.port.to_string();
        self.port = free_port();
        for word in &mut self.words {
            if *word == before {
                *word = self.port.to_string();
            }
        }
        self.start_again();
    }

    /// Sends the process a signal by its name.
    pub fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status();
        assert!(sent.unwrap().success(), "no {name} to {}", self.program);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn until_started(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // redis-server listens before it has read its users' file, so that a connection alone tells nothing.
        let serves = || match self.program.as_str() {
            "memcached" => std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
            _ => self.log().contains("Ready to accept connections"),
        };
        while !serves() {
            assert!(Instant::now() < deadline, "{}: {}", self.program, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How clients reach it, without TLS.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            address: None,
            tls: None,
        }
    }

    /// How clients reach it with TLS.
    pub fn tls_endpoint(&self, authority: &str) -> Endpoint {
        Endpoint {
            host: "localhost".to_owned(),
            address: Some("127.0.0.1".to_owned()),
            tls: Some(Authority::Own(authority.to_owned())),
            ..self.endpoint()
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A panic in drop during unwinding would hide the test's own.
        if self.child.kill().is_ok() && self.child.wait().is_ok() {
            _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
