//! From the API server's question to the answer (admission.k8s.io/v1 AdmissionReview).

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::{Client, Resource};
use tokio::time::timeout;

use crate::api::SessionInjection;
use crate::injection::{named_by, patch};
use crate::runtime::client::explain;

/// Path that the webhook's configuration names.
pub const PATH: &str = "/inject";

/// Limit for reading the injection, below the 5 s that the API server gives the webhook: an answer that names the
/// cause beats none.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes of a question. An object has 3 MiB at most (the API server's limit for a request), and a creation carries
/// one.
const BODY_LIMIT: usize = 4 << 20;

/// Limit for a question to arrive and be answered: twice what an API server waits.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The routes.
pub fn router(client: Client) -> Router {
    Router::new()
        .route(PATH, post(answer))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(in_time))
        .with_state(client)
}

/// Nobody keeps a connection busy by sending slowly.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = timeout(EXCHANGE_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

/// Why there is no answer. The API server then does what `failurePolicy` says, and repeats the sentence.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the review has no request, or none about a Pod")]
    NoRequest,
    #[error("cannot read SessionInjection {namespace}/{name}: {cause}")]
    Lookup {
        namespace: String,
        name: String,
        cause: String,
    },
    #[error("SessionInjection {name} cannot be written as a patch: {source}")]
    Patch { name: String, source: serde_json::Error },
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        tracing::warn!(error = %self, "a pod was not reviewed");
        let status = match self {
            Self::NoRequest => StatusCode::BAD_REQUEST,
            Self::Lookup { .. } | Self::Patch { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}

async fn answer(
    State(client): State<Client>,
    Json(review): Json<AdmissionReview<Pod>>,
) -> Result<Response, Error> {
    let request: AdmissionRequest<Pod> = review.try_into().map_err(|_| Error::NoRequest)?;
    let response = AdmissionResponse::from(&request);
    let pod = request.object.as_ref().ok_or(Error::NoRequest)?;
    let response = match injection_of(&client, &request, pod).await? {
        None => response,
        Some(injection) => {
            let name = || injection.meta().name.clone().unwrap_or_default();
            let failed = |source| Error::Patch { name: name(), source };
            let patch = patch(pod, &injection.spec).map_err(failed)?;
            tracing::debug!(
                namespace = request.namespace,
                injection = name(),
                operations = patch.len(),
                "a pod is injected"
            );
            if patch.is_empty() {
                response
            } else {
                let failed = |_| Error::Patch {
                    name: name(),
                    source: serde::ser::Error::custom("its patch has no form in JSON"),
                };
                response.with_patch(patch).map_err(failed)?
            }
        }
    };
    Ok(Json(response.into_review()).into_response())
}

/// The injection that the pod's label names, if there is one.
///
/// Read from the API server for each pod and not from a cache: it is there from the first request on, knows an injection
/// as soon as it is written, and pods that carry the label are created seldom.
async fn injection_of(
    client: &Client,
    request: &AdmissionRequest<Pod>,
    pod: &Pod,
) -> Result<Option<SessionInjection>, Error> {
    let Some(name) = named_by(pod).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let namespace = request.namespace.clone().unwrap_or_default();
    let injections: Api<SessionInjection> = Api::namespaced(client.clone(), &namespace);
    let cause = match timeout(LOOKUP_TIMEOUT, injections.get_opt(name)).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => explain(&error),
        Err(_) => format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs()),
    };
    Err(Error::Lookup {
        namespace,
        name: name.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::{BoxError, ServiceExt};

    use super::*;
    use crate::api::INJECTION_LABEL;

    /// A client of an API server that answers every request so.
    fn client(code: u16, answer: &Value) -> Client {
        let answer = answer.to_string();
        let server = tower::service_fn(move |_: Request<kube::client::Body>| {
            let body = kube::client::Body::from(answer.clone().into_bytes());
            let response = http::Response::builder().status(code).body(body);
            std::future::ready(response.map_err(BoxError::from))
        });
        Client::new(server, "default")
    }

    fn failure(code: u16, reason: &str, message: &str) -> Client {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
        client(code, &status)
    }

    /// As an API server 1.33 asks.
    fn question(labels: &Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
                "requestResource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "web",
                "operation": "CREATE",
                "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
                "object": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"generateName": "shop-", "labels": labels},
                    "spec": {"containers": [{"name": "web", "image": "shop", "fieldOfTomorrow": 1}]}
                },
                "oldObject": null,
                "dryRun": false,
                "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}
            }
        })
    }

    async fn ask(client: Client, question: &Value) -> (u16, String) {
        let request = Request::post(PATH).header("content-type", "application/json");
        let request = request.body(Body::from(question.to_string())).unwrap();
        let response = router(client).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What the API server reads from an answer.
    async fn allowed(client: Client, question: &Value) -> Value {
        let (status, body) = ask(client, question).await;
        assert_eq!(status, 200, "{body}");
        let review: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(review["response"]["uid"], "705ab4f5");
        assert_eq!(review["response"]["allowed"], true);
        review["response"].clone()
    }

    fn labelled() -> Value {
        question(&json!({INJECTION_LABEL: "shop-1"}))
    }

    #[tokio::test]
    async fn the_answer_is_the_patch() {
        let injection = json!({
            "apiVersion": "session-operator.dev/v1alpha1",
            "kind": "SessionInjection",
            "metadata": {"name": "shop-1", "namespace": "web"},
            "spec": {
                "policy": {"name": "shop", "uid": "u"},
                "containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]
            }
        });
        let response = allowed(client(200, &injection), &labelled()).await;
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        let added =
            json!([{"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "A", "value": "1"}]}]);
        assert_eq!(patch, added);
    }

    #[tokio::test]
    async fn a_label_that_names_nothing_changes_nothing() {
        let none = || failure(404, "NotFound", "sessioninjections \"shop-1\" not found");
        // Without a name nothing is asked for: a failing server is not noticed.
        let unasked = || failure(500, "InternalError", "no");
        for (client, question) in [
            (none(), labelled()),
            (unasked(), question(&json!({INJECTION_LABEL: ""}))),
            (unasked(), question(&json!({}))),
        ] {
            assert_eq!(allowed(client, &question).await.get("patch"), None);
        }
    }

    /// Then it is for `failurePolicy` to say what becomes of the pod: a refusal of ours would leave no choice.
    #[tokio::test]
    async fn no_answer_is_made_up() {
        let forbidden = failure(403, "Forbidden", "cannot get resource");
        let (status, body) = ask(forbidden, &labelled()).await;
        assert_eq!(status, 500);
        assert!(
            body.contains("SessionInjection web/shop-1") && body.contains("cannot get resource"),
            "{body}"
        );
        let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        assert_eq!(ask(failure(500, "InternalError", "no"), &empty).await.0, 400);
    }
}
