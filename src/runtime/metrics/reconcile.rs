//! Metrics of reconciles: how many, how they ended, how long they took, how many wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds in seconds. A reconcile with nothing to write takes milliseconds; its limit is 60 s.
const DURATION_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    controller: &'static str,
    reason: &'static str,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileResult {
    /// Everything is as it should be.
    Done,
    /// Something has to happen elsewhere first.
    Waiting,
    /// It failed; the reason is that of the condition.
    Error(&'static str),
    /// It was given up before its end (shutdown, loss of leadership).
    Abandoned,
}

impl ReconcileResult {
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::Error(_) => "error",
            Self::Abandoned => "abandoned",
        }
    }
}

type DurationFamily = Family<ControllerLabels, Histogram, fn() -> Histogram>;

/// The registered families of all controllers.
#[derive(Clone)]
pub(super) struct ReconcileFamilies {
    total: Family<ResultLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    duration: DurationFamily,
    in_flight: Family<ControllerLabels, Gauge>,
    queue_depth: Family<ControllerLabels, Gauge>,
}

impl ReconcileFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            total: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            in_flight: Family::default(),
            queue_depth: Family::default(),
        };
        registry.register(
            "reconcile",
            "Finished reconciles by result",
            families.total.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciles by reason",
            families.errors.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciles in seconds",
            families.duration.clone(),
        );
        registry.register(
            "reconcile_in_flight",
            "Reconciles that run now",
            families.in_flight.clone(),
        );
        registry.register(
            "queue_depth",
            "Objects that were triggered by a watch event and are not being reconciled yet",
            families.queue_depth.clone(),
        );
        families
    }

    pub(super) fn of(&self, controller: &'static str) -> ReconcileMetrics {
        let labels = ControllerLabels { controller };
        ReconcileMetrics {
            controller,
            total: self.total.clone(),
            errors: self.errors.clone(),
            duration: self.duration.get_or_create_owned(&labels),
            in_flight: self.in_flight.get_or_create_owned(&labels),
            queue_depth: self.queue_depth.get_or_create_owned(&labels),
            waiting: Arc::default(),
        }
    }
}

/// Metrics of the reconciles of one controller. Clones share the same values.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    controller: &'static str,
    total: Family<ResultLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    duration: Histogram,
    in_flight: Gauge,
    queue_depth: Gauge,
    /// Keys of triggered objects. kube's scheduler holds each object once, too, but does not tell how many.
    waiting: Arc<Mutex<HashSet<String>>>,
}

impl ReconcileMetrics {
    /// Notes that a watch event has triggered the object `key` (namespace/name). Retries after a delay are not noted.
    pub fn enqueued(&self, key: &str) {
        self.update_waiting(|waiting| {
            waiting.insert(key.to_owned());
        });
    }

    /// Forgets the object `key`: it is gone, and will not be reconciled.
    pub fn dropped(&self, key: &str) {
        self.update_waiting(|waiting| {
            waiting.remove(key);
        });
    }

    /// Begins a reconcile of the object `key`.
    pub fn start(&self, key: &str) -> InFlight {
        self.dropped(key);
        self.in_flight.inc();
        InFlight {
            metrics: self.clone(),
            started: Instant::now(),
            result: ReconcileResult::Abandoned,
        }
    }

    fn update_waiting(&self, change: impl FnOnce(&mut HashSet<String>)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut waiting);
        self.queue_depth
            .set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
    }
}

/// A reconcile that runs. Dropped without [`InFlight::finish`] it counts as abandoned.
#[derive(Debug)]
#[must_use = "a reconcile counts until this is dropped"]
pub struct InFlight {
    metrics: ReconcileMetrics,
    started: Instant,
    result: ReconcileResult,
}

impl InFlight {
    /// Ends the reconcile.
    pub fn finish(mut self, result: ReconcileResult) {
        self.result = result;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let controller = self.metrics.controller;
        self.metrics.in_flight.dec();
        self.metrics
            .duration
            .observe(self.started.elapsed().as_secs_f64());
        self.metrics
            .total
            .get_or_create(&ResultLabels {
                controller,
                result: self.result.label(),
            })
            .inc();
        if let ReconcileResult::Error(reason) = self.result {
            self.metrics
                .errors
                .get_or_create(&ReasonLabels { controller, reason })
                .inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn depth_counts_each_waiting_object_once() {
        let reconcile = Metrics::new().reconcile("sessionpolicy");
        reconcile.enqueued("web/shop");
        reconcile.enqueued("web/shop");
        reconcile.enqueued("web/blog");
        assert_eq!(reconcile.queue_depth.get(), 2);
        let running = reconcile.start("web/shop");
        assert_eq!((reconcile.queue_depth.get(), reconcile.in_flight.get()), (1, 1));
        reconcile.enqueued("web/shop");
        assert_eq!(reconcile.queue_depth.get(), 2, "triggered again while it runs");
        reconcile.dropped("web/blog");
        running.finish(ReconcileResult::Waiting);
        assert_eq!((reconcile.queue_depth.get(), reconcile.in_flight.get()), (1, 0));
    }

    #[test]
    fn a_dropped_reconcile_is_abandoned() {
        let metrics = Metrics::new();
        drop(metrics.reconcile("sessionpolicy").start("web/shop"));
        let text = metrics.encode(false).unwrap();
        assert!(
            text.contains(
                "session_operator_reconcile_total{controller=\"sessionpolicy\",result=\"abandoned\"} 1\n"
            ),
            "{text}"
        );
    }
}
