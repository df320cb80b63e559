//! Reads the parts of a Traefik `IngressRoute` (`traefik.io/v1alpha1`) that matter here.
//!
//! The kind is read as plain JSON: what a cluster serves may be older or newer than any type of ours.

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Map, Value};

use super::entry_port::EntryPort;

/// One entry of `spec.routes[].services[]`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Index in `spec.routes`.
    pub route: usize,
    /// Index in `services` of that route.
    pub service: usize,
    /// The route's `match`.
    pub rule: Option<&'a Value>,
    /// The entry itself.
    pub fields: &'a Map<String, Value>,
    /// Its kind; `Service` where it names none.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Entry<'a> {
    /// Whether the entry names a Service.
    pub fn is_service(&self) -> bool {
        self.kind == "Service"
    }

    /// Whether the entry names a `TraefikService` that somebody made (Traefik's own end in `@internal`).
    pub fn is_traefik_service(&self) -> bool {
        self.kind == "TraefikService" && !self.name.ends_with("@internal")
    }

    /// The namespace of what it names.
    pub fn namespace(&self, object: &DynamicObject) -> String {
        match self.fields.get("namespace").and_then(Value::as_str) {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ => object.namespace().unwrap_or_default(),
        }
    }

    /// The port that it names.
    pub fn port(&self) -> Option<EntryPort<'a>> {
        self.fields.get("port").and_then(EntryPort::of)
    }

    /// JSON pointer of the entry.
    pub fn pointer(&self) -> String {
        format!("/spec/routes/{}/services/{}", self.route, self.service)
    }
}

/// Every entry of every route, in order. What has another shape than expected is left out: Traefik ignores
/// it, too.
pub fn entries(object: &DynamicObject) -> Vec<Entry<'_>> {
    let Some(routes) = object.data.pointer("/spec/routes").and_then(Value::as_array) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (route_index, route) in routes.iter().enumerate() {
        let services = route.get("services").and_then(Value::as_array);
        for (service_index, service) in services.into_iter().flatten().enumerate() {
            let Some(fields) = service.as_object() else {
                continue;
            };
            let Some(name) = fields.get("name").and_then(Value::as_str) else {
                continue;
            };
            found.push(Entry {
                route: route_index,
                service: service_index,
                rule: route.get("match"),
                fields,
                kind: fields.get("kind").and_then(Value::as_str).unwrap_or("Service"),
                name,
            });
        }
    }
    found
}
