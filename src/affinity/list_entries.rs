//! Settings that stand in an entry of an atomic list: patched where nobody would undo that, advised elsewhere.

use kube::core::DynamicObject;
use serde_json::{Map, Value};

use super::model::{Advice, Configured, Edit, ObjectKey, Write};
use super::ownership;
use super::readback::missing_edits;
use crate::api::Binds;

/// One setting of an entry.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is to stand there.
    pub edit: Edit,
    /// Where that is, for who reads the object.
    pub place: String,
}

/// The values of these fields, by which what stands at `pointer` is known again ([`Edit::guards`]).
pub fn guards(pointer: &str, fields: &Map<String, Value>, names: &[&str]) -> Vec<(String, Value)> {
    let present = names.iter().filter_map(|name| Some((name, fields.get(*name)?)));
    present
        .map(|(name, value)| (format!("{pointer}/{name}"), value.clone()))
        .collect()
}

/// Patch, nothing, or advice. What users are bound to is for the adapter to say. `ours` is the policy's own field manager.
pub fn configure(object: &DynamicObject, key: ObjectKey, settings: &[Setting], ours: &str) -> Configured {
    let edits: Vec<Edit> = settings.iter().map(|setting| setting.edit.clone()).collect();
    let mut configured = Configured {
        writes: Vec::new(),
        advice: None,
        written_to: vec![key.short()],
        binds: Binds::None,
        keeps_terminating_pods: false,
        unsupported: Vec::new(),
        notes: Vec::new(),
    };
    match ownership::would_undo(object, ours) {
        None => {
            if ownership::is_client_side_applied(object) {
                configured.notes.push(format!(
                    "{} {} was made with kubectl apply: applying a changed file removes the setting, which the operator \
                     then restores; to spare the gap, add it to the file",
                    key.kind, key.name
                ));
            }
            configured.writes.push(Write::Patch {
                object: key,
                resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
                edits,
            });
        }
        Some(because) if missing_edits(&object.data, &edits).is_empty() => {
            configured.notes.push(format!(
                "{} {} has the setting already; {because}",
                key.kind, key.name
            ));
        }
        Some(because) => {
            configured.written_to.clear();
            configured.advice = Some(Advice {
                object: key.short(),
                because,
                yaml: settings.iter().map(advice).collect(),
            });
        }
    }
    configured
}

/// The field to add, under a comment that says where.
fn advice(setting: &Setting) -> String {
    let (_, field) = setting.edit.pointer.rsplit_once('/').unwrap_or_default();
    format!(
        "# in {}:\n{}",
        setting.place,
        block(field, &setting.edit.value, 0)
    )
}

/// A field as YAML in block style. Lists and scalars are written as JSON, which is YAML, too.
fn block(field: &str, value: &Value, indent: usize) -> String {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(members) if !members.is_empty() => {
            let members = members.iter().map(|(name, value)| block(name, value, indent + 1));
            format!("{pad}{field}:\n{}", members.collect::<String>())
        }
        other => format!("{pad}{field}: {other}\n"),
    }
}
