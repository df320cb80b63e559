mod in_a_store;
mod in_pods;

use insta::assert_yaml_snapshot;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{Facts, HandOver, RouteFact, compute, reasons};
use crate::api::{Binds, Event, Outcome, Survival};

fn route(name: &str, binds: Binds) -> RouteFact {
    RouteFact {
        route: format!("Ingress {name}"),
        binds,
        keeps_terminating_pods: true,
        read_back: true,
    }
}

fn target(spec: &Value) -> Deployment {
    let mut base = json!({ "selector": {}, "template": { "spec": { "containers": [{ "name": "php" }] } } });
    for (key, value) in spec.as_object().expect("an object") {
        base[key] = value.clone();
    }
    serde_json::from_value(json!({ "metadata": { "name": "storefront" }, "spec": base }))
        .expect("a Deployment")
}

fn rows(routes: &[RouteFact], spec: &Value) -> Vec<Survival> {
    compute(&Facts {
        store: None,
        hand_over: None,
        routes,
        target: &target(spec),
    })
}

fn row(event: Event, routes: &[RouteFact], spec: &Value) -> Survival {
    rows(routes, spec)
        .into_iter()
        .find(|row| row.event == event)
        .expect("every event has a row")
}

fn verdict(event: Event, routes: &[RouteFact], spec: &Value) -> (Outcome, String) {
    let row = row(event, routes, spec);
    (row.outcome, row.reason)
}

fn is(outcome: Outcome, reason: &str) -> (Outcome, String) {
    (outcome, reason.to_owned())
}

const THREE: fn() -> Value = || json!({ "replicas": 3 });

fn draining() -> Value {
    json!({ "replicas": 3, "template": { "spec": { "containers": [
        { "name": "php", "lifecycle": { "preStop": { "sleep": { "seconds": 20 } } } },
    ] } } })
}

#[test]
fn every_event_has_one_row_in_order() {
    let events: Vec<Event> = rows(&[route("a", Binds::Pod)], &THREE())
        .iter()
        .map(|row| row.event)
        .collect();
    let all = [
        Event::ContainerRestart,
        Event::PodLoss,
        Event::RollingUpdate,
        Event::ScaleUp,
        Event::ScaleDown,
        Event::ScaleToZero,
        Event::NodeLoss,
        Event::StoreRestart,
        Event::StoreLoss,
        Event::OperatorDown,
    ];
    assert_eq!(events, all);
}

#[test]
fn snapshots_of_whole_tables() {
    assert_yaml_snapshot!("pod_bound", rows(&[route("a", Binds::Pod)], &THREE()));
    assert_yaml_snapshot!("hash_bound", rows(&[route("a", Binds::Hash)], &THREE()));
    assert_yaml_snapshot!("unbound", rows(&[route("a", Binds::None)], &THREE()));
    assert_yaml_snapshot!("no_route", rows(&[], &THREE()));
    assert_yaml_snapshot!(
        "one_replica",
        rows(&[route("a", Binds::Pod)], &json!({ "replicas": 1 }))
    );
    assert_yaml_snapshot!(
        "no_replicas",
        rows(&[route("a", Binds::Pod)], &json!({ "replicas": 0 }))
    );
    assert_yaml_snapshot!("draining", rows(&[route("a", Binds::Pod)], &draining()));
    let mixed = [route("a", Binds::Pod), route("b", Binds::Hash)];
    assert_yaml_snapshot!("mixed", rows(&mixed, &THREE()));
}

/// Facts, and what they make of an event.
type Side<'a> = (&'a [RouteFact], &'a Value, Outcome, &'a str);

/// The same event under facts that differ in one thing, and the row on both sides.
fn flips(event: Event, before: Side<'_>, after: Side<'_>) {
    for (routes, spec, outcome, reason) in [before, after] {
        assert_eq!(
            verdict(event, routes, spec),
            is(outcome, reason),
            "{event:?} with {routes:?} and {spec}"
        );
    }
    assert_ne!(
        (before.2, before.3),
        (after.2, after.3),
        "{event:?}: the fact has to matter"
    );
}

const KEPT: Outcome = Outcome::Kept;
const LOST: Outcome = Outcome::Lost;
const CANNOT: Outcome = Outcome::NotApplicable;

#[test]
fn rows_flip_with_what_users_are_bound_to() {
    let three = THREE();
    let none = [route("a", Binds::None)];
    let pod = [route("a", Binds::Pod)];
    let unread = [RouteFact {
        read_back: false,
        ..route("a", Binds::Pod)
    }];
    for (event, outcome, reason) in [
        (Event::ContainerRestart, LOST, reasons::ENDS_WITH_CONTAINER),
        (Event::PodLoss, LOST, reasons::ENDS_WITH_POD),
        (Event::RollingUpdate, LOST, reasons::ALL_PODS_REPLACED),
        (Event::ScaleUp, KEPT, reasons::BOUND_TO_POD),
        (Event::ScaleDown, LOST, reasons::ENDS_WITH_POD),
        (Event::NodeLoss, LOST, reasons::ENDS_WITH_POD),
        (Event::OperatorDown, KEPT, reasons::FIELDS_STAY),
    ] {
        let bound = (pod.as_slice(), &three, outcome, reason);
        flips(event, bound, (&none, &three, LOST, reasons::NOT_STICKY));
        flips(event, bound, (&unread, &three, LOST, reasons::NOT_STICKY));
    }
    let kept = (pod.as_slice(), &three, KEPT, reasons::BOUND_TO_POD);
    let hash = [route("a", Binds::Hash)];
    flips(
        Event::ScaleUp,
        kept,
        (&hash, &three, Outcome::Partly, reasons::HASH_MOVES),
    );
    let by_node = [route("a", Binds::Node)];
    flips(
        Event::ScaleUp,
        kept,
        (&by_node, &three, LOST, reasons::NOT_STICKY),
    );
}

#[test]
fn rows_flip_with_the_weakest_route() {
    let three = THREE();
    let pod = [route("a", Binds::Pod), route("b", Binds::Pod)];
    let kept = (pod.as_slice(), &three, KEPT, reasons::BOUND_TO_POD);
    let with_none = [route("a", Binds::Pod), route("b", Binds::None)];
    flips(
        Event::ScaleUp,
        kept,
        (&with_none, &three, LOST, reasons::NOT_STICKY),
    );
    let with_hash = [route("a", Binds::Pod), route("b", Binds::Hash)];
    flips(
        Event::ScaleUp,
        kept,
        (&with_hash, &three, Outcome::Partly, reasons::HASH_MOVES),
    );
    let drained = draining();
    let mut one_leaves = pod.clone();
    one_leaves[1].keeps_terminating_pods = false;
    for event in [Event::PodLoss, Event::ScaleDown] {
        flips(
            event,
            (&pod, &drained, LOST, reasons::ENDS_AFTER_DRAIN),
            (&one_leaves, &drained, LOST, reasons::ENDS_WITH_POD),
        );
    }
}

#[test]
fn rows_flip_with_how_pods_end() {
    let three = THREE();
    let pod = [route("a", Binds::Pod)];
    let replaced = (pod.as_slice(), &three, LOST, reasons::ALL_PODS_REPLACED);
    let recreate = json!({ "replicas": 3, "strategy": { "type": "Recreate" } });
    flips(
        Event::RollingUpdate,
        replaced,
        (&pod, &recreate, LOST, reasons::RECREATE_STRATEGY),
    );
    let drained = draining();
    flips(
        Event::RollingUpdate,
        replaced,
        (&pod, &drained, LOST, reasons::ENDS_AFTER_DRAIN),
    );
    let mut no_grace = draining();
    no_grace["template"]["spec"]["terminationGracePeriodSeconds"] = json!(0);
    for event in [Event::PodLoss, Event::ScaleDown] {
        flips(
            event,
            (&pod, &drained, LOST, reasons::ENDS_AFTER_DRAIN),
            (&pod, &no_grace, LOST, reasons::ENDS_WITH_POD),
        );
    }
}

#[test]
fn rows_flip_with_the_replicas() {
    let (three, one, zero) = (THREE(), json!({ "replicas": 1 }), json!({ "replicas": 0 }));
    let pod = [route("a", Binds::Pod)];
    let none = [route("a", Binds::None)];
    for event in [Event::PodLoss, Event::NodeLoss] {
        let bound = (pod.as_slice(), &three, LOST, reasons::ENDS_WITH_POD);
        flips(event, bound, (&pod, &one, LOST, reasons::ONLY_POD));
        flips(event, bound, (&pod, &zero, CANNOT, reasons::NO_REPLICAS));
        // With one pod nobody is sent elsewhere, affinity or not.
        flips(
            event,
            (&none, &three, LOST, reasons::NOT_STICKY),
            (&none, &one, LOST, reasons::ONLY_POD),
        );
    }
    flips(
        Event::ScaleDown,
        (&pod, &three, LOST, reasons::ENDS_WITH_POD),
        (&pod, &one, CANNOT, reasons::SINGLE_REPLICA),
    );
    flips(
        Event::ScaleUp,
        (&pod, &one, KEPT, reasons::BOUND_TO_POD),
        (&none, &one, LOST, reasons::NOT_STICKY),
    );
    flips(
        Event::ScaleUp,
        (&pod, &three, KEPT, reasons::BOUND_TO_POD),
        (&pod, &zero, CANNOT, reasons::NO_REPLICAS),
    );
    for event in [Event::ScaleToZero, Event::ContainerRestart, Event::RollingUpdate] {
        let (_, reason) = verdict(event, &pod, &three);
        flips(
            event,
            (&pod, &three, LOST, &reason),
            (&pod, &zero, CANNOT, reasons::NO_REPLICAS),
        );
    }
    flips(
        Event::OperatorDown,
        (&none, &three, LOST, reasons::NOT_STICKY),
        (&none, &one, KEPT, reasons::ONLY_POD),
    );
}

#[test]
fn no_store_can_fail() {
    for event in [Event::StoreRestart, Event::StoreLoss] {
        assert_eq!(
            verdict(event, &[route("a", Binds::Pod)], &THREE()),
            is(Outcome::NotApplicable, reasons::NO_STORE)
        );
    }
}

#[test]
fn shares_follow_the_replicas() {
    let message = |binds, event, replicas: u32| {
        row(event, &[route("a", binds)], &json!({ "replicas": replicas })).message
    };
    for (replicas, up, down) in [
        (1, "about 1 in 2 (50 %)", "all are lost"),
        (3, "about 1 in 4 (25 %)", "about 1 in 3 (33 %)"),
        (7, "about 1 in 8 (13 %)", "about 1 in 7 (14 %)"),
    ] {
        let found = message(Binds::Hash, Event::ScaleUp, replicas);
        assert!(
            found.contains(&format!("from {replicas} to {} pods {up}", replicas + 1)),
            "{found}"
        );
        let found = message(Binds::Pod, Event::PodLoss, replicas);
        assert!(found.contains(down), "{found}");
    }
}

#[test]
fn the_pace_of_a_rolling_update_is_counted_in_pods() {
    let message = |replicas: u32, rolling: Value| {
        let spec = json!({ "replicas": replicas, "strategy": { "type": "RollingUpdate", "rollingUpdate": rolling } });
        row(Event::RollingUpdate, &[route("a", Binds::Pod)], &spec).message
    };
    for (replicas, rolling, pace) in [
        (3, json!({}), "at most 0 missing and 1 added"),
        (8, json!({}), "at most 2 missing and 2 added"),
        (
            3,
            json!({ "maxUnavailable": 0, "maxSurge": 1 }),
            "at most 0 missing and 1 added",
        ),
        (
            3,
            json!({ "maxUnavailable": "50%", "maxSurge": "50%" }),
            "at most 1 missing and 2 added",
        ),
        (
            3,
            json!({ "maxUnavailable": "10%", "maxSurge": 0 }),
            "at most 1 missing and 0 added",
        ),
    ] {
        let found = message(replicas, rolling.clone());
        assert!(found.contains(pace), "{rolling}: {found}");
    }
}

#[test]
fn volumes_that_may_hold_sessions_are_named() {
    let with = |volume: Value, read_only: bool| {
        let spec = json!({ "replicas": 3, "template": { "spec": {
            "containers": [{ "name": "php", "volumeMounts": [{ "name": "v", "mountPath": "/sessions", "readOnly": read_only }] }],
            "volumes": [volume],
        } } });
        let row = row(Event::ContainerRestart, &[route("a", Binds::Pod)], &spec);
        assert_eq!(
            row.outcome,
            Outcome::Lost,
            "where the application keeps its sessions cannot be seen"
        );
        row.message
    };
    assert!(with(json!({ "name": "v", "emptyDir": {} }), false).contains("v at /sessions"));
    assert!(with(json!({ "name": "v", "emptyDir": {} }), true).contains("mounts no volume"));
    assert!(with(json!({ "name": "v", "configMap": {} }), false).contains("mounts no volume"));
}

#[test]
fn odd_numbers_do_no_harm() {
    for spec in [
        json!({ "replicas": -1 }),
        json!({ "replicas": i32::MAX }),
        json!({ "replicas": 3, "strategy": { "rollingUpdate": { "maxSurge": "all%", "maxUnavailable": -4 } } }),
    ] {
        assert_eq!(rows(&[route("a", Binds::Hash)], &spec).len(), 10, "{spec}");
    }
    assert_eq!(
        compute(&Facts {
            hand_over: None,
            store: None,
            routes: &[],
            target: &Deployment::default()
        })
        .len(),
        10
    );
}

#[test]
fn what_was_added_to_the_pods_keeps_users_as_long_as_a_hook_of_their_own() {
    let kept_by = |seconds: Option<i64>, routes: &[RouteFact], spec: &Value| {
        let rows = compute(&Facts {
            store: None,
            hand_over: seconds.map(|seconds| HandOver {
                seconds,
                webhook: false,
            }),
            routes,
            target: &target(spec),
        });
        rows.into_iter()
            .find(|row| row.event == Event::RollingUpdate)
            .unwrap()
    };
    let kept = |seconds: Option<i64>, routes: &[RouteFact]| kept_by(seconds, routes, &THREE());
    let pod = [route("a", Binds::Pod)];
    let hook = kept_by(Some(5), &pod, &draining());
    assert!(
        hook.message.contains("for 5 s more"),
        "whatever the hook: {}",
        hook.message
    );
    assert_eq!(kept(None, &pod).reason, reasons::ALL_PODS_REPLACED);
    let drained = kept(Some(45), &pod);
    assert_eq!(drained.reason, reasons::ENDS_AFTER_DRAIN);
    assert!(drained.message.contains("for 45 s more"), "{}", drained.message);
    let dropped = [RouteFact {
        keeps_terminating_pods: false,
        ..route("a", Binds::Pod)
    }];
    assert_eq!(kept(Some(45), &dropped).reason, reasons::ALL_PODS_REPLACED);
}

#[test]
fn what_a_webhook_adds_needs_the_operator() {
    let down = |webhook: bool| {
        let rows = compute(&Facts {
            store: None,
            hand_over: Some(HandOver { seconds: 45, webhook }),
            routes: &[route("a", Binds::Pod)],
            target: &target(&THREE()),
        });
        let row = rows
            .into_iter()
            .find(|row| row.event == Event::OperatorDown)
            .unwrap();
        (row.outcome, row.reason)
    };
    assert_eq!(down(false), is(Outcome::Kept, reasons::FIELDS_STAY));
    assert_eq!(down(true), is(Outcome::Partly, reasons::WEBHOOK_NEEDED));
}
