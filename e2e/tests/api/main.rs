//! The operator against a real API server: admission, server-side apply, conflicts, undo, roles, restarts.
//!
//! The operator is the real binary in a process of its own, with no more rights than the chart gives it. `make
//! test-api` starts everything that is needed.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod own;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod wait;
#[cfg(test)]
mod world;

#[cfg(test)]
mod afterwards;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clustered_stores;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod http_proxy;
#[cfg(test)]
mod ingress_route;
#[cfg(test)]
mod injection;
#[cfg(test)]
mod invalid;
#[cfg(test)]
mod many_stores;
#[cfg(test)]
mod memcached;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod peer_access;
#[cfg(test)]
mod replicated_stores;
#[cfg(test)]
mod restores;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod scopes;
#[cfg(test)]
mod shared_ingress;
#[cfg(test)]
mod steady_state;
#[cfg(test)]
mod store_conditions;
#[cfg(test)]
mod store_rotation;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod stores_in_use;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod traefik_ingress;
#[cfg(test)]
mod undo;
