//! A layer around the client's service: each request has a limit in time, and only a leader writes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, timeout_at};
use tower::{BoxError, Layer, Service};

use crate::runtime::leader::Leadership;
use crate::runtime::metrics::is_watch;

/// Limit of a request for one object, or that changes one, with its answer: above what admission webhooks may take
/// before the API server gives them up (10 s by default, 30 s at most), below the limit of a reconcile (60 s).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit of a list: a page of 500 objects can be several megabytes.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit for the headers of a watch. Its body lasts as long as the server likes; kube's watcher has an idle timeout.
pub const WATCH_START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request was refused or given up on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The limit passed. Whether a write took effect is unknown.
    #[error("the API server did not answer in time")]
    Timeout,
    /// This process does not lead, so it must not write.
    #[error("not written: this replica does not hold the lease")]
    NotLeader,
}

impl RequestError {
    /// Short form for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NotLeader => "not_leader",
        }
    }
}

/// Whether a request failed because this process does not lead.
pub fn is_not_leader(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(source) if source.downcast_ref() == Some(&RequestError::NotLeader))
}

/// Wraps a client's service with the limits.
#[derive(Clone, Debug)]
pub struct LimitsLayer {
    leadership: Leadership,
}

impl LimitsLayer {
    /// Writes pass while `leadership` is held.
    pub fn new(leadership: Leadership) -> Self {
        Self { leadership }
    }
}

impl<S> Layer<S> for LimitsLayer {
    type Service = LimitsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitsService {
            inner,
            leadership: self.leadership.clone(),
        }
    }
}

/// Limits requests; see [`LimitsLayer`].
#[derive(Clone, Debug)]
pub struct LimitsService<S> {
    inner: S,
    leadership: Leadership,
}

impl<S, B, R> Service<Request<B>> for LimitsService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError>,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<LimitedBody<R>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let kind = Kind::of(request.method(), request.uri().query());
        let mut deadline = Instant::now() + kind.timeout();
        if kind == Kind::Write {
            match self.leadership.write_deadline() {
                Some(end) => deadline = end.at_most(deadline),
                None => return futures::future::ready(Err(RequestError::NotLeader.into())).boxed(),
            }
        }
        let answer = timeout_at(deadline, self.inner.call(request));
        async move {
            let response = answer.await.map_err(|_| RequestError::Timeout)??;
            let limit = (kind != Kind::Watch).then(|| Box::pin(tokio::time::sleep_until(deadline)));
            Ok(response.map(|body| LimitedBody { body, limit }))
        }
        .boxed()
    }
}

/// What a request is, as far as its limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Watch,
    List,
    Write,
    /// A write that the API server only tries out.
    DryRun,
}

impl Kind {
    fn of(method: &Method, query: Option<&str>) -> Self {
        if *method == Method::GET || *method == Method::HEAD {
            if is_watch(query) { Self::Watch } else { Self::List }
        } else if query.is_some_and(|query| query.split('&').any(|pair| pair == "dryRun=All")) {
            Self::DryRun
        } else {
            Self::Write
        }
    }

    fn timeout(self) -> Duration {
        match self {
            Self::Watch => WATCH_START_TIMEOUT,
            Self::List => LIST_TIMEOUT,
            Self::Write | Self::DryRun => REQUEST_TIMEOUT,
        }
    }
}

/// A response body that fails once the limit of its request has passed.
#[derive(Debug)]
pub struct LimitedBody<B> {
    body: B,
    limit: Option<Pin<Box<Sleep>>>,
}

impl<B> Body for LimitedBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let passed = this
            .limit
            .as_mut()
            .is_some_and(|limit| limit.as_mut().poll(cx).is_ready());
        if passed {
            Poll::Ready(Some(Err(RequestError::Timeout.into())))
        } else {
            Poll::Pending
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;
    use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    /// A client whose server answers after that time; and the number of requests that reached it.
    fn client(leadership: Leadership, answer_after: Duration) -> (Client, Arc<AtomicUsize>) {
        let reached = Arc::new(AtomicUsize::new(0));
        let counter = reached.clone();
        let server = tower::service_fn(move |request: Request<kube::client::Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let body = if *request.method() == Method::GET {
                json!({ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": [] })
            } else {
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } })
            };
            async move {
                tokio::time::sleep(answer_after).await;
                Ok::<_, BoxError>(Response::new(kube::client::Body::from(
                    body.to_string().into_bytes(),
                )))
            }
        });
        (
            Client::new(LimitsLayer::new(leadership).layer(server), "default"),
            reached,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn without_leadership_reads_and_dry_runs_pass_and_writes_do_not() {
        let (client, reached) = client(Leadership::never(), Duration::ZERO);
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let patch = Patch::Apply(json!({}));
        maps.list(&ListParams::default()).await.expect("a read passes");
        let dry = PatchParams::apply("test").dry_run();
        maps.patch("x", &dry, &patch).await.expect("a dry run passes");
        assert_eq!(reached.load(Ordering::Relaxed), 2);

        let refused = [
            maps.patch("x", &PatchParams::apply("test"), &patch)
                .await
                .map(drop),
            maps.create(&PostParams::default(), &ConfigMap::default())
                .await
                .map(drop),
            maps.replace("x", &PostParams::default(), &ConfigMap::default())
                .await
                .map(drop),
            maps.delete("x", &kube::api::DeleteParams::default())
                .await
                .map(drop),
        ];
        for result in refused {
            let error = result.expect_err("a write is refused");
            assert!(is_not_leader(&error), "{error}");
        }
        assert_eq!(reached.load(Ordering::Relaxed), 2, "no write reached the server");
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_request_has_its_limit() {
        let (client, _) = client(Leadership::unlimited(), Duration::from_hours(1));
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let begin = Instant::now();
        let error = maps.list(&ListParams::default()).await.expect_err("no answer");
        assert!(error.to_string().contains("did not answer in time"), "{error}");
        assert_eq!(begin.elapsed().as_secs(), LIST_TIMEOUT.as_secs());

        let begin = Instant::now();
        let error = maps
            .create(&PostParams::default(), &ConfigMap::default())
            .await
            .expect_err("no answer");
        assert!(!is_not_leader(&error), "{error}");
        assert_eq!(begin.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
    }

    /// A body that never ends.
    struct Endless;

    impl Body for Endless {
        type Data = &'static [u8];
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
            Poll::Pending
        }
    }

    async fn read_endless(uri: &str) -> Option<Result<Frame<&'static [u8]>, BoxError>> {
        let server = tower::service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(Endless)));
        let request = Request::get(uri).body(()).unwrap();
        let response = LimitsLayer::new(Leadership::never())
            .layer(server)
            .oneshot(request)
            .await
            .unwrap();
        let mut body = response.into_body();
        std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_limited_except_those_of_watches() {
        let begin = Instant::now();
        let frame = read_endless("/api/v1/pods").await;
        assert!(matches!(frame, Some(Err(error)) if error.downcast_ref() == Some(&RequestError::Timeout)));
        assert_eq!(begin.elapsed().as_secs(), LIST_TIMEOUT.as_secs());
        let watch =
            tokio::time::timeout(Duration::from_hours(1), read_endless("/api/v1/pods?watch=true")).await;
        assert!(watch.is_err(), "a watch lasts");
    }
}
