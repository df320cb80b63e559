//! Metrics of stores, and of the servers of those with several. Names of stores and of their servers are labels
//! here: there are a few of each, and an alert has to say which.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    namespace: String,
    store: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    namespace: String,
    store: String,
    member: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    namespace: String,
    store: String,
    member: String,
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailoverLabels {
    namespace: String,
    store: String,
    cause: String,
}

/// What the server that takes writes said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes in use.
    pub used: i64,
    /// Bytes at which it refuses writes.
    pub max: i64,
    /// Connected clients.
    pub clients: i64,
    /// Keys evicted since it started.
    pub evicted: i64,
}

/// One server as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    /// Its pod.
    pub member: String,
    /// What it is: Primary, Replica or Unknown.
    pub role: &'static str,
    /// How far it is, in bytes, if it answers.
    pub offset: Option<i64>,
    /// Bytes that a connected replica lacks.
    pub lag: Option<i64>,
    /// Whether it cannot write to its volume, if it answers and has one.
    pub volume_failing: Option<bool>,
}

/// The registered families. Clones share the same values.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    ready: Family<StoreLabels, Gauge>,
    used: Family<StoreLabels, Gauge>,
    max: Family<StoreLabels, Gauge>,
    clients: Family<StoreLabels, Gauge>,
    evicted: Family<StoreLabels, Gauge>,
    roles: Family<RoleLabels, Gauge>,
    offsets: Family<MemberLabels, Gauge>,
    lags: Family<MemberLabels, Gauge>,
    failing: Family<MemberLabels, Gauge>,
    failovers: Family<FailoverLabels, Counter>,
    slots: Family<StoreLabels, Gauge>,
    lost: Family<StoreLabels, Counter>,
    shown: Arc<Mutex<HashMap<String, Shown>>>,
}

/// What is shown of one store.
#[derive(Debug, Default)]
struct Shown {
    roles: HashSet<RoleLabels>,
    offsets: HashSet<MemberLabels>,
    lags: HashSet<MemberLabels>,
    failing: HashSet<MemberLabels>,
    failovers: HashSet<FailoverLabels>,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register(
            "store_ready",
            "Whether a store serves (1), by its condition Ready",
            families.ready.clone(),
        );
        registry.register(
            "store_memory_used_bytes",
            "Memory in use by the server that takes writes",
            families.used.clone(),
        );
        registry.register(
            "store_memory_max_bytes",
            "Memory at which that server refuses writes",
            families.max.clone(),
        );
        registry.register(
            "store_clients",
            "Clients connected to that server",
            families.clients.clone(),
        );
        registry.register(
            "store_evicted_keys",
            "Keys that it has evicted since it started: sessions lost for want of memory",
            families.evicted.clone(),
        );
        registry.register(
            "store_member_role",
            "1 for what each server of a replicated store is: Primary, Replica or Unknown",
            families.roles.clone(),
        );
        registry.register(
            "store_member_offset_bytes",
            "How far a server of a replicated store is in the history of changes",
            families.offsets.clone(),
        );
        registry.register(
            "store_member_lag_bytes",
            "Bytes of the primary's changes that a connected replica does not have yet",
            families.lags.clone(),
        );
        registry.register(
            "store_member_volume_failing",
            "Whether a server with a volume could not write to it the last time (1)",
            families.failing.clone(),
        );
        registry.register(
            "store_failovers",
            "Changes of the primary of a store with several servers, by cause",
            families.failovers.clone(),
        );
        registry.register(
            "store_slots_served",
            "Slots of 16384 that a primary of a store with shards serves",
            families.slots.clone(),
        );
        registry.register(
            "store_slots_lost",
            "Slots whose sessions were lost with all servers that had them",
            families.lost.clone(),
        );
        families
    }

    fn with<T>(&self, store: &str, work: impl FnOnce(&mut Shown) -> T) -> T {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        work(shown.entry(store.to_owned()).or_default())
    }

    /// Shows a store as it is. What a server that does not answer said before is shown no more.
    pub fn tell(&self, namespace: &str, store: &str, ready: bool, load: Option<Load>) {
        let labels = StoreLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
        };
        self.ready.get_or_create(&labels).set(i64::from(ready));
        for (family, value) in self.loads(load) {
            match value {
                Some(value) => {
                    family.get_or_create(&labels).set(value);
                }
                None => {
                    family.remove(&labels);
                }
            }
        }
    }

    fn loads(&self, load: Option<Load>) -> [(&Family<StoreLabels, Gauge>, Option<i64>); 4] {
        [
            (&self.used, load.map(|load| load.used)),
            (&self.max, load.map(|load| load.max)),
            (&self.clients, load.map(|load| load.clients)),
            (&self.evicted, load.map(|load| load.evicted)),
        ]
    }

    /// Shows the servers of a store as they are.
    pub fn observe(&self, namespace: &str, store: &str, members: &[MemberFacts]) {
        let labels = |facts: &MemberFacts| MemberLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
            member: facts.member.clone(),
        };
        let mut now = Shown::default();
        for facts in members {
            let role = RoleLabels {
                namespace: namespace.to_owned(),
                store: store.to_owned(),
                member: facts.member.clone(),
                role: facts.role,
            };
            self.roles.get_or_create(&role).set(1);
            now.roles.insert(role);
            if let Some(offset) = facts.offset {
                self.offsets.get_or_create(&labels(facts)).set(offset);
                now.offsets.insert(labels(facts));
            }
            if let Some(lag) = facts.lag {
                self.lags.get_or_create(&labels(facts)).set(lag);
                now.lags.insert(labels(facts));
            }
            if let Some(failing) = facts.volume_failing {
                self.failing.get_or_create(&labels(facts)).set(i64::from(failing));
                now.failing.insert(labels(facts));
            }
        }
        self.with(&key(namespace, store), |shown| {
            now.failovers = std::mem::take(&mut shown.failovers);
            for gone in shown.roles.difference(&now.roles) {
                self.roles.remove(gone);
            }
            for gone in shown.offsets.difference(&now.offsets) {
                self.offsets.remove(gone);
            }
            for gone in shown.lags.difference(&now.lags) {
                self.lags.remove(gone);
            }
            for gone in shown.failing.difference(&now.failing) {
                self.failing.remove(gone);
            }
            *shown = now;
        });
    }

    /// Shows how many slots are served in a store with shards.
    pub fn slots(&self, namespace: &str, store: &str, served: usize) {
        let labels = StoreLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
        };
        let served = i64::try_from(served).unwrap_or(i64::MAX);
        self.slots.get_or_create(&labels).set(served);
        // An increase is seen only of what was there before.
        self.lost.get_or_create(&labels).inc_by(0);
    }

    /// Counts slots whose sessions were lost.
    pub fn lost(&self, namespace: &str, store: &str, slots: u64) {
        let labels = StoreLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
        };
        self.lost.get_or_create(&labels).inc_by(slots);
    }

    /// Counts a change of the primary.
    pub fn failed_over(&self, namespace: &str, store: &str, cause: &str) {
        let labels = FailoverLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
            cause: cause.to_owned(),
        };
        self.failovers.get_or_create(&labels).inc();
        self.with(&key(namespace, store), |shown| shown.failovers.insert(labels));
    }

    /// Shows nothing of a store any more.
    pub fn forget(&self, namespace: &str, store: &str) {
        let labels = StoreLabels {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
        };
        self.ready.remove(&labels);
        self.slots.remove(&labels);
        self.lost.remove(&labels);
        for (family, _) in self.loads(None) {
            family.remove(&labels);
        }
        let shown = self
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key(namespace, store));
        let Some(shown) = shown else { return };
        for labels in &shown.roles {
            self.roles.remove(labels);
        }
        for labels in &shown.offsets {
            self.offsets.remove(labels);
        }
        for labels in &shown.lags {
            self.lags.remove(labels);
        }
        for labels in &shown.failing {
            self.failing.remove(labels);
        }
        for labels in &shown.failovers {
            self.failovers.remove(labels);
        }
    }
}

fn key(namespace: &str, store: &str) -> String {
    format!("{namespace}/{store}")
}
