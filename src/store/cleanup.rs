//! Deletion of a store: nothing is removed under Retain, everything under Delete.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::apply::{delete, own_secret};
use super::dereference::Dereferenced;
use super::store_key;
use super::validate::removes_everything;
use crate::api::{FINALIZER, SessionStore};
use crate::runtime::writer::{WriteError, Writer};

/// Field manager of the finalizer, and of nothing else: the spec of a store that a policy has made is applied by the policy
/// controller, whose fields an apply under its name would drop.
const FINALIZER_MANAGER: &str = "session-operator/finalizer";

/// Whether the store carries our finalizer.
pub fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on a store whose deletion has to remove something, and takes it off one that only leaves things
/// behind: that one has to be deletable when no operator runs.
pub async fn hold(writer: &Writer, store: &SessionStore) -> Result<(), WriteError> {
    let wanted = removes_everything(store);
    if has_finalizer(&store.metadata) == wanted {
        return Ok(());
    }
    if !wanted {
        return release(writer, &store.metadata).await;
    }
    let fields = json!({"metadata": {"finalizers": [FINALIZER]}});
    let key = store_key(&store.metadata);
    writer
        .apply(&key, FINALIZER_MANAGER, &fields, true)
        .await
        .map(|_| ())
}

/// Takes the finalizer off; the API server deletes the object.
pub async fn release(writer: &Writer, meta: &ObjectMeta) -> Result<(), WriteError> {
    match writer
        .apply(&store_key(meta), FINALIZER_MANAGER, &json!({}), true)
        .await
    {
        Ok(_) | Err(WriteError::Gone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes everything that the store is made of. Returns what was removed.
pub async fn remove(client: &Client, found: &Dereferenced) -> Result<Vec<String>, WriteError> {
    let mut removed = Vec::new();
    let mut note = |kind: &str, name: String, gone: bool| {
        if gone {
            removed.push(format!("{kind} {name}"));
        }
    };
    for object in found.stateful_sets.values() {
        note(
            "StatefulSet",
            object.name_any(),
            delete(client, object.as_ref()).await?,
        );
    }
    for object in found.service.iter().chain(&found.members_service) {
        note(
            "Service",
            object.name_any(),
            delete(client, object.as_ref()).await?,
        );
    }
    if let Some(object) = &found.budget {
        note(
            "PodDisruptionBudget",
            object.name_any(),
            delete(client, object.as_ref()).await?,
        );
    }
    for object in found.volumes.values() {
        note(
            "PersistentVolumeClaim",
            object.name_any(),
            delete(client, object.as_ref()).await?,
        );
    }
    // The users' file says which Secrets there are, so it goes last.
    let last = found.names.users_secret();
    let names = found.secrets.keys().filter(|name| **name != last).chain([&last]);
    for name in names {
        if let Some(secret) = own_secret(client, &found.names, name).await? {
            note("Secret", name.clone(), delete(client, &secret).await?);
        }
    }
    Ok(removed)
}
