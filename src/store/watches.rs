//! A task for each store with several servers, which looks at them each second, and at once when something happens to a pod. What it
//! looks for and does is the topology's ([`Watcher`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::caches::{Caches, Trigger};
use super::names::Names;
use crate::runtime::events::Events;
use crate::runtime::leader::Leadership;
use crate::runtime::metrics::StoreMetrics;

/// Pause between looks at a store that is well.
const PERIOD: Duration = Duration::from_secs(1);

/// The same while something is under way.
const BUSY_PERIOD: Duration = Duration::from_millis(200);

/// Least pause: events of pods come in bursts.
const LEAST_PERIOD: Duration = Duration::from_millis(50);

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

/// What a store is watched by.
pub trait Plan: Clone + Send + Sync + 'static {
    /// Names of the store.
    fn names(&self) -> &Names;
}

/// The last look at a store.
pub trait Report: Clone + Send + Sync + 'static {
    /// Whether status has to be written anew.
    fn differs_from(&self, next: &Self) -> bool;
}

/// What is done at each look at one store.
pub trait Watcher: Send + 'static {
    /// What it goes by.
    type Plan: Plan;
    /// What it tells.
    type Report: Report;
    /// What others may read of it at any time.
    type Shared: Clone + Default + Send + Sync + 'static;

    /// One that has not looked yet.
    fn new(tools: Tools, shared: Self::Shared) -> Self;

    /// The plan is another one: passwords or the authority may be others.
    fn replanned(&mut self);

    /// One look, and what follows from it. Also returns whether the next one is to come soon.
    fn round(&mut self, plan: &Self::Plan) -> impl Future<Output = (Self::Report, bool)> + Send;
}

/// The watches, by namespace/name.
pub struct Watches<W: Watcher> {
    tools: Tools,
    triggers: mpsc::UnboundedSender<Trigger>,
    entries: Mutex<HashMap<String, Entry<W>>>,
}

struct Entry<W: Watcher> {
    plan: watch::Sender<W::Plan>,
    nudge: Arc<Notify>,
    report: watch::Receiver<Option<W::Report>>,
    shared: W::Shared,
    task: AbortHandle,
}

impl<W: Watcher> Drop for Entry<W> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<W: Watcher> Watches<W> {
    /// No watch yet. Stores whose status may have to be written go to `triggers`.
    pub fn new(tools: Tools, triggers: mpsc::UnboundedSender<Trigger>) -> Self {
        Self {
            tools,
            triggers,
            entries: Mutex::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Entry<W>>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches a store from now on, or goes on with what has changed.
    pub fn keep(&self, key: &str, plan: W::Plan) {
        self.with(|entries| {
            if let Some(entry) = entries.get(key) {
                entry.plan.send_replace(plan);
                entry.nudge.notify_one();
                return;
            }
            let (plan, plans) = watch::channel(plan);
            let (reports, report) = watch::channel(None);
            let (nudge, shared) = (Arc::new(Notify::new()), W::Shared::default());
            let task = Task {
                watcher: W::new(self.tools.clone(), shared.clone()),
                leadership: self.tools.leadership.clone(),
                plans,
                nudge: nudge.clone(),
                reports,
                triggers: self.triggers.clone(),
            };
            let entry = Entry {
                plan,
                nudge,
                report,
                shared,
                task: tokio::spawn(task.run()).abort_handle(),
            };
            entries.insert(key.to_owned(), entry);
        });
    }

    /// Has a store looked at now.
    pub fn nudge(&self, key: &str) {
        self.with(|entries| {
            if let Some(entry) = entries.get(key) {
                entry.nudge.notify_one();
            }
        });
    }

    /// The last look at a store; nothing before the first.
    pub fn report(&self, key: &str) -> Option<W::Report> {
        self.with(|entries| entries.get(key)?.report.borrow().clone())
    }

    /// What may be read of a watch at any time; of one that is not there, as if it had not begun.
    pub fn shared(&self, key: &str) -> W::Shared {
        self.with(|entries| entries.get(key).map(|entry| entry.shared.clone()))
            .unwrap_or_default()
    }

    /// Watches a store no more.
    pub fn end(&self, key: &str) {
        self.with(|entries| entries.remove(key));
    }
}

/// The watch of one store.
struct Task<W: Watcher> {
    watcher: W,
    leadership: Leadership,
    plans: watch::Receiver<W::Plan>,
    nudge: Arc<Notify>,
    reports: watch::Sender<Option<W::Report>>,
    triggers: mpsc::UnboundedSender<Trigger>,
}

impl<W: Watcher> Task<W> {
    async fn run(mut self) {
        loop {
            let busy = self.leadership.is_leader() && self.round().await;
            let period = if busy { BUSY_PERIOD } else { PERIOD };
            tokio::time::sleep(LEAST_PERIOD).await;
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = self.nudge.notified() => {}
            }
        }
    }

    async fn round(&mut self) -> bool {
        if self.plans.has_changed().unwrap_or_default() {
            self.watcher.replanned();
        }
        let plan = self.plans.borrow_and_update().clone();
        let (report, busy) = self.watcher.round(&plan).await;
        let differs = match &*self.reports.borrow() {
            None => true,
            Some(former) => former.differs_from(&report),
        };
        self.reports.send_replace(Some(report));
        if differs {
            let names = plan.names();
            let trigger = ObjectRef::new(names.store()).within(names.namespace());
            // Nobody listens any more when the controller ends.
            _ = self.triggers.send(trigger);
        }
        busy
    }
}
