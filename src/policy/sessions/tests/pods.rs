use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::target;
use crate::api::SessionInjection;
use crate::policy::sessions::pods::{Count, count, ending};

fn counted(container: &Value) -> Count {
    let revision: SessionInjection = serde_json::from_value(json!({
        "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionInjection",
        "metadata": {"name": "shop-0123456789"},
        "spec": {
            "policy": {"name": "shop", "uid": "p-1"},
            "containers": [{"name": "php", "env": [{"name": "SESSION_HOST", "value": "store"}]}]
        }
    }))
    .unwrap();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "shop-1", "labels": {"session-operator.dev/injection": "shop-0123456789"}},
        "spec": {"containers": [container]}
    }))
    .unwrap();
    count(&target(&json!({})), &[Arc::new(pod)], &[Arc::new(revision)])
}

#[test]
fn a_pod_is_judged_by_the_container_that_its_revision_names() {
    let whole = json!({"name": "php", "env": [{"name": "SESSION_HOST", "value": "store"}]});
    assert_eq!(counted(&whole).injected, 1);
    let bare = counted(&json!({"name": "php"}));
    assert_eq!(bare.lacking[0].1, ["variable SESSION_HOST of container php"]);
    // Renamed by its owner: admission passed it over, so nothing was told to it.
    let renamed = counted(&json!({"name": "app"}));
    assert_eq!(
        (renamed.injected, renamed.lacking[0].1.clone()),
        (0, vec!["container php".to_owned()])
    );
}

#[test]
fn a_pod_that_was_told_to_end_is_there_until_it_has_ended() {
    let pod = |name: &str, deleted: bool, phase: &str| -> Pod {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": name, "deletionTimestamp": deleted}, "status": {"phase": phase}
        }))
        .unwrap()
    };
    let pods = [
        pod("shop-3", true, "Running"),
        pod("shop-1", true, "Pending"),
        pod("shop-2", false, "Running"),
        pod("shop-4", true, "Failed"),
        pod("shop-5", true, "Succeeded"),
    ];
    assert_eq!(ending(&pods), ["shop-1", "shop-3"]);
}
