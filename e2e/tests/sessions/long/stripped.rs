//! Another admission is in the way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use session_operator::drill::Marks;
use session_operator::drill::event::Event;

use super::super::injection::{CALM, CALM_READS, deployments, redis, whole_again};
use super::super::support::{said, shared, shop};

/// Something of the cluster's takes out at admission what ours puts in. New pods would come out the same, so replacing them
/// helps nobody.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_would_come_out_the_same_are_not_evicted() -> Result<()> {
    with_temp_namespace("stripped", async |cluster, namespace| {
        let (shop, _) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, redis()).await?;
        let stripper = Stripper::new(cluster, namespace).await?;
        let ended = async {
            shop.workload
                .cause(&Event::DeletePod(None), &Marks::begin())
                .await?;
            let words = ["lacks variable", "none is evicted, as a test pod lacks"];
            said(
                cluster,
                namespace,
                "shop",
                ("Injected", "PodsNotInjected"),
                &words,
            )
            .await?;
            let before = shop.workload.pods().await?;
            audit::stays_calm(cluster, namespace, CALM, CALM_READS, 2).await?;
            ensure!(shop.workload.pods().await? == before, "pods were replaced");
            Ok(())
        }
        .await;
        stripper.remove(cluster).await?;
        ended?;
        // Without it, the pod is replaced by itself.
        whole_again(cluster, namespace, &shop).await
    })
    .await
}

/// A MutatingAdmissionPolicy that takes the variables of the first container away, in one namespace.
struct Stripper(String);

impl Stripper {
    async fn new(cluster: &Cluster, namespace: &str) -> Result<Self> {
        // After the chart's, whose name begins with the release's, and once more after that has put things back.
        let name = format!("zz-{namespace}");
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "reinvocationPolicy": "IfNeeded",
                    "matchConstraints": {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                        "resourceRules": [{
                            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]
                        }]
                    },
                    "matchConditions": [
                        {"name": "shop", "expression": "object.metadata.?labels[?'app'].orValue('') == 'shop'"}
                    ],
                    "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                        "has(object.spec.containers[0].env) ? [JSONPatch{op: 'remove', path: '/spec/containers/0/env'}] : []"
                    }}]
                }
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": name}, "spec": {"policyName": name}
            }
        ]});
        let file = std::env::temp_dir().join(format!("{name}.json"));
        tokio::fs::write(&file, objects.to_string()).await?;
        let path = file.to_string_lossy().into_owned();
        let created = cluster.run(["kubectl", "create", "--filename", &path]).await;
        tokio::fs::remove_file(&file).await?;
        created?;
        let stripper = Self(name);
        // Admission learns of it after a moment: a dry run says when.
        let api = deployments(cluster, namespace);
        let template = api.get("shop").await?.spec.context("a spec")?.template;
        let pods_api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let pod = Pod {
            metadata: kube::api::ObjectMeta {
                generate_name: Some("dry-".to_owned()),
                ..template.metadata.unwrap_or_default()
            },
            spec: template.spec,
            status: None,
        };
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        eventually("variables are taken away", Duration::from_secs(30), || async {
            let pod = pods_api.create(&dry, &pod).await?;
            let container = pod.spec.and_then(|spec| spec.containers.into_iter().next());
            let env = container.and_then(|container| container.env).unwrap_or_default();
            Ok(if env.is_empty() {
                Ok(())
            } else {
                Err(pod.metadata.labels)
            })
        })
        .await?;
        Ok(stripper)
    }

    async fn remove(self, cluster: &Cluster) -> Result<()> {
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            cluster.run(["kubectl", "delete", kind, &self.0]).await?;
        }
        Ok(())
    }
}
