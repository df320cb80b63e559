//! A store with topology Replicated or Cluster and the shop that keeps its sessions there, for tests in which servers fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use session_operator::api::session_store::{
    FailoverCause, MemberRole, StoreMember, StoreReplication, Topology,
};
use session_operator::api::{SessionStore, SessionStoreStatus};
use session_operator::drill::{Class, Options, Report};

use crate::app::{Manifests, Running, SHOP};
use crate::policy::{Policies, in_store};
use crate::store;
use crate::users::users;
use crate::wait::eventually;
use crate::{Cluster, node};

/// Name of the store.
pub const STORE: &str = "sessions";

/// Slots of a cluster.
const ALL_SLOTS: i32 = 16384;

/// Label of its pods.
const SERVERS: &str = "session-operator.dev/store=sessions";

/// Label of the pod to which the Service leads.
const IS_PRIMARY: &str = "session-operator.dev/store=sessions,session-operator.dev/role=primary";

/// How long a store may take to be whole again: a pod is made, started, and gets everything.
pub const WHOLE_LIMIT: Duration = Duration::from_mins(2);

/// How long all servers may take to be replaced one by one.
const ROLLED_LIMIT: Duration = Duration::from_mins(5);

/// Failed requests of one user that are further apart have others between them that did not fail: longer than one may take.
const APART_MS: u64 = 5_500;

/// So many failed requests are told one by one.
const FEW: usize = 20;

/// A store and the shop that keeps its sessions there.
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The namespace.
    pub namespace: &'a str,
    /// The shop.
    pub shop: Running,
    /// Where users come in.
    pub entry: SocketAddr,
}

impl<'a> Scene<'a> {
    /// Makes store, shop and policy, and waits until every server does its part and every pod uses the store.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn set_up(cluster: &'a Cluster, namespace: &'a str, store: Value) -> Result<Self> {
        Self::with(cluster, store, SHOP.manifests(namespace)?, namespace).await
    }

    /// The same with a shop whose pods serve for a moment after they are told to end, so that its own rolling updates break no
    /// request.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn with_patient_shop(cluster: &'a Cluster, namespace: &'a str, store: Value) -> Result<Self> {
        let mut shop = SHOP.manifests(namespace)?;
        let spec = shop.deployment.spec.as_mut();
        let pod = spec.and_then(|spec| spec.template.spec.as_mut());
        for container in &mut pod.context("a template")?.containers {
            container.lifecycle = serde_json::from_value(json!({"preStop": {"sleep": {"seconds": 8}}}))?;
        }
        Self::with(cluster, store, shop, namespace).await
    }

    /// The same with a shop whose pods are on the node that is never cut off: what fails then is the store.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn with_shop_that_stays(
        cluster: &'a Cluster,
        namespace: &'a str,
        store: Value,
    ) -> Result<Self> {
        let mut shop = SHOP.manifests(namespace)?;
        let spec = shop.deployment.spec.as_mut();
        let pod = spec.and_then(|spec| spec.template.spec.as_mut());
        let first = [("kubernetes.io/hostname".to_owned(), node::FIRST.to_owned())];
        pod.context("a template")?.node_selector = Some(first.into());
        Self::with(cluster, store, shop, namespace).await
    }

    async fn with(cluster: &'a Cluster, store: Value, shop: Manifests, namespace: &'a str) -> Result<Self> {
        let (made, shop) = tokio::join!(
            store::create(cluster, namespace, STORE, store),
            shop.behind_traefik(cluster)
        );
        made?;
        Self::of(cluster, namespace, shop?).await
    }

    /// Makes shop and policy for a store that is there.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn in_present_store(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        let shop = SHOP.manifests(namespace)?.behind_traefik(cluster).await?;
        Self::of(cluster, namespace, shop).await
    }

    async fn of(
        cluster: &'a Cluster,
        namespace: &'a str,
        (shop, entry): (Running, SocketAddr),
    ) -> Result<Self> {
        let scene = Self {
            cluster,
            namespace,
            shop,
            entry,
        };
        scene.well().await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .shared(in_store(SHOP, &json!({"storeRef": {"name": STORE}})))
            .await?;
        // Who logs in at a pod from before keeps the session there.
        scene.shop.settled().await?;
        scene.shop.routed(entry).await?;
        Ok(scene)
    }

    /// Pods of the namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Stores of the namespace.
    pub fn stores(&self) -> Api<SessionStore> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Waits until one server is primary and all others have everything.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn whole(&self) -> Result<StoreReplication> {
        self.well().await?.replication.context("a primary")
    }

    /// Waits until every server does its part: each shard has a primary, and all others have everything.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn well(&self) -> Result<SessionStoreStatus> {
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
            let slots = status.cluster.as_ref().map(|cluster| cluster.slots);
            let is_whole = primaries == store.spec.shards()
                && (store.spec.topology != Topology::Cluster || slots == Some(ALL_SLOTS))
                && status.members.len() == store.spec.servers()
                && status.members.iter().all(|member| member.ready)
                && status.observed_generation == store.metadata.generation
                && ready == Some("Ready");
            Ok(if is_whole { Ok(status) } else { Err(status) })
        })
        .await
    }

    /// The pod to which the Service leads.
    ///
    /// # Errors
    /// When there is not exactly one.
    pub async fn primary(&self) -> Result<Pod> {
        let labelled = ListParams::default().labels(IS_PRIMARY);
        let mut pods = self.pods().list(&labelled).await?.items;
        ensure!(pods.len() == 1, "{} pods are labelled as primary", pods.len());
        pods.pop().context("a pod")
    }

    /// Waits until another server is primary, and gives what is told of the change.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn another_than(&self, former: &StoreReplication) -> Result<StoreReplication> {
        eventually("another primary", WHOLE_LIMIT, || async {
            let status = self.stores().get(STORE).await?.status.unwrap_or_default();
            let replication = status.replication.clone().unwrap_or_default();
            let is_other = replication.epoch > former.epoch;
            Ok(if is_other { Ok(replication) } else { Err(status) })
        })
        .await
    }

    /// Waits until a server is primary no more: another one is, of the same shard where there are shards.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn another_in_place_of(&self, former: &StoreMember) -> Result<()> {
        let what = format!("another primary than {}", former.name);
        eventually(&what, WHOLE_LIMIT, || async {
            let status = self.stores().get(STORE).await?.status.unwrap_or_default();
            let mut primaries = status
                .members
                .iter()
                .filter(|member| member.role == MemberRole::Primary && member.shard == former.shard);
            Ok(if primaries.any(|primary| primary.name != former.name) {
                Ok(())
            } else {
                Err(status)
            })
        })
        .await
    }

    /// Drills the shop around something that a test does, and prints what users saw of it.
    ///
    /// # Errors
    /// When the event or the drill fails.
    pub async fn drill<F>(&self, options: Options, name: &str, event: F) -> Result<Report>
    where
        F: AsyncFnOnce() -> Result<()>,
    {
        let report = self.shop.drill_with(self.entry, options, name, event).await?;
        eprintln!(
            "{}{name}: {} of {} requests failed, for {} ms on end for the user who had it worst; {} users lost; \
             failed in each second: {:?}{}",
            report.table(),
            report.failed(),
            report.requests,
            longest_gap(&report).as_millis(),
            report.count(Class::Lost),
            failed_by_second(&report),
            few_failures(&report)
        );
        Ok(report)
    }

    /// The servers' pods.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn servers(&self) -> Result<Vec<Pod>> {
        let servers = ListParams::default().labels(SERVERS);
        Ok(self.pods().list(&servers).await?.items)
    }

    /// Name and password of the users whose Secrets are called so.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub async fn logins(&self, secrets: &[&str]) -> Result<Vec<(String, String)>> {
        let api: Api<Secret> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        let mut logins = Vec::new();
        for name in secrets {
            let secret = api.get(name).await?;
            logins.push((
                store::value(&secret, "username")?,
                store::value(&secret, "password")?,
            ));
        }
        Ok(logins)
    }

    /// Fails unless every server answers users so: lets them in, or does not know their passwords.
    ///
    /// # Errors
    /// When one of them does otherwise.
    pub async fn every_server(&self, admits: bool, logins: &[(String, String)]) -> Result<()> {
        let api: Api<Secret> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        let authority = api.get(&format!("{STORE}-ca")).await?;
        let authority = store::value(&authority, "ca.crt")?;
        self.every_server_trusting(&authority, admits, logins).await
    }

    /// The same as a client that trusts these authorities.
    ///
    /// # Errors
    /// When one of the servers does otherwise.
    pub async fn every_server_trusting(
        &self,
        authorities: &str,
        admits: bool,
        logins: &[(String, String)],
    ) -> Result<()> {
        let file = std::env::temp_dir().join(format!("session-operator-{}-ca.crt", self.namespace));
        std::fs::write(&file, authorities)?;
        let file = file.display().to_string();
        for server in self.servers().await? {
            let address = server.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            let address = address.context("a server without an address")?;
            for (user, password) in logins {
                let client = ["-h", address, "--no-auth-warning", "--tls", "--cacert", &file];
                let login = ["--user", user, "--pass", password];
                let client = client.iter().chain(&login).map(|word| (*word).to_owned());
                let said = store::redis_cli(&client.collect::<Vec<_>>(), &["PING"]).await?;
                let is_in = said.contains("PONG");
                ensure!(
                    is_in == admits && (is_in || said.contains("WRONGPASS")),
                    "{} says to {user}: {said:?}; it was to let him in: {admits}",
                    server.name_any()
                );
            }
        }
        std::fs::remove_file(&file)?;
        Ok(())
    }

    /// Uids of the servers' pods.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn uids(&self) -> Result<Vec<String>> {
        Ok(self
            .servers()
            .await?
            .iter()
            .filter_map(ResourceExt::uid)
            .collect())
    }

    /// Waits until no pod of `former` is left and all is well.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn rolled(&self, former: &[String]) -> Result<()> {
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
        self.well().await.map(|_| ())
    }

    /// Deletes the pods of all servers at once, with hardly any time to end. With none at all, a pod's successor might start
    /// beside it, on the same volume.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn delete_all(&self) -> Result<()> {
        let at_once = DeleteParams::default().grace_period(1);
        self.pods()
            .delete_collection(&at_once, &ListParams::default().labels(SERVERS))
            .await?;
        Ok(())
    }

    /// SIGKILL to the process of a server; its container is back, empty, within a second or so.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        let arguments = ["kill", "-n", self.namespace, pod, "server"];
        self.cluster.run(arguments).await.map(|_| ())
    }
}

/// The longest row of failed requests of one user without a pause of [`APART_MS`], from the first to the last.
pub fn longest_gap(report: &Report) -> Duration {
    let rows = report.people.iter().flat_map(|person| {
        let (mut begun, mut last) = (None, 0);
        person.failures.iter().map(move |failure| {
            if begun.is_none() || failure.at_ms > last + APART_MS {
                begun = Some(failure.at_ms);
            }
            last = failure.at_ms;
            last - begun.unwrap_or(last)
        })
    });
    Duration::from_millis(rows.max().unwrap_or_default())
}

/// Failed requests by the second of the drill.
fn failed_by_second(report: &Report) -> BTreeMap<u64, usize> {
    let mut seconds = BTreeMap::new();
    for failure in report.people.iter().flat_map(|person| &person.failures) {
        *seconds.entry(failure.at_ms / 1_000).or_default() += 1;
    }
    seconds
}

/// Each failed request where there are few, to be looked up in the logs of pods.
fn few_failures(report: &Report) -> String {
    let failures = || {
        let of_all = report.people.iter();
        of_all.flat_map(|person| person.failures.iter().map(move |failure| (person, failure)))
    };
    if failures().count() > FEW {
        return String::new();
    }
    let lines = failures().map(|(person, at)| {
        let pod = person.pod_after.as_deref().unwrap_or("nowhere");
        let (name, after, failure) = (&person.name, at.at_ms, at.failure);
        format!(
            "\n{name}, last at {pod}: {failure}, {after} ms after {}",
            report.started
        )
    });
    lines.collect()
}

/// Why the primary last changed.
pub fn cause(replication: &StoreReplication) -> Option<FailoverCause> {
    replication.last_failover.as_ref().map(|failover| failover.cause)
}

/// Users who often ask, and write all the while.
pub fn busy_users() -> Options {
    Options {
        period: Duration::from_millis(250),
        write_every: 3,
        timeout: Duration::from_secs(5),
        event_limit: 2 * ROLLED_LIMIT,
        ..users()
    }
}

/// Users who have written all that they have before a crash: replication is asynchronous.
pub fn calm_users() -> Options {
    Options {
        write_every: 0,
        ..busy_users()
    }
}

/// Three shards in memory, each with a replica.
pub fn in_shards() -> Value {
    json!({"engine": "Redis", "topology": "Cluster", "memory": "64Mi", "deletionPolicy": "Delete"})
}

/// A store in memory. Some tests change the engine.
pub fn in_memory() -> Value {
    json!({"engine": "Redis", "topology": "Replicated", "memory": "64Mi", "deletionPolicy": "Delete"})
}
