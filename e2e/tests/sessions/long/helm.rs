//! The Deployment belongs to a release of Helm.

use anyhow::{Result, ensure};
use e2e::app::SHOP;
use e2e::policy::Policies;
use e2e::{Cluster, audit, with_temp_namespace};
use serde_json::json;

use super::super::injection::{manifest, mark, marked, redis, whole_again};
use super::super::support::{nobody_lost, shared, users};
use super::routed;

/// A chart of the shop in a folder of its own; `release` becomes an annotation of the pods.
struct Chart(std::path::PathBuf);

impl Chart {
    fn new(namespace: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("{namespace}-chart"));
        std::fs::create_dir_all(folder.join("templates"))?;
        std::fs::write(
            folder.join("Chart.yaml"),
            "apiVersion: v2\nname: shop\nversion: 0.1.0\ndescription: The shop of a test\n",
        )?;
        let manifests = SHOP.manifests(namespace)?;
        let mut deployment = manifest(namespace)?;
        deployment["spec"]["template"]["metadata"]["annotations"] =
            json!({"release": "{{ .Values.release }}"});
        let mut service = serde_json::to_value(&manifests.service)?;
        service["apiVersion"] = json!("v1");
        service["kind"] = json!("Service");
        let mut ingress = serde_json::to_value(&manifests.ingress)?;
        ingress["apiVersion"] = json!("networking.k8s.io/v1");
        ingress["kind"] = json!("Ingress");
        for (name, object) in [
            ("deployment", deployment),
            ("service", service),
            ("ingress", ingress),
        ] {
            std::fs::write(folder.join(format!("templates/{name}.yaml")), object.to_string())?;
        }
        Ok(Self(folder))
    }

    async fn release(&self, cluster: &Cluster, namespace: &str, release: &str) -> Result<()> {
        let chart = self.0.to_string_lossy().into_owned();
        let setting = format!("release=r{release}");
        let arguments = [
            "helm",
            "upgrade",
            "--install",
            "shop",
            &chart,
            "--namespace",
            namespace,
            "--set-string",
            &setting,
            "--wait",
            "--timeout",
            "2m",
        ];
        cluster.run(arguments).await.map(|_| ())
    }
}

impl Drop for Chart {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Helm 4 applies server-side, and knows nothing of the mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_helm_is_upgraded_and_rolled_back() -> Result<()> {
    with_temp_namespace("chart", async |cluster, namespace| {
        let chart = Chart::new(namespace)?;
        chart.release(cluster, namespace, "1").await?;
        let (shop, entry) = routed(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, redis()).await?;
        let before = mark(cluster, namespace).await?;
        let since = audit::now();
        let report = shop
            .drill_with(entry, users(), "helm upgrade", async || {
                chart.release(cluster, namespace, "2").await?;
                whole_again(cluster, namespace, &shop).await
            })
            .await?;
        nobody_lost(&report)?;
        let report = shop
            .drill_with(entry, users(), "helm rollback", async || {
                cluster
                    .run([
                        "helm",
                        "rollback",
                        "shop",
                        "1",
                        "--namespace",
                        namespace,
                        "--wait",
                        "--timeout",
                        "2m",
                    ])
                    .await?;
                whole_again(cluster, namespace, &shop).await
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(mark(cluster, namespace).await? == before);
        ensure!(
            marked(cluster, namespace, &since).await? == 0,
            "Helm takes nothing away"
        );
        Ok(())
    })
    .await
}
