//! Moving sessions between a store and the pods without logging anybody out. Pure: what to do next, by what runs now.
//!
//! Between the two there is a third revision, whose sidecar knows the store, too. Where a policy stands is read from the
//! cluster alone (the revision that the template names, and what the sidecars say), so that an operator that was
//! replaced meanwhile goes on where the last one was.

use serde::{Deserialize, Serialize};

use super::report::{Member, Upstream};
use crate::api::SessionInjection;

/// Annotation of a revision: where its pods keep their sessions.
pub const PLACE_ANNOTATION: &str = "session-operator.dev/sessions";

/// Where the pods of a revision keep their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In a store.
    Store,
    /// In the pods.
    Pods,
    /// On their way from a store into the pods: the sidecars know both.
    StoreToPods,
    /// On their way from the pods into a store: the sidecars know both.
    PodsToStore,
    /// Where the application has them by itself: nothing is moved there or from there.
    Application,
}

impl Place {
    /// As it stands in the annotation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "Store",
            Self::Pods => "Pods",
            Self::StoreToPods => "StoreToPods",
            Self::PodsToStore => "PodsToStore",
            Self::Application => "Application",
        }
    }

    /// Of a revision; those from before there was the annotation had no sidecar.
    pub fn of(injection: &SessionInjection) -> Self {
        let annotations = injection.metadata.annotations.as_ref();
        let name = annotations.and_then(|annotations| annotations.get(PLACE_ANNOTATION));
        match name.map(String::as_str) {
            Some("Pods") => Self::Pods,
            Some("StoreToPods") => Self::StoreToPods,
            Some("PodsToStore") => Self::PodsToStore,
            Some("Application") => Self::Application,
            _ => Self::Store,
        }
    }
}

/// The way from where the pods keep their sessions to where they are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Pods of this kind are wanted.
    To(Place),
    /// The pods know both places: their sidecars are told what to do until these may follow.
    Through(Place),
}

/// The course from what the template names to `wanted`. `movable` says whether both places are known, under one prefix:
/// otherwise sessions are left behind.
pub fn course(current: Option<Place>, wanted: Place, movable: bool) -> Course {
    match (current, wanted) {
        (_, Place::Application) => Course::To(wanted),
        (Some(Place::Store), Place::Pods) if movable => Course::To(Place::StoreToPods),
        (Some(Place::Pods), Place::Store) if movable => Course::To(Place::PodsToStore),
        // Also for who has changed his mind: a way that was begun is turned round where the sidecars stand.
        (Some(Place::StoreToPods | Place::PodsToStore), wanted) => Course::Through(wanted),
        (_, wanted) => Course::To(wanted),
    }
}

/// What a sidecar is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make clients wait for what is to come.
    Hold,
    /// Answer clients from what the pods hold.
    Lead,
    /// Pass clients on to the store.
    Follow,
    /// Copy everything from the store.
    CopyIn,
    /// Copy everything to the store.
    CopyOut,
}

impl Request {
    /// Path of the request.
    pub fn path(self) -> &'static str {
        match self {
            Self::Hold => "/upstream/hold",
            Self::Lead => "/upstream/lead",
            Self::Follow => "/upstream/follow",
            Self::CopyIn => "/upstream/copy-in",
            Self::CopyOut => "/upstream/copy-out",
        }
    }
}

/// What to do next with the sidecars of a revision that knows both places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask these (by index) for something; a sentence about it.
    Ask(Vec<usize>, Request, String),
    /// Wait; a sentence about what for.
    Wait(String),
    /// Everything is where it is to be: the next revision may come.
    Done,
}

/// From the store into the pods: all lead, then one copies what nobody has asked for yet. `unlisted` says why the store does
/// not tell what it holds, if it does not: then nothing begins that could not be ended.
pub fn into_pods(members: &[Member], unlisted: Option<&str>) -> Step {
    if let Some(step) = wait_for_store(members) {
        return step;
    }
    let upstreams = || members.iter().filter_map(|member| member.upstream.as_ref());
    let is_copied = upstreams().any(|upstream| upstream.copy_in.completed > 0);
    if let Some(unlisted) = unlisted
        && !is_copied
    {
        return Step::Wait(unlisted.to_owned());
    }
    let following = those(members, |upstream| upstream.follows);
    if !following.is_empty() {
        let sentence = format!(
            "{} of {} sidecars still pass users on to the store",
            following.len(),
            members.len()
        );
        return turn(members, following, Request::Lead, sentence);
    }
    if let Some(copy) = upstreams()
        .map(|upstream| &upstream.copy_in)
        .find(|copy| copy.running)
    {
        return Step::Wait(format!("{} sessions of the store were copied so far", copy.seen));
    }
    if !is_copied {
        let abandoned: u64 = upstreams().map(|upstream| upstream.copy_in.abandoned).sum();
        let sentence = if abandoned == 0 {
            "copying begins".to_owned()
        } else {
            format!(
                "copying begins once more; {abandoned} copies were given up, and the sidecar's log says why"
            )
        };
        return Step::Ask(vec![0], Request::CopyIn, sentence);
    }
    Step::Done
}

/// From the pods into the store: all copy what they are the home of, once more what is the latest while nobody writes, then
/// all follow the store.
pub fn into_store(members: &[Member]) -> Step {
    if let Some(step) = wait_for_store(members) {
        return step;
    }
    let leading = those(members, |upstream| !upstream.follows);
    let idle = those(members, |upstream| {
        !upstream.follows && upstream.copy_out_begun == 0
    });
    if !idle.is_empty() {
        return Step::Ask(idle, Request::CopyOut, "copying begins".to_owned());
    }
    let behind: u64 = members
        .iter()
        .filter_map(|member| member.upstream.as_ref())
        .map(|upstream| upstream.pending + u64::from(upstream.copy_out_running))
        .sum();
    if behind > 0 {
        return Step::Wait(format!("{behind} changes are not in the store yet"));
    }
    if !leading.is_empty() {
        let sentence = format!(
            "{} of {} sidecars still answer by themselves",
            leading.len(),
            members.len()
        );
        let late = those(members, |upstream| !upstream.follows && !upstream.copy_out_held);
        let step = turn(members, leading, Request::Follow, sentence);
        // While there were writes, a copy of what was there a moment before may have come after them: once more, now that
        // there are none.
        return match step {
            Step::Ask(_, Request::Follow, sentence) if !late.is_empty() => {
                Step::Ask(late, Request::CopyOut, sentence)
            }
            step => step,
        };
    }
    Step::Done
}

/// The next step of sidecars that were made for the way `begun`, towards `wanted`; and where that way leads: who turns
/// round too late goes to the end first. `unlisted` as for [`into_pods`].
pub fn next(begun: Place, wanted: Place, members: &[Member], unlisted: Option<&str>) -> (Step, Place) {
    match (begun, wanted) {
        // Nobody has answered by himself yet: the store has everything.
        (Place::StoreToPods, Place::Store) if !some_lead(members) => (Step::Done, Place::Store),
        // Nobody has followed yet: the pods have everything.
        (Place::PodsToStore, Place::Pods) if !some_follow(members) => (Step::Done, Place::Pods),
        (Place::StoreToPods, Place::Pods) => (into_pods(members, unlisted), Place::Pods),
        _ => (into_store(members), Place::Store),
    }
}

/// Whether one of them has answered users by itself, so that the store alone does not decide any more.
fn some_lead(members: &[Member]) -> bool {
    !those(members, |upstream| !upstream.follows).is_empty()
}

/// Whether one of them passes users on to the store, so that what the pods hold may be older.
fn some_follow(members: &[Member]) -> bool {
    !those(members, |upstream| upstream.follows).is_empty()
}

/// Tells some to answer from elsewhere, once all clients of all of them wait and nothing is under way any more: no two may
/// answer one user from different places.
fn turn(members: &[Member], whom: Vec<usize>, request: Request, sentence: String) -> Step {
    let these = || whom.iter().filter_map(|index| members.get(*index));
    let upstream = |member: &Member| member.upstream.clone().unwrap_or_default();
    if these().any(|member| !upstream(member).held) {
        return Step::Ask(whom, Request::Hold, sentence);
    }
    let lag = |member: &Member| {
        let peers = member.members.iter();
        peers
            .filter(|peer| peer.linked && !peer.suspect)
            .any(|peer| peer.lag > 0)
    };
    if these().any(|member| member.connections > 0 || upstream(member).pending > 0 || lag(member)) {
        return Step::Wait(sentence);
    }
    Step::Ask(whom, request, sentence)
}

fn wait_for_store(members: &[Member]) -> Option<Step> {
    if members.is_empty() {
        return Some(Step::Wait("no sidecar answers yet".to_owned()));
    }
    let away = members
        .iter()
        .filter(|member| {
            !member
                .upstream
                .as_ref()
                .is_some_and(|upstream| upstream.connected)
        })
        .count();
    (away > 0).then(|| {
        Step::Wait(format!(
            "{away} of {} sidecars do not reach the store",
            members.len()
        ))
    })
}

fn those(members: &[Member], what: impl Fn(&Upstream) -> bool) -> Vec<usize> {
    members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.upstream.as_ref().is_some_and(&what))
        .map(|(index, _)| index)
        .collect()
}
