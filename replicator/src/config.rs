//! Flags and environment, and what they become.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

mod flags;

pub use flags::{
    AcknowledgeName, Cli, Front, Linger, LogFormat, ModeName, OnPartition, Operations, PeerOptions,
    Replication, Request, Serve, UpstreamOptions, Verb,
};

use crate::core::{Acknowledge, Config, Mode};
use crate::front::resp::keyspace;
use crate::front::resp::request::Limits;
use crate::front::server::Settings;
use crate::net::discovery::Seeds;
use crate::net::peers::Protection;
use crate::net::tls::{self, Files};
use crate::net::upstream::{Store, Target};
use crate::runtime::upstream::Upstream;
use crate::runtime::{RunError, memory};

/// Flags that do not go together or name what is not there. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A non-loopback address without a password.
    #[error(
        "--listen {0} is reachable from outside the pod: set --password-file, or listen on a loopback address"
    )]
    Exposed(SocketAddr),
    /// memcached has no password here.
    #[error(
        "--memcached-listen {0} is reachable from outside the pod and memcached has no password: use a loopback address"
    )]
    MemcachedExposed(SocketAddr),
    /// The password cannot be read.
    #[error("--password-file {path} cannot be read: {source}")]
    Password {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The password file is empty.
    #[error("--password-file {0} is empty: write the password into it")]
    EmptyPassword(PathBuf),
    /// Peers without TLS and without consent.
    #[error(
        "--peer-listen needs --tls-ca, --tls-cert and --tls-key, or --peer-plaintext for links that anybody on the network can read"
    )]
    Unprotected,
    /// Both.
    #[error("--peer-plaintext and --tls-ca exclude each other: drop one")]
    Contradiction,
    /// No identity.
    #[error("--peer-identity is needed with --tls-ca: the DNS name that members' certificates carry")]
    NoIdentity,
    /// No DNS name.
    #[error("--peer-identity {0:?} is not a DNS name")]
    BadIdentity(String),
    /// Nobody would find us.
    #[error("--peer-listen {0} does not say how members reach this one: set --advertise or POD_IP")]
    NoAddress(SocketAddr),
    /// Members are named, and nobody listens.
    #[error("--discover and --peers need --peer-listen, so that members can answer")]
    NoListener,
    /// Backup that would not be one.
    #[error(
        "--mode backup with --acknowledge local would lose acknowledged sessions: use auto, one, quorum or all"
    )]
    BackupLocal,
    /// Nobody could connect.
    #[error(
        "no address to serve on: set --listen, --unix-socket, --memcached-listen or --memcached-unix-socket"
    )]
    Nowhere,
    /// No URL of a Redis.
    #[error("--upstream is not understood: expected redis[s]://[[user]:password@]host[:port][/database]")]
    Upstream,
    /// TLS without a CA.
    #[error(
        "--upstream rediss://… needs --upstream-ca: the certificates that its certificate is checked against"
    )]
    UpstreamCa,
    /// The host cannot be in a certificate.
    #[error("--upstream {0:?} is not a host name or address")]
    UpstreamHost(String),
    /// The password cannot be read.
    #[error("--upstream-password-file cannot be used: {0}")]
    UpstreamPassword(#[source] Box<ConfigError>),
    /// Less than the smallest useful limit.
    #[error("--memory-bytes {0} is too little: at least 1048576")]
    Memory(usize),
    /// A request shorter than a value.
    #[error("--max-request-bytes has to be more than --max-value-bytes")]
    RequestShorterThanValue,
}

/// How to reach other members.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Where they dial us.
    pub listen: SocketAddr,
    /// Where they reach us.
    pub own: String,
    /// Where to look for them.
    pub seeds: Seeds,
    /// How links are protected.
    pub protection: Protection,
}

impl Serve {
    /// The front's settings.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let front = &self.front;
        let password = front.password_file.as_ref().map(read_password).transpose()?;
        if let Some(exposed) = front.listen.iter().find(|address| !address.ip().is_loopback())
            && password.is_none()
        {
            return Err(ConfigError::Exposed(*exposed));
        }
        if let Some(exposed) = front
            .memcached_listen
            .iter()
            .find(|address| !address.ip().is_loopback())
        {
            return Err(ConfigError::MemcachedExposed(*exposed));
        }
        if front.listen.is_empty()
            && front.unix_socket.is_none()
            && front.memcached_listen.is_empty()
            && front.memcached_unix_socket.is_none()
        {
            return Err(ConfigError::Nowhere);
        }
        if front.max_request_bytes <= front.max_value_bytes {
            return Err(ConfigError::RequestShorterThanValue);
        }
        Ok(Settings {
            password,
            limits: Limits {
                argument: front.max_value_bytes,
                request: front.max_request_bytes,
                ..Limits::default()
            },
            output_limit: front.max_output_bytes,
            max_connections: front.max_connections,
            idle_seconds: front.idle_timeout_seconds,
            memory_limit: self.memory_limit()?,
            ..Settings::default()
        })
    }

    fn memory_limit(&self) -> Result<usize, ConfigError> {
        const LEAST: usize = 1 << 20;
        match self.replication.memory_bytes {
            Some(bytes) if bytes < LEAST => Err(ConfigError::Memory(bytes)),
            Some(bytes) => Ok(bytes),
            None => Ok(memory::limit()),
        }
    }

    /// The core's configuration.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub fn core(&self) -> Result<Config, ConfigError> {
        let replication = &self.replication;
        let mode = match replication.mode {
            ModeName::All => Mode::All,
            ModeName::Backup => Mode::Backup(replication.backups),
        };
        let acknowledge = match replication.acknowledge {
            AcknowledgeName::Auto => Acknowledge::Auto,
            AcknowledgeName::Local if mode != Mode::All => return Err(ConfigError::BackupLocal),
            AcknowledgeName::Local => Acknowledge::Local,
            AcknowledgeName::One => Acknowledge::One,
            AcknowledgeName::Quorum => Acknowledge::Quorum,
            AcknowledgeName::All => Acknowledge::All,
        };
        let alone = self.peers.peer_listen.is_none();
        Ok(Config {
            mode,
            acknowledge,
            affinity: !replication.no_affinity,
            acknowledge_timeout_ms: replication.acknowledge_timeout_ms,
            logout_guard_ms: replication.logout_guard_seconds.saturating_mul(1_000),
            join_timeout_ms: replication.join_timeout_seconds.saturating_mul(1_000),
            discovery_ms: if alone { 0 } else { replication.discovery_ms },
            memory_limit: self.memory_limit()?,
            evict: replication.evict,
            max_value: self.front.max_value_bytes,
            upstream: self.upstream()?.map(|upstream| upstream.stored_prefix()),
            upstream_timeout_ms: self.upstream.upstream_timeout_ms.max(1),
            lock_without_majority: replication.lock_on_partition == OnPartition::Local,
            ..Config::default()
        })
    }

    /// How to reach other members; `None` when the process stands alone.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub fn peer_config(&self) -> Result<Option<PeerConfig>, ConfigError> {
        let peers = &self.peers;
        let seeds = Seeds {
            peers: peers.peers.clone(),
            service: peers.discover.clone(),
        };
        let Some(listen) = peers.peer_listen else {
            return if seeds.is_empty() {
                Ok(None)
            } else {
                Err(ConfigError::NoListener)
            };
        };
        let own = match (&peers.advertise, peers.pod_ip) {
            (Some(own), _) => own.clone(),
            (None, Some(ip)) => SocketAddr::new(ip, listen.port()).to_string(),
            (None, None) if listen.ip().is_unspecified() => return Err(ConfigError::NoAddress(listen)),
            (None, None) => listen.to_string(),
        };
        Ok(Some(PeerConfig {
            listen,
            own,
            seeds,
            protection: self.protection()?,
        }))
    }

    fn protection(&self) -> Result<Protection, ConfigError> {
        let peers = &self.peers;
        let (Some(ca), Some(certificate), Some(key)) = (&peers.tls_ca, &peers.tls_cert, &peers.tls_key)
        else {
            return if peers.peer_plaintext {
                Ok(Protection::Plaintext)
            } else {
                Err(ConfigError::Unprotected)
            };
        };
        if peers.peer_plaintext {
            return Err(ConfigError::Contradiction);
        }
        let name = peers.peer_identity.as_ref().ok_or(ConfigError::NoIdentity)?;
        let identity =
            ServerName::try_from(name.clone()).map_err(|_| ConfigError::BadIdentity(name.clone()))?;
        Ok(Protection::Tls(Files {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            identity,
        }))
    }

    /// The upstream store; `None` without one.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub fn upstream(&self) -> Result<Option<UpstreamConfig>, ConfigError> {
        let options = &self.upstream;
        let Some(url) = &options.upstream else {
            return Ok(None);
        };
        let mut target = Target::parse(url).ok_or(ConfigError::Upstream)?;
        if let Some(path) = &options.upstream_password_file {
            let password =
                read_password(path).map_err(|error| ConfigError::UpstreamPassword(Box::new(error)))?;
            target.password = Some(String::from_utf8_lossy(&password).into_owned());
        }
        let tls = match (target.tls, &options.upstream_ca) {
            (false, _) => None,
            (true, None) => return Err(ConfigError::UpstreamCa),
            (true, Some(ca)) => {
                let name = ServerName::try_from(target.host.clone())
                    .map_err(|_| ConfigError::UpstreamHost(target.host.clone()))?;
                Some((ca.clone(), name))
            }
        };
        Ok(Some(UpstreamConfig {
            target,
            tls,
            prefix: options.upstream_prefix.clone().into_bytes(),
            timeout: Duration::from_millis(options.upstream_timeout_ms.max(1)),
        }))
    }
}

impl Operations {
    /// How a drain goes.
    pub fn drain(&self) -> DrainTimes {
        DrainTimes {
            keep: Duration::from_secs(self.drain_seconds),
            unready: Duration::from_secs(self.unready_seconds),
            handover: Duration::from_secs(self.handover_seconds),
        }
    }
}

/// The upstream store.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    target: Target,
    /// The CA's file, and the name that the certificate has to carry.
    tls: Option<(PathBuf, ServerName<'static>)>,
    prefix: Vec<u8>,
    timeout: Duration,
}

impl UpstreamConfig {
    /// What keys of concern begin with as the core knows them.
    fn stored_prefix(&self) -> Vec<u8> {
        let mut stored = Vec::new();
        keyspace::encode(self.target.database, &self.prefix, &mut stored);
        stored
    }

    /// A client of it, that has not connected yet.
    ///
    /// # Errors
    /// The CA cannot be used.
    pub async fn open(self) -> Result<Upstream, RunError> {
        let tls = match self.tls {
            Some((ca, name)) => Some((tls::client(&ca).await.map_err(RunError::UpstreamTls)?, name)),
            None => None,
        };
        let store = Store::new(self.target, tls, self.timeout);
        Ok(Upstream::new(store, self.prefix, self.timeout))
    }
}

/// How a drain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// So long users stay.
    pub keep: Duration,
    /// So long the process serves after it turned unready.
    pub unready: Duration,
    /// So long handing over may take.
    pub handover: Duration,
}

fn read_password(path: &PathBuf) -> Result<Vec<u8>, ConfigError> {
    let mut password = std::fs::read(path).map_err(|source| ConfigError::Password {
        path: path.clone(),
        source,
    })?;
    while password.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        password.pop();
    }
    if password.is_empty() {
        return Err(ConfigError::EmptyPassword(path.clone()));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn serve(arguments: &[&str]) -> Serve {
        let all = [&["session-replicator"], arguments].concat();
        *Cli::try_parse_from(all).unwrap().serve
    }

    #[test]
    fn every_refusal_names_the_remedy() {
        for (arguments, expected) in [
            (vec!["--listen", "0.0.0.0:6379"], "--password-file"),
            (vec!["--memcached-listen", "0.0.0.0:11211"], "loopback"),
            (vec!["--max-value-bytes", "9000000"], "--max-request-bytes"),
            (vec!["--password-file", "/nonexistent"], "cannot be read"),
            (vec!["--memory-bytes", "5"], "at least"),
        ] {
            let error = serve(&arguments).settings().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (arguments, expected) in [
            (vec!["--peer-listen", "127.0.0.1:7946"], "--peer-plaintext"),
            (
                vec!["--peer-listen", "0.0.0.0:7946", "--peer-plaintext"],
                "--advertise",
            ),
            (vec!["--peers", "a:1"], "--peer-listen"),
            (
                vec![
                    "--peer-listen",
                    "127.0.0.1:7",
                    "--tls-ca",
                    "a",
                    "--tls-cert",
                    "b",
                    "--tls-key",
                    "c",
                ],
                "--peer-identity",
            ),
        ] {
            let error = serve(&arguments).peer_config().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (arguments, expected) in [
            (vec!["--upstream", "store:6379"], "expected redis"),
            (vec!["--upstream", "rediss://store"], "--upstream-ca"),
            (
                vec![
                    "--upstream",
                    "redis://store",
                    "--upstream-password-file",
                    "/nonexistent",
                ],
                "cannot be read",
            ),
        ] {
            let error = serve(&arguments).upstream().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = serve(&["--mode", "backup", "--acknowledge", "local"])
            .core()
            .unwrap_err();
        assert!(error.to_string().contains("would lose"));
    }

    #[test]
    fn help_is_complete() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        for argument in Cli::command().get_arguments() {
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
        }
    }
}
