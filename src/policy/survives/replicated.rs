//! Sessions in the pods, copied between them: what each event means for them.

use super::{Row, reasons};
use crate::api::session_policy::ReplicationMode;
use crate::api::{Event, Outcome};
use crate::policy::sessions::cautions::Cautions;

/// What is known of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods<'a> {
    /// Which of them hold a session.
    pub mode: ReplicationMode,
    /// Copies beside the first (mode Backup).
    pub backups: i32,
    /// Whether a write is confirmed before another pod has it.
    pub confirmed_alone: bool,
    /// Nodes that they run on.
    pub nodes: usize,
    /// How many there are to be.
    pub replicas: i32,
    /// What to know besides.
    pub cautions: &'a Cautions,
    /// Whether a webhook in the operator injects.
    pub webhook: bool,
}

impl Pods<'_> {
    /// The row of an event.
    pub fn row(self, event: Event) -> Row {
        match event {
            Event::ContainerRestart | Event::PodLoss => self.crash(),
            Event::RollingUpdate => (
                Outcome::Kept,
                reasons::HANDED_OVER,
                "each pod hands its sessions to the others before it ends, and a new one serves once it has them".to_owned(),
            ),
            Event::ScaleUp => (
                Outcome::Kept,
                reasons::REPLICATED,
                "a new pod serves once it has the sessions that it is to hold".to_owned(),
            ),
            Event::ScaleDown if self.replicas <= 1 => (
                Outcome::NotApplicable,
                reasons::SINGLE_REPLICA,
                "the target has one replica; removing it is ScaleToZero".to_owned(),
            ),
            Event::ScaleDown => (
                Outcome::Kept,
                reasons::HANDED_OVER,
                "a removed pod hands its sessions to the others before it ends".to_owned(),
            ),
            Event::ScaleToZero => (
                Outcome::Lost,
                reasons::ALL_PODS_REMOVED,
                with(
                    "sessions are in the pods only: all end with the last pod",
                    self.cautions.to_zero.as_ref(),
                ),
            ),
            Event::NodeLoss => {
                let (outcome, reason, message) = self.node_loss();
                (outcome, reason, with(&message, self.cautions.drains.as_ref()))
            }
            Event::StoreRestart | Event::StoreLoss => (
                Outcome::NotApplicable,
                reasons::NO_STORE,
                "sessions are in the pods, and no pod uses a session store".to_owned(),
            ),
            Event::OperatorDown if self.webhook => (
                Outcome::Partly,
                reasons::WEBHOOK_NEEDED,
                "sessions are kept, but while no replica of the operator runs, pods that should have the sidecar cannot start: \
                 admission of them fails"
                    .to_owned(),
            ),
            Event::OperatorDown => (
                Outcome::Kept,
                reasons::REPLICATED,
                "the sidecars need no operator; new pods get theirs from the admission policy".to_owned(),
            ),
        }
    }

    fn crash(self) -> Row {
        if self.replicas <= 1 {
            return (
                Outcome::Lost,
                reasons::ONLY_POD,
                "the only pod has every session: a crash loses all of them, while a deletion in order hands over to the pod \
                 that replaces it only if that one is ready before"
                    .to_owned(),
            );
        }
        let holders = match self.mode {
            ReplicationMode::All => "every other pod has a copy of each session".to_owned(),
            ReplicationMode::Backup => format!("{} other pods have a copy of each session", self.backups),
        };
        if self.confirmed_alone {
            return (
                Outcome::Partly,
                reasons::CONFIRMED_BEFORE_COPIED,
                format!(
                    "{holders}; a pod that is deleted hands over first, one that crashes may take along what it confirmed in its \
                     last milliseconds: spec.replicated.acknowledge One waits for a copy"
                ),
            );
        }
        (
            Outcome::Kept,
            reasons::REPLICATED,
            format!("{holders}, also of what was confirmed last"),
        )
    }

    fn node_loss(self) -> Row {
        if self.replicas <= 1 {
            return self.crash();
        }
        if self.nodes <= 1 {
            return (
                Outcome::Lost,
                reasons::PODS_SHARE_NODE,
                format!(
                    "all {} pods run on one node, and all sessions are lost with it; spread them with topologySpreadConstraints",
                    self.replicas
                ),
            );
        }
        if self.mode == ReplicationMode::Backup && usize::try_from(self.backups).unwrap_or(0) >= self.nodes {
            return (
                Outcome::Partly,
                reasons::PODS_SHARE_NODE,
                format!(
                    "the pods run on {} nodes, fewer than the {} copies of each session: some copies share a node",
                    self.nodes,
                    self.backups + 1
                ),
            );
        }
        self.crash()
    }
}

/// A sentence, and what to know besides.
fn with(message: &str, caution: Option<&String>) -> String {
    caution.map_or_else(|| message.to_owned(), |caution| format!("{message}; {caution}"))
}
