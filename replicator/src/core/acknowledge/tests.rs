//! Locks whose confirmations come late, or do not come.

use crate::core::testing::{Cluster, config};
use crate::core::{CommandError, Condition, Config, Mode, Op, Reply, SetExpiry};

/// A lock as PHP's handler takes it, for half a minute.
fn lock(cluster: &mut Cluster, place: usize, session: &str, token: &str) -> Reply {
    let lock = Op::Set {
        value: token.as_bytes(),
        flags: 0,
        expiry: SetExpiry::At(cluster.now.wall_ms + 30_000),
        condition: Condition::Absent,
        want_old: false,
    };
    cluster.ask(place, &format!("{session}_LOCK"), lock)
}

/// One member is out of reach for a moment, and not yet suspected. Who is told of an error does not hold the lock: otherwise
/// everybody would wait for half a minute for somebody who knows nothing of it.
#[test]
fn a_lock_that_was_answered_by_an_error_is_free() {
    let mut refused = 0;
    for mode in [Mode::All, Mode::Backup(1)] {
        let config = Config {
            home_timeout_ms: 3_000,
            ..config(mode)
        };
        let mut cluster = Cluster::with(3, &config);
        for number in 0..24 {
            let (away, place) = (number % 3, (number + 1 + number / 3 % 2) % 3);
            let session = format!("PHPREDIS_SESSION:{number}");
            cluster.away = Some(away);
            let reply = lock(&mut cluster, place, &session, "first");
            cluster.away = None;
            cluster.pass(1_500);
            let again = lock(&mut cluster, away, &session, "second");
            match reply {
                Reply::Ok => assert_eq!(again, Reply::Nil, "{session} is the first one's, {mode:?}"),
                Reply::Error(CommandError::NoReplicas) => {
                    refused += 1;
                    assert_eq!(again, Reply::Ok, "{session} is nobody's, {mode:?}");
                }
                Reply::Error(CommandError::HomeUnreachable) => {
                    assert_eq!(again, Reply::Ok, "{session} is nobody's, {mode:?}");
                }
                other => panic!("{session}, {mode:?}: {other:?}"),
            }
        }
    }
    assert!(refused >= 4, "only {refused} locks were not confirmed in time");
}

/// A member that takes its time to confirm makes a lock wait; it does not make it fail.
#[test]
fn a_lock_waits_for_a_confirmation_that_is_late() {
    let mut cluster = Cluster::new(3, Mode::All);
    for number in 0..12 {
        let session = format!("PHPREDIS_SESSION:{number}");
        let (away, place) = (number % 3, (number + 1) % 3);
        cluster.late(away, 1_800);
        assert_eq!(
            lock(&mut cluster, place, &session, "mine"),
            Reply::Ok,
            "{session}"
        );
        cluster.pass(3_000);
    }
}

/// Whoever has to confirm and is gone is suspected before a write is given up, whenever in its heartbeats that happens.
#[test]
fn a_member_that_is_gone_makes_writes_wait_and_none_fail() {
    let config = Config {
        affinity: false,
        ..config(Mode::All)
    };
    for moment in 0..20 {
        let mut cluster = Cluster::with(3, &config);
        cluster.pass(moment * 50);
        cluster.away = Some(2);
        let began = cluster.now.mono_ms;
        cluster.set(0, "session:1", "meanwhile");
        let waited = cluster.now.mono_ms - began;
        assert!((3_000..4_500).contains(&waited), "{waited} ms");
    }
}
