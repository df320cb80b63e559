//! How many policies there are, and how many of them are ready.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::caches::{Caches, Scope};
use super::status;
use crate::runtime::metrics::{Metrics, PolicyLabels};

/// Counts policies over all scopes for the gauge `policies`.
#[derive(Default)]
pub struct Census {
    scopes: Mutex<BTreeMap<String, HashMap<PolicyLabels, i64>>>,
}

impl Census {
    /// Counts the policies of one scope anew and publishes the sum of all.
    pub fn count(&self, scope: &Scope, caches: &Caches, metrics: &Metrics) {
        let mut counts: HashMap<PolicyLabels, i64> = HashMap::new();
        for policy in caches.policies.state() {
            if let Ok(policy) = &policy.0 {
                *counts.entry(status::labels(policy)).or_default() += 1;
            }
        }
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.insert(scope.to_string(), counts);
        let mut totals: HashMap<PolicyLabels, i64> = HashMap::new();
        for (labels, count) in scopes.values().flatten() {
            *totals.entry(labels.clone()).or_default() += count;
        }
        metrics.set_policies(totals);
    }
}
