//! What stands around a Deployment.

use k8s_openapi::api::core::v1::Node;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::target;
use crate::api::conditions::reasons;
use crate::policy::sessions::cautions::{
    Cautions, OldNode, Surroundings, of_autoscaler, of_scaled_object, too_old,
};

fn with_budgets(specs: &[Value]) -> Surroundings {
    let budget = |spec: &Value| json!({"metadata": {"name": "shop"}, "spec": spec});
    Surroundings {
        budgets: specs
            .iter()
            .map(|spec| serde_json::from_value(budget(spec)).unwrap())
            .collect(),
        to_zero: Vec::new(),
    }
}

fn drains(spec: &Value, budgets: &[Value]) -> bool {
    Cautions::of(&target(spec), &with_budgets(budgets))
        .drains
        .is_some()
}

#[test]
fn a_budget_counts_if_it_selects_the_pods_and_keeps_one_of_them() {
    let three = json!({});
    assert!(drains(&three, &[]), "none at all");
    let selecting = json!({"matchLabels": {"app": "shop"}});
    for (budget, guarded) in [
        (json!({"selector": selecting, "maxUnavailable": 1}), true),
        (json!({"selector": selecting, "minAvailable": "50%"}), true),
        (json!({"selector": selecting}), true),
        (json!({"selector": {}, "maxUnavailable": 1}), true),
        (
            json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop"]}]}, "minAvailable": 1}),
            true,
        ),
        (json!({"maxUnavailable": 1}), false),
        (
            json!({"selector": {"matchLabels": {"app": "blog"}}, "maxUnavailable": 1}),
            false,
        ),
        (json!({"selector": selecting, "maxUnavailable": 3}), false),
        (json!({"selector": selecting, "maxUnavailable": "100%"}), false),
        (json!({"selector": selecting, "minAvailable": 0}), false),
        (json!({"selector": selecting, "minAvailable": "0%"}), false),
    ] {
        assert_eq!(
            !drains(&three, std::slice::from_ref(&budget)),
            guarded,
            "{budget}"
        );
    }
    let other = json!({"selector": {"matchLabels": {"app": "blog"}}});
    assert!(!drains(&three, &[other, json!({"selector": selecting})]));
    assert!(
        !drains(&json!({"replicas": 1}), &[]),
        "a budget over one pod only blocks drains"
    );
}

fn scaled_object(spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "quiet"}, "spec": spec
    }))
    .unwrap()
}

#[test]
fn autoscalers_that_may_remove_the_last_pod_are_named() {
    let autoscaler = |kind: &str, least: Value| {
        let spec =
            json!({"scaleTargetRef": {"kind": kind, "name": "shop"}, "minReplicas": least, "maxReplicas": 9});
        of_autoscaler(&serde_json::from_value(json!({"metadata": {"name": "night"}, "spec": spec})).unwrap())
    };
    assert!(autoscaler("Deployment", json!(1)).is_none());
    assert!(
        autoscaler("Deployment", Value::Null).is_none(),
        "the default is 1"
    );
    assert!(autoscaler("StatefulSet", json!(0)).is_none());
    let night = autoscaler("Deployment", json!(0)).unwrap();

    let keda = |fields: Value| {
        let mut spec = json!({"scaleTargetRef": {"name": "shop"}});
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        of_scaled_object(&scaled_object(&spec))
    };
    let quiet = keda(json!({})).expect("KEDA's default is 0");
    assert!(keda(json!({"minReplicaCount": 0})).is_some());
    assert!(keda(json!({"minReplicaCount": 2})).is_none());
    assert!(keda(json!({"minReplicaCount": 2, "idleReplicaCount": 0})).is_some());
    assert!(keda(json!({"scaleTargetRef": {"kind": "StatefulSet", "name": "shop"}})).is_none());

    let around = Surroundings {
        budgets: Vec::new(),
        to_zero: vec![night, quiet],
    };
    assert_eq!(
        Cautions::of(&target(&json!({})), &around).to_zero.unwrap(),
        "HorizontalPodAutoscaler night may scale Deployment shop to zero, and sessions end with the last pod; set its \
         minReplicas to 1 or more"
    );
    let mut other = target(&json!({}));
    other.metadata.name = Some("blog".to_owned());
    assert_eq!(Cautions::of(&other, &around).to_zero, None);
}

fn node(version: &str, change: &Value) -> Node {
    let mut node = json!({
        "metadata": {"name": "old", "labels": {"disk": "ssd"}},
        "spec": {},
        "status": {"nodeInfo": {
            "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": version, "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""
        }}
    });
    for (key, value) in change.as_object().unwrap() {
        node["spec"][key] = value.clone();
    }
    serde_json::from_value(node).unwrap()
}

#[test]
fn kubelets_are_too_old_before_native_sidecars() {
    for (version, old) in [
        ("v1.28.15", true),
        ("v1.28.9-eks-1234", true),
        ("v1.9.0", true),
        ("v1.29.0+k3s1", false),
        ("v1.36.2", false),
        ("v2.0.0", false),
        ("unknown", false),
    ] {
        assert_eq!(
            OldNode::of(&node(version, &json!({}))).is_some(),
            old,
            "{version}"
        );
    }
}

#[test]
fn an_old_kubelet_matters_where_pods_may_come_to_it() {
    let refused = |pod: Value, change: &Value| {
        let mut spec = json!({"containers": [{"name": "php"}]});
        for (key, value) in pod.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let old = OldNode::of(&node("v1.28.15", change)).unwrap();
        too_old(&target(&json!({"template": {"spec": spec}})), &[old])
    };
    let anywhere = json!({});
    let trouble = refused(json!({}), &anywhere).unwrap();
    assert_eq!(trouble.reason, reasons::KUBELET_TOO_OLD);
    for word in ["node old", "v1.28.15", "Deployment shop", "cordon it"] {
        assert!(trouble.message.contains(word), "{word}: {}", trouble.message);
    }
    assert!(refused(json!({"nodeSelector": {"disk": "ssd"}}), &anywhere).is_some());
    assert!(refused(json!({"nodeSelector": {"disk": "fast"}}), &anywhere).is_none());
    assert!(refused(json!({}), &json!({"unschedulable": true})).is_none());
    let tainted = json!({"taints": [{"key": "virtual", "value": "yes", "effect": "NoSchedule"}]});
    assert!(refused(json!({}), &tainted).is_none());
    for (toleration, tolerated) in [
        (json!({"operator": "Exists"}), true),
        (json!({"key": "virtual", "operator": "Exists"}), true),
        (
            json!({"key": "virtual", "value": "yes", "effect": "NoSchedule"}),
            true,
        ),
        (json!({"key": "virtual", "value": "no"}), false),
        (
            json!({"key": "virtual", "value": "yes", "effect": "NoExecute"}),
            false,
        ),
        (json!({"key": "other", "operator": "Exists"}), false),
    ] {
        let said = refused(json!({"tolerations": [toleration]}), &tainted);
        assert_eq!(said.is_some(), tolerated, "{toleration}");
    }
    let unliked = json!({"taints": [{"key": "virtual", "effect": "PreferNoSchedule"}]});
    assert!(refused(json!({}), &unliked).is_some());
}
