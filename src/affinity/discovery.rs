//! Which objects concern which target: what watches ask, one object at a time.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::core::DynamicObject;

use super::{http_proxy, ingress_route, routes, select};

/// Whether the Service's selector matches the Deployment's pod template.
pub fn selects(service: &Service, deployment: &Deployment) -> bool {
    select::pod_labels(deployment).is_some_and(|labels| select::selects(service, labels))
}

/// Names of the Services that an Ingress routes to.
pub fn ingress_backends(ingress: &Ingress) -> BTreeSet<String> {
    routes::backends(ingress)
        .filter_map(|backend| backend.service.as_ref().map(|service| service.name.clone()))
        .collect()
}

/// Namespaces and names of the Services that an `IngressRoute` routes to.
pub fn ingress_route_backends(route: &DynamicObject) -> BTreeSet<(String, String)> {
    let entries = ingress_route::entries(route);
    let services = entries.iter().filter(|entry| entry.is_service());
    services
        .map(|entry| (entry.namespace(route), entry.name.to_owned()))
        .collect()
}

/// Namespaces and names of the Services that an `HTTPProxy` routes to.
pub fn http_proxy_backends(route: &DynamicObject) -> BTreeSet<(String, String)> {
    let namespace = route.namespace().unwrap_or_default();
    http_proxy::all_backends(route)
        .map(|backend| (namespace.clone(), backend.name.to_owned()))
        .collect()
}
