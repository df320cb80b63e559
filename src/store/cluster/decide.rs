//! What to do, from what was seen. Pure: no client, no clock, and one kind of thing at a time.

mod moves;
mod restart;

pub use restart::cause;

use std::collections::{BTreeMap, BTreeSet};

use super::slots::{COUNT, Slots, share};
use super::survey::{Ghost, Survey};
use super::{Member, Observation, State};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
pub use crate::store::replication::Waits;

/// How a replica becomes primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The primary holds its clients until the replica has everything, and then gives up.
    Agreed,
    /// The primary is gone, and the others vote.
    Elected,
    /// The primary is gone, and so are most of those that would vote.
    Alone,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let a server know another one, or its present address.
    Meet {
        /// Who is told.
        at: String,
        /// The other one.
        member: String,
    },
    /// Let a server forget another one, which is gone.
    Forget {
        /// Who is told.
        at: String,
        /// By which name it knows that one.
        id: String,
    },
    /// Let a server, which has nothing that others do not have, follow a primary.
    Follow {
        /// The server.
        member: String,
        /// The primary.
        primary: String,
    },
    /// Let a replica become primary.
    TakeOver {
        /// The replica.
        member: String,
        /// How.
        means: Means,
        /// Why.
        cause: FailoverCause,
    },
    /// Let a server serve slots that nobody has.
    Assign {
        /// The server.
        member: String,
        /// The slots.
        slots: Slots,
    },
    /// Let servers move slots from one to the other, key by key.
    Move {
        /// Who has them.
        from: String,
        /// Who is to have them.
        to: String,
        /// The slots.
        slots: Slots,
    },
    /// Let a server move slots to another one as a whole.
    MoveWhole {
        /// Who has them.
        from: String,
        /// Who is to have them.
        to: String,
        /// The slots.
        slots: Slots,
    },
    /// Let a server no more wait for a slot that nobody gives it.
    Settle {
        /// The server.
        member: String,
        /// The slot.
        slot: u16,
    },
    /// Remove the servers of a shard, and their volumes.
    Remove {
        /// Its number.
        shard: usize,
    },
    /// Correct the label of a pod.
    Label {
        /// The pod.
        member: String,
        /// The label's value.
        role: &'static str,
    },
    /// Record who is primary of which shard.
    Note {
        /// The pods, by shard.
        primaries: BTreeMap<usize, String>,
        /// Whether all slots have a primary.
        formed: bool,
        /// How many shards share them.
        shards: usize,
    },
    /// Let no further clients in at a server whose pod ends.
    TurnAway {
        /// The server.
        member: String,
    },
    /// Delete a pod, so that it is made from the present template.
    Restart {
        /// The pod.
        member: String,
    },
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// What is waited for, if anything is.
    pub waits: Option<Waits>,
}

/// What a step comes to.
enum Step {
    /// It is done now, and nothing else.
    Do(Vec<Action>),
    /// It is done now, and there is more to come.
    Progress(Action, Waits),
    /// It waits for something; what has nothing to do with that goes on.
    Wait(Waits),
}

impl Step {
    fn all(actions: Vec<Action>) -> Option<Self> {
        (!actions.is_empty()).then_some(Self::Do(actions))
    }

    fn one(action: Action) -> Self {
        Self::Do(vec![action])
    }

    fn wait(reason: &'static str, message: String) -> Self {
        Self::Wait(Waits { reason, message })
    }
}

/// Decides. First what ends an outage, then what makes the store whole, then what only is wished for.
pub fn decide(seen: &Observation) -> Decision {
    let survey = Survey::of(seen);
    let mut decision = Decision {
        actions: restart::records(&survey),
        waits: None,
    };
    let steps: [fn(&Survey) -> Option<Step>; 10] = [
        take_over,
        meet,
        follow,
        forget,
        assign,
        moves::finish,
        acquaint,
        restart::hand_over,
        restart::restart,
        moves::next,
    ];
    for step in steps {
        match step(&survey) {
            Some(Step::Do(actions)) => {
                decision.actions.extend(actions);
                break;
            }
            Some(Step::Progress(action, waits)) => {
                decision.actions.push(action);
                decision.waits.get_or_insert(waits);
                break;
            }
            Some(Step::Wait(waits)) => {
                decision.waits.get_or_insert(waits);
            }
            None => {}
        }
    }
    // Last, as nothing is to wait for a server that may be gone by now.
    decision.actions.extend(restart::turn_away(&survey));
    decision
}

/// A primary that is gone, whose shard others still have.
fn take_over(survey: &Survey) -> Option<Step> {
    let mut waits = None;
    let owners = survey.ghosts.iter().filter(|ghost| !ghost.slots.is_empty());
    for ghost in owners {
        match successor(survey, ghost) {
            Ok(Some(action)) => return Some(Step::one(action)),
            Ok(None) => {}
            Err(wait) => {
                waits.get_or_insert(wait);
            }
        }
    }
    waits.map(Step::Wait)
}

/// Who is to serve the slots of a primary that does not answer; nothing if there is nobody left to do so.
fn successor(survey: &Survey, ghost: &Ghost) -> Result<Option<Action>, Waits> {
    let count = ghost.slots.len();
    if !ghost.gone {
        let why = if survey.has_majority() {
            "the others elect one of its replicas, if it has any that has everything"
        } else {
            "too few primaries are left to elect one of its replicas, and nothing proves that it is gone: if its node is lost for \
             good, delete its pod"
        };
        return Err(Waits {
            reason: reasons::NO_PRIMARY,
            message: format!("primary {} of {count} slots does not answer; {why}", ghost.name()),
        });
    }
    let followers: Vec<(&Member, &State)> = survey.followers(ghost.id).collect();
    let best = followers
        .iter()
        .filter(|(_, state)| !state.loading && (state.warm || state.keys > 0))
        .max_by_key(|(member, state)| (!member.pod.terminating, !member.leaving, state.offset));
    if let Some((member, _)) = best {
        return Ok(Some(Action::TakeOver {
            member: member.name.clone(),
            // Primaries vote for none that they have not heard of.
            means: if survey.has_majority() && survey.is_known(member) {
                Means::Elected
            } else {
                Means::Alone
            },
            cause: cause(ghost.member),
        }));
    }
    let absent: Vec<&str> = survey
        .absent_followers(ghost.id)
        .map(Ghost::name)
        .chain(
            followers
                .iter()
                .filter(|(_, state)| state.loading)
                .map(|(member, _)| member.name.as_str()),
        )
        .collect();
    if !absent.is_empty() {
        return Err(Waits {
            reason: reasons::MEMBERS_UNSEEN,
            message: format!(
                "primary {} of {count} slots is gone, and {} may have its sessions: nobody serves them before that one was asked; \
                 if it is lost for good, delete its pod and its volume claim",
                ghost.name(),
                absent.join(", ")
            ),
        });
    }
    // Nobody has anything of it. Who follows it cannot forget it, and takes its place.
    let empty = followers.iter().find(|(member, _)| !member.pod.terminating);
    Ok(empty.map(|(member, _)| Action::TakeOver {
        member: member.name.clone(),
        means: Means::Alone,
        cause: FailoverCause::AllLost,
    }))
}

/// Servers that others do not know, or not where they are now.
fn meet(survey: &Survey) -> Option<Step> {
    let present = || survey.answering().filter(|(member, _)| !member.pod.terminating);
    let ids: BTreeSet<&str> = present().map(|(_, state)| state.id.as_str()).collect();
    let (hub, known) = present().max_by_key(|(member, state)| {
        let known = ids.iter().filter(|id| state.node(id).is_some()).count();
        (member.is_owner(), known, std::cmp::Reverse(&member.name))
    })?;
    let meet = |at: &Member, member: &Member| Action::Meet {
        at: at.name.clone(),
        member: member.name.clone(),
    };
    let apart = present().filter(|(member, state)| {
        member.name != hub.name && (!is_met(known, member, state) || state.node(&known.id).is_none())
    });
    let mut actions: Vec<Action> = apart.map(|(member, _)| meet(hub, member)).collect();
    if actions.is_empty() {
        // Others hear of a new one, or where one is now, by and by; until they have, they would not vote for it.
        for (owner, of_owner) in present().filter(|(member, _)| member.is_owner()) {
            let strangers = present().filter(|(member, state)| {
                member.name != owner.name
                    && (!is_met(of_owner, member, state) || state.node(&of_owner.id).is_none())
            });
            actions.extend(strangers.map(|(member, _)| meet(owner, member)));
        }
    }
    Step::all(actions)
}

/// Replicas that do not know each other: if one of them were made primary, it would not tell the other, which would say of slots that
/// nobody has them. A primary that is about to end does not wait for that.
fn acquaint(survey: &Survey) -> Option<Step> {
    let owners = || survey.answering().filter(|(member, _)| member.is_owner());
    if owners().any(|(owner, _)| owner.pod.terminating) {
        return None;
    }
    let replicas = || {
        let replicas = survey.answering().filter(|(_, state)| state.is_replica());
        replicas.filter(|(member, _)| !member.pod.terminating)
    };
    let pairs = replicas().flat_map(|first| replicas().map(move |second| (first, second)));
    let apart = pairs.filter(|((at, of_at), (member, state))| {
        at.name < member.name && (!is_met(of_at, member, state) || !is_met(state, at, of_at))
    });
    let meetings = apart.map(|((at, _), (member, _))| Action::Meet {
        at: at.name.clone(),
        member: member.name.clone(),
    });
    Step::all(meetings.collect())
}

/// Whether a server knows another one, where that is now. It is not asked whether the two are connected: a server calls itself so
/// while it tries to reach an address that nobody has any more.
fn is_met(known: &State, member: &Member, state: &State) -> bool {
    let Some(node) = known.node(&state.id) else {
        return false;
    };
    let bus = state.myself().map(|myself| myself.bus);
    node.ip == member.address.host && node.port == member.address.port && Some(node.bus) == bus
}

/// Whom the servers of a shard are to follow: the primary that has slots, else one that is to get some.
pub fn leader<'a>(survey: &Survey<'a>, shard: usize) -> Option<&'a Member> {
    let fit = survey.answering().filter(|(member, state)| {
        member.shard == shard && !state.is_replica() && !member.pod.terminating && !member.leaving
    });
    survey.owner(shard).or_else(|| {
        fit.max_by_key(|(member, state)| {
            let followers = survey.followers(&state.id).count();
            (followers, std::cmp::Reverse(&member.name))
        })
        .map(|(member, _)| member)
    })
}

/// Servers that follow nobody, or one that is not of their shard.
fn follow(survey: &Survey) -> Option<Step> {
    let mut actions = Vec::new();
    let mut stuck = None;
    for (member, state) in survey.answering() {
        let Some((leader, of_leader)) =
            leader(survey, member.shard).and_then(|leader| Some((leader, leader.state()?)))
        else {
            continue;
        };
        if member.name == leader.name || member.pod.terminating || state.node(&of_leader.id).is_none() {
            continue;
        }
        if state.primary() == Some(of_leader.id.as_str()) {
            if looks_elsewhere(state, leader) {
                actions.push(Action::Follow {
                    member: member.name.clone(),
                    primary: leader.name.clone(),
                });
            }
            continue;
        }
        // What it has may be all that is left of a primary that is gone.
        let may_be_last = match state.primary() {
            Some(former) => survey
                .ghosts
                .iter()
                .any(|ghost| ghost.id == former && !ghost.slots.is_empty()),
            None => member.is_owner(),
        };
        let is_needed = !leader.is_owner() && (state.is_replica() || state.keys > 0);
        if may_be_last || is_needed {
            continue;
        }
        // A server refuses to follow while it has anything.
        if !state.is_replica() && state.keys > 0 {
            stuck.get_or_insert(Waits {
                reason: reasons::REPLICAS_MISSING,
                message: format!(
                    "{} has {} keys and no slots, so that it cannot become a replica of {}; if nobody needs them, delete its pod{}",
                    member.name,
                    state.keys,
                    leader.name,
                    if member.volume { " and its volume claim" } else { "" }
                ),
            });
            continue;
        }
        actions.push(Action::Follow {
            member: member.name.clone(),
            primary: leader.name.clone(),
        });
    }
    Step::all(actions).or(stuck.map(Step::Wait))
}

/// Whether a replica knows where its primary is, and looks for it where it was before: one that hears of a new address from a third
/// server goes on like that for ever.
fn looks_elsewhere(state: &State, leader: &Member) -> bool {
    let (link, address) = (&state.link, &leader.address);
    let is_there =
        |host: &str, port: u16| port == address.port && (host == address.host || host == address.announced);
    let known = leader.id().and_then(|id| state.node(id));
    !link.up
        && !link.syncing
        && !link.host.is_empty()
        && !is_there(&link.host, link.port)
        && known.is_some_and(|node| is_there(&node.ip, node.port))
}

/// Servers that are gone, and that nobody who answers follows.
fn forget(survey: &Survey) -> Option<Step> {
    let mut actions = Vec::new();
    for ghost in survey.ghosts.iter().filter(|ghost| ghost.gone) {
        let is_followed = survey.followers(ghost.id).next().is_some()
            || (!ghost.slots.is_empty() && survey.absent_followers(ghost.id).next().is_some());
        if is_followed {
            continue;
        }
        let knowing = survey
            .answering()
            .filter(|(_, state)| state.node(ghost.id).is_some());
        actions.extend(knowing.map(|(member, _)| Action::Forget {
            at: member.name.clone(),
            id: ghost.id.to_owned(),
        }));
    }
    Step::all(actions)
}

/// Slots that nobody has: of a new store all, later those whose every holder is gone.
fn assign(survey: &Survey) -> Option<Step> {
    let slots = survey.unowned();
    if slots.is_empty() {
        return None;
    }
    let seen = survey.seen;
    let wait = |message: String| {
        let reason = if seen.record.formed {
            reasons::MEMBERS_UNSEEN
        } else {
            reasons::STORE_STARTING
        };
        Some(Step::wait(reason, message))
    };
    let unseen: Vec<&str> = seen
        .members
        .iter()
        .filter(|member| !member.leaving && member.state().is_none_or(|state| state.loading))
        .map(|member| member.name.as_str())
        .chain(survey.ghosts.iter().map(Ghost::name))
        .collect();
    if !unseen.is_empty() {
        return wait(format!(
            "{} of {COUNT} slots have no primary, and nobody gets them before all servers were asked; {} did not answer yet",
            slots.len(),
            unseen.join(", ")
        ));
    }
    let holds = |member: &Member, state: &State| !member.is_owner() && !state.is_replica() && state.keys > 0;
    if let Some((member, state)) = survey.answering().find(|(member, state)| holds(member, state)) {
        return wait(format!(
            "{} of {COUNT} slots have no primary, and {} has {} keys though no slots: nobody gets them before that is clear; if \
             nobody needs the keys, delete its pod{}",
            slots.len(),
            member.name,
            state.keys,
            if member.volume {
                " and its volume claim"
            } else {
                ""
            }
        ));
    }
    let ids: Vec<&str> = survey.answering().map(|(_, state)| state.id.as_str()).collect();
    let strangers = survey
        .answering()
        .filter(|(_, state)| ids.iter().any(|id| state.node(id).is_none()));
    if strangers.count() > 0 {
        return wait("the servers get to know each other".to_owned());
    }
    Step::all(shares(survey, &slots))
}

/// Who gets which of the slots that nobody has: those shards that have none, else all of them evenly.
fn shares(survey: &Survey, slots: &Slots) -> Vec<Action> {
    let shards = survey.seen.shards;
    let leaders: Vec<(usize, &Member)> = (0..shards)
        .filter_map(|shard| Some((shard, leader(survey, shard)?)))
        .collect();
    let assign = |(member, slots): (&Member, Slots)| {
        (!slots.is_empty()).then(|| Action::Assign {
            member: member.name.clone(),
            slots,
        })
    };
    if *slots == Slots::all() && leaders.len() == shards {
        let all = leaders
            .iter()
            .map(|(shard, member)| (*member, share(*shard, shards)));
        return all.filter_map(assign).collect();
    }
    let empty: Vec<&(usize, &Member)> = leaders.iter().filter(|(_, member)| !member.is_owner()).collect();
    let takers: Vec<&Member> = if empty.is_empty() {
        leaders.iter().map(|(_, member)| *member).collect()
    } else {
        empty.iter().map(|(_, member)| *member).collect()
    };
    let mut left = slots.clone();
    let mut actions = Vec::new();
    for (at, member) in takers.iter().enumerate() {
        let part = left.first(left.len().div_ceil(takers.len() - at));
        left.remove(&part);
        actions.extend(assign((member, part)));
    }
    actions
}

#[cfg(test)]
mod tests;
