//! What has to outlive the operator: which server was last made primary. Kept on the StatefulSet, which stays with the data
//! when a store is deleted and retained.

use k8s_openapi::api::apps::v1::StatefulSet;
use serde::{Deserialize, Serialize};

use crate::api::session_store::Failover;

/// Annotation with the record.
pub const RECORD_ANNOTATION: &str = "session-operator.dev/replication";

/// What was recorded. A store that never had a primary has none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// How often a server was made primary.
    pub epoch: i64,
    /// The server that was last made primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Uid of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Name of its history of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// The last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
}

impl Record {
    /// Reads it. What somebody else wrote there counts as nothing recorded: then nobody is taken for new who has data.
    pub fn of(set: &StatefulSet) -> Self {
        let annotations = set.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(RECORD_ANNOTATION))
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Whether a server was ever made primary.
    pub fn is_initialised(&self) -> bool {
        self.epoch > 0
    }
}
