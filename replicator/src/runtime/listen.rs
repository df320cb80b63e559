//! Accepts client connections and ends idle ones.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::node::Shared;
use super::{RunError, bind, connection, follow, unix};
use crate::config::Front;
use crate::front::{memcached, resp};

/// After a failed accept (no file descriptors left, most likely): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks for idle connections.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Resp,
    Memcached,
}

/// Opens all listeners for clients.
///
/// # Errors
/// One of them cannot be opened.
pub async fn start(front: &Front, node: &Shared) -> Result<(), RunError> {
    let tcp = front.listen.iter().map(|address| (*address, Protocol::Resp));
    for (address, protocol) in tcp.chain(
        front
            .memcached_listen
            .iter()
            .map(|address| (*address, Protocol::Memcached)),
    ) {
        match bind(address).await {
            Ok(listener) => {
                spawn_local(accept_tcp(listener, protocol, Rc::clone(node)));
            }
            // A pod without IPv6 has no ::1 to listen on; clients there use 127.0.0.1.
            Err(RunError::Listen { source, .. })
                if address.is_ipv6()
                    && address.ip().is_loopback()
                    && source.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                warn!(%address, "no IPv6 loopback address here: not listening on it");
            }
            Err(error) => return Err(error),
        }
    }
    let sockets = [
        (&front.unix_socket, Protocol::Resp),
        (&front.memcached_unix_socket, Protocol::Memcached),
    ];
    for (path, protocol) in sockets {
        if let Some(path) = path {
            let listener = unix(path, front.unix_socket_mode)?;
            spawn_local(accept_unix(
                listener,
                path.display().to_string(),
                protocol,
                Rc::clone(node),
            ));
        }
    }
    Ok(())
}

/// Opens a UNIX socket with these permissions. One that an earlier process of this pod left is replaced.
///
/// # Errors
/// There is a file of another kind, or the socket cannot be made.
pub fn unix(path: &Path, mode: u32) -> Result<unix::Listener, RunError> {
    let failed = |source| RunError::Listen {
        address: path.display().to_string(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    unix::Listener::new(listener).map_err(failed)
}

async fn accept_tcp(listener: TcpListener, protocol: Protocol, node: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let local = stream
                    .local_addr()
                    .map(|local| local.to_string())
                    .unwrap_or_default();
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection ended before it began");
                    continue;
                }
                admit(stream, address.to_string(), local, protocol, &node);
            }
            Err(error) => {
                warn!(%error, "cannot accept clients");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_unix(listener: unix::Listener, path: String, protocol: Protocol, node: Shared) {
    loop {
        match listener.accept().await {
            Ok(stream) => admit(stream, format!("{path}:0"), String::new(), protocol, &node),
            Err(error) => {
                warn!(%error, "cannot accept clients");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit<S>(stream: S, address: String, local: String, protocol: Protocol, node: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if node.borrow().held {
        let node = Rc::clone(node);
        spawn_local(async move {
            follow::released(&node).await;
            admit_now(stream, address, local, protocol, &node);
        });
    } else {
        admit_now(stream, address, local, protocol, node);
    }
}

fn admit_now<S>(mut stream: S, address: String, local: String, protocol: Protocol, node: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let admitted = {
        let mut node = node.borrow_mut();
        let now_ms = node.now().wall_ms;
        node.server.admit(address, local, now_ms)
    };
    let Some((id, mailbox)) = admitted else {
        spawn_local(async move {
            use tokio::io::AsyncWriteExt as _;
            let text: &[u8] = match protocol {
                Protocol::Resp => b"-ERR max number of clients reached\r\n",
                Protocol::Memcached => b"SERVER_ERROR too many open connections\r\n",
            };
            if let Err(error) = stream.write_all(text).await {
                debug!(%error, "a client was turned away and did not wait for the reason");
            }
        });
        return;
    };
    let node = Rc::clone(node);
    spawn_local(async move {
        let ended = match protocol {
            Protocol::Resp if node.borrow().follows => {
                let upstream = node.borrow().upstream.clone();
                match upstream {
                    Some(upstream) => follow::serve(stream, upstream, Rc::clone(&node), mailbox).await,
                    None => Ok(()),
                }
            }
            Protocol::Resp => {
                let dialect = resp::connection::Connection::new(id, &node.borrow().server);
                connection::serve(stream, dialect, Rc::clone(&node), mailbox).await
            }
            Protocol::Memcached if node.borrow().follows => {
                follow::refuse(stream, b"SERVER_ERROR sessions are in another store\r\n").await
            }
            Protocol::Memcached => {
                let dialect = memcached::Connection::default();
                connection::serve(stream, dialect, Rc::clone(&node), mailbox).await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a client's connection failed");
        }
        node.borrow_mut().server.dismiss(id);
    });
}

/// Ends connections that have been silent for too long. Those that listen to messages may be silent.
pub async fn end_idle(node: Shared) {
    loop {
        sleep(IDLE_INTERVAL).await;
        let mut node = node.borrow_mut();
        let now_ms = node.now().wall_ms;
        let server = &mut node.server;
        let limit_ms = server.settings.idle_seconds.saturating_mul(1_000);
        if limit_ms == 0 {
            continue;
        }
        let mut ended = 0;
        for (id, client) in &server.clients {
            let silent_ms = now_ms.saturating_sub(client.mailbox.active_ms().max(client.since_ms));
            if silent_ms > limit_ms && server.channels.count(*id) == 0 {
                client.mailbox.close();
                ended += 1;
            }
        }
        server.stats.connections_idle += ended;
    }
}
