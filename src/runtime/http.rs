//! HTTP for the kubelet and Prometheus: /livez, /readyz, /metrics. Served by every replica, leader or not.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::leader::Leadership;
use super::metrics::{self, Metrics};

/// What has to happen before this replica is ready. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeSet<String>>>,
}

impl Readiness {
    /// Adds something to wait for, by a name that says what it is, such as `cache of services`. Ready again when the
    /// returned value is told so.
    pub fn wait_for(&self, what: impl Into<String>) -> Awaited {
        let what = what.into();
        self.locked(|waiting| waiting.insert(what.clone()));
        Awaited {
            readiness: self.clone(),
            what,
        }
    }

    /// What is still waited for, sorted.
    pub fn waiting(&self) -> Vec<String> {
        self.locked(|waiting| waiting.iter().cloned().collect())
    }

    fn locked<T>(&self, act: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One thing that readiness waits for. Dropping it without [`Awaited::arrived`] leaves the replica unready.
#[derive(Debug)]
#[must_use = "the replica is unready until this is told to have arrived"]
pub struct Awaited {
    readiness: Readiness,
    what: String,
}

impl Awaited {
    /// It has happened.
    pub fn arrived(self) {
        self.readiness.locked(|waiting| waiting.remove(&self.what));
    }
}

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Served {
    /// For /readyz.
    pub readiness: Readiness,
    /// For /metrics.
    pub metrics: Metrics,
    /// For the leader metric.
    pub leadership: Leadership,
}

/// Listens on all addresses: IPv6 with IPv4 mapped into it, or IPv4 alone where a node has no IPv6.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            tracing::debug!(%error, "no IPv6; listening on IPv4");
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// Serves until the process ends; returns only on an error of the listener.
pub async fn serve(listener: TcpListener, served: Served) -> io::Result<()> {
    axum::serve(listener, router(served)).await
}

/// The routes.
fn router(served: Served) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(served)
}

/// The process runs: an answer at all is the answer.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(served): State<Served>) -> Response {
    let waiting = served.readiness.waiting();
    if waiting.is_empty() {
        return "ok\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for: {}\n", waiting.join(", ")),
    )
        .into_response()
}

async fn metrics(State(served): State<Served>) -> Response {
    match served.metrics.encode(served.leadership.is_leader()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n").into_response()
        }
    }
}
