//! What is told of the servers: status and metrics.

use super::{Decision, Member, Observation, Record, Role};
use crate::api::session_store::{MemberRole, StoreMember, StoreReplication};
use crate::runtime::metrics::MemberFacts;
use crate::store::watches;

/// Bytes below which a replica's lag is not told: what is on its way at any moment.
const SMALL_LAG: i64 = 64 << 10;

/// The last look at a store.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was seen.
    pub seen: Observation,
    /// What was decided.
    pub decision: Decision,
}

impl Report {
    /// The server that is primary.
    pub fn primary(&self) -> Option<&Member> {
        let name = self.decision.primary.as_ref()?;
        self.seen.members.iter().find(|member| member.name == *name)
    }

    /// What a server is.
    pub fn role(member: &Member) -> MemberRole {
        match member.state().map(|state| &state.role) {
            Some(Role::Primary) => MemberRole::Primary,
            Some(Role::Replica(_)) => MemberRole::Replica,
            None => MemberRole::Unknown,
        }
    }

    /// Whether a server does what it is there for.
    pub fn is_ready(&self, member: &Member) -> bool {
        self.primary()
            .is_some_and(|primary| primary.name == member.name || member.is_synced(primary))
    }

    /// Bytes of the primary's changes that a replica does not have.
    pub fn lag(&self, member: &Member) -> Option<i64> {
        let primary = self.primary()?;
        let synced = primary.name != member.name && member.is_synced(primary);
        let offset = |member: &Member| member.state().map(|state| state.offset);
        synced
            .then(|| Some((offset(primary)? - offset(member)?).max(0)))
            .flatten()
    }

    /// The servers, for status.
    pub fn members(&self) -> Vec<StoreMember> {
        let members = self.seen.members.iter().map(|member| StoreMember {
            name: member.name.clone(),
            role: Self::role(member),
            ready: self.is_ready(member),
            lag: self.lag(member).map(lag_text),
            node: member.pod.node.clone(),
            shard: None,
            slots: None,
        });
        members.collect()
    }

    /// The servers, for metrics.
    pub fn facts(&self) -> Vec<MemberFacts> {
        let members = self.seen.members.iter().map(|member| MemberFacts {
            member: member.name.clone(),
            role: match Self::role(member) {
                MemberRole::Primary => "Primary",
                MemberRole::Replica => "Replica",
                MemberRole::Unknown => "Unknown",
            },
            offset: member.state().map(|state| state.offset),
            lag: self.lag(member),
            volume_failing: member
                .state()
                .filter(|_| member.volume)
                .map(|state| state.disk_failed),
        });
        members.collect()
    }

    /// Servers that cannot write to their volumes.
    pub fn failing_disks(&self) -> Vec<&str> {
        let members = self.seen.members.iter();
        let failing = members.filter(|member| member.disk_failed());
        failing.map(|member| member.name.as_str()).collect()
    }

    /// Replicas that have everything.
    pub fn synced(&self) -> usize {
        let members = self.seen.members.iter();
        members
            .filter(|member| self.is_ready(member) && Self::role(member) == MemberRole::Replica)
            .count()
    }
}

impl watches::Report for Report {
    /// Lag alone is told when something else is.
    fn differs_from(&self, next: &Self) -> bool {
        let facts = |report: &Self| {
            let members = report
                .members()
                .into_iter()
                .map(|member| StoreMember { lag: None, ..member });
            members.collect::<Vec<_>>()
        };
        facts(self) != facts(next)
            || self.failing_disks() != next.failing_disks()
            || self.decision.waits != next.decision.waits
            || self.decision.primary != next.decision.primary
            || replication(&self.seen.record) != replication(&next.seen.record)
    }
}

/// Who is primary, for status.
pub fn replication(record: &Record) -> Option<StoreReplication> {
    record.is_initialised().then(|| StoreReplication {
        primary: record.primary.clone(),
        epoch: record.epoch,
        last_failover: record.last_failover.clone(),
    })
}

/// A lag as it is told: in powers of two, and none that is on its way at any moment.
pub fn lag_text(bytes: i64) -> String {
    if bytes < SMALL_LAG {
        return "0".to_owned();
    }
    let rounded = u64::try_from(bytes).unwrap_or_default().next_power_of_two();
    crate::store::quantity::text(i64::try_from(rounded).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_told_in_powers_of_two() {
        for (bytes, told) in [
            (0, "0"),
            (65_535, "0"),
            (65_536, "64Ki"),
            (65_537, "128Ki"),
            (3 << 20, "4Mi"),
        ] {
            assert_eq!(lag_text(bytes), told, "{bytes}");
        }
    }
}
