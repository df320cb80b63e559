//! Real servers on loopback, started as in a pod, and the code that looks, decides and acts. Only the cluster around them is
//! played: labels and record are kept in memory, and a deleted pod is a server that is started anew.

mod fixture;
mod guard;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::fixture::{LIMIT, Servers, name};
use super::act::Actor;
use super::waiting::WaitingRoom;
use super::*;
use crate::api::session_store::FailoverCause;
use crate::store::acl::{ADMIN, REPLICATION, hash};
use crate::store::client::{Authority, Credentials, Failure, Password, connect};

const IN_MEMORY: &str = "{engine: Redis, topology: Replicated, memory: 64Mi}";
const ON_VOLUMES: &str = "{engine: Redis, topology: Replicated, memory: 64Mi, persistence: {size: 1Gi}}";

#[tokio::test]
async fn a_server_that_starts_serves_nobody() {
    let servers = Servers::start(IN_MEMORY);
    let mut shop = servers.as_shop(0).await;
    for command in [
        &["GET", "shop:1"][..],
        &["SET", "shop:1", "x", "EX", "60"],
        &["PING"],
    ] {
        let answer = shop.command::<redis::Value>(command).await;
        assert!(
            matches!(&answer, Err(Failure::Refused { cause, .. })
                if cause.contains("MASTERDOWN") || cause.contains("READONLY")),
            "{command:?}: {answer:?}"
        );
    }
    // Nor does anybody follow it who is not told the password.
    let nobody = Credentials {
        username: Some(REPLICATION.to_owned()),
        password: Some(Password::new("guess")),
    };
    assert!(matches!(
        connect(&servers.endpoint(0), &nobody).await,
        Err(Failure::Authentication { .. })
    ));
}

#[tokio::test]
async fn a_primary_killed_and_back_empty_wipes_nothing_and_a_replica_takes_over() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    assert_eq!(servers.labelled_primary(), [name(first)]);
    assert_eq!(servers.last_cause(), None);
    servers.write(first, 0..300).await;
    servers.settle().await;

    for round in 1..=3 {
        let before = servers.settle().await;
        servers.processes[before].kill_and_start();
        // At once, before anybody has looked: it refuses.
        let answer = servers
            .as_shop(before)
            .await
            .command::<redis::Value>(&["GET", "shop:1"])
            .await;
        assert!(answer.is_err(), "{answer:?}");
        let after = servers.settle().await;
        assert_ne!(after, before);
        assert_eq!(servers.missing(after, 0..300).await, 0);
        assert_eq!(servers.labelled_primary(), [name(after)]);
        // On a busy machine a server that starts may need longer than a look waits.
        let cause = servers.last_cause();
        assert!(
            matches!(
                cause,
                Some(FailoverCause::ServerEnded | FailoverCause::Unreachable)
            ),
            "{cause:?}"
        );
        assert_eq!(servers.played.record.lock().unwrap().epoch, 1 + round);
    }
}

#[tokio::test]
async fn with_the_operator_away_an_empty_primary_is_copied_by_nobody() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    servers.write(first, 0..100).await;
    servers.settle().await;
    servers.processes[first].kill_and_start();
    // Replicas try again each second, and the server that is back sends them nothing.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let seen = servers.look().await;
    let keys: Vec<i64> = seen
        .members
        .iter()
        .map(|member| member.state().unwrap().keys)
        .collect();
    assert_eq!(keys.iter().filter(|keys| **keys == 100).count(), 2, "{keys:?}");
    assert!(seen.members.iter().all(|member| !member.is_primary()));
    let after = servers.settle().await;
    assert_eq!(servers.missing(after, 0..100).await, 0);
}

#[tokio::test]
async fn replicas_follow_by_a_new_password_though_the_operator_is_away() {
    let mut servers = Servers::start(IN_MEMORY);
    let primary = servers.settle().await;
    servers.write(primary, 0..50).await;
    servers.settle().await;
    let hash_of = |password: &str| BTreeSet::from([hash(password)]);
    let replication = servers.material.replication.as_mut().unwrap();
    replication.password = Password::new("another");
    servers.material.relinks = true;
    for known in [&["replication", "another"][..], &["another"]] {
        let hashes = known.iter().flat_map(|password| hash_of(password)).collect();
        servers.material.users.replication = Some(hashes);
        servers.tend().await;
    }
    // From here on nobody tells them anything.
    let admin = &servers.access.credentials[0];
    let mut admin = connect(&servers.endpoint(primary), admin).await.unwrap();
    let closed: i64 = admin
        .command(&["CLIENT", "KILL", "TYPE", "replica"])
        .await
        .unwrap();
    assert_eq!(closed, 2);
    followed(&mut servers, primary, 50).await;
    servers.write(primary, 50..100).await;
    followed(&mut servers, primary, 100).await;
}

/// Waits until all others have so many keys of the primary.
async fn followed(servers: &mut Servers, primary: usize, count: i64) {
    let begun = Instant::now();
    loop {
        let seen = servers.look().await;
        let first = &seen.members[primary];
        let keys = |member: &Member| member.state().map(|state| state.keys);
        let mut others = seen.members.iter().filter(|member| member.name != first.name);
        if others.all(|member| member.is_synced(first) && keys(member) == Some(count)) {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{seen:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_planned_restart_of_all_servers_loses_nothing_that_was_confirmed() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    servers.write(first, 0..200).await;
    servers.outdated = (0..3).map(name).collect();
    servers.actions.clear();

    let mut written = 200;
    let begun = Instant::now();
    while !servers.outdated.is_empty() {
        let (_, decision) = servers.round().await;
        // Somebody writes all the while; what is confirmed has to be there afterwards.
        if let Some(primary) = decision.primary {
            let ordinal = (0..3).find(|ordinal| name(*ordinal) == primary).unwrap();
            if let Ok(mut shop) = servers.shop_at(ordinal).await {
                let key = format!("shop:{written}");
                let answer = shop.command::<()>(&["SET", &key, "x", "EX", "600"]).await;
                written += usize::from(answer.is_ok());
            }
        }
        assert!(begun.elapsed() < LIMIT, "{:#?}", servers.actions);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = servers.settle().await;
    assert!(written > 200, "nothing was written meanwhile");
    assert_eq!(servers.missing(last, 0..written).await, 0);
    assert_ne!(last, first, "the primary was restarted, too");
    assert_eq!(servers.last_cause(), Some(FailoverCause::Planned));
    let important: Vec<&Action> = servers
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Restart { .. } | Action::HandOver { .. }))
        .collect();
    assert!(
        matches!(
            important.as_slice(),
            [
                Action::Restart { .. },
                Action::Restart { .. },
                Action::HandOver { .. },
                Action::Restart { .. }
            ]
        ),
        "{important:#?}"
    );
    let promoted = servers
        .actions
        .iter()
        .any(|action| matches!(action, Action::Promote { .. }));
    assert!(!promoted, "{:#?}", servers.actions);
}

/// A user who connects anew for each request, and begins with a lock, as PHP does: it is led to `at`, reads what it has, and
/// writes one more.
async fn visit(servers: &Servers, user: usize, at: usize) -> Result<u64, Failure> {
    let (lock, key) = (format!("shop:{user}_LOCK"), format!("shop:{user}"));
    let mut shop = servers.shop_at(at).await?;
    loop {
        let answer: Option<String> = shop.command(&["SET", &lock, "me", "NX", "PX", "30000"]).await?;
        if answer.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before: Option<u64> = shop.command(&["GET", &key]).await?;
    let now = before.unwrap_or_default() + 1;
    shop.command::<()>(&["SETEX", &key, "600", &now.to_string()])
        .await?;
    shop.command::<()>(&["DEL", &lock]).await?;
    Ok(now)
}

/// Users are led to the primary, and from some moment after the Service is, each on its own, to the next one: none of their
/// requests fails, and each finds what it wrote before.
async fn users_pass(servers: &mut Servers, first: usize, next: usize) {
    let action = Action::HandOver {
        from: name(first),
        to: name(next),
        cause: FailoverCause::Planned,
    };
    let seen = servers.look().await;
    let servers = &*servers;
    let actor = Actor {
        surroundings: &servers.played,
        access: &servers.access,
        seen: &seen,
        doors: &servers.doors,
    };
    let is_done = AtomicBool::new(false);
    let user = async |user: usize| {
        let led = async || servers.played.led_to.lock().unwrap().clone();
        let before = visit(servers, user, first).await.expect("served");
        let (mut written, mut follows_at, mut last) = (before, None, false);
        while !last {
            last = is_done.load(Ordering::Relaxed);
            if follows_at.is_none() && led().await == Some(name(next)) {
                // Nodes follow one after the other.
                let later = Duration::from_millis(20 * u64::try_from(user).unwrap());
                follows_at = Some(Instant::now() + later);
            }
            let at = match follows_at {
                Some(moment) if Instant::now() >= moment => next,
                _ => first,
            };
            let now = visit(servers, user, at).await.expect("no request fails");
            assert_eq!(now, written + 1, "user {user} at {at} misses something");
            written = now;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        written - before
    };
    let operator = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        let outcome = actor.act(&action, jiff::Timestamp::now()).await;
        let took = begun.elapsed();
        tokio::time::sleep(Duration::from_millis(200)).await;
        is_done.store(true, Ordering::Relaxed);
        (outcome, took)
    };
    let users = futures::future::join_all((0..12).map(user));
    let ((outcome, took), written) = futures::future::join(operator, users).await;
    outcome.unwrap();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(written.iter().all(|count| *count > 5), "{written:?}");
}

#[tokio::test]
async fn users_who_lock_before_they_read_notice_nothing_of_a_hand_over() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    let (next, third) = ((first + 1) % 3, (first + 2) % 3);
    users_pass(&mut servers, first, next).await;
    assert!(
        servers.shop_at(first).await.is_err(),
        "led on to a former primary"
    );
    assert_eq!(servers.settle().await, next);
    // And on, to one that has got everything by replication alone.
    users_pass(&mut servers, next, third).await;
    assert_eq!(servers.settle().await, third);
}

#[tokio::test]
async fn with_valkey_it_is_the_same() {
    let mut servers = Servers::start("{engine: Valkey, topology: Replicated, memory: 64Mi, tls: Disabled}");
    let first = servers.settle().await;
    users_pass(&mut servers, first, (first + 1) % 3).await;
    assert_eq!(servers.settle().await, (first + 1) % 3);
}

/// What is done about a full store is more memory, and so a restart.
#[tokio::test]
async fn a_primary_whose_memory_is_full_hands_over() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    let mut admin = servers.access.connect(&servers.address(first)).await.unwrap();
    admin.set_config("maxmemory", "1").await.unwrap();
    servers.outdated.insert(name(first));
    let begun = Instant::now();
    while !servers.outdated.is_empty() {
        servers.round().await;
        assert!(begun.elapsed() < LIMIT, "{:#?}", servers.actions);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(servers.settle().await, first);
    assert_eq!(servers.last_cause(), Some(FailoverCause::Planned));
}

/// Servers with some sessions, the primary, and a replica to which clients may come: who followed a moment ago is shut to them.
async fn at_rest() -> (Servers, usize, usize) {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    servers.write(first, 0..10).await;
    servers.settle().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    (servers, first, (first + 1) % 3)
}

#[tokio::test]
async fn who_comes_to_a_replica_before_it_is_primary_cannot_read_what_may_be_old() {
    let (mut servers, first, next) = at_rest().await;
    let (name, address) = (name(next), servers.address(next));
    let mut former = servers.access.connect(&servers.address(first)).await.unwrap();
    let mut room = WaitingRoom::at(&servers.access, &name, &address).await.unwrap();
    room.open(&mut former).await.unwrap();
    servers.write(first, 10..20).await;
    let mut shop = servers.shop_at(next).await.unwrap();
    let read = shop.command::<redis::Value>(&["GET", "shop:1"]).await;
    assert!(
        matches!(&read, Err(Failure::Refused { cause, .. }) if cause.contains("NOPERM")),
        "{read:?}"
    );
    // It is called off: who waits is refused, and nothing of it is there.
    let mut waiting = servers.shop_at(next).await.unwrap();
    let write = waiting.command::<redis::Value>(&["SET", "shop:waited", "x", "EX", "60"]);
    let call_off = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        room.call_off().await.unwrap();
    };
    let (write, ()) = futures::future::join(write, call_off).await;
    assert!(
        matches!(&write, Err(failure) if failure.explain().contains("READONLY")),
        "{write:?}"
    );
    assert_eq!(servers.settle().await, first);
    assert_eq!(servers.missing(next, 0..20).await, 0);
}

/// It stands still from when the Service leads to it on, with clients held, and goes on later.
#[tokio::test]
async fn a_hand_over_to_a_server_that_stands_still_is_put_right() {
    let (mut servers, first, next) = at_rest().await;
    let seen = servers.look().await;
    let action = Action::HandOver {
        from: name(first),
        to: name(next),
        cause: FailoverCause::Planned,
    };
    let actor = Actor {
        surroundings: &servers.played,
        access: &servers.access,
        seen: &seen,
        doors: &servers.doors,
    };
    let stands_still = async {
        while *servers.played.led_to.lock().unwrap() != Some(name(next)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        servers.processes[next].signal("STOP");
    };
    let (outcome, ()) = futures::future::join(actor.act(&action, jiff::Timestamp::now()), stands_still).await;
    servers.processes[next].signal("CONT");
    assert!(outcome.is_err(), "{outcome:?}");
    servers.connections.clear();
    let primary = servers.settle().await;
    servers.tend().await;
    assert_eq!(servers.missing(primary, 0..10).await, 0);
    servers.write(primary, 10..20).await;
    assert_eq!(servers.missing(primary, 0..20).await, 0);
}

#[tokio::test]
async fn what_an_operator_left_that_ended_in_a_hand_over_is_put_right() {
    let (mut servers, first, next) = at_rest().await;
    {
        let (name, address) = (name(next), servers.address(next));
        let mut former = servers.access.connect(&servers.address(first)).await.unwrap();
        let mut room = WaitingRoom::at(&servers.access, &name, &address).await.unwrap();
        room.open(&mut former).await.unwrap();
    }
    servers.write(first, 10..20).await;
    let mut shop = servers.shop_at(next).await.unwrap();
    let write = shop.command::<redis::Value>(&["SET", "shop:stray", "x", "EX", "60"]);
    let another = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        servers.connections.clear();
        servers.look().await;
    };
    let (write, ()) = futures::future::join(write, another).await;
    assert!(write.is_err(), "{write:?}");
    servers.tend().await;
    assert_eq!(servers.settle().await, first);
    assert_eq!(servers.missing(next, 0..20).await, 0);
}

#[tokio::test]
async fn all_servers_killed_at_once_come_back_with_what_their_volumes_have() {
    let mut servers = Servers::start(ON_VOLUMES);
    let first = servers.settle().await;
    servers.write(first, 0..200).await;
    servers.settle().await;
    // The file is written each second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for process in &mut servers.processes {
        process.kill();
    }
    for process in &mut servers.processes {
        process.kill_and_start();
    }
    let after = servers.settle().await;
    assert_eq!(servers.missing(after, 0..200).await, 0);
    assert_eq!(servers.last_cause(), Some(FailoverCause::AllRestarted));
}

#[tokio::test]
async fn all_servers_killed_at_once_without_volumes_serve_again_with_nothing() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    servers.write(first, 0..20).await;
    servers.settle().await;
    for process in &mut servers.processes {
        process.kill();
    }
    // One may still have them as long as it was not asked.
    servers.processes[0].kill_and_start();
    servers.processes[1].kill_and_start();
    let (_, decision) = servers.round().await;
    assert_eq!(decision.actions, [], "{decision:?}");
    servers.processes[2].kill_and_start();
    let after = servers.settle().await;
    assert_eq!(servers.missing(after, 0..20).await, 20);
    assert_eq!(servers.last_cause(), Some(FailoverCause::AllLost));
}

#[tokio::test]
async fn a_second_primary_is_demoted_and_its_clients_are_closed() {
    let mut servers = Servers::start(IN_MEMORY);
    let first = servers.settle().await;
    servers.write(first, 0..50).await;
    servers.settle().await;
    let second = (first + 1) % 3;
    let address = servers.address(second);
    let mut admin = servers.access.connect(&address).await.unwrap();
    admin.promote().await.unwrap();
    // It had been told to follow a moment ago.
    admin.let_in(&servers.access.users).await.unwrap();
    let mut shop = servers.as_shop(second).await;
    shop.command::<()>(&["SET", "shop:lost", "x", "EX", "60"])
        .await
        .unwrap();
    assert_eq!(servers.settle().await, first);
    assert_eq!(servers.missing(first, 0..50).await, 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        shop.command::<redis::Value>(&["GET", "shop:1"]).await.is_err(),
        "still connected"
    );
}

#[tokio::test]
async fn without_tls_it_is_the_same() {
    let mut servers = Servers::start("{engine: Redis, topology: Replicated, memory: 64Mi, tls: Disabled}");
    let first = servers.settle().await;
    servers.write(first, 0..50).await;
    servers.settle().await;
    servers.processes[first].kill_and_start();
    let after = servers.settle().await;
    assert_eq!(servers.missing(after, 0..50).await, 0);
}

/// A server that the operator may not talk to may be the primary that everybody uses.
#[tokio::test]
async fn a_server_with_another_password_is_silent_and_not_down() {
    let mut servers = Servers::start(IN_MEMORY);
    servers.settle().await;
    servers.access.credentials = vec![Credentials {
        username: Some(ADMIN.to_owned()),
        password: Some(Password::new("wrong")),
    }];
    servers.connections.clear();
    let refused = servers.access.connect(&servers.address(0)).await;
    assert!(
        matches!(refused, Err(Failure::Authentication { .. })),
        "{refused:?}"
    );
    let seen = servers.look().await;
    for member in &seen.members {
        assert!(matches!(&member.server, Server::Silent(_)), "{:?}", member.server);
    }
    assert!(matches!(servers.access.tls, Some(Authority::Own(_))));
}

/// Commands that empty a server, or a whole cluster, are in none of the sources.
#[test]
fn nothing_in_the_sources_empties_a_server() {
    fn files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    files(
        std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut sources,
    );
    assert!(sources.len() > 100, "{}", sources.len());
    let mut sent = Vec::new();
    for source in sources {
        let path = source.display().to_string();
        let text = std::fs::read_to_string(&source).unwrap();
        // Tests ask whether applications are refused them.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if path.contains("/tests") || path.contains("/testing/") {
            continue;
        }
        for (at, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap().to_uppercase();
            let quoted = |word: &str| line.contains(&format!("\"{word}"));
            if quoted("FLUSHALL") || quoted("FLUSHDB") || (quoted("CLUSTER") && line.contains("RESET")) {
                sent.push(format!("{path}:{}: {line}", at + 1));
            }
        }
    }
    assert!(sent.is_empty(), "{sent:#?}");
}
