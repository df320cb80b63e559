//! Counts requests to the API server, in a layer around the client.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::{BoxError, Layer, Service};

use super::Metrics;
use crate::runtime::client::RequestError;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// get, list, watch, create, update, patch, delete, or other.
    pub verb: &'static str,
    /// `resource[/subresource]` of the core group, `group/resource[/subresource]` of others, `discovery`, or `other`.
    pub resource: String,
}

/// Parses the method, path and query of a request as Kubernetes does (`RequestInfo` of k8s.io/apiserver). Namespaces
/// and names of objects do not come into the result.
pub fn classify(method: &str, path: &str, query: Option<&str>) -> ApiRequest {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _version, rest @ ..] if !rest.is_empty() => (None, rest),
        ["apis", group, _version, rest @ ..] if !rest.is_empty() => (Some(*group), rest),
        ["api" | "apis", ..] => {
            return ApiRequest {
                verb: verb(method, false, None),
                resource: "discovery".to_owned(),
            };
        }
        _ => {
            return ApiRequest {
                verb: verb(method, true, None),
                resource: "other".to_owned(),
            };
        }
    };
    let (resource, name, subresource) = match rest {
        // Below a namespace, except for the namespace's own subresources.
        ["namespaces", _, sub @ ("status" | "finalize")] => ("namespaces", true, Some(*sub)),
        ["namespaces", _, resource] | [resource] => (*resource, false, None),
        ["namespaces", _, resource, _name] | [resource, _name] => (*resource, true, None),
        ["namespaces", _, resource, _name, sub, ..] | [resource, _name, sub, ..] => {
            (*resource, true, Some(*sub))
        }
        [] => ("", false, None),
    };
    let mut label = String::new();
    for part in [group, Some(resource), subresource].into_iter().flatten() {
        if !label.is_empty() {
            label.push('/');
        }
        label.push_str(part);
    }
    ApiRequest {
        verb: verb(method, name, query),
        resource: label,
    }
}

fn verb(method: &str, named: bool, query: Option<&str>) -> &'static str {
    match method {
        "GET" if is_watch(query) => "watch",
        "GET" if named => "get",
        "GET" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// Whether the query asks for a watch.
pub(crate) fn is_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query
            .split('&')
            .any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1"))
    })
}

/// Wraps a client's service so that its requests are counted.
#[derive(Clone, Debug)]
pub struct ApiRequestsLayer {
    metrics: Metrics,
}

impl ApiRequestsLayer {
    /// Counts into these metrics.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for ApiRequestsLayer {
    type Service = ApiRequestsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiRequestsService {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

/// Counts requests; see [`ApiRequestsLayer`].
#[derive(Clone, Debug)]
pub struct ApiRequestsService<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B, R> Service<Request<B>> for ApiRequestsService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError>,
    S::Future: Send + 'static,
    R: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let kind = classify(request.method().as_str(), uri.path(), uri.query());
        let metrics = self.metrics.clone();
        self.inner
            .call(request)
            .inspect(move |result| {
                let code = match result {
                    Ok(response) => response.status().as_str().to_owned(),
                    Err(error) => error
                        .downcast_ref()
                        .map_or("error", RequestError::label)
                        .to_owned(),
                };
                metrics.api_request(&kind, code);
            })
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_classified_without_names() {
        for (method, path, query, verb, resource) in [
            (
                "GET",
                "/api/v1/namespaces/web/services/shop",
                None,
                "get",
                "services",
            ),
            ("GET", "/api/v1/namespaces/web/services", None, "list", "services"),
            ("GET", "/api/v1/services", Some("limit=500"), "list", "services"),
            (
                "GET",
                "/api/v1/services",
                Some("&watch=true&timeoutSeconds=290"),
                "watch",
                "services",
            ),
            (
                "GET",
                "/apis/apps/v1/deployments",
                Some("watch=1"),
                "watch",
                "apps/deployments",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/o/leases/l",
                None,
                "update",
                "coordination.k8s.io/leases",
            ),
            (
                "PATCH",
                "/apis/session-operator.dev/v1alpha1/namespaces/web/sessionpolicies/shop/status",
                Some("fieldManager=x"),
                "patch",
                "session-operator.dev/sessionpolicies/status",
            ),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/web/events",
                None,
                "create",
                "events.k8s.io/events",
            ),
            ("DELETE", "/api/v1/namespaces/web/pods/p", None, "delete", "pods"),
            (
                "POST",
                "/api/v1/namespaces/web/pods/p/eviction",
                None,
                "create",
                "pods/eviction",
            ),
            ("GET", "/api/v1/namespaces/web", None, "get", "namespaces"),
            ("GET", "/api/v1/namespaces", None, "list", "namespaces"),
            (
                "PUT",
                "/api/v1/namespaces/web/finalize",
                None,
                "update",
                "namespaces/finalize",
            ),
            (
                "GET",
                "/apis/networking.k8s.io/v1/ingressclasses/nginx",
                None,
                "get",
                "networking.k8s.io/ingressclasses",
            ),
            ("GET", "/api/v1/nodes/n1/proxy/logs/x", None, "get", "nodes/proxy"),
            ("GET", "/apis", None, "list", "discovery"),
            ("GET", "/api/v1", None, "list", "discovery"),
            ("GET", "/apis/apps/v1", None, "list", "discovery"),
            ("GET", "/version", None, "get", "other"),
            ("GET", "/", None, "get", "other"),
            ("OPTIONS", "/api/v1/pods", None, "other", "pods"),
        ] {
            let expected = ApiRequest {
                verb,
                resource: resource.to_owned(),
            };
            assert_eq!(
                classify(method, path, query),
                expected,
                "{method} {path} {query:?}"
            );
        }
    }

    #[test]
    fn watch_is_told_from_similar_parameters() {
        assert!(!is_watch(None));
        assert!(!is_watch(Some("watch=false")));
        assert!(!is_watch(Some("allowWatchBookmarks=true&fieldSelector=watch")));
        assert!(is_watch(Some("allowWatchBookmarks=true&watch=true")));
    }
}
