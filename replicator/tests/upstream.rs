//! Sessions move between a Redis and the replicator while users are there: Debian's redis-server, over TLS, with a
//! password, as a cluster, out of reach, and standing still.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;
#[path = "upstream/turns.rs"]
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::redis::RedisServer;
use support::resp::Client;
use support::{Folder, Launch, Replicator, certificates, free_port, launches, wait_linked, wait_until};

const PASSWORD: &str = "pass:word@1";

fn answers(redis: &RedisServer) {
    wait_until("redis-server answers", || {
        Client::try_connect(redis.address).is_ok()
    });
}

/// Sessions 0..count as strings with half an hour to live.
fn fill(client: &mut Client, count: usize) {
    for number in 0..count {
        let value = format!("old-{number}");
        assert_eq!(
            client
                .ask(&["SET", &format!("sess:{number}"), &value, "EX", "1800"])
                .text(),
            "OK"
        );
    }
}

fn copied_in(member: &Replicator) -> serde_json::Value {
    assert!(member.control("copy-in").starts_with("copying from"));
    wait_until("everything is copied", || {
        member.state()["upstream"]["copy_in"]["running"] == false
    });
    member.state()["upstream"]["copy_in"].clone()
}

fn caught_up(member: &Replicator) {
    wait_until("the upstream store has everything", || {
        let upstream = member.state()["upstream"].clone();
        upstream["pending"] == 0 && upstream["connected"] == true && upstream["copy_out_running"] == false
    });
}

/// One user's requests: the value grows by one each time, and is seen by the next request, at whichever member.
fn use_sessions(ports: &[u16], sessions: std::ops::Range<usize>, stop: &AtomicBool) -> usize {
    let mut clients: Vec<Client> = ports
        .iter()
        .map(|port| Client::connect(([127, 0, 0, 1], *port).into()))
        .collect();
    let mut written = std::collections::BTreeMap::<usize, usize>::new();
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        for session in sessions.clone() {
            let at = requests % clients.len();
            let client = &mut clients[at];
            let key = format!("sess:{session}");
            let seen = client.ask(&["GET", &key]).text();
            let expected = written
                .get(&session)
                .map_or_else(|| format!("old-{session}"), |n| format!("new-{n}"));
            assert_eq!(seen, expected, "{key} after {requests} requests");
            requests += 1;
            let reply = client.ask(&["SET", &key, &format!("new-{requests}"), "EX", "1800"]);
            assert_eq!(reply.text(), "OK");
            written.insert(session, requests);
        }
    }
    requests
}

/// A server that also listens over TLS, on the port that is told, and wants the password.
fn secured(folder: &Folder) -> (RedisServer, u16) {
    certificates::write(folder.path(), "localhost");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls_port = free_port();
    let redis = RedisServer::start_with(
        free_port(),
        &[
            "--requirepass",
            PASSWORD,
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &at("cert.pem"),
            "--tls-key-file",
            &at("key.pem"),
            "--tls-ca-cert-file",
            &at("ca.pem"),
            "--tls-auth-clients",
            "no",
        ],
    );
    answers(&redis);
    (redis, tls_port)
}

#[test]
fn sessions_move_in_under_load_over_tls() {
    const SESSIONS: usize = 1_000;
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (redis, tls_port) = secured(&folder);
    let mut before = Client::connect(redis.address);
    assert_eq!(before.ask(&["AUTH", PASSWORD]).text(), "OK");
    fill(&mut before, SESSIONS);
    before.call("HSET sess:hash a 1 b 2");
    before.call("EXPIRE sess:hash 1000");
    before.call("SADD sess:set x y");
    before.call("ZADD sess:scores 1.5 x");
    before.call("LPUSH sess:list x");
    before.call("SET other:1 foreign");

    let url = format!("rediss://:pass%3Aword%401@localhost:{tls_port}");
    let certificates = Folder::new();
    let starts = launches(2, &certificates, &["--no-affinity"]);
    let ports: Vec<u16> = starts.iter().map(|start| start.peer_port).collect();
    let mut members: Vec<Replicator> = starts
        .into_iter()
        .map(|start| {
            start
                .looking_for(&ports)
                .with(&[
                    "--upstream",
                    &url,
                    "--upstream-ca",
                    &at("ca.pem"),
                    // A busy machine may answer late: that is no failure of what is tested.
                    "--upstream-timeout-ms",
                    "20000",
                    "--upstream-prefix",
                    "sess:",
                ])
                .start()
        })
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    let (mut a, mut b) = (members[0].client(), members[1].client());

    // Read-through, on either member, with what is left of the time to live.
    assert_eq!(a.call("GET sess:7").text(), "old-7");
    assert_eq!(b.call("GET sess:7").text(), "old-7");
    let left: u64 = b.call("TTL sess:7").text().parse().unwrap();
    assert!((1_500..=1_800).contains(&left), "{left}");
    assert_eq!(b.call("HGET sess:hash b").text(), "2");
    assert_eq!(a.call("HINCRBY sess:hash a 5").text(), "6");
    assert_eq!(b.call("SISMEMBER sess:set y").text(), "1");
    assert_eq!(a.call("ZSCORE sess:scores x").text(), "1.5");
    assert_eq!(a.call("GET other:1").text(), "(nil)");
    assert!(a.call("GET sess:list").text().starts_with("WRONGTYPE"));
    // Write-through.
    assert_eq!(a.call("SET sess:fresh 1 EX 900").text(), "OK");
    assert_eq!(b.call("DEL sess:8").text(), "1");
    assert_eq!(b.call("GET sess:8").text(), "(nil)");
    members.iter().for_each(caught_up);
    assert_eq!(before.call("GET sess:fresh").text(), "1");
    let left: u64 = before.call("TTL sess:fresh").text().parse().unwrap();
    assert!((800..=900).contains(&left), "{left}");
    assert_eq!(before.call("EXISTS sess:8").text(), "0");
    assert_eq!(before.call("HGETALL sess:hash").text().matches("Bulk").count(), 4);
    assert_eq!(before.call("HGET sess:hash a").text(), "6");
    assert!((1..=1_000).contains(&before.call("TTL sess:hash").text().parse::<i64>().unwrap()));

    // Everything, while users are there.
    let stop = Arc::new(AtomicBool::new(false));
    let user_ports: Vec<u16> = members.iter().map(|member| member.port).collect();
    let user = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || use_sessions(&user_ports, 100..160, &stop)
    });
    let copy = copied_in(&members[0]);
    assert_eq!(copy["completed"], 1, "{copy}");
    assert_eq!(copy["abandoned"], 0, "{copy}");
    assert!(copy["seen"].as_u64().unwrap() >= SESSIONS as u64, "{copy}");
    stop.store(true, Ordering::Relaxed);
    assert!(user.join().unwrap() > 0);
    members.iter().for_each(caught_up);
    drop(redis);

    // The old store is gone, and nobody is logged out.
    for (number, client) in (0..SESSIONS).zip([0, 1].into_iter().cycle()) {
        let client = if client == 0 { &mut a } else { &mut b };
        let value = client.call(&format!("GET sess:{number}")).text();
        match number {
            8 => assert!(value == "(nil)" || value.starts_with("TRYAGAIN"), "{value}"),
            100..160 => assert!(value.starts_with("new-"), "{number}: {value}"),
            _ => assert_eq!(value, format!("old-{number}")),
        }
    }
    wait_until("it is noticed that the store is gone", || {
        members[0].state()["upstream"]["connected"] == false
    });
    let metrics = support::http_get(members[0].http_port, "/metrics").unwrap();
    for line in [
        "session_replicator_upstream_connected 0",
        "session_replicator_upstream_copy_in_running 0",
        r#"session_replicator_upstream_lookups_total{result="found"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn a_store_that_is_away_or_stands_still_holds_nobody_up() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let member = Launch::alone()
        .with(&["--upstream", &url, "--upstream-timeout-ms", "500"])
        .start_ready();
    let mut client = member.client();
    let quickly = |client: &mut Client, words: &[&str]| {
        let start = Instant::now();
        let reply = client.ask(words);
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{words:?} took {:?}",
            start.elapsed()
        );
        reply
    };
    // Away: what need not be looked up works, the rest says so.
    assert_eq!(quickly(&mut client, &["SET", "a", "1", "EX", "900"]).text(), "OK");
    assert_eq!(quickly(&mut client, &["GET", "a"]).text(), "1");
    assert!(
        quickly(&mut client, &["GET", "unknown"])
            .text()
            .starts_with("TRYAGAIN")
    );
    assert_eq!(member.state()["upstream"]["connected"], false);
    // It comes: it gets what was written meanwhile, what was deleted included.
    let redis = RedisServer::start_with(port, &[]);
    answers(&redis);
    let mut there = Client::connect(redis.address);
    wait_until("a is there", || there.call("GET a").text() == "1");
    caught_up(&member);
    assert_eq!(quickly(&mut client, &["GET", "unknown"]).text(), "(nil)");
    // It stands still.
    redis.process.signal("STOP");
    let start = Instant::now();
    for number in 0..50 {
        let value = number.to_string();
        assert_eq!(
            quickly(&mut client, &["SET", "a", &value, "EX", "900"]).text(),
            "OK"
        );
        assert_eq!(quickly(&mut client, &["GET", "a"]).text(), value);
    }
    // One reply may wait for it, not each.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(
        quickly(&mut client, &["GET", "elsewhere"])
            .text()
            .starts_with("TRYAGAIN")
    );
    assert_eq!(quickly(&mut client, &["DEL", "a"]).text(), "1");
    redis.process.signal("CONT");
    caught_up(&member);
    wait_until("a is gone there", || there.call("EXISTS a").text() == "0");
    assert_eq!(client.call("GET a").text(), "(nil)");
}

#[test]
fn sessions_move_out() {
    let redis = RedisServer::start();
    let url = format!("redis://{}/2", redis.address);
    let member = Launch::alone().with(&["--upstream", &url]).start_ready();
    let mut client = member.client();
    client.call("SELECT 2");
    fill(&mut client, 500);
    client.call("HSET sess:hash a 1");
    client.call("SET sess:1_LOCK token NX EX 30");
    client.call("DEL sess:3");
    caught_up(&member);
    let mut there = Client::connect(redis.address);
    there.call("SELECT 2");
    assert_eq!(there.call("DBSIZE").text(), "500");
    assert_eq!(there.call("EXISTS sess:1_LOCK").text(), "0");
    // Whatever the store has lost, a copy puts back.
    there.call("FLUSHALL");
    assert!(member.control("copy-out").starts_with("copying to"));
    caught_up(&member);
    assert_eq!(there.call("DBSIZE").text(), "500");
    assert_eq!(there.call("GET sess:499").text(), "old-499");
    let left: i64 = there.call("TTL sess:499").text().parse().unwrap();
    assert!((1_500..=1_800).contains(&left), "{left}");
    assert_eq!(there.call("HGET sess:hash a").text(), "1");
}

#[test]
fn a_cluster_is_followed() {
    let ports = [free_port(), free_port(), free_port()];
    let nodes = ports.map(|port| {
        let bus = free_port().to_string();
        RedisServer::start_with(port, &["--cluster-enabled", "yes", "--cluster-port", &bus])
    });
    nodes.iter().for_each(answers);
    let mut clients = [0, 1, 2].map(|node: usize| Client::connect(nodes[node].address));
    for (client, range) in clients.iter_mut().zip(["0 5000", "5001 11000", "11001 16383"]) {
        assert_eq!(
            client.call(&format!("CLUSTER ADDSLOTSRANGE {range}")).text(),
            "OK"
        );
    }
    for (node, port) in nodes.iter().zip(ports).skip(1) {
        let bus = Client::connect(node.address).call("CONFIG GET cluster-port");
        let support::resp::Value::Array(items) = bus else {
            panic!("{bus:?}")
        };
        let bus = items[1].text();
        assert_eq!(
            clients[0]
                .call(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))
                .text(),
            "OK"
        );
    }
    for client in &mut clients {
        wait_until("the cluster is complete", || {
            let info = client.call("CLUSTER INFO").text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    let url = format!("redis://127.0.0.1:{}", ports[1]);
    let start = Launch::alone().with(&["--upstream", &url]);
    {
        let first = start.start_ready();
        fill(&mut first.client(), 300);
        caught_up(&first);
    }
    let sizes = clients
        .each_mut()
        .map(|client| client.call("DBSIZE").text().parse::<u32>().unwrap());
    assert_eq!(sizes.iter().sum::<u32>(), 300);
    assert!(sizes.iter().all(|size| *size > 30), "{sizes:?}");
    let second = start.start_ready();
    assert_eq!(second.client().call("GET sess:5").text(), "old-5");
    let copy = copied_in(&second);
    assert_eq!(
        (&copy["present"], &copy["seen"]),
        (&300.into(), &300.into()),
        "{copy}"
    );
    assert_eq!(second.client().call("DBSIZE").text(), "300");
}
