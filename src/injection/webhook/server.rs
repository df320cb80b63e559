//! HTTPS with a certificate that changes while connections are open.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::{Router, middleware};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Connections at the same time. An API server keeps a few; more is somebody else.
const CONNECTIONS: usize = 256;

/// Limit of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may stay without a request. Longer than the API server's own limit (90 s), so that it is the
/// one that closes: a request could be on its way when we do.
const IDLE_TIMEOUT: Duration = Duration::from_mins(3);

/// How long requests under way may last once the server ends: as long as the API server waits for an answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a replica goes on serving after the request to stop: the time in which kube-proxies learn that it is leaving.
const LEAVING: Duration = Duration::from_secs(5);

/// Pause after a failure to accept a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificate for new connections, with its key.
#[derive(Debug, Default)]
pub struct ServingKey(RwLock<Option<Arc<CertifiedKey>>>);

impl ServingKey {
    /// Uses this one from now on. Connections that are open keep the one that they began with.
    pub fn set(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }
}

impl ResolvesServerCert for ServingKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until [`LEAVING`] after `requested` resolves, and then what is under way.
pub async fn serve(
    listener: TcpListener,
    key: Arc<ServingKey>,
    router: Router,
    requested: impl Future<Output = ()>,
) {
    let is_leaving = Arc::new(AtomicBool::new(false));
    let router = router.layer(middleware::map_response_with_state(
        is_leaving.clone(),
        say_goodbye,
    ));
    let leaving = async move {
        requested.await;
        is_leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(LEAVING).await;
    };
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(key);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut leaving = std::pin::pin!(leaving);
    loop {
        let stream = tokio::select! {
            () = &mut leaving => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let (stream, permit) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the webhook");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, &acceptor, router, watcher).await {
                tracing::debug!(%error, "a connection to the webhook ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests to the webhook were under way for too long");
    }
}

/// While this replica leaves, every answer ends its connection: the next one leads to another replica, and none is left
/// to be closed while a request is on its way.
async fn say_goodbye(State(is_leaving): State<Arc<AtomicBool>>, mut response: Response) -> Response {
    if is_leaving.load(Ordering::Relaxed) {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Serves one connection until either side ends it.
async fn converse(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    router: Router,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    Ok(watcher.watch(connection).await?)
}
