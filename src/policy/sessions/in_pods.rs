//! Sessions in the pods: writes what the sidecars need to find and trust each other.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::carry_out::{Memory, old_nodes, surroundings};
use super::cautions::{Cautions, too_old};
use super::source::{self, Source};
use super::{Trouble, names, peers, sidecar};
use crate::api::FIELD_MANAGER;
use crate::api::conditions::reasons;
use crate::api::session_policy::{Replicated, ReplicationMode};
use crate::certificates::{self, Pair, Usage};
use crate::policy::dereference::Dereferenced;
use crate::policy::validate::Validated;
use crate::runtime::writer::{WriteError, Writer, classify};

/// Label of a node with its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What is worked on.
pub struct InPods<'a> {
    /// Write side.
    pub writer: &'a Writer,
    /// What is known of nodes.
    pub memory: &'a Memory,
    /// The policy.
    pub validated: &'a Validated,
    /// What was found.
    pub found: &'a Dereferenced,
    /// How sessions are replicated.
    pub wish: &'a Replicated,
    /// Whether every request of a user reaches the same pod.
    pub bound_to_pods: bool,
}

impl InPods<'_> {
    /// Writes what is missing; gives the source that the sidecars are.
    pub async fn set_up(&self) -> Result<Result<Source, Trouble>, WriteError> {
        let target = &self.validated.target;
        if let Some(trouble) = refusal(self.validated, self.wish) {
            return Ok(Err(trouble));
        }
        let client = self.writer.client();
        let nodes = old_nodes(client, self.memory).await.map_err(classify)?;
        if let Some(trouble) = too_old(target, &nodes) {
            return Ok(Err(trouble));
        }
        let around = surroundings(client, self.memory, &self.validated.namespace)
            .await
            .map_err(classify)?;
        let replicas = target.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let service = match peers::service(self.validated) {
            Ok(service) => service,
            Err(trouble) => return Ok(Err(trouble)),
        };
        if !self.validated.suspended {
            for outcome in [
                self.service(&service).await?,
                self.certificates().await?,
                self.places().await?,
            ] {
                if let Err(trouble) = outcome {
                    return Ok(Err(trouble));
                }
            }
        }
        let nodes: BTreeSet<&str> = self
            .found
            .pods
            .iter()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
            .collect();
        let shared = self.validated.sessions.as_ref().and_then(|wish| wish.shared());
        Ok(Ok(source::of_pods(
            &source::key_prefix(&self.validated.name, shared),
            self.wish,
            self.bound_to_pods,
            nodes.len(),
            replicas,
            Cautions::of(target, &around),
        )))
    }

    async fn service(&self, wanted: &Service) -> Result<Result<(), Trouble>, WriteError> {
        let name = wanted.name_any();
        let standing = self
            .found
            .services
            .iter()
            .find(|service| service.name_any() == name);
        if let Some(service) = standing {
            if !names::is_of(&service.metadata, &self.validated.name) {
                return Ok(Err(foreign("Service", &name)));
            }
            let (Some(stands), Some(wanted)) = (&service.spec, &wanted.spec) else {
                return Ok(Ok(()));
            };
            let same = stands.selector == wanted.selector
                && stands.publish_not_ready_addresses == wanted.publish_not_ready_addresses
                && stands.ports.as_ref().map(Vec::len) == wanted.ports.as_ref().map(Vec::len);
            if same {
                return Ok(Ok(()));
            }
        }
        self.apply(wanted).await?;
        Ok(Ok(()))
    }

    /// An authority that stays with the operator, and one certificate for all members, renewed in time.
    async fn certificates(&self) -> Result<Result<(), Trouble>, WriteError> {
        let now = jiff::Timestamp::now();
        let name = peers::name(&self.validated.name);
        let authority_name = peers::authority_name(&self.validated.name);
        let secrets: Api<Secret> = self.api();
        let (authority_secret, secret) =
            futures::future::try_join(secrets.get_opt(&authority_name), secrets.get_opt(&name))
                .await
                .map_err(classify)?;
        for (secret, name) in [(&authority_secret, &authority_name), (&secret, &name)] {
            if secret
                .as_ref()
                .is_some_and(|secret| !names::is_of(&secret.metadata, &self.validated.name))
            {
                return Ok(Err(foreign("Secret", name)));
            }
        }
        let text = |secret: &Option<Secret>, key: &str| {
            let data = secret.as_ref()?.data.as_ref()?;
            String::from_utf8(data.get(key)?.0.clone()).ok()
        };
        let known = text(&authority_secret, "tls.crt").zip(text(&authority_secret, "tls.key"));
        let known = known.filter(|(certificate, _)| !certificates::is_due(certificate, now));
        let made = |error: certificates::Error| WriteError::Api(kube::Error::Service(Box::new(error)));
        let authority = if let Some((certificate, key)) = known {
            Pair { certificate, key }
        } else {
            let pair =
                certificates::authority(&format!("peers of {}", self.validated.name), now).map_err(made)?;
            self.write_secret(
                &authority_name,
                &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)],
            )
            .await?;
            pair
        };
        let hosts = [peers::identity(&self.validated.name, &self.validated.namespace)];
        let stands = text(&secret, "tls.crt").is_some_and(|certificate| {
            !certificates::is_due(&certificate, now)
                && certificates::fits(&certificate, &authority.certificate, &hosts)
        }) && text(&secret, "ca.crt").as_deref() == Some(authority.certificate.as_str())
            && text(&secret, "tls.key").is_some();
        if !stands {
            let pair = certificates::leaf(&authority, &hosts, Usage::Both, now).map_err(made)?;
            self.write_secret(
                &name,
                &[
                    ("ca.crt", &authority.certificate),
                    ("tls.crt", &pair.certificate),
                    ("tls.key", &pair.key),
                ],
            )
            .await?;
        }
        Ok(Ok(()))
    }

    async fn write_secret(&self, name: &str, data: &[(&str, &String)]) -> Result<(), WriteError> {
        let data: BTreeMap<String, String> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).clone()))
            .collect();
        self.apply(&Secret {
            metadata: names::metadata(self.validated, name.to_owned()),
            string_data: Some(data),
            ..Secret::default()
        })
        .await
    }

    async fn places(&self) -> Result<Result<(), Trouble>, WriteError> {
        let mut zones = BTreeMap::new();
        for pod in &self.found.pods {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
                continue;
            };
            if let Entry::Vacant(unknown) = zones.entry(node) {
                let zone = self.zone(unknown.key()).await?;
                unknown.insert(zone);
            }
        }
        let wanted = peers::places(self.validated, self.found.pods.iter().map(AsRef::as_ref), &zones);
        let name = wanted.name_any();
        let maps: Api<ConfigMap> = self.api();
        let standing = maps.get_opt(&name).await.map_err(classify)?;
        if let Some(map) = &standing {
            if !names::is_of(&map.metadata, &self.validated.name) {
                return Ok(Err(foreign("ConfigMap", &name)));
            }
            if map.data == wanted.data {
                return Ok(Ok(()));
            }
        }
        self.apply(&wanted).await?;
        Ok(Ok(()))
    }

    /// The zone of a node; "" where it has none.
    async fn zone(&self, node: &str) -> Result<String, WriteError> {
        if let Some(zone) = self.memory.zone(node) {
            return Ok(zone);
        }
        let nodes: Api<Node> = Api::all(self.writer.client().clone());
        let zone = nodes
            .get_metadata_opt(node)
            .await
            .map_err(classify)?
            .and_then(|node| node.labels().get(ZONE_LABEL).cloned())
            .unwrap_or_default();
        self.memory.learn_zone(node, &zone);
        Ok(zone)
    }

    async fn apply<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = self.api();
        let mut body = json!(object);
        if let Some(body) = body.as_object_mut() {
            body.insert("apiVersion".to_owned(), json!(K::api_version(&())));
            body.insert("kind".to_owned(), json!(K::kind(&())));
        }
        api.patch(
            &object.name_any(),
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&body),
        )
        .await
        .map(|_| ())
        .map_err(classify)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.writer.client().clone(), &self.validated.namespace)
    }
}

/// Why the pods of the target, as the template is now, cannot keep sessions in the way that is wished for.
pub fn refusal(validated: &Validated, wish: &Replicated) -> Option<Trouble> {
    let target = &validated.target;
    let drain = validated.sticky.as_ref().map_or(0, |sticky| sticky.drain_seconds);
    let replicas = target.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    peers::obstacle(target, sidecar::grace_seconds(drain))
        .or_else(|| sidecar::too_little_memory(wish))
        .or_else(|| {
            let too_few = wish.mode == ReplicationMode::Backup && replicas > 0 && wish.backups >= replicas;
            too_few.then(|| {
                Trouble::new(
                    reasons::TOO_FEW_REPLICAS,
                    format!(
                        "spec.replicated.backups is {} and Deployment {} has {replicas} replicas; use mode All, or fewer backups than replicas",
                        wish.backups,
                        validated.target_name()
                    ),
                )
            })
        })
}

fn foreign(kind: &str, name: &str) -> Trouble {
    Trouble::new(
        reasons::FIELD_CONFLICT,
        format!("{kind} {name} exists and is not the operator's; rename it, or rename the policy"),
    )
}
