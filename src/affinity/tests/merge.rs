use serde_json::{Value, json};

use crate::affinity::merge_writes;
use crate::affinity::model::{DefaultedField, Edit, ObjectKey, Write};
use crate::api::conditions::reasons;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        plural: "services".to_owned(),
        namespace: "web".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    }
}

fn apply(name: &str, fields: Value) -> Write {
    Write::Apply {
        object: key(name),
        fields,
        takeable_defaults: Vec::new(),
    }
}

fn patch(name: &str, version: &str, edits: Vec<Edit>) -> Write {
    Write::Patch {
        object: key(name),
        resource_version: version.to_owned(),
        edits,
    }
}

fn edit(pointer: &str, value: Value, guard: &str) -> Edit {
    Edit {
        pointer: pointer.to_owned(),
        value,
        guards: vec![(guard.to_owned(), json!("x"))],
    }
}

#[test]
fn fields_of_one_object_become_one_apply() {
    let merged = merge_writes(vec![
        apply("b", json!({"metadata": {"annotations": {"one": "1"}}})),
        apply("a", json!({"metadata": {"annotations": {"one": "1"}}})),
        apply(
            "b",
            json!({"metadata": {"annotations": {"two": "2", "one": "1"}}, "spec": {"x": 1}}),
        ),
    ]);
    assert_eq!(
        merged.expect("no conflict"),
        [
            apply("a", json!({"metadata": {"annotations": {"one": "1"}}})),
            apply(
                "b",
                json!({"metadata": {"annotations": {"one": "1", "two": "2"}}, "spec": {"x": 1}})
            ),
        ]
    );
}

#[test]
fn different_values_are_a_conflict_that_names_object_and_field() {
    let refusal = merge_writes(vec![
        apply("a", json!({"metadata": {"annotations": {"x.io/~k": "1"}}})),
        apply("a", json!({"metadata": {"annotations": {"x.io/~k": "2"}}})),
    ])
    .expect_err("two values");
    assert_eq!(refusal.reason, reasons::FIELD_CONFLICT);
    for part in ["Service a", "/metadata/annotations/x.io~1~0k", "\"1\"", "\"2\""] {
        assert!(refusal.message.contains(part), "{part} in: {}", refusal.message);
    }
}

#[test]
fn an_object_is_no_value() {
    for other in [json!("text"), json!([1]), Value::Null] {
        let writes = vec![
            apply("a", json!({"spec": {"x": {"y": 1}}})),
            apply("a", json!({"spec": {"x": other}})),
        ];
        assert!(merge_writes(writes).is_err(), "{other}");
    }
}

#[test]
fn takeable_defaults_are_united() {
    let field = |pointer: &str| DefaultedField {
        pointer: pointer.to_owned(),
        default: json!("None"),
    };
    let with = |fields: Vec<DefaultedField>| Write::Apply {
        object: key("a"),
        fields: json!({"spec": {}}),
        takeable_defaults: fields,
    };
    let merged = merge_writes(vec![
        with(vec![field("/x")]),
        with(vec![field("/x"), field("/y")]),
    ]);
    assert_eq!(
        merged.expect("no conflict"),
        [with(vec![field("/x"), field("/y")])]
    );
}

#[test]
fn no_pointer_is_patched_twice() {
    let merged = merge_writes(vec![
        patch("a", "1", vec![edit("/s/0", json!(1), "/g")]),
        patch(
            "a",
            "1",
            vec![edit("/s/0", json!(1), "/h"), edit("/s/1", json!(2), "/g")],
        ),
    ])
    .expect("no conflict");
    let [Write::Patch { edits, .. }] = merged.as_slice() else {
        panic!("{merged:?}")
    };
    assert_eq!(
        edits.iter().map(|edit| edit.pointer.as_str()).collect::<Vec<_>>(),
        ["/s/0", "/s/1"]
    );
    assert_eq!(edits[0].guards.len(), 2, "the guards of both hold");
    assert!(
        merge_writes(vec![
            patch("a", "1", vec![edit("/s/0", json!(1), "/g")]),
            patch("a", "1", vec![edit("/s/0", json!(2), "/g")]),
        ])
        .is_err()
    );
}

#[test]
fn edits_of_two_versions_do_not_go_together() {
    let refusal =
        merge_writes(vec![patch("a", "1", Vec::new()), patch("a", "2", Vec::new())]).expect_err("versions");
    assert!(refusal.message.contains("resourceVersion"), "{}", refusal.message);
}

#[test]
fn apply_and_patch_of_one_object_stay_apart() {
    let writes = vec![
        patch("a", "1", vec![edit("/s", json!(1), "/g")]),
        apply("a", json!({"spec": {"x": 1}})),
    ];
    let merged = merge_writes(writes).expect("no conflict");
    assert!(
        matches!(merged.as_slice(), [Write::Apply { .. }, Write::Patch { .. }]),
        "{merged:?}"
    );
}
