//! `kubectl session drill` against the shop behind a policy.

use anyhow::{Context, Result, ensure};
use e2e::app::{SHOP, host};
use e2e::policy::Policies;
use e2e::with_temp_namespace;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::support::session;

/// How the drill uses the shop.
const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/apps/shop/drill.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn the_command_holds_what_users_see_against_what_status_promises() -> Result<()> {
    with_temp_namespace("drill", async |cluster, namespace| {
        let (shop, entry) = SHOP.manifests(namespace)?.behind_traefik(cluster).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", json!({})).await?;
        policies.ready("shop").await?;
        shop.sticky(entry).await?;

        let page = std::env::temp_dir().join(format!("{namespace}.html"));
        let (url, connect) = (format!("http://{}", host(SHOP, namespace)), entry.to_string());
        let begin = [
            "drill",
            "--policy",
            "shop",
            "--connect",
            &connect,
            "--users",
            "20",
        ];
        let drill = async |more: &[&str]| {
            let arguments: Vec<&str> = begin.iter().chain(more).copied().collect();
            session(cluster, namespace, &arguments).await
        };

        // Everybody stays where they are, and the page has a line for each. The URL is the Ingress's own.
        let page_name = page.to_string_lossy();
        let printed = drill(&[
            "--event",
            "scale=4",
            "--leavers",
            "3",
            "--yes",
            "--application",
            DESCRIPTION,
            "--output",
            "json",
            "--html",
            &page_name,
        ])
        .await?;
        let found: Value = serde_json::from_str(&printed).context("JSON")?;
        ensure!(found["agrees"] == true, "{printed}");
        ensure!(found["promised"]["event"] == "ScaleUp", "{printed}");
        ensure!(found["promised"]["outcome"] == "Kept", "{printed}");
        ensure!(found["report"]["users"] == 23, "{printed}");
        ensure!(found["report"]["url"] == format!("{url}/"), "{printed}");
        let text = tokio::fs::read_to_string(&page).await?;
        tokio::fs::remove_file(&page).await?;
        ensure!(text.matches("<g>").count() == 23, "{text}");
        ensure!(text.contains("ScaleUp Kept"), "{text}");

        // Sessions are in the pods: who is on the node is logged out, and nobody promised anything else.
        let printed = drill(&["--event", "node-drain", "--yes", "--application", DESCRIPTION]).await?;
        ensure!(printed.contains("promised: PodLoss"), "{printed}");
        ensure!(printed.contains("as promised"), "{printed}");
        ensure!(!printed.contains("measured: 0 lost"), "{printed}");
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        for node in nodes.list(&ListParams::default()).await? {
            let closed = node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
            ensure!(!closed, "{:?} was left closed", node.metadata.name);
        }

        // Without a terminal it asks nobody, and does nothing.
        let by_flags = [
            "--login",
            "POST /login user={user}&password=secret-{user}",
            "--check",
            "/whoami",
            "--user",
            "json:/user",
            "--pod",
            "header:X-Served-By",
            "--url",
            &url,
        ];
        let refused = drill(&by_flags).await;
        let error = refused
            .err()
            .context("it went on without a question")?
            .to_string();
        ensure!(error.contains("add --yes"), "{error}");
        // An event that changes nothing needs no question.
        let calm = ["--event", "nothing=1", "--before", "1", "--settle", "1"];
        let printed = drill(&[by_flags.as_slice(), &calm].concat()).await?;
        ensure!(printed.contains("measured: 0 lost of 20 users"), "{printed}");
        Ok(())
    })
    .await
}
