//! Slots that are to be elsewhere, as shards came or are to go. Which are next follows from who has what now: an operator that ends
//! in the middle has nothing to remember.

use std::fmt::Write as _;

use super::{Action, Step, leader};
use crate::api::conditions::reasons;
use crate::store::cluster::slots::{COUNT, Slots, share};
use crate::store::cluster::survey::Survey;
use crate::store::cluster::{Member, State};

/// Slots that are moved at once where servers move them as a whole: they are written down and followed like a replica's data, in
/// memory, and change hands when all is there.
pub const ATOMIC_STEP: usize = 512;

/// The same where each key is moved by itself: more than can be moved in the time after which the servers are looked at again.
pub const STEP: usize = 512;

/// Memory that the shards that stay have to have, for each 100 bytes that are in use.
const ROOM_PERCENT: i64 = 125;

/// A shard, as moves see it.
struct Shard<'a> {
    number: usize,
    leader: &'a Member,
    state: &'a State,
    slots: usize,
    target: usize,
}

/// Slots that are between two servers: their move is finished before anything else is planned.
pub fn finish(survey: &Survey) -> Option<Step> {
    for (member, state) in survey.answering() {
        let Some(myself) = state.myself() else { continue };
        let by_name = |id: &str| {
            let mut answering = survey.answering();
            answering
                .find(|(_, state)| state.id == id)
                .map(|(member, _)| member)
        };
        let begun = |slots: Slots, from: &Member, to: &Member| {
            Some(Step::one(Action::Move {
                from: from.name.clone(),
                to: to.name.clone(),
                slots,
            }))
        };
        if let Some((_, id)) = myself.migrating.first()
            && let Some(to) = by_name(id)
        {
            return begun(of_one(&myself.migrating, id, |_| true), member, to);
        }
        if let Some((slot, id)) = myself.importing.first() {
            return match by_name(id) {
                // It has given the slot away already, to this one or to another.
                Some(from) if from.is_owner() && owns(from, *slot) => begun(
                    of_one(&myself.importing, id, |slot| owns(from, slot)),
                    from,
                    member,
                ),
                _ => Some(Step::one(Action::Settle {
                    member: member.name.clone(),
                    slot: *slot,
                })),
            };
        }
    }
    None
}

/// The slots that are on their way from or to one other server.
fn of_one(moving: &[(u16, String)], id: &str, is_fit: impl Fn(u16) -> bool) -> Slots {
    let slots = moving
        .iter()
        .filter(|(slot, other)| other == id && is_fit(*slot))
        .map(|(slot, _)| *slot..=*slot);
    Slots::of(slots)
}

fn owns(member: &Member, slot: u16) -> bool {
    member.state().is_some_and(|state| state.slots().contains(slot))
}

/// The next slots to move, or a shard that has none any more and is to go.
pub fn next(survey: &Survey) -> Option<Step> {
    let wanted = survey.seen.shards;
    let mut shards: Vec<Shard<'_>> = Vec::new();
    for number in survey.shards() {
        let Some(leader) = leader(survey, number) else {
            continue;
        };
        let Some(state) = leader.state() else { continue };
        shards.push(Shard {
            number,
            leader,
            state,
            slots: state.slots().len(),
            target: 0,
        });
    }
    targets(&mut shards, wanted);
    let surplus = |shard: &Shard<'_>| shard.slots.saturating_sub(shard.target);
    let lack = |shard: &Shard<'_>| shard.target.saturating_sub(shard.slots);
    let from = shards
        .iter()
        .filter(|shard| surplus(shard) > 0)
        .max_by_key(|shard| surplus(shard));
    let to = shards
        .iter()
        .filter(|shard| lack(shard) > 0)
        .max_by_key(|shard| lack(shard));
    let (Some(from), Some(to)) = (from, to) else {
        return gone(survey, &shards);
    };
    if from.number >= wanted
        && let Some(waits) = too_full(&shards, wanted)
    {
        return Some(Step::wait(reasons::SCALE_IN_REFUSED, waits));
    }
    // A server that has just met the others takes no keys for a moment.
    let is_ready = |shard: &Shard<'_>| shard.state.serves && survey.lacking(shard.number).is_empty();
    let left: usize = shards.iter().map(surplus).sum();
    let mut progress = format!(
        "slots move from shard to shard: {} of {COUNT} are still to be moved, in steps",
        // Not another sentence for each step.
        left.next_multiple_of(ATOMIC_STEP)
    );
    if let Some(why) = &from.state.export_failed {
        // Writing to a String cannot fail.
        _ = write!(
            progress,
            "; the last step from {} failed and is tried again ({why}); see the log of {}",
            from.leader.name, to.leader.name
        );
    }
    if !is_ready(from) || !is_ready(to) || survey.seen.members.iter().any(|member| member.pod.terminating) {
        return Some(Step::wait(
            reasons::SCALING,
            format!("{progress}; the next step waits until both shards have all their replicas"),
        ));
    }
    if survey.answering().any(|(_, state)| state.is_exporting) {
        return Some(Step::wait(reasons::SCALING, progress));
    }
    let is_atomic = from.state.moves_whole && to.state.moves_whole;
    let step = if is_atomic { ATOMIC_STEP } else { STEP };
    let slots = from.state.slots().first(step.min(surplus(from)).min(lack(to)));
    let (from, to) = (from.leader.name.clone(), to.leader.name.clone());
    let action = if is_atomic {
        Action::MoveWhole { from, to, slots }
    } else {
        Action::Move { from, to, slots }
    };
    Some(Step::Progress(
        action,
        super::Waits {
            reason: reasons::SCALING,
            message: progress,
        },
    ))
}

/// How many slots each shard is to have: as few as possible are moved.
fn targets(shards: &mut [Shard<'_>], wanted: usize) {
    let mut sizes: Vec<usize> = (0..wanted).map(|shard| share(shard, wanted).len()).collect();
    sizes.sort_unstable();
    let mut staying: Vec<&mut Shard<'_>> = shards.iter_mut().filter(|shard| shard.number < wanted).collect();
    // A new shard whose servers are not there yet gets its share later.
    staying.sort_by_key(|shard| (shard.slots, std::cmp::Reverse(shard.number)));
    if staying.len() < wanted {
        for shard in staying {
            shard.target = shard.slots;
        }
        return;
    }
    for (shard, size) in staying.into_iter().zip(sizes) {
        shard.target = size;
    }
}

/// Why the shards that are to stay cannot take what the others have.
fn too_full(shards: &[Shard<'_>], wanted: usize) -> Option<String> {
    let used: i64 = shards.iter().map(|shard| shard.state.used).sum();
    let room: i64 = shards
        .iter()
        .filter(|shard| shard.number < wanted)
        .map(|shard| shard.state.max)
        .sum();
    let needed = used / 100 * ROOM_PERCENT;
    (needed > room).then(|| {
        format!(
            "{} MiB are in use, and {wanted} shards have room for {} MiB, of which a fifth has to stay free: no slot is moved; raise \
             spec.memory, or leave spec.shards at {}",
            used >> 20,
            room >> 20,
            shards.len()
        )
    })
}

/// A shard that is not asked for and has nothing any more.
fn gone(survey: &Survey, shards: &[Shard<'_>]) -> Option<Step> {
    let leaving = survey
        .shards()
        .into_iter()
        .filter(|shard| *shard >= survey.seen.shards);
    for number in leaving {
        let has_slots = shards
            .iter()
            .any(|shard| shard.number == number && shard.slots > 0);
        if has_slots || survey.served.len() < usize::from(COUNT) {
            continue;
        }
        let keys = shards
            .iter()
            .find(|shard| shard.number == number && shard.state.keys > 0);
        if let Some(shard) = keys {
            let message = format!(
                "{} has {} keys though no slots, so that shard {number} is not removed; if nobody needs them, delete its StatefulSet",
                shard.leader.name, shard.state.keys
            );
            return Some(Step::wait(reasons::SCALING, message));
        }
        return Some(Step::one(Action::Remove { shard: number }));
    }
    None
}
