//! A namespace for each test, with logs when it fails.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::Cluster;

/// Gives a test a namespace of its own and removes it afterwards. When the test fails, the logs of the cluster are copied
/// to `e2e/logs/NAMESPACE` first.
///
/// `name` becomes part of the namespace's name, so that it can be recognised: small letters, digits, dashes.
///
/// # Panics
/// As the test does.
pub async fn with_temp_namespace<F>(name: &str, test: F) -> Result<()>
where
    F: AsyncFnOnce(&Cluster, &str) -> Result<()>,
{
    let cluster = Cluster::running().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = format!(
        "{name}-{:x}",
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() & 0xff_ffff
    );
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let object = serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}}))?;
    namespaces
        .create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("creating {namespace}"))?;

    let ended = AssertUnwindSafe(test(&cluster, &namespace)).catch_unwind().await;
    if !matches!(ended, Ok(Ok(()))) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("logs")
            .join(&namespace);
        // The failure of the test matters more than one of collecting its logs.
        match cluster.run([Path::new("logs"), &folder]).await {
            Ok(_) => eprintln!("logs of {namespace}: {}", folder.display()),
            Err(error) => eprintln!("logs of {namespace}: {error:#}"),
        }
    }
    let removed = namespaces.delete(&namespace, &DeleteParams::default()).await;
    match ended {
        Err(panic) => resume_unwind(panic),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => match removed {
            // Some tests are about the end of a namespace.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(|_| ()).with_context(|| format!("deleting {namespace}")),
        },
    }
}
