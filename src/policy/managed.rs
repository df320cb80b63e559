//! Reads `metadata.managedFields`: which fields of an object a manager owns.
//!
//! Format: `FieldsV1` of structured-merge-diff v6; `f:` names a field, `.` the node itself.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

/// JSON pointers of the leaf fields that `manager` owns by server-side apply; `None` if it owns nothing.
pub fn applied_by(meta: &ObjectMeta, manager: &str) -> Option<BTreeSet<String>> {
    let entry = entries(meta).find(|entry| {
        entry.manager.as_deref() == Some(manager)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().is_none_or(str::is_empty)
    })?;
    let mut paths = BTreeSet::new();
    if let Some(fields) = &entry.fields_v1 {
        collect_owned(&fields.0, &mut String::new(), &mut paths);
    }
    Some(paths)
}

/// Whether the field at `pointer` is owned through an Update (and not by an Apply, which means that somebody chose the
/// value). What the manager `own` owns does not count.
pub fn owned_by_update(meta: &ObjectMeta, pointer: &str, own: &str) -> bool {
    let mut owned = false;
    for entry in entries(meta).filter(|entry| entry.manager.as_deref() != Some(own)) {
        let mut paths = BTreeSet::new();
        if let Some(fields) = &entry.fields_v1 {
            collect_owned(&fields.0, &mut String::new(), &mut paths);
        }
        if paths.contains(pointer) {
            if entry.operation.as_deref() != Some("Update") {
                return false;
            }
            owned = true;
        }
    }
    owned
}

/// Keeps of every entry what the operator reads later: manager and operation of all, fields of its own.
///
/// Caches hold every Service and Ingress of the cluster; the field sets of others are most of their size.
pub fn trim(meta: &mut ObjectMeta, own_prefix: &str) {
    for entry in meta.managed_fields.iter_mut().flatten() {
        if !entry
            .manager
            .as_deref()
            .is_some_and(|manager| manager.starts_with(own_prefix))
        {
            entry.fields_v1 = None;
        }
    }
}

/// JSON pointers of the leaves of a partial object.
pub fn leaf_paths(fields: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    collect_leaves(fields, &mut String::new(), &mut paths);
    paths
}

fn entries(meta: &ObjectMeta) -> impl Iterator<Item = &ManagedFieldsEntry> {
    meta.managed_fields.iter().flatten()
}

fn collect_owned(node: &Value, prefix: &mut String, paths: &mut BTreeSet<String>) {
    let Some(children) = node.as_object() else { return };
    let named: Vec<_> = children
        .iter()
        .filter_map(|(key, child)| Some((key.strip_prefix("f:")?, child)))
        .collect();
    if named.is_empty() {
        if !prefix.is_empty() {
            paths.insert(prefix.clone());
        }
        return;
    }
    for (key, child) in named {
        let length = prefix.len();
        push_segment(prefix, key);
        collect_owned(child, prefix, paths);
        prefix.truncate(length);
    }
}

fn collect_leaves(node: &Value, prefix: &mut String, paths: &mut BTreeSet<String>) {
    match node.as_object() {
        Some(children) if !children.is_empty() => {
            for (key, child) in children {
                let length = prefix.len();
                push_segment(prefix, key);
                collect_leaves(child, prefix, paths);
                prefix.truncate(length);
            }
        }
        _ => {
            if !prefix.is_empty() {
                paths.insert(prefix.clone());
            }
        }
    }
}

/// Appends one reference token, escaped as RFC 6901 section 3 asks.
fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    use super::*;

    fn meta(entries: &[(&str, &str, Value)]) -> ObjectMeta {
        ObjectMeta {
            managed_fields: Some(
                entries
                    .iter()
                    .map(|(manager, operation, fields)| ManagedFieldsEntry {
                        manager: Some((*manager).to_owned()),
                        operation: Some((*operation).to_owned()),
                        fields_v1: Some(FieldsV1(fields.clone())),
                        ..ManagedFieldsEntry::default()
                    })
                    .collect(),
            ),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn the_owned_paths_of_an_apply_equal_the_leaves_of_what_was_applied() {
        let applied = json!({"metadata": {"annotations": {"a.b/c~d": "x"}},
            "spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}});
        let fields = json!({"f:metadata": {"f:annotations": {"f:a.b/c~d": {}}},
            "f:spec": {"f:sessionAffinity": {}, "f:sessionAffinityConfig": {"f:clientIP": {"f:timeoutSeconds": {}}}}});
        let meta = meta(&[("session-operator.u1", "Apply", fields)]);
        assert_eq!(
            applied_by(&meta, "session-operator.u1"),
            Some(leaf_paths(&applied))
        );
        assert_eq!(applied_by(&meta, "session-operator.u2"), None);
    }

    #[test]
    fn a_node_marked_with_a_dot_is_not_a_field_of_its_own_when_it_has_children() {
        let meta = meta(&[(
            "m",
            "Apply",
            json!({"f:metadata": {"f:labels": {".": {}, "f:k": {}}}}),
        )]);
        assert_eq!(
            applied_by(&meta, "m"),
            Some(BTreeSet::from(["/metadata/labels/k".to_owned()]))
        );
    }

    #[test]
    fn a_field_counts_as_defaulted_only_while_no_apply_manager_owns_it() {
        let affinity = json!({"f:spec": {"f:sessionAffinity": {}}});
        let pointer = "/spec/sessionAffinity";
        assert!(owned_by_update(
            &meta(&[("kubectl-create", "Update", affinity.clone())]),
            pointer,
            "session-operator.1"
        ));
        assert!(!owned_by_update(
            &meta(&[("helm", "Apply", affinity.clone())]),
            pointer,
            "session-operator.1"
        ));
        assert!(!owned_by_update(
            &meta(&[
                ("kubectl-create", "Update", affinity.clone()),
                ("helm", "Apply", affinity.clone())
            ]),
            pointer,
            "session-operator.1"
        ));
        assert!(owned_by_update(
            &meta(&[
                ("kubectl-create", "Update", affinity.clone()),
                ("session-operator.1", "Apply", affinity)
            ]),
            pointer,
            "session-operator.1"
        ));
        assert!(!owned_by_update(&meta(&[]), pointer, "session-operator.1"));
    }

    #[test]
    fn trimming_keeps_who_and_how_and_drops_the_fields_of_others() {
        let fields = json!({"f:spec": {"f:x": {}}});
        let mut meta = meta(&[
            ("helm", "Apply", fields.clone()),
            ("session-operator.u1", "Apply", fields),
        ]);
        trim(&mut meta, "session-operator.");
        let kept: Vec<_> = meta
            .managed_fields
            .unwrap()
            .into_iter()
            .map(|entry| {
                (
                    entry.manager.unwrap(),
                    entry.operation.unwrap(),
                    entry.fields_v1.is_some(),
                )
            })
            .collect();
        assert_eq!(
            kept,
            [
                ("helm".to_owned(), "Apply".to_owned(), false),
                ("session-operator.u1".to_owned(), "Apply".to_owned(), true)
            ]
        );
    }
}
