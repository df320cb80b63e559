//! A store of several servers at the mercy of chance: servers are deleted, evicted and killed, their nodes cut off, all of them
//! restarted, and the operator is killed on top of it, while users are at work. Every session that was acknowledged is accounted
//! for.
//!
//! A run is a row of rounds that follows from its seed. In a round with a crash users have written what they have before it:
//! replication is asynchronous, and what it may cost is not what is looked for here.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::replicated::{Scene, WHOLE_LIMIT, busy_users, calm_users, in_memory, in_shards};
use e2e::users::nobody_lost;
use e2e::wait::eventually;
use e2e::{Cluster, node, operator, with_temp_namespace};
use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams, ListParams};
use serde_json::Value;
use session_operator::api::session_store::{MemberRole, StoreMember};
use session_operator::drill::Options;
use tokio::time::sleep;

/// Which run it is; absent = one that nobody has seen.
const SEED: &str = "DISRUPTOR_SEED";

/// How long it goes on; absent = half an hour.
const MINUTES: &str = "DISRUPTOR_MINUTES";

/// A container that has been started again so often is waited for too long.
const WORN: i32 = 2;

/// Labels of its pods.
const OPERATOR_PODS: &str = "app.kubernetes.io/name=session-operator,app.kubernetes.io/component=operator";

/// Time between the last write and a crash: replication has brought it to the others by then.
const AT_REST: Duration = Duration::from_millis(1_500);

/// What befalls a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PrimaryDeleted,
    ReplicaDeleted,
    PrimaryEvicted,
    AllRestarted,
    ReplicaKilled,
    PrimaryKilled,
    PrimaryCutOff,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::PrimaryDeleted,
        Self::ReplicaDeleted,
        Self::PrimaryEvicted,
        Self::AllRestarted,
        Self::ReplicaKilled,
        Self::PrimaryKilled,
        Self::PrimaryCutOff,
    ];

    /// Whether it may cost what has only just been written.
    fn is_crash(self) -> bool {
        matches!(self, Self::PrimaryKilled | Self::PrimaryCutOff)
    }
}

/// One round of a run.
#[derive(Clone, Copy, Debug)]
struct Round {
    fault: Fault,
    /// How long after the fault all of the operator's processes are killed; absent = they are not.
    operators_killed_after: Option<Duration>,
    /// How long a node stays cut off.
    cut_for: Duration,
    /// Which of the replicas.
    which: usize,
}

impl Round {
    fn draw(chance: &mut Rng) -> Self {
        let fault = Fault::ALL.get(chance.usize(..Fault::ALL.len()));
        Self {
            fault: fault.copied().unwrap_or(Fault::PrimaryDeleted),
            operators_killed_after: chance.bool().then(|| Duration::from_millis(chance.u64(..4_000))),
            cut_for: Duration::from_secs(chance.u64(5..60)),
            which: chance.usize(..8),
        }
    }

    /// Carries it out, and waits until all is well again.
    async fn carry_out(self, scene: &Scene<'_>) -> Result<()> {
        let uids = scene.uids().await?;
        if self.fault.is_crash() {
            sleep(AT_REST).await;
        }
        let fault = self.strike(scene);
        let operators = async {
            if let Some(after) = self.operators_killed_after {
                sleep(after).await;
                kill_operators(scene.cluster).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        tokio::try_join!(fault, operators)?;
        if self.operators_killed_after.is_some() {
            operator::leads(scene.cluster).await?;
        }
        if self.fault == Fault::AllRestarted {
            return scene.rolled(&uids).await;
        }
        scene.well().await.map(|_| ())
    }

    /// One of the servers that are so.
    fn one_of(self, members: &[StoreMember], role: MemberRole) -> Result<&StoreMember> {
        let mut fit = members.iter().filter(|member| member.role == role).cycle();
        fit.nth(self.which).with_context(|| format!("no {role:?}"))
    }

    async fn strike(self, scene: &Scene<'_>) -> Result<()> {
        let members = scene.well().await?.members;
        let primary = self.one_of(&members, MemberRole::Primary)?;
        let (name, replica) = (&primary.name, &self.one_of(&members, MemberRole::Replica)?.name);
        let (cluster, pods) = (scene.cluster, scene.pods());
        match self.fault {
            Fault::PrimaryDeleted => pods.delete(name, &DeleteParams::default()).await.map(|_| ())?,
            Fault::ReplicaDeleted => pods.delete(replica, &DeleteParams::default()).await.map(|_| ())?,
            Fault::PrimaryEvicted => {
                // Refused until the kubelets have seen that all servers are well again.
                eventually("the eviction to be allowed", WHOLE_LIMIT, || async {
                    Ok(pods.evict(name, &EvictParams::default()).await.map(|_| ()))
                })
                .await?;
            }
            Fault::AllRestarted => {
                let mut sets = BTreeSet::new();
                for member in &members {
                    let set = member.name.rsplit_once('-').context("a pod without a number")?.0;
                    sets.insert(format!("statefulset/{set}"));
                }
                for set in &sets {
                    let restart = [
                        "kubectl",
                        "--namespace",
                        scene.namespace,
                        "rollout",
                        "restart",
                        set,
                    ];
                    cluster.run(restart).await?;
                }
            }
            Fault::ReplicaKilled => kill_server(scene, replica).await?,
            Fault::PrimaryKilled => kill_server(scene, name).await?,
            Fault::PrimaryCutOff => match primary.node.as_deref() {
                Some(at) if node::OTHERS.contains(&at) => {
                    cluster.run(["cut", at]).await?;
                    sleep(self.cut_for).await;
                    node::bring_back(cluster, at).await?;
                }
                // The node with the control plane stays where it is.
                _ => kill_server(scene, name).await?,
            },
        }
        Ok(())
    }
}

/// SIGKILL to a server. A kubelet waits longer each time before it starts again what has ended, minutes in the end; so a pod that has
/// seen it often goes as well.
async fn kill_server(scene: &Scene<'_>, name: &str) -> Result<()> {
    let pod = scene.pods().get(name).await?;
    scene.kill(name).await?;
    replace_if_worn(&scene.pods(), &pod).await
}

async fn replace_if_worn(pods: &Api<Pod>, pod: &Pod) -> Result<()> {
    let statuses = pod.status.iter().flat_map(|status| &status.container_statuses);
    let restarts = statuses.flatten().map(|one| one.restart_count).max();
    if restarts.is_some_and(|restarts| restarts >= WORN) {
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&pod.name_any(), &at_once).await?;
    }
    Ok(())
}

async fn kill_operators(cluster: &Cluster) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), operator::NAME);
    for pod in api
        .list(&ListParams::default().labels(OPERATOR_PODS))
        .await?
        .items
    {
        // One that was killed before may not be back yet.
        if is_running(&pod) {
            cluster
                .run(["kill", "-n", operator::NAME, &pod.name_any()])
                .await?;
        }
        replace_if_worn(&api, &pod).await?;
    }
    Ok(())
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|all| {
        all.iter()
            .all(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}

fn setting(name: &str) -> Result<Option<u64>> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let value = value.into_string().ok().and_then(|value| value.parse().ok());
    Ok(Some(value.with_context(|| format!("{name} has to be a number"))?))
}

/// Rounds until the time is over.
async fn disrupt(scene: &Scene<'_>, seed: u64, time: Duration) -> Result<u32> {
    let mut chance = Rng::with_seed(seed);
    let (begun, mut rounds, mut requests, mut failed) = (Instant::now(), 0, 0, 0);
    while begun.elapsed() < time {
        let round = Round::draw(&mut chance);
        rounds += 1;
        let name = format!("round {rounds} of seed {seed}: {:?}", round.fault);
        eprintln!("--- after {:?}: {round:?}", begun.elapsed());
        let users = if round.fault.is_crash() {
            calm_users()
        } else {
            busy_users()
        };
        let report = scene
            .drill(users, &name, async || round.carry_out(scene).await)
            .await
            .with_context(|| name.clone())?;
        nobody_lost(&report).with_context(|| name.clone())?;
        requests += report.requests;
        failed += report.failed();
    }
    eprintln!(
        "seed {seed}: {rounds} rounds in {:?}, {failed} of {requests} requests failed",
        begun.elapsed()
    );
    Ok(rounds)
}

async fn at_the_mercy_of_chance(name: &str, store: Value) -> Result<()> {
    let seed = setting(SEED)?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let time = Duration::from_mins(setting(MINUTES)?.unwrap_or(30));
    eprintln!("{SEED}={seed} repeats what follows");
    with_temp_namespace(name, async |cluster, namespace| {
        let scene = Scene::with_shop_that_stays(cluster, namespace, store).await?;
        // Users who are there from the beginning to the end.
        let all_along = Options {
            period: Duration::from_secs(2),
            event_limit: 2 * time + Duration::from_mins(10),
            ..calm_users()
        };
        let report = scene
            .drill(all_along, "from the beginning to the end", async || {
                disrupt(&scene, seed, time).await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_store_and_chance() -> Result<()> {
    at_the_mercy_of_chance("chance-replicated", in_memory()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_shards_and_chance() -> Result<()> {
    at_the_mercy_of_chance("chance-shards", in_shards()).await
}
