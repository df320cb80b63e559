//! Renamed, scaled, paused.

use anyhow::{Context, Result, ensure};
use e2e::app::{Manifests, SHOP};
use e2e::policy::{Policies, condition_of};
use e2e::wait::eventually;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::drill::event::Event;

use super::super::injection::{CALM, CALM_READS, deployments, manifest, marked, redis, whole_again};
use super::super::support::{SHARED_LIMIT, nobody_lost, nothing_in_pods, pods, shared, shop, users};
use super::routed;

/// Server-side apply as somebody who does not force anything.
async fn apply(cluster: &Cluster, namespace: &str, object: &Value) -> Result<Deployment> {
    let params = PatchParams::apply("gitops");
    let api = deployments(cluster, namespace);
    Ok(api.patch("shop", &params, &Patch::Apply(object)).await?)
}

/// Pods of the renamed container start bare until the operator has made the revision for it; then they are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_renamed_by_server_side_apply() -> Result<()> {
    with_temp_namespace("rename", async |cluster, namespace| {
        let manifests = SHOP.manifests(namespace)?;
        let mut object = manifest(namespace)?;
        apply(cluster, namespace, &object).await?;
        create_routes(cluster, namespace, &manifests).await?;
        let (shop, entry) = routed(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let mut spec = redis();
        // Named, so that the renaming is a mistake first.
        spec["client"]["containers"] = json!(["web"]);
        shared(&policies, spec).await?;

        object["spec"]["template"]["spec"]["containers"][0]["name"] = json!("app");
        let applied = apply(cluster, namespace, &object).await?;
        let template = applied
            .spec
            .and_then(|spec| spec.template.spec)
            .context("a template")?;
        let names: Vec<&str> = template
            .containers
            .iter()
            .map(|container| container.name.as_str())
            .collect();
        ensure!(names == ["app"], "nothing of ours is in the way: {names:?}");
        let missing = policies
            .condition_within(
                "shop",
                "Injected",
                "False",
                Some("ContainerNotFound"),
                SHARED_LIMIT,
            )
            .await?;
        let message = condition_of(&missing, "Injected").map(|found| found.message.clone());
        ensure!(message.is_some_and(|message| message.contains("it has app")));
        shop.settled().await?;
        // What the status promises is what is so: no pod uses the store now.
        eventually("no pod counts as injected", SHARED_LIMIT, || async {
            let status = policies.api().get("shop").await?.status.unwrap_or_default();
            let injected = status.injection.as_ref().map(|injection| injection.injected_pods);
            let kept = status.survives.iter().any(|row| row.reason == "InStore");
            Ok(if injected == Some(0) && !kept {
                Ok(())
            } else {
                Err(status)
            })
        })
        .await?;

        let since = audit::now();
        let first = json!({"spec": {"client": {"containers": null}}});
        policies
            .api()
            .patch("shop", &PatchParams::default(), &Patch::Merge(&first))
            .await?;
        policies.ready_within("shop", SHARED_LIMIT).await?;
        ensure!(marked(cluster, namespace, &since).await? == 1);
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)?;

        // The same manifest again changes nothing, and so does another name now, without a person.
        let generation = deployments(cluster, namespace)
            .get("shop")
            .await?
            .metadata
            .generation;
        let again = apply(cluster, namespace, &object).await?;
        ensure!(
            again.metadata.generation == generation,
            "the apply changed something"
        );
        object["spec"]["template"]["spec"]["containers"][0]["name"] = json!("php");
        let since = audit::now();
        apply(cluster, namespace, &object).await?;
        whole_again(cluster, namespace, &shop).await?;
        ensure!(marked(cluster, namespace, &since).await? == 1);
        nobody_lost(&shop.drill(entry, users(), &Event::Restart).await?)
    })
    .await
}

async fn create_routes(cluster: &Cluster, namespace: &str, manifests: &Manifests) -> Result<()> {
    let services = Api::namespaced(cluster.client.clone(), namespace);
    services
        .create(&PostParams::default(), &manifests.service)
        .await?;
    let ingresses = Api::namespaced(cluster.client.clone(), namespace);
    ingresses
        .create(&PostParams::default(), &manifests.ingress)
        .await?;
    Ok(())
}

/// A HorizontalPodAutoscaler writes `spec.replicas` through the subresource `scale`, which the operator never owns. Without
/// a metrics server, as here, it scales to its bounds all the same: that is what is used.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_scales_injected_pods() -> Result<()> {
    with_temp_namespace("scaled", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, redis()).await?;
        let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client.clone(), namespace);
        let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "shop"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
                "minReplicas": 4, "maxReplicas": 6,
                "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}
                }}]
            }
        }))?;
        let since = audit::now();
        let report = shop
            .drill_with(entry, users(), "autoscaler: up to 4", async || {
                scalers.create(&PostParams::default(), &scaler).await?;
                scaled_to(cluster, namespace, 4).await?;
                whole_again(cluster, namespace, &shop).await
            })
            .await?;
        nobody_lost(&report)?;
        let report = shop
            .drill_with(entry, users(), "autoscaler: down to 2", async || {
                let bounds = json!({"spec": {"minReplicas": 1, "maxReplicas": 2}});
                scalers
                    .patch("shop", &PatchParams::default(), &Patch::Merge(&bounds))
                    .await?;
                scaled_to(cluster, namespace, 2).await?;
                whole_again(cluster, namespace, &shop).await
            })
            .await?;
        nobody_lost(&report)?;
        // It stays in place, and neither takes anything from the other.
        audit::stays_calm(cluster, namespace, CALM, CALM_READS, 0).await?;
        ensure!(
            marked(cluster, namespace, &since).await? == 0,
            "scaling is no change of the template"
        );
        scaled_to(cluster, namespace, 2).await
    })
    .await
}

async fn scaled_to(cluster: &Cluster, namespace: &str, replicas: i32) -> Result<()> {
    let api = deployments(cluster, namespace);
    eventually(&format!("{replicas} replicas"), SHARED_LIMIT, || async {
        let spec = api.get("shop").await?.spec.and_then(|spec| spec.replicas);
        Ok(if spec == Some(replicas) { Ok(()) } else { Err(spec) })
    })
    .await
}

async fn pause(cluster: &Cluster, namespace: &str, verb: &str) -> Result<()> {
    let arguments = [
        "kubectl",
        "--namespace",
        namespace,
        "rollout",
        verb,
        "deployment/shop",
    ];
    cluster.run(arguments).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_is_waited_for_in_both_directions() -> Result<()> {
    with_temp_namespace("paused", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        pause(cluster, namespace, "pause").await?;
        let before = shop.workload.pods().await?;
        policies.create_with("shop", redis()).await?;
        let waits = policies
            .condition_within("shop", "Injected", "False", Some("RolloutRunning"), SHARED_LIMIT)
            .await?;
        let message = condition_of(&waits, "Injected").map(|found| found.message.clone());
        ensure!(message.is_some_and(|message| message.contains("kubectl rollout resume")));
        audit::stays_calm(cluster, namespace, CALM, CALM_READS, 0).await?;
        ensure!(shop.workload.pods().await? == before, "pods were replaced");
        pause(cluster, namespace, "resume").await?;
        policies.ready_within("shop", SHARED_LIMIT).await?;
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)?;

        pause(cluster, namespace, "pause").await?;
        let running = shop.workload.pods().await?;
        policies.api().delete("shop", &DeleteParams::default()).await?;
        let waits = policies
            .condition_within("shop", "Ready", "Unknown", Some("Deleting"), SHARED_LIMIT)
            .await?;
        let message = condition_of(&waits, "Ready").map(|found| found.message.clone());
        ensure!(message.is_some_and(|message| message.contains("resume the Deployment")));
        // Looked at every other second at first, then ever less often.
        audit::stays_calm(cluster, namespace, CALM, 2 * CALM_READS, 1).await?;
        // Until then they keep what they need, and with it their users.
        ensure!(shop.workload.pods().await? == running, "pods were replaced");
        let report = shop
            .drill_with(entry, users(), "a pod deleted while paused", async || {
                lose_pod(cluster, namespace).await
            })
            .await?;
        nobody_lost(&report)?;
        pause(cluster, namespace, "resume").await?;
        eventually("the policy goes", SHARED_LIMIT, || async {
            let left = policies.api().get_opt("shop").await?;
            Ok(left.map_or(Ok(()), |policy| Err(Box::new(policy.status))))
        })
        .await?;
        shop.settled().await?;
        nothing_in_pods(cluster, namespace).await
    })
    .await
}

/// Deletes a pod and waits for the one that takes its place: a paused Deployment has no status that would say so.
async fn lose_pod(cluster: &Cluster, namespace: &str) -> Result<()> {
    let before = pods(cluster, namespace, "app=shop").await?;
    let lost = before.first().context("a pod")?.name_any();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    api.delete(&lost, &DeleteParams::default()).await?;
    eventually("another pod is ready", SHARED_LIMIT, || async {
        let now = pods(cluster, namespace, "app=shop").await?;
        let ready = now
            .iter()
            .filter(|pod| pod.name_any() != lost && is_ready(pod))
            .count();
        Ok(if ready == before.len() && now.len() == ready {
            Ok(())
        } else {
            Err(ready)
        })
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
