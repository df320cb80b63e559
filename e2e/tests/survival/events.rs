//! The events, and how each is caused.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::app::Running;
use e2e::wait::eventually;
use e2e::{node, operator};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use session_operator::api::{Event as Promise, Outcome};
use session_operator::drill::Marks;
use session_operator::drill::event::Event;

use crate::servers::Blow;
use crate::{Place, Scene, servers};

/// Replicas of every application.
const REPLICAS: i32 = 3;

/// Container of every application.
const APPLICATION: &str = "web";

/// Container that keeps sessions beside it.
const SIDECAR: &str = session_operator::policy::sessions::sidecar::CONTAINER;

/// How long the operator is away where nothing else happens.
const OPERATOR_AWAY: Duration = Duration::from_secs(30);

/// How long one step of an event may take.
pub const LIMIT: Duration = Duration::from_mins(3);

/// One way in which an event comes about.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The event, as status calls it.
    pub event: Promise,
    /// What is done.
    pub what: &'static str,
    /// What the sentence of status says of this way, where the outcome speaks of several.
    pub says: Option<Outcome>,
    cause: Cause,
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    KillContainer,
    KillSidecar,
    DeletePod,
    Restart,
    Scale(&'static [i32]),
    LoseOtherNode,
    ToServers(Blow),
    /// The same while no operator runs.
    ToServersAlone(Blow),
    /// And, where sessions outlive pods, delete one of each application meanwhile.
    StopOperator {
        delete_pods: bool,
    },
}

const fn case(event: Promise, what: &'static str, says: Option<Outcome>, cause: Cause) -> Case {
    Case {
        event,
        what,
        says,
        cause,
    }
}

const fn of_server(event: Promise, what: &'static str, says: Option<Outcome>, blow: Blow) -> Case {
    case(event, what, says, Cause::ToServers(blow))
}

/// The same while no operator runs.
const fn of_server_alone(what: &'static str, says: Option<Outcome>, blow: Blow) -> Case {
    case(Promise::OperatorDown, what, says, Cause::ToServersAlone(blow))
}

/// What happens to pods.
fn of_pods() -> Vec<Case> {
    use Cause as C;
    use Promise as P;
    vec![
        case(P::ContainerRestart, "SIGKILL in a pod", None, C::KillContainer),
        case(P::PodLoss, "a pod deleted", None, C::DeletePod),
        case(P::RollingUpdate, "rollout restart", None, C::Restart),
        case(P::ScaleUp, "from 3 pods to 4", None, C::Scale(&[REPLICAS + 1])),
        case(P::ScaleDown, "from 4 pods to 3", None, C::Scale(&[REPLICAS])),
        case(
            P::ScaleToZero,
            "to 0 pods and back to 3",
            None,
            C::Scale(&[0, REPLICAS]),
        ),
    ]
}

/// What is done while no operator runs: the pod that takes the place of another one has to be as all others. Where a session is
/// lost with its pod, that would measure the pod's loss.
const fn of_the_operator(place: Place) -> Case {
    let (what, delete_pods) = match place {
        Place::OwnPod => ("operator stopped for half a minute", false),
        _ => ("operator stopped, a pod deleted", true),
    };
    case(
        Promise::OperatorDown,
        what,
        None,
        Cause::StopOperator { delete_pods },
    )
}

/// What happens to several servers, with and without an operator.
fn of_servers(place: Place) -> Vec<Case> {
    use Promise as P;
    let kept = Some(Outcome::Kept);
    let (all_deleted, after_all) = if place.is_on_volumes() {
        (P::StoreRestart, kept)
    } else {
        (P::StoreLoss, Some(Outcome::Lost))
    };
    vec![
        of_server(
            P::NodeLoss,
            "a primary's node cut off, then back",
            None,
            Blow::LoseNode,
        ),
        of_server(P::StoreRestart, "a primary's pod deleted", None, Blow::Delete),
        of_server(P::StoreRestart, "SIGKILL to a primary", None, Blow::Kill),
        of_server(
            all_deleted,
            "all servers' pods deleted",
            after_all,
            Blow::DeleteAll,
        ),
        of_server_alone(
            "operator stopped, a primary's node cut off, then back",
            None,
            Blow::LoseNode,
        ),
        of_server_alone("operator stopped, a primary's pod deleted", kept, Blow::Delete),
        of_server_alone("operator stopped, SIGKILL to a primary", kept, Blow::Kill),
        of_server_alone(
            "operator stopped, all servers' pods deleted",
            after_all,
            Blow::DeleteAll,
        ),
    ]
}

/// The cases of a place. What happens to pods and to the operator is the same with every store.
pub fn cases(place: Place) -> Vec<Case> {
    use Cause as C;
    use Promise as P;
    let kept = Some(Outcome::Kept);
    let lost = Some(Outcome::Lost);
    let mut cases = if place == Place::Volume || place.topology().is_some() {
        Vec::new()
    } else {
        of_pods().into_iter().chain([of_the_operator(place)]).collect()
    };
    let others = match place {
        Place::OwnPod => vec![case(P::NodeLoss, "a node cut off", None, C::LoseOtherNode)],
        Place::Memory => vec![
            case(
                P::NodeLoss,
                "a node without the store cut off",
                kept,
                C::LoseOtherNode,
            ),
            of_server(
                P::NodeLoss,
                "the store's node cut off, then back",
                lost,
                Blow::LoseNode,
            ),
            of_server(P::StoreRestart, "SIGKILL to the server", None, Blow::Kill),
            of_server(P::StoreLoss, "the server's pod deleted", None, Blow::Delete),
        ],
        Place::Volume => vec![
            of_server(
                P::NodeLoss,
                "the store's node cut off, then back",
                kept,
                Blow::LoseNode,
            ),
            of_server(P::StoreRestart, "the server's pod deleted", kept, Blow::Delete),
            of_server(P::StoreRestart, "SIGKILL to the server", None, Blow::Kill),
            of_server(P::StoreLoss, "volume and pod deleted", None, Blow::LoseVolume),
        ],
        Place::Servers | Place::ServersOnVolumes | Place::Shards | Place::ShardsOnVolumes => {
            of_servers(place)
        }
        Place::AllPods | Place::TwoPods => vec![
            case(P::ContainerRestart, "SIGKILL to a sidecar", None, C::KillSidecar),
            case(P::NodeLoss, "a node cut off", None, C::LoseOtherNode),
        ],
    };
    cases.extend(others);
    cases
}

impl Case {
    /// Lets it happen, and waits until everything runs again.
    pub async fn cause(&self, scene: &Scene<'_>, place: Place) -> Result<()> {
        match self.cause {
            Cause::KillContainer => {
                all(scene, place, |running| kill_in_pod(scene, running, APPLICATION)).await
            }
            Cause::KillSidecar => all(scene, place, |running| kill_in_pod(scene, running, SIDECAR)).await,
            Cause::DeletePod => all(scene, place, |running| happen(running, Event::DeletePod(None))).await,
            Cause::Restart => all(scene, place, |running| happen(running, Event::Restart)).await,
            Cause::Scale(steps) => {
                for replicas in steps {
                    all(scene, place, |running| happen(running, Event::Scale(*replicas))).await?;
                }
                Ok(())
            }
            Cause::LoseOtherNode => lose_other_node(scene, place).await,
            Cause::ToServers(blow) => {
                let former = servers::strike(scene, place, blow).await?;
                servers::recovered(scene, place, blow, &former).await
            }
            Cause::ToServersAlone(blow) => {
                let mut former = None;
                without_operator(scene, async || {
                    former = Some(servers::strike(scene, place, blow).await?);
                    tokio::time::sleep(OPERATOR_AWAY).await;
                    Ok(())
                })
                .await?;
                let former = former.context("a server that was struck")?;
                servers::recovered(scene, place, blow, &former).await
            }
            Cause::StopOperator { delete_pods } => {
                without_operator(scene, async || {
                    if delete_pods {
                        return all(scene, place, |running| happen(running, Event::DeletePod(None))).await;
                    }
                    tokio::time::sleep(OPERATOR_AWAY).await;
                    Ok(())
                })
                .await
            }
        }
    }
}

/// Does something with every application at the same time.
async fn all<'a, F>(scene: &'a Scene<'_>, place: Place, each: impl Fn(&'a Running) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let applications = scene.at(place).into_iter();
    try_join_all(applications.map(|(running, _)| each(running))).await?;
    Ok(())
}

async fn happen(running: &Running, event: Event) -> Result<()> {
    running.workload.cause(&event, &Marks::begin()).await?;
    Ok(())
}

async fn kill_in_pod(scene: &Scene<'_>, running: &Running, container: &str) -> Result<()> {
    let pods = running.workload.pods().await?;
    let pod = pods.keys().next().context("a pod")?;
    kill(scene, pod, container, true).await?;
    happen(running, Event::Nothing(Duration::ZERO)).await?;
    running.workload.settled().await?;
    Ok(())
}

/// SIGKILL to a container; waits until another process runs in it, which is ready where that `has_to_be_ready`.
pub async fn kill(scene: &Scene<'_>, pod: &str, container: &str, has_to_be_ready: bool) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client.clone(), scene.namespace);
    let restarts = async || {
        let status = pods.get(pod).await?.status.unwrap_or_default();
        let (sidecars, containers) = (status.init_container_statuses, status.container_statuses);
        let mut statuses = sidecars.into_iter().chain(containers).flatten();
        let status = statuses.find(|status| status.name == container);
        anyhow::Ok(status.map(|status| (status.restart_count, status.ready || !has_to_be_ready)))
    };
    let before = restarts().await?.context("no such container")?.0;
    scene
        .cluster
        .run(["kill", "-n", scene.namespace, pod, container])
        .await?;
    eventually(&format!("{container} of {pod} restarts"), LIMIT, || async {
        let now = restarts().await?;
        Ok(if now.is_some_and(|(count, ready)| count > before && ready) {
            Ok(())
        } else {
            Err(now)
        })
    })
    .await
}

async fn lose_other_node(scene: &Scene<'_>, place: Place) -> Result<()> {
    let with_store = match place.store() {
        Some(_) => Some(servers::node(scene, place).await?),
        None => None,
    };
    let other = node::OTHERS
        .into_iter()
        .find(|node| with_store.as_deref() != Some(*node));
    let other = other.context("a node without the store")?;
    let lost = async {
        node::lose(scene.cluster, scene.namespace, other).await?;
        all(scene, place, |running| async {
            Ok(running.workload.settled().await?)
        })
        .await
    }
    .await;
    node::bring_back(scene.cluster, other).await?;
    lost
}

/// Stops the operator, and starts it again after something was done.
async fn without_operator(scene: &Scene<'_>, work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(scene.cluster.client.clone(), operator::NAME);
    let before = deployments
        .get(operator::NAME)
        .await?
        .spec
        .and_then(|spec| spec.replicas);
    let scale = async |replicas: Option<i32>| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments
            .patch_scale(operator::NAME, &PatchParams::default(), &patch)
            .await?;
        eventually("the operator's replicas", LIMIT, || async {
            let status = deployments.get(operator::NAME).await?.status.unwrap_or_default();
            let count = status.replicas.unwrap_or(0);
            let ready = status.ready_replicas.unwrap_or(0);
            Ok(if Some(count) == replicas && ready == count {
                Ok(())
            } else {
                Err(status)
            })
        })
        .await
    };
    scale(Some(0)).await?;
    let worked = work().await;
    scale(before).await?;
    operator::leads(scene.cluster).await?;
    worked
}
