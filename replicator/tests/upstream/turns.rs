//! A turn of who answers clients, from the store to the members or back: nobody notices, and nothing is missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::redis::RedisServer;
use super::support::resp::Client;
use super::support::{Folder, Launch, Replicator, launches, wait_linked, wait_until};
use super::{answers, caught_up, fill};

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
