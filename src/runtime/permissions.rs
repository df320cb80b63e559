//! What the operator may do at the API server: the one list that the self-test asks about and that the chart's roles
//! are compared with.
//!
//! A new kind of request needs a row here and a rule in the chart; a row that nothing needs any more is taken out.
//! Discovery and reviews of one's own access are open to every authenticated client and not listed.

/// Verbs on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// API group; "" is the core group.
    pub group: &'static str,
    /// Plural name.
    pub resource: &'static str,
    /// Subresource, if it is about one.
    pub subresource: Option<&'static str>,
    /// The only object that is asked for, if there is only one.
    pub name: Option<&'static str>,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn may(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Permission {
    Permission {
        group,
        resource,
        subresource: None,
        name: None,
        verbs,
    }
}

const FOLLOW: &[&str] = &["list", "watch"];
const FOLLOW_AND_PATCH: &[&str] = &["get", "list", "watch", "patch"];
const FOLLOW_AND_OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// In each namespace where the operator acts.
pub const NAMESPACED: &[Permission] = &[
    // The finalizer and the restore annotation are patches of the policy itself.
    may("session-operator.dev", "sessionpolicies", FOLLOW_AND_PATCH),
    Permission {
        subresource: Some("status"),
        ..may("session-operator.dev", "sessionpolicies", &["patch"])
    },
    may(
        "session-operator.dev",
        "sessionstores",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    Permission {
        subresource: Some("status"),
        ..may("session-operator.dev", "sessionstores", &["patch"])
    },
    may(
        "session-operator.dev",
        "sessioninjections",
        &["list", "watch", "create", "delete"],
    ),
    // The mark on the pod template.
    may("apps", "deployments", FOLLOW_AND_PATCH),
    // Which revisions a rollback could need.
    may("apps", "replicasets", &["list"]),
    // Created are preflights and, as dry runs, what admission makes of the target's pods. Of stores with several servers the
    // pods are labelled with what they are, and deleted one by one when their template is another one.
    may("", "pods", &["get", "list", "watch", "create", "patch", "delete"]),
    Permission {
        subresource: Some("eviction"),
        ..may("", "pods", &["create"])
    },
    // Read by name again and again: a watch would show every Secret of the cluster.
    may("", "secrets", &["get", "create", "patch", "delete"]),
    // Of applications patched, of stores made and deleted.
    may("", "services", FOLLOW_AND_OWN),
    may("apps", "statefulsets", FOLLOW_AND_OWN),
    may("", "persistentvolumeclaims", FOLLOW_AND_OWN),
    may("policy", "poddisruptionbudgets", FOLLOW_AND_OWN),
    // What may scale a target to zero, and its sessions with it.
    may("autoscaling", "horizontalpodautoscalers", &["list"]),
    may("keda.sh", "scaledobjects", &["list"]),
    // Why a StatefulSet cannot make its pod is said nowhere else.
    may("", "events", &["list"]),
    // Where each pod runs, for its sidecar.
    may("", "configmaps", &["get", "create", "patch", "delete"]),
    // What isolates the pods of a target, and the rule beside it that lets members reach each other.
    may("networking.k8s.io", "networkpolicies", FOLLOW_AND_OWN),
    may("networking.k8s.io", "ingresses", FOLLOW_AND_PATCH),
    may("traefik.io", "ingressroutes", FOLLOW_AND_PATCH),
    may("projectcontour.io", "httpproxies", FOLLOW_AND_PATCH),
    // Whether the namespace itself is being deleted. A request for one namespace counts as made inside it.
    may("", "namespaces", &["get"]),
    // An event that repeats is patched as a series.
    may("events.k8s.io", "events", &["create", "patch"]),
];

/// At cluster scope.
pub const CLUSTER: &[Permission] = &[
    may("networking.k8s.io", "ingressclasses", FOLLOW),
    // The zone of a node that carries a pod with a sidecar; kubelets that are too old for sidecars.
    may("", "nodes", &["get", "list"]),
    // Whether this cluster serves IngressRoutes and HTTPProxies. With a field selector for the name, list and watch count as
    // requests for that name.
    Permission {
        name: Some("ingressroutes.traefik.io"),
        ..may("apiextensions.k8s.io", "customresourcedefinitions", FOLLOW)
    },
    Permission {
        name: Some("httpproxies.projectcontour.io"),
        ..may("apiextensions.k8s.io", "customresourcedefinitions", FOLLOW)
    },
];

/// On the lease, in the namespace of the release.
pub const LEASE: Permission = may("coordination.k8s.io", "leases", &["get", "update"]);

/// In the namespace of the release, where there is no lease yet: a create has no name that a rule could match.
pub const LEASE_CREATE: Permission = may("coordination.k8s.io", "leases", &["create"]);

/// For the webhook, in each namespace where the operator acts.
pub const WEBHOOK: &[Permission] = &[may("session-operator.dev", "sessioninjections", &["get"])];

/// For the webhook, on its own configuration, at cluster scope.
pub const WEBHOOK_CONFIGURATION: Permission = may(
    "admissionregistration.k8s.io",
    "mutatingwebhookconfigurations",
    &["get", "patch"],
);

/// For the webhook, on the Secret with its key, in the namespace of the release.
pub const WEBHOOK_SECRET: Permission = may("", "secrets", &["get", "update"]);

/// For the webhook, in the namespace of the release, where the Secret was deleted: a create has no name that a rule
/// could match.
pub const WEBHOOK_SECRET_CREATE: Permission = may("", "secrets", &["create"]);
