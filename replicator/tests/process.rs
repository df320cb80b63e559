//! One real process: sockets, probes, bounds, bad configuration.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::resp::{Value, encode};
use support::{
    Folder, Launch, PATIENCE, Process, Replicator, free_port, http_get, launches, tls, wait_linked,
    wait_until,
};

#[test]
fn tcp_and_unix_sockets_serve_the_same_sessions() {
    let replicator = Launch::alone().start_ready();
    assert_eq!(replicator.client().call("SET a 1").text(), "OK");
    let mode = std::fs::metadata(replicator.unix_socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o666);
    let mut stream = UnixStream::connect(replicator.unix_socket()).unwrap();
    stream.write_all(&encode(&["GET", "a"])).unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"$1\r\n1\r\n");
    let mut stream = UnixStream::connect(replicator.memcached_socket()).unwrap();
    stream.write_all(b"get a\r\n").unwrap();
    let mut reply = [0; 19];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"VALUE a 0 1\r\n1\r\nEND");
}

#[test]
fn probes_and_metrics() {
    let replicator = Launch::alone().start_ready();
    let mut client = replicator.client();
    client.call("SET a 1");
    client.call("GET a");
    assert!(client.call("LPUSH queue job").is_error());
    assert!(client.call("FLUSHALL").is_error());
    assert_eq!(client.call("GET a").text(), "1");
    assert!(
        http_get(replicator.http_port, "/livez")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        http_get(replicator.http_port, "/state")
            .unwrap()
            .starts_with("HTTP/1.1 404")
    );
    let metrics = http_get(replicator.http_port, "/metrics").unwrap();
    for line in [
        "content-type: application/openmetrics-text",
        r#"session_replicator_commands_total{command="get"} 2"#,
        r#"session_replicator_unsupported_commands_total{command="lpush"} 1"#,
        r#"session_replicator_unsupported_commands_total{command="flushall"} 1"#,
        "session_replicator_entries 1",
        r#"session_replicator_command_latency_seconds_bucket{le="+Inf"}"#,
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(replicator.state()["unsupported_commands"]["lpush"], 1);
}

#[test]
fn malformed_and_oversized_input_is_answered() {
    let replicator = Launch::alone()
        .with(&["--max-value-bytes", "1000", "--max-request-bytes", "5000"])
        .start_ready();
    let mut client = replicator.client();
    let long = "x".repeat(1_001);
    assert!(client.ask(&["SET", "a", &long]).text().contains("size limit"));
    assert_eq!(client.call("PING").text(), "PONG");
    let mut stream = TcpStream::connect(("127.0.0.1", replicator.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"*1\r\n:1\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "-ERR Protocol error: expected '$', got ':'\r\n");
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory() {
    let replicator = Launch::alone().start_ready();
    let mut client = replicator.client();
    client.ask(&["SET".to_owned(), "big".to_owned(), "x".repeat(1_000_000)]);
    let before = replicator.process.resident_kib();
    let mut greedy = TcpStream::connect(("127.0.0.1", replicator.port)).unwrap();
    greedy.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = encode(&["GET", "big"]).repeat(400);
    // The server may stop reading before everything is written: that is the point.
    drop(greedy.write_all(&request));
    let mut served = 0;
    wait_until("nothing more is done for it", || {
        let was = std::mem::replace(&mut served, fetched(&replicator));
        served > 0 && served == was
    });
    let growth = replicator.process.most_resident_kib().saturating_sub(before);
    assert!(growth < 16_384, "{growth} KiB for one client");
    assert_eq!(client.call("PING").text(), "PONG");
}

/// How many GETs have been served.
fn fetched(replicator: &Replicator) -> u64 {
    let metrics = http_get(replicator.http_port, "/metrics").unwrap();
    let count = r#"session_replicator_commands_total{command="get"} "#;
    let line = metrics.lines().find_map(|line| line.strip_prefix(count));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn connections_and_memory_are_limited() {
    let replicator = Launch::alone()
        .with(&["--max-connections", "2", "--memory-bytes", "2000000"])
        .start_ready();
    let mut one = replicator.client();
    let mut two = replicator.client();
    assert_eq!(one.call("PING").text(), "PONG");
    assert_eq!(two.call("PING").text(), "PONG");
    assert_eq!(
        replicator.client().next().text(),
        "ERR max number of clients reached"
    );
    drop(two);
    let value = "x".repeat(100_000);
    let replies: Vec<Value> = (0..40)
        .map(|n| one.ask(&["SET", &format!("k{n}"), &value]))
        .collect();
    let refused = replies
        .iter()
        .filter(|reply| reply.text().starts_with("OOM "))
        .count();
    assert!(refused > 15, "{refused} of 40 refused");
    assert_eq!(one.call("GET k0").text(), value);
}

#[test]
fn a_password_is_asked_for() {
    let folder = Folder::new();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let replicator = Launch::alone()
        .with(&["--password-file", &file.display().to_string()])
        .start_ready();
    let mut client = replicator.client();
    assert_eq!(client.call("GET a").text(), "NOAUTH Authentication required.");
    assert!(client.call("AUTH wrong").text().starts_with("WRONGPASS"));
    assert_eq!(client.call("AUTH secret").text(), "OK");
    assert_eq!(client.call("GET a"), Value::Nil);
    let mut client = replicator.client();
    assert!(!client.call("HELLO 3 AUTH default secret").is_error());
    assert_eq!(client.call("GET a"), Value::Nil);
}

#[test]
fn published_messages_arrive() {
    let replicator = Launch::alone().start_ready();
    let mut listener = replicator.client();
    listener.call("HELLO 3");
    listener.call("SUBSCRIBE news");
    let mut speaker = replicator.client();
    wait_until("somebody listens", || {
        speaker.call("PUBLISH news hello") == Value::Int(1)
    });
    let message = listener.next();
    assert_eq!(
        message,
        Value::Typed(
            '>',
            ["message", "news", "hello"]
                .map(|w| Value::Bulk(w.into()))
                .to_vec()
        )
    );
}

#[test]
fn key_events_tell_of_expiry() {
    let replicator = Launch::alone().start_ready();
    let mut client = replicator.client();
    assert_eq!(client.call("CONFIG SET notify-keyspace-events Egx").text(), "OK");
    let mut listener = replicator.client();
    listener.call("SUBSCRIBE __keyevent@0__:expired");
    // What expires before the process has noticed that somebody listens is not told.
    let told = AtomicBool::new(false);
    let event = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            wait_until("an event is told", || {
                number += 1;
                client.call(&format!("SET short:{number} x PX 5"));
                told.load(Ordering::Relaxed)
            });
        });
        let event = listener.next();
        told.store(true, Ordering::Relaxed);
        event
    });
    let words: Vec<String> = match event {
        Value::Array(items) => items.iter().map(Value::text).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(words[..2], ["message", "__keyevent@0__:expired"]);
    assert!(words[2].starts_with("short:"), "{words:?}");
}

#[test]
fn bad_configuration_ends_with_one_sentence() {
    for (arguments, expected) in [
        (vec!["--listen", "0.0.0.0:0"], "reachable from outside the pod"),
        (vec!["--peer-listen", "127.0.0.1:0"], "--peer-plaintext"),
        (vec!["--log", "nonsense=nonsense"], "--log"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_session-replicator"))
            .args(&arguments)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    }
}

#[test]
fn a_draining_pod_keeps_its_users_and_turns_unready_only_at_the_end() {
    let replicator = Launch::alone()
        .with(&["--drain-seconds", "4", "--unready-seconds", "3"])
        .start_ready();
    let mut client = replicator.client();
    client.call("SET a 1");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| replicator.control("drain"));
        wait_until("the drain has begun", || {
            replicator.state()["state"] == "draining"
        });
        let mut ready_until = start.elapsed();
        while replicator.is_ready() {
            assert_eq!(client.call("GET a").text(), "1");
            ready_until = start.elapsed();
        }
        // Ready for the drain time, whatever the state; not much longer, for a busy machine.
        assert!(
            ready_until >= Duration::from_millis(3_500),
            "unready after {ready_until:?}"
        );
        assert!(ready_until < Duration::from_secs(20), "ready for {ready_until:?}");
        let response = http_get(replicator.http_port, "/readyz").unwrap();
        assert!(
            response.starts_with("HTTP/1.1 503") && response.contains("leaving"),
            "{response}"
        );
        // Unready, and it still serves.
        assert_eq!(client.call("SET a 2").text(), "OK");
        assert_eq!(replicator.client().call("GET a").text(), "2");
        assert!(!drain.is_finished());
        assert_eq!(drain.join().unwrap(), "everything is handed over\n");
    });
    assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    assert_eq!(replicator.client().call("GET a").text(), "2");
}

#[test]
fn one_that_lingers_keeps_nothing_and_turns_unready_only_at_the_end_of_a_drain() {
    let folder = Folder::new();
    let socket = folder.path().join("control.sock").display().to_string();
    let port = free_port();
    let program = env!("CARGO_BIN_EXE_session-replicator");
    let child = Command::new(program)
        .args(["linger", "--drain-seconds", "3", "--unready-seconds", "3"])
        .args(["--http-listen", &format!("127.0.0.1:{port}")])
        .args(["--control-socket", &socket])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lingering = Process(child);
    let says = |path: &str, code: &str| {
        http_get(port, path).is_some_and(|response| response.starts_with(&format!("HTTP/1.1 {code}")))
    };
    wait_until("it is ready", || says("/readyz", "200"));
    let begin = Instant::now();
    let mut hook = Command::new(program)
        .args(["ctl", "--control-socket", &socket, "drain"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is unready", || says("/readyz", "503"));
    let unready = begin.elapsed();
    assert!(
        unready >= Duration::from_millis(2_500),
        "unready after {unready:?}"
    );
    assert!(says("/livez", "200"), "it still answers");
    assert!(hook.wait().unwrap().success());
    assert!(begin.elapsed() >= Duration::from_secs(6), "{:?}", begin.elapsed());
    assert!(
        lingering.0.try_wait().unwrap().is_none(),
        "it ends when it is told to"
    );
    lingering.signal("TERM");
    assert!(lingering.0.wait().unwrap().success());
}

#[test]
fn state_and_hints_come_with_a_certificate() {
    let folder = Folder::new();
    let starts = launches(2, &folder, &[]);
    let ports: Vec<u16> = starts.iter().map(|start| start.peer_port).collect();
    let mut members: Vec<Replicator> = starts
        .into_iter()
        .map(|start| start.looking_for(&ports).start())
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    let ask = |head: &str, body: &str, prefix: &str| {
        let request = format!(
            "{head} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        tls::ask(
            folder.path(),
            prefix,
            "shop.web.sessions",
            members[0].peer_port,
            &request,
        )
    };
    let state = ask("GET /state", "", "").unwrap();
    let (head, body) = state.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&state["state"], &state["members"][0]["name"]),
        (&"active".into(), &"shop-1".into())
    );
    assert!(
        ask("PUT /pods", "shop-0", "")
            .unwrap()
            .starts_with("HTTP/1.1 400")
    );
    assert!(ask("GET /metrics", "", "").unwrap().starts_with("HTTP/1.1 404"));
    // A certificate of the same CA for somebody else, and none at all.
    assert!(ask("GET /state", "", "other-").is_none());
    assert!(ask("GET /state", "", "no-").is_none());

    // A pod that is lost is waited for, until the operator says that it is not there any more.
    let lost = members.pop().unwrap();
    drop(lost);
    let known = || members[0].state()["members"].as_array().unwrap().len();
    assert_eq!(known(), 1);
    let ask = |body: &str| {
        let request = format!(
            "PUT /pods HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        tls::ask(
            folder.path(),
            "",
            "shop.web.sessions",
            members[0].peer_port,
            &request,
        )
        .unwrap()
    };
    assert!(ask(r#"["shop-0","shop-1"]"#).starts_with("HTTP/1.1 200"));
    assert_eq!(known(), 1);
    wait_until("the link is gone", || {
        members[0].state()["members"][0]["linked"] == false
    });
    assert!(ask(r#"["shop-0"]"#).starts_with("HTTP/1.1 200"));
    assert_eq!(known(), 0);
}
