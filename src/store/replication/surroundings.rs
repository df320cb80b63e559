//! Where servers are: labels and pods, where the Service leads, and the record on the StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::act::Surroundings;
use super::record::RECORD_ANNOTATION;
use super::{Member, Record, pods};
use crate::runtime::writer::{WriteError, classify};
use crate::store::names::{Names, ROLE_LABEL};

/// Kubernetes around one store.
pub struct Kubernetes<'a> {
    /// Write side.
    pub client: &'a Client,
    /// Names of the store.
    pub names: &'a Names,
    /// Uid of the store's Service, if there is one.
    pub service: Option<&'a str>,
}

impl Kubernetes<'_> {
    fn params() -> PatchParams {
        PatchParams {
            field_manager: Some(pods::MANAGER.to_owned()),
            ..PatchParams::default()
        }
    }
}

impl Surroundings for Kubernetes<'_> {
    async fn record(&self, record: &Record) -> Result<(), WriteError> {
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), self.names.namespace());
        let text =
            serde_json::to_string(record).map_err(|error| WriteError::Api(kube::Error::SerdeError(error)))?;
        let patch = json!({"metadata": {"annotations": {RECORD_ANNOTATION: text}}});
        api.patch_metadata(self.names.store(), &Self::params(), &Patch::Merge(&patch))
            .await
            .map(|_| ())
            .map_err(classify)
    }

    async fn label(&self, member: &Member, role: &str) -> Result<(), WriteError> {
        pods::label(self.client, self.names, &member.name, &member.pod, role).await
    }

    async fn lead(&self, member: &Member) -> Result<(), WriteError> {
        // It is made with the store; the next look finds it.
        let Some(uid) = self.service else { return Ok(()) };
        let api: Api<Service> = Api::namespaced(self.client.clone(), self.names.namespace());
        let mut selector = json!(self.names.led_to(&member.name));
        if let Some(selector) = selector.as_object_mut() {
            selector.insert(ROLE_LABEL.to_owned(), serde_json::Value::Null);
        }
        let patch = json!({"metadata": {"uid": uid}, "spec": {"selector": selector}});
        match api
            .patch(self.names.store(), &Self::params(), &Patch::Merge(&patch))
            .await
            .map_err(classify)
        {
            Ok(_) | Err(WriteError::Conflict(_) | WriteError::Changed | WriteError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn restart(&self, member: &Member) -> Result<(), WriteError> {
        pods::restart(self.client, self.names, &member.name, &member.pod).await
    }
}
