//! What a member that was out of reach says when it is back.

use super::{Home, Token};
use crate::core::testing::Cluster;
use crate::core::{Mode, NodeId, Op, Reply};

/// Three members with sessions, one of which has been away for long; the places of the others, and the keys.
fn with_one_away(mode: Mode, away: usize) -> (Cluster, Vec<usize>, Vec<String>) {
    let mut cluster = Cluster::new(3, mode);
    let others = (0..3).filter(|place| *place != away).collect();
    let keys: Vec<String> = (0..60).map(|number| format!("session:{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        cluster.set(number % 3, key, "before");
    }
    cluster.pass(500);
    cluster.away = Some(away);
    cluster.pass(15_000);
    (cluster, others, keys)
}

/// It was alone, and took over everything; the others went on. When they hear each other again, nobody is told what it holds
/// from before, nor that what it does not hold is not there.
#[test]
fn who_was_away_has_no_say_in_what_happened_meanwhile() {
    for mode in [Mode::All, Mode::Backup(1)] {
        for away in 0..3 {
            let (mut cluster, others, keys) = with_one_away(mode, away);
            let fresh: Vec<String> = (0..60).map(|number| format!("fresh:{number}")).collect();
            for (number, key) in keys.iter().chain(&fresh).enumerate() {
                cluster.set(others[number % 2], key, "meanwhile");
            }
            cluster.pass(500);
            cluster.away = None;
            for moment in 0..400 {
                cluster.pass(5);
                for (number, key) in keys.iter().chain(&fresh).enumerate() {
                    if number % 40 == moment % 40 {
                        for place in 0..3 {
                            let alone = cluster.cores[place].stats().members.iter().all(|m| m.suspect);
                            if !alone {
                                cluster.sees(
                                    place,
                                    key,
                                    "meanwhile",
                                    &format!("{mode:?}, {away} back for {} ms", moment * 5),
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Who came while it was away knows nothing of that, and is the first to hear it again.
#[test]
fn who_was_away_has_no_say_either_with_one_who_came_meanwhile() {
    for mode in [Mode::All, Mode::Backup(1)] {
        for away in 0..3 {
            let (mut cluster, others, keys) = with_one_away(mode, away);
            let newcomer = cluster.join(mode);
            for (number, key) in keys.iter().enumerate() {
                cluster.set(others[number % 2], key, "meanwhile");
            }
            cluster.pass(500);
            for (met, moments) in [(Some(newcomer), 300), (None, 400)] {
                cluster.met = met;
                cluster.away = met.map(|_| away);
                for moment in 0..moments {
                    cluster.pass(5);
                    for (number, key) in keys.iter().enumerate() {
                        for place in others.iter().copied().chain([newcomer]) {
                            if number % 40 == moment % 40 {
                                let when = format!("{mode:?}, {away} met {met:?} for {} ms", moment * 5);
                                cluster.sees(place, key, "meanwhile", &when);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Nor do those from whom one was apart who went on with its users: that they were the more says nothing of who has written. A
/// request that waited on the way to them comes with the first words of the others.
#[test]
fn the_majority_has_no_say_either_in_what_happened_meanwhile() {
    for mode in [Mode::All, Mode::Backup(1)] {
        for away in 0..3 {
            let (mut cluster, others, keys) = with_one_away(mode, away);
            for key in &keys {
                cluster.set(away, key, "meanwhile");
            }
            cluster.pass(500);
            cluster.away = None;
            let mut met = 0;
            for moment in 0..4_000 {
                cluster.pass(1);
                for place in &others {
                    let stats = cluster.cores[*place].stats();
                    let hears = stats.members.iter().all(|m| !m.suspect);
                    if hears {
                        met += 1;
                        let key = &keys[moment % keys.len()];
                        cluster.sees(
                            *place,
                            key,
                            "meanwhile",
                            &format!("{mode:?}, {away} back, {moment}"),
                        );
                    }
                }
            }
            assert!(met > 100, "{mode:?}, {away} back: heard {met} times");
        }
    }
}

/// Both without a majority, one takes partitions over from the other; when there is one again each goes back to what it knew before:
/// that the other has them. A third ought to have them by then, and asks both.
#[test]
fn what_each_of_two_members_believes_the_other_to_have_finds_a_home() {
    for mode in [Mode::All, Mode::Backup(1)] {
        let mut cluster = Cluster::new(3, mode);
        let third: Vec<u16> = cluster.cores[2].homes.acting().collect();
        assert!(!third.is_empty());
        for partition in third {
            for (place, believed) in [(0, NodeId(2)), (1, NodeId(1)), (2, NodeId::default())] {
                *cluster.cores[place].homes.get_mut(partition).unwrap() = Home {
                    token: Token::None,
                    epoch: 7,
                    claimed_by: believed,
                };
            }
        }
        cluster.pass(2_000);
        for place in 0..3 {
            for number in 0..200 {
                let reply = cluster.ask(place, &format!("nobody:{number}"), Op::Get);
                assert_eq!(reply, Reply::Nil, "{mode:?}, {number} at {place}");
            }
        }
    }
}

/// Who has just joined is the home of some keys at once, and no request waits until everybody's next heartbeat for it to be allowed to
/// decide.
#[test]
fn a_member_that_has_just_joined_decides_at_once() {
    for mode in [Mode::All, Mode::Backup(1)] {
        let mut cluster = Cluster::new(3, mode);
        let newcomer = cluster.come(mode);
        let (begun_ms, mut longest_ms, mut number) = (cluster.now.mono_ms, 0, 0);
        while cluster.now.mono_ms < begun_ms + 10_000 {
            let asked_ms = cluster.now.mono_ms;
            let reply = cluster.ask(number % 3, &format!("nobody:{number}"), Op::Get);
            assert_eq!(reply, Reply::Nil, "{mode:?}");
            longest_ms = longest_ms.max(cluster.now.mono_ms - asked_ms);
            number += 1;
            cluster.pass(1);
        }
        assert!(cluster.cores[newcomer].homes.acting().count() > 0, "{mode:?}");
        assert!(longest_ms < 100, "{mode:?}: a request waited for {longest_ms} ms");
    }
}
