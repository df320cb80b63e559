//! Keeps links to all members: accepts those that dial, dials those that are known and not linked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::discovery::Seeds;
use super::link;
use super::places;
use super::tls::{Files, HTTP, Material, TlsContext, TlsError};
use crate::core::Input;
use crate::runtime::http;
use crate::runtime::node::Shared;

/// For connecting: a kernel on the same network answers in milliseconds. One that was cut off is to be found as soon as it is back:
/// until then a request that waited on the way to it is answered by what it had before.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// For the handshake, which a busy peer takes its time for.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks for members while this one is starting.
const LOOK_INTERVAL_STARTING: Duration = Duration::from_millis(500);
/// Between two looks for members afterwards.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After the first failure to dial an address; doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// At most so long between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Where connections have been refused for so long there is no member: one that starts listens within milliseconds.
const REFUSED: Duration = Duration::from_secs(2);
/// Between two looks at files that may have been replaced.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Links that peers may have open to this process: far more than there are members.
const MAX_ACCEPTED: usize = 1_024;

/// How links are protected.
#[derive(Debug, Clone)]
pub enum Protection {
    /// TLS 1.3 on both sides.
    Tls(Files),
    /// Nothing: only by explicit wish.
    Plaintext,
}

/// The present TLS context; `None` without protection.
type Current = Rc<RefCell<Option<TlsContext>>>;

/// Everything about peers.
#[derive(Debug)]
pub struct Peers {
    /// Where they dial us.
    pub listener: TcpListener,
    /// Where they reach us, as they know it.
    pub own: String,
    /// Where to look for them.
    pub seeds: Seeds,
    /// How links are protected.
    pub protection: Protection,
    /// The operator's file of places.
    pub places: Option<std::path::PathBuf>,
}

/// Attempts to reach an address.
#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    next: Option<Instant>,
    under_way: bool,
    /// Since when connections have been refused, without a link between.
    refused_since: Option<Instant>,
}

type Dialled = Rc<RefCell<BTreeMap<String, Attempts>>>;

impl Peers {
    /// Starts all tasks.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub async fn start(self, node: &Shared) -> Result<(), TlsError> {
        let current: Current = Rc::default();
        if let Protection::Tls(files) = self.protection {
            let material = files.read().await?;
            *current.borrow_mut() = Some(files.context(&material)?);
            spawn_local(reload(files, material, Rc::clone(&current)));
        }
        if let Some(path) = self.places {
            spawn_local(watch_places(path, Rc::clone(node)));
        }
        spawn_local(accept(self.listener, Rc::clone(&current), Rc::clone(node)));
        spawn_local(dial_all(self.seeds, self.own, current, Rc::clone(node)));
        Ok(())
    }
}

/// Takes new certificates into use for new links; those that stand go on.
async fn reload(files: Files, mut material: Material, current: Current) {
    loop {
        sleep(RELOAD_INTERVAL).await;
        let read = files.read().await.and_then(|new| {
            if new == material {
                return Ok(None);
            }
            let context = files.context(&new)?;
            Ok(Some((new, context)))
        });
        match read {
            Ok(None) => {}
            Ok(Some((new, context))) => {
                info!("the peers' certificates were replaced");
                material = new;
                *current.borrow_mut() = Some(context);
            }
            Err(error) => {
                warn!(%error, "the peers' certificates cannot be reloaded; the old ones stay in use");
            }
        }
    }
}

async fn watch_places(path: std::path::PathBuf, node: Shared) {
    let mut last = String::new();
    loop {
        match tokio::fs::read_to_string(&path).await {
            Ok(text) if text != last => {
                match places::parse(&text) {
                    Ok(places) => node.borrow_mut().step(&Input::Topology { places }),
                    Err(error) => warn!(%error, "the places file is not used"),
                }
                last = text;
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "the places file cannot be read"),
        }
        sleep(RELOAD_INTERVAL).await;
    }
}

async fn accept(listener: TcpListener, current: Current, node: Shared) {
    let open = Rc::new(());
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if Rc::strong_count(&open) > MAX_ACCEPTED {
                    warn!(%address, "too many links: a peer is turned away");
                    continue;
                }
                let (current, node, held) = (Rc::clone(&current), Rc::clone(&node), Rc::clone(&open));
                spawn_local(async move {
                    if let Err(error) = accepted(stream, &current, &node).await {
                        debug!(%address, %error, "a link from a peer ended");
                    }
                    drop(held);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept links from peers");
                sleep(FIRST_BACKOFF).await;
            }
        }
    }
}

async fn accepted(stream: TcpStream, current: &Current, node: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let context = current.borrow().clone();
    let Some(context) = context else {
        return link::run(stream, node, false).await;
    };
    let stream = timeout(HANDSHAKE_TIMEOUT, context.acceptor.accept(stream)).await??;
    if let Err(error) = context.check_identity(stream.get_ref().1.peer_certificates()) {
        warn!(%error, "a peer is refused");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
    }
    if stream.get_ref().1.alpn_protocol() == Some(HTTP) {
        http::serve_trusted(stream, node).await;
        return Ok(());
    }
    link::run(stream, node, false).await
}

/// Looks for members, tells the core how many there may be, and dials those that are not linked.
async fn dial_all(seeds: Seeds, own: String, current: Current, node: Shared) {
    let dialled: Dialled = Rc::default();
    let told = Rc::clone(&node.borrow().dial);
    let mut known = BTreeSet::new();
    let mut look_at = Instant::now();
    loop {
        if Instant::now() >= look_at {
            let found = seeds.look(&own).await;
            let starting = !node.borrow().phase.started;
            look_at = Instant::now()
                + if starting {
                    LOOK_INTERVAL_STARTING
                } else {
                    LOOK_INTERVAL
                };
            known = found.addresses;
            if found.complete {
                let addresses = without_refusing(&known, &dialled.borrow());
                node.borrow_mut().step(&Input::Discovered {
                    addresses: &addresses,
                });
            }
        }
        let mut wanted = known.clone();
        {
            let mut node = node.borrow_mut();
            wanted.append(&mut node.hints);
            wanted.remove(&own);
            for member in node.core.stats().members {
                if member.linked {
                    wanted.remove(&member.address);
                }
            }
        }
        dialled
            .borrow_mut()
            .retain(|address, attempts| wanted.contains(address) || attempts.under_way);
        for address in wanted {
            attempt(address, &dialled, &current, &node);
        }
        tokio::select! {
            () = told.notified() => {}
            () = sleep(LOOK_INTERVAL_STARTING) => {}
        }
    }
}

/// Addresses at which there may be members. Where connections are refused nobody holds anything: the pods of an
/// application that has no sidecars yet, most likely.
fn without_refusing(known: &BTreeSet<String>, dialled: &BTreeMap<String, Attempts>) -> BTreeSet<String> {
    let refuses = |address: &String| {
        let since = dialled.get(address).and_then(|attempts| attempts.refused_since);
        since.is_some_and(|since| since.elapsed() >= REFUSED)
    };
    known
        .iter()
        .filter(|address| !refuses(address))
        .cloned()
        .collect()
}

/// Dials an address unless that is under way or was tried a moment ago.
fn attempt(address: String, dialled: &Dialled, current: &Current, node: &Shared) {
    {
        let mut dialled = dialled.borrow_mut();
        let attempts = dialled.entry(address.clone()).or_default();
        if attempts.under_way || attempts.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        attempts.under_way = true;
    }
    let (dialled, current, node) = (Rc::clone(dialled), Rc::clone(current), Rc::clone(node));
    spawn_local(async move {
        let result = dial(&address, &current, &node).await;
        let mut dialled = dialled.borrow_mut();
        let attempts = dialled.entry(address.clone()).or_default();
        attempts.under_way = false;
        // A link that stood and ended is tried again soon, as is one that nobody answered: that has taken its time. One that was
        // refused is tried later and later.
        let unanswered = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        attempts.failures = match &result {
            Err(error) if !unanswered(error) => attempts.failures.saturating_add(1),
            _ => 0,
        };
        let backoff = FIRST_BACKOFF
            .saturating_mul(1 << attempts.failures.min(10))
            .min(LONGEST_BACKOFF);
        attempts.next = Some(Instant::now() + backoff);
        let refused = result
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        attempts.refused_since = refused.then(|| attempts.refused_since.unwrap_or_else(Instant::now));
        if let Err(error) = result {
            debug!(%address, %error, "no link to a peer");
        }
    });
}

async fn dial(address: &str, current: &Current, node: &Shared) -> io::Result<()> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let context = current.borrow().clone();
    let ended = match context {
        None => link::run(stream, node, true).await,
        Some(context) => {
            let connecting = context.connector.connect(context.identity.clone(), stream);
            let stream = timeout(HANDSHAKE_TIMEOUT, connecting).await??;
            link::run(stream, node, true).await
        }
    };
    // A link that stood is no failed attempt, however it ended.
    if let Err(error) = ended {
        debug!(%address, %error, "a link to a peer ended");
    }
    Ok(())
}
