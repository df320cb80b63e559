//! The sidecar that keeps no sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use insta::assert_yaml_snapshot;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::target;
use crate::api::SessionPolicy;
use crate::policy::dereference::Dereferenced;
use crate::policy::sessions::hand_over::{revision, settled};
use crate::policy::sessions::revision::Images;
use crate::policy::validate::{Kept, Validated, validate};

fn draining(sticky: &Value) -> SessionPolicy {
    serde_json::from_value(json!({
        "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionPolicy",
        "metadata": {"name": "shop", "namespace": "web", "uid": "p-1"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "strategy": "Sticky", "sticky": sticky
        }
    }))
    .unwrap()
}

fn patient(spec: &Value) -> Deployment {
    let mut pod =
        json!({"terminationGracePeriodSeconds": 60, "containers": [{"name": "php", "image": "shop:1"}]});
    for (key, value) in spec.as_object().unwrap() {
        pod[key] = value.clone();
    }
    let mark = json!({"labels": {"app": "shop", "session-operator.dev/injection": "shop-0123456789"}});
    target(&json!({"template": {"metadata": mark, "spec": pod}}))
}

/// A namespace with the target behind an Ingress of this class, or behind none.
fn found(target: Deployment, class: Option<&str>) -> Dereferenced {
    let parse = |value: Value| serde_json::from_value(value).unwrap();
    let service = json!({
        "metadata": {"name": "shop", "namespace": "web", "uid": "s-1"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}
    });
    let ingress = json!({
        "metadata": {"name": "shop", "namespace": "web", "uid": "i-1"},
        "spec": {"ingressClassName": class, "defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}
    });
    let classes = [
        ("traefik", "traefik.io/ingress-controller"),
        ("nginx", "k8s.io/ingress-nginx"),
    ];
    Dereferenced {
        target: Some(Arc::new(target)),
        claimed_by: None,
        services: vec![Arc::new(serde_json::from_value(service).unwrap())],
        deployments: Vec::new(),
        ingresses: class
            .map(|_| Arc::new(serde_json::from_value(ingress).unwrap()))
            .into_iter()
            .collect(),
        ingress_classes: classes
            .map(|(name, controller)| {
                Arc::new(parse(
                    json!({"metadata": {"name": name}, "spec": {"controller": controller}}),
                ))
            })
            .into(),
        ingress_routes: Vec::new(),
        http_proxies: Vec::new(),
        network_policies: Vec::new(),
        policies: BTreeMap::new(),
        stores: Vec::new(),
        injections: Vec::new(),
        pods: Vec::new(),
        carriers: Vec::new(),
    }
}

fn policy(sticky: &Value, target: Deployment, class: Option<&str>) -> Validated {
    let found = found(target, class);
    settled(validate(&draining(sticky), &found).unwrap(), &found)
}

fn drain(policy: &Validated) -> Option<i32> {
    match policy.sessions.as_ref()?.kept {
        Kept::Application(drain) => Some(drain),
        Kept::Replicated(_) | Kept::Shared(_) => panic!("sessions would leave the application"),
    }
}

#[test]
fn it_keeps_users_where_the_controller_does_and_has_pods_leave_in_order_everywhere() {
    let wish = json!({"drainSeconds": 30});
    let ready = || patient(&json!({}));
    assert_eq!(drain(&policy(&wish, ready(), Some("traefik"))), Some(30));
    assert_eq!(
        drain(&policy(&wish, ready(), Some("nginx"))),
        Some(0),
        "nginx drops such pods, a moment after they begin to end"
    );
    assert_eq!(
        drain(&policy(&json!({}), ready(), Some("traefik"))),
        None,
        "no wish"
    );
    let hasty = patient(&json!({"terminationGracePeriodSeconds": 44}));
    assert_eq!(
        drain(&policy(&wish, hasty, Some("traefik"))),
        None,
        "too little time"
    );
}

#[test]
fn pods_are_not_replaced_for_a_route_that_is_away_for_a_moment() {
    let wish = json!({"drainSeconds": 30});
    assert_eq!(drain(&policy(&wish, patient(&json!({})), None)), Some(30));
    let mut plain = patient(&json!({}));
    let mut away = found(patient(&json!({})), None);
    let short = json!({
        "metadata": {"name": "shop-0123456789", "namespace": "web"},
        "spec": {
            "policy": {"name": "shop", "uid": "p-1"},
            "containers": [{"name": "php", "preStopSleepSeconds": 11}],
        },
    });
    away.injections = vec![Arc::new(serde_json::from_value(short).unwrap())];
    let short = settled(validate(&draining(&wish), &away).unwrap(), &away);
    assert_eq!(drain(&short), Some(0), "as it was behind nginx");
    plain
        .spec
        .as_mut()
        .unwrap()
        .template
        .metadata
        .as_mut()
        .unwrap()
        .labels
        .as_mut()
        .unwrap()
        .remove("session-operator.dev/injection");
    assert_eq!(drain(&policy(&wish, plain, None)), None, "nor for the first time");
}

#[test]
fn what_is_added_is_small_and_lasts_as_long_as_the_drain() {
    let policy = policy(&json!({"drainSeconds": 30}), patient(&json!({})), Some("traefik"));
    let containers: Vec<_> = policy
        .target
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
        .containers
        .iter()
        .collect();
    let images = Images {
        replicator: "session-replicator:1".to_owned(),
        pull_secrets: vec!["registry".to_owned()],
        ..Images::default()
    };
    let wanted = revision(&policy, 30, &containers, &images);
    assert_yaml_snapshot!(wanted.spec);
    assert_ne!(revision(&policy, 31, &containers, &images).inputs, wanted.inputs);
    let newer = Images {
        replicator: "session-replicator:2".to_owned(),
        ..images
    };
    let upgraded = revision(&policy, 30, &containers, &newer);
    assert_eq!(
        upgraded.inputs, wanted.inputs,
        "an upgrade of the operator alone replaces nothing"
    );
    assert_ne!(upgraded.name, wanted.name);
}
