//! Kinds of routes that a cluster may or may not serve: each is followed while its CRD is established.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{StreamExt, pin_mut};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::task::{AbortHandle, JoinSet};

use super::{Follower, Scope, filled};
use crate::affinity::discovery;
use crate::runtime::client;

/// A kind of routes that some ingress controller brings along.
#[derive(Debug)]
pub struct OptionalKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// Namespaces and names of the Services that an object of the kind routes to.
    pub(super) backends: fn(&DynamicObject) -> BTreeSet<(String, String)>,
}

/// Traefik's `IngressRoute`.
pub static INGRESS_ROUTE: OptionalKind = OptionalKind {
    group: "traefik.io",
    version: "v1alpha1",
    kind: "IngressRoute",
    plural: "ingressroutes",
    backends: discovery::ingress_route_backends,
};

/// Contour's `HTTPProxy`.
pub static HTTP_PROXY: OptionalKind = OptionalKind {
    group: "projectcontour.io",
    version: "v1",
    kind: "HTTPProxy",
    plural: "httpproxies",
    backends: discovery::http_proxy_backends,
};

/// Every such kind.
pub(super) static KINDS: [&OptionalKind; 2] = [&INGRESS_ROUTE, &HTTP_PROXY];

impl OptionalKind {
    /// Its API resource.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.kind),
            self.plural,
        )
    }

    /// Name of its CRD.
    fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

/// The objects of those kinds that are served now.
#[derive(Default)]
pub(super) struct Served(RwLock<BTreeMap<&'static str, Store<DynamicObject>>>);

impl Served {
    /// Every object of a kind in scope; none where it is not served.
    pub(super) fn objects(&self, kind: &OptionalKind) -> Vec<Arc<DynamicObject>> {
        let stores = self.0.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(kind.kind).map(Store::state).unwrap_or_default()
    }

    fn begin(&self, kind: &OptionalKind, objects: Store<DynamicObject>) {
        let mut stores = self.0.write().unwrap_or_else(PoisonError::into_inner);
        stores.insert(kind.kind, objects);
    }

    fn end(&self, kind: &OptionalKind) {
        let mut stores = self.0.write().unwrap_or_else(PoisonError::into_inner);
        stores.remove(kind.kind);
    }
}

/// What of those kinds stands in `namespace` now.
pub(super) async fn read_once(client: &Client, namespace: &str) -> kube::Result<Served> {
    let served = Served::default();
    for kind in KINDS {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind.resource());
        match api.list(&ListParams::default()).await {
            Ok(list) => served.begin(kind, filled(store::Writer::new(kind.resource()), list.items)),
            Err(error) if client::is_not_found(&error) => {}
            // Rights are looked at before kinds: who has none on this kind learns so even where nobody serves it.
            Err(kube::Error::Api(status)) if status.is_forbidden() && !is_served(client, kind).await => {}
            Err(error) => return Err(error),
        }
    }
    Ok(served)
}

async fn is_served(client: &Client, kind: &OptionalKind) -> bool {
    let version = format!("{}/{}", kind.group, kind.version);
    match client.list_api_group_resources(&version).await {
        Ok(served) => served.resources.iter().any(|served| served.name == kind.plural),
        Err(error) => !client::is_not_found(&error),
    }
}

/// Follows each kind while it is served, as tasks of `tasks`.
pub(super) fn start(client: &Client, scope: &Scope, follower: &Follower, tasks: &mut JoinSet<()>) {
    for kind in KINDS {
        tasks.spawn(follow(kind, client.clone(), scope.clone(), follower.clone()));
    }
}

/// Follows `kind` while its CRD is established.
async fn follow(kind: &'static OptionalKind, client: Client, scope: Scope, follower: Follower) {
    let name = kind.definition();
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let definitions = watch(Api::<CustomResourceDefinition>::all(client.clone()), only).default_backoff();
    pin_mut!(definitions);
    let mut following: Option<Following> = None;
    while let Some(event) = definitions.next().await {
        let served = match event {
            Ok(Event::Apply(definition) | Event::InitApply(definition)) => is_established(&definition),
            Ok(Event::Delete(_)) => false,
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                tracing::warn!(crd = name, %error, "watch failed; it is tried again");
                continue;
            }
        };
        match (served, following.is_some()) {
            (true, false) => {
                tracing::info!(crd = name, "served; following it");
                let objects = follow_objects(kind, client.clone(), scope.clone(), follower.clone());
                following = Some(Following(tokio::spawn(objects).abort_handle()));
            }
            (false, true) => {
                tracing::info!(crd = name, "no longer served");
                following = None;
                follower.caches.optional.end(kind);
                follower.trigger(follower.caches.every_policy()).await;
            }
            _ => {}
        }
    }
}

/// Ends a task when it is dropped.
struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn follow_objects(kind: &'static OptionalKind, client: Client, scope: Scope, follower: Follower) {
    let resource = kind.resource();
    let api = match &scope {
        Scope::All => Api::<DynamicObject>::all_with(client, &resource),
        Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, &resource),
    };
    let writer = store::Writer::new(resource.clone());
    follower.caches.optional.begin(kind, writer.as_reader());
    let stream = watch(api, watcher::Config::default()).default_backoff();
    follower
        .run_stream(stream, writer, resource, |caches, object: &DynamicObject| {
            caches.concerned_by_backends(&(kind.backends)(object), object)
        })
        .await;
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}
