//! Steps that several tests share.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, condition_of, in_store};
use e2e::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use session_operator::api::{INJECTION_LABEL, SessionInjection, SessionPolicy};

pub use e2e::policy::SHARED_LIMIT;
pub use e2e::users::{LEAVERS, USERS, nobody_lost, users};

/// The spec of a policy for the shop with a store of its own.
pub fn own_store(store: &Value) -> Value {
    in_store(SHOP, &json!({"store": store}))
}

/// The shop of a namespace behind Traefik.
pub async fn shop(cluster: &Cluster, namespace: &str) -> Result<(Running, SocketAddr)> {
    SHOP.manifests(namespace)?.behind_traefik(cluster).await
}

/// Creates a policy called as its target, and waits until every pod keeps its sessions in the store.
pub async fn shared(policies: &Policies, spec: Value) -> Result<SessionPolicy> {
    policies.shared(spec).await
}

/// Fails if the pods were marked before every API server had the time to learn of the revision that the mark names.
pub async fn settled_before_marking(cluster: &Cluster, namespace: &str) -> Result<()> {
    let injections: Api<SessionInjection> = Api::namespaced(cluster.client.clone(), namespace);
    for injection in injections.list(&ListParams::default()).await? {
        let made = injection.creation_timestamp().context("a creation time")?.0;
        let marked = pods(
            cluster,
            namespace,
            &format!("{INJECTION_LABEL}={}", injection.name_any()),
        )
        .await?;
        let first = marked
            .iter()
            .filter_map(ResourceExt::creation_timestamp)
            .map(|time| time.0)
            .min();
        let first = first.context("a pod with the mark")?;
        // 2 s, as whole seconds may show them.
        let waited = first.duration_since(made).as_secs();
        ensure!(
            waited >= 1,
            "{}: marked {waited} s after it was written",
            injection.name_any()
        );
    }
    Ok(())
}

/// Pods of a namespace by a label selector.
pub async fn pods(cluster: &Cluster, namespace: &str, labels: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}

/// Fails if a pod of the namespace carries anything of ours.
pub async fn nothing_in_pods(cluster: &Cluster, namespace: &str) -> Result<()> {
    for pod in pods(cluster, namespace, "app=shop").await? {
        let text = serde_json::to_string(&pod).context("a pod")?;
        ensure!(
            !pod.labels().contains_key(INJECTION_LABEL),
            "{} is marked",
            pod.name_any()
        );
        ensure!(
            !text.contains("session-operator"),
            "{} carries something: {text}",
            pod.name_any()
        );
    }
    Ok(())
}

/// Waits until a condition of a policy is False for a reason, in a message that has these words and no password of a test.
pub async fn said(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    (type_, reason): (&str, &str),
    words: &[&str],
) -> Result<()> {
    let policies = Policies::new(&cluster.client, namespace);
    let what = format!("SessionPolicy {namespace}/{name}: {type_}=False {reason} with {words:?}");
    eventually(&what, SHARED_LIMIT, || async {
        let policy = policies.api().get(name).await?;
        let found = condition_of(&policy, type_);
        let fits = found.is_some_and(|found| {
            found.status == "False"
                && found.reason == reason
                && words.iter().all(|word| found.message.contains(word))
                && !found.message.contains("not-to-be-seen")
        });
        Ok(if fits { Ok(()) } else { Err(policy.status) })
    })
    .await
}

/// Runs a verb of `kubectl session` and gives what it prints on standard output.
pub async fn session(cluster: &Cluster, namespace: &str, arguments: &[&str]) -> Result<String> {
    let program =
        std::env::var_os("KUBECTL_SESSION").context("KUBECTL_SESSION is not set; run `make test-e2e`")?;
    let kubeconfig = cluster.kubeconfig.clone();
    let output = tokio::process::Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--namespace", namespace])
        .args(arguments)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "kubectl session {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// What `kubectl session plan` says of a policy with another strategy.
pub async fn plan(cluster: &Cluster, namespace: &str, name: &str, strategy: &str) -> Result<String> {
    let policies = Policies::new(&cluster.client, namespace);
    let mut policy = policies.api().get(name).await?;
    policy.metadata.managed_fields = None;
    policy.status = None;
    let mut object = serde_json::to_value(&policy)?;
    object["apiVersion"] = json!("session-operator.dev/v1alpha1");
    object["kind"] = json!("SessionPolicy");
    object["spec"]["strategy"] = json!(strategy);
    let file = std::env::temp_dir().join(format!("{namespace}-{strategy}.yaml"));
    tokio::fs::write(&file, serde_json::to_string(&object)?).await?;
    let plan = session(cluster, namespace, &["plan", &file.to_string_lossy()]).await;
    tokio::fs::remove_file(&file).await?;
    plan
}
