//! Topology Cluster: shards, each a primary and replicas, that elect by themselves.
//!
//! Servers find out that a primary failed and elect another one, with the operator or without it. The operator does what they do
//! not: it makes the cluster of servers that know nobody, takes in those that come back as new ones, lets them forget those that are
//! gone, and hands over before it restarts a primary. As in [`super::replication`], whose pods and addresses these are: [`observe`]
//! looks at every server, [`decide()`] says what to do about it, without a client and without a clock, [`act`] does it, and [`watch`]
//! repeats that each second for every store. What has to outlive the operator is a [`record`] on the StatefulSet of the first shard;
//! all else is seen again.
//!
//! Nothing here ever empties a server on purpose, and no server that is empty gets the slots of a shard while another one may have
//! its sessions.

pub mod act;
pub mod decide;
pub mod nodes;
pub mod observe;
pub mod record;
pub mod report;
pub mod slots;
mod surroundings;
mod survey;
#[cfg(test)]
mod tests;
pub mod watch;

pub use decide::{Action, Decision, decide};
pub use nodes::{Node, State};
pub use record::Record;
pub use slots::Slots;

use super::material::Material;
use super::replication::{self, Address, Pod, servers};
use super::validate::Validated;

/// What a server answers.
pub type Server = replication::Server<Box<State>>;

/// How the servers of a store are watched.
pub fn plan(store: &Validated, material: &Material) -> watch::Plan {
    watch::Plan {
        names: store.names.clone(),
        shards: store.shards.len(),
        per_shard: store.servers_per_shard(),
        access: servers::access(store, material),
    }
}

/// Everything that a decision stands on.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Number of shards that are asked for.
    pub shards: usize,
    /// The servers that there are or are to be, by shard and ordinal.
    pub members: Vec<Member>,
    /// What was recorded.
    pub record: Record,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name of its pod.
    pub name: String,
    /// Number of its shard.
    pub shard: usize,
    /// Its pod.
    pub pod: Pod,
    /// Where it is reached.
    pub address: Address,
    /// What it answers.
    pub server: Server,
    /// Whether it is one of those that are to go because the spec asks for fewer in each shard.
    pub leaving: bool,
    /// Whether a volume of its own exists, which may hold sessions.
    pub volume: bool,
}

impl Member {
    /// What it says of itself, if it answers.
    pub fn state(&self) -> Option<&State> {
        match &self.server {
            Server::Answers(state) => Some(state),
            Server::Down | Server::Silent(_) => None,
        }
    }

    /// By which name the others know it, if it answers.
    pub fn id(&self) -> Option<&str> {
        self.state().map(|state| state.id.as_str())
    }

    /// Whether it is a primary that has a part of the sessions.
    pub fn is_owner(&self) -> bool {
        self.state()
            .is_some_and(|state| !state.is_replica() && !state.slots().is_empty())
    }

    /// Whether it follows `primary` and has everything that it sent.
    pub fn is_synced(&self, primary: &Self) -> bool {
        self.state().is_some_and(|state| {
            state.primary() == primary.id() && state.link.up && !state.link.syncing && !state.loading
        })
    }

    /// Whether it cannot write to its volume.
    pub fn disk_failed(&self) -> bool {
        self.state().is_some_and(|state| state.disk_failed)
    }

    /// Whether what was in a process of it before this one may come back: it is on a volume, or that process may still run.
    pub fn may_return(&self) -> bool {
        self.volume || (self.pod.uid.is_some() && self.pod.running)
    }
}
