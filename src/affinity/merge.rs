//! One write per object.
//!
//! With server-side apply a field that is missing in a later apply of the same manager is removed. So what
//! several routes want of one object has to go into a single apply.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::{DefaultedField, Edit, ObjectKey, Refusal, Write};
use super::readback::child;
use crate::api::conditions::reasons;

/// What is to be written to one object.
#[derive(Debug, Default)]
struct Merged {
    fields: Option<Value>,
    takeable_defaults: Vec<DefaultedField>,
    resource_version: Option<String>,
    edits: Vec<Edit>,
    /// Where the edit of a pointer stands in `edits`.
    positions: BTreeMap<String, usize>,
}

/// Unites the writes of all routes: at most one apply and one patch per object, ordered by object, no field and
/// no pointer twice.
///
/// # Errors
/// If two writes want different values for one field, or edits of one object were computed from different
/// versions of it.
pub fn merge_writes(writes: Vec<Write>) -> Result<Vec<Write>, Refusal> {
    let mut objects: BTreeMap<ObjectKey, Merged> = BTreeMap::new();
    for write in writes {
        match write {
            Write::Apply {
                object,
                fields,
                takeable_defaults,
            } => {
                let merged = objects.entry(object.clone()).or_default();
                match &mut merged.fields {
                    Some(present) => unite(present, fields, &object, "")?,
                    empty @ None => *empty = Some(fields),
                }
                for field in takeable_defaults {
                    if !merged.takeable_defaults.contains(&field) {
                        merged.takeable_defaults.push(field);
                    }
                }
            }
            Write::Patch {
                object,
                resource_version,
                edits,
            } => {
                let merged = objects.entry(object.clone()).or_default();
                let version = merged
                    .resource_version
                    .get_or_insert_with(|| resource_version.clone());
                if *version != resource_version {
                    return Err(conflict(&object, "resourceVersion", version, &resource_version));
                }
                for edit in edits {
                    merged.add_edit(edit, &object)?;
                }
            }
        }
    }
    Ok(objects
        .into_iter()
        .flat_map(|(object, merged)| merged.into_writes(&object))
        .collect())
}

impl Merged {
    fn add_edit(&mut self, edit: Edit, object: &ObjectKey) -> Result<(), Refusal> {
        let known = self
            .positions
            .get(&edit.pointer)
            .and_then(|position| self.edits.get_mut(*position));
        let Some(known) = known else {
            self.positions.insert(edit.pointer.clone(), self.edits.len());
            self.edits.push(edit);
            return Ok(());
        };
        if known.value != edit.value {
            return Err(conflict(
                object,
                &edit.pointer,
                &known.value.to_string(),
                &edit.value.to_string(),
            ));
        }
        for guard in edit.guards {
            if !known.guards.contains(&guard) {
                known.guards.push(guard);
            }
        }
        Ok(())
    }

    fn into_writes(self, object: &ObjectKey) -> impl Iterator<Item = Write> + use<> {
        let apply = self.fields.map(|fields| Write::Apply {
            object: object.clone(),
            fields,
            takeable_defaults: self.takeable_defaults,
        });
        let edits = self.edits;
        let patch = self.resource_version.map(|resource_version| Write::Patch {
            object: object.clone(),
            resource_version,
            edits,
        });
        apply.into_iter().chain(patch)
    }
}

fn unite(present: &mut Value, added: Value, object: &ObjectKey, pointer: &str) -> Result<(), Refusal> {
    match (present, added) {
        (Value::Object(present), Value::Object(added)) => {
            for (key, value) in added {
                match present.get_mut(&key) {
                    Some(known) => unite(known, value, object, &child(pointer, &key))?,
                    None => {
                        present.insert(key, value);
                    }
                }
            }
            Ok(())
        }
        (present, added) if *present == added => Ok(()),
        (present, added) => Err(conflict(
            object,
            pointer,
            &present.to_string(),
            &added.to_string(),
        )),
    }
}

fn conflict(object: &ObjectKey, pointer: &str, one: &str, other: &str) -> Refusal {
    Refusal::new(
        reasons::FIELD_CONFLICT,
        format!(
            "{} {}: its routes need both {one} and {other} in {pointer}; give the routes separate Services, or set \
             spec.sticky.controller to the one controller that serves them",
            object.kind, object.name
        ),
    )
}
