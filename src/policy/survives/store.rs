//! Sessions in a store: what each event means for them.

use super::replicated::Pods;
use super::{Row, reasons, sharded};
use crate::api::session_store::Engine;
use crate::api::{Event, Outcome};
use crate::policy::sessions::source::Promise;

/// What is known of pods and store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts<'a> {
    /// Pods that contain what makes them use the store.
    pub injected: u32,
    /// Pods of the target.
    pub total: u32,
    /// Whether the template is marked, so that pods to come use the store.
    pub marked: bool,
    /// What the store promises; `Err` with a sentence while it cannot be used.
    pub store: Result<&'a Promise, &'a str>,
    /// Whether a webhook in the operator injects, so that pods cannot start without the operator.
    pub webhook: bool,
}

/// How far the store decides.
pub enum Reach {
    /// No pod uses it.
    None,
    /// These rows, for every event.
    Rows(Vec<(Event, Row)>),
}

/// The rows of a target whose sessions are in a store.
pub fn rows(facts: &StoreFacts<'_>) -> Reach {
    if !facts.marked || (facts.injected == 0 && facts.total > 0) {
        return Reach::None;
    }
    let events = [
        Event::ContainerRestart,
        Event::PodLoss,
        Event::RollingUpdate,
        Event::ScaleUp,
        Event::ScaleDown,
        Event::ScaleToZero,
        Event::NodeLoss,
        Event::StoreRestart,
        Event::StoreLoss,
        Event::OperatorDown,
    ];
    Reach::Rows(
        events
            .into_iter()
            .map(|event| (event, row(facts, event)))
            .collect(),
    )
}

fn row(facts: &StoreFacts<'_>, event: Event) -> Row {
    let promise = match facts.store {
        Ok(promise) => promise,
        Err(why) => {
            return (
                Outcome::Lost,
                reasons::STORE_NOT_READY,
                format!("the store cannot be used now, so nobody finds their session: {why}"),
            );
        }
    };
    if facts.injected < facts.total {
        return (
            Outcome::Partly,
            reasons::NOT_ALL_INJECTED,
            format!(
                "{} of {} pods keep their sessions in the store; sessions of the other pods end with them and are found on no other pod",
                facts.injected, facts.total
            ),
        );
    }
    if let Promise::Pods {
        mode,
        backups,
        confirmed_alone,
        nodes,
        replicas,
        cautions,
    } = promise
    {
        let pods = Pods {
            mode: *mode,
            backups: *backups,
            confirmed_alone: *confirmed_alone,
            nodes: *nodes,
            replicas: *replicas,
            cautions,
            webhook: facts.webhook,
        };
        return pods.row(event);
    }
    if let Promise::Store {
        name,
        persistent,
        shards: Some(shards),
        ..
    } = promise
        && let Some(row) = sharded::row(name, *persistent, *shards, facts.webhook, event)
    {
        return row;
    }
    match event {
        Event::StoreRestart => store_restart(promise),
        Event::StoreLoss => (
            Outcome::Lost,
            reasons::STORE_HAS_ALL,
            "every session is in the store: all are lost with it".to_owned(),
        ),
        Event::NodeLoss => node_loss(promise),
        Event::OperatorDown if has_replicas(promise) => operator_down(facts.webhook),
        Event::OperatorDown if facts.webhook => (
            Outcome::Partly,
            reasons::WEBHOOK_NEEDED,
            "sessions are kept, but while no replica of the operator runs, pods that should use the store cannot start: \
             admission of them fails"
                .to_owned(),
        ),
        Event::OperatorDown => (
            Outcome::Kept,
            reasons::IN_STORE,
            "the store, the Secret and the admission policy stay as they are; new pods get the same without the operator"
                .to_owned(),
        ),
        Event::ContainerRestart
        | Event::PodLoss
        | Event::RollingUpdate
        | Event::ScaleUp
        | Event::ScaleDown
        | Event::ScaleToZero => (
            Outcome::Kept,
            reasons::IN_STORE,
            "sessions are in the store, where every pod finds them".to_owned(),
        ),
    }
}

fn has_replicas(promise: &Promise) -> bool {
    matches!(
        promise,
        Promise::Store {
            replicas: Some(_),
            ..
        }
    )
}

/// Of a store with replicas, which the operator lets take over.
fn operator_down(webhook: bool) -> Row {
    (
        Outcome::Partly,
        reasons::FAILOVER_WAITS,
        format!(
            "sessions are kept and served, but a primary of the store that fails while no operator runs is replaced by none \
             of its replicas: nobody reaches a session until the operator is back{}",
            if webhook {
                "; nor can pods that should use the store start meanwhile, as admission of them fails"
            } else {
                ""
            }
        ),
    )
}

fn store_restart(promise: &Promise) -> Row {
    match promise {
        Promise::Store {
            name,
            replicas: Some(replicas),
            ..
        } if replicas.synced > 0 => (
            Outcome::Kept,
            reasons::STORE_FAILS_OVER,
            format!(
                "SessionStore {name} restarts its replicas first, and its primary hands over to one that has everything \
                 before it restarts; when the primary crashes, a replica takes over within seconds, and what was confirmed in \
                 the last moment before may be missing"
            ),
        ),
        // Has rows of its own.
        Promise::Pods { .. } | Promise::External => (
            Outcome::Lost,
            reasons::STORE_NOT_OURS,
            "the store is in other hands, and nothing shows that it keeps its data over a restart".to_owned(),
        ),
        Promise::Store {
            name,
            persistent: true,
            ..
        } => (
            Outcome::Partly,
            reasons::STORE_PERSISTS,
            format!(
                "SessionStore {name} writes to its volume each second: an orderly restart loses nothing, a crash what was \
                 written in the last second; requests fail until the only server is back"
            ),
        ),
        Promise::Store {
            name,
            engine,
            persistent: false,
            ..
        } => (
            Outcome::Lost,
            reasons::STORE_IN_MEMORY,
            if *engine == Engine::Memcached {
                format!(
                    "SessionStore {name} has one server of Memcached, which keeps sessions in memory only; with engine Valkey and \
                     persistence they outlive a restart"
                )
            } else {
                format!(
                    "SessionStore {name} has {} and keeps sessions in memory only; with persistence they outlive a restart",
                    if has_replicas(promise) {
                        "no replica with everything now"
                    } else {
                        "one server"
                    }
                )
            },
        ),
    }
}

fn node_loss(promise: &Promise) -> Row {
    match promise {
        Promise::Store {
            name,
            replicas: Some(replicas),
            ..
        } if replicas.elsewhere > 0 => (
            Outcome::Kept,
            reasons::STORE_FAILS_OVER,
            format!(
                "SessionStore {name} has replicas with everything on other nodes than its primary: when the primary's node is \
                 lost, one of them takes over within seconds, and what was confirmed in the last moment before may be missing"
            ),
        ),
        // Has rows of its own.
        Promise::Pods { .. } | Promise::External => (
            Outcome::Kept,
            reasons::IN_STORE,
            "sessions are in the store, which is outside the operator's hands; nodes that carry only the application do not \
             matter to them"
                .to_owned(),
        ),
        Promise::Store { name, persistent, .. } => (
            Outcome::Partly,
            reasons::STORE_ON_ONE_NODE,
            format!(
                "all are kept when the node carries the application only; when it carries the {} of SessionStore {name}, {}",
                if has_replicas(promise) {
                    "primary, and no other node has a replica with everything,"
                } else {
                    "only server"
                },
                if *persistent {
                    "nobody finds their session until the volume can be attached elsewhere"
                } else {
                    "all are lost"
                }
            ),
        ),
    }
}
