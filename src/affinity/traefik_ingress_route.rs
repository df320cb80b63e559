//! Traefik 3, `IngressRoute`.
//!
//! The setting is a field of each entry of `spec.routes[].services[]`: `sticky.cookie`, pod-bound as for an Ingress,
//! or `strategy: hrw`, rendezvous hashing over the address from which the connection comes (`X-Forwarded-For` is not
//! looked at). `spec.routes` is an atomic list, so entries are patched, or their owner is advised.

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::adapter::{Adapter, Scope};
use super::cookie::ResolvedCookie;
use super::detect::Served;
use super::entry_port::service_and_port;
use super::ingress_route::{self, Entry};
use super::list_entries::{self, Setting};
use super::model::{Configured, Edit, ObjectKey, Refusal};
use super::routes::{Route, RouteKind, RouteObject};
use super::traefik_ingress::same_site;
use crate::api::conditions::reasons;
use crate::api::{Binds, StickyController, StickyMode};

/// Rendezvous hashing ("highest random weight").
const HRW: &str = "hrw";

/// Fields of an entry that put something else than pods behind it.
const DEFEATS: [(&str, &str); 2] = [
    ("nativeLB", "the Service's own address"),
    ("nodePortLB", "the nodes"),
];

/// Fields of an entry that say which one it is.
const IDENTITY: [&str; 4] = ["kind", "namespace", "name", "port"];

/// The adapter.
#[derive(Debug)]
pub struct TraefikIngressRoute;

impl Adapter for TraefikIngressRoute {
    fn controller(&self) -> StickyController {
        StickyController::Traefik
    }

    fn kind(&self) -> RouteKind {
        RouteKind::IngressRoute
    }

    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, _: &Served) -> Result<Configured, Refusal> {
        let RouteObject::IngressRoute(object) = route.object else {
            return Err(Refusal::new(
                reasons::CONTROLLER_NOT_RECOGNISED,
                format!("{} is no IngressRoute", route.display()),
            ));
        };
        let all = ingress_route::entries(object);
        let mut entries = Vec::new();
        for siblings in all.chunk_by(|one, next| one.route == next.route) {
            for entry in siblings {
                if leads_to_target(scope, route, object, entry) {
                    refuse_defeated(route, entry)?;
                    refuse_split(route, entry, siblings)?;
                    entries.push(entry);
                }
            }
        }
        let (field, value) = match scope.mode() {
            StickyMode::Cookie => ("sticky", json!({ "cookie": cookie(&scope.cookie) })),
            StickyMode::ClientIP => ("strategy", Value::from(HRW)),
        };
        let settings: Vec<Setting> = entries
            .iter()
            .map(|entry| Setting {
                edit: edit(entry, field, &value),
                place: place(entry),
            })
            .collect();
        let key = ObjectKey::ingress_route(object);
        let mut configured = Configured {
            binds: Binds::Pod,
            keeps_terminating_pods: true,
            ..list_entries::configure(object, key, &settings, scope.inputs.field_manager)
        };
        judge_strategy(scope.mode(), &entries, &mut configured);
        Ok(configured)
    }
}

fn leads_to_target(scope: &Scope<'_>, route: &Route<'_>, object: &DynamicObject, entry: &Entry<'_>) -> bool {
    entry.is_service()
        && entry.namespace(object) == scope.inputs.policy.namespace
        && route.reaches.iter().any(|target| target.name == entry.name)
}

fn refuse_defeated(route: &Route<'_>, entry: &Entry<'_>) -> Result<(), Refusal> {
    for (field, instead) in DEFEATS {
        if entry.fields.get(field) == Some(&Value::Bool(true)) {
            return Err(Refusal::new(
                reasons::MODE_UNSUPPORTED,
                format!(
                    "{}: {} has {field}: true, with which Traefik sees {instead} and no pods, so no user can be bound \
                     to one; remove {field}",
                    route.display(),
                    place(entry)
                ),
            ));
        }
    }
    Ok(())
}

/// A route that spreads requests over several services chooses anew for each request, before any of the services
/// looks at its cookie.
fn refuse_split(route: &Route<'_>, entry: &Entry<'_>, siblings: &[Entry<'_>]) -> Result<(), Refusal> {
    let others: Vec<&str> = siblings
        .iter()
        .filter(|other| other.service != entry.service)
        .filter(|other| other.fields.get("weight") != Some(&Value::from(0)))
        .map(|other| other.name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: spec.routes[{}] spreads requests over {} and {}, and an IngressRoute cannot keep a user on one of them; \
             leave one service in the route, or use a TraefikService with sticky.cookie both in spec.weighted and in \
             its services",
            route.display(),
            entry.route,
            entry.name,
            others.join(", ")
        ),
    ))
}

fn cookie(cookie: &ResolvedCookie) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), cookie.name.clone().into());
    fields.insert("path".to_owned(), cookie.path.clone().into());
    fields.insert("secure".to_owned(), cookie.secure.into());
    fields.insert("httpOnly".to_owned(), cookie.http_only.into());
    fields.insert("maxAge".to_owned(), cookie.max_age_seconds.into());
    if let Some(value) = cookie.same_site {
        fields.insert("sameSite".to_owned(), same_site(value).into());
    }
    if let Some(domain) = &cookie.domain {
        fields.insert("domain".to_owned(), domain.clone().into());
    }
    fields
}

fn edit(entry: &Entry<'_>, field: &str, value: &Value) -> Edit {
    let pointer = entry.pointer();
    let rule = entry
        .rule
        .map(|rule| (format!("/spec/routes/{}/match", entry.route), rule.clone()));
    let identity = list_entries::guards(&pointer, entry.fields, &IDENTITY);
    Edit {
        guards: rule.into_iter().chain(identity).collect(),
        pointer: format!("{pointer}/{field}"),
        value: value.clone(),
    }
}

fn place(entry: &Entry<'_>) -> String {
    let service = service_and_port(entry.name, entry.port());
    format!(
        "spec.routes[{}].services[{}] ({service})",
        entry.route, entry.service
    )
}

/// Of hashing Traefik neither reads cookies nor leaves a terminating pod its users.
fn judge_strategy(mode: StickyMode, entries: &[&Entry<'_>], configured: &mut Configured) {
    if mode == StickyMode::ClientIP {
        configured.binds = Binds::Hash;
        configured.keeps_terminating_pods = false;
        configured.notes.push(
            "mode ClientIP: Traefik hashes the address from which the connection comes and ignores X-Forwarded-For; \
             users behind one NAT or proxy share a pod, and behind a load balancer that hides addresses all users may \
             share one: use the PROXY protocol at the entry point, externalTrafficPolicy: Local on Traefik's Service, \
             or mode Cookie"
                .to_owned(),
        );
        return;
    }
    for entry in entries {
        if entry.fields.get("strategy").and_then(Value::as_str) == Some(HRW) {
            configured.binds = Binds::Hash;
            configured.keeps_terminating_pods = false;
            configured.unsupported.push(format!(
                "cookie: {} has strategy: hrw, with which Traefik looks at client addresses and at no cookie; remove \
                 strategy",
                place(entry)
            ));
        }
    }
}
