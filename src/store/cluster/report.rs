//! What is told of the servers: status and metrics.

use std::collections::BTreeSet;

use super::decide::leader;
use super::slots::{COUNT, Slots};
use super::survey::Survey;
use super::{Decision, Member, Observation, State};
use crate::api::session_store::{MemberRole, StoreCluster, StoreMember};
use crate::runtime::metrics::MemberFacts;
use crate::store::replication::report::lag_text;
use crate::store::watches;

/// The last look at a store.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was seen.
    pub seen: Observation,
    /// What was decided.
    pub decision: Decision,
}

/// Whether a server knows of slots that are served who serves them.
fn knows_all(state: &State, served: &Slots) -> bool {
    let mut unknown = served.clone();
    for node in &state.nodes {
        unknown.remove(&node.slots);
    }
    unknown.is_empty()
}

impl Report {
    /// What a server is.
    fn role(member: &Member) -> MemberRole {
        match member.state() {
            Some(state) if state.is_replica() => MemberRole::Replica,
            // A server that nobody knows yet follows nobody and serves nobody.
            Some(state) if state.slots().is_empty() => MemberRole::Replica,
            Some(_) => MemberRole::Primary,
            None => MemberRole::Unknown,
        }
    }

    /// Slots that primaries serve which are not cut off from most of the others.
    pub fn served(&self) -> usize {
        let serving = self.seen.members.iter().filter(|member| member.is_owner());
        let mut slots = Slots::default();
        for state in serving.filter_map(Member::state).filter(|state| state.serves) {
            slots.add(&state.slots());
        }
        slots.len()
    }

    /// Whether every slot has a primary that serves it.
    pub fn serves_all(&self) -> bool {
        self.served() == usize::from(COUNT)
    }

    /// Servers that nobody is to follow yet: each has nothing, and may be taken for one that had a part of the sessions. And those
    /// that nobody is to ask yet who has which slots, as they have not heard of all. They are not told of users, that of replicas
    /// among them.
    pub fn closed(&self) -> BTreeSet<String> {
        let survey = Survey::of(&self.seen);
        let lacks_owner = survey.ghosts.iter().any(|ghost| !ghost.slots.is_empty());
        let is_open = |member: &Member| {
            let all_answer = || {
                let mut others = self.seen.members.iter();
                others.all(|other| other.shard != member.shard || other.state().is_some())
            };
            let leads = || leader(&survey, member.shard).is_some_and(|leader| leader.name == member.name);
            member.is_owner()
                || (member
                    .state()
                    .is_some_and(|state| knows_all(state, &survey.served))
                    && (member.state().is_some_and(State::is_replica)
                        || (!lacks_owner && all_answer() && leads())))
        };
        let members = self.seen.members.iter();
        let closed = members.filter(|member| !is_open(member));
        closed.map(|member| member.name.clone()).collect()
    }

    /// The servers, for status.
    pub fn members(&self) -> Vec<StoreMember> {
        let survey = Survey::of(&self.seen);
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let members = self.seen.members.iter().map(|member| {
            let owner = survey.owner(member.shard);
            let is_owner = owner.is_some_and(|owner| owner.name == member.name);
            let serves = member.state().is_some_and(|state| state.serves);
            StoreMember {
                name: member.name.clone(),
                role: Self::role(member),
                ready: (is_owner && serves)
                    || (owner.is_some_and(|owner| member.is_synced(owner)) && survey.is_known(member)),
                lag: lag(member, owner).map(lag_text),
                node: member.pod.node.clone(),
                shard: Some(number(member.shard)),
                slots: member
                    .state()
                    .filter(|_| member.is_owner())
                    .map(|state| number(state.slots().len())),
            }
        });
        members.collect()
    }

    /// How many shards have slots.
    pub fn shards(&self) -> i32 {
        let survey = Survey::of(&self.seen);
        let owners = survey
            .shards()
            .into_iter()
            .filter(|shard| survey.owner(*shard).is_some());
        i32::try_from(owners.count()).unwrap_or(i32::MAX)
    }

    /// How they are, for status.
    pub fn cluster(&self) -> StoreCluster {
        let record = &self.seen.record;
        StoreCluster {
            slots: i32::try_from(self.served()).unwrap_or(i32::MAX),
            last_failover: record.last_failover.clone(),
            last_loss: record.last_loss.clone(),
        }
    }

    /// Shards that lack replicas with everything, as sentences.
    pub fn lacking(&self) -> Vec<String> {
        let members = self.members();
        let shards = 0..self.seen.shards;
        let lacking = shards.filter_map(|shard| {
            let of_shard = || {
                let asked = self.seen.members.iter().zip(&members);
                asked.filter(move |(member, _)| member.shard == shard && !member.leaving)
            };
            let asked = of_shard().count().saturating_sub(1);
            let ready = of_shard()
                .filter(|(_, told)| told.ready && told.role == MemberRole::Replica)
                .count();
            (ready < asked).then(|| format!("shard {shard} has {ready} of {asked} replicas with everything"))
        });
        lacking.collect()
    }

    /// Servers that cannot write to their volumes.
    pub fn failing_disks(&self) -> Vec<&str> {
        let members = self.seen.members.iter();
        let failing = members.filter(|member| member.disk_failed());
        failing.map(|member| member.name.as_str()).collect()
    }

    /// The servers, for metrics.
    pub fn facts(&self) -> Vec<MemberFacts> {
        let survey = Survey::of(&self.seen);
        let members = self.seen.members.iter().map(|member| MemberFacts {
            member: member.name.clone(),
            role: match Self::role(member) {
                MemberRole::Primary => "Primary",
                MemberRole::Replica => "Replica",
                MemberRole::Unknown => "Unknown",
            },
            offset: member.state().map(|state| state.offset),
            lag: lag(member, survey.owner(member.shard)),
            volume_failing: member
                .state()
                .filter(|_| member.volume)
                .map(|state| state.disk_failed),
        });
        members.collect()
    }
}

impl watches::Report for Report {
    /// Lag alone is told when something else is.
    fn differs_from(&self, next: &Self) -> bool {
        let facts = |report: &Self| {
            let members = report.members().into_iter();
            let members = members.map(|member| StoreMember { lag: None, ..member });
            members.collect::<Vec<_>>()
        };
        facts(self) != facts(next)
            || self.failing_disks() != next.failing_disks()
            || self.decision.waits != next.decision.waits
            || self.cluster() != next.cluster()
            || self.closed() != next.closed()
    }
}

/// Bytes of the primary's changes that a replica does not have.
fn lag(member: &Member, owner: Option<&Member>) -> Option<i64> {
    let owner = owner.filter(|owner| owner.name != member.name && member.is_synced(owner))?;
    let offset = |member: &Member| member.state().map(|state| state.offset);
    Some((offset(owner)? - offset(member)?).max(0))
}
