//! Sums up what the sidecars say of themselves. Pure.

use std::collections::BTreeSet;

use super::Trouble;
use super::report::{Member, Peer};
use crate::api::conditions::reasons;
use crate::api::session_policy::{Replicated, Replication, ReplicationMode};

/// So many unconfirmed changes are nothing unusual.
const USUAL_LAG: u64 = 1_000;
/// So many are a sidecar that does not keep up.
const LAG_LIMIT: u64 = 100_000;
/// In mode All, a sidecar that sends more than this to the others (bytes per second) could have less to do.
const BUSY_BYTES: u64 = 2 << 20;
/// From so many pods on a session has fewer copies in mode Backup, and still one that a crash leaves.
const MANY_PODS: usize = 4;

/// What is known of one pod's sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Name of the pod.
    pub pod: String,
    /// What it said, or a sentence about why not.
    pub said: Result<Member, String>,
    /// Bytes per second that it has sent to the others lately, if known.
    pub rate: Option<u64>,
}

/// Sums up what the sidecars said; `former` is what stands in status, so that small changes are not written. The sentence is
/// for the condition SessionsReplicated.
pub fn sum_up(
    wish: &Replicated,
    seen: &[Seen],
    former: Option<&Replication>,
) -> (Replication, Result<String, Trouble>) {
    let said: Vec<(&str, &Member)> = seen
        .iter()
        .filter_map(|seen| Some((seen.pod.as_str(), seen.said.as_ref().ok()?)))
        .collect();
    let members = || said.iter().map(|(_, member)| *member);
    let lag = members()
        .flat_map(|member| &member.members)
        .filter(|peer| peer.linked && !peer.suspect)
        .map(|peer| peer.lag)
        .max()
        .unwrap_or(0);
    let unsupported: BTreeSet<&String> = members()
        .flat_map(|member| member.unsupported_commands.keys())
        .collect();
    let replication = Replication {
        members: count(members().filter(|member| member.ready).count()),
        total_members: count(seen.len()),
        sessions: steady(sessions(wish, &said), former.map(|former| former.sessions)),
        lag: if lag < USUAL_LAG {
            0
        } else {
            steady(lag, former.map(|former| former.lag))
        },
        unsupported_commands: unsupported.into_iter().cloned().collect(),
        recommendation: recommendation(wish, seen, &said, former),
    };
    let judged = judge(seen, &said, lag, &replication);
    (replication, judged)
}

fn judge(
    seen: &[Seen],
    said: &[(&str, &Member)],
    lag: u64,
    replication: &Replication,
) -> Result<String, Trouble> {
    let apart = |message: String| Err(Trouble::new(reasons::MEMBERS_APART, message));
    if let Some((pod, why)) = seen
        .iter()
        .find_map(|seen| Some((&seen.pod, seen.said.as_ref().err()?)))
    {
        return apart(format!(
            "{} of {} sidecars answer the operator; that of pod {pod} does not: {why}",
            said.len(),
            seen.len()
        ));
    }
    if let Some((pod, _)) = said.iter().find(|(_, member)| !member.ready) {
        return apart(format!(
            "the sidecar of pod {pod} does not have yet what it is to hold"
        ));
    }
    let reaches = |member: &Member, other: &str| {
        let is_linked = |peer: &Peer| peer.name == other && peer.linked && !peer.suspect;
        member.members.iter().any(is_linked)
    };
    for (pod, member) in said {
        let missing = said
            .iter()
            .find(|(other, _)| other != pod && !reaches(member, other));
        if let Some((other, _)) = missing {
            return apart(format!(
                "the sidecar of pod {pod} does not reach that of pod {other}: what is written at one is not known at the \
                 other; see whether a NetworkPolicy or a mesh keeps pods from each other's port {}",
                super::sidecar::PEER_PORT
            ));
        }
    }
    if lag >= LAG_LIMIT {
        return Err(Trouble::new(
            reasons::REPLICATION_LAGS,
            format!(
                "{} changes wait for a sidecar to confirm them; a crash now would lose the latest of them: more CPU for the sidecars, or mode Backup",
                replication.lag
            ),
        ));
    }
    if let Some((pod, _)) = said.iter().find(|(_, member)| is_nearly_full(member)) {
        return Err(Trouble::new(
            reasons::MEMBERS_NEARLY_FULL,
            format!(
                "the sidecar of pod {pod} has used more than nine tenths of its memory, and refuses new sessions when none is left; raise spec.replicated.memory"
            ),
        ));
    }
    let all = format!(
        "{} sidecars have each other's sessions",
        replication.total_members
    );
    Ok(if replication.unsupported_commands.is_empty() {
        all
    } else {
        format!(
            "{all}; the application also sends {}, which sidecars do not speak: it uses them for more than sessions, and needs a \
             store of its own for that",
            replication.unsupported_commands.join(", ")
        )
    })
}

fn sessions(wish: &Replicated, said: &[(&str, &Member)]) -> u64 {
    let held = said
        .iter()
        .map(|(_, member)| member.entries.saturating_sub(member.tombstones));
    match wish.mode {
        ReplicationMode::All => held.max().unwrap_or(0),
        ReplicationMode::Backup => {
            let copies = u64::try_from(wish.backups).unwrap_or(0) + 1;
            let members = u64::try_from(said.len()).unwrap_or(0).max(1);
            held.sum::<u64>() / copies.min(members)
        }
    }
}

/// A recommendation stands until its cause is less than half of what brought it.
fn recommendation(
    wish: &Replicated,
    seen: &[Seen],
    said: &[(&str, &Member)],
    former: Option<&Replication>,
) -> Option<String> {
    if wish.mode != ReplicationMode::All || seen.len() < MANY_PODS {
        return None;
    }
    let stands = former.is_some_and(|former| former.recommendation.is_some());
    let share = if stands { 2 } else { 1 };
    let busy = seen
        .iter()
        .filter_map(|seen| seen.rate)
        .any(|rate| rate > BUSY_BYTES / share);
    let full = said
        .iter()
        .any(|(_, member)| member.memory_limit > 0 && member.used_bytes * 2 * share > member.memory_limit);
    let cause = match (busy, full) {
        (true, _) => "each pod sends more than 2 MiB/s to all others",
        (false, true) => "sessions take more than half of the sidecars' memory",
        (false, false) => return None,
    };
    Some(format!(
        "mode Backup: in mode All every pod has every session, and {cause}; with spec.replicated.mode Backup and backups 1 each \
         session is at two pods"
    ))
}

fn is_nearly_full(member: &Member) -> bool {
    member.memory_limit > 0 && member.used_bytes / 9 > member.memory_limit / 10
}

/// What stands in status, unless it is off by more than a tenth.
fn steady(now: u64, former: Option<i64>) -> i64 {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    match former {
        Some(former) if now != 0 && former != 0 && (now - former).abs() <= former / 10 => former,
        _ => now,
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
