//! The contract of an affinity adapter, and the list of them.
//!
//! One more controller is one file with an [`Adapter`], one line in [`ADAPTERS`], and, so that a policy can
//! name it, one variant of [`StickyController`].

use std::fmt;

use super::contour_http_proxy::ContourHttpProxy;
use super::cookie::ResolvedCookie;
use super::detect::Served;
use super::ingress_nginx::IngressNginx;
use super::model::{Configured, Inputs, Refusal};
use super::routes::{Route, RouteKind};
use super::service_client_ip::ServiceClientIp;
use super::tls;
use super::traefik_ingress::TraefikIngress;
use super::traefik_ingress_route::TraefikIngressRoute;
use crate::api::{StickyController, StickyMode};

/// Every adapter. Of two that claim a route the first one gets it.
pub static ADAPTERS: &[&dyn Adapter] = &[
    &TraefikIngress,
    &TraefikIngressRoute,
    &IngressNginx,
    &ContourHttpProxy,
    &ServiceClientIp,
];

/// Knows how one controller is told to keep users on their pods, for one kind of route.
///
/// An adapter only looks and says: it holds no client and no state, and gives the same answer for the same
/// objects. Whether a route is the adapter's, whether its Services are shared with other Deployments and what
/// a drain needs is decided outside, in the same way for all.
pub trait Adapter: Send + Sync {
    /// The controller, as `spec.sticky.controller` names it.
    fn controller(&self) -> StickyController;

    /// The kind of route that it handles.
    fn kind(&self) -> RouteKind;

    /// Values of `spec.controller` of an `IngressClass` by which its routes are recognised. Only for kinds that
    /// have a class; a kind that is one controller's own needs none.
    fn class_controllers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Values of the annotation `kubernetes.io/ingress.class` that the controller takes without there being an
    /// `IngressClass` of that name.
    fn class_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Other controllers that claim the same class strings and read the same fields. Where there are any, only
    /// the common subset is written and only the weaker of the promises made.
    fn also_read_by(&self) -> &'static [StickyController] {
        &[]
    }

    /// Whether it writes the attributes of the cookie, as they were decided for all routes. Of a controller whose cookie is
    /// its own only the adapter itself speaks.
    fn writes_cookie(&self) -> bool {
        true
    }

    /// Whether the route says that all its users come over TLS.
    fn has_tls(&self, route: &Route<'_>) -> bool {
        tls::declared(route)
    }

    /// What to write for this route, and what that will be worth.
    ///
    /// # Errors
    /// A [`Refusal`] with the remedy, if the route cannot have what is wished for; then nothing is written.
    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, served: &Served) -> Result<Configured, Refusal>;
}

impl fmt::Debug for dyn Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {}", self.controller(), self.kind().as_str())
    }
}

/// What adapters know beyond their route.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Everything that was read.
    pub inputs: &'a Inputs<'a>,
    /// The cookie, the same on every route of the policy.
    pub cookie: ResolvedCookie,
    /// Every route of the policy's namespace that reaches the target.
    pub routes: &'a [Route<'a>],
}

impl Scope<'_> {
    /// The wished-for mode.
    pub const fn mode(&self) -> StickyMode {
        self.inputs.sticky.mode
    }

    /// The routes other than `route` that reach the Service of that name.
    pub fn other_routes_to(&self, service: &str, route: &Route<'_>) -> impl Iterator<Item = &Route<'_>> {
        self.routes
            .iter()
            .filter(|other| other.kind() != route.kind() || other.name != route.name)
            .filter(move |other| other.reaches.iter().any(|reached| reached.name == service))
    }
}
