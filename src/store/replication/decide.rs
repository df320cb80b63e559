//! What to do, from what was seen. Pure: no client, no clock.

use std::time::Duration;

use super::{Member, Observation, Role, Server, State, guard};
use crate::api::conditions::reasons;
use crate::api::session_store::FailoverCause;
use crate::store::names::{PRIMARY, REPLICA};

/// How long a replica may hear nothing from its primary, which says something each second, before it does not count as a
/// witness that the primary lives.
pub(super) const WITNESS_SECONDS: i64 = 5;

/// How long servers that may have sessions on their volumes are waited for before one that was seen is made primary without
/// them.
const COLD_WAIT: Duration = Duration::from_secs(30);

/// Seconds after which a replica that cannot connect to its primary is told again whom to follow, and by which password.
const RELINK_SECONDS: i64 = 5;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a server primary, as there is none.
    Promote {
        /// The server.
        member: String,
        /// Why.
        cause: FailoverCause,
    },
    /// Let the primary hand over to a replica once that has everything.
    HandOver {
        /// The primary.
        from: String,
        /// The replica.
        to: String,
        /// Why.
        cause: FailoverCause,
    },
    /// Let a server follow the primary, and give up what it has for what that one has.
    Follow {
        /// The server.
        member: String,
        /// The primary.
        primary: String,
    },
    /// Correct the label of a pod.
    Label {
        /// The pod.
        member: String,
        /// The label's value.
        role: &'static str,
    },
    /// Lead clients to the primary.
    Lead {
        /// The primary.
        member: String,
    },
    /// Record that a server is primary, and the name of its history.
    Note {
        /// The server.
        member: String,
    },
    /// Let a server take writes only while a replica hears it, or in any case.
    Guard {
        /// The server.
        member: String,
        /// Whether a replica has to hear it.
        on: bool,
    },
    /// Delete a pod, so that it is made from the present template.
    Restart {
        /// The pod.
        member: String,
    },
}

/// Why something is waited for: a reason of [`reasons`] and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The reason.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// What is waited for, if anything is.
    pub waits: Option<Waits>,
    /// The server that is primary now.
    pub primary: Option<String>,
}

/// Decides.
pub fn decide(seen: &Observation) -> Decision {
    match primary(seen) {
        Some(primary) => with_primary(seen, primary),
        None => without_primary(seen),
    }
}

/// The server that is primary and may stay it. Of several, the one whose loss would cost most.
fn primary(seen: &Observation) -> Option<&Member> {
    let record = &seen.record;
    let holds_data = |member: &Member| member.state().is_some_and(|state| state.keys > 0);
    let somebody_holds_data = seen.members.iter().any(holds_data);
    let is_of_history = |member: &Member| {
        member
            .state()
            .is_some_and(|state| state.is_of(record.history.as_deref()))
    };
    // One that was replaced while it was cut off comes back as a primary with what it had then. That the one in its place gives
    // no answer for a moment is no reason to go back to that.
    let replacement = seen.members.iter().find(|member| {
        let is_recorded = record.primary.as_deref() == Some(member.name.as_str());
        is_recorded && member.state().is_none() && member.may_hold_unseen()
    });
    let is_past = |member: &Member| replacement.is_some() && !is_of_history(member);
    seen.members
        .iter()
        .filter(|member| member.is_primary() && !is_past(member))
        // An empty one that somebody else has made primary must not be followed by those that have the sessions.
        .filter(|member| holds_data(member) || is_of_history(member) || !somebody_holds_data)
        .max_by_key(|member| {
            let state = member.state();
            (
                holds_data(member),
                record.primary.as_deref() == Some(member.name.as_str()),
                is_of_history(member),
                state.map_or(0, |state| state.replicas.len()),
                state.map_or(0, |state| state.offset),
            )
        })
}

fn with_primary(seen: &Observation, primary: &Member) -> Decision {
    let mut decision = Decision {
        primary: Some(primary.name.clone()),
        ..Decision::default()
    };
    let Some(state) = primary.state() else {
        return decision;
    };
    // It comes to an end by itself, one way or the other.
    if state.handing_over {
        return decision;
    }
    label(seen, primary, &mut decision.actions);
    if seen.led_to.as_ref() != Some(&primary.name) {
        decision.actions.push(Action::Lead {
            member: primary.name.clone(),
        });
    }
    let history = state.history.first().map(String::as_str);
    let record = &seen.record;
    if record.primary.as_ref() != Some(&primary.name)
        || record.uid != primary.pod.uid
        || record.history.as_deref() != history
    {
        decision.actions.push(Action::Note {
            member: primary.name.clone(),
        });
    }
    let others = || seen.members.iter().filter(|member| member.name != primary.name);
    for member in others().filter(|member| should_be_told(member, primary)) {
        decision.actions.push(Action::Follow {
            member: member.name.clone(),
            primary: primary.name.clone(),
        });
    }
    decision.actions.extend(guard::guard(seen, primary));
    match hand_over(seen, primary) {
        Some(Ok(to)) => decision.actions.push(Action::HandOver {
            from: primary.name.clone(),
            to: to.name.clone(),
            cause: if is_wished_for(primary) {
                FailoverCause::Planned
            } else {
                FailoverCause::VolumeFailed
            },
        }),
        Some(Err(waits)) => decision.waits = Some(waits),
        None => match restart(seen, Some(primary)) {
            Some(Ok(member)) => decision.actions.push(Action::Restart {
                member: member.name.clone(),
            }),
            Some(Err(waits)) => decision.waits = Some(waits),
            None => {}
        },
    }
    decision
}

/// Corrects labels: exactly the primary has its.
fn label(seen: &Observation, primary: &Member, actions: &mut Vec<Action>) {
    for member in seen.members.iter().filter(|member| member.pod.uid.is_some()) {
        let role = if member.name == primary.name {
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

/// Whether a server has to be told to follow the primary.
fn should_be_told(member: &Member, primary: &Member) -> bool {
    let Some(state) = member.state() else { return false };
    if state.loading || state.handing_over {
        return false;
    }
    match &state.role {
        // Another primary, be it for as long as it takes to end. The one that stays has data, if any has.
        Role::Primary => true,
        Role::Replica(_) if member.pod.terminating => false,
        Role::Replica(link) => {
            !member.follows(primary) || (!link.up && !link.syncing && link.down_for >= RELINK_SECONDS)
        }
    }
}

/// Whether somebody wants another primary.
fn is_wished_for(primary: &Member) -> bool {
    primary.pod.terminating || primary.leaving || primary.pod.outdated
}

/// The replica that is to take over from a primary that serves, or what it waits for; nothing if the primary may stay.
fn hand_over<'a>(seen: &'a Observation, primary: &Member) -> Option<Result<&'a Member, Waits>> {
    let others = || seen.members.iter().filter(|member| member.name != primary.name);
    let ready = || others().filter(|member| member.is_synced(primary) && !member.pod.terminating);
    let best = |members: Vec<&'a Member>| {
        members.into_iter().max_by_key(|member| {
            let offset = member.state().map_or(0, |state| state.offset);
            (
                !member.disk_failed(),
                !member.leaving,
                !member.pod.outdated,
                offset,
            )
        })
    };
    if primary.disk_failed() && !is_wished_for(primary) {
        // It refuses writes, and so does every other one whose volume is full.
        let able = ready().filter(|member| !member.disk_failed() && !member.leaving);
        return best(able.collect()).map(Ok);
    }
    let why = if primary.pod.terminating {
        "its pod is being deleted"
    } else if primary.leaving {
        "fewer replicas are asked for"
    } else if primary.pod.outdated {
        let staying = || others().filter(|member| !member.leaving);
        // Replicas come first.
        if staying().any(|member| member.pod.outdated) {
            return None;
        }
        if staying().any(|member| !member.is_synced(primary) || member.pod.terminating) {
            return Some(Err(Waits {
                reason: reasons::RESTART_WAITS,
                message: format!(
                    "primary {} has an older template and is replaced last, once all replicas have everything{}",
                    primary.name,
                    apart(seen, primary)
                ),
            }));
        }
        "its pod has an older template"
    } else {
        return None;
    };
    let fit = ready().filter(|member| primary.pod.terminating || !member.leaving);
    if let Some(to) = best(fit.collect()) {
        return Some(Ok(to));
    }
    Some(Err(Waits {
        reason: reasons::RESTART_WAITS,
        message: format!(
            "primary {} is to be replaced ({why}), but no replica has everything yet; it goes on until one has{}",
            primary.name,
            apart(seen, primary)
        ),
    }))
}

/// The outdated pod that may be replaced now, or what is waited for; nothing if there is none.
fn restart<'a>(seen: &'a Observation, primary: Option<&Member>) -> Option<Result<&'a Member, Waits>> {
    let is_primary = |member: &Member| primary.is_some_and(|primary| primary.name == member.name);
    let outdated: Vec<&Member> = seen
        .members
        .iter()
        .filter(|member| {
            member.pod.outdated && !member.pod.terminating && !member.leaving && !is_primary(member)
        })
        .collect();
    // One that does not run cannot lose anything.
    if let Some(broken) = outdated.iter().find(|member| !member.pod.running) {
        return Some(Ok(broken));
    }
    let (primary, first) = (primary?, outdated.first()?);
    let unwell = seen.members.iter().any(|member| {
        !is_primary(member)
            && !member.leaving
            && member.name != first.name
            && (!member.is_synced(primary) || member.pod.terminating)
    });
    if !unwell {
        return Some(Ok(first));
    }
    Some(Err(Waits {
        reason: reasons::RESTART_WAITS,
        message: format!(
            "pods with an older template are replaced one at a time, and the next one, {}, waits until all other replicas \
             have everything{}",
            first.name,
            apart(seen, primary)
        ),
    }))
}

/// Which servers do not have everything, as the end of a sentence.
fn apart(seen: &Observation, primary: &Member) -> String {
    let names: Vec<&str> = seen
        .members
        .iter()
        .filter(|member| member.name != primary.name && !member.is_synced(primary))
        .map(|member| member.name.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(": see pod {}", names.join(", "))
    }
}

fn without_primary(seen: &Observation) -> Decision {
    let mut decision = Decision::default();
    if let Some(Ok(member)) = restart(seen, None) {
        decision.actions.push(Action::Restart {
            member: member.name.clone(),
        });
    }
    if let Some(witness) = witness(seen) {
        decision.waits = Some(Waits {
            reason: reasons::NO_PRIMARY,
            message: format!(
                "primary {} does not answer the operator, but replica {witness} hears from it, so it is left alone; check \
                 NetworkPolicies between the operator and the store",
                seen.record.primary.as_deref().unwrap_or("?")
            ),
        });
        return decision;
    }
    match candidate(seen) {
        Ok((member, cause)) => decision.actions.push(Action::Promote {
            member: member.name.clone(),
            cause,
        }),
        Err(waits) => decision.waits = Some(waits),
    }
    decision
}

/// A replica that hears from the primary that was recorded, which the operator does not.
fn witness(seen: &Observation) -> Option<&str> {
    let name = seen.record.primary.as_deref()?;
    let recorded = seen.members.iter().find(|member| member.name == name)?;
    if recorded.state().is_some() {
        return None;
    }
    let witness = seen.members.iter().find(|member| {
        let hears = match member.state().map(|state| &state.role) {
            Some(Role::Replica(link)) => link.up && link.silent <= WITNESS_SECONDS,
            _ => false,
        };
        hears && member.follows(recorded)
    })?;
    Some(&witness.name)
}

/// Who is to be primary, as nobody is.
fn candidate(seen: &Observation) -> Result<(&Member, FailoverCause), Waits> {
    let record = &seen.record;
    let answering = || {
        let replicas = seen.members.iter().filter(|member| !member.is_primary());
        replicas.filter_map(|member| Some((member, member.state().filter(|state| !state.loading)?)))
    };
    let is_recorded = |member: &Member| record.primary.as_deref() == Some(member.name.as_str());
    let is_of_history = |state: &State| state.is_of(record.history.as_deref());
    // Who has followed the last primary since its process started has all but its last moments.
    let warm = answering()
        .filter(|(_, state)| state.is_warm() && (record.history.is_none() || is_of_history(state)))
        .max_by_key(|(member, state)| (!member.pod.terminating, !member.leaving, state.offset));
    if let Some((member, _)) = warm {
        return Ok((member, cause(seen)));
    }
    let unseen: Vec<&str> = seen
        .members
        .iter()
        .filter(|member| member.may_hold_unseen() && (record.is_initialised() || member.pod.started))
        .map(|member| member.name.as_str())
        .collect();
    // All were restarted, or were away for long. Volumes may still hold the sessions; the last primary's holds the most.
    let cold = answering()
        .filter(|(member, state)| state.keys > 0 && !member.pod.terminating)
        .max_by_key(|(member, state)| (is_recorded(member), state.keys));
    if let Some((member, _)) = cold {
        if is_recorded(member) || unseen.is_empty() || seen.without_primary >= COLD_WAIT {
            return Ok((member, FailoverCause::AllRestarted));
        }
        return Err(Waits {
            reason: reasons::NO_PRIMARY,
            message: format!(
                "all servers were restarted, and {} may hold newer sessions than {}; waiting for it for at most {} s",
                unseen.join(", "),
                member.name,
                COLD_WAIT.as_secs()
            ),
        });
    }
    if !unseen.is_empty() {
        return Err(Waits {
            reason: reasons::MEMBERS_UNSEEN,
            message: format!(
                "no server that answers has any session, and {} may hold them: none serves before that one was asked; if it \
                 is lost for good, delete its pod and its volume claim",
                unseen.join(", ")
            ),
        });
    }
    let empty = answering().find(|(member, _)| !member.pod.terminating && !member.leaving);
    match empty {
        Some((member, _)) if record.is_initialised() => Ok((member, FailoverCause::AllLost)),
        Some((member, _)) => Ok((member, FailoverCause::Created)),
        None => Err(Waits {
            reason: reasons::STORE_STARTING,
            message: "no server answers yet".to_owned(),
        }),
    }
}

/// What became of the primary that was recorded.
fn cause(seen: &Observation) -> FailoverCause {
    let recorded = seen
        .members
        .iter()
        .find(|member| seen.record.primary.as_deref() == Some(member.name.as_str()));
    match recorded {
        Some(member) if member.pod.uid.is_none() || member.pod.terminating => FailoverCause::PodLost,
        Some(member) if seen.record.uid.is_some() && member.pod.uid != seen.record.uid => {
            FailoverCause::PodLost
        }
        Some(member) if matches!(member.server, Server::Silent(_)) => FailoverCause::Unreachable,
        Some(_) => FailoverCause::ServerEnded,
        None => FailoverCause::PodLost,
    }
}

#[cfg(test)]
pub(super) mod tests;
