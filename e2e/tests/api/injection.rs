//! Admission of pods: what the API server makes of them by either mechanism, and who may say so.

mod balancer;
mod guard;
mod policy;
mod table;
mod webhook;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use session_operator::api::session_injection::SessionInjection;
use session_operator::injection::probe;

use crate::stage::RELEASE;
use crate::wait::until;
use crate::world::World;

/// A client that the API server takes for `user`. With the group of administrators it may do everything by its roles,
/// so that what is refused is refused by admission.
async fn client_as(world: &World, user: &str, groups: &[&str]) -> Client {
    let kubeconfig = Kubeconfig::read_from(&world.stage.kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
    Client::try_from(config).unwrap()
}

/// The world as the operator of a release sees it, without limits by roles.
async fn as_operator(world: &World, namespace: &str) -> World {
    let user = format!("system:serviceaccount:{namespace}:{RELEASE}");
    World {
        stage: world.stage,
        client: client_as(world, &user, &["system:masters"]).await,
        namespace: world.namespace.clone(),
    }
}

/// A `SessionInjection` with these parts.
fn injection(name: &str, parts: &Value) -> Value {
    let mut spec = parts.clone();
    spec["policy"] = json!({"name": "shop", "uid": "2b1d"});
    json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionInjection",
        "metadata": {"name": name},
        "spec": spec
    })
}

/// A pod with these parts of a spec, and with the label if it asks for an injection.
fn pod(name: &str, asks_for: Option<&str>, spec: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    if let Some(injection) = asks_for {
        pod["metadata"]["labels"] = json!({"session-operator.dev/injection": injection});
    }
    pod
}

/// Waits until a dry run says that admission knows an injection.
async fn until_admitted(world: &World, injection: &Value) {
    let mut injection: SessionInjection = serde_json::from_value(injection.clone()).unwrap();
    injection.metadata.namespace = Some(world.namespace.clone());
    let containers: Vec<Value> = injection
        .spec
        .containers
        .iter()
        .map(|container| json!({"name": container.name, "image": "localhost/shop:1"}))
        .collect();
    let template = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
    until("the dry run to come back injected", || async {
        match probe::admitted(&world.client, &injection, &template).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(missing)) => Err(missing.join(", ")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
