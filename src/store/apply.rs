//! Step 4: writes what differs from what is wanted, and nothing of anybody else's.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersion};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::build::Desired;
use super::dereference::Dereferenced;
use super::names::{APPLIED_ANNOTATION, Names, POD_NAME_LABEL, ROLE_LABEL};
use super::quantity;
use crate::api::FIELD_MANAGER;
use crate::runtime::writer::{WriteError, classify};

/// Why the wanted state could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object of that name belongs to somebody else.
    #[error("{kind} {name} exists and is not this store's")]
    Taken {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server refused one object.
    #[error("{kind} {name}: {}", .source.explain())]
    Write {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: WriteError,
    },
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that were written or deleted, as `Kind name`.
    pub changed: Vec<String>,
    /// Why the volume could not grow.
    pub volume_refused: Option<String>,
}

/// Writes and deletes.
pub async fn apply(client: &Client, found: &Dereferenced, desired: Desired) -> Result<Applied, Error> {
    let Desired {
        secrets,
        volumes,
        service,
        members_service,
        budget,
        stateful_sets,
        obsolete,
    } = desired;
    let mut applied = Applied::default();
    // First what says which password goes with a user that goes, then what the server reads when it starts.
    for name in obsolete {
        if let Some(secret) = found.secrets.get(&name)
            && found.names.are_ours(secret.metadata.labels.as_ref())
            && delete(client, secret)
                .await
                .map_err(|source| failed("Secret", &name, source))?
        {
            applied.changed.push(format!("Secret {name}"));
        }
    }
    for secret in secrets {
        let live = found.secrets.get(name_of(&secret));
        ensure(client, found, secret, live, &mut applied).await?;
    }
    for volume in volumes {
        let live = found.volumes.get(name_of(&volume)).map(AsRef::as_ref);
        match ensure(client, found, volume, live, &mut applied).await {
            // The class does not let volumes grow. All else works on.
            Err(Error::Write { source, .. }) if live.is_some() && is_refusal(&source) => {
                applied.volume_refused = Some(source.explain());
            }
            other => other?,
        }
    }
    ensure(client, found, service, found.service.as_deref(), &mut applied).await?;
    if let Some(service) = members_service {
        let live = found.members_service.as_deref();
        ensure(client, found, service, live, &mut applied).await?;
    }
    ensure(client, found, budget, found.budget.as_deref(), &mut applied).await?;
    // Last: their pods need all the others.
    for set in stateful_sets {
        let live = found.stateful_sets.get(name_of(&set)).map(AsRef::as_ref);
        ensure(client, found, set, live, &mut applied).await?;
    }
    Ok(applied)
}

/// Whether the API server says no, and would say it again.
fn is_refusal(error: &WriteError) -> bool {
    match error {
        WriteError::Refused(_) => true,
        WriteError::Api(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

fn failed(kind: &str, name: &str, source: WriteError) -> Error {
    Error::Write {
        kind: kind.to_owned(),
        name: name.to_owned(),
        source,
    }
}

/// The name in an object's metadata.
pub fn name_of(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Writes one object unless it stands as wanted.
async fn ensure<K: Resource + Serialize>(
    client: &Client,
    found: &Dereferenced,
    mut wanted: Value,
    live: Option<&K>,
    applied: &mut Applied,
) -> Result<(), Error> {
    let name = name_of(&wanted).to_owned();
    let kind = wanted
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let taken = || Error::Taken {
        kind: kind.clone(),
        name: name.clone(),
    };
    let write = |source| failed(&kind, &name, source);
    let api = api(client, &found.names, &wanted);
    let digest = format!(
        "{:016x}",
        xxhash_rust::xxh64::xxh64(wanted.to_string().as_bytes(), 0)
    );
    let live = match live {
        Some(live) => serde_json::to_value(live).ok(),
        // Not among ours: it may stand there without our label.
        None => match api.get_opt(&name).await.map_err(|error| write(classify(error)))? {
            Some(live) => serde_json::to_value(&live).ok(),
            None => None,
        },
    };
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(APPLIED_ANNOTATION.into(), json!(digest));
        }
    }
    let mut params = PatchParams::apply(FIELD_MANAGER).validation_strict();
    if let Some(live) = live {
        let labels = live.pointer("/metadata/labels").cloned().unwrap_or_default();
        if !found.names.are_ours(serde_json::from_value(labels).ok().as_ref()) {
            return Err(taken());
        }
        keep_lead(&found.names, &mut wanted, &live);
        if is_within(&wanted, &live) {
            return Ok(());
        }
        params.force = true;
        if let (Some(metadata), Some(uid)) = (
            wanted.get_mut("metadata").and_then(Value::as_object_mut),
            live.pointer("/metadata/uid"),
        ) {
            metadata.insert("uid".into(), uid.clone());
        }
    }
    match api
        .patch(&name, &params, &Patch::Apply(&wanted))
        .await
        .map_err(classify)
    {
        Ok(_) => {
            applied.changed.push(format!("{kind} {name}"));
            Ok(())
        }
        // Not forced: somebody made one of that name since it was looked for.
        Err(WriteError::Conflict(_)) if !params.force => Err(taken()),
        Err(error) => Err(write(error)),
    }
}

/// Where the Service of several servers leads is decided by who watches them.
fn keep_lead(names: &Names, wanted: &mut Value, live: &Value) {
    const SELECTOR: &str = "/spec/selector";
    let is_by_role = |selector: &&mut Value| selector.get(ROLE_LABEL).is_some();
    let Some(selector) = wanted.pointer_mut(SELECTOR).filter(is_by_role) else {
        return;
    };
    let server = live.pointer(SELECTOR).and_then(|live| live.get(POD_NAME_LABEL));
    if let Some(server) = server.and_then(Value::as_str) {
        *selector = json!(names.led_to(server));
    }
}

/// Deletes an object that was looked at; returns whether it still was there.
pub async fn delete<K>(client: &Client, object: &K) -> Result<bool, WriteError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: object.uid(),
        resource_version: None,
    });
    match api.delete(&object.name_any(), &params).await.map_err(classify) {
        Ok(_) => Ok(true),
        // Gone, or another one stands under its name.
        Err(WriteError::Gone | WriteError::Changed) => Ok(false),
        Err(error) => Err(error),
    }
}

fn api(client: &Client, names: &Names, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion")
        .split_once('/')
        .unwrap_or(("", text("apiVersion")));
    let gvk = GroupVersion {
        group: group.to_owned(),
        version: version.to_owned(),
    }
    .with_kind(text("kind"));
    Api::namespaced_with(client.clone(), names.namespace(), &ApiResource::from_gvk(&gvk))
}

/// Whether all that is wanted stands in `live`, which may hold more: defaults, status, what others added.
fn is_within(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|live| is_within(value, live))),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len()
                && wanted
                    .iter()
                    .zip(live)
                    .all(|(wanted, live)| is_within(wanted, live))
        }
        (Value::String(wanted), Value::String(live)) => {
            let size = |text: &String| {
                quantity::bytes(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(
                    text.clone(),
                ))
            };
            // The API server writes sizes its own way.
            wanted == live || size(wanted).is_some_and(|size_wanted| size(live) == Some(size_wanted))
        }
        _ => wanted == live,
    }
}

/// A Secret by name, if it is this store's.
pub async fn own_secret(client: &Client, names: &Names, name: &str) -> Result<Option<Secret>, WriteError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), names.namespace());
    let secret = api.get_opt(name).await.map_err(classify)?;
    Ok(secret.filter(|secret| names.are_ours(secret.metadata.labels.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_goes_on_leading_where_it_was_led() {
        let names = Names::new("kitchen", "larder");
        let mut by_role = names.selector();
        by_role.insert(ROLE_LABEL.to_owned(), "primary".to_owned());
        let service = |selector: &Value| json!({"spec": {"selector": selector, "type": "ClusterIP"}});
        let kept = |wanted: &Value, live: &Value| {
            let mut wanted = service(wanted);
            keep_lead(&names, &mut wanted, &service(live));
            wanted["spec"]["selector"].clone()
        };
        let (by_role, led) = (json!(by_role), json!(names.led_to("larder-2")));
        assert_eq!(kept(&by_role, &led), led, "another server is primary by now");
        assert_eq!(kept(&by_role, &by_role), by_role, "there was none yet");
        let changed = json!({POD_NAME_LABEL: "larder-2", "app": "other"});
        assert_eq!(kept(&by_role, &changed), led, "what somebody added goes");
        let standalone = json!(names.selector());
        assert_eq!(kept(&standalone, &led), standalone);
    }

    #[test]
    fn what_is_wanted_may_stand_among_more() {
        let live = json!({"spec": {"a": [{"x": "1Gi", "y": 2}], "b": true}, "status": {}});
        for (wanted, expected) in [
            (json!({"spec": {"a": [{"x": "1024Mi"}]}}), true),
            (json!({"spec": {"a": [{"x": "2Gi"}]}}), false),
            (json!({"spec": {"a": []}}), false),
            (json!({"spec": {"c": true}}), false),
            (json!({"spec": {"b": true}}), true),
        ] {
            assert_eq!(is_within(&wanted, &live), expected, "{wanted}");
        }
    }
}
