//! Each class of outcome, each kind of failure.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::server::{Fault, Server, Session, World};
use crate::drill::account::Role;
use crate::drill::{Application, Class, Drill, Marks, Options, Report};

pub(super) const MEMBERS: u32 = 12;
pub(super) const LEAVERS: u32 = 3;

/// Requests among which every user has several.
const SEVERAL_EACH: u64 = 6 * (MEMBERS + LEAVERS) as u64;

pub(super) fn options() -> Options {
    Options {
        members: MEMBERS,
        leavers: LEAVERS,
        period: Duration::from_millis(20),
        write_every: 3,
        timeout: Duration::from_secs(5),
        retry_pause: Duration::from_millis(20),
        before: Duration::from_millis(150),
        settle: Duration::from_millis(150),
        ..Options::default()
    }
}

/// Three pods behind a proxy that keeps users where they are.
pub(super) fn sticky() -> World {
    let pods = ["a", "b", "c"].map(str::to_owned).to_vec();
    World {
        pods,
        sticky: true,
        ..World::default()
    }
}

/// Runs a drill in which the event is a change of the world, lets everybody see it, and checks what holds for every report.
pub(super) async fn drill(server: &Server, options: Options, event: impl FnOnce(&mut World)) -> Report {
    drill_of(Server::application(), server, options, event).await
}

pub(super) async fn drill_of(
    application: Application,
    server: &Server,
    options: Options,
    event: impl FnOnce(&mut World),
) -> Report {
    let users = options.members + options.leavers;
    let drill = Drill::new(application, server.target(), options).unwrap();
    let report = drill
        .run("a change", async |_| {
            event(&mut server.world());
            server.after_requests(SEVERAL_EACH).await;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    check_books(&report, users);
    report
}

pub(super) fn check_books(report: &Report, users: u32) {
    assert_eq!(report.users, users);
    assert_eq!(report.classes.values().sum::<u32>(), users);
    assert_eq!(report.people.len(), users as usize);
    assert_eq!(
        report
            .people
            .iter()
            .map(|p| &p.name)
            .collect::<BTreeSet<_>>()
            .len(),
        users as usize
    );
    let in_timelines: u64 = report
        .people
        .iter()
        .flat_map(|p| &p.timeline)
        .map(|stretch| u64::from(stretch.4))
        .sum();
    assert!(
        in_timelines <= report.requests,
        "{in_timelines} entries of {} requests",
        report.requests
    );
}

pub(super) fn counts(report: &Report) -> Vec<(Class, u32)> {
    report
        .classes
        .iter()
        .map(|(&class, &n)| (class, n))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn names(users: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    users.into_iter().map(|n| format!("user{n}")).collect()
}

fn owned(names: BTreeSet<&str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn when_nothing_happens_everybody_is_kept_and_leavers_stay_out() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |_| {}).await;
    assert_eq!(
        counts(&report),
        [(Class::Kept, MEMBERS), (Class::LoggedOut, LEAVERS)]
    );
    assert_eq!(report.failed(), 0);
    assert_eq!(report.moves, 0);
    assert_eq!(
        report.requests,
        server.world().requests,
        "every request is counted once"
    );
    assert!(report.latency.p50_us > 0 && report.latency.p50_us <= report.latency.p99_us);
    assert!(report.latency.p99_us <= report.latency.max_us);
    assert_eq!(
        report.pods.iter().map(|pod| pod.users_before).sum::<u32>(),
        MEMBERS
    );
    assert_eq!(
        report.pods.iter().map(|pod| pod.users_after).sum::<u32>(),
        MEMBERS
    );
    assert_eq!(
        report.pods.iter().map(|pod| pod.requests).sum::<u64>(),
        report.requests
    );
    let written = server.world().session_of("user1").items.len();
    assert!(written > 2, "writes go on after the login: {written}");
}

#[tokio::test]
async fn a_lost_pod_loses_exactly_its_users() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| world.remove_pod("b")).await;
    let there = report.users_before("b");
    assert!(!there.is_empty() && there.len() < MEMBERS as usize, "{there:?}");
    let members_there: BTreeSet<&str> = report
        .people
        .iter()
        .filter(|p| p.role == Role::Member && there.contains(p.name.as_str()))
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(report.names(Class::Lost), members_there);
    assert_eq!(report.count(Class::Kept) + report.count(Class::Lost), MEMBERS);
    assert_eq!(report.count(Class::LoggedOut), LEAVERS);
    for person in report.people.iter().filter(|p| p.class == Class::Lost) {
        let loss = person.loss.as_ref().unwrap();
        assert_eq!(loss.pod_before.as_deref(), Some("b"));
        assert_ne!(loss.pod.as_deref(), Some("b"));
        assert!(loss.at_ms >= report.event.from_ms && !loss.seen_again);
    }
    let pod = report.pods.iter().find(|pod| pod.name == "b").unwrap();
    assert_eq!((pod.lost, pod.users_after), (pod.users_before, 0));
}

#[tokio::test]
async fn with_shared_sessions_the_users_of_a_lost_pod_move_once() {
    let server = Server::start(World {
        shared: true,
        ..sticky()
    })
    .await;
    let report = drill(&server, options(), |world| world.remove_pod("b")).await;
    let moved = report.names(Class::Moved);
    assert!(!moved.is_empty());
    assert!(moved.is_subset(&report.users_before("b")));
    assert_eq!(report.count(Class::Kept) + report.count(Class::Moved), MEMBERS);
    assert_eq!(report.moves, moved.len() as u64);
    assert!(
        report
            .people
            .iter()
            .filter(|p| p.class == Class::Moved)
            .all(|p| p.pod_after != p.pod_before)
    );
}

#[tokio::test]
async fn without_affinity_users_are_logged_out_and_seen_again() {
    let server = Server::start(World {
        sticky: false,
        ..sticky()
    })
    .await;
    // No multiple of the number of pods: users who come in turn would each meet the same pod again.
    let members = 11;
    let options = Options {
        members,
        leavers: 0,
        ..options()
    };
    let drill = Drill::new(Server::application(), server.target(), options).unwrap();
    let report = drill
        .run("nothing", async |_| {
            server.after_requests(2 * SEVERAL_EACH).await;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    check_books(&report, members);
    assert_eq!(counts(&report), [(Class::Lost, members)]);
    assert!(
        report
            .people
            .iter()
            .any(|p| p.loss.as_ref().is_some_and(|loss| loss.seen_again))
    );
}

#[tokio::test]
async fn a_session_that_is_there_again_at_the_end_was_lost_all_the_same() {
    let server = Server::start(sticky()).await;
    let drill = Drill::new(Server::application(), server.target(), options()).unwrap();
    let report = drill
        .run("a gap", async |_| {
            let sessions = std::mem::take(&mut server.world().sessions);
            server.after_requests(SEVERAL_EACH).await;
            server.world().sessions = sessions;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    check_books(&report, MEMBERS + LEAVERS);
    assert_eq!(
        counts(&report),
        [(Class::Lost, MEMBERS), (Class::LoggedOut, LEAVERS)]
    );
    assert!(
        report
            .people
            .iter()
            .filter_map(|p| p.loss.as_ref())
            .all(|loss| loss.seen_again)
    );
}

#[tokio::test]
async fn a_revived_logout_is_found() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| {
        let revived = world.logged_out.pop().unwrap();
        world.sessions.extend([revived]);
    })
    .await;
    let expected = [
        (Class::Kept, MEMBERS),
        (Class::LoggedOut, LEAVERS - 1),
        (Class::BackAfterLogout, 1),
    ];
    assert_eq!(counts(&report), expected);
}

#[tokio::test]
async fn a_logout_that_never_is_confirmed_is_unknown() {
    let world = World {
        fault: Some(Fault::Status(502)),
        fault_path: "/logout",
        ..sticky()
    };
    let server = Server::start(world).await;
    let report = drill(&server, options(), |_| {}).await;
    assert_eq!(
        counts(&report),
        [(Class::Kept, MEMBERS), (Class::Unknown, LEAVERS)]
    );
}

#[tokio::test]
async fn wrong_contents_and_wrong_users_are_corruption() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| {
        world.session_of("user1").items.remove(0);
        world.session_of("user2").items.push("strange".to_owned());
        let twice = world.session_of("user3").items[0].clone();
        world.session_of("user3").items.push(twice);
        world.session_of("user4").user = "user9".to_owned();
    })
    .await;
    assert_eq!(owned(report.names(Class::Corrupted)), names(1..=4));
    assert_eq!(report.count(Class::Kept), MEMBERS - 4);
    let trouble = |n: usize| report.people[n - 1].trouble.as_deref().unwrap();
    assert_eq!(trouble(1), "user1-1 is missing");
    assert_eq!(trouble(2), "\"strange\" was never written");
    assert_eq!(trouble(3), "an item is there twice");
    assert_eq!(trouble(4), "logged in as user9");
}

#[tokio::test]
async fn an_old_state_of_a_session_is_corruption() {
    let server = Server::start(sticky()).await;
    let drill = Drill::new(Server::application(), server.target(), options()).unwrap();
    let report = drill
        .run("stale", async |_| {
            let old: Session = server.world().session_of("user1").clone();
            server.after_requests(SEVERAL_EACH).await;
            *server.world().session_of("user1") = old;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(owned(report.names(Class::Corrupted)), names([1]));
}

#[tokio::test]
async fn a_refused_login_is_no_loss() {
    let server = Server::start(World {
        banned: vec!["user3"],
        ..sticky()
    })
    .await;
    let report = drill(&server, options(), |_| {}).await;
    assert_eq!(owned(report.names(Class::LoginFailed)), names([3]));
    assert_eq!(
        report.people[2].trouble.as_deref(),
        Some("login refused with status 401")
    );
    assert_eq!(report.count(Class::Kept), MEMBERS - 1);
}

#[tokio::test]
async fn passing_errors_are_counted_each_and_lose_nobody() {
    for (fault, kind) in [
        (Fault::Status(502), "status 502"),
        (Fault::Status(404), "status 404"),
        (Fault::Hang, "timeout"),
        (Fault::Close, "closed"),
        (Fault::Page, "unreadable"),
    ] {
        let server = Server::start(sticky()).await;
        // Who waits in vain waits for the limit: one request each has to do.
        let (timeout, requests) = match fault {
            Fault::Hang => (Duration::from_secs(1), u64::from(MEMBERS + LEAVERS)),
            _ => (options().timeout, SEVERAL_EACH),
        };
        let options = Options { timeout, ..options() };
        let drill = Drill::new(Server::application(), server.target(), options).unwrap();
        let report = drill
            .run("errors", async |_| {
                server.world().fault = Some(fault);
                // Reading a page in place of JSON: writes are posts, to which a page is an answer like any other.
                server.world().fault_path = if fault == Fault::Page { "/whoami" } else { "" };
                server.after_requests(requests).await;
                server.world().fault = None;
                Ok::<_, io::Error>(())
            })
            .await
            .unwrap();
        check_books(&report, MEMBERS + LEAVERS);
        assert_eq!(
            counts(&report),
            [(Class::Kept, MEMBERS), (Class::LoggedOut, LEAVERS)],
            "{fault:?}"
        );
        let faulted = server.world().faulted;
        assert!(faulted > 0);
        // An idempotent request on a connection that was kept is tried once more, as browsers do.
        let seen = report.failures.get(kind).copied().unwrap_or(0);
        let at_least = if fault == Fault::Close {
            faulted / 2
        } else {
            faulted
        };
        assert!(
            (at_least..=faulted).contains(&seen),
            "{kind}: {seen} of {faulted}: {:?}",
            report.failures
        );
        assert_eq!(report.failed(), seen, "no other kind: {:?}", report.failures);
        let times = report
            .people
            .iter()
            .flat_map(|person| &person.failures)
            .map(|failed| failed.at_ms);
        assert!(times.min().unwrap() >= report.event.from_ms);
    }
}

#[tokio::test]
async fn a_write_that_failed_may_or_may_not_have_been_done() {
    for fault in [Fault::Status(502), Fault::StatusAfter(502)] {
        let server = Server::start(World {
            fault_path: "/items",
            ..sticky()
        })
        .await;
        let report = drill(&server, options(), |world| world.fault = Some(fault)).await;
        assert_eq!(
            counts(&report),
            [(Class::Kept, MEMBERS), (Class::LoggedOut, LEAVERS)],
            "{fault:?}"
        );
        assert_eq!(report.failures.get("status 502"), Some(&server.world().faulted));
    }
}

#[tokio::test]
async fn without_a_last_answer_nothing_is_claimed() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| {
        world.fault = Some(Fault::Status(503));
    })
    .await;
    assert_eq!(counts(&report), [(Class::Unknown, MEMBERS + LEAVERS)]);
}

#[tokio::test]
async fn an_application_that_is_gone_refuses_connections() {
    let mut server = Server::start(sticky()).await;
    let drill = Drill::new(Server::application(), server.target(), options()).unwrap();
    let report = drill
        .run("gone", async |_| {
            server.stop().await;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    check_books(&report, MEMBERS + LEAVERS);
    assert_eq!(counts(&report), [(Class::Unknown, MEMBERS + LEAVERS)]);
    assert!(report.failures["refused"] > 0, "{:?}", report.failures);
}

#[tokio::test]
async fn newcomers_show_where_new_users_are_sent() {
    let server = Server::start(sticky()).await;
    let options = Options {
        newcomer_period: Some(Duration::from_millis(5)),
        ..options()
    };
    let drill = Drill::new(Server::application(), server.target(), options).unwrap();
    let report = drill
        .run("pod b leaves", async |marks: Marks| {
            // Newcomers are among them, and the proxy deals them out in turn.
            server.after_requests(2 * SEVERAL_EACH).await;
            server.world().remove_pod("b");
            marks.note("gone", Some("b"));
            server.after_requests(SEVERAL_EACH).await;
            Ok::<_, io::Error>(())
        })
        .await
        .unwrap();
    let gone = report
        .marks
        .iter()
        .find(|mark| mark.pod.as_deref() == Some("b"))
        .unwrap()
        .at_ms;
    assert!(
        report.newcomers_on("b", 0).count() > 0,
        "before, some landed there"
    );
    // The request that is in flight at the time of the mark may have been sent a moment before it.
    assert_eq!(report.newcomers_on("b", gone).count(), 0);
    assert!(report.newcomers_on("a", gone).count() > 0);
    let pod = report.pods.iter().find(|pod| pod.name == "b").unwrap();
    assert!(pod.last_newcomer_ms.unwrap() <= gone);
    assert!(
        report
            .newcomers
            .iter()
            .all(|newcomer| newcomer.at_ms >= report.event.from_ms)
    );
}
