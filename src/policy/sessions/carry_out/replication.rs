//! Asks the sidecars how they do.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Work;
use crate::api::INJECTION_LABEL;
use crate::policy::sessions::members::Members;
use crate::policy::sessions::replication::{Seen, sum_up};
use crate::policy::sessions::{Sessions, peers, pods};
use crate::policy::validate::Kept;
use crate::runtime::writer::WriteError;

/// Sidecars are asked this often at most, and again after this long while something is wrong with them.
pub(super) const ASK_PERIOD: Duration = Duration::from_secs(20);

impl Work<'_> {
    /// What the sidecars of a policy whose sessions are in the pods say; nothing while pods are being replaced.
    pub(super) async fn replication(
        &self,
        sessions: &mut Sessions,
        count: &pods::Count,
    ) -> Result<(), WriteError> {
        let Kept::Replicated(wish) = &self.wish.kept else {
            return Ok(());
        };
        let settled =
            pods::is_rolled_out(&self.validated.target) && count.total > 0 && count.injected == count.total;
        if !settled {
            sessions.replication.clone_from(&self.known);
            return Ok(());
        }
        let mut pods: Vec<&Pod> = self
            .found
            .pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| pod.labels().get(INJECTION_LABEL) == sessions.mark.as_ref())
            .collect();
        pods.sort_unstable_by_key(|pod| pod.name_any());
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        let memory = self.tools.memory;
        let seen = if let Some(seen) = memory.asked(&self.validated.uid, &names) {
            seen
        } else {
            let Some(seen) = self.ask(&pods).await? else {
                sessions.replication.clone_from(&self.known);
                return Ok(());
            };
            memory.remember_asked(&self.validated.uid, &seen);
            seen
        };
        let (replication, judged) = sum_up(wish, &seen, self.known.as_ref());
        if judged.is_err() {
            sessions.retry_after = Some(sessions.retry_after.unwrap_or(ASK_PERIOD).min(ASK_PERIOD));
        }
        sessions.replication = Some(replication);
        sessions.replicating = Some(judged);
        Ok(())
    }

    async fn ask(&self, pods: &[&Pod]) -> Result<Option<Vec<Seen>>, WriteError> {
        let Some(secret) = self.secret(&peers::name(&self.validated.name)).await? else {
            return Ok(None);
        };
        let identity = peers::identity(&self.validated.name, &self.validated.namespace);
        let Ok(members) = Members::new(&secret, &identity) else {
            return Ok(None);
        };
        let asked = pods.iter().map(async |pod| {
            let name = pod.name_any();
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let said = match address {
                Some(address) => members.state(&address).await,
                None => Err("the pod has no address".to_owned()),
            };
            let sent = said.as_ref().ok().map(|member| member.sent_bytes);
            Seen {
                rate: sent.and_then(|sent| self.tools.memory.rate(&self.validated.uid, &name, sent)),
                pod: name,
                said,
            }
        });
        Ok(Some(futures::future::join_all(asked).await))
    }
}

/// What the sidecars of one policy said, and when.
pub(super) struct Asked {
    at: Instant,
    seen: Vec<Seen>,
}

impl Asked {
    pub(super) fn new(seen: &[Seen]) -> Self {
        Self {
            at: Instant::now(),
            seen: seen.to_vec(),
        }
    }

    /// What was said, if it was said lately and by these pods.
    pub(super) fn fresh(&self, pods: &[String]) -> Option<Vec<Seen>> {
        let same = self.seen.iter().map(|seen| &seen.pod).eq(pods);
        (same && self.at.elapsed() < ASK_PERIOD).then(|| self.seen.clone())
    }

    /// Whether nobody asks any more.
    pub(super) fn is_old(&self) -> bool {
        self.at.elapsed() > 10 * ASK_PERIOD
    }

    /// Bytes per second that a pod has sent since then.
    pub(super) fn rate(&self, pod: &str, sent: u64) -> Option<u64> {
        let before = self.seen.iter().find(|seen| seen.pod == pod)?;
        let before = before.said.as_ref().ok()?.sent_bytes;
        let seconds = self.at.elapsed().as_secs().max(1);
        Some(sent.checked_sub(before)? / seconds)
    }
}
