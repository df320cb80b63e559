//! The binding Secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Work, suspended};
use crate::api::conditions::reasons;
use crate::policy::sessions::sidecar::UPSTREAM_URL_KEY;
use crate::policy::sessions::source::Source;
use crate::policy::sessions::{Sessions, Trouble, binding, names};
use crate::runtime::writer::{WriteError, classify};

impl Work<'_> {
    /// Writes the binding Secret where it differs; gives its resourceVersion.
    pub(super) async fn binding(
        &self,
        name: &str,
        source: &Source,
        sessions: &mut Sessions,
    ) -> Result<Result<String, Trouble>, WriteError> {
        let data = binding::data(
            &source.endpoint,
            source.ca.as_deref(),
            self.preset,
            self.wish.ttl_seconds,
        );
        let kind = binding::secret_type(source.endpoint.engine);
        self.own_secret(name, &kind, data, sessions).await
    }

    /// Writes the Secret that tells sidecars of a store, where it differs.
    pub(super) async fn upstream(
        &self,
        source: &Source,
        sessions: &mut Sessions,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let mut data = BTreeMap::from([(UPSTREAM_URL_KEY.to_owned(), binding::uri(&source.endpoint))]);
        if let Some(ca) = &source.ca {
            data.insert(binding::CA_KEY.to_owned(), ca.clone());
        }
        let name = names::upstream(&self.validated.name);
        let written = self.own_secret(&name, "Opaque", data, sessions).await?;
        Ok(written.map(|_version| ()))
    }

    /// Writes a Secret of the policy where it differs; gives its resourceVersion.
    async fn own_secret(
        &self,
        name: &str,
        kind: &str,
        data: BTreeMap<String, String>,
        sessions: &mut Sessions,
    ) -> Result<Result<String, Trouble>, WriteError> {
        let standing = self.secret(name).await?;
        if let Some(secret) = &standing {
            if !names::is_of(&secret.metadata, &self.validated.name) {
                return Ok(Err(Trouble::new(
                    reasons::FIELD_CONFLICT,
                    format!(
                        "Secret {name} exists and is not the operator's; rename it, or rename the policy"
                    ),
                )));
            }
            let stands: BTreeMap<&str, &[u8]> = secret
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.as_str(), value.0.as_slice()))
                .collect();
            let wanted = data.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
            if stands == wanted.collect() && self.is_ours(&secret.metadata) {
                return Ok(Ok(secret.resource_version().unwrap_or_default()));
            }
        }
        if self.validated.suspended {
            return Ok(Err(suspended("its Secrets are not written")));
        }
        let api: Api<Secret> = self.api();
        let meta = names::metadata(self.validated, name.to_owned());
        let written = if let Some(standing) = standing {
            let gone = standing.data.into_iter().flatten().map(|(key, _)| key);
            let gone: BTreeMap<String, Option<()>> = gone
                .filter(|key| !data.contains_key(key))
                .map(|key| (key, None))
                .collect();
            let body = json!({
                "metadata": {
                    "resourceVersion": standing.metadata.resource_version,
                    "labels": meta.labels,
                    "annotations": meta.annotations,
                },
                "data": gone,
                "stringData": data,
            });
            api.patch(name, &PatchParams::default(), &Patch::Merge(&body))
                .await
        } else {
            let secret = Secret {
                metadata: meta,
                type_: Some(kind.to_owned()),
                string_data: Some(data),
                ..Secret::default()
            };
            api.create(&PostParams::default(), &secret).await
        };
        let written = written.map_err(classify)?;
        sessions.changed.push(format!("Secret/{name}"));
        Ok(Ok(written.resource_version().unwrap_or_default()))
    }
}
