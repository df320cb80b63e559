//! ingress-nginx (kubernetes/ingress-nginx), and controllers that read its annotations.
//!
//! The setting is read from annotations of the **Ingress** and acts on all its backends. Cookie mode `persistent` binds
//! to pods (the default, `balanced`, to a hash ring); `upstream-hash-by` binds client addresses to a hash ring. Only
//! ready endpoints are used, so a terminating pod loses its users at once. A cookie is issued only on the paths of
//! Ingresses that carry the annotations, and of several Ingresses of one Service one decides for all: so each of them
//! gets the same values.

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::adapter::{Adapter, Scope};
use super::cookie::{ResolvedCookie, same_site_word};
use super::detect::Served;
use super::model::{Configured, ObjectKey, Refusal, Write};
use super::routes::{Route, RouteKind, RouteObject};
use crate::api::conditions::reasons;
use crate::api::{Binds, SharedRoutes, StickyController, StickyMode};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The adapter.
#[derive(Debug)]
pub struct IngressNginx;

impl Adapter for IngressNginx {
    fn controller(&self) -> StickyController {
        StickyController::IngressNginx
    }

    fn kind(&self) -> RouteKind {
        RouteKind::Ingress
    }

    fn class_controllers(&self) -> &'static [&'static str] {
        &["k8s.io/ingress-nginx"]
    }

    fn class_names(&self) -> &'static [&'static str] {
        &["nginx"]
    }

    /// Traefik's provider for these annotations claims the same class.
    fn also_read_by(&self) -> &'static [StickyController] {
        &[StickyController::Traefik]
    }

    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, served: &Served) -> Result<Configured, Refusal> {
        let RouteObject::Ingress(ingress) = route.object else {
            return Err(Refusal::new(
                reasons::CONTROLLER_NOT_RECOGNISED,
                format!("{} is no Ingress", route.display()),
            ));
        };
        refuse_shared(scope, route)?;
        refuse_service_upstream(route, ingress)?;
        let annotations = match scope.mode() {
            StickyMode::Cookie => cookie_annotations(&scope.cookie),
            StickyMode::ClientIP => json!({ format!("{PREFIX}upstream-hash-by"): hash_variable(served) }),
        };
        let key = ObjectKey::ingress(ingress);
        let by_traefik = served.controller == Some(StickyController::Traefik);
        let mut configured = Configured {
            written_to: vec![key.short()],
            writes: vec![Write::Apply {
                object: key,
                fields: json!({ "metadata": { "annotations": annotations } }),
                takeable_defaults: Vec::new(),
            }],
            advice: None,
            binds: binds(scope.mode()),
            keeps_terminating_pods: by_traefik && scope.mode() == StickyMode::Cookie,
            unsupported: unsupported(scope, ingress),
            notes: notes(scope, route, served),
        };
        judge_canary(route, ingress, &mut configured);
        Ok(configured)
    }
}

/// Both variables stand for the whole client address. Of the two only `$remote_addr` is known to work with Traefik.
fn hash_variable(served: &Served) -> &'static str {
    if served.controller == Some(StickyController::IngressNginx) {
        "$binary_remote_addr"
    } else {
        "$remote_addr"
    }
}

const fn binds(mode: StickyMode) -> Binds {
    match mode {
        StickyMode::Cookie => Binds::Pod,
        StickyMode::ClientIP => Binds::Hash,
    }
}

fn refuse_shared(scope: &Scope<'_>, route: &Route<'_>) -> Result<(), Refusal> {
    if route.others.is_empty() || scope.inputs.sticky.shared_routes == SharedRoutes::Allow {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::SHARED_ROUTE,
        format!(
            "{}: its annotations would also act on {}; move the paths of the target to an Ingress of their own, or set \
             spec.sticky.sharedRoutes to Allow",
            route.display(),
            route.others.join(", ")
        ),
    ))
}

fn refuse_service_upstream(route: &Route<'_>, ingress: &Ingress) -> Result<(), Refusal> {
    if annotation(ingress, "service-upstream") != Some("true") {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: it carries {PREFIX}service-upstream: \"true\", with which the controller sees the Service's own address \
             and no pods, so no user can be bound to one; remove that annotation",
            route.display()
        ),
    ))
}

fn annotation<'a>(ingress: &'a Ingress, key: &str) -> Option<&'a str> {
    ingress
        .annotations()
        .get(&format!("{PREFIX}{key}"))
        .map(String::as_str)
}

/// A lifetime of 0 is not written: `Max-Age=0` would tell browsers to drop the cookie.
fn cookie_annotations(cookie: &ResolvedCookie) -> Value {
    let mut annotations = Map::new();
    let mut set =
        |key: &str, value: String| annotations.insert(format!("{PREFIX}{key}"), Value::String(value));
    set("affinity", "cookie".to_owned());
    set("affinity-mode", "persistent".to_owned());
    set("session-cookie-name", cookie.name.clone());
    set("session-cookie-path", cookie.path.clone());
    set("session-cookie-secure", cookie.secure.to_string());
    if cookie.max_age_seconds > 0 {
        set("session-cookie-max-age", cookie.max_age_seconds.to_string());
        set("session-cookie-expires", cookie.max_age_seconds.to_string());
    }
    if let Some(value) = cookie.same_site {
        set("session-cookie-samesite", same_site_word(value).to_owned());
    }
    if let Some(domain) = &cookie.domain {
        set("session-cookie-domain", domain.clone());
    }
    Value::Object(annotations)
}

fn unsupported(scope: &Scope<'_>, ingress: &Ingress) -> Vec<String> {
    let mut unsupported = Vec::new();
    match scope.mode() {
        StickyMode::Cookie if !scope.cookie.http_only => unsupported.push(
            "cookie.httpOnly false: the cookie is always HttpOnly; set cookie.httpOnly to true".to_owned(),
        ),
        StickyMode::ClientIP if annotation(ingress, "affinity") == Some("cookie") => unsupported.push(format!(
            "mode ClientIP: Ingress {} carries {PREFIX}affinity: cookie, which takes precedence over upstream-hash-by; \
             remove that annotation, or set spec.sticky.mode to Cookie",
            ingress.name_any()
        )),
        StickyMode::Cookie | StickyMode::ClientIP => {}
    }
    unsupported
}

fn notes(scope: &Scope<'_>, route: &Route<'_>, served: &Served) -> Vec<String> {
    let mut notes = Vec::new();
    if served.controller.is_none() {
        notes.push(format!(
            "{}, which both ingress-nginx and Traefik's provider for its annotations claim: only what both understand is \
             written, and only what both keep is promised; set spec.sticky.controller to Traefik or IngressNginx if you \
             know",
            served.because
        ));
    }
    if !route.others.is_empty() {
        notes.push(format!("the annotations also act on {}", route.others.join(", ")));
    }
    for target in &route.reaches {
        let others: Vec<String> = scope
            .other_routes_to(&target.name, route)
            .map(Route::display)
            .collect();
        if !others.is_empty() {
            notes.push(format!(
                "Service {} is also reached by {}: users are on one pod only if all of these routes carry the same \
                 setting",
                target.name,
                others.join(", ")
            ));
        }
    }
    if scope.mode() == StickyMode::ClientIP {
        notes.push(
            "mode ClientIP hashes the client address that the controller sees: users behind one NAT or proxy share a \
             pod, and behind a load balancer that hides addresses all users may share one; use externalTrafficPolicy: \
             Local on the controller's Service, its use-forwarded-headers or use-proxy-protocol setting, or mode Cookie"
                .to_owned(),
        );
        notes.push(
            "upstream-hash-by is ignored by ingress-nginx where its ConfigMap sets annotations-risk-level below High"
                .to_owned(),
        );
    }
    notes
}

/// A canary takes its affinity from the main Ingress of the host, unless it says `legacy`.
fn judge_canary(route: &Route<'_>, ingress: &Ingress, configured: &mut Configured) {
    if annotation(ingress, "canary") != Some("true") {
        return;
    }
    if annotation(ingress, "affinity-canary-behavior") == Some("legacy") {
        configured.binds = Binds::None;
        configured.unsupported.push(format!(
            "{} is a canary with affinity-canary-behavior: legacy, so users change between it and the main Ingress with \
             every request; set {PREFIX}affinity-canary-behavior to sticky",
            route.display()
        ));
    } else {
        configured.notes.push(format!(
            "{} is a canary: its users stay with it or with the main Ingress as first chosen, and with the affinity of \
             the main Ingress",
            route.display()
        ));
    }
}
