//! The shop behind Envoy, configured by Contour: an entry beside that of Traefik.

use std::net::SocketAddr;

use anyhow::Result;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use session_operator::policy::caches::HTTP_PROXY;

use crate::app::{Running, SHOP, host};
use crate::cluster::{CONTOUR_PORT, Cluster};

/// An HTTPProxy that leads to the shop, with nothing of how requests are spread.
pub fn http_proxy(namespace: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1",
        "kind": "HTTPProxy",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "virtualhost": {"fqdn": host(SHOP, namespace)},
            "routes": [{"services": [{"name": "shop", "port": 80}]}],
        },
    })
}

/// The HTTPProxies of a namespace.
pub fn http_proxies(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client.clone(), namespace, &HTTP_PROXY.resource())
}

/// Contour, and a shop to which nothing leads yet.
pub async fn shop(cluster: &Cluster, namespace: &str) -> Result<Running> {
    cluster.run(["addon", "contour"]).await?;
    // Traefik is not to serve it, too: what follows is about one proxy.
    let manifests = SHOP.manifests(namespace)?;
    manifests.create_without_ingress(&cluster.client, namespace).await
}

/// An address where users come in, once Envoy serves the shop there.
pub async fn entry(cluster: &Cluster, shop: &Running) -> Result<SocketAddr> {
    let entry = cluster.expose(CONTOUR_PORT).await?;
    shop.routed(entry).await?;
    Ok(entry)
}

/// The shop behind an HTTPProxy that somebody made by hand.
pub async fn behind(cluster: &Cluster, namespace: &str, proxy: Value) -> Result<(Running, SocketAddr)> {
    let shop = shop(cluster, namespace).await?;
    http_proxies(cluster, namespace)
        .create(&PostParams::default(), &serde_json::from_value(proxy)?)
        .await?;
    let entry = entry(cluster, &shop).await?;
    Ok((shop, entry))
}
