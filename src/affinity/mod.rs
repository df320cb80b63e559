//! Session affinity on ingress controllers: which routes reach a target, whose they are, and what to
//! write where.
//!
//! Everything here is pure: [`plan`] looks at objects that were read before and says what should be written.
//! It never holds a client. One controller (or one kind of route of a controller) is one file with an
//! [`adapter::Adapter`] in it.

pub mod adapter;
mod contour_http_proxy;
mod cookie;
mod detect;
pub mod discovery;
pub mod drain;
mod entry_port;
mod http_proxy;
mod ingress_nginx;
mod ingress_route;
mod list_entries;
mod merge;
pub mod model;
mod ownership;
mod planner;
pub mod readback;
mod routes;
mod select;
mod service_client_ip;
mod tls;
mod traefik_ingress;
mod traefik_ingress_route;

pub use merge::merge_writes;
pub use model::{Inputs, Plan};
pub use planner::plan;
pub use readback::{missing_edits, missing_fields};

#[cfg(test)]
mod tests;
