//! Real servers, and the Kubernetes that is played around them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use crate::api::session_store::FailoverCause;
use crate::certificates::{self, Pair, Usage};
use crate::runtime::writer::WriteError;
use crate::store::acl::{Users, hash};
use crate::store::build::build;
use crate::store::client::{Connection, Credentials, Endpoint, Failure, Password, open};
use crate::store::cluster::act::{Actor, Surroundings};
use crate::store::cluster::report::Report;
use crate::store::cluster::watch::takes_time;
use crate::store::cluster::*;
use crate::store::login::Login;
use crate::store::material::{Certificates, Material};
use crate::store::memory::Memory;
use crate::store::names::Names;
use crate::store::replication::observe::{Access, Connections};
use crate::store::server::tend;
use crate::store::testing::{Server as Process, free_ports, nothing_but, validated, valkey_server};

/// How long the servers may take to come to rest, on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_mins(3);

/// How often a server is started at most.
const STARTS: u16 = 8;

/// How long what was told to a server is not told again, as in the watch.
const PATIENCE: Duration = Duration::from_secs(2);

/// What Kubernetes keeps.
#[derive(Default)]
pub(super) struct Played {
    labels: Mutex<BTreeMap<String, String>>,
    pub(super) record: Mutex<Record>,
    restarted: Mutex<BTreeSet<String>>,
    removed: Mutex<BTreeSet<usize>>,
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

    async fn restart(&self, member: &Member) -> Result<(), WriteError> {
        self.restarted.lock().unwrap().insert(member.name.clone());
        Ok(())
    }

    async fn remove(&self, shard: usize) -> Result<(), WriteError> {
        self.removed.lock().unwrap().insert(shard);
        Ok(())
    }
}

/// Where a server is: shard and ordinal.
pub(super) type Place = (usize, usize);

/// A store with shards.
pub(super) struct Servers {
    pub(super) names: Names,
    pub(super) material: Material,
    pub(super) processes: BTreeMap<Place, Process>,
    pub(super) access: Access,
    pub(super) played: Played,
    pub(super) connections: Connections,
    pub(super) outdated: BTreeSet<Place>,
    /// Servers whose pods end.
    pub(super) ending: BTreeSet<Place>,
    /// Servers whose process does not run.
    pub(super) down: BTreeSet<Place>,
    pub(super) shards: usize,
    pub(super) actions: Vec<Action>,
    per_shard: usize,
    persistent: bool,
    arguments: Vec<String>,
    memory: Memory,
    told: HashMap<String, Instant>,
    causes: HashMap<String, FailoverCause>,
    /// One at a time: a dozen servers that each say something every 100 ms are enough for a small machine.
    _alone: MutexGuard<'static, ()>,
}

impl Servers {
    /// Servers with the command, users and certificates that pods would have.
    pub(super) async fn start(spec: &str) -> Self {
        static ALONE: OnceLock<tokio::sync::Mutex<()>> = OnceLock::new();
        let alone = ALONE.get_or_init(tokio::sync::Mutex::default).lock().await;
        let store = validated(spec, &nothing_but(&["shop"]), &[]);
        let passwords = ["admin", "replication", "shop"].map(Password::new);
        let [admin, replication, shop] = &passwords;
        let now = jiff::Timestamp::now();
        let authority = certificates::authority("larder", now).unwrap();
        let server = certificates::leaf(&authority, &store.hosts(), Usage::Both, now);
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
                cluster: true,
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
        let words = |field: &str| serde_json::from_value::<Vec<String>>(container[field].clone()).unwrap();
        let mut servers = Self {
            names: store.names.clone(),
            processes: BTreeMap::new(),
            access: servers::access(&store, &material),
            played: Played::default(),
            connections: Connections::default(),
            outdated: BTreeSet::new(),
            ending: BTreeSet::new(),
            down: BTreeSet::new(),
            shards: store.shards.len(),
            actions: Vec::new(),
            per_shard: store.servers_per_shard(),
            persistent: store.volume.is_some(),
            arguments: [words("command"), words("args")].concat(),
            memory: Memory::default(),
            told: HashMap::new(),
            causes: HashMap::new(),
            material,
            _alone: alone,
        };
        for shard in 0..servers.shards {
            servers.add_shard(shard);
        }
        servers
    }

    /// Starts the servers of a shard.
    pub(super) fn add_shard(&mut self, shard: usize) {
        for ordinal in 0..self.per_shard {
            let process = self.process(&self.names.shard_member(shard, ordinal));
            self.processes.insert((shard, ordinal), process);
        }
    }

    /// A server as in a pod: its folders are others, and its port.
    fn process(&self, name: &str) -> Process {
        let announced = self.names.member_host(name);
        let [program, words @ ..] = self.arguments.as_slice() else {
            panic!("no command")
        };
        let material = &self.material;
        let program = if program == "sh" { "sh" } else { server(program) };
        Process::run(program, |folder, port| {
            let folder_text = folder.display().to_string();
            std::fs::write(folder.join("users.acl"), material.users.file()).unwrap();
            std::fs::write(
                folder.join("replication.conf"),
                "masteruser replication\nmasterauth replication\n",
            )
            .unwrap();
            if let Some(tls) = &material.tls {
                let Pair { certificate, key } = &tls.server;
                std::fs::write(folder.join("tls.crt"), certificate).unwrap();
                std::fs::write(folder.join("tls.key"), key).unwrap();
                std::fs::write(folder.join("ca.crt"), &tls.trusted).unwrap();
            }
            // Where it talks to the others: one of as many as it will be started times.
            let bus = free_ports(STARTS).to_string();
            let mut words: Vec<String> = words
                .iter()
                .map(|word| match word.as_str() {
                    "6379" => port.to_string(),
                    "/data" => folder_text.clone(),
                    "valkey-server" | "redis-server" => server(word).to_owned(),
                    "$(POD_IP)" => "127.0.0.1".to_owned(),
                    word if word.starts_with("$(POD_NAME)") => announced.clone(),
                    // The script that starts it.
                    word if word.contains("cd /data; [") => word
                        .replace("/data", &folder_text)
                        .replace("/users/", &format!("{folder_text}/"))
                        .replace("16379", &bus),
                    word => ["/tls/", "/users/", "/replication/"]
                        .iter()
                        .fold(word.to_owned(), |word, folder| {
                            word.replace(folder, &format!("{folder_text}/"))
                        }),
                })
                .collect();
            let bind = words.iter().position(|word| word == "--bind").unwrap();
            words.splice(bind + 1..bind + 3, ["127.0.0.1".to_owned()]);
            words
        })
    }

    pub(super) fn name(&self, place: Place) -> String {
        self.names.shard_member(place.0, place.1)
    }

    pub(super) fn address(&self, place: Place) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.processes[&place].port,
            announced: self.names.member_host(&self.name(place)),
        }
    }

    pub(super) async fn look(&mut self) -> Observation {
        let servers: Vec<_> = self
            .processes
            .keys()
            .map(|place| (self.name(*place), self.address(*place)))
            .collect();
        let mut answers = self.connections.look(&self.access, &servers).await;
        let labels = self.played.labels.lock().unwrap().clone();
        let places = self.processes.keys().copied();
        let members = places.zip(servers).map(|(place, (name, address))| Member {
            shard: place.0,
            pod: Pod {
                uid: Some(format!("uid-{name}")),
                started: true,
                running: !self.down.contains(&place),
                terminating: self.ending.contains(&place),
                outdated: self.outdated.contains(&place),
                label: labels.get(&name).cloned(),
                ..Pod::default()
            },
            address,
            server: answers.remove(&name).unwrap(),
            leaving: false,
            volume: self.persistent,
            name,
        });
        Observation {
            shards: self.shards,
            members: members.collect(),
            record: self.played.record.lock().unwrap().clone(),
        }
    }

    /// One look, and what follows from it.
    pub(super) async fn round(&mut self) -> Report {
        let mut seen = self.look().await;
        let decision = decide(&seen);
        self.told.retain(|_, since| since.elapsed() < PATIENCE);
        for action in &decision.actions {
            let key = format!("{action:?}");
            if takes_time(action) && self.told.contains_key(&key) {
                continue;
            }
            seen.record = self.played.record.lock().unwrap().clone();
            let actor = Actor {
                surroundings: &self.played,
                access: &self.access,
                seen: &seen,
                causes: &self.causes,
            };
            match actor.act(action, jiff::Timestamp::now()).await {
                Ok(_) => {
                    self.told.insert(key, Instant::now());
                    self.actions.push(action.clone());
                    if let Action::TakeOver { member, cause, .. } = action {
                        self.causes.insert(member.clone(), *cause);
                    }
                }
                Err(error) => eprintln!("{action:?}: {error}"),
            }
        }
        let restarted = std::mem::take(&mut *self.played.restarted.lock().unwrap());
        for name in restarted {
            let place = self.names.place(&name).unwrap();
            self.processes.get_mut(&place).unwrap().kill_and_start();
            self.played.labels.lock().unwrap().remove(&name);
            self.outdated.remove(&place);
        }
        let removed = std::mem::take(&mut *self.played.removed.lock().unwrap());
        self.processes.retain(|(shard, _), _| !removed.contains(shard));
        let report = Report { seen, decision };
        self.tend(&report).await;
        report
    }

    /// Tells servers of their users, as a reconcile does.
    async fn tend(&self, report: &Report) {
        let closed = report.closed();
        for member in report.seen.members.iter().filter(|member| member.id().is_some()) {
            let place = self.names.place(&member.name).unwrap();
            // It may have been removed in this round.
            if !self.processes.contains_key(&place) {
                continue;
            }
            let endpoint = self.endpoint(place);
            let is_closed = closed.contains(&member.name);
            let told = tend(
                &self.names,
                &member.name,
                &self.material,
                &endpoint,
                &self.memory,
                is_closed,
            );
            if let Err(failure) = told.await {
                eprintln!("{}: {failure}", member.name);
            }
        }
    }

    /// Goes on until every slot is served, all replicas have everything, and nothing is left to be done.
    pub(super) async fn settle(&mut self) -> Report {
        let begun = Instant::now();
        loop {
            let report = self.round().await;
            let is_known = |report: &Report| {
                let ids = report.seen.members.iter().filter_map(Member::id);
                ids.count() == report.seen.members.len()
            };
            if report.decision == Decision::default()
                && report.serves_all()
                && report.lacking().is_empty()
                && is_known(&report)
            {
                return report;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{:#?}\n{:#?}\n{:#?}",
                report.decision,
                report.members(),
                report.seen
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The operator ends, and another one goes on.
    pub(super) fn another_operator(&mut self) {
        self.connections.clear();
        self.told.clear();
        self.causes.clear();
        self.memory = Memory::default();
    }

    /// As the operator.
    pub(super) async fn as_admin(&self, place: Place) -> Connection {
        self.access.connect(&self.address(place)).await.unwrap()
    }

    /// The primary of a shard.
    pub(super) fn primary(&self, report: &Report, shard: usize) -> Place {
        let mut members = report.seen.members.iter();
        let owner = members.find(|member| member.shard == shard && member.is_owner());
        self.names.place(&owner.unwrap().name).unwrap()
    }

    pub(super) fn process_mut(&mut self, place: Place) -> &mut Process {
        self.processes.get_mut(&place).unwrap()
    }

    /// SIGKILL to all at once, and all again.
    pub(super) fn kill_all(&mut self) {
        for process in self.processes.values_mut() {
            process.kill();
        }
    }

    pub(super) fn endpoint(&self, place: Place) -> Endpoint {
        let address = self.address(place);
        Endpoint {
            host: self.access.host.clone(),
            port: address.port,
            address: Some(address.host),
            tls: self.access.tls.clone(),
        }
    }

    /// An application that knows every server.
    pub(super) fn shop(&self) -> Shop {
        Shop {
            endpoints: self.processes.keys().map(|place| self.endpoint(*place)).collect(),
            connections: HashMap::new(),
            first: 0,
        }
    }

    pub(super) fn last_cause(&self) -> Option<FailoverCause> {
        let record = self.played.record.lock().unwrap();
        record.last_failover.as_ref().map(|failover| failover.cause)
    }

    /// What was done besides labels and records, since this was last asked.
    pub(super) fn done(&mut self) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.actions);
        actions.retain(|action| !matches!(action, Action::Label { .. } | Action::Note { .. }));
        actions
    }
}

fn server(program: &str) -> &str {
    if program == "valkey-server" {
        valkey_server()
    } else {
        program
    }
}

/// A client of a cluster: it goes where it is sent.
pub(super) struct Shop {
    endpoints: Vec<Endpoint>,
    connections: HashMap<u16, Connection>,
    /// Whom it asks first: the one that last knew an answer.
    first: usize,
}

impl Shop {
    /// Sends a command, and again for as long as the servers change, at most half a minute.
    pub(super) async fn command(&mut self, words: &[&str]) -> Result<redis::Value, Failure> {
        let begun = Instant::now();
        let mut port = self.endpoints[self.first].port;
        let mut is_asking = false;
        loop {
            let answer = self.at(port, words, is_asking).await;
            is_asking = false;
            match &answer {
                Ok(_) => return answer,
                Err(failure) if begun.elapsed() > Duration::from_secs(30) => return Err(failure.clone()),
                Err(Failure::Refused { cause, .. })
                    if cause.starts_with("MOVED ") || cause.starts_with("ASK ") =>
                {
                    is_asking = cause.starts_with("ASK ");
                    let to = cause.rsplit(':').next().unwrap();
                    port = to.parse().unwrap();
                }
                Err(_) => {
                    self.connections.remove(&port);
                    self.first = (self.first + 1) % self.endpoints.len();
                    port = self.endpoints[self.first].port;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn at(&mut self, port: u16, words: &[&str], is_asking: bool) -> Result<redis::Value, Failure> {
        if !self.connections.contains_key(&port) {
            let endpoint = self.endpoints.iter().find(|endpoint| endpoint.port == port);
            let credentials = Credentials {
                username: Some("app-shop".to_owned()),
                password: Some(Password::new("shop")),
            };
            // One that has been added since.
            let endpoint = endpoint.cloned().unwrap_or(Endpoint {
                port,
                ..self.endpoints[0].clone()
            });
            self.connections
                .insert(port, open(&endpoint, &credentials).await?);
        }
        let connection = self.connections.get_mut(&port).unwrap();
        if is_asking {
            connection.command::<()>(&["ASKING"]).await?;
        }
        connection.command(words).await
    }

    /// Of how many slots the server `which` says who has them, or why it does not say.
    pub(super) async fn slots_told_by(&mut self, which: usize) -> Result<i64, Failure> {
        let port = self.endpoints[which].port;
        let answer = self.at(port, &["CLUSTER", "SLOTS"], false).await;
        if answer
            .as_ref()
            .is_err_and(|failure| !matches!(failure, Failure::Refused { .. }))
        {
            self.connections.remove(&port);
        }
        let ranges = answer?.into_sequence().unwrap();
        let count = |range: redis::Value| match range.into_sequence().unwrap()[..2] {
            [redis::Value::Int(first), redis::Value::Int(last)] => last + 1 - first,
            _ => panic!("no range"),
        };
        Ok(ranges.into_iter().map(count).sum())
    }

    pub(super) async fn write(&mut self, keys: std::ops::Range<usize>) {
        for key in keys {
            let key = format!("shop:{key}");
            self.command(&["SET", &key, &key, "EX", "600"]).await.unwrap();
        }
    }

    pub(super) async fn missing(&mut self, keys: std::ops::Range<usize>) -> usize {
        let mut missing = 0;
        for key in keys {
            let found = self.command(&["GET", &format!("shop:{key}")]).await.unwrap();
            missing += usize::from(found == redis::Value::Nil);
        }
        missing
    }
}
