//! What is done to pods of servers.

use k8s_openapi::api::core::v1::Pod as CorePod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::Pod;
use crate::runtime::writer::{WriteError, classify};
use crate::store::names::{Names, ROLE_LABEL};

/// Field manager of labels and records.
pub const MANAGER: &str = "session-operator/replication";

/// Says what a server is. `Gone` if the pod is.
pub async fn label(
    client: &Client,
    names: &Names,
    name: &str,
    pod: &Pod,
    role: &str,
) -> Result<(), WriteError> {
    let api: Api<CorePod> = Api::namespaced(client.clone(), names.namespace());
    // The uid keeps another pod of that name from being labelled.
    let patch = json!({"metadata": {"uid": pod.uid, "labels": {ROLE_LABEL: role}}});
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api
        .patch_metadata(name, &params, &Patch::Merge(&patch))
        .await
        .map_err(classify)
    {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict(_) | WriteError::Changed) => Err(WriteError::Gone),
        Err(error) => Err(error),
    }
}

/// Deletes a pod; its StatefulSet makes another one. One that is gone, or another one by now, is left alone.
pub async fn restart(client: &Client, names: &Names, name: &str, pod: &Pod) -> Result<(), WriteError> {
    let api: Api<CorePod> = Api::namespaced(client.clone(), names.namespace());
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: pod.uid.clone(),
        resource_version: None,
    });
    match api.delete(name, &params).await.map_err(classify) {
        Ok(_) | Err(WriteError::Gone | WriteError::Changed) => Ok(()),
        Err(error) => Err(error),
    }
}
