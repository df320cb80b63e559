//! Reads the parts of Contour's `HTTPProxy` (`projectcontour.io/v1`) that matter here.
//!
//! The kind is read as plain JSON: what a cluster serves may be older or newer than any type of ours.

use kube::core::DynamicObject;
use serde_json::{Map, Value};

use super::entry_port::EntryPort;

/// One entry of `services[]`; always a Service of the object's own namespace.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'a> {
    /// Index in `services`.
    pub index: usize,
    /// The entry itself.
    pub fields: &'a Map<String, Value>,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Backend<'a> {
    /// The port that it names.
    pub fn port(&self) -> Option<EntryPort<'a>> {
        self.fields.get("port").and_then(EntryPort::of)
    }

    fn has_weight(&self) -> bool {
        let weight = self.fields.get("weight").and_then(Value::as_i64);
        weight.is_some_and(|weight| weight > 0)
    }

    /// Whether it gets copies of requests, whose answers nobody sees.
    fn is_mirror(&self) -> bool {
        self.fields.get("mirror") == Some(&Value::Bool(true))
    }
}

/// One entry of `spec.routes[]`.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Index in `spec.routes`.
    pub index: usize,
    /// The entry itself.
    pub fields: &'a Map<String, Value>,
    /// The services that answer its requests.
    pub backends: Vec<Backend<'a>>,
}

impl Entry<'_> {
    /// JSON pointer of the entry.
    pub fn pointer(&self) -> String {
        format!("/spec/routes/{}", self.index)
    }
}

/// Every route, in order. What has another shape than expected is left out: the API server refuses it, too.
pub fn entries(object: &DynamicObject) -> Vec<Entry<'_>> {
    let routes = object.data.pointer("/spec/routes").and_then(Value::as_array);
    let routes = routes.into_iter().flatten().enumerate();
    routes
        .filter_map(|(index, route)| {
            let fields = route.as_object()?;
            Some(Entry {
                index,
                fields,
                backends: backends(fields.get("services")),
            })
        })
        .collect()
}

/// The services to which `spec.tcpproxy` hands connections.
pub fn tcp_backends(object: &DynamicObject) -> Vec<Backend<'_>> {
    backends(object.data.pointer("/spec/tcpproxy/services"))
}

/// Every service that users reach.
pub fn all_backends(object: &DynamicObject) -> impl Iterator<Item = Backend<'_>> {
    let of_routes = entries(object).into_iter().flat_map(|entry| entry.backends);
    of_routes.chain(tcp_backends(object))
}

/// Those that get requests of users. An absent weight is 0, which is no share beside others that have one; where no
/// service has a weight, all get the same share.
fn backends(services: Option<&Value>) -> Vec<Backend<'_>> {
    let services = services.and_then(Value::as_array).into_iter().flatten();
    let found = services.enumerate().filter_map(|(index, service)| {
        let fields = service.as_object()?;
        let name = fields.get("name")?.as_str()?;
        Some(Backend { index, fields, name })
    });
    let mut backends: Vec<Backend<'_>> = found.filter(|backend| !backend.is_mirror()).collect();
    if backends.iter().any(Backend::has_weight) {
        backends.retain(Backend::has_weight);
    }
    backends
}
