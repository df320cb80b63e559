//! Real servers on loopback, started as in a pod, and the code that looks, decides and acts. Only Kubernetes is played around them:
//! labels and record are kept in memory, and a deleted pod is a server that is started anew.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::fixture::{LIMIT, Servers};
use super::decide::Means;
use super::report::Report;
use super::*;
use crate::api::session_store::FailoverCause;
use crate::store::client::Failure;

const IN_MEMORY: &str = "{topology: Cluster, memory: 64Mi, tls: Disabled}";
const ON_VOLUMES: &str = "{topology: Cluster, memory: 64Mi, tls: Disabled, persistence: {size: 1Gi}}";

/// How long the servers may take to elect, on a busy machine: who gets too few votes asks again after four times the node time-out.
const ELECTED: Duration = Duration::from_secs(20);

/// With TLS, which that Valkey does not speak.
const REDIS: &str = "{engine: Redis, topology: Cluster, memory: 64Mi}";

#[tokio::test]
async fn servers_that_know_nobody_become_a_cluster_that_is_left_alone() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let begun = Instant::now();
        let report = servers.settle().await;
        eprintln!("formed after {:?}", begun.elapsed());
        assert_eq!((report.shards(), report.members().len()), (3, 6));
        for shard in 0..3 {
            let primary = servers.primary(&report, shard);
            let member = &report.members()[shard * 2 + primary.1];
            assert!(matches!(member.slots, Some(5461 | 5462)), "{member:?}");
        }
        let record = servers.played.record.lock().unwrap().clone();
        assert!(record.formed && record.last_loss.is_none() && record.last_failover.is_none());
        assert_eq!(record.primaries.len(), 3);
        servers.done();
        let mut shop = servers.shop();
        shop.write(0..200).await;
        for _ in 0..20 {
            servers.round().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(servers.done(), []);
        assert_eq!(shop.missing(0..200).await, 0);
    }
}

#[tokio::test]
async fn a_primary_that_is_killed_comes_back_as_a_new_server_and_nothing_is_lost() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let before = servers.settle().await;
        let mut shop = servers.shop();
        shop.write(0..300).await;
        servers.settle().await;
        servers.done();
        let primary = servers.primary(&before, 1);
        let former = before.seen.members[2 + primary.1].id().unwrap().to_owned();

        servers.process_mut(primary).kill_and_start();
        let begun = Instant::now();
        let after = servers.settle().await;
        eprintln!("whole after {:?}: {:?}", begun.elapsed(), servers.done());
        assert_ne!(servers.primary(&after, 1), primary);
        let back = &after.seen.members[2 + primary.1];
        assert_ne!(back.id().unwrap(), former, "it is another one");
        assert!(back.state().unwrap().is_replica());
        assert_eq!(shop.missing(0..300).await, 0);
        assert_eq!(servers.last_cause(), Some(FailoverCause::ServerEnded));
        assert!(servers.played.record.lock().unwrap().last_loss.is_none());
        let known = after.seen.members.iter().filter_map(Member::state);
        for state in known {
            assert_eq!(state.node(&former), None, "the former one is forgotten");
        }
    }
}

#[tokio::test]
async fn with_the_operator_away_the_servers_elect_and_an_empty_one_gets_nothing() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let mut before = servers.settle().await;
        let mut shop = servers.shop();
        shop.write(0..300).await;
        // Back before the others miss it, and one shard until a server is killed that has been sent everything by the other.
        for shard in [0, 0, 0, 1] {
            servers.settle().await;
            let primary = servers.primary(&before, shard);
            servers.process_mut(primary).kill_and_start();
            // Nobody decides anything; clients are served again as soon as the others have elected.
            let begun = Instant::now();
            assert_eq!(shop.missing(0..300).await, 0, "nobody copied that it is empty");
            eprintln!("all found again after {:?}", begun.elapsed());
            assert!(begun.elapsed() < ELECTED, "{:?}", begun.elapsed());
            let seen = servers.look().await;
            let back = &seen.members[shard * 2 + primary.1];
            assert!(back.state().unwrap().is_blank(), "{back:?}");
            before = servers.settle().await;
            assert_eq!(shop.missing(0..300).await, 0);
            assert_eq!(servers.last_cause(), Some(FailoverCause::ServerEnded));
        }
    }
}

#[tokio::test]
async fn who_starts_with_nothing_tells_applications_who_has_which_slots_once_it_knows_all() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let mut told = servers.settle().await;
        for shard in [0, 1, 2] {
            let primary = servers.primary(&told, shard);
            let (answers, mut answered) = tokio::sync::mpsc::unbounded_channel();
            let mut shop = servers.shop();
            let which = shard * 2 + primary.1;
            let asking = tokio::spawn(async move {
                while answers.send(shop.slots_told_by(which).await).is_ok() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            servers.process_mut(primary).kill_and_start();
            told = servers.settle().await;
            let begun = Instant::now();
            let mut refused = 0;
            loop {
                match answered.recv().await.unwrap() {
                    Ok(slots) if refused > 0 => {
                        assert_eq!(slots, 16384, "who believes that finds nobody for the rest");
                        break;
                    }
                    // What was asked before it was killed.
                    Ok(slots) => assert_eq!(slots, 16384),
                    Err(Failure::Refused { cause, .. }) => {
                        assert!(cause.starts_with("NOPERM"), "{cause}");
                        refused += 1;
                    }
                    Err(_) => assert!(begun.elapsed() < ELECTED, "it does not answer"),
                }
                if answered.is_empty() {
                    told = servers.round().await;
                }
            }
            asking.abort();
        }
    }
}

#[tokio::test]
async fn without_volumes_servers_that_are_all_killed_form_a_cluster_again() {
    let mut servers = Servers::start(IN_MEMORY).await;
    servers.settle().await;
    servers.shop().write(0..100).await;
    servers.kill_all();
    for process in servers.processes.values_mut() {
        process.start_again();
    }
    let begun = Instant::now();
    servers.settle().await;
    eprintln!("formed again after {:?}", begun.elapsed());
    let record = servers.played.record.lock().unwrap().clone();
    assert_eq!(record.last_loss.unwrap().slots, 16384);
    let mut shop = servers.shop();
    assert_eq!(shop.missing(0..100).await, 100);
    shop.write(0..100).await;
}

#[tokio::test]
async fn with_volumes_servers_that_all_come_back_elsewhere_find_each_other_and_keep_everything() {
    for spec in [
        ON_VOLUMES,
        "{engine: Redis, topology: Cluster, memory: 64Mi, persistence: {size: 1Gi}}",
    ] {
        let mut servers = Servers::start(spec).await;
        servers.settle().await;
        servers.shop().write(0..300).await;
        // The file is written each second.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        servers.kill_all();
        for process in servers.processes.values_mut() {
            process.move_away();
        }
        let begun = Instant::now();
        servers.settle().await;
        eprintln!("whole after {:?}: {:?}", begun.elapsed(), servers.done());
        assert_eq!(servers.shop().missing(0..300).await, 0);
        assert!(servers.played.record.lock().unwrap().last_loss.is_none());
    }
}

#[tokio::test]
async fn two_of_three_shards_lose_their_primaries_at_once_and_their_replicas_take_over_alone() {
    let mut servers = Servers::start(IN_MEMORY).await;
    let before = servers.settle().await;
    let mut shop = servers.shop();
    shop.write(0..300).await;
    servers.settle().await;
    servers.done();
    let lost = [servers.primary(&before, 0), servers.primary(&before, 2)];
    for place in lost {
        servers.process_mut(place).kill();
    }
    // Nothing proves yet that they are gone: their pods run, by what the kubelet last said.
    for _ in 0..30 {
        let report = servers.round().await;
        assert!(!report.serves_all());
        let waits = report.decision.waits.unwrap();
        assert!(waits.message.contains("too few primaries are left"), "{waits:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(servers.done(), []);
    for place in lost {
        servers.process_mut(place).start_again();
    }
    let begun = Instant::now();
    servers.settle().await;
    eprintln!("whole after {:?}", begun.elapsed());
    let done = servers.done();
    let alone = |action: &&Action| {
        matches!(
            action,
            Action::TakeOver {
                means: Means::Alone,
                ..
            }
        )
    };
    assert!(done.iter().any(|action| alone(&action)), "{done:?}");
    assert_eq!(shop.missing(0..300).await, 0);
}

#[tokio::test]
async fn every_server_of_a_shard_is_lost_and_only_its_sessions_with_it() {
    let mut servers = Servers::start(IN_MEMORY).await;
    servers.settle().await;
    let mut shop = servers.shop();
    shop.write(0..300).await;
    servers.settle().await;
    for ordinal in 0..2 {
        servers.process_mut((1, ordinal)).kill();
    }
    for ordinal in 0..2 {
        servers.process_mut((1, ordinal)).start_again();
    }
    servers.settle().await;
    let missing = shop.missing(0..300).await;
    assert!((60..140).contains(&missing), "{missing}");
    let loss = servers.played.record.lock().unwrap().last_loss.clone().unwrap();
    assert!(matches!(loss.slots, 5461 | 5462), "{loss:?}");
}

#[tokio::test]
async fn a_planned_restart_goes_through_all_servers_and_loses_no_write() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let before = servers.settle().await;
        let primaries: Vec<_> = (0..3).map(|shard| servers.primary(&before, shard)).collect();
        let mut shop = servers.shop();
        shop.write(0..100).await;
        servers.settle().await;
        servers.done();
        servers.outdated = servers.processes.keys().copied().collect();
        let mut writer = servers.shop();
        let writing = tokio::spawn(async move {
            let begun = Instant::now();
            let (mut count, mut longest) = (100, Duration::ZERO);
            while begun.elapsed() < Duration::from_secs(20) {
                let asked = Instant::now();
                writer.write(count..count + 1).await;
                longest = longest.max(asked.elapsed());
                count += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (count, longest)
        });
        let begun = Instant::now();
        while !servers.outdated.is_empty() {
            servers.round().await;
            assert!(begun.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        servers.settle().await;
        eprintln!("all restarted after {:?}", begun.elapsed());
        let (count, longest) = writing.await.unwrap();
        eprintln!("{count} keys written, the longest write took {longest:?}");
        assert_eq!(shop.missing(0..count).await, 0);
        assert_eq!(servers.last_cause(), Some(FailoverCause::Planned));
        let done = servers.done();
        let restarted: Vec<&String> = done
            .iter()
            .filter_map(|action| match action {
                Action::Restart { member } => Some(member),
                _ => None,
            })
            .collect();
        assert_eq!(restarted.len(), 6, "each once: {restarted:?}");
        for primary in primaries {
            let at = restarted.iter().position(|name| **name == servers.name(primary));
            assert!(at.unwrap() >= 3, "replicas first: {restarted:?}");
        }
        let forced =
            |action: &&Action| matches!(action, Action::TakeOver { means, .. } if *means != Means::Agreed);
        assert!(!done.iter().any(|action| forced(&action)), "{done:?}");
    }
}

#[tokio::test]
async fn a_server_whose_pod_ends_lets_no_further_client_in() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        let report = servers.settle().await;
        let (_, primary) = servers.primary(&report, 1);
        let replica = 1 - primary;
        let which = 2 + replica;
        let mut inside = servers.shop();
        while inside.slots_told_by(which).await.is_err() {
            servers.round().await;
        }
        servers.done();
        servers.ending.insert((1, replica));
        servers.round().await;
        servers.round().await;
        let away = Action::TurnAway {
            member: servers.name((1, replica)),
        };
        assert_eq!(servers.done(), [away], "once");
        let begun = Instant::now();
        servers.shop().slots_told_by(which).await.unwrap_err();
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "it is turned away at once"
        );
        assert_eq!(inside.slots_told_by(which).await.unwrap(), 16384);
    }
}

/// Writes new keys and reads older ones until it is told to end. Returns how many it wrote, and the longest that one took.
fn busy(servers: &Servers, from: usize) -> (Arc<AtomicBool>, JoinHandle<(usize, Duration)>) {
    let mut shop = servers.shop();
    let ends = Arc::new(AtomicBool::new(false));
    let told = ends.clone();
    let work = tokio::spawn(async move {
        let (mut count, mut longest) = (from, Duration::ZERO);
        while !told.load(Ordering::Relaxed) {
            let asked = Instant::now();
            shop.write(count..count + 1).await;
            count += 1;
            let older = fastrand::usize(..count);
            assert_eq!(shop.missing(older..older + 1).await, 0, "{older} was written");
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (count, longest)
    });
    (ends, work)
}

fn sizes(report: &Report) -> Vec<i32> {
    report
        .members()
        .into_iter()
        .filter_map(|member| member.slots)
        .collect()
}

#[tokio::test]
async fn shards_come_and_go_under_writes_and_nothing_is_lost() {
    for spec in [IN_MEMORY, REDIS] {
        let mut servers = Servers::start(spec).await;
        servers.settle().await;
        servers.shop().write(0..1000).await;
        let (ends, writing) = busy(&servers, 1000);

        servers.shards = 4;
        servers.add_shard(3);
        let begun = Instant::now();
        // Operators come and go meanwhile.
        for _ in 0..4 {
            for _ in 0..5 {
                servers.round().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            servers.another_operator();
        }
        let report = servers.settle().await;
        eprintln!("four shards after {:?}", begun.elapsed());
        assert_eq!(sizes(&report), [4096; 4]);
        assert_eq!(servers.played.record.lock().unwrap().shards, 4);

        servers.shards = 3;
        let begun = Instant::now();
        let report = servers.settle().await;
        eprintln!("three shards after {:?}", begun.elapsed());
        let mut left = sizes(&report);
        left.sort_unstable();
        assert_eq!(left, [5461, 5461, 5462]);
        assert_eq!(servers.processes.len(), 6);
        for state in report.seen.members.iter().filter_map(Member::state) {
            assert!(
                state.nodes.iter().all(|node| !node.host.starts_with("larder-3")),
                "{state:?}"
            );
        }
        let record = servers.played.record.lock().unwrap().clone();
        assert!(
            record.shards == 3 && record.primaries.len() == 3 && record.last_loss.is_none(),
            "{record:?}"
        );

        ends.store(true, Ordering::Relaxed);
        let (count, longest) = writing.await.unwrap();
        eprintln!("{count} keys written, the longest write and read took {longest:?}");
        assert_eq!(servers.shop().missing(0..count).await, 0);
    }
}

#[tokio::test]
async fn a_slot_that_an_operator_left_between_two_servers_is_moved_to_its_end() {
    for is_told_to_both in [true, false] {
        let mut servers = Servers::start(REDIS).await;
        let report = servers.settle().await;
        // All in one slot.
        let keys: Vec<String> = (0..120).map(|key| format!("shop:{{x}}{key}")).collect();
        let mut shop = servers.shop();
        for key in &keys {
            shop.command(&["SET", key, "x", "EX", "600"]).await.unwrap();
        }
        let mut asked = servers.as_admin((0, 0)).await;
        let slot: u16 = asked.command(&["CLUSTER", "KEYSLOT", &keys[0]]).await.unwrap();
        let owner = report
            .seen
            .members
            .iter()
            .find(|member| member.is_owner() && member.state().unwrap().slots().contains(slot));
        let source = servers.names.place(&owner.unwrap().name).unwrap();
        let target = servers.primary(&report, (source.0 + 1) % 3);
        let id = |place| {
            let name = servers.name(place);
            let mut members = report.seen.members.iter();
            members
                .find(|member| member.name == name)
                .unwrap()
                .id()
                .unwrap()
                .to_owned()
        };
        let slot = slot.to_string();
        let (source_id, target_id) = (id(source), id(target));
        let mut importing = servers.as_admin(target).await;
        importing
            .command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id])
            .await
            .unwrap();
        if is_told_to_both {
            let mut migrating = servers.as_admin(source).await;
            migrating
                .command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id])
                .await
                .unwrap();
            let address = servers.address(target);
            let port = address.port.to_string();
            let login = ["AUTH2", "replication", "replication"];
            let words = [
                &["MIGRATE", &address.host, &port, &keys[0], "0", "1000"][..],
                &login,
            ]
            .concat();
            migrating.command::<String>(&words).await.unwrap();
        }
        servers.another_operator();
        servers.settle().await;
        for key in &keys {
            assert_ne!(
                shop.command(&["GET", key]).await.unwrap(),
                redis::Value::Nil,
                "{key}"
            );
        }
    }
}
