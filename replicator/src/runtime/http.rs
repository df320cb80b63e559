//! Probes and metrics on the pod's address: nothing else, and nothing about single sessions. State and hints only over
//! the members' TLS, for whoever shows a certificate of the policy.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::metrics;
use super::node::Shared;
use super::state::State;
use super::upstream::{self, UpstreamRequest};
use crate::core::Input;

/// Connections at once: a kubelet and a few scrapers.
const MAX_CONNECTIONS: usize = 64;
/// For a whole connection: scrapers come back with a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
/// For the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body: names of pods.
const MAX_BODY: usize = 1 << 20;
/// What there is for those who are trusted.
const TRUSTED: &str = "not found: GET /state, PUT /pods, POST /upstream/copy-in, /upstream/copy-out, /upstream/hold, /upstream/follow, /upstream/lead\n";
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

/// Answers on a connection of somebody who has shown a certificate of the policy: the operator.
pub async fn serve_trusted<S: AsyncRead + AsyncWrite + Unpin>(stream: S, node: &Shared) {
    let service = service_fn(|request| {
        let node = Rc::clone(node);
        async move { Ok::<_, Infallible>(respond_trusted(&node, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%error, "an HTTP connection failed");
    }
}

async fn respond_trusted(node: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/state") => match serde_json::to_vec_pretty(&State::of(&node.borrow())) {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(error) => {
                warn!(%error, "the state cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the state cannot be written\n")
            }
        },
        (&Method::POST, path) => {
            let request = path.strip_prefix("/upstream/").and_then(UpstreamRequest::parse);
            match request {
                Some(request) => text(StatusCode::OK, upstream::ask(node, request)),
                None => text(StatusCode::NOT_FOUND, TRUSTED),
            }
        }
        (&Method::PUT, "/pods") => {
            let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "expected at most a mebibyte\n");
            };
            match serde_json::from_slice::<Vec<String>>(&body.to_bytes()) {
                Ok(names) => {
                    node.borrow_mut().step(&Input::Exists { names });
                    text(StatusCode::OK, "ok\n")
                }
                Err(_) => text(
                    StatusCode::BAD_REQUEST,
                    "expected a JSON array with the names of all pods that exist\n",
                ),
            }
        }
        _ => text(StatusCode::NOT_FOUND, TRUSTED),
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
