//! Keeps the certificate that is served, the Secret and the webhook's configuration in step.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::keys::{KeyError, Keys, Pair, Timing};
use super::server::ServingKey;
use crate::api::FIELD_MANAGER;
use crate::runtime::client::explain;
use crate::runtime::http::Awaited;
use crate::runtime::leader::Leadership;

/// Key of the Secret's data.
const DATA_KEY: &str = "keys.json";

/// Pause between looks until there is a certificate: the first replica makes it as soon as it leads.
const FIRST_PERIOD: Duration = Duration::from_millis(500);

/// Limit of one pass, a few small requests.
const PASS_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a pass did not come to its end. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Secret {0} cannot be read or written: {1}")]
    Secret(String, String),
    #[error("Secret {0} holds no keys yet; the leader makes them")]
    NoKeys(String),
    #[error("MutatingWebhookConfiguration {0} cannot be read or written: {1}")]
    Configuration(String, String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("no end within {} s", PASS_TIMEOUT.as_secs())]
    Timeout,
}

/// What a replica needs for it.
pub struct Rotation {
    pub client: Client,
    pub leadership: Leadership,
    pub namespace: String,
    pub secret: String,
    pub configuration: String,
    pub names: Vec<String>,
    pub timing: Timing,
    pub key: Arc<ServingKey>,
}

/// What a replica remembers between passes.
#[derive(Default)]
struct Memory {
    /// The keys as last read or written.
    keys: Option<Keys>,
    /// Since when the configuration is known to hold their authorities.
    trusted_since: Option<Timestamp>,
}

impl Rotation {
    /// Passes for ever. `awaited` arrives with the first certificate, or when it is known that there is none yet: the
    /// leader makes it, and may be a replica of an older revision that knows nothing of a webhook and only goes once this
    /// one is ready.
    pub async fn run(self, awaited: Awaited) -> Infallible {
        let mut awaited = Some(awaited);
        let mut memory = Memory::default();
        loop {
            let pass = timeout(PASS_TIMEOUT, self.pass(&mut memory)).await;
            let pass = pass.unwrap_or(Err(Error::Timeout));
            let is_known = memory.keys.is_some() || matches!(pass, Err(Error::NoKeys(_)));
            match pass {
                Ok(()) => {}
                Err(error @ Error::NoKeys(_)) => tracing::debug!(%error, "no certificate for the webhook"),
                Err(error) => tracing::warn!(%error, "certificate of the webhook: tried again"),
            }
            if is_known && let Some(awaited) = awaited.take() {
                awaited.arrived();
            }
            let has_keys = memory.keys.is_some();
            tokio::time::sleep(if has_keys {
                self.timing.period
            } else {
                FIRST_PERIOD
            })
            .await;
        }
    }

    /// Serves with what the Secret says; the leader also sees to the Secret and the configuration.
    async fn pass(&self, memory: &mut Memory) -> Result<(), Error> {
        let secret = self.read().await?;
        let stored = secret.as_ref().and_then(|secret| self.keys_in(secret));
        let keys = match stored {
            Some(keys) => keys,
            None if self.leadership.is_leader() => {
                // A Secret that was deleted or damaged becomes again what it was: API servers trust that.
                let keys = match memory.keys.clone() {
                    Some(keys) => keys,
                    None => Keys::first(Pair::make(&self.names, Timestamp::now(), self.timing.life)?),
                };
                self.write(secret.as_ref(), &keys).await?;
                keys
            }
            None => return Err(Error::NoKeys(self.secret_name())),
        };
        self.serve_with(memory, keys)?;
        if self.leadership.is_leader() {
            self.lead(memory).await?;
        } else {
            memory.trusted_since = None;
        }
        Ok(())
    }

    /// The leader's part, once a certificate is served.
    async fn lead(&self, memory: &mut Memory) -> Result<(), Error> {
        let Some(keys) = memory.keys.clone() else {
            return Ok(());
        };
        self.trust(&keys.authorities(), memory).await?;
        let now = Timestamp::now();
        if let Some(advanced) = keys.advanced(&self.names, now, memory.trusted_since, &self.timing)? {
            // Read again: the write must fail if another replica has been faster.
            let secret = self.read().await?;
            if secret.as_ref().and_then(|secret| self.keys_in(secret)).as_ref() != Some(&keys) {
                return Ok(());
            }
            self.write(secret.as_ref(), &advanced).await?;
            tracing::info!(expires = %advanced.current.expires(), "certificate of the webhook: next step of its replacement");
            let authorities = advanced.authorities();
            self.serve_with(memory, advanced)?;
            self.trust(&authorities, memory).await?;
        }
        Ok(())
    }

    fn serve_with(&self, memory: &mut Memory, keys: Keys) -> Result<(), Error> {
        let before = memory.keys.as_ref();
        if before.is_none_or(|before| before.current != keys.current) {
            self.key.set(keys.current.certified()?);
            tracing::info!(expires = %keys.current.expires(), "the webhook serves with another certificate");
        }
        if before.is_none_or(|before| before.authorities() != keys.authorities()) {
            memory.trusted_since = None;
        }
        memory.keys = Some(keys);
        Ok(())
    }

    /// Makes the configuration hold these authorities.
    async fn trust(&self, authorities: &str, memory: &mut Memory) -> Result<(), Error> {
        let failed = |error: kube::Error| Error::Configuration(self.configuration.clone(), explain(&error));
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let live = configurations.get(&self.configuration).await.map_err(failed)?;
        let webhooks = live.webhooks.as_deref().unwrap_or_default();
        let lacking: Vec<&str> = webhooks
            .iter()
            .filter(|webhook| {
                let bundle = webhook.client_config.ca_bundle.as_ref();
                bundle.is_none_or(|bundle| bundle.0 != authorities.as_bytes())
            })
            .map(|webhook| webhook.name.as_str())
            .collect();
        if !lacking.is_empty() {
            memory.trusted_since = None;
            let bundle = ByteString(authorities.as_bytes().to_vec());
            let webhooks: Vec<_> = webhooks
                .iter()
                .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
                .collect();
            // With the uid, so that a configuration that was deleted meanwhile is not made again.
            let change = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": self.configuration, "uid": live.uid()},
                "webhooks": webhooks,
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            configurations
                .patch(&self.configuration, &params, &Patch::Apply(change))
                .await
                .map_err(failed)?;
            tracing::info!(
                configuration = self.configuration,
                "authority of the webhook written"
            );
        }
        memory.trusted_since.get_or_insert_with(Timestamp::now);
        Ok(())
    }

    async fn read(&self) -> Result<Option<Secret>, Error> {
        self.secrets()
            .get_opt(&self.secret)
            .await
            .map_err(|error| self.failed(&error))
    }

    /// The keys in a Secret; damaged ones count as none.
    fn keys_in(&self, secret: &Secret) -> Option<Keys> {
        let data = secret.data.as_ref()?.get(DATA_KEY)?;
        let keys: Keys = serde_json::from_slice(&data.0)
            .inspect_err(|error| {
                tracing::error!(secret = self.secret_name(), %error, "the key of the webhook is damaged");
            })
            .ok()?;
        keys.current
            .certified()
            .inspect_err(|error| {
                tracing::error!(secret = self.secret_name(), %error, "the key of the webhook is damaged");
            })
            .ok()?;
        Some(keys)
    }

    /// Writes the keys into the Secret that was read, or into a new one.
    async fn write(&self, read: Option<&Secret>, keys: &Keys) -> Result<(), Error> {
        let text =
            serde_json::to_vec(keys).map_err(|error| Error::Secret(self.secret_name(), error.to_string()))?;
        let data = BTreeMap::from([(DATA_KEY.to_owned(), ByteString(text))]);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match read {
            Some(read) => {
                let secret = Secret {
                    data: Some(data),
                    ..read.clone()
                };
                self.secrets().replace(&self.secret, &params, &secret).await
            }
            None => self.secrets().create(&params, &self.new_secret(data)).await,
        };
        written.map(drop).map_err(|error| self.failed(&error))
    }

    fn new_secret(&self, data: BTreeMap<String, ByteString>) -> Secret {
        let labels = [
            ("app.kubernetes.io/part-of", "session-operator"),
            ("app.kubernetes.io/managed-by", "session-operator"),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(
                    labels
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secret_name(&self) -> String {
        format!("{}/{}", self.namespace, self.secret)
    }

    fn failed(&self, error: &kube::Error) -> Error {
        Error::Secret(self.secret_name(), explain(error))
    }
}
