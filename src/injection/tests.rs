//! The rules, one by one, and for pods and injections of all sorts.

use k8s_openapi::api::core::v1::Pod;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{contains, patch};
use crate::api::SessionInjectionSpec;

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The pod after admission.
fn injected(pod: &Value, injection: &Value) -> Value {
    let operations = patch(&typed::<Pod>(pod), &typed::<SessionInjectionSpec>(injection)).unwrap();
    let mut result = pod.clone();
    json_patch::patch(&mut result, &operations).unwrap();
    result
}

fn missing(pod: &Value, injection: &Value) -> Vec<String> {
    contains(&typed::<Pod>(pod), &typed::<SessionInjectionSpec>(injection))
        .err()
        .unwrap_or_default()
}

fn pod(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": spec})
}

fn injection(parts: &Value) -> Value {
    let mut injection = parts.clone();
    injection["policy"] = json!({"name": "shop", "uid": "u"});
    injection
}

#[test]
fn lists_that_are_missing_are_made_and_only_named_containers_get_anything() {
    let injection = injection(&json!({
        "containers": [
            {"name": "web", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "absent", "env": [{"name": "B", "value": "2"}]}
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [{"name": "first", "image": "i"}, {"name": "second", "image": "i"}],
        "imagePullSecrets": [{"name": "s"}]
    }));
    let before = pod(&json!({"containers": [{"name": "log"}, {"name": "web"}]}));
    let after = injected(&before, &injection);
    assert_eq!(
        after["spec"],
        json!({
            "containers": [
                {"name": "log"},
                {
                    "name": "web",
                    "env": [{"name": "A", "value": "1"}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]
                }
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{"name": "first", "image": "i"}, {"name": "second", "image": "i"}],
            "imagePullSecrets": [{"name": "s"}]
        })
    );
    assert_eq!(
        missing(&before, &injection),
        [
            "variable A of container web",
            "mount at /v of container web",
            "volume v",
            "init container first",
            "init container second",
            "pull secret s"
        ]
    );
    assert_eq!(missing(&after, &injection), Vec::<String>::new());
}

#[test]
fn what_the_owner_wrote_stands() {
    let injection = injection(&json!({
        "containers": [{
            "name": "web",
            "env": [{"name": "A", "value": "ours"}],
            "volumeMounts": [{"name": "v", "mountPath": "/taken"}]
        }],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [{"name": "web", "image": "ours"}, {"name": "migrate", "image": "ours"}],
        "imagePullSecrets": [{"name": "s"}]
    }));
    let before = pod(&json!({
        "containers": [{
            "name": "web",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}],
            "volumeMounts": [{"name": "data", "mountPath": "/taken"}]
        }],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        "initContainers": [{"name": "migrate", "image": "theirs"}],
        "imagePullSecrets": [{"name": "s"}]
    }));
    assert_eq!(injected(&before, &injection), before);
    assert_eq!(missing(&before, &injection), Vec::<String>::new());
}

#[test]
fn init_containers_go_before_those_of_the_pod() {
    let injection = injection(&json!({"initContainers": [{"name": "first"}, {"name": "second"}]}));
    let after = injected(
        &pod(&json!({"containers": [{"name": "web"}], "initContainers": [{"name": "migrate"}]})),
        &injection,
    );
    let names = after["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&str> = names
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["first", "second", "migrate"]);
}

#[test]
fn lists_in_variables_are_extended_once() {
    let injection = injection(&json!({
        "containers": [{
            "name": "web",
            "extend": [{"name": "OPTIONS", "whenSet": "$(OPTIONS) --require /a", "whenUnset": "--require /a"}]
        }]
    }));
    let with = |env: &Value| pod(&json!({"containers": [{"name": "web", "env": env}]}));
    let from = json!({"name": "OPTIONS", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}});
    let set = json!({"name": "OPTIONS", "value": "$(OPTIONS) --require /a"});
    let unset = json!({"name": "OPTIONS", "value": "--require /a"});
    let own = json!({"name": "OPTIONS", "value": "--trace"});
    for (before, expected) in [
        (json!([]), json!([unset])),
        (json!([own]), json!([own, set])),
        (json!([from]), json!([from, set])),
    ] {
        assert_eq!(
            missing(&with(&before), &injection),
            ["variable OPTIONS of container web"]
        );
        let after = injected(&with(&before), &injection);
        assert_eq!(after, with(&expected));
        assert_eq!(injected(&after, &injection), after, "once is enough");
        assert_eq!(missing(&after, &injection), Vec::<String>::new());
    }
    let by_another_injector = with(&json!([{"name": "OPTIONS", "value": "--require /a --require /theirs"}]));
    assert_eq!(missing(&by_another_injector, &injection), Vec::<String>::new());
}

#[test]
fn a_mark_is_no_proof() {
    let injection = injection(&json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
    let mut forged = pod(&json!({"containers": [{"name": "web"}]}));
    forged["metadata"]["annotations"] = json!({"session-operator.dev/injected": "true"});
    assert_eq!(missing(&forged, &injection), ["volume v"]);
    assert_eq!(
        missing(&injected(&forged, &injection), &injection),
        Vec::<String>::new()
    );
}

/// Few names, so that pods and injections often have the same ones.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

/// A list whose elements have different names.
fn named(element: impl Fn(&str, u8) -> Value + Clone + 'static) -> impl Strategy<Value = Value> {
    btree_map(name(), any::<u8>(), 0..4)
        .prop_map(move |all| all.iter().map(|(name, form)| element(name, *form)).collect())
}

fn variable(name: &str, form: u8) -> Value {
    match form % 3 {
        0 => json!({"name": name, "value": "x"}),
        1 => json!({"name": name}),
        _ => json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
    }
}

fn mount(name: &str, form: u8) -> Value {
    json!({"name": format!("volume-{form}"), "mountPath": format!("/{name}")})
}

fn extension(name: &str, form: u8) -> Value {
    json!({"name": name, "whenSet": format!("$({name}):/agent{form}"), "whenUnset": format!("/agent{form}")})
}

fn without_nulls(fields: &[(&str, Option<Value>)]) -> Value {
    let present = fields
        .iter()
        .filter_map(|(key, value)| Some((*key, value.clone()?)));
    present.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn containers() -> impl Strategy<Value = Vec<Value>> {
    let lists = (option::of(named(variable)), option::of(named(mount)));
    btree_map(name(), lists, 1..4).prop_map(|all| {
        let container = |(name, (env, mounts)): (String, (Option<Value>, Option<Value>))| {
            without_nulls(&[
                ("name", Some(name.into())),
                ("env", env),
                ("volumeMounts", mounts),
            ])
        };
        all.into_iter().map(container).collect()
    })
}

fn pods() -> impl Strategy<Value = Value> {
    let named = || option::of(named(|name, form| json!({"name": name, "from": form})));
    let init = option::of(named_with_prefix("init-"));
    (containers(), named(), init, named()).prop_map(|(containers, volumes, init, secrets)| {
        pod(&without_nulls(&[
            ("containers", Some(containers.into())),
            ("volumes", volumes),
            ("initContainers", init),
            ("imagePullSecrets", secrets),
        ]))
    })
}

fn named_with_prefix(prefix: &'static str) -> impl Strategy<Value = Value> {
    named(move |name, form| json!({"name": format!("{prefix}{name}"), "image": form.to_string()}))
}

fn injections() -> impl Strategy<Value = Value> {
    // What is extended has names of its own: a variable is either set or extended.
    let extensions = named(|name, form| extension(&name.to_uppercase(), form));
    let container = (named(variable), extensions, named(mount));
    let init = vec(0_u8..4, 0..4).prop_shuffle();
    (
        btree_map(name(), container, 0..4),
        named(|name, _| json!({"name": name})),
        init,
    )
        .prop_map(|(containers, volumes, init)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (env, extend, mounts))| {
                    json!({"name": name, "env": env, "extend": extend, "volumeMounts": mounts})
                })
                .collect();
            let mut seen = std::collections::BTreeSet::new();
            let init = init.into_iter().filter(|number| seen.insert(*number));
            let init: Vec<Value> = init
                .map(|number| json!({"name": format!("init-{number}")}))
                .collect();
            injection(&json!({
                "containers": containers,
                "volumes": volumes,
                "initContainers": init,
                "imagePullSecrets": volumes,
            }))
        })
}

/// Whether `part` is what remains of `whole` when elements of lists and members of objects are left out.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|other| is_within(value, other))),
        (Value::Array(part), Value::Array(whole)) => {
            let mut rest = whole.iter();
            part.iter()
                .all(|element| rest.any(|other| is_within(element, other)))
        }
        (part, whole) => part == whole,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_result_contains_the_injection_and_nothing_is_lost(pod in pods(), injection in injections()) {
        let after = injected(&pod, &injection);
        prop_assert_eq!(missing(&after, &injection), Vec::<String>::new());
        prop_assert!(is_within(&pod, &after), "{} lost something in {}", pod, after);
        prop_assert_eq!(injected(&after, &injection), after, "a second time adds nothing");
    }

    #[test]
    fn nothing_is_added_where_nothing_lacks(pod in pods(), injection in injections()) {
        let lacks = !missing(&pod, &injection).is_empty();
        prop_assert_eq!(injected(&pod, &injection) != pod, lacks);
    }
}
