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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(served: &Served, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(served.clone()).oneshot(request).await.unwrap();
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (
            status,
            content_type.unwrap_or_default(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    fn served() -> Served {
        Served {
            readiness: Readiness::default(),
            metrics: Metrics::new(),
            leadership: Leadership::never(),
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_waited_for_and_does_not_need_leadership() {
        let served = served();
        let services = served.readiness.wait_for("cache of services");
        let crd = served.readiness.wait_for("custom resource x");
        let (status, _, body) = get(&served, "/readyz").await;
        assert_eq!(
            (status.as_u16(), body.as_str()),
            (503, "waiting for: cache of services, custom resource x\n")
        );
        assert_eq!(get(&served, "/livez").await.0.as_u16(), 200, "alive all the same");
        services.arrived();
        assert_eq!(get(&served, "/readyz").await.0.as_u16(), 503);
        crd.arrived();
        assert_eq!(get(&served, "/readyz").await.0.as_u16(), 200);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let (status, content_type, body) = get(&served(), "/metrics").await;
        assert_eq!(status.as_u16(), 200);
        assert_eq!(content_type, metrics::CONTENT_TYPE);
        assert!(
            body.contains("session_operator_leader 0\n") && body.ends_with("# EOF\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn one_listener_takes_ipv4_and_a_taken_port_is_an_error() {
        let listener = bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("IPv4 is served");
        let error = bind(port).await.expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
