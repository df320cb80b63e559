//! Looks at every server of a store, all at once and for a bounded time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod as CorePod;

use super::nodes::moves_whole;
use super::{Member, Server, State};
use crate::store::build::PORT;
use crate::store::client::{Connection, Failure};
use crate::store::names::Names;
use crate::store::replication::Address;
use crate::store::replication::observe::{Answer, current_revision, facts};

impl Answer for Box<State> {
    async fn ask(connection: &mut Connection) -> Result<Self, Failure> {
        let info = connection.info().await?;
        // Before it is asked who has which slots: of a move that is over by then that tells the outcome.
        let moves: Vec<HashMap<String, redis::Value>> = if moves_whole(&info) {
            connection.command(&["CLUSTER", "GETSLOTMIGRATIONS"]).await?
        } else {
            Vec::new()
        };
        let nodes: String = connection.command(&["CLUSTER", "NODES"]).await?;
        let cluster: String = connection.command(&["CLUSTER", "INFO"]).await?;
        let mut state =
            State::read(&nodes, &cluster, &info).ok_or_else(|| connection.nonsense("CLUSTER NODES"))?;
        note_last(&mut state, &moves);
        Ok(Box::new(state))
    }
}

/// Notes how the last move of slots to another server is going (<https://valkey.io/commands/cluster-getslotmigrations/>).
fn note_last(state: &mut State, moves: &[HashMap<String, redis::Value>]) {
    let text = |slots: &HashMap<String, redis::Value>, name: &str| {
        let value = slots.get(name).cloned();
        value.and_then(|value| redis::from_redis_value::<String>(value).ok())
    };
    let exports = moves
        .iter()
        .filter(|slots| text(slots, "operation").as_deref() == Some("EXPORT"));
    let age = |slots: &&HashMap<String, redis::Value>| {
        let created = text(slots, "create_time");
        created.and_then(|time| time.parse::<i64>().ok())
    };
    state.is_exporting = exports
        .clone()
        .any(|slots| text(slots, "state").is_some_and(|state| !is_over(&state)));
    let Some(last) = exports.max_by_key(age) else {
        return;
    };
    if text(last, "state").is_some_and(|state| is_over(&state) && state != "success") {
        state.export_failed = text(last, "message");
    }
}

fn is_over(state: &str) -> bool {
    matches!(state, "success" | "failed" | "cancelled" | "canceled")
}

/// What there is and is to be.
pub struct Standing<'a> {
    /// Names of the store.
    pub names: &'a Names,
    /// Number of shards that are asked for.
    pub shards: usize,
    /// Number of servers that are asked for in each of them.
    pub per_shard: usize,
    /// The pods, by shard and ordinal.
    pub pods: &'a BTreeMap<(usize, usize), Arc<CorePod>>,
    /// The StatefulSets, by name.
    pub sets: &'a BTreeMap<String, Arc<StatefulSet>>,
    /// Names of the volume claims.
    pub volumes: &'a BTreeSet<String>,
}

/// The servers that there are or are to be, without what they answer.
pub fn members(there: &Standing<'_>) -> Vec<Member> {
    let wanted =
        (0..there.shards).flat_map(|shard| (0..there.per_shard).map(move |ordinal| (shard, ordinal)));
    // Shards that are not asked for any more are there until they are empty.
    let standing = there.sets.iter().filter_map(|(name, set)| {
        let shard = there
            .names
            .shard_of(name)
            .filter(|shard| *shard >= there.shards)?;
        let replicas = set.spec.as_ref()?.replicas.unwrap_or(1);
        Some((shard, usize::try_from(replicas).unwrap_or_default()))
    });
    let standing = standing.flat_map(|(shard, count)| (0..count).map(move |ordinal| (shard, ordinal)));
    let places: BTreeSet<(usize, usize)> = wanted.chain(standing).chain(there.pods.keys().copied()).collect();
    places
        .into_iter()
        .map(|(shard, ordinal)| {
            let name = there.names.shard_member(shard, ordinal);
            let pod = there.pods.get(&(shard, ordinal));
            let set = there.sets.get(&there.names.shard(shard));
            let revision = set.and_then(|set| current_revision(set));
            Member {
                shard,
                pod: pod.map(|pod| facts(pod, revision)).unwrap_or_default(),
                address: Address {
                    host: pod
                        .and_then(|pod| pod.status.as_ref()?.pod_ip.clone())
                        .unwrap_or_default(),
                    port: PORT,
                    announced: there.names.member_host(&name),
                },
                server: Server::Down,
                leaving: shard < there.shards && ordinal >= there.per_shard,
                volume: there.volumes.contains(&Names::volume_of(&name)),
                name,
            }
        })
        .collect()
}
