//! What this process remembers between reconciles.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::preflights::PREFLIGHT_PAUSE;
use super::replication::Asked;
use crate::policy::sessions::Trouble;
use crate::policy::sessions::cautions::{OldNode, Surroundings};
use crate::policy::sessions::replication::Seen;
use crate::store::client::Reached;

/// How long it is remembered that admission applied a revision.
const FORGET: Duration = Duration::from_mins(10);

/// How long it is remembered in which zone a node is.
const ZONE_PERIOD: Duration = Duration::from_hours(1);

/// How long it is remembered what budgets and autoscalers a namespace has.
const SURROUNDINGS_PERIOD: Duration = Duration::from_mins(5);

/// How long it is remembered that no kubelet is too old.
const NODES_PERIOD: Duration = Duration::from_hours(1);

/// How long it is remembered which kubelets are too old: somebody is about to change that.
const OLD_NODES_PERIOD: Duration = Duration::from_mins(2);

/// How long the answer of an external store counts.
const PROBE_PERIOD: Duration = Duration::from_secs(30);

/// What an external store answered, and when.
type Answered = (Instant, Result<Reached, Trouble>);

/// What this process remembers between reconciles; losing it costs a few requests.
#[derive(Default)]
pub struct Memory {
    /// When a revision (namespace/name) was first seen to be applied by admission.
    admitted: Mutex<HashMap<String, Instant>>,
    /// When a preflight (namespace/name) last gave no answer.
    failed: Mutex<HashMap<String, (Instant, Trouble)>>,
    /// What external stores answered last, by policy and version of the Secret.
    reached: Mutex<HashMap<String, Answered>>,
    /// Zones by node.
    zones: Mutex<HashMap<String, (Instant, String)>>,
    /// Budgets and autoscalers by namespace.
    surroundings: Mutex<HashMap<String, (Instant, Surroundings)>>,
    /// Nodes whose kubelet is too old.
    old_nodes: Mutex<Option<(Instant, Vec<OldNode>)>>,
    /// What sidecars said last, by policy.
    asked: Mutex<HashMap<String, Asked>>,
}

impl Memory {
    /// The zone of a node, if it was learnt not long ago.
    pub fn zone(&self, node: &str) -> Option<String> {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, zone) = zones.get(node)?;
        (since.elapsed() < ZONE_PERIOD).then(|| zone.clone())
    }

    /// Remembers the zone of a node.
    pub fn learn_zone(&self, node: &str, zone: &str) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|_, (since, _)| since.elapsed() < ZONE_PERIOD);
        zones.insert(node.to_owned(), (Instant::now(), zone.to_owned()));
    }

    pub(super) fn surroundings(&self, namespace: &str) -> Option<Surroundings> {
        let mut known = self.surroundings.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| since.elapsed() < SURROUNDINGS_PERIOD);
        known.get(namespace).map(|(_, found)| found.clone())
    }

    pub(super) fn learn_surroundings(&self, namespace: &str, found: &Surroundings) {
        let mut known = self.surroundings.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(namespace.to_owned(), (Instant::now(), found.clone()));
    }

    pub(super) fn old_nodes(&self) -> Option<Vec<OldNode>> {
        let known = self.old_nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, nodes) = known.as_ref()?;
        let period = if nodes.is_empty() {
            NODES_PERIOD
        } else {
            OLD_NODES_PERIOD
        };
        (since.elapsed() < period).then(|| nodes.clone())
    }

    pub(super) fn learn_old_nodes(&self, nodes: &[OldNode]) {
        let mut known = self.old_nodes.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), nodes.to_vec()));
    }

    pub(super) fn asked(&self, policy: &str, pods: &[String]) -> Option<Vec<Seen>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(policy)?.fresh(pods)
    }

    pub(super) fn rate(&self, policy: &str, pod: &str, sent: u64) -> Option<u64> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(policy)?.rate(pod, sent)
    }

    pub(super) fn remember_asked(&self, policy: &str, seen: &[Seen]) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, asked| !asked.is_old());
        asked.insert(policy.to_owned(), Asked::new(seen));
    }

    pub(super) fn admitted(&self, key: &str) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.retain(|_, since| since.elapsed() < FORGET);
        admitted.entry(key.to_owned()).or_insert_with(Instant::now);
    }

    pub(super) fn admitted_since(&self, key: &str) -> Option<Duration> {
        let admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.get(key).map(Instant::elapsed)
    }

    pub(super) fn reached(&self, key: &str) -> Option<Result<Reached, Trouble>> {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.retain(|_, (since, _)| since.elapsed() < PROBE_PERIOD);
        reached.get(key).map(|(_, answer)| answer.clone())
    }

    pub(super) fn remember_reached(&self, key: &str, answer: &Result<Reached, Trouble>) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.insert(key.to_owned(), (Instant::now(), answer.clone()));
    }

    pub(super) fn failed(&self, key: &str, trouble: &Trouble) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert(key.to_owned(), (Instant::now(), trouble.clone()));
    }

    pub(super) fn failed_lately(&self, key: &str) -> Option<Trouble> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, (since, _)| since.elapsed() < PREFLIGHT_PAUSE);
        failed.get(key).map(|(_, trouble)| trouble.clone())
    }
}
