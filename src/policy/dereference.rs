//! Step 1: everything that decides on a policy, read from the caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::caches::{Caches, HTTP_PROXY, INGRESS_ROUTE};
use super::foreign_manager;
use crate::affinity::model::ObjectKey;
use crate::api::{INJECTION_LABEL, SessionInjection, SessionPolicy, SessionStore};

/// What was found.
pub struct Dereferenced {
    /// The target, if it exists.
    pub target: Option<Arc<Deployment>>,
    /// Name of an older policy for the same target, if there is one.
    pub claimed_by: Option<String>,
    /// Services of the namespace, by name.
    pub services: Vec<Arc<Service>>,
    /// Deployments of the namespace, by name.
    pub deployments: Vec<Arc<Deployment>>,
    /// Ingresses of the namespace, by name.
    pub ingresses: Vec<Arc<Ingress>>,
    /// Ingress classes, by name.
    pub ingress_classes: Vec<Arc<IngressClass>>,
    /// Traefik routes of all namespaces in scope, by namespace and name.
    pub ingress_routes: Vec<Arc<DynamicObject>>,
    /// Contour's routes of the namespace, by name.
    pub http_proxies: Vec<Arc<DynamicObject>>,
    /// Names of all policies of the namespace by uid, to say who is in the way.
    pub policies: BTreeMap<String, String>,
    /// Session stores of the namespace, by name.
    pub stores: Vec<Arc<SessionStore>>,
    /// What was made for this policy for admission to add, by name.
    pub injections: Vec<Arc<SessionInjection>>,
    /// Pods of the namespace that name one of these.
    pub pods: Vec<Arc<Pod>>,
    /// Network policies of the namespace, by name.
    pub network_policies: Vec<Arc<NetworkPolicy>>,
    /// Objects on which this policy's field manager owns something.
    pub carriers: Vec<ObjectKey>,
}

/// An object as cached.
pub struct Live {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// All of it.
    pub value: Value,
}

impl Live {
    /// resourceVersion, empty if there is none.
    pub fn resource_version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }
}

/// Reads the caches for `policy`.
pub fn dereference(caches: &Caches, policy: &SessionPolicy) -> Dereferenced {
    let namespace = policy.namespace().unwrap_or_default();
    let services = within(&caches.services, &namespace);
    let ingresses = within(&caches.ingresses, &namespace);
    let manager = foreign_manager(&policy.uid().unwrap_or_default());
    let mut ingress_routes = caches.optional(&INGRESS_ROUTE);
    ingress_routes.sort_by_key(|route| (route.namespace(), route.name_any()));
    let mut http_proxies = sorted(caches.optional(&HTTP_PROXY));
    http_proxies.retain(|route| route.namespace().as_deref() == Some(&namespace));
    let mut carriers: Vec<ObjectKey> = services
        .iter()
        .filter(|service| carries(service.as_ref(), &manager))
        .map(|service| ObjectKey::service(service))
        .collect();
    carriers.extend(
        ingresses
            .iter()
            .filter(|ingress| carries(ingress.as_ref(), &manager))
            .map(|ingress| ObjectKey::ingress(ingress)),
    );
    let deployments = within(&caches.deployments, &namespace);
    carriers.extend(
        deployments
            .iter()
            .filter(|deployment| carries(deployment.as_ref(), &manager))
            .map(|deployment| ObjectKey::deployment(deployment)),
    );
    let mut injections = within(&caches.injections, &namespace);
    injections.retain(|injection| injection.spec.policy.name == policy.name_any());
    let mut pods = within(&caches.pods, &namespace);
    pods.retain(|pod| {
        let mark = pod.labels().get(INJECTION_LABEL);
        mark.is_some_and(|mark| injections.iter().any(|injection| injection.name_any() == *mark))
    });
    Dereferenced {
        target: caches.target_of(policy),
        claimed_by: claimed_by(caches, policy),
        deployments,
        stores: within(&caches.stores, &namespace),
        injections,
        pods,
        ingress_classes: sorted(caches.ingress_classes.state()),
        policies: within(&caches.policies, &namespace)
            .iter()
            .filter_map(|other| Some((other.meta().uid.clone()?, other.name_any())))
            .collect(),
        services,
        ingresses,
        ingress_routes,
        http_proxies,
        network_policies: within(&caches.network_policies, &namespace),
        carriers,
    }
}

impl Dereferenced {
    /// The cached state of an object, if it still is the one that `key` names.
    pub fn live(&self, key: &ObjectKey) -> Option<Live> {
        match key.kind.as_str() {
            "Service" => find(&self.services, key),
            "Ingress" => find(&self.ingresses, key),
            "Deployment" => find(&self.deployments, key),
            _ => {
                let mut routes = self.ingress_routes.iter().chain(&self.http_proxies);
                let found = routes.find(|route| {
                    route.namespace().as_deref() == Some(&key.namespace)
                        && route.metadata.uid.as_deref() == Some(&key.uid)
                })?;
                live(found.as_ref())
            }
        }
    }
}

fn within<K>(store: &Store<K>, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    sorted(store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace)))
}

fn sorted<K: Resource>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_cached_key(|object| object.meta().name.clone());
    objects
}

fn carries(object: &impl Resource, manager: &str) -> bool {
    object
        .meta()
        .managed_fields
        .iter()
        .flatten()
        .any(|entry| entry.manager.as_deref() == Some(manager))
}

fn find<K: Resource + serde::Serialize>(objects: &[Arc<K>], key: &ObjectKey) -> Option<Live> {
    let found = objects
        .iter()
        .find(|object| object.meta().uid.as_deref() == Some(&key.uid))?;
    live(found.as_ref())
}

fn live<K: Resource + serde::Serialize>(object: &K) -> Option<Live> {
    Some(Live {
        meta: object.meta().clone(),
        value: serde_json::to_value(object).ok()?,
    })
}

/// The older of two policies for one target wins; of two made in the same second, the one whose uid sorts first.
fn claimed_by(caches: &Caches, policy: &SessionPolicy) -> Option<String> {
    let age = |policy: &SessionPolicy| (policy.creation_timestamp(), policy.uid());
    let rivals = caches.policies.state_filter(|other| {
        other.0.as_ref().is_ok_and(|other| {
            other.namespace() == policy.namespace()
                && other.uid() != policy.uid()
                && other.spec.target_ref == policy.spec.target_ref
        })
    });
    let oldest = rivals
        .iter()
        .filter_map(|rival| rival.0.as_ref().ok())
        .min_by_key(|rival| age(rival))?;
    (age(oldest) < age(policy)).then(|| oldest.name_any())
}
