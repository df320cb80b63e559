//! How many policies there are, and how many of them are ready.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::GuardedPolicy;
use super::status;
use crate::runtime::metrics::{Metrics, PolicyLabels};

/// Counts policies over all scopes, one at a time as they change.
pub struct Census {
    metrics: Metrics,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    policies: HashMap<String, PolicyLabels>,
    counts: HashMap<PolicyLabels, i64>,
}

impl Census {
    /// A census that publishes to `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            seen: Mutex::default(),
        }
    }

    /// Notes the present state of the policy `key` (namespace/name). One that cannot be read counts as not there.
    pub fn observe(&self, key: &str, policy: &GuardedPolicy) {
        self.update(key, policy.0.as_ref().ok().map(status::labels));
    }

    /// Notes that the policy `key` is gone.
    pub fn forget(&self, key: &str) {
        self.update(key, None);
    }

    fn update(&self, key: &str, labels: Option<PolicyLabels>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.policies.get(key) == labels.as_ref() {
            return;
        }
        if let Some(former) = seen.policies.remove(key) {
            *seen.counts.entry(former).or_default() -= 1;
            seen.counts.retain(|_, count| *count > 0);
        }
        if let Some(labels) = labels {
            *seen.counts.entry(labels.clone()).or_default() += 1;
            seen.policies.insert(key.to_owned(), labels);
        }
        self.metrics.set_policies(seen.counts.clone());
    }
}
