//! The store: what a SessionStore, or a Secret of the user, says of it.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Work;
use crate::api::conditions::reasons;
use crate::api::session_policy::Shared;
use crate::api::session_store::Engine;
use crate::api::{SessionStore, SessionStoreSpec};
use crate::policy::sessions::source::{self, Place, Source};
use crate::policy::sessions::{Trouble, names};
use crate::runtime::writer::{WriteError, classify};
use crate::store::client::{self, Reached};

impl Work<'_> {
    /// The store and how it is reached.
    pub(super) async fn store_source(&self, shared: &Shared) -> Result<Result<Source, Trouble>, WriteError> {
        match source::place(&self.validated.name, shared) {
            Place::External { secret, key_prefix } => {
                let Some(found) = self.secret(&secret).await? else {
                    return Ok(Err(source::secret_missing(
                        &secret,
                        "create it with the keys host, port, username, password and ca.crt as they apply",
                    )));
                };
                match source::external(&found, &key_prefix) {
                    Ok(source) => Ok(self.checked(source, &found).await),
                    Err(trouble) => Ok(Err(trouble)),
                }
            }
            Place::Store { name, key_prefix } => {
                if let Some(wanted) = &shared.store
                    && let Err(trouble) = self.own_store(&name, wanted).await?
                {
                    return Ok(Err(trouble));
                }
                let store = self.found.stores.iter().find(|store| store.name_any() == name);
                let (store, access) = match source::access(&name, &key_prefix, store) {
                    Ok(found) => found,
                    Err(trouble) => return Ok(Err(trouble)),
                };
                let mut secrets = [None, None];
                for (secret, named) in secrets.iter_mut().zip([&access.user_secret, &access.ca_secret]) {
                    let Some(named) = named else { continue };
                    *secret = self.secret(named).await?;
                    if secret.is_none() {
                        return Ok(Err(source::secret_missing(
                            named,
                            "the operator makes it anew within a minute",
                        )));
                    }
                }
                let [user, ca] = &secrets;
                Ok(source::of_store(
                    store,
                    &access,
                    &key_prefix,
                    user.as_ref(),
                    ca.as_ref(),
                ))
            }
        }
    }

    /// The external store, if it does for the operator what it has to do for the application; asked now and then, and
    /// whenever its Secret changes.
    pub(super) async fn checked(&self, mut source: Source, secret: &Secret) -> Result<Source, Trouble> {
        let key = format!(
            "{}/{} {}",
            self.validated.namespace,
            self.validated.name,
            secret.resource_version().unwrap_or_default()
        );
        let reached = if let Some(reached) = self.tools.memory.reached(&key) {
            reached?
        } else {
            let reached = probe(&source).await;
            self.tools.memory.remember_reached(&key, &reached);
            reached?
        };
        source.endpoint.engine = reached.engine;
        source.endpoint.cluster |= reached.cluster;
        source.lists = reached.lists;
        Ok(source)
    }

    /// The SessionStore that is the policy's own.
    pub(super) async fn own_store(
        &self,
        name: &str,
        wanted: &SessionStoreSpec,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let standing = self.found.stores.iter().find(|store| store.name_any() == name);
        if let Some(store) = standing {
            if !names::is_of(&store.metadata, &self.validated.name) {
                return Ok(Err(Trouble::new(
                    reasons::STORE_NOT_READY,
                    format!(
                        "SessionStore {name} exists and was not made for this policy; name it in spec.shared.storeRef, or delete it"
                    ),
                )));
            }
            if store.spec == *wanted && self.is_ours(&store.metadata) {
                return Ok(Ok(()));
            }
        }
        if self.validated.suspended {
            return Ok(Ok(()));
        }
        let meta = names::metadata(self.validated, name.to_owned());
        let body = json!({
            "apiVersion": format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
            "kind": "SessionStore",
            "metadata": {"name": name, "labels": meta.labels, "annotations": meta.annotations},
            "spec": wanted,
        });
        // Not under the manager by which the store's controller keeps its finalizer: one apply would undo the other.
        let params = PatchParams::apply(&self.validated.manager).force();
        let api: Api<SessionStore> = self.api();
        match api
            .patch(name, &params, &Patch::Apply(&body))
            .await
            .map_err(classify)
        {
            Ok(_) => Ok(Ok(())),
            Err(WriteError::Refused(status)) => Ok(Err(Trouble::new(
                reasons::STORE_NOT_READY,
                format!(
                    "SessionStore {name} was refused: {}; correct spec.shared.store",
                    status.message
                ),
            ))),
            Err(error) => Err(error),
        }
    }
}

/// Connects as the application would, and writes.
async fn probe(source: &Source) -> Result<Reached, Trouble> {
    let endpoint = &source.endpoint;
    let server = client::Endpoint {
        host: endpoint.host.clone(),
        port: endpoint.port,
        address: None,
        tls: endpoint.tls.then(|| match &source.ca {
            Some(ca) => client::Authority::Own(ca.clone()),
            None => client::Authority::Public,
        }),
    };
    if endpoint.engine == Engine::Memcached {
        return client::memcached::check(&server, &endpoint.key_prefix)
            .await
            .map_err(|failure| Trouble::new(failure.reason(), failure.explain()));
    }
    let credentials = client::Credentials {
        username: endpoint.username.clone(),
        password: endpoint.password.clone().map(client::Password::new),
    };
    client::check(&server, &credentials, &endpoint.key_prefix)
        .await
        .map_err(|failure| Trouble::new(failure.reason(), failure.explain()))
}

pub(super) fn describe(source: &Source) -> String {
    let endpoint = &source.endpoint;
    format!(
        "sessions go to {}:{} ({}) under the prefix {}",
        endpoint.host,
        endpoint.port,
        if endpoint.tls { "TLS" } else { "plain text" },
        endpoint.key_prefix
    )
}
