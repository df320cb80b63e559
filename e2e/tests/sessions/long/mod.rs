//! What does not fit CI's budget: `make test-long` runs these, picked by `long::` in their names.

mod bundle;
mod helm;
mod hostile;
mod injection;
mod isolated;
mod moving;
mod proxies;
mod replicas;
mod stripped;
mod warned;

use anyhow::Result;
use e2e::app::{Running, SHOP, host};
use e2e::{Cluster, cluster};

/// The shop of a namespace, once Traefik serves it.
async fn routed(cluster: &Cluster, namespace: &str) -> Result<(Running, std::net::SocketAddr)> {
    let shop = Running::new(&cluster.client, SHOP, namespace, &host(SHOP, namespace));
    shop.settled().await?;
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    shop.routed(entry).await?;
    Ok((shop, entry))
}
