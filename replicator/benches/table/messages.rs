//! What replication costs as clusters grow: many cores in this process, and a network whose delays are stated.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use session_replicator::core::{
    Client, Command, Condition, Config, Core, Input, LinkId, Lookup, Mode, NodeId, NodeInfo, Now, Op, Output,
    SetExpiry,
};

use crate::report::{Bar, Report, Row};

/// Fewer than a process has: what each member works out when another one joins grows with them, hundreds of members join in
/// one thread here, and a write costs the same.
const PARTITIONS: u16 = 64;
/// From a member to any other, milliseconds: one frame of so many takes long. Links keep the order.
const QUICK_MS: u64 = 1;
const SLOW_MS: u64 = 10;
const SLOW_OF: u64 = 100;
/// Virtual time for everybody to join and to come to rest, milliseconds: some, and more with each member.
const JOIN_MS: u64 = 8_000;
const JOIN_EACH_MS: u64 = 100;
const REQUESTS: usize = 200;
const VALUE: usize = 1_024;
/// Of a user's requests, one of so many changes the session; all of them write it, as many handlers do.
const CHANGES: usize = 10;
/// A write in Backup mode may cost this many times as much in the largest cluster as in the smallest: one that comes to a member which
/// does not hold its session, as nearly all do in a large cluster, and a third of them among three members.
const FLAT: f64 = 1.5;

pub fn measure(report: &mut Report) {
    backup(report);
    for members in [64, 100] {
        many(report, members);
    }
    for members in [6, 20, 50, 100] {
        let cost = Cluster::new(members, Mode::All).cost(CHANGES);
        let whole = (members - 1) as f64 * VALUE as f64;
        report.add(Row {
            measure: format!(
                "mode All, {members} members: bytes per request that writes the session, 1 of {CHANGES} changing it"
            ),
            ours: cost.bytes,
            others: vec![("the whole value to every peer".to_owned(), whole)],
            bar: Bar::Aim,
        });
    }
}

/// What a write costs where it is made and at each of many peers, and when all of them have it.
fn many(report: &mut Report, members: usize) {
    let Spread {
        origin,
        peer,
        visible,
    } = Cluster::new(members, Mode::All).spread();
    report.add(Row {
        measure: format!("mode All, {members} simulated members: CPU per write of 1 KB at the origin, µs"),
        ours: origin,
        others: vec![("at each peer".to_owned(), peer)],
        bar: Bar::Aim,
    });
    report.add(Row {
        measure: format!(
            "mode All, {members} simulated members, frames take {QUICK_MS} ms, one of {SLOW_OF} {SLOW_MS} ms: a write \
             visible on all, p99, ms"
        ),
        ours: visible,
        others: Vec::new(),
        bar: Bar::Aim,
    });
}

fn backup(report: &mut Report) {
    let sizes = [3, 30, 100, 300];
    let costs: Vec<Cost> = sizes
        .iter()
        .map(|members| Cluster::new(*members, Mode::Backup(1)).cost(1))
        .collect();
    let least = |of: fn(&Cost) -> f64| costs.iter().map(of).reduce(f64::min).unwrap();
    let figures: [(&str, f64, f64); 2] = [
        (
            "messages",
            costs[sizes.len() - 1].messages,
            least(|cost| cost.messages),
        ),
        ("bytes", costs[sizes.len() - 1].bytes, least(|cost| cost.bytes)),
    ];
    for (what, largest, least) in figures {
        let others = sizes.iter().zip(&costs).map(|(members, cost)| {
            (
                format!("{members} members"),
                if what == "bytes" {
                    cost.bytes
                } else {
                    cost.messages
                },
            )
        });
        report.add(Row {
            measure: format!(
                "mode Backup, {what} per write of 1 KB to a session that is held elsewhere, 300 members (at most {FLAT} times the \
                 least)"
            ),
            ours: largest,
            others: others.collect(),
            bar: Bar::AtMost(least * FLAT),
        });
    }
}

/// Per request, all members together.
struct Cost {
    messages: f64,
    bytes: f64,
}

/// Of writes one after the other: medians of the time spent in the cores, µs, and the 99th percentile of the time until all have it, ms.
struct Spread {
    origin: f64,
    peer: f64,
    visible: f64,
}

/// A frame under way.
struct Frame {
    to: usize,
    from: usize,
    bytes: Bytes,
}

/// Cores and the frames under way between them.
struct Cluster {
    mode: Mode,
    cores: Vec<Core>,
    now: Now,
    /// By due time and number.
    wire: BTreeMap<(u64, usize), Frame>,
    /// By sender and receiver: when the last frame is due.
    last_due: BTreeMap<(usize, usize), u64>,
    /// Time spent in the first core and in all others.
    spent: [Duration; 2],
    sent: usize,
    messages: usize,
    bytes: usize,
}

impl Cluster {
    fn new(members: usize, mode: Mode) -> Self {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 0,
        };
        let core = |place: usize| {
            let id = place as u64 + 1;
            let me = NodeInfo {
                id: NodeId(id),
                name: format!("pod-{id}"),
                address: format!("10.0.0.{id}:1"),
                zone: String::new(),
                machine: String::new(),
                started_ms: now.wall_ms,
            };
            Core::new(
                Config {
                    mode,
                    partitions: PARTITIONS,
                    ..Config::default()
                },
                me,
                id,
                now,
            )
        };
        let cores = (0..members).map(core).collect();
        let mut cluster = Self {
            mode,
            cores,
            now,
            wire: BTreeMap::new(),
            last_due: BTreeMap::new(),
            spent: [Duration::ZERO; 2],
            sent: 0,
            messages: 0,
            bytes: 0,
        };
        for place in 0..members {
            let addresses = (0..members - 1).map(|n| n.to_string()).collect();
            cluster.step(
                place,
                &Input::Discovered {
                    addresses: &addresses,
                },
            );
            for peer in 0..members {
                if peer != place {
                    let link = LinkId(peer as u64);
                    cluster.step(
                        place,
                        &Input::LinkUp {
                            link,
                            dialled: place < peer,
                        },
                    );
                }
            }
        }
        cluster.pass(JOIN_MS + JOIN_EACH_MS * members as u64);
        cluster
    }

    fn step(&mut self, place: usize, input: &Input<'_>) {
        let mut outputs = Vec::new();
        let start = Instant::now();
        self.cores[place].step(self.now, input, &mut outputs);
        self.spent[usize::from(place != 0)] += start.elapsed();
        self.send(place, outputs);
    }

    fn send(&mut self, from: usize, outputs: Vec<Output>) {
        for output in outputs {
            if let Output::Send { link, frame } = output {
                self.messages += 1;
                self.bytes += frame.len();
                let to = usize::try_from(link.0).unwrap();
                let number = self.sent as u64;
                // Every member has its slow frames at another time.
                let slow = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(SLOW_OF);
                let last = self.last_due.entry((from, to)).or_default();
                *last = (self.now.mono_ms + if slow { SLOW_MS } else { QUICK_MS }).max(*last);
                self.sent += 1;
                let bytes = frame;
                self.wire.insert((*last, self.sent), Frame { to, from, bytes });
            }
        }
    }

    /// Lets time pass: every member ticks when it wants to, and frames arrive.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.wall_ms += 1;
            self.now.mono_ms += 1;
            let mut reached = Vec::new();
            while let Some(next) = self.wire.first_entry().filter(|e| e.key().0 <= self.now.mono_ms) {
                let Frame { to, from, bytes } = next.remove();
                let link = LinkId(from as u64);
                self.step(to, &Input::Frame { link, bytes: &bytes });
                reached.push(to);
            }
            for place in 0..self.cores.len() {
                if self.cores[place].next_tick_ms(self.now) <= self.now.mono_ms {
                    self.step(place, &Input::Tick);
                    reached.push(place);
                }
            }
            reached.sort_unstable();
            reached.dedup();
            for place in reached {
                self.step(place, &Input::Flush);
            }
        }
    }

    /// Sessions that the first member does not hold; any ones where all members hold all.
    fn elsewhere(&mut self, count: usize) -> Vec<String> {
        const CANDIDATES: usize = 100;
        let keys: Vec<String> = (0..CANDIDATES).map(|n| format!("session:{n}")).collect();
        if self.mode == Mode::All {
            return keys.into_iter().take(count).collect();
        }
        for key in &keys {
            self.set(&mut Client::new(), key, b"first");
        }
        self.pass(JOIN_MS);
        let now = self.now;
        let core = &mut self.cores[0];
        let mut held_elsewhere = keys;
        held_elsewhere.retain(|key| {
            let found = core.get(now, &mut Client::new(), key.as_bytes());
            !matches!(found, Lookup::Found { .. })
        });
        held_elsewhere.truncate(count);
        assert_eq!(
            held_elsewhere.len(),
            count,
            "of {CANDIDATES} sessions, all others are held here"
        );
        held_elsewhere
    }

    /// Requests at the first member, one after the other, each of which writes the session; every so-manyth changes it.
    /// What the same time costs without requests is no part of the result.
    fn cost(mut self, changes: usize) -> Cost {
        const PAUSE_MS: u64 = 10;
        const SESSIONS: usize = 10;
        let duration = REQUESTS as u64 * PAUSE_MS;
        let keys = self.elsewhere(SESSIONS);
        self.reset();
        self.pass(duration);
        let idle = (self.messages, self.bytes);
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| Client::new()).collect();
        self.reset();
        for number in 0..REQUESTS {
            let (session, request) = (number % SESSIONS, number / SESSIONS);
            let value = value_of(&format!("{session} {}", request / changes));
            self.set(&mut clients[session], &keys[session], &value);
            self.pass(PAUSE_MS);
        }
        assert!(
            self.messages > idle.0 && self.bytes > idle.1,
            "{} members are not at rest: their own messages are more than those of {REQUESTS} writes",
            self.cores.len()
        );
        let more = |with: usize, without: usize| (with - without) as f64 / REQUESTS as f64;
        Cost {
            messages: more(self.messages, idle.0),
            bytes: more(self.bytes, idle.1),
        }
    }

    /// A client of the first member writes a session.
    fn set(&mut self, client: &mut Client, key: &str, value: &[u8]) {
        let op = Op::Set {
            value,
            flags: 0,
            expiry: SetExpiry::At(self.now.wall_ms + 1_440_000),
            condition: Condition::Always,
            want_old: false,
        };
        let command = Command::Key {
            key: key.as_bytes(),
            op,
        };
        let mut outputs = Vec::new();
        let start = Instant::now();
        self.cores[0].execute(self.now, client, &command, &mut outputs);
        self.spent[0] += start.elapsed();
        self.send(0, outputs);
        self.step(0, &Input::Flush);
    }

    /// Writes at the first member, one after the other.
    fn spread(mut self) -> Spread {
        const PAUSE_MS: u64 = 30;
        let (mut origin, mut peers, mut visible) = (Vec::new(), Vec::new(), Vec::new());
        let mut client = Client::new();
        for number in 0..REQUESTS {
            let value = value_of(&number.to_string());
            let begins_ms = self.now.mono_ms;
            self.spent = [Duration::ZERO; 2];
            self.set(&mut client, "session", &value);
            let has = |core: &mut Core, now| {
                let found = core.get(now, &mut Client::new(), b"session");
                matches!(found, Lookup::Found { value: found, .. } if found == value)
            };
            loop {
                let now = self.now;
                if self.cores.iter_mut().all(|core| has(core, now)) {
                    break;
                }
                self.pass(1);
            }
            visible.push((self.now.mono_ms - begins_ms) as f64);
            self.pass(PAUSE_MS);
            let [first, others] = self.spent.map(|spent| spent.as_secs_f64() * 1e6);
            origin.push(first);
            peers.push(others / (self.cores.len() - 1) as f64);
        }
        let ranked = |mut figures: Vec<f64>, percent: usize| {
            figures.sort_by(f64::total_cmp);
            figures[REQUESTS * percent / 100]
        };
        Spread {
            origin: ranked(origin, 50),
            peer: ranked(peers, 50),
            visible: ranked(visible, 99),
        }
    }

    fn reset(&mut self) {
        (self.messages, self.bytes) = (0, 0);
    }
}

/// A session that begins with some text.
fn value_of(text: &str) -> Vec<u8> {
    let mut value = vec![b'x'; VALUE];
    value[..text.len()].copy_from_slice(text.as_bytes());
    value
}
