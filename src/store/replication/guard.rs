//! A primary that was cut off must not go on taking writes that nobody will have once another one is in its place.
//!
//! Servers see to that by themselves (`min-replicas-to-write`): one that no replica has confirmed anything to for
//! [`LAG_SECONDS`], which they do each second, refuses writes, before the others may take over. So what clients were told was written
//! is with somebody who goes on. It stays so when the node is back, until the former primary has been told to follow.
//!
//! A store whose replicas are restarted or lost has to go on without them. So this is in force only while two of them follow: one
//! of them may go at any time, and until it is back the operator, which hears the primary, lifts it: once the API server has
//! answered, which it does not on the primary's side of a cut.

use super::decide::{Action, WITNESS_SECONDS};
use super::{Member, Observation};

/// How long the last confirmation of any replica may be ago, seconds.
pub const LAG_SECONDS: i64 = WITNESS_SECONDS - 1;

/// Replicas that have to follow.
const FOLLOWERS: usize = 2;

/// Who is to be guarded, and is not, or the other way round.
pub fn guard(seen: &Observation, primary: &Member) -> Vec<Action> {
    let followers = seen
        .members
        .iter()
        .filter(|member| member.is_synced(primary) && !member.pod.terminating && !member.leaving)
        .count();
    let wanted = |member: &Member| member.name == primary.name && followers >= FOLLOWERS;
    let changes = seen.members.iter().filter(|member| {
        let present = member.state().map(|state| state.guarded);
        // Another primary is told to follow, which ends it.
        let is_other_primary = member.is_primary() && member.name != primary.name;
        present.is_some_and(|present| present != wanted(member)) && !is_other_primary
    });
    changes
        .map(|member| Action::Guard {
            member: member.name.clone(),
            on: wanted(member),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::decide::tests::fixture::{cut, guarded, primary_of, replica, seen, with};
    use super::*;

    fn actions(members: Vec<Member>) -> Vec<Action> {
        let seen = seen(members);
        guard(&seen, &seen.members[0])
    }

    fn told(ordinal: usize, on: bool) -> Action {
        Action::Guard {
            member: format!("s-{ordinal}"),
            on,
        }
    }

    #[test]
    fn one_with_two_replicas_is_guarded() {
        let replicas = || [replica(1, 0, 100, 5), replica(2, 0, 100, 5)];
        let with = |primary: Member| actions([primary].into_iter().chain(replicas()).collect());
        assert_eq!(with(primary_of(0, 100, 5)), [told(0, true)]);
        assert_eq!(with(guarded(primary_of(0, 100, 5))), []);
    }

    #[test]
    fn one_that_has_lost_a_replica_goes_on_without() {
        let primary = || guarded(primary_of(0, 100, 5));
        let (one, two) = (|| replica(1, 0, 100, 5), || replica(2, 0, 100, 5));
        assert_eq!(actions(vec![primary(), one(), cut(two())]), [told(0, false)]);
        let ending = with(two(), |member| member.pod.terminating = true);
        assert_eq!(actions(vec![primary(), one(), ending]), [told(0, false)]);
        assert_eq!(actions(vec![primary(), one()]), [told(0, false)]);
        assert_eq!(actions(vec![primary_of(0, 100, 5), one()]), []);
    }

    #[test]
    fn a_former_primary_is_freed_only_once_it_follows() {
        let follows = vec![
            guarded(primary_of(0, 100, 5)),
            replica(1, 0, 100, 5),
            guarded(replica(2, 0, 100, 5)),
        ];
        assert_eq!(actions(follows), [told(2, false)]);
        let back = vec![
            primary_of(0, 100, 5),
            replica(1, 0, 100, 5),
            guarded(primary_of(2, 90, 5)),
        ];
        assert_eq!(actions(back), []);
    }
}
