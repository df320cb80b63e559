//! Several real processes over TLS: sessions are everywhere, logouts stay, and every acknowledged session is accounted
//! for when processes are killed, stopped or replaced.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::proxy::Proxy;
use support::resp::{Client, Value};
use support::{Folder, Launch, Replicator, free_port, launches, wait_linked, wait_until};

fn start(launches: &[Launch]) -> Vec<Replicator> {
    let ports: Vec<u16> = launches.iter().map(|launch| launch.peer_port).collect();
    let mut members: Vec<Replicator> = launches
        .iter()
        .map(|launch| launch.clone().looking_for(&ports).start())
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    members
}

fn ok() -> Value {
    Value::Status("OK".to_owned())
}

/// Reads a key on a member until it has this value.
fn wait_for(member: &Replicator, key: &str, expected: &Value) {
    let mut client = member.client();
    wait_until(&format!("{key} on {} becomes {expected:?}", member.name), || {
        client.ask(&["GET", key]) == *expected
    });
}

#[test]
fn a_login_is_seen_everywhere_and_a_logout_too() {
    let folder = Folder::new();
    let members = start(&launches(3, &folder, &[]));
    assert_eq!(members[0].client().call("SET session:1 alice EX 600"), ok());
    for member in &members {
        wait_for(member, "session:1", &Value::Bulk(b"alice".to_vec()));
    }
    assert_eq!(members[1].client().call("DEL session:1"), Value::Int(1));
    for member in &members {
        wait_for(member, "session:1", &Value::Nil);
    }
    assert_eq!(members[2].client().call("HSET session:2 user bob"), Value::Int(1));
    wait_until("the field is on another member", || {
        members[0].client().call("HGET session:2 user") == Value::Bulk(b"bob".to_vec())
    });
}

#[test]
fn without_affinity_a_user_sees_his_own_writes_on_any_member() {
    let folder = Folder::new();
    for mode in ["all", "backup"] {
        let members = start(&launches(3, &folder, &["--mode", mode, "--no-affinity"]));
        let mut clients: Vec<Client> = members.iter().map(Replicator::client).collect();
        for number in 0..200 {
            let key = format!("{mode}:{}", number % 20);
            let value = number.to_string();
            assert_eq!(clients[number % 3].ask(&["SET", &key, &value, "EX", "600"]), ok());
            assert_eq!(
                clients[(number + 1) % 3].ask(&["GET", &key]),
                Value::Bulk(value.into_bytes()),
                "{key}"
            );
        }
    }
}

#[test]
fn locks_exclude_across_members() {
    let folder = Folder::new();
    let members = start(&launches(3, &folder, &[]));
    let mut clients: Vec<Client> = members.iter().map(Replicator::client).collect();
    for round in 0..30 {
        let key = format!("s{round}_LOCK");
        let won: Vec<usize> = (0..3)
            .filter(|number| {
                let owner = format!("owner-{number}");
                clients[*number].ask(&["SET", &key, &owner, "NX", "PX", "60000"]) == ok()
            })
            .collect();
        assert_eq!(won.len(), 1, "{key} was granted to {won:?}");
        let owner = format!("owner-{}", won[0]);
        let script = r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#;
        let stranger = (won[0] + 1) % 3;
        assert_eq!(
            clients[stranger].ask(&["EVAL", script, "1", &key, "nobody"]),
            Value::Int(0)
        );
        assert_eq!(
            clients[won[0]].ask(&["EVAL", script, "1", &key, &owner]),
            Value::Int(1)
        );
    }
}

/// Writes sessions through a client until told to stop; gives those that were acknowledged.
fn write_sessions(
    client: &mut Client,
    prefix: &str,
    count: usize,
    acknowledged: &mut BTreeMap<String, String>,
) {
    for number in 0..count {
        let key = format!("{prefix}:{number}");
        let value = format!("value of {key}");
        match client.try_ask(&["SET", &key, &value, "EX", "600"]) {
            Ok(reply) if reply == ok() => {
                acknowledged.insert(key, value);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn assert_all_there(member: &Replicator, sessions: &BTreeMap<String, String>) {
    let mut client = member.client();
    let missing: Vec<(&String, Value)> = sessions
        .iter()
        .map(|(key, value)| (key, value, answer(&mut client, key)))
        .filter(|(_, value, answer)| *answer != Value::Bulk(value.as_bytes().to_vec()))
        .map(|(key, _, answer)| (key, answer))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} lost on {}: {missing:?}",
        missing.len(),
        sessions.len(),
        member.name
    );
}

/// What a member answers in the end: on a busy machine another member, which has to be asked, may be late.
fn answer(client: &mut Client, key: &str) -> Value {
    let mut answer = Value::Nil;
    wait_until("the session can be asked for", || {
        answer = client.ask(&["GET", key]);
        !answer.is_error()
    });
    answer
}

/// Writes sessions over one connection to a member, one after the other, until told to stop or the connection ends.
struct Writer {
    written: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, String>>,
}

impl Writer {
    fn start(member: &Replicator, prefix: &str) -> Self {
        let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, told) = (Arc::clone(&written), Arc::clone(&stop));
        let (mut client, prefix) = (member.client(), format!("{prefix}:{}", member.name));
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            for number in 0.. {
                let key = format!("{prefix}:{number}");
                let value = format!("value of {key}");
                match client.try_ask(&["SET", &key, &value, "EX", "600"]) {
                    _ if told.load(Ordering::Relaxed) => break,
                    Ok(reply) if reply == ok() => {
                        acknowledged.insert(key, value);
                        count.store(acknowledged.len(), Ordering::Relaxed);
                    }
                    // Not confirmed in time: it may be lost.
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            acknowledged
        });
        Self {
            written,
            stop,
            thread,
        }
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// What was acknowledged.
    fn finish(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_in_the_middle_of_writes() {
    let folder = Folder::new();
    for (mode, acknowledge) in [("all", "one"), ("backup", "auto")] {
        let mut members = start(&launches(
            4,
            &folder,
            &["--mode", mode, "--acknowledge", acknowledge],
        ));
        let writers: Vec<Writer> = members.iter().map(|m| Writer::start(m, mode)).collect();
        wait_until("all have written", || writers.iter().all(|w| w.written() >= 200));
        members[0].process.kill();
        let survivors = &members[1..];
        for member in survivors {
            wait_until("the death is noticed", || is_suspected(member, &members[0]));
        }
        // They go on without it.
        let before: Vec<usize> = writers.iter().map(Writer::written).collect();
        wait_until("the others write on", || {
            writers
                .iter()
                .zip(&before)
                .skip(1)
                .all(|(w, before)| w.written() >= before + 50)
        });
        let acknowledged: BTreeMap<String, String> = writers.into_iter().flat_map(Writer::finish).collect();
        wait_until("the sessions are in reach again", || {
            let mut client = survivors[0].client();
            acknowledged
                .keys()
                .all(|key| !client.ask(&["GET", key]).is_error())
        });
        for member in survivors {
            assert_all_there(member, &acknowledged);
        }
    }
}

/// Whether a member has noticed that another one does not answer.
fn is_suspected(by: &Replicator, who: &Replicator) -> bool {
    let state = by.state();
    let mut others = state["members"].as_array().unwrap().iter();
    others.any(|member| member["name"] == who.name.as_str() && member["suspect"] == true)
}

#[test]
fn a_stopped_member_does_not_stop_the_others_and_catches_up() {
    let folder = Folder::new();
    let members = start(&launches(3, &folder, &[]));
    members[2].process.signal("STOP");
    let mut acknowledged = BTreeMap::new();
    write_sessions(&mut members[0].client(), "while-stopped", 300, &mut acknowledged);
    assert_eq!(members[0].client().call("SET gone x EX 600"), ok());
    assert_eq!(members[1].client().call("PING"), Value::Status("PONG".to_owned()));
    wait_until("the others work without it", || {
        is_suspected(&members[0], &members[2])
    });
    members[0].client().call("DEL gone");
    members[2].process.signal("CONT");
    wait_linked(&members);
    wait_until("everything has arrived", || {
        let mut client = members[2].client();
        acknowledged
            .iter()
            .all(|(key, value)| client.ask(&["GET", key]) == Value::Bulk(value.clone().into_bytes()))
    });
    wait_for(&members[2], "gone", &Value::Nil);
}

#[test]
fn a_rolling_replacement_loses_nothing() {
    let folder = Folder::new();
    for mode in ["all", "backup"] {
        let quick = ["--mode", mode, "--unready-seconds", "0"];
        // Three places, and a port for each replacement: pods get new addresses.
        let all = launches(6, &folder, &quick);
        let mut members = start(&all[..3]);
        let mut acknowledged = BTreeMap::new();
        for (turn, replacement) in all[3..].iter().enumerate() {
            write_sessions(
                &mut members[1].client(),
                &format!("{mode}:{turn}"),
                200,
                &mut acknowledged,
            );
            let present: Vec<u16> = members.iter().map(|member| member.peer_port).collect();
            let new = replacement.clone().looking_for(&present).start_ready();
            members.push(new);
            let old = members.remove(0);
            write_sessions(
                &mut old.client(),
                &format!("{mode}:{turn}:last"),
                50,
                &mut acknowledged,
            );
            let answer = old.control("drain");
            assert!(answer.starts_with("everything"), "{answer} {}", old.log());
            old.process.signal("TERM");
            let mut process = old.process;
            let status = process.0.wait().unwrap();
            assert!(status.success(), "{status}");
        }
        for member in &members {
            assert_all_there(member, &acknowledged);
        }
    }
}

#[test]
fn a_peer_of_another_identity_is_refused() {
    let folder = Folder::new();
    let all = launches(2, &folder, &[]);
    let first = all[0].start_ready();
    let mut stranger = all[1].clone();
    for argument in &mut stranger.arguments {
        if argument.ends_with("/cert.pem") || argument.ends_with("/key.pem") {
            *argument = argument
                .replace("/cert.pem", "/other-cert.pem")
                .replace("/key.pem", "/other-key.pem");
        }
    }
    let mut second = stranger
        .looking_for(&[first.peer_port])
        .with(&["--join-timeout-seconds", "3"])
        .start();
    assert_eq!(first.client().call("SET secret x EX 600"), ok());
    wait_until("it was refused again and again", || {
        first.log().matches("refused").count() >= 3
    });
    assert_eq!(first.state()["links"], 0);
    assert_eq!(second.state()["links"], 0);
    second.wait_ready();
    assert_eq!(second.client().call("GET secret"), Value::Nil);
}

/// Three members that reach each other through proxies, so that no link is left when all are cut.
fn behind_proxies(folder: &Folder) -> (Vec<Replicator>, Vec<Proxy>) {
    let starts = launches(3, folder, &["--acknowledge", "local"]);
    let proxies: Vec<Proxy> = starts.iter().map(|start| Proxy::to(start.peer_port)).collect();
    let ports: Vec<u16> = proxies.iter().map(|proxy| proxy.port).collect();
    let mut members: Vec<Replicator> = starts
        .into_iter()
        .zip(&ports)
        .map(|(start, port)| {
            let advertise = format!("127.0.0.1:{port}");
            start
                .with(&["--advertise", &advertise])
                .looking_for(&ports)
                .start()
        })
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    (members, proxies)
}

fn suspects(member: &Replicator) -> usize {
    let state = member.state();
    let others = state["members"].as_array().unwrap().iter();
    others.filter(|other| other["suspect"] == true).count()
}

/// A node that is cut off ends no connection; TCP tries to go on with it less and less often, and here never again.
#[test]
fn members_whose_links_fall_silent_make_new_ones() {
    let folder = Folder::new();
    let (members, proxies) = behind_proxies(&folder);
    members[0].client().call("SET before 1 EX 600");
    proxies.iter().for_each(Proxy::silence);
    wait_until("each is alone", || members.iter().all(|m| suspects(m) == 2));
    assert_eq!(members[0].client().call("SET meanwhile 1 EX 600"), ok());

    proxies.iter().for_each(Proxy::heal);
    wait_until("all hear each other", || members.iter().all(|m| suspects(m) == 0));
    for member in &members {
        wait_for(member, "before", &Value::Bulk(b"1".to_vec()));
        wait_for(member, "meanwhile", &Value::Bulk(b"1".to_vec()));
    }
}

#[test]
fn members_whose_links_are_cut_find_together_again() {
    let folder = Folder::new();
    let (members, proxies) = behind_proxies(&folder);
    members[0].client().call("SET before 1 EX 600");
    members[0].client().call("SET ended 1 EX 600");
    wait_for(&members[2], "ended", &Value::Bulk(b"1".to_vec()));
    wait_for(&members[1], "before", &Value::Bulk(b"1".to_vec()));

    proxies.iter().for_each(Proxy::cut);
    wait_until("each is alone", || members.iter().all(|m| suspects(m) == 2));
    // What is there goes on, on each side; the last write and the logout win.
    assert_eq!(members[0].client().call("SET before 2 EX 600"), ok());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(members[1].client().call("SET before 3 EX 600"), ok());
    assert_eq!(members[2].client().call("DEL ended"), Value::Int(1));
    assert_eq!(members[0].client().call("SET ended 2 EX 600"), ok());
    assert_eq!(members[0].client().call("GET before"), Value::Bulk(b"2".to_vec()));

    proxies.iter().for_each(Proxy::heal);
    wait_linked(&members);
    for member in &members {
        wait_for(member, "before", &Value::Bulk(b"3".to_vec()));
        wait_for(member, "ended", &Value::Nil);
    }
}

#[test]
fn nine_members_lose_two_and_nothing_else() {
    let folder = Folder::new();
    let mut members = start(&launches(
        9,
        &folder,
        &["--mode", "backup", "--backups", "2", "--acknowledge", "all"],
    ));
    let mut acknowledged = BTreeMap::new();
    for member in &members {
        write_sessions(&mut member.client(), &member.name, 40, &mut acknowledged);
    }
    assert!(acknowledged.len() >= 300, "{}", acknowledged.len());
    for member in &members {
        assert_all_there(member, &acknowledged);
    }
    let mut lost = [members.remove(0), members.remove(4)];
    for member in &mut lost {
        member.process.kill();
    }
    wait_until("everything is in reach again", || {
        let mut client = members[3].client();
        let mut keys = acknowledged.keys();
        keys.all(|key| !client.ask(&["GET", key]).is_error())
    });
    for member in &members {
        wait_until("the losses are noticed", || {
            lost.iter().all(|gone| is_suspected(member, gone))
        });
        assert_all_there(member, &acknowledged);
    }
    // One that leaves in order takes nothing with it.
    let leaver = members.remove(2);
    let answer = leaver.control("drain");
    assert!(answer.starts_with("everything"), "{answer} {}", leaver.log());
    drop(leaver);
    for member in &members {
        assert_all_there(member, &acknowledged);
    }
}

#[test]
fn where_connections_are_refused_nobody_is_waited_for() {
    // Pods of the application that have no sidecar yet have the same Service.
    let folder = Folder::new();
    let begun = Instant::now();
    let start = launches(1, &folder, &["--join-timeout-seconds", "60"]).remove(0);
    let alone = start.looking_for(&[free_port(), free_port()]).start_ready();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "ready after {:?}: {}",
        begun.elapsed(),
        alone.log()
    );
}
