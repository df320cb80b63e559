use insta::assert_yaml_snapshot;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{Facts, RouteFact, compute, reasons};
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

/// Each event with the fact that decides it, and the row on both sides of the fact.
#[test]
fn a_flipped_fact_flips_its_row() {
    let pod = [route("a", Binds::Pod)];
    let hash = [route("a", Binds::Hash)];
    let none = [route("a", Binds::None)];
    let mut unread = pod.clone();
    unread[0].read_back = false;
    let mut leaves = pod.clone();
    leaves[0].keeps_terminating_pods = false;
    let pod_and_none = [route("a", Binds::Pod), route("b", Binds::None)];
    let pod_and_hash = [route("a", Binds::Pod), route("b", Binds::Hash)];
    let mut keeps_and_leaves = [route("a", Binds::Pod), route("b", Binds::Pod)];
    keeps_and_leaves[1].keeps_terminating_pods = false;
    let three = THREE();
    let one = json!({ "replicas": 1 });
    let zero = json!({ "replicas": 0 });
    let recreate = json!({ "replicas": 3, "strategy": { "type": "Recreate" } });
    let short_grace = {
        let mut spec = draining();
        spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(0);
        spec
    };
    let lost = |reason| is(Outcome::Lost, reason);
    let kept = |reason| is(Outcome::Kept, reason);
    let cannot = |reason| is(Outcome::NotApplicable, reason);
    let drained = draining();
    type Case<'a> = (
        Event,
        (&'a [RouteFact], &'a Value),
        (Outcome, String),
        (&'a [RouteFact], &'a Value),
        (Outcome, String),
    );
    let table: Vec<Case<'_>> = vec![
        // What users are bound to.
        (
            Event::ScaleUp,
            (&pod, &three),
            kept(reasons::BOUND_TO_POD),
            (&hash, &three),
            is(Outcome::Partly, reasons::HASH_MOVES),
        ),
        (
            Event::ScaleUp,
            (&pod, &three),
            kept(reasons::BOUND_TO_POD),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::ContainerRestart,
            (&pod, &three),
            lost(reasons::ENDS_WITH_CONTAINER),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::PodLoss,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::RollingUpdate,
            (&pod, &three),
            lost(reasons::ALL_PODS_REPLACED),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::ScaleDown,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::NodeLoss,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::OperatorDown,
            (&pod, &three),
            kept(reasons::FIELDS_STAY),
            (&none, &three),
            lost(reasons::NOT_STICKY),
        ),
        // Whether it was read back.
        (
            Event::ScaleUp,
            (&pod, &three),
            kept(reasons::BOUND_TO_POD),
            (&unread, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::OperatorDown,
            (&pod, &three),
            kept(reasons::FIELDS_STAY),
            (&unread, &three),
            lost(reasons::NOT_STICKY),
        ),
        // The weakest route.
        (
            Event::ScaleUp,
            (&pod, &three),
            kept(reasons::BOUND_TO_POD),
            (&pod_and_none, &three),
            lost(reasons::NOT_STICKY),
        ),
        (
            Event::ScaleUp,
            (&pod, &three),
            kept(reasons::BOUND_TO_POD),
            (&pod_and_hash, &three),
            is(Outcome::Partly, reasons::HASH_MOVES),
        ),
        // How pods end.
        (
            Event::RollingUpdate,
            (&pod, &three),
            lost(reasons::ALL_PODS_REPLACED),
            (&pod, &recreate),
            lost(reasons::RECREATE_STRATEGY),
        ),
        (
            Event::RollingUpdate,
            (&pod, &three),
            lost(reasons::ALL_PODS_REPLACED),
            (&pod, &drained),
            lost(reasons::ENDS_AFTER_DRAIN),
        ),
        (
            Event::PodLoss,
            (&pod, &drained),
            lost(reasons::ENDS_AFTER_DRAIN),
            (&leaves, &drained),
            lost(reasons::ENDS_WITH_POD),
        ),
        (
            Event::PodLoss,
            (&pod, &drained),
            lost(reasons::ENDS_AFTER_DRAIN),
            (&keeps_and_leaves, &drained),
            lost(reasons::ENDS_WITH_POD),
        ),
        (
            Event::ScaleDown,
            (&pod, &drained),
            lost(reasons::ENDS_AFTER_DRAIN),
            (&pod, &short_grace),
            lost(reasons::ENDS_WITH_POD),
        ),
        // How many pods there are.
        (
            Event::PodLoss,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&pod, &one),
            lost(reasons::ONLY_POD),
        ),
        (
            Event::NodeLoss,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&pod, &one),
            lost(reasons::ONLY_POD),
        ),
        (
            Event::PodLoss,
            (&none, &three),
            lost(reasons::NOT_STICKY),
            (&none, &one),
            lost(reasons::ONLY_POD),
        ),
        (
            Event::ScaleDown,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&pod, &one),
            cannot(reasons::SINGLE_REPLICA),
        ),
        (
            Event::ScaleUp,
            (&none, &one),
            lost(reasons::NOT_STICKY),
            (&pod, &one),
            kept(reasons::BOUND_TO_POD),
        ),
        (
            Event::OperatorDown,
            (&none, &three),
            lost(reasons::NOT_STICKY),
            (&none, &one),
            kept(reasons::ONLY_POD),
        ),
        (
            Event::ScaleToZero,
            (&pod, &three),
            lost(reasons::ALL_PODS_REMOVED),
            (&pod, &zero),
            cannot(reasons::NO_REPLICAS),
        ),
        (
            Event::ContainerRestart,
            (&pod, &three),
            lost(reasons::ENDS_WITH_CONTAINER),
            (&pod, &zero),
            cannot(reasons::NO_REPLICAS),
        ),
        (
            Event::PodLoss,
            (&pod, &three),
            lost(reasons::ENDS_WITH_POD),
            (&pod, &zero),
            cannot(reasons::NO_REPLICAS),
        ),
    ];
    for (event, (routes, spec), before, (flipped_routes, flipped_spec), after) in table {
        assert_eq!(verdict(event, routes, spec), before, "{event:?} before");
        assert_eq!(
            verdict(event, flipped_routes, flipped_spec),
            after,
            "{event:?} after"
        );
        assert_ne!(before, after, "{event:?}: the fact has to matter");
    }
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
            routes: &[],
            target: &Deployment::default()
        })
        .len(),
        10
    );
}
