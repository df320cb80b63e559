//! What the pure parts make of objects as the API server gives them.

mod cautions;
mod container;
mod hand_over;
mod moving;
mod peer_access;
mod pods;
mod preflight;
mod replication;
mod revision;
mod sidecar;
mod source;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::policy::restore::Records;
use crate::policy::validate::Validated;

/// A Deployment with one container, plus `spec`.
fn target(spec: &Value) -> Deployment {
    let mut base = json!({
        "replicas": 3,
        "selector": {},
        "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "php", "image": "shop:1"}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        base[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "shop", "namespace": "web", "uid": "d-1"}, "spec": base}),
    )
    .unwrap()
}

fn policy(target: Deployment) -> Validated {
    Validated {
        namespace: "web".to_owned(),
        name: "shop".to_owned(),
        uid: "p-1".to_owned(),
        manager: "session-operator.p-1".to_owned(),
        target: Arc::new(target),
        sticky: None,
        sessions: None,
        hands_over: false,
        suspended: false,
        records: Records::default(),
    }
}
