use std::collections::BTreeMap;

use insta::assert_yaml_snapshot;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};

use super::{policy, target};
use crate::api::conditions::reasons;
use crate::api::session_policy::Replicated;
use crate::policy::sessions::peers::{obstacle, places, service};
use crate::policy::sessions::sidecar::{Sidecar, grace_seconds, is_guaranteed, too_little_memory};

fn pod(containers: &Value) -> PodSpec {
    serde_json::from_value(json!({"containers": containers})).unwrap()
}

fn wish(value: &Value) -> Replicated {
    serde_json::from_value(value.clone()).unwrap()
}

fn sidecar<'a>(wish: &'a Replicated, pod: &'a PodSpec) -> Sidecar<'a> {
    Sidecar {
        policy: "shop",
        namespace: "web",
        wish,
        image: "replicator:1",
        pull_policy: None,
        replicas: 3,
        bound_to_pods: true,
        drain_seconds: 0,
        upstream: None,
        pod,
    }
}

fn arguments(sidecar: &Sidecar<'_>) -> Vec<String> {
    sidecar.container().args.unwrap()
}

#[test]
fn the_whole_container() {
    let (wish, pod) = (wish(&json!({})), pod(&json!([{"name": "php"}])));
    let sidecar = sidecar(&wish, &pod);
    assert_yaml_snapshot!("container", sidecar.container());
    assert_yaml_snapshot!("volumes", sidecar.volumes());
}

#[test]
fn arguments_follow_the_wish() {
    let pod = pod(&json!([{"name": "php"}]));
    let backup = wish(
        &json!({"mode": "Backup", "backups": 2, "acknowledge": "One", "protocols": ["RESP", "Memcached"]}),
    );
    let given = arguments(&sidecar(&backup, &pod));
    for argument in [
        "--mode=backup",
        "--backups=2",
        "--acknowledge=one",
        "--memcached-listen=127.0.0.1:11211",
    ] {
        assert!(
            given.iter().any(|given| given == argument),
            "{argument}: {given:?}"
        );
    }
    let free = Sidecar {
        bound_to_pods: false,
        ..sidecar(&backup, &pod)
    };
    assert!(arguments(&free).contains(&"--no-affinity".to_owned()));
    assert!(!given.contains(&"--no-affinity".to_owned()));
    let of = |replicas, wish: &Replicated| {
        let arguments = arguments(&Sidecar {
            replicas,
            ..sidecar(wish, &pod)
        });
        arguments
            .into_iter()
            .find(|argument| argument.starts_with("--lock-on-partition"))
            .unwrap()
    };
    assert_eq!(of(2, &backup), "--lock-on-partition=local");
    assert_eq!(of(3, &backup), "--lock-on-partition=fail");
    assert_eq!(
        of(2, &wish(&json!({"lockOnPartition": "Fail"}))),
        "--lock-on-partition=fail"
    );
}

#[test]
fn a_guaranteed_pod_stays_guaranteed_and_no_other_gets_a_cpu_limit() {
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    let guaranteed = pod(&json!([{"name": "php", "resources": {"limits": amounts, "requests": amounts}}]));
    let limits_alone = pod(&json!([{"name": "php", "resources": {"limits": amounts}}]));
    let burstable =
        pod(&json!([{"name": "php", "resources": {"limits": amounts, "requests": {"cpu": "50m"}}}]));
    let wish = wish(&json!({}));
    for (pod, expected) in [(guaranteed, true), (limits_alone, true), (burstable, false)] {
        assert_eq!(is_guaranteed(&pod), expected);
        let resources = sidecar(&wish, &pod).container().resources.unwrap();
        let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
        assert_eq!(requests == limits, expected);
        assert_eq!(limits.contains_key("cpu"), expected);
    }
}

#[test]
fn what_stands_in_the_way_is_said_with_its_remedy() {
    let needed = grace_seconds(0);
    assert_eq!(obstacle(&target(&json!({})), needed), None);
    for (spec, reason, word) in [
        (
            json!({"strategy": {"type": "Recreate"}}),
            reasons::NO_OVERLAP,
            "use RollingUpdate",
        ),
        (
            json!({"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}),
            reasons::NO_OVERLAP,
            "set maxSurge to 1",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}),
            reasons::NO_OVERLAP,
            "set maxUnavailable to less",
        ),
        (
            json!({"template": {"spec": {"hostNetwork": true, "containers": [{"name": "php"}]}}}),
            reasons::HOST_NETWORK,
            "remove hostNetwork",
        ),
        (
            json!({"template": {"spec": {"terminationGracePeriodSeconds": 10, "containers": [{"name": "php"}]}}}),
            reasons::GRACE_PERIOD_TOO_SHORT,
            "set terminationGracePeriodSeconds to 25",
        ),
    ] {
        let trouble = obstacle(&target(&spec), needed).unwrap();
        assert_eq!(trouble.reason, reason, "{spec}");
        assert!(trouble.message.contains(word), "{}", trouble.message);
    }
}

#[test]
fn memory_is_a_size_that_suffices() {
    for (memory, good) in [
        ("32Mi", true),
        ("1Gi", true),
        ("31Mi", false),
        ("much", false),
        ("-1Gi", false),
    ] {
        let trouble = too_little_memory(&wish(&json!({"memory": memory})));
        assert_eq!(trouble.is_none(), good, "{memory}");
        assert!(trouble.is_none_or(|trouble| trouble.message.contains("at least 32Mi")));
    }
}

#[test]
fn peers_find_each_other_before_they_are_ready() {
    let selecting = json!({"selector": {"matchLabels": {"app": "shop"}}});
    let service = service(&policy(target(&selecting))).unwrap();
    let spec = service.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
    assert_eq!(spec.publish_not_ready_addresses, Some(true));
    assert_eq!(spec.selector.unwrap()["app"], "shop");
    let by_expressions = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}});
    let trouble = super::super::peers::service(&policy(target(&by_expressions))).unwrap_err();
    assert_eq!(trouble.reason, reasons::PEERS_NOT_SELECTABLE);
}

#[test]
fn places_are_lines_in_order_of_names() {
    let pod = |name: &str, node: Value| -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"containers": [], "nodeName": node}}),
        )
        .unwrap()
    };
    let pods = [
        pod("shop-b", json!("node2")),
        pod("shop-a", json!("node1")),
        pod("shop-c", Value::Null),
    ];
    let zones = BTreeMap::from([
        ("node1".to_owned(), "eu-1a".to_owned()),
        ("node2".to_owned(), String::new()),
    ]);
    let map = places(&policy(target(&json!({}))), &pods, &zones);
    assert_eq!(
        map.data.unwrap()["places"],
        "shop-a eu-1a node1\nshop-b - node2\n"
    );
}
