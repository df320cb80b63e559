//! Watches the servers of every store with topology Replicated: looks each second, decides, acts. In steady state it writes
//! nothing, neither to the API server nor to a store.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::act::{Actor, Doors, Error};
use super::observe::{Access, Connections, members};
use super::report::Report;
use super::surroundings::Kubernetes;
use super::{Action, Decision, Observation, Record, Waits, decide};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
use crate::runtime::events::Events;
use crate::runtime::leader::Leadership;
use crate::runtime::metrics::StoreMetrics;
use crate::runtime::writer::WriteError;
use crate::store::caches::{Caches, Trigger};
use crate::store::names::{Names, POD_NAME_LABEL};

/// Pause between looks at a store that is well.
const PERIOD: Duration = Duration::from_secs(1);

/// The same while something is under way.
const BUSY_PERIOD: Duration = Duration::from_millis(200);

/// Least pause: events of pods come in bursts.
const LEAST_PERIOD: Duration = Duration::from_millis(50);

/// How long a primary that could not hand over is left in peace.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// What a store is watched by.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its names.
    pub names: Names,
    /// Number of servers that are asked for.
    pub servers: usize,
    /// How they are reached.
    pub access: Access,
}

/// What all watches need.
#[derive(Clone)]
pub struct Tools {
    /// Read side.
    pub caches: Caches,
    /// Write side.
    pub client: Client,
    /// Whether this replica of the operator may write.
    pub leadership: Leadership,
    /// Events.
    pub events: Events,
    /// Measurements.
    pub metrics: StoreMetrics,
}

/// The watches, by namespace/name.
pub struct Watches {
    tools: Tools,
    triggers: mpsc::UnboundedSender<Trigger>,
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    plan: watch::Sender<Plan>,
    nudge: Arc<Notify>,
    report: watch::Receiver<Option<Report>>,
    doors: Doors,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watches {
    /// No watch yet. Stores whose status may have to be written go to `triggers`.
    pub fn new(tools: Tools, triggers: mpsc::UnboundedSender<Trigger>) -> Self {
        Self {
            tools,
            triggers,
            entries: Mutex::default(),
        }
    }

    /// Watches a store from now on, or goes on with what has changed.
    pub fn keep(&self, key: &str, plan: Plan) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(key) {
            entry.plan.send_replace(plan);
            entry.nudge.notify_one();
            return;
        }
        let (plan, plans) = watch::channel(plan);
        let (reports, report) = watch::channel(None);
        let nudge = Arc::new(Notify::new());
        let doors = Doors::default();
        let watcher = Watcher {
            tools: self.tools.clone(),
            plans,
            nudge: nudge.clone(),
            reports,
            triggers: self.triggers.clone(),
            connections: Connections::default(),
            doors: doors.clone(),
            record: Record::default(),
            primary_seen: Instant::now(),
            hand_over_failed: None,
        };
        let entry = Entry {
            plan,
            nudge,
            report,
            doors,
            task: tokio::spawn(watcher.run()).abort_handle(),
        };
        entries.insert(key.to_owned(), entry);
    }

    /// Has a store looked at now.
    pub fn nudge(&self, key: &str) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(key) {
            entry.nudge.notify_one();
        }
    }

    /// The last look at a store; nothing before the first.
    pub fn report(&self, key: &str) -> Option<Report> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key)?.report.borrow().clone()
    }

    /// Servers of a store whose users are shut out for now.
    pub fn closed(&self, key: &str) -> BTreeSet<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(key)
            .map(|entry| entry.doors.shut_now())
            .unwrap_or_default()
    }

    /// Watches a store no more.
    pub fn end(&self, key: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(key);
    }
}

/// The watch of one store.
struct Watcher {
    tools: Tools,
    plans: watch::Receiver<Plan>,
    nudge: Arc<Notify>,
    reports: watch::Sender<Option<Report>>,
    triggers: mpsc::UnboundedSender<Trigger>,
    connections: Connections,
    doors: Doors,
    /// What was last recorded; the cache may be behind.
    record: Record,
    /// When there last was a primary.
    primary_seen: Instant,
    /// When the primary last could not hand over.
    hand_over_failed: Option<Instant>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let busy = if self.tools.leadership.is_leader() {
                self.round().await
            } else {
                false
            };
            let period = if busy { BUSY_PERIOD } else { PERIOD };
            tokio::time::sleep(LEAST_PERIOD).await;
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = self.nudge.notified() => {}
            }
        }
    }

    /// One look, and what follows from it. Returns whether the next one is to come soon.
    async fn round(&mut self) -> bool {
        let plan = if self.plans.has_changed().unwrap_or_default() {
            // Passwords or the authority may be others.
            self.connections.clear();
            self.plans.borrow_and_update().clone()
        } else {
            self.plans.borrow().clone()
        };
        let seen = self.look(&plan).await;
        let mut decision = decide(&seen);
        if decision.primary.is_some() {
            self.primary_seen = Instant::now();
        }
        self.hold_back(&seen, &mut decision);
        let promoted = self.carry_out(&plan, &seen, &decision).await;
        let busy = !decision.actions.is_empty()
            || decision.primary.is_none()
            || seen
                .members
                .iter()
                .any(|member| member.pod.terminating || (member.pod.running && member.state().is_none()));
        // Nobody has to hear that there was no primary if there is one again.
        decision.primary = promoted.or(decision.primary);
        self.tell(&plan, Report { seen, decision });
        busy
    }

    async fn look(&mut self, plan: &Plan) -> Observation {
        let names = &plan.names;
        let caches = &self.tools.caches;
        let set = caches
            .stateful_sets
            .get(&ObjectRef::new(names.store()).within(names.namespace()));
        if let Some(recorded) = set.as_deref().map(Record::of)
            && recorded.epoch > self.record.epoch
        {
            self.record = recorded;
        }
        let service = caches
            .services
            .get(&ObjectRef::new(names.store()).within(names.namespace()));
        let volumes: BTreeSet<String> = caches.claims(names).into_keys().collect();
        let mut members = members(
            names,
            plan.servers,
            &caches.servers(names),
            set.as_deref(),
            |ordinal| volumes.contains(&names.member_volume(ordinal)),
        );
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
            members,
            record: self.record.clone(),
            led_to: service.as_deref().and_then(led_to),
            without_primary: self.primary_seen.elapsed(),
        }
    }

    /// A primary that could not hand over a moment ago is not asked again at once, as nobody is let in meanwhile, unless its end
    /// is near anyway.
    fn hold_back(&self, seen: &Observation, decision: &mut Decision) {
        let is_ending = seen
            .members
            .iter()
            .any(|member| member.pod.terminating && decision.primary.as_ref() == Some(&member.name));
        let recently = !is_ending
            && self
                .hand_over_failed
                .is_some_and(|failed| failed.elapsed() < HAND_OVER_PAUSE);
        let is_hand_over = |action: &Action| matches!(action, Action::HandOver { .. });
        if recently && decision.actions.iter().any(is_hand_over) {
            decision.actions.retain(|action| !is_hand_over(action));
            decision.waits = Some(Waits {
                reason: reasons::RESTART_WAITS,
                message: "the primary could not hand over to a replica; it is tried again".to_owned(),
            });
        }
    }

    /// Does what was decided. Returns the server that is primary since, if another one is.
    async fn carry_out(&mut self, plan: &Plan, seen: &Observation, decision: &Decision) -> Option<String> {
        let mut promoted = None;
        let service = ObjectRef::new(plan.names.store()).within(plan.names.namespace());
        let service = self.tools.caches.services.get(&service);
        let surroundings = Kubernetes {
            client: &self.tools.client,
            names: &plan.names,
            service: service
                .as_deref()
                .and_then(|service| service.metadata.uid.as_deref()),
        };
        let actor = Actor {
            surroundings: &surroundings,
            access: &plan.access,
            seen,
            doors: &self.doors,
        };
        for action in &decision.actions {
            if !self.tools.leadership.is_leader() {
                break;
            }
            let begun = Instant::now();
            let outcome = actor.act(action, jiff::Timestamp::now()).await;
            if let Action::HandOver { .. } = action {
                self.hand_over_failed = outcome.is_err().then(Instant::now);
            }
            match outcome {
                Ok(record) => {
                    log(plan, action, begun.elapsed());
                    if let Action::Promote { member: to, .. } | Action::HandOver { to, .. } = action {
                        promoted = Some(to.clone());
                    }
                    if let Some(record) = record {
                        self.record = record;
                        self.announce(plan, action).await;
                    }
                }
                // What was not done is found again at the next look.
                Err(Error::Write(WriteError::NotLeader)) => break,
                Err(error) => {
                    tracing::warn!(
                        namespace = plan.names.namespace(),
                        name = plan.names.store(),
                        ?action,
                        %error,
                        "not done; it is tried again"
                    );
                    // A server that does not do as it is told keeps nobody else from being looked after.
                    if !matches!(action, Action::Follow { .. }) {
                        break;
                    }
                }
            }
        }
        promoted
    }

    /// Tells people of a change of the primary.
    async fn announce(&self, plan: &Plan, action: &Action) {
        let (to, cause) = match action {
            Action::Promote { member, cause } => (member, *cause),
            Action::HandOver { to, .. } => (to, FailoverCause::Planned),
            _ => return,
        };
        let names = &plan.names;
        self.tools
            .metrics
            .failed_over(names.namespace(), names.store(), &format!("{cause:?}"));
        let reference = ObjectRef::new(names.store()).within(names.namespace());
        let Some(store) = self.tools.caches.stores.get(&reference) else {
            return;
        };
        let mut about = store.object_ref(&());
        about.kind = Some("SessionStore".to_owned());
        let (kind, reason) = match cause {
            FailoverCause::Created => (EventType::Normal, reasons::PRIMARY_MADE),
            FailoverCause::Planned => (EventType::Normal, reasons::FAILED_OVER),
            _ => (EventType::Warning, reasons::FAILED_OVER),
        };
        self.tools
            .events
            .publish(
                &about,
                kind,
                reason,
                "Failover",
                format!("{to} is the primary now ({cause:?})"),
            )
            .await;
    }

    fn tell(&self, plan: &Plan, report: Report) {
        let names = &plan.names;
        self.tools
            .metrics
            .observe(names.namespace(), names.store(), &report.facts());
        let differs = match &*self.reports.borrow() {
            None => true,
            Some(former) => former.differs_from(&report),
        };
        self.reports.send_replace(Some(report));
        if differs {
            let trigger = ObjectRef::new(names.store()).within(names.namespace());
            // Nobody listens any more when the controller ends.
            _ = self.triggers.send(trigger);
        }
    }
}

/// The server that a Service leads to by its name.
fn led_to(service: &Service) -> Option<String> {
    service
        .spec
        .as_ref()?
        .selector
        .as_ref()?
        .get(POD_NAME_LABEL)
        .cloned()
}

fn log(plan: &Plan, action: &Action, took: Duration) {
    let (namespace, name, took_ms) = (plan.names.namespace(), plan.names.store(), took.as_millis());
    match action {
        Action::Label { .. } | Action::Lead { .. } | Action::Note { .. } => {
            tracing::debug!(namespace, name, ?action, took_ms, "done");
        }
        _ => tracing::info!(namespace, name, ?action, took_ms, "done"),
    }
}
