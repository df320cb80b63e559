//! The process: one thread, one event loop.
//!
//! Measured against a second thread for links: with one thread a request needs no hand-over between threads, and the
//! work of links (TLS included) is a small part of a request's cost at the sizes of sessions.

pub mod connection;
pub mod control;
pub mod drain;
pub mod follow;
pub mod http;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod state;
pub mod unix;
pub mod upstream;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::info;

use crate::config::{ConfigError, Operations, PeerConfig, Serve};
use crate::core::{Config, Core, Input, NodeId, NodeInfo};
use crate::front::server::{Server, Settings};
use crate::net::peers::Peers;
use crate::net::tls::TlsError;
use node::{Node, Shared};

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Flags that do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address or socket cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The certificates for links cannot be used.
    #[error("TLS between members cannot be set up: {0}")]
    Tls(#[from] TlsError),
    /// The CA of the upstream store cannot be used.
    #[error("TLS to the upstream store cannot be set up: {0}")]
    UpstreamTls(#[source] TlsError),
    /// The system gave no randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(#[source] io::Error),
}

/// Serves until the process is told to end.
///
/// # Errors
/// It could not begin.
pub async fn run(serve: Serve) -> Result<(), RunError> {
    let settings = serve.settings()?;
    let config = serve.core()?;
    let peers = serve.peer_config()?;
    let upstream = serve.upstream()?;
    let drain = serve.operations.drain();
    let [id, seed, run_id @ ..] = random::<5>()?;
    let run_id = run_id.map(|word| format!("{word:016x}")).concat();
    let run_id = run_id.get(..40).unwrap_or(&run_id).to_owned();
    let own = peers.as_ref().map(|peers| peers.own.clone()).unwrap_or_default();
    let name = serve.peers.pod_name.clone().unwrap_or_else(|| {
        if own.is_empty() {
            "alone".into()
        } else {
            own.clone()
        }
    });
    let node = Node::new(
        |now| {
            let me = NodeInfo {
                id: NodeId(id),
                name,
                address: own,
                zone: serve.peers.zone.clone(),
                machine: serve.peers.node_name.clone(),
                started_ms: now.wall_ms,
            };
            Core::new(config, me, seed, now)
        },
        |now| Server::new(settings, run_id, now.wall_ms),
    );
    let node: Shared = Rc::new(RefCell::new(node));
    spawn_local(flush(Rc::clone(&node)));
    spawn_local(tick(Rc::clone(&node)));
    spawn_local(listen::end_idle(Rc::clone(&node)));
    if let Some(config) = upstream {
        let shared = Rc::new(config.open().await?);
        {
            let mut node = node.borrow_mut();
            node.upstream = Some(Rc::clone(&shared));
            node.follows = serve.upstream.upstream_follow;
            node.led = !node.follows;
        }
        upstream::start(&node, shared);
    }
    listen::start(&serve.front, &node).await?;
    operate(&serve.operations, &node).await?;
    match peers {
        Some(config) => start_peers(config, serve.peers.places_file, &node).await?,
        None => node.borrow_mut().step(&Input::Discovered {
            addresses: &BTreeSet::new(),
        }),
    }
    info!(id, "serving");
    drain::until_told(&node, drain).await.map_err(RunError::Signals)
}

/// Answers probes until the process is told to end, and keeps nothing: the drain is that of a member that is alone.
///
/// # Errors
/// It could not begin.
pub async fn linger(operations: &Operations) -> Result<(), RunError> {
    let [id, seed] = random::<2>()?;
    let config = Config {
        // Nobody else is looked for.
        discovery_ms: 0,
        ..Config::default()
    };
    let node = Node::new(
        |now| {
            let me = NodeInfo {
                id: NodeId(id),
                name: "alone".into(),
                address: String::new(),
                zone: String::new(),
                machine: String::new(),
                started_ms: now.wall_ms,
            };
            Core::new(config, me, seed, now)
        },
        |now| Server::new(Settings::default(), String::new(), now.wall_ms),
    );
    let node: Shared = Rc::new(RefCell::new(node));
    spawn_local(flush(Rc::clone(&node)));
    spawn_local(tick(Rc::clone(&node)));
    operate(operations, &node).await?;
    node.borrow_mut().step(&Input::Discovered {
        addresses: &BTreeSet::new(),
    });
    info!("lingering");
    drain::until_told(&node, operations.drain())
        .await
        .map_err(RunError::Signals)
}

/// Opens what the pod's kubelet and its preStop hook use.
async fn operate(operations: &Operations, node: &Shared) -> Result<(), RunError> {
    if let Some(address) = operations.http_listen {
        http::start(bind(address).await?, node);
    }
    if let Some(path) = &operations.control_socket {
        control::start(path, operations.drain(), node)?;
    }
    Ok(())
}

async fn start_peers(
    config: PeerConfig,
    places: Option<std::path::PathBuf>,
    node: &Shared,
) -> Result<(), RunError> {
    let PeerConfig {
        listen,
        own,
        seeds,
        protection,
    } = config;
    let peers = Peers {
        listener: bind(listen).await?,
        own,
        seeds,
        protection,
        places,
    };
    Ok(peers.start(node).await?)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen {
            address: address.to_string(),
            source,
        })
}

/// Sends what the core wants to send, once per round of the event loop.
async fn flush(node: Shared) {
    let wanted = Rc::clone(&node.borrow().flush);
    loop {
        wanted.notified().await;
        node.borrow_mut().carry_out();
    }
}

/// Tells the core that time passes.
async fn tick(node: Shared) {
    /// A tick that became due earlier than was known is late by this much at most.
    const LONGEST: Duration = Duration::from_millis(50);
    const SHORTEST: Duration = Duration::from_millis(1);
    loop {
        let wait = {
            let mut node = node.borrow_mut();
            let now = node.now();
            let due = node.core.next_tick_ms(now);
            if due <= now.mono_ms {
                node.tick();
                SHORTEST
            } else {
                Duration::from_millis(due - now.mono_ms).min(LONGEST)
            }
        };
        sleep(wait).await;
    }
}

fn random<const WORDS: usize>() -> Result<[u64; WORDS], RunError> {
    use ring::rand::SecureRandom as _;
    let source = ring::rand::SystemRandom::new();
    let mut words = [0; WORDS];
    for word in &mut words {
        let mut bytes = [0; 8];
        source.fill(&mut bytes).map_err(|_| RunError::Random)?;
        *word = u64::from_ne_bytes(bytes);
    }
    Ok(words)
}
