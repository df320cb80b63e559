//! What goes into planning affinity and what comes out.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::api::{Binds, Sticky};

/// Identity of the policy for which affinity is planned.
#[derive(Clone, Copy, Debug)]
pub struct PolicyIdentity<'a> {
    /// Namespace of the policy, and so of everything that may be written.
    pub namespace: &'a str,
    /// Name of the policy.
    pub name: &'a str,
    /// Uid of the policy.
    pub uid: &'a str,
}

/// The objects that decide on affinity, as last read. All lists are in a stable order (by name).
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The policy.
    pub policy: PolicyIdentity<'a>,
    /// The wish.
    pub sticky: &'a Sticky,
    /// The target.
    pub target: &'a Deployment,
    /// Every Service of the policy's namespace (planning itself finds those that select the target).
    pub services: &'a [Arc<Service>],
    /// Every Deployment of the policy's namespace: a Service that selects the pods of another one is shared.
    pub deployments: &'a [Arc<Deployment>],
    /// Every Ingress of the policy's namespace.
    pub ingresses: &'a [Arc<Ingress>],
    /// Every `IngressClass`.
    pub ingress_classes: &'a [Arc<IngressClass>],
    /// Every Traefik `IngressRoute` that the operator can see, in any namespace; those outside the policy's
    /// namespace are reported and never written. Empty where the kind is not served.
    pub ingress_routes: &'a [Arc<DynamicObject>],
    /// Every Contour `HTTPProxy` of the policy's namespace: it leads to Services of its own namespace only. Empty where the
    /// kind is not served.
    pub http_proxies: &'a [Arc<DynamicObject>],
    /// Whether the policy's strategy adds to the pods what hands users over when they end.
    pub hands_over: bool,
    /// The field manager under which this policy writes foreign objects.
    pub field_manager: &'a str,
}

/// Names an object that may be written, and which incarnation of it was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API version, such as `networking.k8s.io/v1`.
    pub api_version: String,
    /// Kind, such as `Ingress`.
    pub kind: String,
    /// Plural resource name, such as `ingresses`.
    pub plural: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid of the object that was looked at. Every write carries it, so that an object which was deleted
    /// meanwhile is not created anew.
    pub uid: String,
}

/// One intended change of a foreign object.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Server-side apply of some fields under the policy's own field manager.
    Apply {
        /// The object.
        object: ObjectKey,
        /// The fields, as a partial object without apiVersion, kind and identity.
        fields: Value,
        /// JSON pointers of fields that may be taken by force, if their live value is the API default and an
        /// Update manager owns them (a Service's `/spec/sessionAffinity` of `None`).
        takeable_defaults: Vec<DefaultedField>,
    },
    /// JSON Patch of entries of an atomic list, which server-side apply would replace as a whole.
    Patch {
        /// The object.
        object: ObjectKey,
        /// resourceVersion of the object that the edits were computed from.
        resource_version: String,
        /// The edits that make up the wanted state. Those whose value stands already are listed, too: whoever
        /// keeps a record of edits made has to see that they are still wanted. What is left to do says
        /// [`super::readback::missing_edits`].
        edits: Vec<Edit>,
    },
}

/// A field whose value, if it is the API default, nobody chose.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultedField {
    /// JSON pointer of the field.
    pub pointer: String,
    /// Its default.
    pub default: Value,
}

/// One edit of a list entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// JSON pointer of the field to set, such as `/spec/routes/0/services/1/sticky`.
    pub pointer: String,
    /// The value to set.
    pub value: Value,
    /// Values that identify the entry and must still stand when the edit is made or undone, such as the
    /// name and port of the service in it: (JSON pointer, value).
    pub guards: Vec<(String, Value)>,
}

/// A change that has to be made by the object's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The object, as Kind/name.
    pub object: String,
    /// Why the operator does not write it, e.g. the manager that would undo the write.
    pub because: String,
    /// Exact YAML to add.
    pub yaml: String,
}

/// Everything that can be said about affinity before anything is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Names of the Services that select the target's pods, in the order of [`Inputs::services`].
    pub services: Vec<String>,
    /// One entry per route that reaches one of them.
    pub routes: Vec<RoutePlan>,
    /// Why there is nothing to configure at all: no Service, or no route.
    pub refusal: Option<Refusal>,
}

/// Affinity as planned for one route.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// Kind of the route.
    pub kind: String,
    /// Namespace of the route.
    pub namespace: String,
    /// Name of the route.
    pub name: String,
    /// Controller that serves it, if recognised.
    pub controller: Option<String>,
    /// What can be had.
    pub outcome: PlanOutcome,
}

/// What can be had on one route.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanOutcome {
    /// Affinity is to be configured, or stands already.
    Configured(Configured),
    /// Nothing is written.
    Refused(Refusal),
    /// A route outside the policy's namespace: reported only, and no reason to be not ready.
    Reported(String),
}

/// Affinity that an adapter can configure.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured {
    /// Changes to make; those of one object are merged over all routes before they are applied.
    pub writes: Vec<Write>,
    /// What the owner has to change; then there are no writes for that object.
    pub advice: Option<Advice>,
    /// The objects that carry the setting, as `Kind/name`.
    pub written_to: Vec<String>,
    /// What a user will be bound to.
    pub binds: Binds,
    /// Whether the controller goes on sending a terminating pod its users.
    pub keeps_terminating_pods: bool,
    /// Wishes that cannot be had here, each with a remedy.
    pub unsupported: Vec<String>,
    /// Things to know.
    pub notes: Vec<String>,
}

impl ObjectKey {
    /// Names a Service.
    pub fn service(service: &Service) -> Self {
        Self::new("v1", "Service", "services", service)
    }

    /// Names an Ingress.
    pub fn ingress(ingress: &Ingress) -> Self {
        Self::new("networking.k8s.io/v1", "Ingress", "ingresses", ingress)
    }

    /// Names a Deployment.
    pub fn deployment(deployment: &Deployment) -> Self {
        Self::new("apps/v1", "Deployment", "deployments", deployment)
    }

    /// Names a Traefik `IngressRoute`.
    pub fn ingress_route(route: &DynamicObject) -> Self {
        Self::new("traefik.io/v1alpha1", "IngressRoute", "ingressroutes", route)
    }

    /// Names a Contour `HTTPProxy`.
    pub fn http_proxy(route: &DynamicObject) -> Self {
        Self::new("projectcontour.io/v1", "HTTPProxy", "httpproxies", route)
    }

    /// The object as `Kind/name`.
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    fn new<T: ResourceExt>(api_version: &str, kind: &str, plural: &str, object: &T) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        }
    }
}

impl Write {
    /// The object that is written.
    pub const fn object(&self) -> &ObjectKey {
        match self {
            Self::Apply { object, .. } | Self::Patch { object, .. } => object,
        }
    }
}

impl Refusal {
    /// A refusal with a reason of [`crate::api::conditions::reasons`].
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Why nothing is written on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A reason of [`crate::api::conditions::reasons`].
    pub reason: &'static str,
    /// A sentence that names the object and the remedy.
    pub message: String,
}
