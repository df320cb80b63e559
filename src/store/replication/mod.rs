//! Topology Replicated: one primary, replicas that follow it, and the operator that says who is what.
//!
//! A server never makes itself primary: it starts as a replica of nobody and refuses to serve ([`super::build`]). So whoever is
//! primary was made so since its process started, and has what a primary has to have. The rest is here: [`observe`] looks at
//! every server, [`decide()`] says what to do about it, without a client and without a clock, [`act`] does it, and [`watch`]
//! repeats that each second for every store. What has to outlive the operator is a [`record`] on the StatefulSet.
//!
//! Nothing here ever empties a server on purpose: a server that follows another one takes over what that one has, so it is told
//! to only when that one is the primary.

pub mod act;
pub mod decide;
mod guard;
pub mod info;
pub mod observe;
pub mod pods;
pub mod record;
pub mod report;
pub mod servers;
mod surroundings;
mod waiting;
pub mod watch;

#[cfg(test)]
mod tests;

pub use decide::{Action, Decision, Waits, decide};
pub use info::{Role, State};
pub use record::Record;

use std::time::Duration;

/// Everything that a decision stands on.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The servers that there are or are to be, by ordinal.
    pub members: Vec<Member>,
    /// What was recorded.
    pub record: Record,
    /// The server that the Service leads to, if it leads to one.
    pub led_to: Option<String>,
    /// How long there has been no primary.
    pub without_primary: Duration,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name of its pod.
    pub name: String,
    /// Its pod.
    pub pod: Pod,
    /// Where it is reached.
    pub address: Address,
    /// What it answers.
    pub server: Server,
    /// Whether it is one of those that are to go because the spec asks for fewer.
    pub leaving: bool,
    /// Whether a volume of its own exists, which may hold sessions.
    pub volume: bool,
}

/// Where a server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// IP address. Empty while there is none.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The name that it tells others.
    pub announced: String,
}

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Pod {
    /// Its uid; absent if there is no such pod.
    pub uid: Option<String>,
    /// Whether its server's container has ever run.
    pub started: bool,
    /// Whether its server's container runs.
    pub running: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it was made from an older template.
    pub outdated: bool,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server<T = State> {
    /// It answers.
    Answers(T),
    /// Nobody listens at its address, or there is none.
    Down,
    /// It may be there, but the operator gets no answer; the sentence says what it gets.
    Silent(String),
}

impl Member {
    /// What it says of itself, if it answers.
    pub fn state(&self) -> Option<&State> {
        match &self.server {
            Server::Answers(state) => Some(state),
            Server::Down | Server::Silent(_) => None,
        }
    }

    /// Whether it takes writes.
    pub fn is_primary(&self) -> bool {
        self.state().is_some_and(|state| state.role == Role::Primary)
    }

    /// Whether it follows `primary`, connected or not.
    pub fn follows(&self, primary: &Self) -> bool {
        match self.state().map(|state| &state.role) {
            Some(Role::Replica(link)) => {
                link.port == primary.address.port
                    && (link.host == primary.address.host || link.host == primary.address.announced)
            }
            _ => false,
        }
    }

    /// Whether it follows `primary` and has everything that it sent.
    pub fn is_synced(&self, primary: &Self) -> bool {
        let connected = match self.state().map(|state| &state.role) {
            Some(Role::Replica(link)) => link.up && !link.syncing,
            _ => false,
        };
        connected && self.follows(primary)
    }

    /// Whether it cannot write to its volume.
    pub fn disk_failed(&self) -> bool {
        self.state().is_some_and(|state| state.disk_failed)
    }

    /// Whether it may hold sessions that nobody has seen.
    fn may_hold_unseen(&self) -> bool {
        match &self.server {
            Server::Answers(state) => state.loading,
            // What is not on a volume ends with the pod.
            Server::Down | Server::Silent(_) => self.volume || (self.pod.uid.is_some() && self.pod.running),
        }
    }
}
