//! Where servers are: labels of pods, and the record on a StatefulSet.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::act::Surroundings;
use super::record::RECORD_ANNOTATION;
use super::{Member, Record};
use crate::runtime::writer::{WriteError, classify};
use crate::store::apply::delete;
use crate::store::names::Names;
use crate::store::replication::pods;

/// Kubernetes around one store.
pub struct Kubernetes<'a> {
    /// Write side.
    pub client: &'a Client,
    /// Names of the store.
    pub names: &'a Names,
    /// StatefulSets of the store, by name.
    pub sets: &'a BTreeMap<String, Arc<StatefulSet>>,
    /// Volume claims of the store, by name.
    pub claims: &'a BTreeMap<String, Arc<PersistentVolumeClaim>>,
}

impl Surroundings for Kubernetes<'_> {
    async fn record(&self, record: &Record) -> Result<(), WriteError> {
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), self.names.namespace());
        let text =
            serde_json::to_string(record).map_err(|error| WriteError::Api(kube::Error::SerdeError(error)))?;
        let patch = json!({"metadata": {"annotations": {RECORD_ANNOTATION: text}}});
        let params = PatchParams {
            field_manager: Some(pods::MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch_metadata(&self.names.shard(0), &params, &Patch::Merge(&patch))
            .await
            .map(|_| ())
            .map_err(classify)
    }

    async fn label(&self, member: &Member, role: &str) -> Result<(), WriteError> {
        pods::label(self.client, self.names, &member.name, &member.pod, role).await
    }

    async fn restart(&self, member: &Member) -> Result<(), WriteError> {
        pods::restart(self.client, self.names, &member.name, &member.pod).await
    }

    async fn remove(&self, shard: usize) -> Result<(), WriteError> {
        // First the servers: a claim that is in use stays until they have ended.
        if let Some(set) = self.sets.get(&self.names.shard(shard)) {
            delete(self.client, set.as_ref()).await?;
        }
        for (name, claim) in self.claims {
            let pod = name.strip_prefix("data-").and_then(|pod| self.names.place(pod));
            if pod.is_some_and(|(of, _)| of == shard) {
                delete(self.client, claim.as_ref()).await?;
            }
        }
        Ok(())
    }
}
