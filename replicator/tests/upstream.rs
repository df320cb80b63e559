//! Sessions move between a Redis and the replicator while users are there: Debian's redis-server, over TLS, with a
//! password, as a cluster, out of reach, and standing still.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

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

/// A user's client that connects anew when the connection ends between two requests, as session handlers do.
struct Handler {
    address: std::net::SocketAddr,
    client: Client,
    renewed: usize,
}

impl Handler {
    fn new(port: u16) -> Self {
        let address = ([127, 0, 0, 1], port).into();
        Self {
            address,
            client: Client::connect(address),
            renewed: 0,
        }
    }

    fn ask(&mut self, words: &[&str]) -> String {
        if let Ok(reply) = self.client.try_ask(words) {
            return reply.text();
        }
        self.renewed += 1;
        self.client = Client::connect(self.address);
        self.client.ask(words).text()
    }
}

#[test]
fn who_follows_passes_clients_on_and_may_lead_once() {
    let redis = RedisServer::start();
    answers(&redis);
    let mut direct = Client::connect(redis.address);
    fill(&mut direct, 100);
    let url = format!("redis://{}", redis.address);
    let member = Launch::alone()
        .with(&[
            "--upstream",
            &url,
            "--upstream-follow",
            "--upstream-timeout-ms",
            "5000",
        ])
        .start_ready();
    let mut user = Handler::new(member.port);

    // What the store says is said here, also by commands that are not spoken here.
    assert_eq!(member.state()["upstream"]["follows"], true);
    assert_eq!(user.ask(&["GET", "sess:7"]), "old-7");
    assert_eq!(user.ask(&["SET", "sess:7", "by-user", "EX", "600"]), "OK");
    assert_eq!(direct.ask(&["GET", "sess:7"]).text(), "by-user");
    direct.ask(&["SET", "sess:7", "by-other", "EX", "600"]);
    assert_eq!(user.ask(&["GET", "sess:7"]), "by-other");
    direct.ask(&["DEL", "sess:8"]);
    assert_eq!(user.ask(&["EXISTS", "sess:8"]), "0");
    assert_eq!(member.state()["entries"], 0);

    assert!(
        member
            .control("lead")
            .starts_with("clients are answered from here")
    );
    wait_until("the connection was ended", || {
        user.ask(&["GET", "sess:7"]) == "by-other" && user.renewed == 1
    });
    assert_eq!(member.state()["entries"], 1);
    assert_eq!(user.ask(&["SET", "sess:9", "led", "EX", "600"]), "OK");
    assert_eq!(direct.ask(&["GET", "sess:9"]).text(), "led");

    assert!(member.control("follow").starts_with("clients are passed on"));
    wait_until("the connection was ended again", || {
        user.ask(&["GET", "sess:9"]) == "led" && user.renewed == 2
    });
    direct.ask(&["SET", "sess:9", "by-other", "EX", "600"]);
    assert_eq!(user.ask(&["GET", "sess:9"]), "by-other");
    // What was held while leading is older than what the store has by now.
    assert!(member.control("lead").contains("start the process anew"));
    assert_eq!(user.ask(&["GET", "sess:9"]), "by-other");
}

#[test]
fn nobody_notices_a_change_of_who_leads() {
    const USERS: usize = 20;
    let redis = RedisServer::start();
    answers(&redis);
    let mut direct = Client::connect(redis.address);
    fill(&mut direct, USERS);
    let url = format!("redis://{}", redis.address);
    let member = Launch::alone()
        .with(&[
            "--upstream",
            &url,
            "--upstream-follow",
            "--upstream-timeout-ms",
            "5000",
        ])
        .start_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let port = member.port;
    let users: Vec<_> = (0..USERS)
        .map(|number| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut handler, key) = (Handler::new(port), format!("sess:{number}"));
                let (mut value, mut requests) = (format!("old-{number}"), 0_u32);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(
                        handler.ask(&["GET", &key]),
                        value,
                        "{key} after {requests} requests"
                    );
                    value = format!("new-{requests}");
                    assert_eq!(handler.ask(&["SET", &key, &value, "EX", "1800"]), "OK");
                    requests += 1;
                    // Some are always at it, some rest between two requests.
                    std::thread::sleep(Duration::from_millis(u64::try_from(number).unwrap() * 30));
                }
                (requests, handler.renewed)
            })
        })
        .collect();
    for request in ["lead", "follow"] {
        std::thread::sleep(Duration::from_secs(3));
        member.control(request);
    }
    std::thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::Relaxed);
    for user in users {
        let (requests, renewed) = user.join().unwrap();
        assert!(
            requests > 5 && renewed >= 2,
            "{requests} requests, {renewed} connections more"
        );
    }
}

/// Requests of users who write at whichever member, until `stop`; each sees what he wrote last.
fn wander(ports: Vec<u16>, key: String, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<(u32, String)> {
    std::thread::spawn(move || {
        let mut handlers: Vec<Handler> = ports.into_iter().map(Handler::new).collect();
        let (mut value, mut requests) = ("fresh".to_owned(), 0_u32);
        assert_eq!(handlers[0].ask(&["SET", &key, &value, "EX", "1800"]), "OK");
        while !stop.load(Ordering::Relaxed) {
            for handler in &mut handlers {
                let seen = handler.ask(&["GET", &key]);
                assert_eq!(seen, value, "{key} after {requests} requests");
                value = format!("new-{requests}");
                assert_eq!(handler.ask(&["SET", &key, &value, "EX", "1800"]), "OK");
                requests += 1;
            }
        }
        (requests, value)
    })
}

#[test]
fn nothing_is_missed_on_the_way_out() {
    const USERS: usize = 12;
    let redis = RedisServer::start();
    answers(&redis);
    let mut direct = Client::connect(redis.address);
    let url = format!("redis://{}", redis.address);
    let certificates = Folder::new();
    let starts = launches(
        3,
        &certificates,
        &["--no-affinity", "--upstream-timeout-ms", "5000"],
    );
    let ports: Vec<u16> = starts.iter().map(|start| start.peer_port).collect();
    let mut members: Vec<Replicator> = starts
        .into_iter()
        .map(|start| start.looking_for(&ports).with(&["--upstream", &url]).start())
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    let stop = Arc::new(AtomicBool::new(false));
    let fronts: Vec<u16> = members.iter().map(|member| member.port).collect();
    let users: Vec<_> = (0..USERS)
        .map(|user| wander(fronts.clone(), format!("sess:{user}"), Arc::clone(&stop)))
        .collect();
    // Each copy may come behind a write of another member.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        for member in &members {
            member.control("copy-out");
        }
    }
    for member in &members {
        member.control("hold");
    }
    let of_upstream = |member: &Replicator, what: &str| member.state()["upstream"][what].clone();
    wait_until("nobody writes any more", || {
        members.iter().all(|member| {
            let state = member.state();
            state["connections"] == 0 && state["upstream"]["pending"] == 0
        })
    });
    assert!(members.iter().all(|m| of_upstream(m, "copy_out_held") == false));
    for member in &members {
        assert!(member.control("copy-out").starts_with("copying to"));
    }
    members.iter().for_each(caught_up);
    assert!(members.iter().all(|m| of_upstream(m, "copy_out_held") == true));
    for member in &members {
        member.control("follow");
    }
    // From here on the store answers, and each user finds what he wrote last.
    std::thread::sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    for (number, user) in users.into_iter().enumerate() {
        let (requests, last) = user.join().unwrap();
        assert!(requests > 20, "{requests} requests");
        assert_eq!(direct.ask(&["GET", &format!("sess:{number}")]).text(), last);
    }
}

#[test]
fn a_request_keeps_its_lock_when_another_place_answers() {
    let redis = RedisServer::start();
    answers(&redis);
    let mut direct = Client::connect(redis.address);
    let url = format!("redis://{}", redis.address);
    let options = ["--upstream", &url, "--upstream-timeout-ms", "5000"];
    let member = Launch::alone()
        .with(&options)
        .with(&["--upstream-follow"])
        .start_ready();
    let lock = "PHPREDIS_SESSION:a_LOCK";
    let take = |user: &mut Handler, token| user.ask(&["SET", lock, token, "NX", "PX", "30000"]);

    let mut user = Handler::new(member.port);
    assert_eq!(take(&mut user, "first"), "OK");
    member.control("hold");
    member.control("lead");
    wait_until("it is answered from here", || {
        user.ask(&["GET", lock]) == "first" && user.renewed == 1
    });
    assert_eq!(take(&mut user, "second"), "(nil)");
    assert_eq!(user.ask(&["DEL", lock]), "1");
    assert_eq!(take(&mut user, "third"), "OK");
    // That is nobody else's business.
    assert_eq!(direct.ask(&["GET", lock]).text(), "first");

    member.control("hold");
    wait_until("the connection was ended", || member.state()["connections"] == 0);
    member.control("copy-out");
    caught_up(&member);
    member.control("follow");
    assert_eq!(direct.ask(&["GET", lock]).text(), "third");
    assert_eq!(take(&mut user, "fourth"), "(nil)");
    assert_eq!(user.ask(&["GET", lock]), "third");
}
