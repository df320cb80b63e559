//! Where servers are: labels of pods, and the record on a StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::act::Surroundings;
use super::record::RECORD_ANNOTATION;
use super::{Member, Record};
use crate::runtime::writer::{WriteError, classify};
use crate::store::names::Names;
use crate::store::replication::pods;

/// Kubernetes around one store.
pub struct Kubernetes<'a> {
    /// Write side.
    pub client: &'a Client,
    /// Names of the store.
    pub names: &'a Names,
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
}
