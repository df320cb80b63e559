//! Watches the servers of every store with topology Cluster: looks each second, decides, acts. In steady state it writes nothing,
//! neither to the API server nor to a store.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kube::Resource;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;

use super::act::{Actor, Error};
use super::observe::{Standing, members};
use super::report::Report;
use super::surroundings::Kubernetes;
use super::{Action, Decision, Member, Observation, Record, decide};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
use crate::runtime::writer::WriteError;
use crate::store::names::Names;
use crate::store::replication::observe::{Access, Connections};
use crate::store::watches::{self, Tools};

/// How long a server that was told something has for it: what it does then takes a few exchanges with the others, and begins anew
/// when it is told again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a store is watched by.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its names.
    pub names: Names,
    /// Number of shards that are asked for.
    pub shards: usize,
    /// Number of servers that are asked for in each of them.
    pub per_shard: usize,
    /// How they are reached.
    pub access: Access,
}

impl watches::Plan for Plan {
    fn names(&self) -> &Names {
        &self.names
    }
}

/// The watch of one store.
pub struct Watcher {
    tools: Tools,
    connections: Connections,
    /// What was last recorded; the cache may be behind.
    record: Record,
    /// What servers were told lately.
    told: HashMap<String, Instant>,
    /// Why servers were told to become primary lately, by their pods.
    causes: HashMap<String, FailoverCause>,
}

impl watches::Watcher for Watcher {
    type Plan = Plan;
    type Report = Report;
    type Shared = ();

    fn new(tools: Tools, (): ()) -> Self {
        Self {
            tools,
            connections: Connections::default(),
            record: Record::default(),
            told: HashMap::new(),
            causes: HashMap::new(),
        }
    }

    fn replanned(&mut self) {
        self.connections.clear();
    }

    async fn round(&mut self, plan: &Plan) -> (Report, bool) {
        let seen = self.look(plan).await;
        let decision = decide(&seen);
        self.carry_out(plan, &seen, &decision).await;
        let is_moving =
            |member: &Member| member.pod.terminating || (member.pod.running && member.state().is_none());
        let busy = !decision.actions.is_empty() || seen.members.iter().any(is_moving);
        let report = Report { seen, decision };
        let busy = busy || !report.serves_all();
        let (metrics, names) = (&self.tools.metrics, &plan.names);
        metrics.observe(names.namespace(), names.store(), &report.facts());
        metrics.slots(names.namespace(), names.store(), report.served());
        (report, busy)
    }
}

impl Watcher {
    async fn look(&mut self, plan: &Plan) -> Observation {
        let names = &plan.names;
        let caches = &self.tools.caches;
        let sets = caches.sets(names);
        if let Some(recorded) = sets.get(&names.shard(0)).map(|set| Record::of(set))
            && recorded.version > self.record.version
        {
            self.record = recorded;
        }
        let volumes: BTreeSet<String> = caches.claims(names).into_keys().collect();
        let mut members = members(&Standing {
            names,
            shards: plan.shards,
            per_shard: plan.per_shard,
            pods: &caches.shard_servers(names),
            sets: &sets,
            volumes: &volumes,
        });
        let servers: Vec<_> = members
            .iter()
            .map(|member| (member.name.clone(), member.address.clone()))
            .collect();
        let mut answers = self.connections.look(&plan.access, &servers).await;
        for member in &mut members {
            if let Some(answer) = answers.remove(&member.name) {
                member.server = answer;
            }
        }
        Observation {
            shards: plan.shards,
            members,
            record: self.record.clone(),
        }
    }

    /// Does what was decided.
    async fn carry_out(&mut self, plan: &Plan, seen: &Observation, decision: &Decision) {
        let tools = self.tools.clone();
        let surroundings = Kubernetes {
            client: &tools.client,
            names: &plan.names,
            sets: &tools.caches.sets(&plan.names),
            claims: &tools.caches.claims(&plan.names),
        };
        self.told.retain(|_, since| since.elapsed() < PATIENCE);
        for action in &decision.actions {
            if !tools.leadership.is_leader() {
                break;
            }
            let key = format!("{action:?}");
            if takes_time(action) && self.told.contains_key(&key) {
                continue;
            }
            // What was recorded in this round counts for the next thing that is.
            let seen = Observation {
                record: self.record.clone(),
                ..seen.clone()
            };
            let actor = Actor {
                surroundings: &surroundings,
                access: &plan.access,
                seen: &seen,
                causes: &self.causes,
            };
            let begun = Instant::now();
            match actor.act(action, jiff::Timestamp::now()).await {
                Ok(record) => {
                    self.told.insert(key, Instant::now());
                    log(plan, action, begun.elapsed());
                    match action {
                        Action::TakeOver { member, cause, .. } => {
                            self.causes.insert(member.clone(), *cause);
                        }
                        Action::Note { .. } => self.causes.clear(),
                        _ => {}
                    }
                    if let Some(record) = record {
                        self.announce(plan, &record).await;
                        self.record = record;
                    }
                }
                // What was not done is found again at the next look.
                Err(Error::Write(WriteError::NotLeader)) => break,
                Err(error) => tracing::warn!(
                    namespace = plan.names.namespace(),
                    name = plan.names.store(),
                    ?action,
                    %error,
                    "not done; it is tried again"
                ),
            }
        }
    }

    /// Tells people of what is recorded for the first time.
    async fn announce(&self, plan: &Plan, next: &Record) {
        let former = &self.record;
        if let Some(failover) = &next.last_failover
            && former.last_failover.as_ref() != Some(failover)
        {
            let names = &plan.names;
            let cause = format!("{:?}", failover.cause);
            self.tools
                .metrics
                .failed_over(names.namespace(), names.store(), &cause);
            let kind = if failover.cause == FailoverCause::Planned {
                EventType::Normal
            } else {
                EventType::Warning
            };
            let note = format!("{} is the primary of its shard now ({cause})", failover.to);
            self.publish(plan, kind, reasons::FAILED_OVER, "Failover", note)
                .await;
        }
        if let Some(loss) = &next.last_loss
            && former.last_loss.as_ref() != Some(loss)
        {
            let slots = u64::try_from(loss.slots).unwrap_or_default();
            self.tools
                .metrics
                .lost(plan.names.namespace(), plan.names.store(), slots);
            let note = format!(
                "the sessions of {} of {} slots were lost with all servers that had them; the slots are served again",
                loss.slots,
                super::slots::COUNT
            );
            self.publish(plan, EventType::Warning, reasons::SESSIONS_LOST, "Failover", note)
                .await;
        }
        if former.shards != 0 && next.shards != former.shards {
            let note = format!("{} shards share the slots, {} before", next.shards, former.shards);
            self.publish(plan, EventType::Normal, reasons::SCALED, "Scale", note)
                .await;
        }
        if next.formed && !former.formed {
            let note = "every slot has a primary".to_owned();
            self.publish(plan, EventType::Normal, reasons::CLUSTER_FORMED, "Form", note)
                .await;
        }
    }

    async fn publish(
        &self,
        plan: &Plan,
        kind: EventType,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        let names = &plan.names;
        let reference = ObjectRef::new(names.store()).within(names.namespace());
        let Some(store) = self.tools.caches.stores.get(&reference) else {
            return;
        };
        let mut about = store.object_ref(&());
        about.kind = Some("SessionStore".to_owned());
        self.tools
            .events
            .publish(&about, kind, reason, action, note)
            .await;
    }
}

/// Whether what is done is seen only a while later.
pub fn takes_time(action: &Action) -> bool {
    matches!(
        action,
        Action::Meet { .. }
            | Action::TakeOver { .. }
            | Action::Follow { .. }
            | Action::MoveWhole { .. }
            | Action::Remove { .. }
    )
}

fn log(plan: &Plan, action: &Action, took: Duration) {
    let (namespace, name, took_ms) = (plan.names.namespace(), plan.names.store(), took.as_millis());
    match action {
        Action::Label { .. } | Action::Note { .. } => {
            tracing::debug!(namespace, name, ?action, took_ms, "done");
        }
        _ => tracing::info!(namespace, name, ?action, took_ms, "done"),
    }
}
