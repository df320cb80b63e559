//! Labels and record, and servers that are to be replaced: replicas first, and a primary once another one has taken over.

use super::{Action, Means, Step};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
use crate::store::cluster::survey::Survey;
use crate::store::cluster::{Member, Server, slots};
use crate::store::names::{PRIMARY, REPLICA};

/// Corrects labels and record. Of a shard without a primary they stay as they were.
pub fn records(survey: &Survey) -> Vec<Action> {
    let seen = survey.seen;
    let mut primaries = seen.record.primaries.clone();
    let mut actions = Vec::new();
    for shard in survey.shards() {
        let Some(owner) = survey.owner(shard) else {
            continue;
        };
        primaries.insert(shard, owner.name.clone());
        let pods = seen
            .members
            .iter()
            .filter(|member| member.shard == shard && member.pod.uid.is_some());
        for member in pods {
            let role = if member.name == owner.name {
                PRIMARY
            } else {
                REPLICA
            };
            if member.pod.label.as_deref() != Some(role) {
                actions.push(Action::Label {
                    member: member.name.clone(),
                    role,
                });
            }
        }
    }
    primaries.retain(|shard, _| *shard < seen.shards || survey.owner(*shard).is_some());
    let formed = seen.record.formed || survey.served.len() == usize::from(slots::COUNT);
    let shards = sharing(survey).unwrap_or(seen.record.shards);
    let record = &seen.record;
    if primaries != record.primaries || formed != record.formed || shards != record.shards {
        actions.push(Action::Note {
            primaries,
            formed,
            shards,
        });
    }
    actions
}

/// Servers whose pods end and that serve nothing any more: a client that comes now goes to another one at once, rather than be cut off
/// in the middle of what it asks.
pub fn turn_away<'a>(survey: &Survey<'a>) -> impl Iterator<Item = Action> + use<'a> {
    let ending = survey
        .answering()
        .filter(|(member, state)| member.pod.terminating && state.is_replica() && state.admits);
    ending.map(|(member, _)| Action::TurnAway {
        member: member.name.clone(),
    })
}

/// How many shards share the slots, once those that are asked for do and no other.
fn sharing(survey: &Survey) -> Option<usize> {
    let wanted = survey.seen.shards;
    let is_even = (0..wanted).all(|shard| {
        let owner = survey.owner(shard).and_then(Member::state);
        let least = usize::from(slots::COUNT) / wanted.max(1);
        owner.is_some_and(|state| state.slots().len() >= least)
    });
    (is_even && survey.shards().into_iter().all(|shard| shard < wanted)).then_some(wanted)
}

/// What became of a primary that is not there any more.
pub fn cause(member: Option<&Member>) -> FailoverCause {
    match member {
        Some(member) if member.pod.uid.is_none() || member.pod.terminating => FailoverCause::PodLost,
        // One that never ran is another one than the one that was primary.
        Some(member) if !member.pod.started => FailoverCause::PodLost,
        Some(member) if matches!(member.server, Server::Silent(_)) => FailoverCause::Unreachable,
        Some(_) => FailoverCause::ServerEnded,
        None => FailoverCause::PodLost,
    }
}

/// A primary that is to go, and the replica that takes over before.
pub fn hand_over(survey: &Survey) -> Option<Step> {
    let shards = survey.shards();
    let owners = || shards.iter().filter_map(|shard| survey.owner(*shard));
    let mut waits = None;
    for owner in owners() {
        let why = if owner.pod.terminating {
            "its pod is being deleted"
        } else if owner.leaving {
            "fewer replicas are asked for"
        } else {
            continue;
        };
        if let Some(heir) = heir(survey, owner) {
            return Some(Step::one(take_over(heir, FailoverCause::Planned)));
        }
        waits.get_or_insert(no_replica(owner, why));
    }
    if waits.is_some() {
        return waits;
    }
    // It refuses writes, and so does every other one whose volume is full.
    let mut failing = owners().filter(|owner| owner.disk_failed());
    if let Some(able) = failing.find_map(|owner| heir(survey, owner).filter(|member| !member.disk_failed())) {
        return Some(Step::one(take_over(able, FailoverCause::VolumeFailed)));
    }
    // Replicas come first, in all shards, and one primary at a time.
    let is_owner = |member: &Member| owners().any(|owner| owner.name == member.name);
    let replica_is_outdated = survey
        .seen
        .members
        .iter()
        .any(|member| member.pod.outdated && !member.leaving && !is_owner(member));
    let outdated = owners().find(|owner| owner.pod.outdated && has_replicas(survey, owner))?;
    if replica_is_outdated {
        return None;
    }
    let troubles = survey.troubles(None);
    if !troubles.is_empty() || survey.seen.members.iter().any(|member| member.pod.terminating) {
        let message = format!(
            "primary {} has an older template and is replaced once all servers do their part{}",
            outdated.name,
            listed(&troubles)
        );
        return Some(Step::wait(reasons::RESTART_WAITS, message));
    }
    heir(survey, outdated)
        .map(|heir| Step::one(take_over(heir, FailoverCause::Planned)))
        .or_else(|| Some(no_replica(outdated, "its pod has an older template")))
}

/// Whether there are, or are to be, replicas of a primary.
fn has_replicas(survey: &Survey, owner: &Member) -> bool {
    let mut others = survey.seen.members.iter();
    others.any(|member| member.shard == owner.shard && member.name != owner.name && !member.leaving)
}

/// The replica that has everything and is the best one to take over.
fn heir<'a>(survey: &Survey<'a>, owner: &Member) -> Option<&'a Member> {
    let fit = survey.answering().filter(|(member, _)| {
        member.shard == owner.shard
            && member.is_synced(owner)
            && survey.is_known(member)
            && !member.pod.terminating
            && (owner.pod.terminating || !member.leaving)
    });
    let best = fit.max_by_key(|(member, state)| {
        (
            !state.disk_failed,
            !member.leaving,
            !member.pod.outdated,
            state.offset,
        )
    });
    best.map(|(member, _)| member)
}

fn take_over(heir: &Member, cause: FailoverCause) -> Action {
    Action::TakeOver {
        member: heir.name.clone(),
        means: Means::Agreed,
        cause,
    }
}

fn no_replica(owner: &Member, why: &str) -> Step {
    Step::Wait(super::Waits {
        reason: reasons::RESTART_WAITS,
        message: format!(
            "primary {} of shard {} is to be replaced ({why}), but no replica has everything yet; it goes on until one has",
            owner.name, owner.shard
        ),
    })
}

fn listed(troubles: &[String]) -> String {
    if troubles.is_empty() {
        String::new()
    } else {
        format!(": {}", troubles.join("; "))
    }
}

/// The outdated pod that may be replaced now.
pub fn restart(survey: &Survey) -> Option<Step> {
    let restart = |member: &Member| {
        Some(Step::one(Action::Restart {
            member: member.name.clone(),
        }))
    };
    let outdated: Vec<&Member> = survey
        .seen
        .members
        .iter()
        .filter(|member| member.pod.outdated && !member.pod.terminating && !member.leaving)
        .collect();
    // One that does not run cannot lose anything.
    if let Some(broken) = outdated.iter().find(|member| !member.pod.running) {
        return restart(broken);
    }
    // A primary with replicas has handed over before.
    let first = outdated.iter().find(|member| {
        survey
            .owner(member.shard)
            .is_none_or(|owner| owner.name != member.name || !has_replicas(survey, owner))
    })?;
    let others = survey.troubles(Some(&first.name));
    let is_ending = survey.seen.members.iter().any(|member| member.pod.terminating);
    if others.is_empty() && !is_ending {
        return restart(first);
    }
    let message = format!(
        "pods with an older template are replaced one at a time, and the next one, {}, waits until all others do their part{}",
        first.name,
        listed(&others)
    );
    Some(Step::wait(reasons::RESTART_WAITS, message))
}
