//! What a process tells about itself: `ctl state`.

use serde::Serialize;
use std::collections::BTreeMap;

use super::node::Node;
use super::upstream::CopyIn;

/// The state of a process.
#[derive(Debug, Serialize)]
pub struct State {
    /// `Joining`, `Active`, `Draining` or `Left`.
    pub state: &'static str,
    /// Whether the pod should get requests.
    pub ready: bool,
    /// Whether everything is handed over.
    pub drained: bool,
    /// Entries, those of deleted keys included.
    pub entries: usize,
    /// Deleted keys that are still remembered.
    pub tombstones: usize,
    /// Bytes that sessions take.
    pub used_bytes: usize,
    /// Bytes that they may take; 0 for no limit.
    pub memory_limit: usize,
    /// Client connections.
    pub connections: u64,
    /// Commands that wait for other members.
    pub pending: usize,
    /// Links to other members.
    pub links: usize,
    /// Bytes sent to other members since the start.
    pub sent_bytes: u64,
    /// The other members.
    pub members: Vec<Member>,
    /// The upstream store, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamState>,
    /// Commands that clients sent and that are not spoken here: an application that uses the sidecar for more than
    /// sessions shows up in this list.
    pub unsupported_commands: BTreeMap<&'static str, u64>,
}

/// Another member.
#[derive(Debug, Serialize)]
pub struct Member {
    /// The pod's name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its state.
    pub state: &'static str,
    /// Whether it is routed around.
    pub suspect: bool,
    /// Whether there is a link.
    pub linked: bool,
    /// Changes that it has not confirmed.
    pub lag: u64,
}

/// The upstream store.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is told by itself")]
pub struct UpstreamState {
    /// Whether clients are passed on to it instead of being answered from here.
    pub follows: bool,
    /// Whether new clients wait (`ctl hold`).
    pub held: bool,
    /// Whether the last attempt to write there came through.
    pub connected: bool,
    /// Changes of this member that are not there yet.
    pub pending: u64,
    /// Changes of this member that are there.
    pub written: u64,
    /// Look-ups that found a session there.
    pub fetched: u64,
    /// Look-ups that found nothing there.
    pub missed: u64,
    /// Look-ups that got no answer.
    pub failed: u64,
    /// Copying everything from there (`ctl copy-in`).
    pub copy_in: CopyIn,
    /// How often copying everything there was begun (`ctl copy-out`).
    pub copy_out_begun: u64,
    /// Whether it is under way.
    pub copy_out_running: bool,
    /// Whether it was begun, once more and for the latest changes only, while new clients wait.
    pub copy_out_held: bool,
    /// Entries that copying everything there has put on their way; they are there when `pending` is 0.
    pub copy_out_entries: u64,
}

impl State {
    /// The state at this moment.
    pub fn of(node: &Node) -> Self {
        let stats = node.core.stats();
        Self {
            state: stats.state.name(),
            ready: node.phase.is_ready(),
            drained: node.phase.drained,
            entries: stats.entries,
            tombstones: stats.tombstones,
            used_bytes: stats.used_bytes,
            memory_limit: node.server.settings.memory_limit,
            connections: node.server.stats.connections_open,
            pending: stats.pending,
            links: node.links.len(),
            sent_bytes: node.links.sent_bytes,
            members: stats
                .members
                .into_iter()
                .map(|member| Member {
                    name: member.name,
                    address: member.address,
                    state: member.state.name(),
                    suspect: member.suspect,
                    linked: member.linked,
                    lag: member.lag,
                })
                .collect(),
            upstream: upstream(node),
            unsupported_commands: node.server.stats.unsupported.clone(),
        }
    }
}

fn upstream(node: &Node) -> Option<UpstreamState> {
    let stats = node.core.upstream_stats()?;
    let upstream = node.upstream.as_ref()?;
    let copy_in = *upstream.copy.borrow();
    Some(UpstreamState {
        follows: node.follows,
        held: node.held,
        connected: stats.connected,
        pending: stats.pending,
        written: stats.written,
        fetched: stats.fetched,
        missed: stats.missed,
        failed: stats.failed,
        copy_in,
        copy_out_begun: upstream.copies_out.get(),
        copy_out_running: stats.copying,
        copy_out_held: node.held && upstream.copied_in_hold.get() == Some(node.holds),
        copy_out_entries: stats.copied,
    })
}
