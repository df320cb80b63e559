//! Which objects of a namespace have to do with policies. Pure; objects are as the API server gives them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use crate::api::{POLICY_LABEL, STORE_LABEL};
use crate::framework::AGENT_VOLUME;
use crate::policy::sessions::{hand_over, sidecar};
use crate::store::users::inline_store;

/// The text at a JSON pointer; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Labels at a JSON pointer.
pub fn labels(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    object
        .pointer(pointer)
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default()
}

/// Policies, and what follows from their specs.
#[derive(Debug, Default)]
pub struct Subjects {
    /// Names of policies.
    pub policies: BTreeSet<String>,
    /// Names of their targets.
    pub targets: BTreeSet<String>,
    /// Names of their stores.
    pub stores: BTreeSet<String>,
    /// Names of the Secrets of stores in other hands.
    pub secrets: BTreeSet<String>,
}

impl Subjects {
    /// What these policies are about.
    pub fn of(policies: &[Value]) -> Self {
        let mut subjects = Self::default();
        let insert = |names: &mut BTreeSet<String>, name: &str| {
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        };
        for policy in policies {
            insert(&mut subjects.policies, name(policy));
            insert(&mut subjects.targets, text(policy, "/spec/targetRef/name"));
            insert(&mut subjects.stores, text(policy, "/spec/shared/storeRef/name"));
            if policy.pointer("/spec/shared/store").is_some() {
                insert(&mut subjects.stores, &inline_store(name(policy)));
            }
            insert(
                &mut subjects.secrets,
                text(policy, "/spec/shared/external/secretRef/name"),
            );
        }
        subjects
    }

    /// Whether an object was made for one of the policies or stores.
    pub fn own(&self, object: &Value) -> bool {
        let labels = labels(object, "/metadata/labels");
        let is = |label: &str, names: &BTreeSet<String>| {
            labels.get(label).is_some_and(|name| names.contains(name))
        };
        is(POLICY_LABEL, &self.policies) || is(STORE_LABEL, &self.stores)
    }

    /// Whether an autoscaler scales one of the targets.
    pub fn scaled_by(&self, scaler: &Value) -> bool {
        let kind = text(scaler, "/spec/scaleTargetRef/kind");
        (kind.is_empty() || kind == "Deployment")
            && self.targets.contains(text(scaler, "/spec/scaleTargetRef/name"))
    }
}

/// Whether one of `owners` (uids) owns the object.
pub fn owned_by(object: &Value, owners: &BTreeSet<String>) -> bool {
    let references = object.pointer("/metadata/ownerReferences");
    references
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|owner| owners.contains(text(owner, "/uid")))
}

/// Whether a Service selects pods with these labels.
pub fn serves(service: &Value, pods: &BTreeMap<String, String>) -> bool {
    let selector = labels(service, "/spec/selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| pods.get(key) == Some(value))
}

/// Whether the label selector at a JSON pointer selects pods with these labels.
pub fn selects(object: &Value, pointer: &str, pods: &BTreeMap<String, String>) -> bool {
    let selector = object
        .pointer(pointer)
        .and_then(|selector| serde_json::from_value::<LabelSelector>(selector.clone()).ok())
        .and_then(|selector| Selector::try_from(selector).ok());
    selector.is_some_and(|selector| selector.matches(pods))
}

/// Whether a route, of whatever kind, names one of the Services.
pub fn leads_to(route: &Value, services: &BTreeSet<String>) -> bool {
    match route {
        Value::Object(fields) => fields.iter().any(|(key, value)| match value {
            Value::String(text) => matches!(key.as_str(), "name" | "serviceName") && services.contains(text),
            Value::Array(_) | Value::Object(_) if key != "metadata" => leads_to(value, services),
            _ => false,
        }),
        Value::Array(elements) => elements.iter().any(|element| leads_to(element, services)),
        _ => false,
    }
}

/// Whether an Event is about one of these objects (kind and name), or about a pod of one of these ReplicaSets that is gone.
pub fn concerns(event: &Value, objects: &BTreeSet<(String, String)>) -> bool {
    let kind = text(event, "/involvedObject/kind");
    let name = text(event, "/involvedObject/name");
    objects.contains(&(kind.to_owned(), name.to_owned()))
        || kind == "Pod"
            && name
                .rsplit_once('-')
                .is_some_and(|(set, _)| objects.contains(&("ReplicaSet".to_owned(), set.to_owned())))
}

/// Whether a pod is one of the operator's own, not of another operator.
pub fn is_operator(pod: &Value) -> bool {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .any(|container| name_of(container) == "operator" && text(container, "/args/0") == "run")
}

/// Containers of a pod whose logs are the operator's own or its helpers': what the application writes is not collected.
pub fn containers_of_ours(pod: &Value) -> Vec<String> {
    let is_store = labels(pod, "/metadata/labels").contains_key(STORE_LABEL);
    let whole = is_store || is_operator(pod);
    let helpers = [sidecar::CONTAINER, hand_over::CONTAINER, AGENT_VOLUME];
    ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten()
        .map(name_of)
        .filter(|name| whole || helpers.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Whether a container has been started again, so that there is a log of the run before.
pub fn was_restarted(pod: &Value, container: &str) -> bool {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten()
        .any(|status| {
            name_of(status) == container
                && status.get("restartCount").and_then(Value::as_u64).unwrap_or(0) > 0
        })
}

fn name_of(container: &Value) -> &str {
    text(container, "/name")
}
