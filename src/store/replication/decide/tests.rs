//! What is decided, situation by situation.

pub mod fixture;

use self::fixture::*;
use super::*;

fn promote(ordinal: usize, cause: FailoverCause) -> Action {
    Action::Promote {
        member: format!("s-{ordinal}"),
        cause,
    }
}

fn follow(ordinal: usize, primary: usize) -> Action {
    Action::Follow {
        member: format!("s-{ordinal}"),
        primary: format!("s-{primary}"),
    }
}

fn hand_over_to(from: usize, to: usize) -> Action {
    Action::HandOver {
        from: format!("s-{from}"),
        to: format!("s-{to}"),
        cause: FailoverCause::Planned,
    }
}

/// A server that cannot write to its volume.
fn full(mut member: Member) -> Member {
    if let Server::Answers(state) = &mut member.server {
        state.disk_failed = true;
    }
    member
}

fn restart_of(ordinal: usize) -> Action {
    Action::Restart {
        member: format!("s-{ordinal}"),
    }
}

/// But for [`Action::Guard`], which has tests of its own.
fn actions(seen: &Observation) -> Vec<Action> {
    let mut actions = decide(seen).actions;
    actions.retain(|action| !matches!(action, Action::Guard { .. }));
    actions
}

fn waits(seen: &Observation) -> (&'static str, String) {
    let decision = decide(seen);
    let waits = decision.waits.unwrap_or_else(|| panic!("{:?}", decision.actions));
    (waits.reason, waits.message)
}

#[test]
fn a_store_that_is_well_is_left_alone() {
    let seen = seen(vec![
        guarded(primary_of(0, 100, 5)),
        replica(1, 0, 100, 5),
        replica(2, 0, 90, 5),
    ]);
    let decision = decide(&seen);
    assert_eq!((decision.actions, decision.waits), (vec![], None));
    assert_eq!(decision.primary.as_deref(), Some("s-0"));
}

#[test]
fn a_new_store_gets_its_first_primary_as_soon_as_a_server_answers() {
    let unstarted = |ordinal| {
        with(absent(ordinal), |member| {
            member.pod.uid = Some("u".to_owned());
        })
    };
    let volume = |ordinal| with(unstarted(ordinal), |member| member.volume = true);
    let created = vec![promote(1, FailoverCause::Created)];
    assert_eq!(
        actions(&new_store(vec![unstarted(0), fresh(1, 0), absent(2)])),
        created
    );
    assert_eq!(
        actions(&new_store(vec![volume(0), fresh(1, 0), volume(2)])),
        created
    );
    let nothing = new_store(vec![absent(0), absent(1), unstarted(2)]);
    assert_eq!(waits(&nothing).0, reasons::STORE_STARTING);
    assert_eq!(actions(&nothing), vec![]);
}

#[test]
fn a_new_object_for_servers_that_have_sessions_is_not_taken_for_a_new_store() {
    // What another SessionStore of that name left under Retain, its StatefulSet without its annotation.
    let all = new_store(vec![fresh(0, 0), fresh(1, 7), fresh(2, 3)]);
    assert_eq!(actions(&all), [promote(1, FailoverCause::AllRestarted)]);
    let starting = with(member(2, Server::Down), |member| member.volume = true);
    let unseen = new_store(vec![fresh(0, 0), fresh(1, 0), starting]);
    assert_eq!(waits(&unseen).0, reasons::MEMBERS_UNSEEN);
}

#[test]
fn others_are_told_to_follow_the_primary() {
    let mut seen = seen(vec![primary_of(0, 100, 5), fresh(1, 0), replica(2, 1, 90, 5)]);
    assert_eq!(actions(&seen), [follow(1, 0), follow(2, 0)]);
    // By the name that it announces, too; and again only when it has not come about for a while.
    seen.members[1] = with(cut(replica(1, 0, 90, 5)), |member| {
        if let Server::Answers(state) = &mut member.server
            && let Role::Replica(link) = &mut state.role
        {
            link.host = address(0).announced;
        }
    });
    seen.members[2] = replica(2, 0, 100, 5);
    assert_eq!(actions(&seen), []);
    if let Server::Answers(state) = &mut seen.members[1].server
        && let Role::Replica(link) = &mut state.role
    {
        link.down_for = RELINK_SECONDS;
    }
    assert_eq!(actions(&seen), [follow(1, 0)]);
}

#[test]
fn the_best_replica_takes_over_from_a_primary_that_is_lost() {
    let replicas = || [cut(replica(1, 0, 90, 5)), cut(replica(2, 0, 100, 5))];
    let lost = |primary: Member| {
        let [one, two] = replicas();
        actions(&seen(vec![primary, one, two]))
    };
    let terminating = with(member(0, Server::Down), |member| member.pod.terminating = true);
    let other_pod = with(fresh(0, 0), |member| member.pod.uid = Some("u-9".to_owned()));
    for (primary, cause) in [
        (absent(0), FailoverCause::PodLost),
        (terminating, FailoverCause::PodLost),
        (other_pod, FailoverCause::PodLost),
        (member(0, Server::Down), FailoverCause::ServerEnded),
        // kill -9: the process is back, empty, and the pod still has the label.
        (fresh(0, 0), FailoverCause::ServerEnded),
        // The same with what its volume had, which is older.
        (fresh(0, 4), FailoverCause::ServerEnded),
        (
            member(0, Server::Silent("no answer".to_owned())),
            FailoverCause::Unreachable,
        ),
    ] {
        assert_eq!(lost(primary.clone()), [promote(2, cause)], "{primary:?}");
    }
}

#[test]
fn a_primary_that_its_replicas_hear_from_is_not_replaced() {
    let silent = || member(0, Server::Silent("no answer".to_owned()));
    let mut seen = seen(vec![silent(), cut(replica(1, 0, 100, 5)), replica(2, 0, 90, 5)]);
    assert_eq!(actions(&seen), []);
    let (reason, message) = waits(&seen);
    assert_eq!(reason, reasons::NO_PRIMARY);
    assert!(message.contains("replica s-2 hears from it"), "{message}");
    // A cable that was pulled: the connection seems to be there.
    if let Server::Answers(state) = &mut seen.members[2].server
        && let Role::Replica(link) = &mut state.role
    {
        link.silent = WITNESS_SECONDS + 1;
    }
    assert_eq!(actions(&seen), [promote(1, FailoverCause::Unreachable)]);
}

#[test]
fn without_volumes_nobody_serves_while_a_server_may_still_have_the_sessions() {
    let restarted = || vec![fresh(0, 0), fresh(1, 0)];
    let with_third = |third: Member| {
        let mut members = restarted();
        members.push(third);
        seen(members)
    };
    // Its node is cut off: its process may run on.
    let silent = with_third(member(2, Server::Silent("no answer".to_owned())));
    let (reason, message) = waits(&silent);
    assert_eq!(reason, reasons::MEMBERS_UNSEEN);
    assert!(message.contains("s-2 may hold them"), "{message}");
    assert_eq!(actions(&silent), []);
    // It reads what its primary had sent.
    let loading = with_third(with(fresh(2, 3), |member| {
        if let Server::Answers(state) = &mut member.server {
            state.loading = true;
        }
    }));
    assert_eq!(waits(&loading).0, reasons::MEMBERS_UNSEEN);
    // It is gone, or has never run: there is nothing that it could have.
    let unstarted = with(member(2, Server::Down), |member| {
        member.pod.started = false;
        member.pod.running = false;
    });
    for gone in [absent(2), unstarted, fresh(2, 0)] {
        assert_eq!(
            actions(&with_third(gone)),
            [promote(0, FailoverCause::AllLost)],
            "nobody can have any"
        );
    }
    // It has them.
    let mut has = with_third(cut(replica(2, 0, 100, 5)));
    assert_eq!(actions(&has), [promote(2, FailoverCause::ServerEnded)]);
    // It has them from long ago.
    if let Server::Answers(state) = &mut has.members[2].server {
        state.history = ["long-ago".to_owned(), String::new()];
    }
    assert_eq!(actions(&has), [promote(2, FailoverCause::AllRestarted)]);
}

#[test]
fn with_volumes_the_last_primary_is_preferred_and_others_are_waited_for() {
    let on_volume = |member: Member| with(member, |member| member.volume = true);
    let all = seen(vec![
        on_volume(fresh(0, 5)),
        on_volume(fresh(1, 6)),
        on_volume(absent(2)),
    ]);
    assert_eq!(actions(&all), [promote(0, FailoverCause::AllRestarted)]);
    let mut away = seen(vec![
        on_volume(absent(0)),
        on_volume(fresh(1, 6)),
        on_volume(fresh(2, 7)),
    ]);
    let (reason, message) = waits(&away);
    assert_eq!(reason, reasons::NO_PRIMARY);
    assert!(
        message.contains("s-0 may hold newer sessions than s-2"),
        "{message}"
    );
    away.without_primary = COLD_WAIT;
    assert_eq!(actions(&away), [promote(2, FailoverCause::AllRestarted)]);
    // Empty ones wait for as long as it takes.
    let empty = |second: Member| {
        let mut empty = seen(vec![on_volume(absent(0)), on_volume(fresh(1, 0)), second]);
        empty.without_primary = COLD_WAIT * 100;
        empty
    };
    let unseen = empty(on_volume(fresh(2, 0)));
    assert_eq!(waits(&unseen).0, reasons::MEMBERS_UNSEEN);
    assert_eq!(actions(&unseen), []);
}

#[test]
fn of_two_primaries_the_recorded_one_stays_and_data_is_never_given_up_for_nothing() {
    let both = |first: Member, second: Member| seen(vec![first, second, replica(2, 0, 90, 5)]);
    let demoted = |seen: &Observation, ordinal: usize, stays: usize| {
        let actions = actions(seen);
        assert!(actions.contains(&follow(ordinal, stays)), "{actions:?}");
        assert!(!actions.contains(&follow(stays, ordinal)), "{actions:?}");
    };
    demoted(&both(primary_of(0, 50, 5), primary_of(1, 500, 9)), 1, 0);
    // The recorded one has nothing, and the other has.
    demoted(&both(primary_of(0, 50, 0), primary_of(1, 500, 9)), 0, 1);
    // Neither is recorded: the one with the history, then the one that is further.
    let mut unrecorded = both(primary_of(0, 50, 5), primary_of(1, 500, 9));
    unrecorded.record.primary = Some("s-2".to_owned());
    demoted(&unrecorded, 0, 1);
}

#[test]
fn a_primary_of_before_that_comes_back_is_not_taken_while_its_replacement_gives_no_answer() {
    let of_before = |mut member: Member| {
        if let Server::Answers(state) = &mut member.server {
            state.history = ["before".to_owned(), String::new()];
        }
        member
    };
    let scene = |replacement: Member| {
        let first = of_before(primary_of(0, 500, 9));
        let mut seen = seen(vec![first, replacement, of_before(replica(2, 0, 500, 9))]);
        seen.record.primary = Some("s-1".to_owned());
        seen.record.uid = Some("u-1".to_owned());
        seen
    };
    let silent = scene(member(1, Server::Silent("no answer within 1 s".to_owned())));
    assert_eq!(actions(&silent), [], "it is waited for");
    assert_eq!(waits(&silent).0, reasons::NO_PRIMARY);
    let back = actions(&scene(primary_of(1, 40, 3)));
    assert!(
        back.contains(&follow(0, 1)) && back.contains(&follow(2, 1)),
        "{back:?}"
    );
    // What was in a pod that is gone does not come back: the sessions of before are better than none.
    let gone = decide(&scene(absent(1)));
    assert_eq!(gone.primary.as_deref(), Some("s-0"));
}

#[test]
fn an_empty_server_that_somebody_made_primary_is_not_followed() {
    let stranger = with(primary_of(0, 0, 0), |member| {
        if let Server::Answers(state) = &mut member.server {
            state.history = ["strange".to_owned(), String::new()];
        }
    });
    let first = seen(vec![
        stranger.clone(),
        cut(replica(1, 0, 100, 5)),
        cut(replica(2, 0, 90, 5)),
    ]);
    assert_eq!(actions(&first), [promote(1, FailoverCause::ServerEnded)]);
    // And follows, once there is a primary.
    let mut then = seen(vec![stranger, primary_of(1, 100, 5), replica(2, 1, 100, 5)]);
    then.record.primary = Some("s-1".to_owned());
    then.record.uid = Some("u-1".to_owned());
    then.members[0].pod.label = Some("replica".to_owned());
    then.led_to = Some("s-1".to_owned());
    assert_eq!(actions(&then), [follow(0, 1)]);
}

#[test]
fn labels_and_record_are_corrected() {
    let mut seen = seen(vec![
        primary_of(0, 100, 5),
        replica(1, 0, 100, 5),
        replica(2, 0, 100, 5),
    ]);
    seen.members[0].pod.label = None;
    seen.members[1].pod.label = Some("primary".to_owned());
    seen.led_to = Some("s-1".to_owned());
    seen.record.history = None;
    assert_eq!(
        actions(&seen),
        [
            Action::Label {
                member: "s-0".to_owned(),
                role: PRIMARY
            },
            Action::Label {
                member: "s-1".to_owned(),
                role: REPLICA
            },
            Action::Lead {
                member: "s-0".to_owned()
            },
            Action::Note {
                member: "s-0".to_owned()
            },
        ]
    );
}

fn outdated(member: Member) -> Member {
    with(member, |member| member.pod.outdated = true)
}

#[test]
fn a_planned_restart_takes_replicas_first_one_by_one_and_the_primary_last() {
    let all = |first: Member, second: Member, third: Member| actions(&seen(vec![first, second, third]));
    let primary = || outdated(primary_of(0, 100, 5));
    let (one, two) = (|| replica(1, 0, 100, 5), || replica(2, 0, 100, 5));
    assert_eq!(all(primary(), outdated(one()), outdated(two())), [restart_of(1)]);
    // The one that was restarted has to be back and have everything.
    for not_back in [absent(1), member(1, Server::Down), cut(one())] {
        let waiting = seen(vec![primary(), not_back, outdated(two())]);
        assert_eq!(waits(&waiting).0, reasons::RESTART_WAITS);
        assert_eq!(actions(&waiting), []);
    }
    assert_eq!(all(primary(), one(), outdated(two())), [restart_of(2)]);
    // Nor does the primary go before the last replica is back.
    for not_back in [absent(2), member(2, Server::Down), cut(two())] {
        let waiting = seen(vec![primary(), one(), not_back]);
        assert_eq!(waits(&waiting).0, reasons::RESTART_WAITS);
        assert_eq!(actions(&waiting), []);
    }
    assert_eq!(all(primary(), one(), two()), [hand_over_to(0, 2)]);
    // It has handed over.
    let mut after = seen(vec![
        outdated(replica(0, 2, 100, 5)),
        replica(1, 2, 100, 5),
        primary_of(2, 100, 5),
    ]);
    after.record.primary = Some("s-2".to_owned());
    after.record.uid = Some("u-2".to_owned());
    assert_eq!(actions(&after), [restart_of(0)]);
}

#[test]
fn a_primary_that_cannot_write_to_its_volume_hands_over_to_a_replica_that_can() {
    let primary = || full(primary_of(0, 100, 5));
    let one = seen(vec![primary(), full(replica(1, 0, 100, 5)), replica(2, 0, 90, 5)]);
    let because = Action::HandOver {
        from: "s-0".to_owned(),
        to: "s-2".to_owned(),
        cause: FailoverCause::VolumeFailed,
    };
    assert_eq!(actions(&one), [because]);
    for none in [
        seen(vec![
            primary(),
            full(replica(1, 0, 100, 5)),
            full(replica(2, 0, 90, 5)),
        ]),
        seen(vec![
            primary(),
            full(replica(1, 0, 100, 5)),
            cut(replica(2, 0, 90, 5)),
        ]),
    ] {
        assert_eq!(actions(&none), []);
    }
    // Who is wanted away goes all the same, to one that can write if there is any.
    let ending = || with(primary(), |member| member.pod.terminating = true);
    let better = seen(vec![ending(), full(replica(1, 0, 100, 5)), replica(2, 0, 90, 5)]);
    assert_eq!(actions(&better), [hand_over_to(0, 2)]);
    let none_better = seen(vec![
        ending(),
        full(replica(1, 0, 100, 5)),
        cut(replica(2, 0, 90, 5)),
    ]);
    assert_eq!(actions(&none_better), [hand_over_to(0, 1)]);
}

#[test]
fn a_primary_that_is_to_go_hands_over_only_to_a_replica_that_has_everything() {
    let going = |change: fn(&mut Member)| with(primary_of(0, 100, 5), change);
    for change in [
        (|member: &mut Member| member.pod.terminating = true) as fn(&mut Member),
        |member: &mut Member| member.leaving = true,
    ] {
        let one = seen(vec![
            going(change),
            cut(replica(1, 0, 90, 5)),
            replica(2, 0, 80, 5),
        ]);
        assert_eq!(actions(&one), [hand_over_to(0, 2)]);
        let none = seen(vec![
            going(change),
            cut(replica(1, 0, 90, 5)),
            cut(replica(2, 0, 80, 5)),
        ]);
        assert_eq!(actions(&none), []);
        let (reason, message) = waits(&none);
        assert_eq!(reason, reasons::RESTART_WAITS);
        assert!(message.contains("see pod s-1, s-2"), "{message}");
    }
    // One that has handed over already is left alone until it is done.
    let busy = with(going(|member| member.pod.terminating = true), |member| {
        if let Server::Answers(state) = &mut member.server {
            state.handing_over = true;
        }
    });
    assert_eq!(
        actions(&seen(vec![busy, replica(1, 0, 100, 5), replica(2, 0, 100, 5)])),
        []
    );
}

#[test]
fn an_outdated_pod_that_does_not_run_is_replaced_whatever_the_others_do() {
    let broken = |ordinal| {
        with(outdated(member(ordinal, Server::Down)), |member| {
            member.pod.running = false;
        })
    };
    assert_eq!(
        actions(&new_store(vec![broken(0), broken(1), broken(2)])),
        [restart_of(0)]
    );
    assert_eq!(
        actions(&seen(vec![primary_of(0, 9, 5), broken(1), absent(2)])),
        [restart_of(1)]
    );
}

#[test]
fn servers_that_are_to_go_are_not_chosen_and_not_waited_for() {
    let mut fewer = seen(vec![
        outdated(primary_of(0, 100, 5)),
        replica(1, 0, 100, 5),
        with(cut(replica(2, 0, 500, 5)), |member| member.leaving = true),
    ]);
    // Which has everything, and all that stay have.
    assert_eq!(actions(&fewer), [hand_over_to(0, 1)]);
    fewer.members[0] = absent(0);
    fewer.members[1] = cut(replica(1, 0, 90, 5));
    assert_eq!(actions(&fewer), [promote(1, FailoverCause::PodLost)]);
}

/// Its node was cut off and is back: its pod ends, and until it has ended it must not serve.
#[test]
fn a_former_primary_whose_pod_ends_is_told_of_the_present_one() {
    let former = with(primary_of(2, 90, 5), |member| {
        member.pod.terminating = true;
        member.pod.label = Some("replica".to_owned());
    });
    let seen = seen(vec![primary_of(0, 100, 5), replica(1, 0, 100, 5), former]);
    assert_eq!(actions(&seen), [follow(2, 0)]);
}
