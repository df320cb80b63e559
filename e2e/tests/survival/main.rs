//! Every application through every event, with affinity alone, with its sessions in a store that keeps them in memory, in one
//! that keeps them on a volume, and in its own pods: what status promises, and what users measure. Written to
//! `docs/survival.md`, place by place, and for one application printed as a table of strategies and events (`make demo-all`).
//!
//! Nodes are cut off and the operator is stopped, so nothing else may run beside this.
#![cfg(test)]

mod events;
mod page;
mod record;
mod servers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::{App, KITCHEN, KITCHEN_CJS, LIBRARY, NOTES, Running, SHOP, TICKETS};
use e2e::policy::{Policies, SHARED_LIMIT, promise};
use e2e::users::drill_together;
use e2e::{Cluster, node, store, with_temp_namespace};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::session_store::Topology;
use session_operator::api::{SessionPolicy, SessionStoreSpec, Survival};
use session_operator::drill::{Class, Options};

use events::Case;
use record::{Record, Row};

const APPS: [App; 6] = [SHOP, TICKETS, LIBRARY, KITCHEN, KITCHEN_CJS, NOTES];

const PLACES: [Place; 9] = [
    Place::OwnPod,
    Place::Memory,
    Place::Volume,
    Place::Servers,
    Place::ServersOnVolumes,
    Place::Shards,
    Place::ShardsOnVolumes,
    Place::AllPods,
    Place::TwoPods,
];

/// Names of the applications to look at, separated by spaces; absent = all, and only then is the page written.
const ONLY: &str = "SURVIVAL_APPS";

/// Places to look at, by their names in [`Place`], separated by spaces; absent = all. What the page says of others stays.
const ONLY_PLACES: &str = "SURVIVAL_PLACES";

/// Applications that start at once: the machines of tests have two cores.
const AT_ONCE: usize = 2;

/// Users of each application who stay logged in.
const MEMBERS: u32 = 10;

/// Users of each application who log out before the event.
const LEAVERS: u32 = 2;

/// Where sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The pod that made them, to which their users are bound.
    OwnPod,
    /// A store with sessions in memory.
    Memory,
    /// A store with sessions on a volume.
    Volume,
    /// A store of three servers with sessions in memory.
    Servers,
    /// The same, each with a volume.
    ServersOnVolumes,
    /// A cluster of three shards, a primary and a replica each, with sessions in memory.
    Shards,
    /// The same, each server with a volume.
    ShardsOnVolumes,
    /// Every pod has every session.
    AllPods,
    /// A pod, and another one as its backup.
    TwoPods,
}

impl Place {
    /// Name of the store.
    pub fn store(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory"),
            Self::Volume => Some("volume"),
            Self::Servers => Some("servers"),
            Self::ServersOnVolumes => Some("servers-volumes"),
            Self::Shards => Some("shards"),
            Self::ShardsOnVolumes => Some("shards-volumes"),
            Self::OwnPod | Self::AllPods | Self::TwoPods => None,
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::OwnPod => "Sticky",
            Self::Memory => "Shared, memory",
            Self::Volume => "Shared, volume",
            Self::Servers => "Shared, three servers",
            Self::ServersOnVolumes => "Shared, three servers, volumes",
            Self::Shards => "Shared, three shards",
            Self::ShardsOnVolumes => "Shared, three shards, volumes",
            Self::AllPods => "Replicated, All",
            Self::TwoPods => "Replicated, Backup(1)",
        }
    }

    /// Topology of a store of several servers.
    pub fn topology(self) -> Option<Topology> {
        match self {
            Self::Servers | Self::ServersOnVolumes => Some(Topology::Replicated),
            Self::Shards | Self::ShardsOnVolumes => Some(Topology::Cluster),
            Self::Memory | Self::Volume | Self::OwnPod | Self::AllPods | Self::TwoPods => None,
        }
    }

    /// Whether the store has volumes.
    pub fn is_on_volumes(self) -> bool {
        matches!(
            self,
            Self::Volume | Self::ServersOnVolumes | Self::ShardsOnVolumes
        )
    }

    /// Whether sessions of an application can be kept there. Spring Session keeps none in the pod that made them, and not every
    /// framework's handler speaks to a cluster.
    fn takes(self, app: App) -> bool {
        match self {
            Self::OwnPod => app.name != NOTES.name,
            Self::Shards | Self::ShardsOnVolumes => [SHOP.name, NOTES.name].contains(&app.name),
            _ => true,
        }
    }

    /// What a policy says of it.
    fn spec(self) -> Value {
        let none = Value::Null;
        let of = |strategy: &str, sticky: Value, shared: Value, replicated: Value| json!({"strategy": strategy, "sticky": sticky, "shared": shared, "replicated": replicated});
        match self {
            Self::OwnPod => of("Sticky", json!({}), none.clone(), none),
            Self::AllPods => of("Replicated", none.clone(), none, json!({"mode": "All"})),
            Self::TwoPods => {
                let backup = json!({"mode": "Backup", "backups": 1});
                of("Replicated", none.clone(), none, backup)
            }
            _ => {
                let shared = json!({"storeRef": {"name": self.store()}});
                of("Shared", none.clone(), shared, none)
            }
        }
    }
}

/// Everything that a case acts on.
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Where all is.
    pub namespace: &'a str,
    /// The applications, and where their users come in.
    pub applications: Vec<(Running, SocketAddr)>,
    apps: Vec<App>,
    policies: Policies,
}

/// Words of which one has to be in what is done; absent = everything is done, and only then is the page
/// written.
const ONLY_EVENTS: &str = "SURVIVAL_EVENTS";

/// Whether an event is to be looked at.
fn is_wanted(case: &Case) -> bool {
    std::env::var(ONLY_EVENTS).map_or(true, |words| {
        words.split_whitespace().any(|word| case.what.contains(word))
    })
}

/// Those that a variable names; all of them when it is not set.
fn wanted<T: Copy>(variable: &str, all: &[T], name_of: impl Fn(&T) -> String) -> Result<Vec<T>> {
    let Ok(names) = std::env::var(variable) else {
        return Ok(all.to_vec());
    };
    let one = |name: &str| all.iter().copied().find(|one| name_of(one) == name);
    names
        .split_whitespace()
        .map(|name| one(name).with_context(|| format!("{variable}: there is no {name}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_application_through_every_event() -> Result<()> {
    with_temp_namespace("survival", async |cluster, namespace| {
        let apps = wanted(ONLY, &APPS, |app| app.name.to_owned())?;
        let places = wanted(ONLY_PLACES, &PLACES, |place| format!("{place:?}"))?;
        let mut record = Record::new(apps.iter().map(|app| app.name).collect())?;
        let scene = Scene::set(cluster, namespace, apps).await?;
        let measured = scene.measure(&places, &mut record).await;
        node::schedulable(cluster, node::FIRST, true).await?;
        measured?;
        if let [app] = scene.apps.as_slice() {
            println!("{}", record.summary(app.name));
        }
        let worse = record.worse();
        ensure!(worse.is_empty(), "worse than promised:\n{}", worse.join("\n"));
        Ok(())
    })
    .await
}

impl<'a> Scene<'a> {
    async fn set(cluster: &'a Cluster, namespace: &'a str, apps: Vec<App>) -> Result<Self> {
        let applications = stream::iter(apps.clone())
            .map(|app| async move { app.manifests(namespace)?.behind_traefik(cluster).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self {
            cluster,
            namespace,
            applications,
            apps,
            policies: Policies::new(&cluster.client, namespace),
        })
    }

    /// One place after the other.
    async fn measure(&self, places: &[Place], record: &mut Record) -> Result<()> {
        let mut former = Vec::new();
        for place in places.iter().copied() {
            if self.at(place).is_empty() {
                continue;
            }
            // Nodes that were cut off before have scattered all pods, and those of stores are to be where they can be cut off.
            node::schedulable(self.cluster, node::FIRST, place.store().is_none()).await?;
            self.make_store(place).await?;
            // Whatever server is primary later, too.
            node::schedulable(self.cluster, node::FIRST, place.topology().is_none()).await?;
            self.keep_sessions_in(place).await?;
            // Eighteen servers at once would be much for one machine. Who cannot keep sessions here still keeps them there.
            if self.at(place).len() == self.apps.len() {
                for store in former.drain(..) {
                    store::delete(self.cluster, self.namespace, store).await?;
                }
            }
            former.extend(place.topology().and(place.store()));
            for case in events::cases(place).into_iter().filter(is_wanted) {
                let row = self.run(place, case).await?;
                eprintln!("{row}");
                record.add(row);
            }
            if self.apps.len() == APPS.len() && std::env::var(ONLY_EVENTS).is_err() {
                record.write(place)?;
            }
        }
        Ok(())
    }

    /// The applications whose sessions can be kept there.
    pub fn at(&self, place: Place) -> Vec<&(Running, SocketAddr)> {
        let applications = self.applications.iter();
        applications
            .filter(|(running, _)| place.takes(running.app))
            .collect()
    }

    /// Makes the store of a place, if it has one.
    async fn make_store(&self, place: Place) -> Result<()> {
        let Some(name) = place.store() else {
            return Ok(());
        };
        let mut spec = json!({"engine": "Redis"});
        if let Some(topology) = place.topology() {
            spec["topology"] = json!(topology);
            spec["memory"] = json!("64Mi");
        }
        if place.is_on_volumes() {
            let servers = serde_json::from_value::<SessionStoreSpec>(spec.clone())?.servers();
            // One more, for the event that deletes one.
            for number in 0..=servers {
                let volume = format!("{}-{name}-{number}", self.namespace);
                self.cluster.run(["volume", &volume, "1Gi"]).await?;
            }
            spec["persistence"] = json!({"size": "1Gi", "storageClassName": "local"});
        }
        store::create(self.cluster, self.namespace, name, spec).await?;
        if place.topology().is_some() {
            servers::whole(self, name).await?;
        }
        Ok(())
    }

    /// Lets all policies keep sessions there, and waits until all pods do.
    async fn keep_sessions_in(&self, place: Place) -> Result<()> {
        let apps: Vec<App> = self.at(place).iter().map(|(running, _)| running.app).collect();
        let set_up = stream::iter(apps)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |app| async move {
                if self.policies.api().get_opt(app.name).await?.is_none() {
                    let mut spec = place.spec();
                    spec["targetRef"] = json!({"name": app.name});
                    spec["client"] = json!({"framework": app.framework});
                    self.policies.create_with(app.name, spec).await?;
                } else {
                    let patch = Patch::Merge(json!({"spec": place.spec()}));
                    let params = PatchParams::default();
                    self.policies.api().patch(app.name, &params, &patch).await?;
                }
                self.policy(app).await.map(|_| ())
            });
        set_up.await?;
        for (running, entry) in self.at(place) {
            // Nobody is to log in at a pod that keeps sessions where they were before.
            running.settled().await?;
            running.routed(*entry).await?;
            if place == Place::OwnPod {
                running.sticky(*entry).await?;
            }
        }
        Ok(())
    }

    /// The policy of an application, once it is ready.
    async fn policy(&self, app: App) -> Result<SessionPolicy> {
        self.policies.ready_within(app.name, SHARED_LIMIT).await
    }

    async fn run(&self, place: Place, case: Case) -> Result<Row> {
        let mut promises: Vec<Survival> = Vec::new();
        let applications = self.at(place);
        for (running, _) in &applications {
            let policy = self.policy(running.app).await?;
            promises.push(promise(&policy, case.event)?.clone());
        }
        // Gentle, and patient: the users of six applications share two cores with a whole cluster.
        let options = Options {
            members: MEMBERS,
            leavers: LEAVERS,
            period: Duration::from_secs(2),
            write_every: 3,
            at_once: 2,
            before: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            event_limit: Duration::from_mins(15),
            ..Options::default()
        };
        let reports = drill_together(&applications, &options, case.what, async {
            case.cause(self, place).await?;
            for (running, _) in &applications {
                self.policy(running.app).await?;
            }
            Ok(())
        })
        .await
        .with_context(|| format!("{} ({place:?})", case.what))?;
        for report in &reports {
            ensure!(
                report.count(Class::LoginFailed) == 0,
                "users could not log in before {}, which says nothing of it: {}",
                case.what,
                report.table()
            );
        }
        let mut measured = promises.into_iter().zip(reports);
        let cells = self
            .apps
            .iter()
            .map(|app| place.takes(*app).then(|| measured.next()).flatten());
        Ok(Row {
            place,
            case,
            cells: cells.collect(),
        })
    }
}
