//! The chart's MutatingAdmissionPolicy, on servers that have the kind. No operator takes part in it.

use serde_json::{Value, json};

use super::{as_operator, injection, pod, table, until_admitted};
use crate::own::{Own, STAGE, peace};

/// A release whose chart chose the mechanism by what the server has. Without the kind it must have chosen the webhook,
/// which has its own tests.
async fn chosen(name: &str) -> Option<Own> {
    let own = Own::new(name).await;
    let of_release = [
        "--selector",
        "app.kubernetes.io/part-of=session-operator",
        "--output",
        "name",
    ];
    let count = |kind: &str| {
        let names = STAGE.kubectl(&[&["get", kind], &of_release[..]].concat());
        let own = format!(".{}.", own.release);
        names.lines().filter(|name| name.contains(&own)).count()
    };
    if STAGE.serves_admission_policies() {
        assert_eq!(count("mutatingadmissionpolicies"), 1);
        assert_eq!(count("mutatingwebhookconfigurations"), 0);
        return Some(own);
    }
    assert_eq!(count("mutatingwebhookconfigurations"), 1);
    None
}

#[tokio::test]
async fn every_pod_of_the_table_becomes_what_it_should() {
    let _peace = peace().await;
    if let Some(own) = chosen("admission-policy").await {
        table::run(&own.world, &own.release).await;
    }
}

/// Another policy of admission that acts later, as by its name: what it adds comes on top, and nothing is lost.
#[tokio::test]
async fn an_injector_that_comes_first_shifts_nothing() {
    let _peace = peace().await;
    let Some(Own { world, release }) = chosen("admission-neighbour").await else {
        return;
    };
    // Policies act in the order of their names: this one puts a container before all others.
    let name = format!("a.{}.example.org", world.namespace);
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "resourceRules": [rule]
            },
            "matchConditions": [
                {"name": "once", "expression": "!object.spec.containers.exists(c, c.name == 'neighbour')"}
            ],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/spec/containers/0', \
                 value: Object.spec.containers{name: 'neighbour', image: 'localhost/neighbour:1'}}]"
            }}]
        }
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name}
    });
    STAGE.apply_manifests(&format!("{policy}\n---\n{binding}\n"));
    let operator = as_operator(&world, &release).await;
    let parts = json!({"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]});
    let created = operator.create(&injection("shop-1", &parts)).await;
    until_admitted(&world, &created).await;
    let web = json!({"containers": [{"name": "web", "image": "localhost/shop:1"}]});
    let neighbour = |pod: &Value| pod["spec"]["containers"][0]["name"] == "neighbour";
    crate::wait::until("the neighbour's policy to act", || async {
        let name = format!("plain-{:06x}", fastrand::u32(..) >> 8);
        let plain = world.create(&pod(&name, None, &web)).await;
        neighbour(&plain).then_some(()).ok_or_else(|| plain.to_string())
    })
    .await;
    let admitted = world.create(&pod("shop", Some("shop-1"), &web)).await;
    assert!(neighbour(&admitted), "{admitted}");
    assert_eq!(admitted["spec"]["containers"][0].get("env"), None);
    assert_eq!(admitted["spec"]["containers"][1]["name"], "web");
    assert_eq!(
        admitted["spec"]["containers"][1]["env"],
        json!([{"name": "A", "value": "1"}])
    );
}
