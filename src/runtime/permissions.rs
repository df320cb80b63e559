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

/// In each namespace where the operator acts.
pub const NAMESPACED: &[Permission] = &[
    // The finalizer and the restore annotation are patches of the policy itself.
    may("session-operator.dev", "sessionpolicies", FOLLOW_AND_PATCH),
    Permission {
        subresource: Some("status"),
        ..may("session-operator.dev", "sessionpolicies", &["patch"])
    },
    may("apps", "deployments", FOLLOW),
    may("", "services", FOLLOW_AND_PATCH),
    may("networking.k8s.io", "ingresses", FOLLOW_AND_PATCH),
    may("traefik.io", "ingressroutes", FOLLOW_AND_PATCH),
    // Whether the namespace itself is being deleted. A request for one namespace counts as made inside it.
    may("", "namespaces", &["get"]),
    // An event that repeats is patched as a series.
    may("events.k8s.io", "events", &["create", "patch"]),
];

/// At cluster scope.
pub const CLUSTER: &[Permission] = &[
    may("networking.k8s.io", "ingressclasses", FOLLOW),
    // Whether this cluster serves IngressRoutes. With a field selector for the name, list and watch count as requests
    // for that name.
    Permission {
        name: Some("ingressroutes.traefik.io"),
        ..may("apiextensions.k8s.io", "customresourcedefinitions", FOLLOW)
    },
];

/// On the lease, in the namespace of the release.
pub const LEASE: Permission = may("coordination.k8s.io", "leases", &["get", "update"]);

/// In the namespace of the release, where there is no lease yet: a create has no name that a rule could match.
pub const LEASE_CREATE: Permission = may("coordination.k8s.io", "leases", &["create"]);
