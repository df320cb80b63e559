//! Real servers on loopback, started as in a pod, and the code that looks, decides and acts. Only the cluster around them is
//! played: labels and record are kept in memory, and a deleted pod is a server that is started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::act::{Actor, Doors, Surroundings};
use super::observe::{Access, Connections};
use super::*;
use crate::api::session_store::FailoverCause;
use crate::certificates::{self, Pair, Usage};
use crate::runtime::writer::WriteError;
use crate::store::acl::{ADMIN, REPLICATION, Users, hash};
use crate::store::build::build;
use crate::store::client::{Authority, Connection, Credentials, Endpoint, Failure, Password, connect, open};
use crate::store::login::Login;
use crate::store::material::{Certificates, Material};
use crate::store::memory::Memory;
use crate::store::names::Names;
use crate::store::server::tend;
use crate::store::testing::{Server as Process, nothing_but, validated};

/// How long the servers may take to come to rest, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What the cluster keeps.
#[derive(Default)]
struct Played {
    labels: Mutex<BTreeMap<String, String>>,
    led_to: Mutex<Option<String>>,
    record: Mutex<Record>,
    restarted: Mutex<BTreeSet<String>>,
}

impl Surroundings for Played {
    async fn record(&self, record: &Record) -> Result<(), WriteError> {
        *self.record.lock().unwrap() = record.clone();
        Ok(())
    }

    async fn label(&self, member: &Member, role: &str) -> Result<(), WriteError> {
        let mut labels = self.labels.lock().unwrap();
        labels.insert(member.name.clone(), role.to_owned());
        Ok(())
    }

    async fn lead(&self, member: &Member) -> Result<(), WriteError> {
        *self.led_to.lock().unwrap() = Some(member.name.clone());
        Ok(())
    }

    async fn restart(&self, member: &Member) -> Result<(), WriteError> {
        self.restarted.lock().unwrap().insert(member.name.clone());
        Ok(())
    }
}

/// A store with several servers.
struct Servers {
    names: Names,
    material: Material,
    processes: Vec<Process>,
    access: Access,
    played: Played,
    connections: Connections,
    doors: Doors,
    outdated: BTreeSet<String>,
    persistent: bool,
    actions: Vec<Action>,
    primary_seen: Instant,
}

fn name(ordinal: usize) -> String {
    format!("larder-{ordinal}")
}

impl Servers {
    /// Three servers with the arguments, users and certificates that a pod would have.
    fn start(spec: &str) -> Self {
        let store = validated(spec, &nothing_but(&["shop"]), &[]);
        let passwords = ["admin", "replication", "shop"].map(Password::new);
        let [admin, replication, shop] = &passwords;
        let now = jiff::Timestamp::now();
        let authority = certificates::authority("larder", now).unwrap();
        let server = certificates::leaf(&authority, &store.names.hosts(store.servers), Usage::Server, now);
        let login = |password: &Password| Login {
            password: password.clone(),
            next: None,
            made: None,
        };
        let known = |password: &Password| BTreeSet::from([hash(password.reveal())]);
        let material = Material {
            admin: login(admin),
            former_admin: None,
            replication: Some(login(replication)),
            relinks: false,
            logins: [("shop".to_owned(), login(shop))].into(),
            users: Users {
                admin: known(admin),
                replication: Some(known(replication)),
                prefixes: [("shop".to_owned(), known(shop))].into(),
            },
            tls: store.tls.then(|| Certificates {
                trusted: authority.certificate.clone(),
                authority,
                former: None,
                server: server.unwrap(),
            }),
            obsolete: BTreeSet::new(),
        };
        let set = build(&store, &material).stateful_set;
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        let processes = (0..store.servers)
            .map(|_| process(&arguments, &material))
            .collect();
        Self {
            names: store.names.clone(),
            processes,
            access: servers::plan(&store, &material).access,
            played: Played::default(),
            connections: Connections::default(),
            doors: Doors::default(),
            outdated: BTreeSet::new(),
            persistent: store.volume.is_some(),
            actions: Vec::new(),
            primary_seen: Instant::now(),
            material,
        }
    }

    fn address(&self, ordinal: usize) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.processes[ordinal].port,
            announced: "127.0.0.1".to_owned(),
        }
    }

    async fn look(&mut self) -> Observation {
        let servers: Vec<_> = (0..self.processes.len())
            .map(|ordinal| (name(ordinal), self.address(ordinal)))
            .collect();
        let answers = self.connections.look(&self.access, &servers).await;
        let labels = self.played.labels.lock().unwrap().clone();
        let members = servers.into_iter().map(|(name, address)| Member {
            pod: Pod {
                uid: Some(format!("uid-{name}")),
                started: true,
                running: true,
                outdated: self.outdated.contains(&name),
                label: labels.get(&name).cloned(),
                ..Pod::default()
            },
            address,
            server: answers[&name].clone(),
            leaving: false,
            volume: self.persistent,
            name,
        });
        Observation {
            members: members.collect(),
            record: self.played.record.lock().unwrap().clone(),
            led_to: self.played.led_to.lock().unwrap().clone(),
            without_primary: self.primary_seen.elapsed(),
        }
    }

    /// One look, and what follows from it.
    async fn round(&mut self) -> (Observation, Decision) {
        let seen = self.look().await;
        let decision = decide(&seen);
        if decision.primary.is_some() {
            self.primary_seen = Instant::now();
        }
        for action in &decision.actions {
            let actor = Actor {
                surroundings: &self.played,
                access: &self.access,
                seen: &seen,
                doors: &self.doors,
            };
            if let Err(error) = actor.act(action, jiff::Timestamp::now()).await {
                eprintln!("{action:?}: {error}");
                break;
            }
        }
        self.actions.extend(decision.actions.iter().cloned());
        let restarted = std::mem::take(&mut *self.played.restarted.lock().unwrap());
        for name in restarted {
            let ordinal = name.rsplit('-').next().unwrap().parse::<usize>().unwrap();
            self.processes[ordinal].kill_and_start();
            self.played.labels.lock().unwrap().remove(&name);
            self.outdated.remove(&name);
        }
        (seen, decision)
    }

    /// Goes on until one server is primary and all others have everything. Returns the primary's ordinal.
    async fn settle(&mut self) -> usize {
        let begun = Instant::now();
        loop {
            let (seen, decision) = self.round().await;
            let primary = seen
                .members
                .iter()
                .position(|member| Some(&member.name) == decision.primary.as_ref());
            if let (Some(primary), true) = (primary, decision.actions.is_empty()) {
                let others = seen.members.iter().enumerate().filter(|(at, _)| *at != primary);
                let offset = |member: &Member| member.state().map(|state| state.offset);
                let first = &seen.members[primary];
                if others
                    .into_iter()
                    .all(|(_, member)| member.is_synced(first) && offset(member) >= offset(first))
                {
                    return primary;
                }
            }
            assert!(begun.elapsed() < LIMIT, "{decision:#?}\n{seen:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn endpoint(&self, ordinal: usize) -> Endpoint {
        let address = self.address(ordinal);
        Endpoint {
            host: self.access.host.clone(),
            port: address.port,
            address: Some(address.host),
            tls: self.access.tls.clone(),
        }
    }

    /// Tells every server of its users, as a reconcile does.
    async fn tend(&self) {
        let memory = Memory::default();
        for ordinal in 0..self.processes.len() {
            let (endpoint, server) = (self.endpoint(ordinal), name(ordinal));
            let facts = tend(&self.names, &server, &self.material, &endpoint, &memory, false);
            assert!(facts.await.unwrap().users_are_current);
        }
    }

    /// Who is shut out, as a primary is changed, is let in again within seconds.
    async fn as_shop(&self, ordinal: usize) -> Connection {
        let begun = Instant::now();
        loop {
            match self.shop_at(ordinal).await {
                Err(Failure::Authentication { .. }) if begun.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer.unwrap(),
            }
        }
    }

    async fn shop_at(&self, ordinal: usize) -> Result<Connection, Failure> {
        let credentials = Credentials {
            username: Some("app-shop".to_owned()),
            password: Some(Password::new("shop")),
        };
        open(&self.endpoint(ordinal), &credentials).await
    }

    async fn write(&self, ordinal: usize, keys: std::ops::Range<usize>) {
        let mut shop = self.as_shop(ordinal).await;
        for key in keys {
            let key = format!("shop:{key}");
            shop.command::<()>(&["SET", &key, &key, "EX", "600"])
                .await
                .unwrap();
        }
    }

    async fn missing(&self, ordinal: usize, keys: std::ops::Range<usize>) -> usize {
        let mut shop = self.as_shop(ordinal).await;
        let mut missing = 0;
        for key in keys {
            let found: Option<String> = shop.command(&["GET", &format!("shop:{key}")]).await.unwrap();
            missing += usize::from(found.is_none());
        }
        missing
    }

    fn labelled_primary(&self) -> Vec<String> {
        let labels = self.played.labels.lock().unwrap();
        labels
            .iter()
            .filter(|(_, role)| *role == "primary")
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn last_cause(&self) -> Option<FailoverCause> {
        let record = self.played.record.lock().unwrap();
        record.last_failover.as_ref().map(|failover| failover.cause)
    }
}

/// A server as in a pod: its folders are others, and its port.
fn process(arguments: &[String], material: &Material) -> Process {
    Process::with_words(|folder, port| {
        let folder_text = folder.display().to_string();
        std::fs::write(folder.join("users.acl"), material.users.file()).unwrap();
        if let Some(tls) = &material.tls {
            let Pair { certificate, key } = &tls.server;
            std::fs::write(folder.join("tls.crt"), certificate).unwrap();
            std::fs::write(folder.join("tls.key"), key).unwrap();
            std::fs::write(folder.join("ca.crt"), &tls.trusted).unwrap();
        }
        let mut words: Vec<String> = arguments
            .iter()
            .map(|word| match word.as_str() {
                "6379" => port.to_string(),
                "/data" => folder_text.clone(),
                word if word.starts_with("$(POD_NAME)") => "127.0.0.1".to_owned(),
                word => word
                    .replace("/tls/", &format!("{folder_text}/"))
                    .replace("/users/", &format!("{folder_text}/")),
            })
            .collect();
        let bind = words.iter().position(|word| word == "--bind").unwrap();
        words.splice(bind + 1..bind + 3, ["127.0.0.1".to_owned()]);
        words
    })
}

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
    servers.write(primary, 50..100).await;
    let begun = Instant::now();
    loop {
        let seen = servers.look().await;
        let first = &seen.members[primary];
        let keys = |member: &Member| member.state().map(|state| state.keys);
        let mut others = seen.members.iter().filter(|member| member.name != first.name);
        if others.all(|member| member.is_synced(first) && keys(member) == Some(100)) {
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
    admin.admit(&servers.access.users, true).await.unwrap();
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
