//! Watches the servers of every store with topology Replicated: looks each second, decides, acts. In steady state it writes
//! nothing, neither to the API server nor to a store.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;

use super::act::{Actor, Doors, Error};
use super::observe::{Access, Connections, members};
use super::report::Report;
use super::surroundings::Kubernetes;
use super::{Action, Decision, Observation, Record, Waits, decide};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
use crate::runtime::writer::WriteError;
use crate::store::names::{Names, POD_NAME_LABEL};
use crate::store::watches::{self, Tools};

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

impl watches::Plan for Plan {
    fn names(&self) -> &Names {
        &self.names
    }
}

/// The watch of one store.
pub struct Watcher {
    tools: Tools,
    connections: Connections,
    doors: Doors,
    /// What was last recorded; the cache may be behind.
    record: Record,
    /// When there last was a primary.
    primary_seen: Instant,
    /// When the primary last could not hand over.
    hand_over_failed: Option<Instant>,
}

impl watches::Watcher for Watcher {
    type Plan = Plan;
    type Report = Report;
    type Shared = Doors;

    fn new(tools: Tools, shared: Doors) -> Self {
        Self {
            tools,
            connections: Connections::default(),
            doors: shared,
            record: Record::default(),
            primary_seen: Instant::now(),
            hand_over_failed: None,
        }
    }

    fn replanned(&mut self) {
        self.connections.clear();
    }

    async fn round(&mut self, plan: &Plan) -> (Report, bool) {
        let seen = self.look(plan).await;
        let mut decision = decide(&seen);
        if decision.primary.is_some() {
            self.primary_seen = Instant::now();
        }
        self.hold_back(&seen, &mut decision);
        let promoted = self.carry_out(plan, &seen, &decision).await;
        let busy = !decision.actions.is_empty()
            || decision.primary.is_none()
            || seen
                .members
                .iter()
                .any(|member| member.pod.terminating || (member.pod.running && member.state().is_none()));
        // Nobody has to hear that there was no primary if there is one again.
        decision.primary = promoted.or(decision.primary);
        let report = Report { seen, decision };
        let names = &plan.names;
        self.tools
            .metrics
            .observe(names.namespace(), names.store(), &report.facts());
        (report, busy)
    }
}

impl Watcher {
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
                if outcome.is_err() {
                    // Who is asked over a new connection goes on as it has to, should nobody have told it.
                    self.connections.clear();
                }
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
            Action::HandOver { to, cause, .. } => (to, *cause),
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
        Action::Label { .. } | Action::Lead { .. } | Action::Note { .. } | Action::Guard { .. } => {
            tracing::debug!(namespace, name, ?action, took_ms, "done");
        }
        _ => tracing::info!(namespace, name, ?action, took_ms, "done"),
    }
}
