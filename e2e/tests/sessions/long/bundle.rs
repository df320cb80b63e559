//! `kubectl session support-bundle` on a whole cluster: what it promises to hold is there, and nothing that is secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, in_store};
use e2e::{Cluster, store, with_temp_namespace};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::replicated::in_pods;
use crate::support::{SHARED_LIMIT, session, shared};

/// What a careless owner has written into the pod template.
const WRITTEN_PLAINLY: &str = "a-password-in-the-template";

/// Keys of Secrets whose values are no secrets: they stand in status, in Services or in certificates, too.
const OPEN_KEYS: [&str; 10] = [
    "type", "provider", "host", "port", "database", "tls", "username", "ca.crt", "tls.crt", "path",
];

/// Shorter values are no secrets, and are found by chance.
const SHORTEST: usize = 8;

/// The shop with a password in its template, and its sessions where `spec` says.
async fn set_up(cluster: &Cluster, namespace: &str, spec: Value) -> Result<()> {
    let mut manifests = SHOP.manifests(namespace)?;
    let template = &mut manifests.deployment.spec.get_or_insert_default().template;
    let pod = template.spec.get_or_insert_default();
    let container = pod.containers.first_mut().context("a container")?;
    let variable = json!({"name": "DATABASE_PASSWORD", "value": WRITTEN_PLAINLY});
    container
        .env
        .get_or_insert_default()
        .push(serde_json::from_value(variable)?);
    manifests.create(&cluster.client, namespace).await?;
    let policies = Policies::new(&cluster.client, namespace);
    shared(&policies, spec).await?;
    policies.ready_within("shop", SHARED_LIMIT).await.map(|_| ())
}

/// Every value of every Secret of the namespace that nobody may see, by Secret and key.
async fn secret_values(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, String>> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let mut values = BTreeMap::from([("the template".to_owned(), WRITTEN_PLAINLY.to_owned())]);
    for secret in secrets.list(&ListParams::default()).await? {
        for (key, value) in secret.data.iter().flatten() {
            let value = String::from_utf8_lossy(&value.0).trim().to_owned();
            if !OPEN_KEYS.contains(&key.as_str()) && value.len() >= SHORTEST {
                values.insert(format!("{}, key {key}", secret.name_any()), value);
            }
        }
    }
    Ok(values)
}

/// Runs the command and unpacks what it wrote; gives the text of each file by its path in the archive.
async fn bundle(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, String>> {
    let folder = std::env::temp_dir().join(format!("{namespace}-bundle"));
    tokio::fs::create_dir_all(&folder).await?;
    let archive = folder.join("bundle.tar.gz");
    let arguments = [
        "support-bundle",
        "--policy",
        "shop",
        "--output",
        &archive.to_string_lossy(),
    ];
    let printed = session(cluster, namespace, &arguments).await?;
    ensure!(printed.contains("credentials masked"), "{printed}");
    let unpacked = Command::new("tar")
        .args(["--extract", "--gzip", "--strip-components=1", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&folder)
        .status()
        .await?;
    ensure!(unpacked.success(), "tar: {unpacked}");
    tokio::fs::remove_file(&archive).await?;
    let files = read_folder(&folder)?;
    tokio::fs::remove_dir_all(&folder).await?;
    Ok(files)
}

fn read_folder(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                files.insert(name, std::fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}

/// Checks that something of each kind is there, and nothing of what is secret.
fn check(files: &BTreeMap<String, String>, parts: &[&str], values: &BTreeMap<String, String>) -> Result<()> {
    for part in [
        "README.txt",
        "versions.yaml",
        "events.txt",
        "secrets.yaml",
        "policies/SessionPolicy-shop.yaml",
        "injections/SessionInjection-shop-",
        "targets/Deployment-shop.yaml",
        "targets/ReplicaSet-shop-",
        "pods/Pod-shop-",
        "services/Service-shop.yaml",
        "routes/Ingress-shop.yaml",
        "nodes/node",
        "operator/Pod-",
        "operator/Lease-",
        "logs/operator/",
    ]
    .iter()
    .chain(parts)
    {
        let found = files.iter().find(|(name, _)| name.starts_with(part));
        let (name, content) = found.with_context(|| format!("no {part} in {:?}", files.keys()))?;
        ensure!(!content.trim().is_empty(), "{name} is empty");
    }
    // The application's own containers may log anything.
    ensure!(
        !files
            .keys()
            .any(|name| name.starts_with("logs/") && name.contains("_web")),
        "{:?}",
        files.keys()
    );
    let policy = files
        .get("policies/SessionPolicy-shop.yaml")
        .context("the policy")?;
    ensure!(
        policy.contains("conditions") && policy.contains("survives"),
        "{policy}"
    );
    ensure!(values.len() > 2, "only {:?} could have been found", values.keys());
    for (whose, value) in values {
        // Of keys and certificates a line is enough to be told.
        let lines = value
            .lines()
            .filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"));
        for line in lines {
            let encoded = base64(line.as_bytes());
            let found = files
                .iter()
                .find(|(_, content)| content.contains(line) || content.contains(&encoded));
            if let Some((file, _)) = found {
                // The value itself would be in the test's log then.
                anyhow::bail!("{file} holds what stands in {whose}");
            }
        }
    }
    Ok(())
}

/// As it stands in a Secret's `data`: RFC 4648, without what a value's end adds.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks_exact(3) {
        let number = three
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| char::from(DIGITS[number >> shift & 63])));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_sessions_in_a_store_holds_no_credential() -> Result<()> {
    with_temp_namespace("bundle-store", async |cluster, namespace| {
        store::create(cluster, namespace, "sessions", json!({"engine": "Redis"})).await?;
        let wish = json!({"storeRef": {"name": "sessions"}});
        set_up(cluster, namespace, in_store(SHOP, &wish)).await?;
        let files = bundle(cluster, namespace).await?;
        let parts = [
            "stores/SessionStore-sessions.yaml",
            "stores/StatefulSet-sessions",
            "services/Service-sessions",
            "around/PodDisruptionBudget-",
            "logs/pods/sessions-",
        ];
        check(&files, &parts, &secret_values(cluster, namespace).await?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_sessions_in_the_pods_holds_no_key() -> Result<()> {
    with_temp_namespace("bundle-pods", async |cluster, namespace| {
        let secret = json!({"metadata": {"name": "mine"}, "stringData": {"host": "nowhere", "password": "never-to-be-seen-by-anybody"}});
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        secrets
            .create(&PostParams::default(), &serde_json::from_value(secret)?)
            .await?;
        let mut spec = in_pods(&json!({}), &Value::Null);
        // Named, but not used yet.
        spec["shared"] = json!({"external": {"secretRef": {"name": "mine"}}});
        set_up(cluster, namespace, spec).await?;
        let files = bundle(cluster, namespace).await?;
        let parts = [
            "services/Service-shop-peers.yaml",
            "around/ConfigMap-shop-peers.yaml",
            "logs/pods/shop-",
        ];
        check(&files, &parts, &secret_values(cluster, namespace).await?)
    })
    .await
}
