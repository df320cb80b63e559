use serde_json::{Value, json};

use crate::affinity::model::Edit;
use crate::affinity::readback::{guards_hold, missing_edits, missing_fields};

#[test]
fn what_is_absent_or_different_is_missing() {
    let live =
        json!({"metadata": {"annotations": {"a/b": "1", "c~d": "2"}, "name": "x"}, "spec": {"list": [1, 2]}});
    let table: [(Value, &[&str]); 10] = [
        (json!({}), &[]),
        (json!({"metadata": {"annotations": {"a/b": "1"}}}), &[]),
        (
            json!({"metadata": {"annotations": {"a/b": "2"}}}),
            &["/metadata/annotations/a~1b"],
        ),
        (
            json!({"metadata": {"annotations": {"c~d": "3"}}}),
            &["/metadata/annotations/c~0d"],
        ),
        (
            json!({"metadata": {"labels": {"x": "1", "y": "2"}}}),
            &["/metadata/labels/x", "/metadata/labels/y"],
        ),
        (json!({"metadata": {"labels": {}}}), &["/metadata/labels"]),
        (json!({"spec": {"list": [1, 2]}}), &[]),
        (json!({"spec": {"list": [1]}}), &["/spec/list"]),
        (json!({"spec": {"list": {"a": 1}}}), &["/spec/list"]),
        (json!({"metadata": {"name": {"a": 1}}}), &["/metadata/name"]),
    ];
    for (fields, expected) in table {
        assert_eq!(missing_fields(&live, &fields), expected, "{fields}");
    }
}

#[test]
fn edits_are_read_back_only_where_their_guards_hold() {
    let edit = Edit {
        pointer: "/spec/routes/0/sticky".to_owned(),
        value: json!({"cookie": {"name": "a"}}),
        guards: vec![("/spec/routes/0/name".to_owned(), json!("shop"))],
    };
    let live = |name: &str, cookie: Value| json!({"spec": {"routes": [{"name": name, "sticky": {"cookie": cookie}}]}});
    let table: [(Value, bool, &[&str]); 5] = [
        (live("shop", json!({"name": "a"})), true, &[]),
        (
            live("shop", json!({"name": "a", "added": "by a default"})),
            true,
            &[],
        ),
        (
            live("shop", json!({})),
            true,
            &["/spec/routes/0/sticky/cookie/name"],
        ),
        (
            live("blog", json!({"name": "a"})),
            false,
            &["/spec/routes/0/sticky"],
        ),
        (json!({"spec": {"routes": []}}), false, &["/spec/routes/0/sticky"]),
    ];
    for (live, guarded, expected) in table {
        assert_eq!(guards_hold(&live, &edit), guarded, "{live}");
        assert_eq!(
            missing_edits(&live, std::slice::from_ref(&edit)),
            expected,
            "{live}"
        );
    }
}
