//! An API server with a policy, its target, the operator, and things of others.

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What a namespace may hold that nobody outside may see.
pub const CLASSIFIED: &str = "CLASSIFIED";

fn pod(name: &str, owner: &str, container: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "web", "labels": {"app": "shop"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-5f", "uid": owner}]
        },
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": container, "env": [{"name": "KEY", "value": CLASSIFIED}]}],
            "initContainers": [{"name": "session-replicator", "restartPolicy": "Always"}]
        },
        "status": {"initContainerStatuses": [{"name": "session-replicator", "restartCount": 1}]}
    })
}

fn event(kind: &str, name: &str, message: &str) -> Value {
    json!({
        "metadata": {"name": format!("{name}.1")}, "type": "Warning", "reason": "Seen", "message": message,
        "lastTimestamp": "2026-01-01T00:00:00Z", "involvedObject": {"kind": kind, "name": name}
    })
}

fn answer(path: &str, query: &str) -> Result<Value, StatusCode> {
    let list = |items: Value| Ok(json!({"metadata": {}, "items": items}));
    let web = path.split_once("/namespaces/web/").map_or("", |(_, rest)| rest);
    match (path, web) {
        ("/version", _) => Ok(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.4", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""
        })),
        ("/apis", _) => Ok(json!({"groups": [{"name": "apps", "versions": []}]})),
        ("/api/v1/pods", _) if query.contains("component%3Doperator") => list(json!([
            {"metadata": {"name": "session-operator-1", "namespace": "operators"},
             "spec": {"containers": [{"name": "operator", "args": ["run"], "image": "session-operator:1"}]}},
            {"metadata": {"name": "postgres-operator-1", "namespace": "postgres"},
             "spec": {"containers": [{"name": "operator", "args": ["serve"]}]}}
        ])),
        ("/api/v1/nodes/node1", _) => Ok(json!({
            "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "eu-1a"}},
            "status": {"nodeInfo": {"kubeletVersion": "v1.36.4"}, "images": [{"names": ["huge"]}]}
        })),
        (_, "sessionpolicies") => list(json!([{
            "metadata": {"name": "shop", "namespace": "web"},
            "spec": {"targetRef": {"name": "shop"}, "strategy": "Replicated"},
            "status": {"conditions": [{"type": "Ready", "status": "False", "message": "redis://u:CLASSIFIED@h"}]}
        }])),
        (_, "deployments/shop") => Ok(json!({
            "metadata": {"name": "shop", "namespace": "web", "uid": "d-1"},
            "spec": {"template": {"metadata": {"labels": {"app": "shop"}}}}
        })),
        (_, "replicasets") => list(json!([
            {"metadata": {"name": "shop-5f", "uid": "r-1", "ownerReferences": [{"uid": "d-1"}]}},
            {"metadata": {"name": "blog-77", "uid": "r-2", "ownerReferences": [{"uid": "d-2"}]}}
        ])),
        (_, "pods") => list(json!([
            pod("shop-5f-a", "r-1", "php"),
            pod("blog-77-a", "r-2", "blog")
        ])),
        (_, "services") => list(json!([
            {"metadata": {"name": "shop"}, "spec": {"selector": {"app": "shop"}}},
            {"metadata": {"name": "blog"}, "spec": {"selector": {"app": "blog"}}}
        ])),
        (_, "ingresses") => list(json!([
            {"metadata": {"name": "front"}, "spec": {"rules": [{"http": {"paths": [
                {"backend": {"service": {"name": "shop"}}}]}}]}},
            {"metadata": {"name": "other"}, "spec": {"defaultBackend": {"service": {"name": "blog"}}}}
        ])),
        (_, "poddisruptionbudgets") => list(json!([
            {"metadata": {"name": "shop"}, "spec": {"selector": {"matchLabels": {"app": "shop"}}, "maxUnavailable": 1}},
            {"metadata": {"name": "blog"}, "spec": {"selector": {"matchLabels": {"app": "blog"}}}}
        ])),
        (_, "horizontalpodautoscalers") => list(json!([
            {"metadata": {"name": "shop"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "shop"}}}
        ])),
        (_, "events") => list(json!([
            event("Pod", "shop-5f-gone", "password=CLASSIFIED"),
            event("Pod", "blog-77-a", "of others")
        ])),
        (_, "secrets" | "networkpolicies") => Err(StatusCode::FORBIDDEN),
        (_, "ingressroutes" | "httpproxies" | "httproutes" | "scaledobjects") => Err(StatusCode::NOT_FOUND),
        (_, place) if place.starts_with("configmaps/") => Err(StatusCode::NOT_FOUND),
        _ => list(json!([])),
    }
}

/// A client of it, with namespace web as its own.
pub fn client() -> Client {
    let service = tower::service_fn(|request: Request<Body>| {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let (code, body) = if path.ends_with("/log") {
            (
                StatusCode::OK,
                format!("{path} {query}\nupstream rediss://shop:{CLASSIFIED}@store:6379\n"),
            )
        } else {
            match answer(path, query) {
                Ok(body) => (StatusCode::OK, body.to_string()),
                Err(code) => {
                    let status = json!({
                        "kind": "Status", "status": "Failure", "code": code.as_u16(),
                        "reason": if code == StatusCode::FORBIDDEN { "Forbidden" } else { "NotFound" },
                        "message": format!("{path} is refused")
                    });
                    (code, status.to_string())
                }
            }
        };
        let response = Response::builder()
            .status(code)
            .body(Body::from(body.into_bytes()))
            .unwrap();
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    Client::new(service, "web")
}
