//! Whether what was wanted stands in an object as it was read.

use serde_json::Value;

use super::model::Edit;

/// JSON pointers of `fields` that are absent in `live` or have another value there. What `live` has beyond
/// `fields` does not matter; lists count as a whole.
pub fn missing_fields(live: &Value, fields: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    compare(Some(live), fields, "", &mut missing);
    missing
}

/// JSON pointers of `edits` whose value does not stand in `live`, or whose guards no longer hold there: then the
/// entry is another one, and what stands in it says nothing.
pub fn missing_edits(live: &Value, edits: &[Edit]) -> Vec<String> {
    let mut missing = Vec::new();
    for edit in edits {
        if guards_hold(live, edit) {
            compare(
                live.pointer(&edit.pointer),
                &edit.value,
                &edit.pointer,
                &mut missing,
            );
        } else {
            missing.push(edit.pointer.clone());
        }
    }
    missing
}

/// Whether the entry is still the one from which the edit was computed.
pub fn guards_hold(live: &Value, edit: &Edit) -> bool {
    edit.guards
        .iter()
        .all(|(pointer, value)| live.pointer(pointer) == Some(value))
}

/// The pointer of a member, escaped as in RFC 6901 section 3.
pub(super) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn compare(live: Option<&Value>, wanted: &Value, pointer: &str, missing: &mut Vec<String>) {
    match (live, wanted) {
        (Some(Value::Object(_)) | None, Value::Object(members)) if !members.is_empty() => {
            for (key, value) in members {
                compare(
                    live.and_then(|live| live.get(key)),
                    value,
                    &child(pointer, key),
                    missing,
                );
            }
        }
        (Some(Value::Object(_)), Value::Object(_)) => {}
        (Some(live), wanted) if live == wanted => {}
        _ => missing.push(pointer.to_owned()),
    }
}
