//! A store as clients meet it: TLS with an authority of its own, and a user whose keys all begin with one prefix.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::wait::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use session_operator::api::session_store::Engine;
use session_operator::framework::Endpoint;
use tokio::process::{Child, Command};

/// What keys begin with, without the colon.
pub const PREFIX: &str = "trial";
/// A password that has to be encoded differently in URLs, ini files, YAML and shells.
const PASSWORD: &str = "p@s$:w/o?rd#&=%+\"'\\{}";
const ADMIN_PASSWORD: &str = "administrator";
/// How long a server may take to answer after its start.
pub const START_LIMIT: Duration = Duration::from_secs(10);

/// Where a trial keeps its sessions.
pub trait Place {
    /// How clients reach it.
    fn endpoint(&self) -> Endpoint;

    /// The file with its authority, if it has TLS.
    fn authority(&self) -> Option<PathBuf>;

    /// All keys.
    async fn keys(&self) -> Result<Vec<String>>;

    /// Seconds that a key has to live.
    async fn life(&self, key: &str) -> Result<i64>;

    /// All keys; each must begin with the prefix, and there must be at least so many.
    async fn keys_of_ours(&self, at_least: usize) -> Result<Vec<String>> {
        let keys = self.keys().await?;
        ensure!(
            keys.iter().all(|key| key.starts_with(&format!("{PREFIX}:"))),
            "keys without the prefix: {keys:?}"
        );
        ensure!(keys.len() >= at_least, "only {} keys: {keys:?}", keys.len());
        Ok(keys)
    }
}

/// A running server.
pub struct Store {
    folder: PathBuf,
    port: u16,
    // Ends the process when dropped.
    process: Child,
}

/// A port on which nobody listens at the moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Store {
    /// Starts a server with its files in a folder.
    pub async fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("store");
        fs::create_dir_all(&folder)?;
        certificates(&folder)?;
        let port = free_port()?;
        let at = folder.display();
        // Commands as in the rule for a prefix of the operator's own stores: everything but what administers.
        fs::write(
            folder.join("users.acl"),
            format!(
                "user default on >{ADMIN_PASSWORD} ~* &* +@all\n\
                 user {PREFIX} on >{PASSWORD} ~{PREFIX}:* &{PREFIX}:* resetchannels +@all -@admin -@dangerous +info\n"
            ),
        )?;
        fs::write(
            folder.join("redis.conf"),
            format!(
                "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-auth-clients no\nsave \"\"\ndir {at}\n\
                 tls-cert-file {at}/server.crt\ntls-key-file {at}/server.key\ntls-ca-cert-file {at}/ca.crt\n\
                 aclfile {at}/users.acl\nmaxmemory-policy noeviction\n"
            ),
        )?;
        let log = fs::File::create(folder.join("log"))?;
        let process = Command::new("redis-server")
            .arg(folder.join("redis.conf"))
            .stdout(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server")?;
        let store = Self {
            folder,
            port,
            process,
        };
        eventually("the store answers", START_LIMIT, || async {
            Ok(store.ask(&["PING"]).await)
        })
        .await?;
        Ok(store)
    }

    /// Sends the process a signal by its name.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let pid = self.process.id().context("the store has ended")?;
        let sent = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .await?;
        ensure!(sent.success(), "no {name} to the store");
        Ok(())
    }

    /// Asks as the administrator.
    pub async fn ask(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["--tls", "-h", "localhost", "-p", &self.port.to_string()])
            .arg("--cacert")
            .arg(self.folder.join("ca.crt"))
            .args(command)
            .env("REDISCLI_AUTH", ADMIN_PASSWORD)
            .output()
            .await
            .context("redis-cli")?;
        let answer = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            bail!("{command:?}: {answer}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(answer)
    }
}

impl Place for Store {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            engine: Engine::Redis,
            cluster: false,
            host: "localhost".to_owned(),
            members: Vec::new(),
            port: self.port,
            tls: true,
            own_authority: true,
            username: Some(PREFIX.to_owned()),
            password: Some(PASSWORD.to_owned()),
            key_prefix: PREFIX.to_owned(),
        }
    }

    fn authority(&self) -> Option<PathBuf> {
        Some(self.folder.join("ca.crt"))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let answer = self.ask(&["--raw", "KEYS", "*"]).await?;
        Ok(answer
            .lines()
            .map(str::to_owned)
            .filter(|key| !key.is_empty())
            .collect())
    }

    async fn life(&self, key: &str) -> Result<i64> {
        Ok(self.ask(&["TTL", key]).await?.trim().parse()?)
    }
}

fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    // A server whose name is that of its authority counts as signed by itself.
    authority
        .distinguished_name
        .push(DnType::CommonName, "the store's authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &authority)?;
    fs::write(folder.join("ca.crt"), authority.pem())?;
    fs::write(folder.join("server.crt"), server.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(())
}
