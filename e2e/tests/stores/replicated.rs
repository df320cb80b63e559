//! Topology Replicated: users of the shop while servers are deleted, killed and replaced.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, in_store, promise};
use e2e::users::{nobody_lost, users};
use e2e::wait::eventually;
use e2e::{Cluster, store, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::session_store::{FailoverCause, MemberRole, StoreReplication};
use session_operator::api::{Event as Promise, Outcome, SessionStore};
use session_operator::drill::{Class, Options, Report};

/// Name of the store of these tests.
const STORE: &str = "sessions";

/// Label by which the pod is found to which the Service leads.
const IS_PRIMARY: &str = "session-operator.dev/store=sessions,session-operator.dev/role=primary";

/// How long a store may take to be whole again: a pod is made, started, and gets everything.
const WHOLE_LIMIT: Duration = Duration::from_mins(2);

/// How long all servers may take to be replaced one by one.
const ROLLED_LIMIT: Duration = Duration::from_mins(5);

/// Longest time after all servers were deleted at once until the store serves again (issue: stores that stay up).
const HEAL_LIMIT: Duration = Duration::from_mins(1);

/// Time after the last write before a crash, so that nothing is under way: replication is asynchronous.
const AT_REST: Duration = Duration::from_millis(1500);

/// A store and the shop that keeps its sessions there.
struct Scene<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    shop: Running,
    entry: SocketAddr,
}

impl<'a> Scene<'a> {
    async fn set_up(cluster: &'a Cluster, namespace: &'a str, store: Value) -> Result<Self> {
        let (made, shop) = tokio::join!(store::create(cluster, namespace, STORE, store), async {
            SHOP.manifests(namespace)?.behind_traefik(cluster).await
        });
        made?;
        let (shop, entry) = shop?;
        let scene = Self {
            cluster,
            namespace,
            shop,
            entry,
        };
        scene.whole().await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .shared(in_store(SHOP, &json!({"storeRef": {"name": STORE}})))
            .await?;
        Ok(scene)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    fn stores(&self) -> Api<SessionStore> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Waits until one server is primary and all others have everything.
    async fn whole(&self) -> Result<StoreReplication> {
        let what = format!("every server of {}/{STORE} does its part", self.namespace);
        eventually(&what, WHOLE_LIMIT, || async {
            let store = self.stores().get(STORE).await?;
            let status = store.status.clone().unwrap_or_default();
            let primaries = status
                .members
                .iter()
                .filter(|member| member.role == MemberRole::Primary)
                .count();
            let ready = status.conditions.first().map(|ready| ready.reason.as_str());
            let is_whole = primaries == 1
                && status.members.len() == store.spec.servers()
                && status.members.iter().all(|member| member.ready)
                && status.observed_generation == store.metadata.generation
                && ready == Some("Ready");
            Ok(match (is_whole, status.replication.clone()) {
                (true, Some(replication)) => Ok(replication),
                _ => Err(status),
            })
        })
        .await
    }

    /// The pod to which the Service leads.
    async fn primary(&self) -> Result<Pod> {
        let labelled = ListParams::default().labels(IS_PRIMARY);
        let mut pods = self.pods().list(&labelled).await?.items;
        ensure!(pods.len() == 1, "{} pods are labelled as primary", pods.len());
        pods.pop().context("a pod")
    }

    /// Waits until another server is primary, and gives what is told of the change.
    async fn another_than(&self, former: &StoreReplication) -> Result<StoreReplication> {
        eventually("another primary", WHOLE_LIMIT, || async {
            let status = self.stores().get(STORE).await?.status.unwrap_or_default();
            let replication = status.replication.clone().unwrap_or_default();
            let is_other = replication.epoch > former.epoch;
            Ok(if is_other { Ok(replication) } else { Err(status) })
        })
        .await
    }

    async fn drill<F>(&self, options: Options, name: &str, event: F) -> Result<Report>
    where
        F: AsyncFnOnce() -> Result<()>,
    {
        let report = self.shop.drill_with(self.entry, options, name, event).await?;
        eprintln!(
            "{name}: {} failed requests of {}, in a stretch of {} ms; {} users lost",
            report.failed(),
            report.requests,
            longest_gap(&report).as_millis(),
            report.count(Class::Lost)
        );
        Ok(report)
    }
}

/// From the first failed request of a user to the end of the last one in a row, for the user who had it worst.
fn longest_gap(report: &Report) -> Duration {
    let worst = report.people.iter().filter_map(|person| {
        let first = person.failures.first()?.at_ms;
        let last = person.failures.last()?.at_ms;
        Some(last.saturating_sub(first))
    });
    Duration::from_millis(worst.max().unwrap_or_default())
}

/// Users who often ask, and write all the while.
fn busy_users() -> Options {
    Options {
        period: Duration::from_millis(250),
        write_every: 3,
        timeout: Duration::from_secs(5),
        ..users()
    }
}

/// Users who have written all that they have before a crash.
fn calm_users() -> Options {
    Options {
        write_every: 0,
        ..busy_users()
    }
}

/// Redis: the Valkey that the test cluster can get speaks no TLS.
fn in_memory() -> Value {
    json!({"engine": "Redis", "topology": "Replicated", "memory": "64Mi", "deletionPolicy": "Delete"})
}

#[tokio::test(flavor = "multi_thread")]
async fn users_keep_their_sessions_when_the_primary_is_deleted_killed_or_replaced() -> Result<()> {
    with_temp_namespace("store-replicated", async |cluster, namespace| {
        let scene = Scene::set_up(cluster, namespace, in_memory()).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let policy = policies.ready("shop").await?;
        for (event, outcome) in [
            (Promise::StoreRestart, Outcome::Kept),
            (Promise::NodeLoss, Outcome::Kept),
            (Promise::StoreLoss, Outcome::Lost),
            (Promise::OperatorDown, Outcome::Partly),
        ] {
            let row = promise(&policy, event)?;
            ensure!(row.outcome == outcome, "{row:#?}");
        }

        // The primary's pod is deleted: it hands over before it ends, and what is written meanwhile stays.
        let before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), "primary's pod deleted", async || {
                let primary = scene.primary().await?;
                scene
                    .pods()
                    .delete(&primary.name_any(), &DeleteParams::default())
                    .await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        let after = scene.whole().await?;
        let cause = after.last_failover.as_ref().map(|failover| failover.cause);
        ensure!(cause == Some(FailoverCause::Planned), "{after:?}");

        // The process of the primary is killed: its container is back, empty, within a second.
        let report = scene
            .drill(calm_users(), "primary's process killed", async || {
                tokio::time::sleep(AT_REST).await;
                let primary = scene.primary().await?.name_any();
                cluster
                    .run(["kill", "-n", namespace, primary.as_str(), "server"])
                    .await?;
                let next = scene.another_than(&after).await?;
                ensure!(next.primary.as_ref() != Some(&primary), "{next:?}");
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        let after = scene.whole().await?;
        let cause = after.last_failover.as_ref().map(|failover| failover.cause);
        ensure!(cause == Some(FailoverCause::ServerEnded), "{after:?}");

        // A planned restart of every server.
        let uids = scene.uids().await?;
        let report = scene
            .drill(busy_users(), "memory changed", async || {
                let patch = json!({"spec": {"memory": "80Mi"}});
                scene
                    .stores()
                    .patch(STORE, &PatchParams::default(), &Patch::Merge(&patch))
                    .await?;
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)?;

        // What `kubectl drain` asks for, at the primary.
        let before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), "primary evicted", async || {
                let primary = scene.primary().await?.name_any();
                // Refused until the kubelets have seen that all servers are well again.
                eventually("the eviction to be allowed", WHOLE_LIMIT, || async {
                    let evicted = scene.pods().evict(&primary, &EvictParams::default()).await;
                    Ok(evicted.map(|_| ()))
                })
                .await?;
                scene.another_than(&before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

impl Scene<'_> {
    async fn uids(&self) -> Result<Vec<String>> {
        let servers = ListParams::default().labels("session-operator.dev/store=sessions");
        let pods = self.pods().list(&servers).await?;
        Ok(pods.iter().filter_map(ResourceExt::uid).collect())
    }

    /// Waits until no pod of before is left and all is well.
    async fn rolled(&self, former: &[String]) -> Result<()> {
        eventually("every server to be replaced", ROLLED_LIMIT, || async {
            let now = self.uids().await?;
            let left: Vec<&String> = now.iter().filter(|uid| former.contains(uid)).collect();
            Ok(if left.is_empty() && now.len() == former.len() {
                Ok(())
            } else {
                Err(format!("{left:?} of {now:?} are left"))
            })
        })
        .await?;
        self.whole().await.map(|_| ())
    }

    async fn delete_all(&self) -> Result<()> {
        let servers = ListParams::default().labels("session-operator.dev/store=sessions");
        self.pods()
            .delete_collection(&DeleteParams::default().grace_period(0), &servers)
            .await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_volumes_all_servers_may_be_deleted_at_once() -> Result<()> {
    with_temp_namespace("store-repl-volume", async |cluster, namespace| {
        for server in 0..3 {
            let volume = format!("{namespace}-{server}");
            cluster.run(["volume", volume.as_str(), "1Gi"]).await?;
        }
        let mut spec = in_memory();
        spec["persistence"] = json!({"size": "1Gi", "storageClassName": "local"});
        let scene = Scene::set_up(cluster, namespace, spec).await?;
        let before = scene.whole().await?;
        let uids = scene.uids().await?;
        let report = scene
            .drill(calm_users(), "all servers deleted", async || {
                tokio::time::sleep(AT_REST).await;
                let begun = Instant::now();
                scene.delete_all().await?;
                scene.another_than(&before).await?;
                eprintln!("a primary again after {:?}", begun.elapsed());
                ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
                scene.rolled(&uids).await
            })
            .await?;
        nobody_lost(&report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_volumes_a_store_whose_servers_were_all_deleted_serves_again() -> Result<()> {
    with_temp_namespace("store-repl-all", async |cluster, namespace| {
        let mut spec = in_memory();
        spec["engine"] = json!("Valkey");
        spec["tls"] = json!("Disabled");
        spec["replicas"] = json!(1);
        let scene = Scene::set_up(cluster, namespace, spec).await?;
        let (before, uids) = (scene.whole().await?, scene.uids().await?);
        ensure!(uids.len() == 2, "{uids:?}");
        let begun = Instant::now();
        scene.delete_all().await?;
        let after = scene.another_than(&before).await?;
        ensure!(begun.elapsed() < HEAL_LIMIT, "{:?}", begun.elapsed());
        let cause = after.last_failover.as_ref().map(|failover| failover.cause);
        ensure!(cause == Some(FailoverCause::AllLost), "{after:?}");
        scene.rolled(&uids).await?;
        // The next to come find a store that works.
        let report = scene.drill(calm_users(), "nothing", async || Ok(())).await?;
        nobody_lost(&report)
    })
    .await
}
