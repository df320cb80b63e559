//! What has to outlive the operator: that there was a cluster, and who last was primary of each shard. Kept on the StatefulSet of
//! the first shard, which stays with the data when a store is deleted and retained.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use serde::{Deserialize, Serialize};

use crate::api::session_store::{ClusterLoss, Failover};

/// Annotation with the record.
pub const RECORD_ANNOTATION: &str = "session-operator.dev/cluster";

/// What was recorded. A store that never was a cluster has none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// How often something was recorded: of two records the newer one has more.
    pub version: i64,
    /// Whether all slots ever had a primary.
    pub formed: bool,
    /// The pod that is primary, by shard.
    pub primaries: BTreeMap<usize, String>,
    /// How many shards share the slots, evenly.
    pub shards: usize,
    /// The last change of the primary of a shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// The last time that sessions were lost with all servers that had them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_loss: Option<ClusterLoss>,
}

impl Record {
    /// Reads it. What somebody else wrote there counts as nothing recorded.
    pub fn of(set: &StatefulSet) -> Self {
        let annotations = set.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(RECORD_ANNOTATION))
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}
