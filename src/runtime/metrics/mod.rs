//! Prometheus metrics of the operator, in the OpenMetrics text format.
//!
//! Labels are bounded: names of policies and users never become labels, and of stores only those with several servers.

mod api_requests;
mod reconcile;
mod stores;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub(crate) use api_requests::is_watch;
pub use api_requests::{ApiRequest, ApiRequestsLayer, ApiRequestsService, classify};
pub use reconcile::{InFlight, ReconcileMetrics, ReconcileResult};
pub use stores::{Load, MemberFacts, StoreMetrics};

use reconcile::ReconcileFamilies;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics. Clones share the same values.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    reconcile: ReconcileFamilies,
    api_requests: Family<ApiRequestLabels, Counter>,
    leader: Gauge,
    policies: Family<PolicyLabels, Gauge>,
    stores: StoreMetrics,
    /// What `policies` shows.
    shown_policies: Mutex<HashMap<PolicyLabels, i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiRequestLabels {
    verb: &'static str,
    resource: String,
    code: String,
}

/// Labels of `session_operator_policies`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Strategy as in the spec.
    pub strategy: String,
    /// Status of the condition Ready: True, False or Unknown.
    pub ready: String,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes and registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("session_operator");
        let reconcile = ReconcileFamilies::register(&mut registry);
        let api_requests = Family::default();
        registry.register(
            "api_requests",
            "Requests to the API server by verb, resource and HTTP status code (or error, timeout, not_leader)",
            api_requests.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this replica leads (1) and so is the one that writes",
            leader.clone(),
        );
        let policies = Family::default();
        registry.register(
            "policies",
            "SessionPolicies by strategy and by status of their Ready condition",
            policies.clone(),
        );
        let stores = StoreMetrics::register(&mut registry);
        // An info metric gets the suffix _info.
        registry.register(
            "build",
            "Version of the operator",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            inner: Arc::new(Inner {
                registry,
                reconcile,
                api_requests,
                leader,
                policies,
                stores,
                shown_policies: Mutex::default(),
            }),
        }
    }

    /// Metrics of the reconciles of one controller; `controller` is its name, such as `sessionpolicy`.
    pub fn reconcile(&self, controller: &'static str) -> ReconcileMetrics {
        self.inner.reconcile.of(controller)
    }

    /// Metrics of the servers of stores.
    pub fn stores(&self) -> StoreMetrics {
        self.inner.stores.clone()
    }

    /// Counts one request to the API server.
    fn api_request(&self, request: &ApiRequest, code: String) {
        let labels = ApiRequestLabels {
            verb: request.verb,
            resource: request.resource.clone(),
            code,
        };
        self.inner.api_requests.get_or_create(&labels).inc();
    }

    /// Sets the number of policies by strategy and readiness; combinations that are not given are dropped.
    pub fn set_policies(&self, counts: impl IntoIterator<Item = (PolicyLabels, i64)>) {
        let counts: HashMap<PolicyLabels, i64> = counts.into_iter().collect();
        let mut shown = self
            .inner
            .shown_policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (labels, count) in &counts {
            self.inner.policies.get_or_create(labels).set(*count);
        }
        for gone in shown.keys().filter(|labels| !counts.contains_key(labels)) {
            self.inner.policies.remove(gone);
        }
        *shown = counts;
    }

    /// The exposition text. `leading` is asked at the time of the scrape, as leadership also ends on its own.
    pub fn encode(&self, leading: bool) -> Result<String, fmt::Error> {
        self.inner.leader.set(i64::from(leading));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let metrics = Metrics::new();
        let reconcile = metrics.reconcile("sessionpolicy");
        reconcile.enqueued("web/shop");
        reconcile.start("web/shop").finish(ReconcileResult::Done);
        reconcile
            .start("web/shop")
            .finish(ReconcileResult::Error("ApiError"));
        metrics.api_request(
            &classify("GET", "/apis/apps/v1/deployments", None),
            "200".to_owned(),
        );
        metrics.set_policies([(
            PolicyLabels {
                strategy: "Sticky".into(),
                ready: "True".into(),
            },
            3,
        )]);

        let stores = metrics.stores();
        let member = |role| MemberFacts {
            member: "s-0".into(),
            role,
            offset: Some(14),
            lag: Some(0),
            volume_failing: Some(true),
        };
        stores.observe("web", "s", &[member("Replica")]);
        stores.observe("web", "s", &[member("Primary")]);
        stores.failed_over("web", "s", "PodLost");
        let load = Load {
            used: 5,
            max: 8,
            clients: 2,
            evicted: 0,
        };
        stores.tell("web", "s", true, Some(load));

        let text = metrics.encode(true).unwrap();
        for line in [
            "session_operator_store_ready{namespace=\"web\",store=\"s\"} 1",
            "session_operator_store_memory_used_bytes{namespace=\"web\",store=\"s\"} 5",
            "session_operator_store_memory_max_bytes{namespace=\"web\",store=\"s\"} 8",
            "session_operator_store_clients{namespace=\"web\",store=\"s\"} 2",
            "session_operator_store_evicted_keys{namespace=\"web\",store=\"s\"} 0",
            "session_operator_store_member_role{namespace=\"web\",store=\"s\",member=\"s-0\",role=\"Primary\"} 1",
            "session_operator_store_member_offset_bytes{namespace=\"web\",store=\"s\",member=\"s-0\"} 14",
            "session_operator_store_member_lag_bytes{namespace=\"web\",store=\"s\",member=\"s-0\"} 0",
            "session_operator_store_member_volume_failing{namespace=\"web\",store=\"s\",member=\"s-0\"} 1",
            "session_operator_store_failovers_total{namespace=\"web\",store=\"s\",cause=\"PodLost\"} 1",
            "session_operator_reconcile_total{controller=\"sessionpolicy\",result=\"done\"} 1",
            "session_operator_reconcile_total{controller=\"sessionpolicy\",result=\"error\"} 1",
            "session_operator_reconcile_errors_total{controller=\"sessionpolicy\",reason=\"ApiError\"} 1",
            "session_operator_reconcile_duration_seconds_count{controller=\"sessionpolicy\"} 2",
            "session_operator_reconcile_in_flight{controller=\"sessionpolicy\"} 0",
            "session_operator_queue_depth{controller=\"sessionpolicy\"} 0",
            "session_operator_leader 1",
            "session_operator_policies{strategy=\"Sticky\",ready=\"True\"} 3",
            "session_operator_api_requests_total{verb=\"list\",resource=\"apps/deployments\",code=\"200\"} 1",
            concat!(
                "session_operator_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("role=\"Replica\""), "it is that no more:\n{text}");
        stores.forget("web", "s");
        assert!(!metrics.encode(true).unwrap().contains("store=\"s\""));
    }

    #[test]
    fn leader_and_policies_follow() {
        let metrics = Metrics::new();
        assert!(
            metrics
                .encode(false)
                .unwrap()
                .contains("session_operator_leader 0\n")
        );
        assert!(
            metrics
                .encode(true)
                .unwrap()
                .contains("session_operator_leader 1\n")
        );
        let ready = |ready: &str| PolicyLabels {
            strategy: "Sticky".into(),
            ready: ready.into(),
        };
        metrics.set_policies([(ready("True"), 1), (ready("False"), 1)]);
        metrics.set_policies([(ready("True"), 2)]);
        let text = metrics.encode(true).unwrap();
        assert!(text.contains("session_operator_policies{strategy=\"Sticky\",ready=\"True\"} 2\n"));
        assert!(
            !text.contains("ready=\"False\""),
            "a combination without policies is not shown:\n{text}"
        );
    }
}
