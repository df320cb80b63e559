//! The command line: each flag has a variable in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Sessions in memory, spoken to over Redis and memcached protocols, replicated between the pods of a Deployment.
#[derive(Debug, Parser)]
#[command(
    name = "session-replicator",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; without it, serve.
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Box<Serve>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Ask a running replicator over its control socket
    Ctl {
        /// The control socket
        #[arg(
            long,
            env = "SESSION_REPLICATOR_CONTROL_SOCKET",
            default_value = "/run/session-replicator/control.sock"
        )]
        control_socket: PathBuf,
        /// What to ask
        #[command(subcommand)]
        request: Request,
    },
    /// Keep no sessions: only answer probes, and on `ctl drain` turn unready once the drain time is over, so that proxies
    /// move users to other pods while the application still serves them
    Linger(Box<Linger>),
}

/// The process without sessions.
#[derive(Debug, Args)]
pub struct Linger {
    /// Operations
    #[command(flatten)]
    pub operations: Operations,
}

/// What a running replicator can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Request {
    /// Print the state as JSON
    State,
    /// Copy all sessions that are not here yet from the upstream store; on one member. Its progress is in the state
    CopyIn,
    /// Copy all sessions to the upstream store; on every member. Its progress is in the state
    CopyOut,
    /// Make clients wait, for 10 s at most: before all members are told to follow or to lead
    Hold,
    /// Pass clients on to the upstream store from now on: others speak to it by themselves
    Follow,
    /// Answer clients from here from now on
    Lead,
    /// Hand over all sessions, and return when the pod may end (for a preStop hook)
    Drain,
}

/// Who holds what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Every member holds every session
    All,
    /// A session's home and its backups hold it
    Backup,
}

/// What has to be confirmed before a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcknowledgeName {
    /// Chosen by mode and affinity
    Auto,
    /// Nothing beyond this process
    Local,
    /// One other holder
    One,
    /// A majority of the holders
    Quorum,
    /// All active holders
    All,
}

/// What happens to locks when most members are out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnPartition {
    /// They are not granted
    Fail,
    /// They are granted on each side
    Local,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// For people
    Text,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Applications, over Redis' protocol
    #[command(flatten)]
    pub front: Front,
    /// Other members
    #[command(flatten)]
    pub peers: PeerOptions,
    /// Replication
    #[command(flatten)]
    pub replication: Replication,
    /// Another store
    #[command(flatten)]
    pub upstream: UpstreamOptions,
    /// Operations
    #[command(flatten)]
    pub operations: Operations,
}

/// Another store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Upstream store")]
pub struct UpstreamOptions {
    /// Redis or Valkey, also a cluster, that held the sessions before or will: redis[s]://[[user]:password@]host[:port][/database].
    /// What is not here is looked up there, what is written here is written there
    #[arg(long, env = "SESSION_REPLICATOR_UPSTREAM", hide_env_values = true)]
    pub upstream: Option<String>,
    /// File with the upstream store's password
    #[arg(
        long,
        env = "SESSION_REPLICATOR_UPSTREAM_PASSWORD_FILE",
        requires = "upstream"
    )]
    pub upstream_password_file: Option<PathBuf>,
    /// CA certificates that the upstream store's certificate is checked against, PEM; needed for rediss://
    #[arg(long, env = "SESSION_REPLICATOR_UPSTREAM_CA", requires = "upstream")]
    pub upstream_ca: Option<PathBuf>,
    /// What the keys of sessions begin with: no other key is looked up, written or copied there
    #[arg(long, env = "SESSION_REPLICATOR_UPSTREAM_PREFIX", default_value = "")]
    pub upstream_prefix: String,
    /// Pass clients on to the upstream store, until told to lead (`ctl lead`): for as long as other pods still speak to it
    /// by themselves. Not with a cluster; memcached clients are refused meanwhile
    #[arg(long, env = "SESSION_REPLICATOR_UPSTREAM_FOLLOW", requires = "upstream")]
    pub upstream_follow: bool,
    /// Milliseconds after which a look-up or a write there has failed
    #[arg(long, env = "SESSION_REPLICATOR_UPSTREAM_TIMEOUT_MS", default_value_t = 1_000)]
    pub upstream_timeout_ms: u64,
}

/// Applications.
#[derive(Debug, Args)]
#[command(next_help_heading = "Applications")]
pub struct Front {
    /// Addresses for Redis clients
    #[arg(
        long,
        env = "SESSION_REPLICATOR_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:6379,[::1]:6379"
    )]
    pub listen: Vec<SocketAddr>,
    /// UNIX socket for Redis clients
    #[arg(long, env = "SESSION_REPLICATOR_UNIX_SOCKET")]
    pub unix_socket: Option<PathBuf>,
    /// Addresses for memcached clients
    #[arg(long, env = "SESSION_REPLICATOR_MEMCACHED_LISTEN", value_delimiter = ',')]
    pub memcached_listen: Vec<SocketAddr>,
    /// UNIX socket for memcached clients
    #[arg(long, env = "SESSION_REPLICATOR_MEMCACHED_UNIX_SOCKET")]
    pub memcached_unix_socket: Option<PathBuf>,
    /// Permissions of the UNIX sockets, octal: the folder they are in is the boundary
    #[arg(long, env = "SESSION_REPLICATOR_UNIX_SOCKET_MODE", default_value = "666", value_parser = octal)]
    pub unix_socket_mode: u32,
    /// File with the password that Redis clients have to give (AUTH); needed for addresses other than loopback
    #[arg(long, env = "SESSION_REPLICATOR_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// Client connections at once
    #[arg(long, env = "SESSION_REPLICATOR_MAX_CONNECTIONS", default_value_t = 10_000)]
    pub max_connections: usize,
    /// Seconds after which an idle client connection is closed; 0 for never
    #[arg(
        long,
        env = "SESSION_REPLICATOR_IDLE_TIMEOUT_SECONDS",
        default_value_t = 3_600
    )]
    pub idle_timeout_seconds: u64,
    /// Longest value, bytes
    #[arg(long, env = "SESSION_REPLICATOR_MAX_VALUE_BYTES", default_value_t = 1 << 20)]
    pub max_value_bytes: usize,
    /// Longest request, bytes
    #[arg(long, env = "SESSION_REPLICATOR_MAX_REQUEST_BYTES", default_value_t = 8 << 20)]
    pub max_request_bytes: usize,
    /// Bytes of replies that may wait for one client
    #[arg(long, env = "SESSION_REPLICATOR_MAX_OUTPUT_BYTES", default_value_t = 32 << 20)]
    pub max_output_bytes: usize,
}

/// Other members.
#[derive(Debug, Args)]
#[command(next_help_heading = "Members")]
pub struct PeerOptions {
    /// Address for links from other members; without it the process stands alone
    #[arg(long, env = "SESSION_REPLICATOR_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,
    /// How other members reach this one, host:port; default: POD_IP with the port of --peer-listen
    #[arg(long, env = "SESSION_REPLICATOR_ADVERTISE")]
    pub advertise: Option<String>,
    /// This pod's address
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<std::net::IpAddr>,
    /// Headless Service to find members by, name:port
    #[arg(long, env = "SESSION_REPLICATOR_DISCOVER")]
    pub discover: Option<String>,
    /// Fixed list of members, host:port each
    #[arg(long, env = "SESSION_REPLICATOR_PEERS", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// CA certificates that peers' certificates are checked against, PEM
    #[arg(long, env = "SESSION_REPLICATOR_TLS_CA", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
    /// This member's certificate, PEM
    #[arg(long, env = "SESSION_REPLICATOR_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// This member's key, PEM
    #[arg(long, env = "SESSION_REPLICATOR_TLS_KEY", requires = "tls_ca")]
    pub tls_key: Option<PathBuf>,
    /// DNS name that every member's certificate has to carry
    #[arg(long, env = "SESSION_REPLICATOR_PEER_IDENTITY")]
    pub peer_identity: Option<String>,
    /// Talk to other members without TLS: sessions can then be read and forged on the network
    #[arg(long, env = "SESSION_REPLICATOR_PEER_PLAINTEXT")]
    pub peer_plaintext: bool,
    /// File with the places of pods: name, zone and machine per line
    #[arg(long, env = "SESSION_REPLICATOR_PLACES_FILE")]
    pub places_file: Option<PathBuf>,
    /// This pod's name
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// This pod's zone
    #[arg(long, env = "SESSION_REPLICATOR_ZONE", default_value = "")]
    pub zone: String,
    /// The machine this pod runs on
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
}

/// Replication.
#[derive(Debug, Args)]
#[command(next_help_heading = "Replication")]
pub struct Replication {
    /// Who holds what; the same on all members
    #[arg(long, env = "SESSION_REPLICATOR_MODE", value_enum, default_value = "all")]
    pub mode: ModeName,
    /// Backups of each session in mode backup
    #[arg(long, env = "SESSION_REPLICATOR_BACKUPS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub backups: u8,
    /// What has to be confirmed before a write is answered
    #[arg(
        long,
        env = "SESSION_REPLICATOR_ACKNOWLEDGE",
        value_enum,
        default_value = "auto"
    )]
    pub acknowledge: AcknowledgeName,
    /// Requests of one user reach different pods: reads that find nothing ask the session's home
    #[arg(long, env = "SESSION_REPLICATOR_NO_AFFINITY")]
    pub no_affinity: bool,
    /// Milliseconds after which a write that was not confirmed is answered by an error; less than 4000 is less than a member that
    /// is gone is waited for
    #[arg(
        long,
        env = "SESSION_REPLICATOR_ACKNOWLEDGE_TIMEOUT_MS",
        default_value_t = 4_500
    )]
    pub acknowledge_timeout_ms: u64,
    /// Seconds after a logout in which a write over a connection that has not read the session does not bring it back:
    /// it may belong to a request that began before the logout
    #[arg(long, env = "SESSION_REPLICATOR_LOGOUT_GUARD_SECONDS", default_value_t = 30)]
    pub logout_guard_seconds: u64,
    /// What happens to locks when most members are out of reach
    #[arg(
        long,
        env = "SESSION_REPLICATOR_LOCK_ON_PARTITION",
        value_enum,
        default_value = "fail"
    )]
    pub lock_on_partition: OnPartition,
    /// Seconds a starting member waits for sessions before it serves with what it has
    #[arg(long, env = "SESSION_REPLICATOR_JOIN_TIMEOUT_SECONDS", default_value_t = 60)]
    pub join_timeout_seconds: u64,
    /// Milliseconds a starting member looks for others before it believes to be the first
    #[arg(long, env = "SESSION_REPLICATOR_DISCOVERY_MS", default_value_t = 3_000)]
    pub discovery_ms: u64,
    /// Bytes for sessions; default: three quarters of the container's memory limit
    #[arg(long, env = "SESSION_REPLICATOR_MEMORY_BYTES")]
    pub memory_bytes: Option<usize>,
    /// At the memory limit remove sessions, those first that nobody came back to, instead of refusing writes
    #[arg(long, env = "SESSION_REPLICATOR_EVICT")]
    pub evict: bool,
}

/// Operations.
#[derive(Debug, Args)]
#[command(next_help_heading = "Operations")]
pub struct Operations {
    /// Address for /livez, /readyz and /metrics
    #[arg(long, env = "SESSION_REPLICATOR_HTTP_LISTEN")]
    pub http_listen: Option<SocketAddr>,
    /// Socket for `session-replicator ctl`
    #[arg(long, env = "SESSION_REPLICATOR_CONTROL_SOCKET")]
    pub control_socket: Option<PathBuf>,
    /// Seconds that a terminating pod keeps its users before it turns unready
    #[arg(long, env = "SESSION_REPLICATOR_DRAIN_SECONDS", default_value_t = 0)]
    pub drain_seconds: u64,
    /// Seconds that it serves on after it turned unready
    #[arg(long, env = "SESSION_REPLICATOR_UNREADY_SECONDS", default_value_t = 5)]
    pub unready_seconds: u64,
    /// Seconds that handing over may take, at `ctl drain` and at SIGTERM each
    #[arg(long, env = "SESSION_REPLICATOR_HANDOVER_SECONDS", default_value_t = 20)]
    pub handover_seconds: u64,
    /// How logs look
    #[arg(
        long,
        env = "SESSION_REPLICATOR_LOG_FORMAT",
        value_enum,
        default_value = "json"
    )]
    pub log_format: LogFormat,
    /// Which logs are written: error, warn, info, debug, or rules by module
    #[arg(long, env = "SESSION_REPLICATOR_LOG", default_value = "info")]
    pub log: String,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "expected permissions such as 660".to_owned())
}
