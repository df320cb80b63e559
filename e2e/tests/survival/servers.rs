//! What happens to the servers of a store.

use anyhow::{Context, Result};
use e2e::wait::eventually;
use e2e::{node, store};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use session_operator::api::SessionStore;
use session_operator::api::session_store::{MemberRole, SessionStoreStatus, StoreMember, Topology};

use crate::events::{self, LIMIT};
use crate::{Place, Scene};

/// Container of a server.
const CONTAINER: &str = "server";

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The node of one that takes writes is cut off until all pods there are evicted, and plugged in again.
    LoseNode,
    /// SIGKILL to its process.
    Kill,
    /// Its pod is deleted.
    Delete,
    /// The pods of all servers are deleted at once, without a last word.
    DeleteAll,
    /// The claim goes with its pod, and the next one gets another volume.
    LoseVolume,
}

fn name(place: Place) -> Result<&'static str> {
    place.store().context("sessions are in no store")
}

async fn status(scene: &Scene<'_>, store: &str) -> Result<SessionStoreStatus> {
    let stores: Api<SessionStore> = Api::namespaced(scene.cluster.client.clone(), scene.namespace);
    Ok(stores.get(store).await?.status.unwrap_or_default())
}

fn pods(scene: &Scene<'_>) -> Api<Pod> {
    Api::namespaced(scene.cluster.client.clone(), scene.namespace)
}

/// The pod of the server that takes writes: the only one, or the primary.
async fn serving(scene: &Scene<'_>, place: Place) -> Result<Pod> {
    let store = name(place)?;
    let primary = match place.topology() {
        Some(Topology::Replicated) => {
            let replication = status(scene, store).await?.replication;
            replication
                .and_then(|replication| replication.primary)
                .context("no primary")?
        }
        Some(Topology::Cluster) => {
            let members = status(scene, store).await?.members;
            let mut primaries = members
                .into_iter()
                .filter(|member| member.role == MemberRole::Primary);
            primaries.next().context("no primary")?.name
        }
        Some(Topology::Standalone) | None => store::server(store),
    };
    Ok(pods(scene).get(&primary).await?)
}

/// The node that it is on.
pub async fn node(scene: &Scene<'_>, place: Place) -> Result<String> {
    let pod = serving(scene, place).await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    node.context("the server is on no node")
}

/// Waits until each of several servers does its part.
pub async fn whole(scene: &Scene<'_>, store: &str) -> Result<()> {
    eventually(
        &format!("every server of {store} does its part"),
        LIMIT,
        || async {
            let stores: Api<SessionStore> = Api::namespaced(scene.cluster.client.clone(), scene.namespace);
            let spec = stores.get(store).await?.spec;
            let members = status(scene, store).await?.members;
            let is_primary = |member: &&StoreMember| member.role == MemberRole::Primary;
            let is_whole = members.len() == spec.servers()
                && members.iter().filter(is_primary).count() == spec.shards()
                && members.iter().all(|member| member.ready);
            Ok(if is_whole { Ok(()) } else { Err(members) })
        },
    )
    .await
}

/// Waits until the server that had the uid is replaced.
async fn replaced(scene: &Scene<'_>, place: Place, former: &Pod) -> Result<()> {
    let (store, uid) = (name(place)?, former.uid().context("a pod without uid")?);
    if place.topology().is_none() {
        return store::replaced(scene.cluster, scene.namespace, store, &uid).await;
    }
    let pod = former.name_any();
    eventually(&format!("another pod {pod}"), LIMIT, || async {
        let now = pods(scene).get_opt(&pod).await?.and_then(|pod| pod.metadata.uid);
        Ok(match &now {
            Some(other) if *other != uid => Ok(()),
            _ => Err(now),
        })
    })
    .await?;
    whole(scene, store).await
}

/// Does something to them, and gives the pod of the server that took writes before.
pub async fn strike(scene: &Scene<'_>, place: Place, blow: Blow) -> Result<Pod> {
    let former = serving(scene, place).await?;
    let pod = former.name_any();
    match blow {
        Blow::LoseNode => {
            let on = node(scene, place).await?;
            let lost = node::lose(scene.cluster, scene.namespace, &on).await;
            node::bring_back(scene.cluster, &on).await?;
            lost?;
        }
        // One of several that is back is ready only when the operator has told it what it is to be.
        Blow::Kill => events::kill(scene, &pod, CONTAINER, place.topology().is_none()).await?,
        Blow::Delete => delete(scene, &pod, &DeleteParams::default()).await?,
        Blow::DeleteAll => {
            let members = status(scene, name(place)?).await?.members;
            for member in members {
                delete(scene, &member.name, &DeleteParams::default().grace_period(0)).await?;
            }
        }
        Blow::LoseVolume => {
            let claims: Api<PersistentVolumeClaim> =
                Api::namespaced(scene.cluster.client.clone(), scene.namespace);
            for claim in claims.list_metadata(&ListParams::default()).await? {
                let name = claim.metadata.name.context("a claim without name")?;
                claims.delete(&name, &DeleteParams::default()).await?;
            }
            delete(scene, &pod, &DeleteParams::default()).await?;
        }
    }
    Ok(former)
}

async fn delete(scene: &Scene<'_>, pod: &str, how: &DeleteParams) -> Result<()> {
    pods(scene).delete(pod, how).await?;
    Ok(())
}

/// Waits until they serve as before, after what was done to `former`.
pub async fn recovered(scene: &Scene<'_>, place: Place, blow: Blow, former: &Pod) -> Result<()> {
    if blow != Blow::Kill {
        return replaced(scene, place, former).await;
    }
    if place.topology().is_some() {
        return whole(scene, name(place)?).await;
    }
    store::ready(scene.cluster, scene.namespace, name(place)?).await
}
