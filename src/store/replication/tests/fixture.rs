//! Real servers, and the cluster that is played around them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::api::session_store::{Engine, FailoverCause};
use crate::certificates::{self, Pair, Usage};
use crate::runtime::writer::WriteError;
use crate::store::acl::{Users, hash};
use crate::store::build::build;
use crate::store::client::{Connection, Credentials, Endpoint, Failure, Password, open};
use crate::store::login::Login;
use crate::store::material::{Certificates, Material};
use crate::store::memory::Memory;
use crate::store::names::Names;
use crate::store::replication::act::{Actor, Doors, Surroundings};
use crate::store::replication::observe::{Access, Connections};
use crate::store::replication::*;
use crate::store::server::tend;
use crate::store::testing::{Server as Process, nothing_but, validated, valkey_server};

/// How long the servers may take to come to rest, on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// What the cluster keeps.
#[derive(Default)]
pub(super) struct Played {
    pub(super) labels: Mutex<BTreeMap<String, String>>,
    pub(super) led_to: Mutex<Option<String>>,
    pub(super) record: Mutex<Record>,
    pub(super) restarted: Mutex<BTreeSet<String>>,
    /// Labels cannot be written: the API server gives no answer.
    pub(super) cut_off: AtomicBool,
}

impl Surroundings for Played {
    async fn record(&self, record: &Record) -> Result<(), WriteError> {
        *self.record.lock().unwrap() = record.clone();
        Ok(())
    }

    async fn label(&self, member: &Member, role: &str) -> Result<(), WriteError> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(WriteError::NotLeader);
        }
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
pub(super) struct Servers {
    pub(super) names: Names,
    pub(super) material: Material,
    pub(super) processes: Vec<Process>,
    pub(super) access: Access,
    pub(super) played: Played,
    pub(super) connections: Connections,
    pub(super) doors: Doors,
    pub(super) outdated: BTreeSet<String>,
    pub(super) persistent: bool,
    pub(super) actions: Vec<Action>,
    pub(super) primary_seen: Instant,
}

pub(super) fn name(ordinal: usize) -> String {
    format!("larder-{ordinal}")
}

impl Servers {
    /// Three servers with the arguments, users and certificates that a pod would have.
    pub(super) fn start(spec: &str) -> Self {
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
                cluster: false,
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
        let set = &build(&store, &material).stateful_sets[0];
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        let program = if store.engine == Engine::Valkey {
            valkey_server()
        } else {
            "redis-server"
        };
        let processes = (0..store.servers)
            .map(|_| process(program, &arguments, &material))
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

    pub(super) fn address(&self, ordinal: usize) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.processes[ordinal].port,
            announced: "127.0.0.1".to_owned(),
        }
    }

    pub(super) async fn look(&mut self) -> Observation {
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
    pub(super) async fn round(&mut self) -> (Observation, Decision) {
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
    pub(super) async fn settle(&mut self) -> usize {
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

    pub(super) fn endpoint(&self, ordinal: usize) -> Endpoint {
        let address = self.address(ordinal);
        Endpoint {
            host: self.access.host.clone(),
            port: address.port,
            address: Some(address.host),
            tls: self.access.tls.clone(),
        }
    }

    /// Tells every server of its users, as a reconcile does.
    pub(super) async fn tend(&self) {
        let memory = Memory::default();
        for ordinal in 0..self.processes.len() {
            let (endpoint, server) = (self.endpoint(ordinal), name(ordinal));
            let facts = tend(&self.names, &server, &self.material, &endpoint, &memory, false);
            assert!(facts.await.unwrap().users_are_current);
        }
    }

    /// Who is shut out, as a primary is changed, is let in again within seconds.
    pub(super) async fn as_shop(&self, ordinal: usize) -> Connection {
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

    pub(super) async fn shop_at(&self, ordinal: usize) -> Result<Connection, Failure> {
        let credentials = Credentials {
            username: Some("app-shop".to_owned()),
            password: Some(Password::new("shop")),
        };
        open(&self.endpoint(ordinal), &credentials).await
    }

    pub(super) async fn write(&self, ordinal: usize, keys: std::ops::Range<usize>) {
        let mut shop = self.as_shop(ordinal).await;
        for key in keys {
            let key = format!("shop:{key}");
            shop.command::<()>(&["SET", &key, &key, "EX", "600"])
                .await
                .unwrap();
        }
    }

    pub(super) async fn missing(&self, ordinal: usize, keys: std::ops::Range<usize>) -> usize {
        let mut shop = self.as_shop(ordinal).await;
        let mut missing = 0;
        for key in keys {
            let found: Option<String> = shop.command(&["GET", &format!("shop:{key}")]).await.unwrap();
            missing += usize::from(found.is_none());
        }
        missing
    }

    pub(super) fn labelled_primary(&self) -> Vec<String> {
        let labels = self.played.labels.lock().unwrap();
        labels
            .iter()
            .filter(|(_, role)| *role == "primary")
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn last_cause(&self) -> Option<FailoverCause> {
        let record = self.played.record.lock().unwrap();
        record.last_failover.as_ref().map(|failover| failover.cause)
    }
}

/// A server as in a pod: its folders are others, and its port.
fn process(program: &str, arguments: &[String], material: &Material) -> Process {
    Process::run(program, |folder, port| {
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
