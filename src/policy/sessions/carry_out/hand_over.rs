//! The sidecar that hands users over.

use super::{Work, old_nodes};
use crate::policy::sessions::cautions::too_old;
use crate::policy::sessions::{Sessions, Trouble, container, hand_over};
use crate::runtime::writer::{WriteError, classify};

impl Work<'_> {
    /// Makes pods with the sidecar the ones that run.
    pub(super) async fn hand_over(
        &self,
        drain_seconds: i32,
        sessions: &mut Sessions,
        next: &mut Option<String>,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let target = &self.validated.target;
        let nodes = old_nodes(self.tools.writer.client(), self.tools.memory)
            .await
            .map_err(classify)?;
        if let Some(trouble) = too_old(target, &nodes) {
            return Ok(Err(trouble));
        }
        let containers = match container::chosen(target, &self.wish.client.containers) {
            Ok(containers) => containers,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let wanted = hand_over::revision(self.validated, drain_seconds, &containers, self.tools.images);
        self.take(&wanted, sessions, next).await
    }
}
