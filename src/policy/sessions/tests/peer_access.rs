//! The rule beside somebody else's NetworkPolicy that lets members reach each other.

use insta::assert_yaml_snapshot;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{policy, target};
use crate::api::SessionInjection;
use crate::policy::sessions::peer_access::{has_members, is_same, isolating, rule};

fn network_policy(name: &str, meta: &Value, spec: &Value) -> NetworkPolicy {
    let mut metadata = json!({"name": name, "namespace": "web", "uid": format!("n-{name}")});
    for (key, value) in meta.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn names(of: &[NetworkPolicy]) -> Vec<String> {
    isolating(&target(&json!({})), of)
        .iter()
        .map(|policy| policy.name_any())
        .collect()
}

#[test]
fn only_what_isolates_these_pods_for_ingress_is_a_reason_for_a_rule() {
    let plain = json!({});
    let all = [
        network_policy("z-everything", &plain, &json!({"podSelector": {}})),
        network_policy(
            "by-label",
            &plain,
            &json!({"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress", "Egress"]}),
        ),
        network_policy(
            "by-expression",
            &plain,
            &json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}, "policyTypes": ["Ingress"]}),
        ),
        network_policy(
            "egress",
            &plain,
            &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
        ),
        network_policy(
            "others",
            &plain,
            &json!({"podSelector": {"matchLabels": {"app": "blog"}}}),
        ),
        network_policy(
            "going",
            &json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}),
            &json!({"podSelector": {}}),
        ),
        network_policy(
            "shop-peers",
            &json!({"labels": {"session-operator.dev/policy": "shop"}}),
            &json!({"podSelector": {}}),
        ),
    ];
    assert_eq!(names(&all), ["by-expression", "by-label", "z-everything"]);
    assert!(names(&all[3..]).is_empty());
}

#[test]
fn the_rule_opens_the_port_of_members_to_members_and_the_operator_and_goes_with_what_it_stands_beside() {
    let policy = policy(target(&json!({"selector": {"matchLabels": {"app": "shop"}}})));
    let deny = network_policy("deny", &json!({}), &json!({"podSelector": {}}));
    let allow = network_policy("allow", &json!({}), &json!({"podSelector": {}}));
    let both = rule(&policy, &[&deny, &allow]);
    assert_yaml_snapshot!(both);
    assert!(
        is_same(&both, &rule(&policy, &[&allow, &deny])),
        "order is nothing"
    );
    assert!(!is_same(&both, &rule(&policy, &[&deny])), "an owner less");
    let mut opened = both.clone();
    opened.spec.as_mut().unwrap().ingress = None;
    assert!(!is_same(&opened, &both), "somebody changed it");
}

#[test]
fn pods_are_members_as_long_as_a_revision_says_so() {
    let revision = |place: &str| -> SessionInjection {
        serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionInjection",
            "metadata": {"name": "shop-0123456789", "annotations": {"session-operator.dev/sessions": place}},
            "spec": {"policy": {"name": "shop", "uid": "p-1"}}
        }))
        .unwrap()
    };
    for (place, members) in [
        ("Store", false),
        ("Application", false),
        ("Pods", true),
        ("StoreToPods", true),
        ("PodsToStore", true),
    ] {
        assert_eq!(has_members(None, [&revision(place)]), members, "{place}");
    }
    assert!(!has_members(None, []));
}
