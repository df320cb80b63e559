//! What comes next while sessions move.

use crate::policy::sessions::moving::{Course, Place, Request, Step, course, into_pods, into_store, next};
use crate::policy::sessions::report::{CopyIn, Member, Peer, Upstream};

fn member(change: impl FnOnce(&mut Upstream)) -> Member {
    let mut upstream = Upstream {
        connected: true,
        ..Upstream::default()
    };
    change(&mut upstream);
    Member {
        upstream: Some(upstream),
        ..Member::default()
    }
}

fn asked(step: &Step) -> Option<(&[usize], Request)> {
    match step {
        Step::Ask(whom, what, _) => Some((whom, *what)),
        Step::Wait(_) | Step::Done => None,
    }
}

#[test]
fn into_the_pods_all_lead_before_one_copies() {
    let following = member(|upstream| upstream.follows = true);
    let leading = member(|_| {});
    let step = into_pods(&[following, leading.clone()], None);
    assert_eq!(asked(&step), Some(([0].as_slice(), Request::Hold)));
    let mut held = member(|upstream| {
        upstream.follows = true;
        upstream.held = true;
    });
    let step = into_pods(&[held.clone(), leading.clone()], None);
    assert_eq!(asked(&step), Some(([0].as_slice(), Request::Lead)));
    held.connections = 1;
    assert!(matches!(into_pods(&[held, leading.clone()], None), Step::Wait(_)));
    let step = into_pods(&[leading.clone(), leading.clone()], None);
    assert_eq!(asked(&step), Some(([0].as_slice(), Request::CopyIn)));
    let copying = member(|upstream| {
        upstream.copy_in = CopyIn {
            running: true,
            seen: 7,
            ..CopyIn::default()
        };
    });
    let step = into_pods(&[leading.clone(), copying], None);
    assert!(
        matches!(&step, Step::Wait(what) if what.contains('7')),
        "{step:?}"
    );
    let copied = member(|upstream| upstream.copy_in.completed = 1);
    assert_eq!(into_pods(&[leading, copied], None), Step::Done);
}

#[test]
fn nothing_that_could_not_be_ended_begins_with_a_store_that_does_not_list_keys() {
    let following = member(|upstream| upstream.follows = true);
    let held = member(|upstream| {
        upstream.follows = true;
        upstream.held = true;
    });
    let leading = member(|_| {});
    for members in [
        [following.clone(), following],
        [held.clone(), held],
        [leading.clone(), leading.clone()],
    ] {
        let step = into_pods(&members, Some("others came"));
        assert_eq!(step, Step::Wait("others came".to_owned()));
    }
    // What is copied already needs no list.
    let copied = member(|upstream| upstream.copy_in.completed = 1);
    assert_eq!(into_pods(&[leading, copied], Some("others came")), Step::Done);
}

#[test]
fn into_the_store_all_have_copied_before_one_follows() {
    let fresh = member(|_| {});
    let copied = member(|upstream| upstream.copy_out_begun = 1);
    let step = into_store(&[fresh, copied.clone()]);
    assert_eq!(asked(&step), Some(([0].as_slice(), Request::CopyOut)));
    let running = member(|upstream| {
        upstream.copy_out_begun = 1;
        upstream.copy_out_running = true;
        upstream.pending = 4;
    });
    let step = into_store(&[running, copied.clone()]);
    assert!(
        matches!(&step, Step::Wait(what) if what.contains('5')),
        "{step:?}"
    );
    let step = into_store(&[copied.clone(), copied.clone()]);
    assert_eq!(asked(&step), Some(([0, 1].as_slice(), Request::Hold)));
    let held = member(|upstream| {
        upstream.copy_out_begun = 1;
        upstream.held = true;
    });
    let step = into_store(&[held.clone(), copied]);
    assert_eq!(asked(&step), Some(([0, 1].as_slice(), Request::Hold)));
    // Nobody writes any more: once more the latest, when all have it.
    let mut late = held.clone();
    late.members = vec![Peer {
        linked: true,
        lag: 1,
        ..Peer::default()
    }];
    assert!(matches!(into_store(&[held.clone(), late.clone()]), Step::Wait(_)));
    late.members[0].suspect = true;
    let step = into_store(&[held.clone(), late]);
    assert_eq!(asked(&step), Some(([0, 1].as_slice(), Request::CopyOut)));
    let mut latest = held.clone();
    latest.upstream.as_mut().unwrap().copy_out_held = true;
    let step = into_store(&[held, latest.clone()]);
    assert_eq!(asked(&step), Some(([0].as_slice(), Request::CopyOut)));
    let step = into_store(&[latest.clone(), latest]);
    assert_eq!(asked(&step), Some(([0, 1].as_slice(), Request::Follow)));
    let followed = member(|upstream| upstream.follows = true);
    assert_eq!(into_store(&[followed.clone(), followed]), Step::Done);
}

#[test]
fn nothing_moves_without_the_store_or_without_pods() {
    let away = member(|upstream| upstream.connected = false);
    for step in [
        into_pods(std::slice::from_ref(&away), None),
        into_store(&[away]),
        into_pods(&[], None),
        into_store(&[]),
    ] {
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
    }
    let stranger = Member::default();
    assert!(matches!(into_pods(&[stranger], None), Step::Wait(_)));
}

#[test]
fn between_the_two_places_is_a_third() {
    for (current, wanted, movable, expected) in [
        (None, Place::Pods, true, Course::To(Place::Pods)),
        (Some(Place::Store), Place::Store, true, Course::To(Place::Store)),
        (
            Some(Place::Store),
            Place::Pods,
            true,
            Course::To(Place::StoreToPods),
        ),
        (Some(Place::Store), Place::Pods, false, Course::To(Place::Pods)),
        (
            Some(Place::Pods),
            Place::Store,
            true,
            Course::To(Place::PodsToStore),
        ),
        (Some(Place::Pods), Place::Store, false, Course::To(Place::Store)),
        (
            Some(Place::StoreToPods),
            Place::Pods,
            true,
            Course::Through(Place::Pods),
        ),
        (
            Some(Place::PodsToStore),
            Place::Store,
            false,
            Course::Through(Place::Store),
        ),
        // From or to the application's own memory nothing can be moved.
        (
            Some(Place::Application),
            Place::Store,
            true,
            Course::To(Place::Store),
        ),
        (
            Some(Place::StoreToPods),
            Place::Application,
            true,
            Course::To(Place::Application),
        ),
    ] {
        assert_eq!(
            course(current, wanted, movable),
            expected,
            "{current:?} {wanted:?}"
        );
    }
}

#[test]
fn who_turns_round_in_time_goes_back_and_else_to_the_end() {
    let following = member(|upstream| upstream.follows = true);
    let leading = member(|_| {});
    let back = next(
        Place::StoreToPods,
        Place::Store,
        std::slice::from_ref(&following),
        None,
    );
    assert_eq!(back, (Step::Done, Place::Store));
    let (step, end) = next(
        Place::StoreToPods,
        Place::Store,
        &[following.clone(), leading.clone()],
        None,
    );
    assert_eq!(
        (asked(&step), end),
        (Some(([1].as_slice(), Request::CopyOut)), Place::Store)
    );
    let back = next(
        Place::PodsToStore,
        Place::Pods,
        std::slice::from_ref(&leading),
        None,
    );
    assert_eq!(back, (Step::Done, Place::Pods));
    let (step, end) = next(Place::PodsToStore, Place::Pods, &[following, leading], None);
    assert_eq!(
        (asked(&step), end),
        (Some(([1].as_slice(), Request::CopyOut)), Place::Store)
    );
}
