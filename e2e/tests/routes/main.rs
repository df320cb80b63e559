//! Policies at work behind real ingress controllers, with real users of a real application.
//!
//! Each test has a namespace and a shop of its own, so they run side by side.

#[cfg(test)]
mod conditions;
#[cfg(test)]
mod ingress_nginx;
#[cfg(test)]
mod ingress_route;
#[cfg(test)]
mod long;
#[cfg(test)]
mod owners;
#[cfg(test)]
mod service;
#[cfg(test)]
mod support;
#[cfg(test)]
mod traefik_ingress;
