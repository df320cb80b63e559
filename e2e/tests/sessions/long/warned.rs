//! What stands in the way of sessions in the pods, or is only to be known, is said before any pod is replaced.

use anyhow::{Context, Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::Policies;
use e2e::with_temp_namespace;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use session_operator::api::conditions::types;

use crate::replicated::in_pods;
use crate::support::{SHARED_LIMIT, said};

/// What is changed of the shop and of the policy, and what is said then.
struct Case {
    deployment: Value,
    replicated: Value,
    reason: &'static str,
    words: &'static [&'static str],
}

/// Each in turn. The Deployment is made anew for each: a field that one leaves behind would speak in the next.
fn refusals() -> Vec<Case> {
    let case = |deployment: Value, reason, words| Case {
        deployment,
        replicated: json!({}),
        reason,
        words,
    };
    vec![
        case(
            json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}),
            "NoOverlap",
            &["Deployment shop", "Recreate", "use RollingUpdate"],
        ),
        case(
            json!({"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}),
            "NoOverlap",
            &["one replica and maxSurge 0", "set maxSurge to 1"],
        ),
        case(
            json!({"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 2}}}),
            "NoOverlap",
            &["all 2 pods", "set maxUnavailable to less"],
        ),
        case(
            json!({"template": {"spec": {"terminationGracePeriodSeconds": 5}}}),
            "GracePeriodTooShort",
            &["5 s to end", "set terminationGracePeriodSeconds to"],
        ),
        Case {
            deployment: json!({"replicas": 2}),
            replicated: json!({"mode": "Backup", "backups": 2}),
            reason: "TooFewReplicas",
            words: &["backups is 2", "has 2 replicas", "use mode All"],
        },
    ]
}

/// The shop, changed, without pods of a former case.
async fn changed(client: &kube::Client, namespace: &str, change: &Value) -> Result<Running> {
    let manifests = SHOP.manifests(namespace)?;
    let mut deployment = serde_json::to_value(&manifests.deployment)?;
    merge(&mut deployment["spec"], change);
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(deployment)?)
        .await?;
    let running = Running::new(client, SHOP, namespace, "shop.test");
    running.settled().await?;
    Ok(running)
}

/// RFC 7396, for objects.
fn merge(into: &mut Value, change: &Value) {
    let (Some(fields), Some(changes)) = (into.as_object_mut(), change.as_object()) else {
        *into = change.clone();
        return;
    };
    for (key, value) in changes {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(json!({})), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forbids_a_hand_over_is_said_and_no_pod_is_replaced() -> Result<()> {
    for case in refusals() {
        with_temp_namespace("refused", async |cluster, namespace| {
            let shop = changed(&cluster.client, namespace, &case.deployment).await?;
            let before = shop.workload.pods().await?;
            let policies = Policies::new(&cluster.client, namespace);
            policies
                .create_with("shop", in_pods(&case.replicated, &Value::Null))
                .await?;
            said(
                cluster,
                namespace,
                "shop",
                (types::INJECTED, case.reason),
                case.words,
            )
            .await?;
            ensure!(
                shop.workload.pods().await? == before,
                "{}: pods were replaced",
                case.reason
            );
            policies.remove_within("shop", SHARED_LIMIT).await?;
            ensure!(
                shop.workload.pods().await? == before,
                "{}: undone by a rollout",
                case.reason
            );
            Ok(())
        })
        .await
        .context(case.reason)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_the_network_of_their_nodes_are_refused() -> Result<()> {
    with_temp_namespace("host-network", async |cluster, namespace| {
        // Without pods: the namespace admits none of this kind.
        let change = json!({"replicas": 0, "template": {"spec": {"hostNetwork": true}}});
        changed(&cluster.client, namespace, &change).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create_with("shop", in_pods(&json!({}), &Value::Null))
            .await?;
        let words = ["network of their nodes", "remove hostNetwork"];
        said(
            cluster,
            namespace,
            "shop",
            (types::INJECTED, "HostNetwork"),
            &words,
        )
        .await
    })
    .await
}

/// What may let the last pod go, and what keeps some while nodes are drained, or not.
async fn surround(client: &kube::Client, namespace: &str, min_replicas: u32, budget: bool) -> Result<()> {
    // It scales nothing here: nobody serves metrics. What counts is what it may do.
    let scaler = json!({
        "metadata": {"name": "by-load"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": min_replicas, "maxReplicas": 4,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"},
            }}],
        },
    });
    Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &serde_json::from_value(scaler)?)
        .await?;
    if budget {
        let budget = json!({
            "metadata": {"name": "shop"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "shop"}}},
        });
        Api::<PodDisruptionBudget>::namespaced(client.clone(), namespace)
            .create(&PostParams::default(), &serde_json::from_value(budget)?)
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_to_be_known_is_said_before_pods_are_replaced() -> Result<()> {
    let cautions = [
        "no PodDisruptionBudget keeps some pods of Deployment shop",
        "add one with maxUnavailable: 1",
        "HorizontalPodAutoscaler by-load may scale Deployment shop to zero",
        "set its minReplicas to 1 or more",
    ];
    for (min_replicas, budget) in [(0, false), (1, true)] {
        with_temp_namespace("cautions", async |cluster, namespace| {
            let client = &cluster.client;
            let shop = changed(client, namespace, &json!({"replicas": 2})).await?;
            surround(client, namespace, min_replicas, budget).await?;
            let before = shop.workload.pods().await?;
            let policies = Policies::new(client, namespace);
            let mut spec = in_pods(&json!({}), &Value::Null);
            spec["rollout"] = json!("Manual");
            policies.create_with("shop", spec).await?;
            let words: &[&str] = if budget {
                &["kubectl session rollout"]
            } else {
                &cautions
            };
            said(
                cluster,
                namespace,
                "shop",
                (types::INJECTED, "RolloutNeeded"),
                words,
            )
            .await?;
            let policy = policies.api().get("shop").await?;
            let text = serde_json::to_string(&policy.status)?;
            for words in cautions {
                // Where there is a reason for it, and only there; in `survives`, too.
                let times = text.matches(words).count();
                ensure!(
                    if budget { times == 0 } else { times >= 2 },
                    "{words:?} {times} times in {text}"
                );
            }
            ensure!(shop.workload.pods().await? == before, "pods were replaced");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
