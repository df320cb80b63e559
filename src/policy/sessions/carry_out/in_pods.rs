//! The sidecars.

use k8s_openapi::api::core::v1::PodSpec;

use super::Work;
use crate::api::session_policy::Replicated;
use crate::policy::sessions::Trouble;
use crate::policy::sessions::in_pods::InPods;
use crate::policy::sessions::sidecar::{Sidecar, Upstream};
use crate::policy::sessions::source::Source;
use crate::runtime::writer::WriteError;

impl Work<'_> {
    /// The sidecars, set up as far as that is possible without pods.
    pub(super) async fn in_pods(&self, wish: &Replicated) -> Result<Result<Source, Trouble>, WriteError> {
        InPods {
            writer: self.tools.writer,
            memory: self.tools.memory,
            validated: self.validated,
            found: self.found,
            wish,
            bound_to_pods: self.tools.bound_to_pods,
        }
        .set_up()
        .await
    }

    /// What the sidecar of a pod is made from.
    pub(super) fn sidecar<'a>(
        &'a self,
        wish: &'a Replicated,
        upstream: Option<Upstream<'a>>,
        pod: &'a PodSpec,
    ) -> Sidecar<'a> {
        let spec = self.validated.target.spec.as_ref();
        Sidecar {
            policy: &self.validated.name,
            namespace: &self.validated.namespace,
            wish,
            image: &self.tools.images.replicator,
            pull_policy: self.tools.images.pull_policy.as_deref(),
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            bound_to_pods: self.tools.bound_to_pods,
            drain_seconds: self
                .validated
                .sticky
                .as_ref()
                .map_or(0, |sticky| sticky.drain_seconds),
            upstream,
            pod,
        }
    }
}
