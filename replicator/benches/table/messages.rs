//! What replication costs as clusters grow: many cores in this process, a network that delivers after a fixed delay.

use std::collections::VecDeque;

use bytes::Bytes;
use session_replicator::core::{
    Client, Command, Condition, Config, Core, Input, LinkId, Mode, NodeId, NodeInfo, Now, Op, Output,
    SetExpiry,
};

use crate::report::{Bar, Report, Row};

/// From a member to any other, milliseconds.
const DELAY_MS: u64 = 1;
/// Virtual time for everybody to join, milliseconds.
const JOIN_MS: u64 = 8_000;
const REQUESTS: usize = 200;
const VALUE: usize = 1_024;
/// Of a user's requests, one of so many changes the session; all of them write it, as many handlers do.
const CHANGES: usize = 10;
/// A member in Backup mode may cost this many times as much per write in the largest cluster as in the smallest.
const FLAT: f64 = 1.5;

pub fn measure(report: &mut Report) {
    backup(report);
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
                "mode Backup, {what} per write of 1 KB, 300 members (at most {FLAT} times the least)"
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

/// Cores and the frames under way between them.
struct Cluster {
    cores: Vec<Core>,
    now: Now,
    /// Due time, receiver, sender, frame.
    wire: VecDeque<(u64, usize, usize, Bytes)>,
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
                    ..Config::default()
                },
                me,
                id,
                now,
            )
        };
        let cores = (0..members).map(core).collect();
        let mut cluster = Self {
            cores,
            now,
            wire: VecDeque::new(),
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
        cluster.pass(JOIN_MS);
        cluster
    }

    fn step(&mut self, place: usize, input: &Input<'_>) {
        let mut outputs = Vec::new();
        self.cores[place].step(self.now, input, &mut outputs);
        self.send(place, outputs);
    }

    fn send(&mut self, from: usize, outputs: Vec<Output>) {
        for output in outputs {
            if let Output::Send { link, frame } = output {
                self.messages += 1;
                self.bytes += frame.len();
                self.wire.push_back((
                    self.now.mono_ms + DELAY_MS,
                    usize::try_from(link.0).unwrap(),
                    from,
                    frame,
                ));
            }
        }
    }

    /// Lets time pass: every member ticks when it wants to, and frames arrive.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.wall_ms += 1;
            self.now.mono_ms += 1;
            let mut reached = Vec::new();
            while self
                .wire
                .front()
                .is_some_and(|(due, ..)| *due <= self.now.mono_ms)
            {
                let (_, to, from, frame) = self.wire.pop_front().unwrap();
                let link = LinkId(from as u64);
                self.step(to, &Input::Frame { link, bytes: &frame });
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

    /// Requests at the first member, one after the other, each of which writes the session; every so-manyth changes it.
    /// What the same time costs without requests is no part of the result.
    fn cost(mut self, changes: usize) -> Cost {
        const PAUSE_MS: u64 = 10;
        const SESSIONS: usize = 10;
        let duration = REQUESTS as u64 * PAUSE_MS;
        self.reset();
        self.pass(duration);
        let idle = (self.messages, self.bytes);
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| Client::new()).collect();
        self.reset();
        for number in 0..REQUESTS {
            let (session, request) = (number % SESSIONS, number / SESSIONS);
            let key = format!("session:{session}");
            let mut value = vec![b'x'; VALUE];
            let version = format!("{session} {}", request / changes);
            value[..version.len()].copy_from_slice(version.as_bytes());
            let op = Op::Set {
                value: &value,
                flags: 0,
                expiry: SetExpiry::At(self.now.wall_ms + 1_440_000),
                condition: Condition::Always,
                want_old: false,
            };
            let mut outputs = Vec::new();
            let command = Command::Key {
                key: key.as_bytes(),
                op,
            };
            self.cores[0].execute(self.now, &mut clients[session], &command, &mut outputs);
            self.send(0, outputs);
            self.step(0, &Input::Flush);
            self.pass(PAUSE_MS);
        }
        let more = |with: usize, without: usize| with.saturating_sub(without) as f64 / REQUESTS as f64;
        Cost {
            messages: more(self.messages, idle.0),
            bytes: more(self.bytes, idle.1),
        }
    }

    fn reset(&mut self) {
        (self.messages, self.bytes) = (0, 0);
    }
}
