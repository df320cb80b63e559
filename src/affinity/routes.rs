//! Which routes reach the Services of the target.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, ServiceBackendPort};
use kube::ResourceExt;
use kube::core::DynamicObject;

use super::entry_port::EntryPort;
use super::http_proxy;
use super::ingress_route::{self, Entry};
use super::model::{Inputs, PlanOutcome, RoutePlan};
use super::select::TargetService;
use super::service_client_ip::{is_exposed, is_headless};
use crate::api::{StickyController, StickyMode};

/// Kinds of objects through which users reach a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `traefik.io/v1alpha1` `IngressRoute`.
    IngressRoute,
    /// `projectcontour.io/v1` `HTTPProxy`.
    HttpProxy,
    /// A Service that clients reach without an HTTP proxy.
    Service,
}

impl RouteKind {
    /// The kind as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::IngressRoute => "IngressRoute",
            Self::HttpProxy => "HTTPProxy",
            Self::Service => "Service",
        }
    }
}

/// The object of a route.
#[derive(Clone, Copy, Debug)]
pub enum RouteObject<'a> {
    /// An Ingress.
    Ingress(&'a Ingress),
    /// A Traefik `IngressRoute`.
    IngressRoute(&'a DynamicObject),
    /// A Contour `HTTPProxy`.
    HttpProxy(&'a DynamicObject),
    /// A Service that clients reach directly.
    Service(&'a Service),
}

/// A route of the policy's namespace that reaches at least one Service of the target.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The object.
    pub object: RouteObject<'a>,
    /// Its name.
    pub name: String,
    /// The target's Services that it reaches, each once.
    pub reaches: Vec<&'a TargetService<'a>>,
    /// Backends that are not the target's, as `Kind/name`, each once.
    pub others: Vec<String>,
    /// Backends that name a port which their Service does not have, as sentences.
    pub broken: Vec<String>,
    /// Whether at least one backend of the target has a port that exists.
    pub usable: bool,
}

impl Route<'_> {
    /// Kind of the object.
    pub const fn kind(&self) -> RouteKind {
        match self.object {
            RouteObject::Ingress(_) => RouteKind::Ingress,
            RouteObject::IngressRoute(_) => RouteKind::IngressRoute,
            RouteObject::HttpProxy(_) => RouteKind::HttpProxy,
            RouteObject::Service(_) => RouteKind::Service,
        }
    }

    fn service_names(&self) -> impl Iterator<Item = String> {
        self.reaches.iter().map(|service| service.name.clone())
    }

    /// The route as `Kind name`, for messages.
    pub fn display(&self) -> String {
        format!("{} {}", self.kind().as_str(), self.name)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovered<'a> {
    /// Routes that may be written.
    pub routes: Vec<Route<'a>>,
    /// Routes that are reported and never written.
    pub reported: Vec<RoutePlan>,
    /// Names of the target's Services to which any of them leads.
    pub reached: BTreeSet<String>,
}

/// Finds every Ingress, `IngressRoute` and `HTTPProxy` that reaches one of `services`.
pub fn discover<'a>(inputs: &Inputs<'a>, services: &'a [TargetService<'a>]) -> Discovered<'a> {
    let ingresses = inputs
        .ingresses
        .iter()
        .filter_map(|ingress| ingress_to(ingress, services));
    let http_proxies = inputs
        .http_proxies
        .iter()
        .filter_map(|object| http_proxy_to(object, services));
    let mut found = Discovered {
        routes: ingresses.chain(http_proxies).collect(),
        ..Discovered::default()
    };
    for object in inputs.ingress_routes {
        let namespace = object.namespace().unwrap_or_default();
        let route = ingress_route_to(object, inputs.policy.namespace, services);
        found.reached.extend(route.iter().flat_map(Route::service_names));
        if namespace == inputs.policy.namespace {
            match route {
                Some(route) => found.routes.push(route),
                None => found.reported.extend(unhandled(object, &namespace)),
            }
        } else if let Some(route) = route {
            found.reported.push(elsewhere(&route, &namespace));
        }
    }
    found
        .reached
        .extend(found.routes.iter().flat_map(Route::service_names));
    found
}

/// The Services that clients reach without an HTTP proxy, as routes. That is how they are taken if the policy says so,
/// or in mode `ClientIP` where no proxy leads to them; if proxies lead to the target's other Services, only those that
/// are exposed by themselves.
pub fn direct<'a>(
    inputs: &Inputs<'a>,
    services: &'a [TargetService<'a>],
    reached: &BTreeSet<String>,
) -> Vec<Route<'a>> {
    let forced = inputs.sticky.controller == StickyController::Service;
    let possible =
        inputs.sticky.controller == StickyController::Auto && inputs.sticky.mode == StickyMode::ClientIP;
    if !forced && !possible {
        return Vec::new();
    }
    let wanted = |target: &&TargetService<'_>| {
        forced || reached.is_empty() || !reached.contains(&target.name) && is_exposed(target.service)
    };
    let candidates: Vec<&'a TargetService<'a>> = services.iter().filter(wanted).collect();
    let any_address = candidates.iter().any(|target| !is_headless(target.service));
    candidates
        .into_iter()
        .filter(|target| !any_address || !is_headless(target.service))
        .map(|target| Route {
            object: RouteObject::Service(target.service),
            name: target.name.clone(),
            reaches: vec![target],
            others: Vec::new(),
            broken: Vec::new(),
            usable: true,
        })
        .collect()
}

/// Collects what one route reaches.
struct Collector<'a> {
    services: &'a [TargetService<'a>],
    reaches: Vec<&'a TargetService<'a>>,
    others: BTreeSet<String>,
    broken: BTreeSet<String>,
    usable: bool,
}

impl<'a> Collector<'a> {
    const fn new(services: &'a [TargetService<'a>]) -> Self {
        Self {
            services,
            reaches: Vec::new(),
            others: BTreeSet::new(),
            broken: BTreeSet::new(),
            usable: false,
        }
    }

    fn service(&mut self, name: &str, port: Option<EntryPort<'_>>) {
        let Some(target) = self.services.iter().find(|service| service.name == name) else {
            self.others.insert(format!("Service/{name}"));
            return;
        };
        if !self.reaches.iter().any(|known| known.name == name) {
            self.reaches.push(target);
        }
        match port {
            Some(port) if !has_port(target.service, port) => {
                self.broken.insert(format!(
                    "it names port {port} of Service {name}, which has {}",
                    ports_of(target.service)
                ));
            }
            _ => self.usable = true,
        }
    }

    fn finish(self, object: RouteObject<'a>, name: String) -> Option<Route<'a>> {
        (!self.reaches.is_empty()).then(|| Route {
            object,
            name,
            reaches: self.reaches,
            others: self.others.into_iter().collect(),
            broken: self.broken.into_iter().collect(),
            usable: self.usable,
        })
    }
}

fn ingress_to<'a>(ingress: &'a Ingress, services: &'a [TargetService<'a>]) -> Option<Route<'a>> {
    let mut collector = Collector::new(services);
    for backend in backends(ingress) {
        match (&backend.service, &backend.resource) {
            (Some(service), _) => {
                collector.service(&service.name, service.port.as_ref().and_then(backend_port));
            }
            (None, Some(resource)) => {
                collector
                    .others
                    .insert(format!("{}/{}", resource.kind, resource.name));
            }
            (None, None) => {}
        }
    }
    collector.finish(RouteObject::Ingress(ingress), ingress.name_any())
}

pub(super) fn backends(ingress: &Ingress) -> impl Iterator<Item = &IngressBackend> {
    let spec = ingress.spec.as_ref();
    let default = spec.and_then(|spec| spec.default_backend.as_ref());
    let rules = spec.and_then(|spec| spec.rules.as_ref()).into_iter().flatten();
    let paths = rules
        .filter_map(|rule| rule.http.as_ref())
        .flat_map(|http| &http.paths);
    default.into_iter().chain(paths.map(|path| &path.backend))
}

fn backend_port(port: &ServiceBackendPort) -> Option<EntryPort<'_>> {
    match (&port.name, port.number) {
        (Some(name), _) if !name.is_empty() => Some(EntryPort::Name(name)),
        (_, Some(number)) => Some(EntryPort::Number(i64::from(number))),
        _ => None,
    }
}

fn ingress_route_to<'a>(
    object: &'a DynamicObject,
    namespace: &str,
    services: &'a [TargetService<'a>],
) -> Option<Route<'a>> {
    let mut collector = Collector::new(services);
    for entry in ingress_route::entries(object) {
        if entry.is_service() && entry.namespace(object) == namespace {
            collector.service(entry.name, entry.port());
        } else {
            collector.others.insert(format!("{}/{}", entry.kind, entry.name));
        }
    }
    collector.finish(RouteObject::IngressRoute(object), object.name_any())
}

fn http_proxy_to<'a>(object: &'a DynamicObject, services: &'a [TargetService<'a>]) -> Option<Route<'a>> {
    let mut collector = Collector::new(services);
    for backend in http_proxy::all_backends(object) {
        collector.service(backend.name, backend.port());
    }
    collector.finish(RouteObject::HttpProxy(object), object.name_any())
}

/// An `IngressRoute` that leads to a `TraefikService`, which may or may not lead to the target: what is behind
/// a `TraefikService` is not read.
fn unhandled(object: &DynamicObject, namespace: &str) -> Option<RoutePlan> {
    let names: BTreeSet<&str> = ingress_route::entries(object)
        .into_iter()
        .filter(Entry::is_traefik_service)
        .map(|entry| entry.name)
        .collect();
    (!names.is_empty()).then(|| RoutePlan {
        kind: RouteKind::IngressRoute.as_str().to_owned(),
        namespace: namespace.to_owned(),
        name: object.name_any(),
        controller: None,
        outcome: PlanOutcome::Reported(format!(
            "routes to TraefikService {}, which is not handled: if it leads to the target, set sticky.cookie \
             both in its own entries and in spec.weighted.sticky, or route to the Service directly",
            names.into_iter().collect::<Vec<_>>().join(", ")
        )),
    })
}

fn elsewhere(route: &Route<'_>, namespace: &str) -> RoutePlan {
    RoutePlan {
        kind: route.kind().as_str().to_owned(),
        namespace: namespace.to_owned(),
        name: route.name.clone(),
        controller: None,
        outcome: PlanOutcome::Reported(format!(
            "reaches Service {} from namespace {namespace}; routes outside the policy's namespace are never \
             written: its owner has to configure affinity there",
            route.service_names().collect::<Vec<_>>().join(", ")
        )),
    }
}

fn has_port(service: &Service, port: EntryPort<'_>) -> bool {
    let mut ports = service
        .spec
        .iter()
        .filter_map(|spec| spec.ports.as_ref())
        .flatten();
    ports.any(|candidate| match port {
        EntryPort::Name(name) => candidate.name.as_deref() == Some(name),
        EntryPort::Number(number) => i64::from(candidate.port) == number,
    })
}

fn ports_of(service: &Service) -> String {
    let ports = service
        .spec
        .iter()
        .filter_map(|spec| spec.ports.as_ref())
        .flatten();
    let ports: Vec<String> = ports
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    if ports.is_empty() {
        "no ports".to_owned()
    } else {
        format!("ports {}", ports.join(", "))
    }
}
