//! Traefik 3, Kubernetes Ingress provider.
//!
//! The setting is read from annotations of the **Service**; the same annotations on an Ingress are ignored.
//! The cookie holds a digest of the pod's address, so users stay on their pods when pods are added, all replicas
//! of Traefik agree, and a terminating pod keeps the users it has.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::adapter::{Adapter, Scope};
use super::cookie::ResolvedCookie;
use super::detect::Served;
use super::model::{Configured, ObjectKey, Refusal, Write};
use super::routes::{Route, RouteKind, RouteObject};
use super::select::TargetService;
use super::tls;
use crate::api::conditions::reasons;
use crate::api::{Binds, SameSite, StickyController, StickyMode};

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";
const ROUTER_TLS: &str = "traefik.ingress.kubernetes.io/router.tls";

/// Annotations of a Service that put something else than pods behind it: one address for all of them, or the
/// nodes. The cookie then names that and no pod.
const DEFEATS: [(&str, &str); 2] = [
    (
        "traefik.ingress.kubernetes.io/service.nativelb",
        "the Service's own address",
    ),
    ("traefik.ingress.kubernetes.io/service.nodeportlb", "the nodes"),
];

/// The adapter.
#[derive(Debug)]
pub struct TraefikIngress;

impl Adapter for TraefikIngress {
    fn controller(&self) -> StickyController {
        StickyController::Traefik
    }

    fn kind(&self) -> RouteKind {
        RouteKind::Ingress
    }

    fn class_controllers(&self) -> &'static [&'static str] {
        &["traefik.io/ingress-controller"]
    }

    fn class_names(&self) -> &'static [&'static str] {
        &["traefik"]
    }

    fn has_tls(&self, route: &Route<'_>) -> bool {
        let RouteObject::Ingress(ingress) = route.object else {
            return false;
        };
        tls::declared(route) || is_true(ingress.annotations().get(ROUTER_TLS))
    }

    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, _: &Served) -> Result<Configured, Refusal> {
        if scope.mode() == StickyMode::ClientIP {
            return Err(Refusal::new(
                reasons::MODE_UNSUPPORTED,
                format!(
                    "{}: Traefik cannot bind a plain Ingress to client addresses; set spec.sticky.mode to Cookie, \
                     or route with an IngressRoute, where mode ClientIP is strategy hrw",
                    route.display()
                ),
            ));
        }
        for target in &route.reaches {
            refuse_defeated(route, target.service)?;
        }
        Ok(Configured {
            writes: route
                .reaches
                .iter()
                .map(|target| write(target, &scope.cookie))
                .collect(),
            advice: None,
            written_to: route
                .reaches
                .iter()
                .map(|target| format!("Service/{}", target.name))
                .collect(),
            binds: Binds::Pod,
            keeps_terminating_pods: true,
            unsupported: Vec::new(),
            notes: notes(scope, route),
        })
    }
}

fn refuse_defeated(route: &Route<'_>, service: &Service) -> Result<(), Refusal> {
    for (annotation, instead) in DEFEATS {
        if is_true(service.annotations().get(annotation)) {
            return Err(Refusal::new(
                reasons::MODE_UNSUPPORTED,
                format!(
                    "{}: Service {} carries {annotation}: \"true\", with which Traefik sees {instead} and no pods, \
                     so no cookie can name one; remove that annotation",
                    route.display(),
                    service.name_any()
                ),
            ));
        }
    }
    Ok(())
}

fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "true" | "TRUE" | "True" | "t" | "T" | "1"))
}

fn write(target: &TargetService<'_>, cookie: &ResolvedCookie) -> Write {
    Write::Apply {
        object: ObjectKey::service(target.service),
        fields: json!({ "metadata": { "annotations": annotations(cookie) } }),
        takeable_defaults: Vec::new(),
    }
}

fn annotations(cookie: &ResolvedCookie) -> Map<String, Value> {
    let mut annotations = Map::new();
    let mut set = |key: String, value: String| annotations.insert(key, Value::String(value));
    set(STICKY.to_owned(), "true".to_owned());
    set(format!("{STICKY}.name"), cookie.name.clone());
    set(format!("{STICKY}.path"), cookie.path.clone());
    set(format!("{STICKY}.secure"), cookie.secure.to_string());
    set(format!("{STICKY}.httponly"), cookie.http_only.to_string());
    set(format!("{STICKY}.maxage"), cookie.max_age_seconds.to_string());
    if let Some(value) = cookie.same_site {
        set(format!("{STICKY}.samesite"), same_site(value).to_owned());
    }
    if let Some(domain) = &cookie.domain {
        set(format!("{STICKY}.domain"), domain.clone());
    }
    annotations
}

/// Traefik's spelling.
pub const fn same_site(value: SameSite) -> &'static str {
    match value {
        SameSite::None => "none",
        SameSite::Lax => "lax",
        SameSite::Strict => "strict",
    }
}

fn notes(scope: &Scope<'_>, route: &Route<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for target in &route.reaches {
        let others: Vec<String> = scope
            .other_routes_to(&target.name, route)
            .filter(|other| other.kind() == RouteKind::Ingress)
            .map(Route::display)
            .collect();
        if !others.is_empty() {
            notes.push(format!(
                "Traefik reads one setting per Service: that of Service {} also acts on {}, and its cookie is Secure by \
                 itself only if all routes have TLS",
                target.name,
                others.join(", ")
            ));
        }
    }
    notes
}
