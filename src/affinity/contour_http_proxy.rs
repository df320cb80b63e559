//! Contour, `HTTPProxy`.
//!
//! The setting is `loadBalancerPolicy` of each entry of `spec.routes[]`: Envoy then looks up a cookie of its own, or the
//! client's address, on a hash ring of the ready pods. So users move whenever the set of pods changes, and a terminating
//! pod loses its users at once. The cookie is the same for all routes and policies: none of its attributes is part of the
//! setting. `spec.routes` is an atomic list, so entries are patched, or their owner is advised.

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::adapter::{Adapter, Scope};
use super::cookie::same_site_word;
use super::detect::Served;
use super::entry_port::service_and_port;
use super::http_proxy::{self, Backend, Entry};
use super::list_entries::{self, Setting};
use super::model::{Configured, Edit, ObjectKey, Refusal};
use super::routes::{Route, RouteKind, RouteObject};
use crate::api::conditions::reasons;
use crate::api::{Binds, Cookie, StickyController, StickyMode};

/// Name of the cookie, fixed in Contour.
const COOKIE: &str = "X-Contour-Session-Affinity";

/// Fields of a service that say which one it is.
const IDENTITY: [&str; 2] = ["name", "port"];

/// The adapter.
#[derive(Debug)]
pub struct ContourHttpProxy;

impl Adapter for ContourHttpProxy {
    fn controller(&self) -> StickyController {
        StickyController::Contour
    }

    fn kind(&self) -> RouteKind {
        RouteKind::HttpProxy
    }

    fn writes_cookie(&self) -> bool {
        false
    }

    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, _: &Served) -> Result<Configured, Refusal> {
        let RouteObject::HttpProxy(object) = route.object else {
            return Err(Refusal::new(
                reasons::CONTROLLER_NOT_RECOGNISED,
                format!("{} is no HTTPProxy", route.display()),
            ));
        };
        refuse_tcp(route, object)?;
        let all = http_proxy::entries(object);
        let mut entries = Vec::new();
        for entry in &all {
            let Some(backend) = entry.backends.iter().find(|backend| is_target(route, backend)) else {
                continue;
            };
            refuse_split(route, entry, backend)?;
            refuse_slow_start(route, entry)?;
            entries.push((entry, backend));
        }
        let value = policy(scope.mode());
        let settings: Vec<Setting> = entries
            .iter()
            .map(|(entry, backend)| Setting {
                edit: edit(entry, backend, &value),
                place: place(entry, backend),
            })
            .collect();
        let key = ObjectKey::http_proxy(object);
        let mut configured = Configured {
            binds: Binds::Hash,
            ..list_entries::configure(object, key, &settings, scope.inputs.field_manager)
        };
        if let (StickyMode::Cookie, Some(wish)) = (scope.mode(), &scope.inputs.sticky.cookie) {
            configured.unsupported.extend(fixed(wish));
            configured.unsupported.extend(rewrite(wish, &entries));
        }
        configured.notes.push(about(scope.mode()));
        configured.notes.extend(verdict_of_contour(route, object));
        Ok(configured)
    }
}

fn is_target(route: &Route<'_>, backend: &Backend<'_>) -> bool {
    route.reaches.iter().any(|target| target.name == backend.name)
}

/// Contour ignores both strategies there.
fn refuse_tcp(route: &Route<'_>, object: &DynamicObject) -> Result<(), Refusal> {
    let backends = http_proxy::tcp_backends(object);
    let Some(backend) = backends.iter().find(|backend| is_target(route, backend)) else {
        return Ok(());
    };
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: spec.tcpproxy hands whole connections to Service {}, which Contour can bind to pods neither by a cookie nor \
             by the client's address; let Contour end TLS (spec.virtualhost.tls.secretName), and lead to the Service with \
             spec.routes instead",
            route.display(),
            backend.name
        ),
    ))
}

/// Envoy chooses one of several services by weight anew for each request, before it looks at what it hashes.
fn refuse_split(route: &Route<'_>, entry: &Entry<'_>, backend: &Backend<'_>) -> Result<(), Refusal> {
    let others: Vec<&str> = entry
        .backends
        .iter()
        .filter(|other| other.index != backend.index)
        .map(|other| other.name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: spec.routes[{}] spreads requests over {} and {}, and Envoy chooses one of them anew for each request; leave \
             one service in the route, or give each a route of its own, with conditions that tell users apart (a header, say)",
            route.display(),
            entry.index,
            backend.name,
            others.join(", ")
        ),
    ))
}

/// With slow start and a hash ring in one route Contour calls the whole object invalid, and serves none of its routes.
fn refuse_slow_start(route: &Route<'_>, entry: &Entry<'_>) -> Result<(), Refusal> {
    let services = entry.fields.get("services").and_then(Value::as_array);
    let slow = services
        .into_iter()
        .flatten()
        .any(|service| service.get("slowStartPolicy").is_some_and(Value::is_object));
    if !slow {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: a service of spec.routes[{}] has a slowStartPolicy, which Contour refuses beside any affinity; remove \
             slowStartPolicy",
            route.display(),
            entry.index
        ),
    ))
}

fn policy(mode: StickyMode) -> Value {
    match mode {
        StickyMode::Cookie => json!({ "strategy": "Cookie" }),
        StickyMode::ClientIP => json!({
            "strategy": "RequestHash",
            "requestHashPolicies": [{ "hashSourceIP": true, "terminal": true }],
        }),
    }
}

fn edit(entry: &Entry<'_>, backend: &Backend<'_>, value: &Value) -> Edit {
    let pointer = entry.pointer();
    let service = format!("{pointer}/services/{}", backend.index);
    let mut guards = list_entries::guards(&pointer, entry.fields, &["conditions"]);
    guards.extend(list_entries::guards(&service, backend.fields, &IDENTITY));
    Edit {
        guards,
        pointer: format!("{pointer}/loadBalancerPolicy"),
        value: value.clone(),
    }
}

fn place(entry: &Entry<'_>, backend: &Backend<'_>) -> String {
    let service = service_and_port(backend.name, backend.port());
    format!("spec.routes[{}] ({service})", entry.index)
}

/// Wishes for what nothing changes in Contour's cookie.
fn fixed(wish: &Cookie) -> Vec<String> {
    let mut unsupported = Vec::new();
    if let Some(name) = wish.name.as_deref().filter(|name| *name != COOKIE) {
        unsupported.push(format!(
            "cookie.name {name}: the name of Contour's cookie is always {COOKIE}; remove cookie.name"
        ));
    }
    if wish.max_age_seconds != 0 {
        unsupported.push(format!(
            "cookie.maxAgeSeconds {}: Contour's cookie always lasts until the browser ends; set cookie.maxAgeSeconds to 0",
            wish.max_age_seconds
        ));
    }
    if !wish.http_only {
        unsupported.push(
            "cookie.httpOnly false: Contour's cookie is always HttpOnly; set cookie.httpOnly to true"
                .to_owned(),
        );
    }
    unsupported
}

/// Wishes that only the owner of the route can fulfil, with `cookieRewritePolicies`: a list in which each cookie may
/// stand once, and so for the owner alone.
fn rewrite(wish: &Cookie, entries: &[(&Entry<'_>, &Backend<'_>)]) -> Option<String> {
    let mut wishes = Vec::new();
    let mut rules = Map::new();
    let mut add = |wish: String, field: &str, value: Value| {
        wishes.push(wish);
        rules.insert(field.to_owned(), value);
    };
    if wish.path != "/" {
        let path = &wish.path;
        add(
            format!("cookie.path {path}"),
            "pathRewrite",
            json!({ "value": path }),
        );
    }
    if wish.secure == Some(true) {
        add("cookie.secure true".to_owned(), "secure", Value::Bool(true));
    }
    if let Some(value) = wish.same_site.map(same_site_word) {
        add(format!("cookie.sameSite {value}"), "sameSite", value.into());
    }
    if let Some(domain) = wish.domain.as_deref().filter(|domain| !domain.is_empty()) {
        add(
            format!("cookie.domain {domain}"),
            "domainRewrite",
            json!({ "value": domain }),
        );
    }
    let lacking: Vec<String> = entries
        .iter()
        .filter(|(entry, _)| !is_rewritten(entry, &rules))
        .map(|(entry, backend)| place(entry, backend))
        .collect();
    if wishes.is_empty() || lacking.is_empty() {
        return None;
    }
    let rules: Vec<String> = rules
        .iter()
        .map(|(field, value)| format!("\n  {field}: {value}"))
        .collect();
    Some(format!(
        "{}: Contour's cookie has Path / and neither Secure, SameSite nor Domain; remove the wish, or add to {}:\n\
         cookieRewritePolicies:\n- name: {COOKIE}{}",
        wishes.join(", "),
        lacking.join(" and "),
        rules.concat()
    ))
}

/// Whether the owner rewrites the cookie by `rules`, in the route or in one of its services.
fn is_rewritten(entry: &Entry<'_>, rules: &Map<String, Value>) -> bool {
    let of_services = entry.backends.iter().map(|backend| backend.fields);
    let lists = std::iter::once(entry.fields)
        .chain(of_services)
        .filter_map(|fields| fields.get("cookieRewritePolicies")?.as_array());
    lists
        .flatten()
        .filter(|policy| policy.get("name").and_then(Value::as_str) == Some(COOKIE))
        .any(|policy| {
            rules
                .iter()
                .all(|(field, value)| policy.get(field) == Some(value))
        })
}

fn about(mode: StickyMode) -> String {
    match mode {
        StickyMode::Cookie => format!(
            "the cookie is Contour's own, {COOKIE}: HttpOnly, for Path / and until the browser ends, and Secure only where \
             cookieRewritePolicies of the route make it so"
        ),
        StickyMode::ClientIP => "mode ClientIP: Envoy hashes the client address that it sees; users behind one NAT or proxy \
                                 share a pod, and behind a load balancer that hides addresses all users may share one: use \
                                 externalTrafficPolicy: Local on Envoy's Service, Contour's num-trusted-hops or \
                                 --use-proxy-protocol, or mode Cookie"
            .to_owned(),
    }
}

/// What Contour itself says of the object, unless that it serves it.
fn verdict_of_contour(route: &Route<'_>, object: &DynamicObject) -> Option<String> {
    let status = |field: &str| object.data.pointer(&format!("/status/{field}"))?.as_str();
    let state = status("currentStatus").filter(|state| !matches!(*state, "" | "valid"))?;
    Some(format!(
        "Contour does not serve {}, which has status {state}: {}",
        route.display(),
        status("description").unwrap_or_default().escape_debug()
    ))
}
