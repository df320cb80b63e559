//! What objects of a namespace look like to their owners, before and after: undoing must leave no trace.

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::{Map, Value, json};
use session_operator::api::STORE_LABEL;
use session_operator::policy::caches::{HTTP_PROXY, INGRESS_ROUTE};
use session_operator::runtime::client::is_not_found;

/// Set by the Deployment controller itself at each rollout.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Set in the pod template by whoever restarts a Deployment, which drills do.
const RESTARTED: &str = "kube.kubernetes.io/restartedAt";

/// The same without what belongs to a SessionStore.
pub async fn without_stores(client: &Client, namespace: &str) -> Result<Map<String, Value>> {
    let mut snapshot = of(client, namespace).await?;
    snapshot.retain(|_, object| {
        object
            .pointer("/labels")
            .is_none_or(|labels| labels.get(STORE_LABEL).is_none())
    });
    Ok(snapshot)
}

/// Spec, labels, annotations and ownerReferences of every Deployment, Service, Ingress, `IngressRoute` and `HTTPProxy` of
/// a namespace, by kind and name.
pub async fn of(client: &Client, namespace: &str) -> Result<Map<String, Value>> {
    let kinds = [
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<Ingress>(&()),
        INGRESS_ROUTE.resource(),
        HTTP_PROXY.resource(),
    ];
    let mut snapshot = Map::new();
    for kind in kinds {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let objects = match api.list(&ListParams::default()).await {
            Ok(list) => list.items,
            // Its controller is not installed.
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        for object in objects {
            let name = object.metadata.name.clone().unwrap_or_default();
            let mut annotations = object.metadata.annotations.unwrap_or_default();
            annotations.remove(REVISION);
            let mut spec = object.data.get("spec").cloned().unwrap_or_default();
            forget_restart(&mut spec);
            let seen = json!({
                "spec": spec,
                "labels": object.metadata.labels.unwrap_or_default(),
                "annotations": annotations,
                "ownerReferences": object.metadata.owner_references.unwrap_or_default(),
            });
            snapshot.insert(format!("{}/{name}", kind.kind), seen);
        }
    }
    Ok(snapshot)
}

/// Takes the mark of a restart from the pod template of a Deployment's spec.
fn forget_restart(spec: &mut Value) {
    let Some(Value::Object(metadata)) = spec.pointer_mut("/template/metadata") else {
        return;
    };
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(RESTARTED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}
