//! What stood in foreign list entries before they were patched, kept on the policy itself.
//!
//! Atomic lists (the routes of an `IngressRoute` or an `HTTPProxy`) cannot be shared by server-side apply, so nothing in
//! `managedFields` says what to put back. The policy's annotation [`crate::api::RESTORE_ANNOTATION`] does. It is written
//! before the patch: a crash in between leaves a record of something that did not happen, which undoing skips.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::affinity::model::{Edit, ObjectKey};

/// Everything that a policy has to put back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records(pub Vec<Record>);

/// What to put back in one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Plural resource name of the object.
    pub plural: String,
    /// Name of the object; its namespace is the policy's.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// The fields.
    pub fields: Vec<Field>,
}

/// One field of a list entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Where it stood when it was written.
    pub pointer: String,
    /// What identifies the entry: (JSON pointer, value).
    pub guards: Vec<(String, Value)>,
    /// What stood there; absent = nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What was written.
    pub written: Value,
    /// What was written before that, as long as the change from it to `written` may not have happened yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<Value>,
}

/// The annotation holds something that this version does not understand.
#[derive(Debug, thiserror::Error)]
#[error("annotation session-operator.dev/restore is not readable")]
pub struct UnreadableRecords(#[source] serde_json::Error);

impl Records {
    /// Reads the annotation's value; an absent annotation holds no records.
    pub fn parse(annotation: Option<&str>) -> Result<Self, UnreadableRecords> {
        annotation.map_or_else(
            || Ok(Self::default()),
            |text| serde_json::from_str(text).map_err(UnreadableRecords),
        )
    }

    /// The annotation's value; `None` if there is nothing to put back.
    pub fn render(&self) -> Option<String> {
        // Serialising these types cannot fail: string keys, no custom impls.
        (!self.0.is_empty()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// The record of an object.
    pub fn of(&self, uid: &str) -> Option<&Record> {
        self.0.iter().find(|record| record.uid == uid)
    }

    /// Adds what stands in `live` now at each edit, unless it is already known from an earlier patch: the first
    /// value seen is the owner's, later ones may be ours.
    pub fn remember(&mut self, object: &ObjectKey, edits: &[Edit], live: &Value) {
        let position = self
            .0
            .iter()
            .position(|record| record.uid == object.uid)
            .unwrap_or_else(|| {
                self.0.push(Record {
                    api_version: object.api_version.clone(),
                    kind: object.kind.clone(),
                    plural: object.plural.clone(),
                    name: object.name.clone(),
                    uid: object.uid.clone(),
                    fields: Vec::new(),
                });
                self.0.len() - 1
            });
        let Some(record) = self.0.get_mut(position) else {
            return;
        };
        for edit in edits {
            let known = record.fields.iter_mut().find(|field| {
                locate(live, &field.pointer, &field.guards).as_deref() == Some(edit.pointer.as_str())
            });
            match known {
                Some(field) => {
                    let stands = live.pointer(&edit.pointer);
                    if !field.is_ours(stands) {
                        field.before = stands.cloned();
                    }
                    field.superseded = stands.filter(|stands| field.is_ours(Some(stands))).cloned();
                    field.written = edit.value.clone();
                }
                None => record.fields.push(Field {
                    pointer: edit.pointer.clone(),
                    guards: edit.guards.clone(),
                    before: live.pointer(&edit.pointer).cloned(),
                    written: edit.value.clone(),
                    superseded: None,
                }),
            }
        }
    }

    /// Forgets the fields of an object that are not among `wanted`, and the object with its last field.
    pub fn keep_only(&mut self, uid: &str, live: Option<&Value>, wanted: &[Edit]) {
        if let Some(record) = self.0.iter_mut().find(|record| record.uid == uid) {
            record
                .fields
                .retain(|field| live.is_some_and(|live| field.is_wanted(live, wanted)));
        }
        self.0.retain(|record| !record.fields.is_empty());
    }

    /// Whether this policy wrote what stands at `pointer`.
    pub fn wrote(&self, uid: &str, live: &Value, pointer: &str) -> bool {
        let fields = self.of(uid).into_iter().flat_map(|record| &record.fields);
        fields.into_iter().any(|field| {
            locate(live, &field.pointer, &field.guards).as_deref() == Some(pointer)
                && field.is_ours(live.pointer(pointer))
        })
    }
}

impl Field {
    /// Whether a value that stands in the object is one that was written by the policy.
    fn is_ours(&self, stands: Option<&Value>) -> bool {
        stands.is_some() && (stands == Some(&self.written) || stands == self.superseded.as_ref())
    }

    /// Whether one of `wanted` is about this field, wherever its entry stands in `live` now.
    fn is_wanted(&self, live: &Value, wanted: &[Edit]) -> bool {
        let pointer = locate(live, &self.pointer, &self.guards);
        pointer.is_some_and(|pointer| wanted.iter().any(|edit| edit.pointer == pointer))
    }
}

impl Record {
    /// Names the object; records are about objects of the policy's own namespace.
    pub fn object(&self, namespace: &str) -> ObjectKey {
        ObjectKey {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
            namespace: namespace.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// Whether every field is among `wanted`.
    pub fn is_wanted(&self, live: &Value, wanted: &[Edit]) -> bool {
        self.fields.iter().all(|field| field.is_wanted(live, wanted))
    }

    /// JSON Patch operations that put back what stood before, for those fields that still hold what was written.
    /// A field that somebody changed since is theirs and stays.
    pub fn undo(&self, live: &Value, keep: &[Edit]) -> Vec<Value> {
        let mut operations = Vec::new();
        for field in &self.fields {
            let Some(pointer) = locate(live, &field.pointer, &field.guards) else {
                continue;
            };
            let stands = live.pointer(&pointer);
            if !field.is_ours(stands) || keep.iter().any(|edit| edit.pointer == pointer) {
                continue;
            }
            operations.push(serde_json::json!({"op": "test", "path": pointer, "value": stands}));
            operations.push(match &field.before {
                Some(before) => serde_json::json!({"op": "replace", "path": pointer, "value": before}),
                None => serde_json::json!({"op": "remove", "path": pointer}),
            });
        }
        operations
    }
}

/// JSON Patch operations that make the edits, guarded by what identifies the entries.
pub fn edit_operations(live: &Value, edits: &[Edit]) -> Vec<Value> {
    let mut operations = Vec::new();
    for edit in edits {
        for (pointer, value) in &edit.guards {
            operations.push(serde_json::json!({"op": "test", "path": pointer, "value": value}));
        }
        let op = if live.pointer(&edit.pointer).is_some() {
            "replace"
        } else {
            "add"
        };
        operations.push(serde_json::json!({"op": op, "path": edit.pointer, "value": edit.value}));
    }
    operations
}

/// Finds the entry again that `guards` identify: at its old place, or where it stands now in the same lists.
///
/// Returns the field's pointer there.
fn locate(live: &Value, pointer: &str, guards: &[(String, Value)]) -> Option<String> {
    if guards_hold(live, guards, pointer, pointer) {
        return Some(pointer.to_owned());
    }
    let mut candidates = Vec::new();
    expand(
        live,
        pointer.split('/').skip(1).collect::<Vec<_>>().as_slice(),
        String::new(),
        &mut candidates,
    );
    let mut matching = candidates
        .into_iter()
        .filter(|candidate| guards_hold(live, guards, pointer, candidate));
    let found = matching.next()?;
    // Two entries that look the same: which one was written cannot be told, so neither is touched.
    matching.next().is_none().then_some(found)
}

/// Whether all guards hold once the list positions of `from` in them are replaced by those of `to`.
fn guards_hold(live: &Value, guards: &[(String, Value)], from: &str, to: &str) -> bool {
    guards.iter().all(|(guard, value)| {
        let moved = reposition(guard, from, to);
        live.pointer(&moved) == Some(value)
    })
}

/// Replaces the segments that `guard` shares with `from` by those of `to`.
fn reposition(guard: &str, from: &str, to: &str) -> String {
    let mut sharing = true;
    let mut originals = from.split('/');
    let mut replacements = to.split('/');
    guard
        .split('/')
        .map(|segment| {
            let original = originals.next();
            let replacement = replacements.next();
            sharing = sharing && original == Some(segment);
            if sharing {
                replacement.unwrap_or(segment)
            } else {
                segment
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// Every pointer of the same shape as `segments` in which numbers stand for any position of the list there.
fn expand(node: &Value, segments: &[&str], prefix: String, candidates: &mut Vec<String>) {
    let Some((first, rest)) = segments.split_first() else {
        candidates.push(prefix);
        return;
    };
    if rest.is_empty() {
        candidates.push(format!("{prefix}/{first}"));
        return;
    }
    match node {
        Value::Array(entries) if first.bytes().all(|byte| byte.is_ascii_digit()) => {
            for (position, entry) in entries.iter().enumerate() {
                expand(entry, rest, format!("{prefix}/{position}"), candidates);
            }
        }
        Value::Object(fields) => {
            if let Some(child) = fields.get(&first.replace("~1", "/").replace("~0", "~")) {
                expand(child, rest, format!("{prefix}/{first}"), candidates);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey {
            api_version: "traefik.io/v1alpha1".into(),
            kind: "IngressRoute".into(),
            plural: "ingressroutes".into(),
            namespace: "web".into(),
            name: "shop".into(),
            uid: "u-1".into(),
        }
    }

    fn edit(route: usize, service: usize, name: &str) -> Edit {
        let entry = format!("/spec/routes/{route}/services/{service}");
        Edit {
            pointer: format!("{entry}/sticky"),
            value: json!({"cookie": {"name": "s"}}),
            guards: vec![(format!("{entry}/name"), json!(name))],
        }
    }

    fn live(services: &[Value]) -> Value {
        json!({"spec": {"routes": [{"services": services}]}})
    }

    fn patched(before: &Value, edits: &[Edit]) -> Value {
        let mut after = before.clone();
        let operations: json_patch::Patch =
            serde_json::from_value(Value::Array(edit_operations(before, edits))).unwrap();
        json_patch::patch(&mut after, &operations).unwrap();
        after
    }

    fn undone(after: &Value, record: &Record) -> Value {
        let mut restored = after.clone();
        let operations: json_patch::Patch =
            serde_json::from_value(Value::Array(record.undo(after, &[]))).unwrap();
        json_patch::patch(&mut restored, &operations).unwrap();
        restored
    }

    #[test]
    fn undo_puts_back_absence_and_former_values_exactly() {
        for before in [
            live(&[json!({"name": "shop", "port": 80})]),
            live(&[
                json!({"name": "shop", "port": 80, "sticky": {"cookie": {"name": "mine", "secure": true}}}),
            ]),
        ] {
            let edits = [edit(0, 0, "shop")];
            let mut records = Records::default();
            records.remember(&key(), &edits, &before);
            let after = patched(&before, &edits);
            assert_ne!(before, after);
            assert_eq!(undone(&after, records.of("u-1").unwrap()), before);
        }
    }

    #[test]
    fn undo_finds_an_entry_that_moved() {
        let before = live(&[json!({"name": "shop"}), json!({"name": "other"})]);
        let edits = [edit(0, 0, "shop")];
        let mut records = Records::default();
        records.remember(&key(), &edits, &before);
        let mut after = patched(&before, &edits);
        after["spec"]["routes"][0]["services"]
            .as_array_mut()
            .unwrap()
            .reverse();
        let restored = undone(&after, records.of("u-1").unwrap());
        assert_eq!(
            restored,
            live(&[json!({"name": "other"}), json!({"name": "shop"})])
        );
    }

    #[test]
    fn undo_leaves_what_somebody_changed_since() {
        let before = live(&[json!({"name": "shop"})]);
        let edits = [edit(0, 0, "shop")];
        let mut records = Records::default();
        records.remember(&key(), &edits, &before);
        let mut after = patched(&before, &edits);
        after["spec"]["routes"][0]["services"][0]["sticky"] = json!({"cookie": {"name": "theirs"}});
        assert_eq!(undone(&after, records.of("u-1").unwrap()), after);
    }

    #[test]
    fn undo_touches_neither_of_two_entries_that_look_the_same() {
        let before = live(&[json!({"name": "other"}), json!({"name": "shop"})]);
        let edits = [edit(0, 1, "shop")];
        let mut records = Records::default();
        records.remember(&key(), &edits, &before);
        let written = json!({"name": "shop", "sticky": {"cookie": {"name": "s"}}});
        let ambiguous =
            json!({"spec": {"routes": [{"services": [written, {"name": "x"}]}, {"services": [written]}]}});
        assert_eq!(undone(&ambiguous, records.of("u-1").unwrap()), ambiguous);
    }

    #[test]
    fn a_second_patch_keeps_the_owners_value_and_not_our_first_one() {
        let before = live(&[json!({"name": "shop", "sticky": {"cookie": {"name": "mine"}}})]);
        let first = [edit(0, 0, "shop")];
        let mut records = Records::default();
        records.remember(&key(), &first, &before);
        let after = patched(&before, &first);
        let mut second = edit(0, 0, "shop");
        second.value = json!({"cookie": {"name": "renamed"}});
        records.remember(&key(), &[second.clone()], &after);
        let after = patched(&after, &[second]);
        assert_eq!(undone(&after, records.of("u-1").unwrap()), before);
    }

    #[test]
    fn a_change_of_mind_that_was_recorded_and_not_made_is_still_undone() {
        let before = live(&[json!({"name": "shop"})]);
        let first = [edit(0, 0, "shop")];
        let mut records = Records::default();
        records.remember(&key(), &first, &before);
        let after = patched(&before, &first);
        let mut second = edit(0, 0, "shop");
        second.value = json!({"cookie": {"name": "renamed"}});
        records.remember(&key(), &[second], &after);
        assert!(records.wrote("u-1", &after, &first[0].pointer));
        assert_eq!(undone(&after, records.of("u-1").unwrap()), before);
    }

    #[test]
    fn a_field_that_is_not_wanted_any_more_is_undone_alone() {
        let before = live(&[json!({"name": "shop"})]);
        let (cookie, mut strategy) = (edit(0, 0, "shop"), edit(0, 0, "shop"));
        strategy.pointer = strategy.pointer.replace("sticky", "strategy");
        strategy.value = json!("hrw");
        let mut records = Records::default();
        records.remember(&key(), std::slice::from_ref(&strategy), &before);
        let after = patched(&before, std::slice::from_ref(&strategy));
        records.remember(&key(), std::slice::from_ref(&cookie), &after);
        let after = patched(&after, std::slice::from_ref(&cookie));
        let record = records.of("u-1").unwrap();
        assert!(!record.is_wanted(&after, std::slice::from_ref(&cookie)));
        let operations = record.undo(&after, std::slice::from_ref(&cookie));
        let operations: json_patch::Patch = serde_json::from_value(Value::Array(operations)).unwrap();
        let mut restored = after;
        json_patch::patch(&mut restored, &operations).unwrap();
        assert_eq!(restored, patched(&before, std::slice::from_ref(&cookie)));
        records.keep_only("u-1", Some(&restored), std::slice::from_ref(&cookie));
        assert!(
            records
                .of("u-1")
                .unwrap()
                .is_wanted(&restored, std::slice::from_ref(&cookie))
        );
        assert!(records.wrote("u-1", &restored, &cookie.pointer));
        assert!(!records.wrote("u-1", &before, &cookie.pointer));
        records.keep_only("u-1", None, &[]);
        assert_eq!(records, Records::default());
    }

    #[test]
    fn records_survive_the_annotation_and_junk_is_refused() {
        let mut records = Records::default();
        records.remember(&key(), &[edit(0, 0, "shop")], &live(&[json!({"name": "shop"})]));
        assert_eq!(Records::parse(records.render().as_deref()).unwrap(), records);
        assert_eq!(Records::parse(None).unwrap(), Records::default());
        assert_eq!(Records::default().render(), None);
        assert!(Records::parse(Some("{")).is_err());
    }
}
