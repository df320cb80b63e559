//! Probes and metrics on the pod's address: nothing else, and nothing about single sessions.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::metrics;
use super::node::Shared;

/// Connections at once: a kubelet and a few scrapers.
const MAX_CONNECTIONS: usize = 64;
/// For a whole connection: scrapers come back with a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
/// For the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on this listener.
pub fn start(listener: TcpListener, node: &Shared) {
    spawn_local(accept(listener, Rc::clone(node)));
}

async fn accept(listener: TcpListener, node: Shared) {
    let open = Rc::new(());
    loop {
        match listener.accept().await {
            Ok(_) if Rc::strong_count(&open) > MAX_CONNECTIONS => {}
            Ok((stream, _)) => {
                let (node, held) = (Rc::clone(&node), Rc::clone(&open));
                spawn_local(async move {
                    let service = service_fn(|request| {
                        let response = respond(&node, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                        debug!(%error, "an HTTP connection failed");
                    }
                    drop(held);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept HTTP connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn respond(node: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        // The answer itself is the proof: it comes from the event loop that serves clients.
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let phase = node.borrow().phase;
            if phase.is_ready() {
                text(StatusCode::OK, "ok\n")
            } else if phase.started {
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "leaving: the pod still serves, but takes no new users\n",
                )
            } else {
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "joining: taking over the sessions\n",
                )
            }
        }
        "/metrics" => match metrics::encode(&node.borrow()) {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                response.headers_mut().insert(CONTENT_TYPE, metrics::CONTENT_TYPE);
                response
            }
            Err(error) => {
                warn!(%error, "metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n")
            }
        },
        _ => text(StatusCode::NOT_FOUND, "not found: /livez, /readyz, /metrics\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
