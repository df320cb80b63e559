//! Connections, pages and forms, events that fail, and reports as they are written.

use std::io;
use std::time::Duration;

use super::outcomes::{LEAVERS, MEMBERS, check_books, counts, drill, drill_of, options, sticky};
use super::server::{Server, World};
use crate::drill::run::Error;
use crate::drill::{Application, Class, Drill, Options, Report};

#[tokio::test]
async fn connections_are_kept_or_fresh_as_told() {
    for keep_alive in [true, false] {
        let server = Server::start(sticky()).await;
        let report = drill(
            &server,
            Options {
                keep_alive,
                ..options()
            },
            |_| {},
        )
        .await;
        let expected = if keep_alive {
            u64::from(MEMBERS + LEAVERS)
        } else {
            report.requests
        };
        assert_eq!(server.world().connections, expected, "keep_alive {keep_alive}");
    }
}

#[tokio::test]
async fn a_page_gives_tokens_and_a_regular_expression_finds_the_user() {
    let description = "
name: pages
login:
  method: POST
  path: /login
  form: {user: '{user}'}
  accept: [303]
  page: {path: /login, fields: {token: {regex: \"value='([^']+)'\"}}}
check:
  request: {path: /page}
  user: {regex: 'Hello, <b>(user\\d+)</b>'}
";
    let server = Server::start(World {
        token: Some("t0k"),
        ..sticky()
    })
    .await;
    let application = Application::from_yaml(description).unwrap();
    let options = Options {
        leavers: 0,
        ..options()
    };
    let report = drill_of(application.clone(), &server, options.clone(), |world| {
        world.remove_pod("a");
    })
    .await;
    assert!(
        report.count(Class::Lost) > 0 && report.count(Class::Kept) > 0,
        "{:?}",
        counts(&report)
    );
    assert_eq!(report.count(Class::Lost) + report.count(Class::Kept), MEMBERS);
    assert!(report.pods.is_empty(), "no pod is claimed where none can be told");

    server.world().token = Some("");
    let drill = Drill::new(application, server.target(), options).unwrap();
    let report = drill
        .run("nothing", async |_| Ok::<_, io::Error>(()))
        .await
        .unwrap();
    check_books(&report, MEMBERS);
    assert_eq!(counts(&report), [(Class::LoginFailed, MEMBERS)]);
}

#[tokio::test]
async fn a_failing_event_gives_no_report() {
    let server = Server::start(sticky()).await;
    let drill = || Drill::new(Server::application(), server.target(), options()).unwrap();
    let failed = drill()
        .run("broken", async |_| Err(io::Error::other("no such pod")))
        .await;
    assert!(matches!(failed, Err(Error::Event { name, .. }) if name == "broken"));

    let limited = Options {
        event_limit: Duration::from_millis(10),
        ..options()
    };
    let drill = Drill::new(Server::application(), server.target(), limited).unwrap();
    let failed = drill
        .run("endless", async |_| {
            std::future::pending::<Result<(), io::Error>>().await
        })
        .await;
    assert!(matches!(failed, Err(Error::EventLimit { .. })));
}

#[tokio::test]
async fn reports_go_through_json_and_read_well() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| world.remove_pod("b")).await;
    let json = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    let table = report.table();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("test at http://app.test/: a change, 15 users"),
        "{table}"
    );
    assert!(
        lines[2]
            .split_whitespace()
            .eq("kept moved lost corrupted unknown login failed logged out back after logout".split(' '))
    );
    let numbers: u32 = lines[3]
        .split_whitespace()
        .map(|n| n.parse::<u32>().unwrap())
        .sum();
    assert_eq!(numbers, MEMBERS + LEAVERS);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let target = || crate::drill::Target::http("127.0.0.1:1".parse().unwrap(), "app.test").unwrap();
    let application = Application {
        logout: None,
        ..Server::application()
    };
    assert!(matches!(
        Drill::new(application, target(), options()),
        Err(Error::Options(_))
    ));
    let still = Options {
        period: Duration::ZERO,
        ..options()
    };
    assert!(matches!(
        Drill::new(Server::application(), target(), still),
        Err(Error::Options(_))
    ));
    let nobody = Options {
        at_once: 0,
        ..options()
    };
    assert!(matches!(
        Drill::new(Server::application(), target(), nobody),
        Err(Error::Options(_))
    ));
}
