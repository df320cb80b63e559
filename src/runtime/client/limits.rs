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
