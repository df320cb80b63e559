//! Whether the owner of an object would undo a patch of it.
//!
//! Entries of an atomic list cannot be owned one by one: whoever applies the list again replaces it as a whole. So
//! an object whose owner does that from a source elsewhere is not patched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use kube::core::DynamicObject;

/// Prefixes of labels and annotations with which deployment tools mark what they keep in step.
const TRACKING_PREFIXES: [(&str, &str); 7] = [
    ("argocd.argoproj.io/", "Argo CD"),
    ("config.k8s.io/owning-inventory", "kpt"),
    ("fleet.cattle.io/", "Fleet"),
    ("helm.toolkit.fluxcd.io/", "Flux"),
    ("kapp.k14s.io/", "kapp"),
    ("kustomize.toolkit.fluxcd.io/", "Flux"),
    ("meta.helm.sh/", "Helm"),
];

const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why a patch of `object` would not last, if it would not. `ours` is the policy's own field manager.
pub fn would_undo(object: &DynamicObject, ours: &str) -> Option<String> {
    let managers = object.managed_fields();
    if managers.is_empty() {
        return Some("it has no managedFields, so it cannot be seen who keeps it".to_owned());
    }
    tracking_mark(object, managers).or_else(|| apply_manager(managers, ours))
}

/// Whether `kubectl apply` keeps the object: the next apply of a changed file replaces the list.
pub fn is_client_side_applied(object: &DynamicObject) -> bool {
    object.annotations().contains_key(LAST_APPLIED_ANNOTATION)
}

fn tracking_mark(object: &DynamicObject, managers: &[ManagedFieldsEntry]) -> Option<String> {
    let keys = object.annotations().keys().chain(object.labels().keys());
    for key in keys {
        if let Some((_, tool)) = TRACKING_PREFIXES
            .iter()
            .find(|(prefix, _)| key.starts_with(prefix))
        {
            return Some(format!("{tool} keeps it ({key})"));
        }
    }
    if object
        .labels()
        .get(MANAGED_BY_LABEL)
        .is_some_and(|value| value == "Helm")
    {
        return Some(format!("Helm keeps it ({MANAGED_BY_LABEL}: Helm)"));
    }
    // Argo CD's label tracking uses a label that others use as well, so its hand must be seen, too.
    let argo = managers
        .iter()
        .filter_map(|entry| entry.manager.as_deref())
        .find(|name| name.starts_with("argocd"));
    match (object.labels().contains_key(INSTANCE_LABEL), argo) {
        (true, Some(manager)) => Some(format!(
            "Argo CD keeps it ({INSTANCE_LABEL}, field manager {manager})"
        )),
        _ => None,
    }
}

fn apply_manager(managers: &[ManagedFieldsEntry], ours: &str) -> Option<String> {
    let entry = managers.iter().find(|entry| {
        entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && entry.manager.as_deref() != Some(ours)
    })?;
    Some(format!(
        "field manager {} applies it and would undo the change",
        entry.manager.as_deref().unwrap_or("(without name)")
    ))
}
