//! Whether a route says that users reach it over TLS.

use k8s_openapi::api::networking::v1::{Ingress, IngressSpec, IngressTLS};
use kube::core::DynamicObject;
use serde_json::Value;

use super::routes::{Route, RouteObject};

/// Whether every host of the route is declared to have TLS: `spec.tls` of an Ingress covers each host of its
/// rules, an `IngressRoute` has `spec.tls`, or Contour ends the TLS of an `HTTPProxy`.
pub fn declared(route: &Route<'_>) -> bool {
    match route.object {
        RouteObject::Ingress(ingress) => ingress_declares(ingress),
        RouteObject::IngressRoute(object) => object.data.pointer("/spec/tls").is_some_and(Value::is_object),
        RouteObject::HttpProxy(object) => http_proxy_declares(object),
        RouteObject::Service(_) => false,
    }
}

fn ingress_declares(ingress: &Ingress) -> bool {
    let Some(spec) = &ingress.spec else { return false };
    let tls = spec.tls.as_deref().unwrap_or_default();
    !tls.is_empty() && hosts(spec).all(|host| tls.iter().any(|entry| covers(entry, host)))
}

/// Beside `spec.tcpproxy` TLS is that of the connections which it hands on; routes are then served without. Of an
/// `HTTPProxy` that others include the one with the host knows, which may be anywhere.
fn http_proxy_declares(object: &DynamicObject) -> bool {
    let spec = |pointer: &str| object.data.pointer(&format!("/spec{pointer}"));
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let ends_here = spec("/virtualhost/tls").is_some_and(Value::is_object)
        && !is_true(spec("/virtualhost/tls/passthrough"))
        && spec("/tcpproxy").is_none();
    let routes = spec("/routes").and_then(Value::as_array);
    let mut routes = routes.into_iter().flatten();
    ends_here && !routes.any(|route| is_true(route.get("permitInsecure")))
}

/// The hosts of the rules; `None` stands for any host.
fn hosts(spec: &IngressSpec) -> impl Iterator<Item = Option<&str>> {
    let rules = spec.rules.as_deref().unwrap_or_default();
    let of_rules = rules
        .iter()
        .map(|rule| rule.host.as_deref().filter(|host| !host.is_empty()));
    of_rules.chain(spec.default_backend.iter().map(|_| None))
}

/// An entry without hosts stands for all of them (networking/v1 `IngressTLS.hosts`).
fn covers(entry: &IngressTLS, host: Option<&str>) -> bool {
    let declared = entry.hosts.as_deref().unwrap_or_default();
    if declared.is_empty() {
        return true;
    }
    let Some(host) = host else { return false };
    declared.iter().any(|pattern| {
        pattern.eq_ignore_ascii_case(host)
            || pattern.strip_prefix("*.").is_some_and(|domain| {
                host.split_once('.').is_some_and(|(label, rest)| {
                    !label.is_empty() && label != "*" && rest.eq_ignore_ascii_case(domain)
                })
            })
    })
}
