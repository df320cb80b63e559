//! The kinds of objects that a report may hold.

use kube::core::{ApiResource, GroupVersionKind};

use crate::api::{GROUP, VERSION};

/// A kind of objects.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// As in manifests.
    pub name: &'static str,
    /// As in paths.
    pub plural: &'static str,
}

impl Kind {
    const fn new(
        group: &'static str,
        version: &'static str,
        name: &'static str,
        plural: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            name,
            plural,
        }
    }

    /// As the client needs it.
    pub fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.name),
            self.plural,
        )
    }
}

pub const POLICY: Kind = Kind::new(GROUP, VERSION, "SessionPolicy", "sessionpolicies");
pub const STORE: Kind = Kind::new(GROUP, VERSION, "SessionStore", "sessionstores");
pub const INJECTION: Kind = Kind::new(GROUP, VERSION, "SessionInjection", "sessioninjections");
pub const DEPLOYMENT: Kind = Kind::new("apps", "v1", "Deployment", "deployments");
pub const REPLICA_SET: Kind = Kind::new("apps", "v1", "ReplicaSet", "replicasets");
pub const STATEFUL_SET: Kind = Kind::new("apps", "v1", "StatefulSet", "statefulsets");
pub const POD: Kind = Kind::new("", "v1", "Pod", "pods");
pub const SERVICE: Kind = Kind::new("", "v1", "Service", "services");
pub const SECRET: Kind = Kind::new("", "v1", "Secret", "secrets");
pub const CONFIG_MAP: Kind = Kind::new("", "v1", "ConfigMap", "configmaps");
pub const EVENT: Kind = Kind::new("", "v1", "Event", "events");
pub const NODE: Kind = Kind::new("", "v1", "Node", "nodes");
pub const BUDGET: Kind = Kind::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets");
pub const NETWORK_POLICY: Kind = Kind::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies");
pub const LEASE: Kind = Kind::new("coordination.k8s.io", "v1", "Lease", "leases");

/// What may route to a Service.
pub const ROUTES: [Kind; 4] = [
    Kind::new("networking.k8s.io", "v1", "Ingress", "ingresses"),
    Kind::new("traefik.io", "v1alpha1", "IngressRoute", "ingressroutes"),
    Kind::new("projectcontour.io", "v1", "HTTPProxy", "httpproxies"),
    Kind::new("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
];

/// What may scale a target.
pub const SCALERS: [Kind; 2] = [
    Kind::new(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ),
    Kind::new("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
];
