//! Whether a route says that users reach it over TLS.

use k8s_openapi::api::networking::v1::{Ingress, IngressSpec, IngressTLS};
use serde_json::Value;

use super::routes::{Route, RouteObject};

/// Whether every host of the route is declared to have TLS: `spec.tls` of an Ingress covers each host of its
/// rules, or an `IngressRoute` has `spec.tls`.
pub fn declared(route: &Route<'_>) -> bool {
    match route.object {
        RouteObject::Ingress(ingress) => ingress_declares(ingress),
        RouteObject::IngressRoute(object) => object.data.pointer("/spec/tls").is_some_and(Value::is_object),
        RouteObject::Service(_) => false,
    }
}

fn ingress_declares(ingress: &Ingress) -> bool {
    let Some(spec) = &ingress.spec else { return false };
    let tls = spec.tls.as_deref().unwrap_or_default();
    !tls.is_empty() && hosts(spec).all(|host| tls.iter().any(|entry| covers(entry, host)))
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
