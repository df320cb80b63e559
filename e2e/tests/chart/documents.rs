//! Rendering the chart, and finding one's way in what comes out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The sets of values under the chart's `ci` folder.
pub const SETS: [&str; 3] = ["defaults", "namespaces", "everything"];

/// Release name and namespace of every rendering.
pub const RELEASE: &str = "session-operator";

/// The oldest Kubernetes that the chart accepts.
const KUBE_VERSION: &str = "1.33.0";

/// The top folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    repository().join("charts/session-operator")
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Runs `helm` (or what the environment variable HELM names) with `arguments` and the chart's folder.
pub fn helm(arguments: &[&str]) -> Output {
    let helm = std::env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
    Command::new(&helm)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run {helm} ({error}): install Helm 3.14 or newer, or set HELM to its path")
        })
}

/// Runs `helm COMMAND` on the chart with one set of values and more arguments.
pub fn helm_with_values(command: &[&str], set: &str, more: &[&str]) -> Output {
    let chart = chart();
    let values = chart.join(format!("ci/{set}-values.yaml"));
    let mut arguments = command.to_vec();
    arguments.push(chart.to_str().unwrap());
    arguments.extend(["--namespace", RELEASE, "--kube-version", KUBE_VERSION]);
    arguments.extend(["--values", values.to_str().unwrap()]);
    arguments.extend(more);
    helm(&arguments)
}

/// The text that the chart renders to with a set of values and more arguments.
pub fn render(set: &str, more: &[&str]) -> String {
    let output = helm_with_values(&["template", RELEASE], set, more);
    assert!(
        output.status.success(),
        "helm template with {set}-values.yaml failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The objects in a text of several YAML documents.
pub fn parse(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("rendered documents are YAML");
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

/// The objects that the chart renders to with a set of values.
pub fn objects(set: &str) -> Vec<Value> {
    parse(&render(set, &[]))
}

/// A string inside an object, or "" where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The elements of a list inside an object; none where there is no list.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The strings of a list inside an object.
pub fn strings<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(object, pointer)
        .iter()
        .map(|item| item.as_str().expect("a list of strings"))
        .collect()
}

/// Kind, namespace and name, for messages and for sorting.
pub fn identity(object: &Value) -> String {
    let namespace = text(object, "/metadata/namespace");
    format!(
        "{} {namespace}/{}",
        text(object, "/kind"),
        text(object, "/metadata/name")
    )
}

/// The objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| text(object, "/kind") == kind)
        .collect()
}

/// The value of an annotation, or "".
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The first place where two objects differ, and how. 1 and 1.0 are the same number.
pub fn difference(expected: &Value, found: &Value, place: &str) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = expected
                .keys()
                .chain(found.keys().filter(|key| !expected.contains_key(*key)));
            let side = |side: &serde_json::Map<String, Value>, key: &String| {
                side.get(key).cloned().unwrap_or_default()
            };
            keys.into_iter().find_map(|key| {
                difference(&side(expected, key), &side(found, key), &format!("{place}.{key}"))
            })
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (a, b))| difference(a, b, &format!("{place}[{index}]")))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        (expected, found) if expected == found => None,
        (expected, found) => Some(format!("{place}: expected {expected}, found {found}")),
    }
}
