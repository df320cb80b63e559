//! Takes back everything that a policy wrote outside itself.
//!
//! The operator does this under the finalizer; `kubectl session detach` does the same with the user's rights when the
//! operator is gone. Both paths find what to undo in the cluster itself: `managedFields` for what was applied, the
//! policy's annotation for list entries that were patched.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::restore::{Record, Records};
use super::sessions::{self, undo::Outcome};
use super::{foreign_manager, policy_key};
use crate::affinity::model::{Edit, ObjectKey};
use crate::api::{FIELD_MANAGER, FINALIZER, RESTORE_ANNOTATION, SessionPolicy};
use crate::runtime::writer::{WriteError, Writer, classify};

/// Attempts at a patch whose object changes at the same time.
const PATCH_ATTEMPTS: u32 = 5;

/// How long `detach` waits for pods to be replaced by ones without anything of ours.
const ROLL_LIMIT: Duration = Duration::from_mins(10);

/// Pause between looks at these pods.
const ROLL_PERIOD: Duration = Duration::from_secs(1);

/// Whether the policy carries our finalizer.
pub fn has_finalizer(policy: &ObjectMeta) -> bool {
    policy
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer and the records on the policy.
pub async fn write_own_metadata(
    writer: &Writer,
    policy: &ObjectMeta,
    records: &Records,
) -> Result<(), WriteError> {
    let annotations: Value = records
        .render()
        .map_or_else(|| json!({}), |rendered| json!({ RESTORE_ANNOTATION: rendered }));
    let fields = json!({"metadata": {"finalizers": [FINALIZER], "annotations": annotations}});
    writer
        .apply(&own_key(policy), FIELD_MANAGER, &fields, true)
        .await
        .map(|_| ())
}

/// Removes the fields of `manager` from an object. Returns whether something was removed.
///
/// Fields that others own with the same value stay; an object that is gone needs nothing.
pub async fn withdraw_fields(writer: &Writer, object: &ObjectKey, manager: &str) -> Result<bool, WriteError> {
    match writer.apply(object, manager, &json!({}), false).await {
        Ok(_) => Ok(true),
        Err(WriteError::Gone) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts back what stood in the entries of a patched object, but for those of `keep`. Returns whether something was changed.
pub async fn restore_entries(
    writer: &Writer,
    namespace: &str,
    manager: &str,
    record: &Record,
    keep: &[Edit],
) -> Result<bool, WriteError> {
    let object = record.object(namespace);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Some(live) = writer.read(&object).await? else {
            return Ok(false);
        };
        let operations = record.undo(&serde_json::to_value(&live).unwrap_or_default(), keep);
        if operations.is_empty() {
            return Ok(false);
        }
        let version = live.metadata.resource_version.unwrap_or_default();
        match writer.patch(&object, manager, &version, operations).await {
            Ok(_) => return Ok(true),
            Err(WriteError::Gone) => return Ok(false),
            Err(WriteError::Changed) if attempt < PATCH_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes back everything outside the policy. Returns what was changed, as `Kind/name`.
///
/// Idempotent: what is gone, changed hands or was undone before is skipped.
pub async fn undo(writer: &Writer, policy: &ObjectMeta) -> Result<Vec<String>, WriteError> {
    let ObjectKey {
        namespace, name, uid, ..
    } = own_key(policy);
    let manager = foreign_manager(&uid);
    let mut changed = Vec::new();
    for object in carriers(writer, &namespace, &manager).await? {
        if withdraw_fields(writer, &object, &manager).await? {
            changed.push(format!("{}/{}", object.kind, object.name));
        }
    }
    // An annotation that cannot be read holds nothing that could be put back; deletion must not hang on it.
    let annotation = policy
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(RESTORE_ANNOTATION));
    let records = Records::parse(annotation.map(String::as_str)).unwrap_or_else(|error| {
        tracing::warn!(policy = name, namespace, %error, "patched list entries stay as they are");
        Records::default()
    });
    for record in &records.0 {
        if restore_entries(writer, &namespace, &manager, record, &[]).await? {
            changed.push(format!("{}/{}", record.kind, record.name));
        }
    }
    Ok(changed)
}

/// Removes our finalizer and annotation from the policy, whoever co-owns them.
pub async fn release(writer: &Writer, policy: &ObjectMeta) -> Result<(), WriteError> {
    let key = own_key(policy);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Some(live) = writer.read(&key).await? else {
            return Ok(());
        };
        let operations = release_operations(&live);
        if operations.is_empty() {
            return Ok(());
        }
        let version = live.metadata.resource_version.clone().unwrap_or_default();
        match writer.patch(&key, FIELD_MANAGER, &version, operations).await {
            Ok(_) | Err(WriteError::Gone) => return Ok(()),
            Err(WriteError::Changed) if attempt < PATCH_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Suspends a policy, takes back what it wrote and removes the finalizer; the policy itself stays.
///
/// This is `kubectl session detach`. It needs the rights to patch the policy, Services, Ingresses and routes of the
/// namespace.
pub async fn detach(writer: &Writer, policy: &SessionPolicy) -> Result<Vec<String>, WriteError> {
    let fields = json!({"spec": {"suspend": true}});
    // The merge patch keeps every other field with its owner; an apply would claim the spec.
    let api =
        Api::<SessionPolicy>::namespaced(writer.client().clone(), &policy.namespace().unwrap_or_default());
    let name = policy.name_any();
    let patch = kube::api::Patch::Merge(&fields);
    let params = kube::api::PatchParams::default();
    let suspended = api.patch(&name, &params, &patch).await.map_err(classify)?;
    let mut changed = undo(writer, &suspended.metadata).await?;
    let namespace = policy.namespace().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + ROLL_LIMIT;
    let left = loop {
        match sessions::undo::undo(writer, &namespace, &name).await? {
            Outcome::Done(removed) => {
                changed.extend(removed);
                break Vec::new();
            }
            Outcome::PodsLeft(pods) if tokio::time::Instant::now() > deadline => break pods,
            Outcome::PodsLeft(_) => tokio::time::sleep(ROLL_PERIOD).await,
        }
    };
    if !left.is_empty() {
        return Err(WriteError::PodsLeft(left));
    }
    release(writer, &suspended.metadata).await?;
    Ok(changed)
}

fn own_key(policy: &ObjectMeta) -> ObjectKey {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    policy_key(&text(&policy.namespace), &text(&policy.name), &text(&policy.uid))
}

fn release_operations(live: &DynamicObject) -> Vec<Value> {
    let mut operations = Vec::new();
    if let Some(position) = live
        .finalizers()
        .iter()
        .position(|finalizer| finalizer == FINALIZER)
    {
        let path = format!("/metadata/finalizers/{position}");
        operations.push(json!({"op": "test", "path": path, "value": FINALIZER}));
        operations.push(json!({"op": "remove", "path": path}));
    }
    if live.annotations().contains_key(RESTORE_ANNOTATION) {
        let path = format!("/metadata/annotations/{}", RESTORE_ANNOTATION.replace('/', "~1"));
        operations.push(json!({"op": "remove", "path": path}));
    }
    operations
}

/// Every object of the namespace on which `manager` owns something.
async fn carriers(writer: &Writer, namespace: &str, manager: &str) -> Result<Vec<ObjectKey>, WriteError> {
    let mut found = Vec::new();
    for deployment in list_metadata::<Deployment>(writer, namespace).await? {
        if carries(&deployment.metadata, manager) {
            found.push(ObjectKey::deployment(&Deployment {
                metadata: deployment.metadata,
                ..Deployment::default()
            }));
        }
    }
    for service in list_metadata::<Service>(writer, namespace).await? {
        if carries(&service.metadata, manager) {
            found.push(ObjectKey::service(&Service {
                metadata: service.metadata,
                ..Service::default()
            }));
        }
    }
    for ingress in list_metadata::<Ingress>(writer, namespace).await? {
        if carries(&ingress.metadata, manager) {
            found.push(ObjectKey::ingress(&Ingress {
                metadata: ingress.metadata,
                ..Ingress::default()
            }));
        }
    }
    Ok(found)
}

async fn list_metadata<K>(writer: &Writer, namespace: &str) -> Result<Vec<PartialObjectMeta<K>>, WriteError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(writer.client().clone(), namespace);
    api.list_metadata(&ListParams::default())
        .await
        .map(|list| list.items)
        .map_err(classify)
}

fn carries(meta: &ObjectMeta, manager: &str) -> bool {
    meta.managed_fields
        .iter()
        .flatten()
        .any(|entry| entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply"))
}
