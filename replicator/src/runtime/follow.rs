//! Following the upstream store: what clients send goes there, byte for byte, and so do its replies.
//!
//! While some pods still speak to that store by themselves, or do so already, no other pod may answer from what it holds.
//! Whether a process follows or leads can be changed at any time: connections of the other kind are then ended between two
//! requests, and clients connect anew. So that no two members answer the same user from different places, all of them
//! first hold: their clients' connections end, and new ones wait until the change has been made everywhere.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::node::{Node, Shared};
use super::upstream::Upstream;
use crate::front::mailbox::Mailbox;

/// Bytes that are passed on at once.
const PORTION: usize = 16 << 10;
/// For what is passed on to be taken.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that has been silent for so long is between two requests of the application.
const QUIET_MS: u64 = 200;
/// After so long a connection is ended between two commands, however busy it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// New clients wait for so long at most.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks for connections to end.
const LOOK: Duration = Duration::from_millis(20);

/// Passes a client's connection on to the upstream store until either side ends it.
///
/// # Errors
/// The store is not in reach, or one of the two connections failed.
pub async fn serve<S>(client: S, upstream: Rc<Upstream>, node: Shared, mailbox: Rc<Mailbox>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let store = match upstream.store().open().await {
        Ok(store) => store,
        Err(error) => {
            warn!(%error, "a client cannot be passed on: the upstream store is not in reach");
            return refuse(client, b"-TRYAGAIN the store is not in reach\r\n").await;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_store, mut to_store) = tokio::io::split(store);
    let (mut up, mut down) = (vec![0; PORTION], vec![0; PORTION]);
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let portion = up.get(..read?).unwrap_or_default();
                if portion.is_empty() {
                    break;
                }
                mailbox.touch(node.borrow().now().wall_ms);
                mailbox.set_busy(true);
                timeout(TAKE_TIMEOUT, to_store.write_all(portion)).await??;
                to_store.flush().await?;
            }
            read = from_store.read(&mut down) => {
                let portion = down.get(..read?).unwrap_or_default();
                if portion.is_empty() {
                    break;
                }
                timeout(TAKE_TIMEOUT, to_client.write_all(portion)).await??;
                to_client.flush().await?;
                mailbox.touch(node.borrow().now().wall_ms);
                mailbox.set_busy(false);
            }
            () = poll_fn(|context| mailbox.poll_ready(context, |_| false)) => break,
        }
    }
    to_client.shutdown().await
}

/// Tells a client why it cannot be served, and ends the connection.
///
/// # Errors
/// The client is gone.
pub async fn refuse<S: AsyncWrite + Unpin>(mut client: S, why: &[u8]) -> io::Result<()> {
    timeout(TAKE_TIMEOUT, client.write_all(why)).await??;
    client.shutdown().await
}

/// Makes new clients wait, and ends the connections of the others, until a change is made; for a while at most, as whoever
/// asked for it may be gone.
pub fn hold(node: &Shared) {
    let (number, connections) = {
        let mut node = node.borrow_mut();
        if node.held {
            return;
        }
        node.held = true;
        node.holds += 1;
        let clients = node.server.clients.values();
        let connections = clients.map(|client| Rc::clone(&client.mailbox)).collect();
        (node.holds, connections)
    };
    spawn_local(end(Rc::clone(node), connections));
    let node = Rc::clone(node);
    spawn_local(async move {
        sleep(HOLD_LIMIT).await;
        let mut node = node.borrow_mut();
        if node.held && node.holds == number {
            warn!("clients have waited for long, and nobody has said what for: they are served as before");
            release(&mut node);
        }
    });
}

fn release(node: &mut Node) {
    node.held = false;
    node.released.notify_waiters();
}

/// Waits until new clients may be served.
pub async fn released(node: &Shared) {
    loop {
        let released = Rc::clone(&node.borrow().released);
        let told = released.notified();
        if !node.borrow().held {
            return;
        }
        told.await;
    }
}

/// Follows the upstream store from now on, or leads. Connections that began otherwise are ended before long.
pub fn change(node: &Shared, follows: bool) {
    let others: Vec<Rc<Mailbox>> = {
        let mut node = node.borrow_mut();
        release(&mut node);
        if node.follows == follows {
            return;
        }
        node.follows = follows;
        if !follows {
            let now = node.now();
            node.core.lead_upstream(now);
        }
        node.led |= !follows;
        let clients = node.server.clients.values();
        clients.map(|client| Rc::clone(&client.mailbox)).collect()
    };
    info!(
        follows,
        connections = others.len(),
        "clients are answered from elsewhere from now on"
    );
    spawn_local(end(Rc::clone(node), others));
}

/// Ends connections: first those whose application is between two requests, then the others between two commands.
async fn end(node: Shared, mut connections: Vec<Rc<Mailbox>>) {
    let patient = sleep(PATIENCE);
    tokio::pin!(patient);
    while !connections.is_empty() && !patient.is_elapsed() {
        let now_ms = node.borrow().now().wall_ms;
        connections.retain(|mailbox| {
            let silent_ms = now_ms.saturating_sub(mailbox.active_ms());
            let quiet = !mailbox.is_busy() && silent_ms > QUIET_MS;
            if quiet {
                mailbox.leave();
            }
            !quiet
        });
        tokio::select! {
            () = sleep(LOOK) => {}
            () = &mut patient => {}
        }
    }
    for mailbox in connections {
        mailbox.leave();
    }
}
