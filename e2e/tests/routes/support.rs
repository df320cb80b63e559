//! Steps that several tests share.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::Running;
use e2e::{Cluster, cluster};
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;
use session_operator::drill::event::Event;
use session_operator::drill::{Class, Options, Report};

/// Users in a drill: enough to be on each of a few pods, and few enough for two cores.
pub const USERS: u32 = 30;

/// Options of a short drill.
pub fn short() -> Options {
    Options {
        members: USERS,
        period: Duration::from_millis(300),
        // Long: on a busy machine an answer may take seconds, and a slow one is no lost user.
        timeout: Duration::from_secs(20),
        before: Duration::from_secs(2),
        settle: Duration::from_secs(3),
        ..Options::default()
    }
}

/// An address of Traefik's entry point, and the shop's route there waited for.
pub async fn traefik(cluster: &Cluster, shop: &Running) -> Result<std::net::SocketAddr> {
    let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
    shop.routed(entry).await?;
    Ok(entry)
}

/// Fails unless every user stayed on one pod, with a session, and no request failed.
pub fn all_kept(report: &Report) -> Result<()> {
    ensure!(
        report.count(Class::Kept) == report.users && report.failed() == 0,
        "{}",
        report.table()
    );
    Ok(())
}

/// Drills while nothing happens; everybody has to stay.
pub async fn nobody_moves(shop: &Running, entry: std::net::SocketAddr) -> Result<()> {
    shop.sticky(entry).await?;
    let report = shop
        .drill(entry, short(), &Event::Nothing(Duration::from_secs(3)))
        .await?;
    all_kept(&report)?;
    ensure!(
        report.pods.iter().filter(|pod| pod.users_before > 0).count() > 1,
        "all on one pod: {}",
        report.table()
    );
    Ok(())
}

/// Merge-patches an object as somebody else, an Update manager of its own name.
pub async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> Result<K>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams {
        field_manager: Some("somebody-else".into()),
        ..PatchParams::default()
    };
    Ok(api.patch(name, &params, &Patch::Merge(patch)).await?)
}
