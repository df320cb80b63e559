//! A namespace as planning sees it, from minimal YAML.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::affinity::model::{
    Configured, Edit, Inputs, Plan, PlanOutcome, PolicyIdentity, Refusal, RoutePlan, Write,
};
use crate::api::Sticky;

/// The target of every fixture; its name is unlike the policy's, so that a mix-up shows.
pub const TARGET: &str = "
kind: Deployment
metadata: {name: storefront, namespace: web, uid: d-1}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop, tier: front}}
    spec: {containers: [{name: php}]}
";

pub const SERVICE: &str = "
kind: Service
metadata: {name: shop-svc, namespace: web, uid: s-1}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
";

pub const TRAEFIK_CLASS: &str = "
kind: IngressClass
metadata: {name: edge}
spec: {controller: traefik.io/ingress-controller}
";

pub const NGINX_CLASS: &str = "
kind: IngressClass
metadata: {name: edge}
spec: {controller: k8s.io/ingress-nginx}
";

pub const INGRESS: &str = "
kind: Ingress
metadata: {name: shop-ing, namespace: web, uid: i-1}
spec:
  ingressClassName: edge
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop-svc, port: {number: 80}}}}]}
";

/// Objects of a namespace, and a wish.
#[derive(Default)]
pub struct World {
    services: Vec<Arc<Service>>,
    deployments: Vec<Arc<Deployment>>,
    ingresses: Vec<Arc<Ingress>>,
    classes: Vec<Arc<IngressClass>>,
    ingress_routes: Vec<Arc<DynamicObject>>,
    http_proxies: Vec<Arc<DynamicObject>>,
    sticky: Sticky,
    policy: Option<String>,
}

pub fn parse<T: DeserializeOwned>(yaml: &str) -> T {
    let value: Value = serde_saphyr::from_str(yaml).expect("fixture is YAML");
    serde_json::from_value(value).expect("fixture has the shape of its kind")
}

impl World {
    /// The target and what the YAML documents hold.
    pub fn new(documents: &[&str]) -> Self {
        let mut world = Self::default();
        world.add(TARGET);
        for document in documents {
            world.add(document);
        }
        world
    }

    pub fn add(&mut self, yaml: &str) {
        let value: Value = serde_saphyr::from_str(yaml).expect("fixture is YAML");
        match value["kind"].as_str().expect("fixture has a kind") {
            "Service" => self.services.push(Arc::new(parse(yaml))),
            "Deployment" => self.deployments.push(Arc::new(parse(yaml))),
            "Ingress" => self.ingresses.push(Arc::new(parse(yaml))),
            "IngressClass" => self.classes.push(Arc::new(parse(yaml))),
            "HTTPProxy" => self.http_proxies.push(Arc::new(parse(yaml))),
            "IngressRoute" => self.ingress_routes.push(Arc::new(parse(yaml))),
            other => panic!("no fixture of kind {other}"),
        }
    }

    pub fn sticky(mut self, yaml: &str) -> Self {
        self.sticky = parse(yaml);
        self
    }

    pub fn policy(mut self, name: &str) -> Self {
        self.policy = Some(name.to_owned());
        self
    }

    pub fn plan(&self) -> Plan {
        let target = self.deployments.first().expect("the target");
        crate::affinity::plan(&Inputs {
            policy: PolicyIdentity {
                namespace: "web",
                name: self.policy.as_deref().unwrap_or("keep"),
                uid: "p-1",
            },
            sticky: &self.sticky,
            target,
            services: &self.services,
            deployments: &self.deployments,
            ingresses: &self.ingresses,
            ingress_classes: &self.classes,
            ingress_routes: &self.ingress_routes,
            http_proxies: &self.http_proxies,
            hands_over: false,
            field_manager: "session-operator.p-1",
        })
    }

    /// The plan of the only route.
    pub fn route(&self) -> RoutePlan {
        let plan = self.plan();
        assert_eq!(plan.routes.len(), 1, "{plan:#?}");
        plan.routes[0].clone()
    }

    pub fn configured(&self) -> Configured {
        configured(&self.route())
    }

    pub fn refused(&self) -> Refusal {
        refused(&self.route())
    }
}

/// A plan in a shape that reads well in a snapshot.
pub fn summary(plan: &Plan) -> Value {
    json!({
        "services": plan.services,
        "routes": plan.routes.iter().map(route_summary).collect::<Vec<_>>(),
        "refusal": plan.refusal.as_ref().map(refusal_summary),
    })
}

fn route_summary(route: &RoutePlan) -> Value {
    let outcome = match &route.outcome {
        PlanOutcome::Configured(configured) => json!({ "Configured": {
            "writes": configured.writes.iter().map(write_summary).collect::<Vec<_>>(),
            "advice": configured.advice.as_ref().map(|advice| json!({
                "object": advice.object, "because": advice.because, "yaml": advice.yaml,
            })),
            "writtenTo": configured.written_to,
            "binds": configured.binds,
            "keepsTerminatingPods": configured.keeps_terminating_pods,
            "unsupported": configured.unsupported,
            "notes": configured.notes,
        } }),
        PlanOutcome::Refused(refusal) => json!({ "Refused": refusal_summary(refusal) }),
        PlanOutcome::Reported(why) => json!({ "Reported": why }),
    };
    json!({
        "route": format!("{} {}/{}", route.kind, route.namespace, route.name),
        "controller": route.controller,
        "outcome": outcome,
    })
}

fn refusal_summary(refusal: &Refusal) -> Value {
    json!({ "reason": refusal.reason, "message": refusal.message })
}

pub fn write_summary(write: &Write) -> Value {
    let object = write.object();
    let object = format!(
        "{} {} ({}) {}/{} {}",
        object.api_version, object.kind, object.plural, object.namespace, object.name, object.uid
    );
    match write {
        Write::Apply {
            fields,
            takeable_defaults,
            ..
        } => json!({
            "apply": object,
            "fields": fields,
            "takeableDefaults": takeable_defaults
                .iter()
                .map(|field| json!({ field.pointer.clone(): field.default }))
                .collect::<Vec<_>>(),
        }),
        Write::Patch {
            resource_version,
            edits,
            ..
        } => json!({
            "patch": object,
            "resourceVersion": resource_version,
            "edits": edits.iter().map(|edit| json!({
                "set": edit.pointer,
                "to": edit.value,
                "if": edit.guards.iter().map(|(pointer, value)| json!({ pointer: value })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }),
    }
}

/// The fields of the only write, which has to be an apply.
pub fn applied(configured: &Configured) -> Value {
    match configured.writes.as_slice() {
        [Write::Apply { fields, .. }] => fields.clone(),
        other => panic!("{other:?}"),
    }
}

/// The edits of the only write, which has to be a patch.
pub fn edits(configured: &Configured) -> Vec<Edit> {
    match configured.writes.as_slice() {
        [Write::Patch { edits, .. }] => edits.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn configured(route: &RoutePlan) -> Configured {
    match &route.outcome {
        PlanOutcome::Configured(configured) => configured.clone(),
        other => panic!("{} {}: {other:?}", route.kind, route.name),
    }
}

pub fn refused(route: &RoutePlan) -> Refusal {
    match &route.outcome {
        PlanOutcome::Refused(refusal) => refusal.clone(),
        other => panic!("{} {}: {other:?}", route.kind, route.name),
    }
}
