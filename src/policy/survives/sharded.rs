//! Sessions in a store with shards: what each event of the store means for them.

use super::{Row, reasons};
use crate::api::{Event, Outcome};
use crate::policy::sessions::source::Shards;

/// The row of an event that shards decide; nothing for all others.
pub fn row(name: &str, persistent: bool, shards: Shards, webhook: bool, event: Event) -> Option<Row> {
    match event {
        Event::StoreRestart => Some(store_restart(name, persistent, shards)),
        Event::NodeLoss => Some(node_loss(name, persistent, shards)),
        Event::OperatorDown if !webhook => Some(operator_down(name, persistent, shards)),
        _ => None,
    }
}

/// How many shards are alone.
fn alone(shards: Shards) -> String {
    let alone = shards.count.saturating_sub(shards.covered);
    format!("{alone} of {} shards", shards.count)
}

fn store_restart(name: &str, persistent: bool, shards: Shards) -> Row {
    if shards.covered >= shards.count {
        return (
            Outcome::Kept,
            reasons::STORE_FAILS_OVER,
            format!(
                "SessionStore {name} restarts its replicas first, and the primary of each shard hands over to one that has \
                 everything before it restarts; when a primary crashes, the others elect a replica of it within seconds, and what \
                 was confirmed in the last moment before may be missing"
            ),
        );
    }
    let outcome = if shards.covered == 0 && !persistent {
        Outcome::Lost
    } else {
        Outcome::Partly
    };
    (
        outcome,
        reasons::SHARD_ALONE,
        format!(
            "{} of SessionStore {name} have no replica with everything now: when the only server of a shard restarts, {}",
            alone(shards),
            if persistent {
                "requests for its sessions fail until it is back, and a crash loses what was written in the last second"
            } else {
                "its part of the sessions is lost"
            }
        ),
    )
}

fn node_loss(name: &str, persistent: bool, shards: Shards) -> Row {
    if shards.elsewhere >= shards.count && !shards.voters_together {
        return (
            Outcome::Kept,
            reasons::STORE_FAILS_OVER,
            format!(
                "every shard of SessionStore {name} has a replica with everything on another node than its primary, and no node \
                 carries half of the primaries: when a node is lost, the others elect within seconds, and what was confirmed in \
                 the last moment before may be missing"
            ),
        );
    }
    if shards.elsewhere >= shards.count {
        return (
            Outcome::Partly,
            reasons::STORE_ON_ONE_NODE,
            format!(
                "all are kept, but some node carries half of the primaries of SessionStore {name} or more: when it is lost, too few \
                 are left to elect, and nobody reaches its part of the sessions until its pods are deleted and the operator lets \
                 replicas take over"
            ),
        );
    }
    let apart = shards.count - shards.elsewhere;
    (
        Outcome::Partly,
        reasons::STORE_ON_ONE_NODE,
        format!(
            "{apart} of {} shards of SessionStore {name} have no replica with everything on another node than their primary: when \
             that node is lost, {}",
            shards.count,
            if persistent {
                "nobody finds the sessions in them until the volume can be attached elsewhere"
            } else {
                "the sessions in them are lost"
            }
        ),
    )
}

fn operator_down(name: &str, persistent: bool, shards: Shards) -> Row {
    if shards.covered < shards.count {
        return (
            Outcome::Partly,
            reasons::SHARD_ALONE,
            format!(
                "sessions are kept and served, but {} of SessionStore {name} have no replica with everything now: when the only \
                 server of one of them fails, nobody takes over",
                alone(shards)
            ),
        );
    }
    (
        Outcome::Kept,
        reasons::STORE_FAILS_OVER,
        format!(
            "the servers of SessionStore {name} elect a new primary by themselves{}; new pods get the same without the operator",
            if persistent {
                ""
            } else {
                "; a server that comes back is none of them before the operator takes it in, so a second failure in the same shard is \
                 one too many"
            }
        ),
    )
}
