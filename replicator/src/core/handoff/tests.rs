//! What a member that was out of reach says when it is back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::core::{
    Client, Command, Condition, Config, Core, Executed, Input, LinkId, Mode, NodeId, NodeInfo, Now, Op,
    Output, Reply, SetExpiry, TicketId,
};

/// Cores in one thread. Each frame takes a millisecond; those to and from `away` are lost, but for those between it and `met`.
struct Cluster {
    cores: Vec<Core>,
    now: Now,
    wire: Vec<(u64, usize, usize, Bytes)>,
    away: Option<usize>,
    met: Option<usize>,
    replies: BTreeMap<TicketId, Reply>,
}

fn core(id: u64, mode: Mode, now: Now) -> Core {
    let me = NodeInfo {
        id: NodeId(id),
        name: format!("pod-{id}"),
        address: format!("10.0.0.{id}:1"),
        zone: String::new(),
        machine: String::new(),
        started_ms: now.wall_ms,
    };
    let config = Config {
        mode,
        partitions: 64,
        ..Config::default()
    };
    Core::new(config, me, id, now)
}

impl Cluster {
    fn new(members: u64, mode: Mode) -> Self {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 1_000,
        };
        let mut cluster = Self {
            cores: (1..=members).map(|id| core(id, mode, now)).collect(),
            now,
            wire: Vec::new(),
            away: None,
            met: None,
            replies: BTreeMap::new(),
        };
        let count = cluster.cores.len();
        for place in 0..count {
            let addresses = (1..count).map(|n| n.to_string()).collect();
            cluster.step(
                place,
                &Input::Discovered {
                    addresses: &addresses,
                },
            );
            for peer in (0..count).filter(|peer| *peer != place) {
                let link = LinkId(peer as u64);
                let dialled = place < peer;
                cluster.step(place, &Input::LinkUp { link, dialled });
            }
        }
        cluster.pass(12_000);
        cluster
    }

    /// One more member comes.
    fn join(&mut self, mode: Mode) -> usize {
        let place = self.cores.len();
        self.cores.push(core(place as u64 + 1, mode, self.now));
        let addresses = (1..=place).map(|n| n.to_string()).collect();
        self.step(
            place,
            &Input::Discovered {
                addresses: &addresses,
            },
        );
        for peer in 0..place {
            let (here, there) = (LinkId(peer as u64), LinkId(place as u64));
            self.step(
                place,
                &Input::LinkUp {
                    link: here,
                    dialled: true,
                },
            );
            self.step(
                peer,
                &Input::LinkUp {
                    link: there,
                    dialled: false,
                },
            );
        }
        self.pass(12_000);
        place
    }

    fn step(&mut self, place: usize, input: &Input<'_>) {
        let mut outputs = Vec::new();
        self.cores[place].step(self.now, input, &mut outputs);
        self.take(place, outputs);
    }

    fn take(&mut self, place: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { link, frame } => {
                    let to = usize::try_from(link.0).unwrap();
                    let lost = self.away.is_some_and(|away| {
                        let other = if away == place { to } else { place };
                        (away == place || away == to) && self.met != Some(other)
                    });
                    if !lost {
                        self.wire.push((self.now.mono_ms + 1, place, to, frame));
                    }
                }
                Output::Complete { ticket, reply, .. } => {
                    self.replies.insert(ticket, reply);
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.wall_ms += 1;
            self.now.mono_ms += 1;
            let now_ms = self.now.mono_ms;
            let (due, later) = std::mem::take(&mut self.wire)
                .into_iter()
                .partition(|frame| frame.0 <= now_ms);
            self.wire = later;
            let due: Vec<(u64, usize, usize, Bytes)> = due;
            for (_, from, to, bytes) in due {
                let link = LinkId(from as u64);
                self.step(to, &Input::Frame { link, bytes: &bytes });
            }
            for place in 0..self.cores.len() {
                if self.cores[place].next_tick_ms(self.now) <= now_ms {
                    self.step(place, &Input::Tick);
                }
                self.step(place, &Input::Flush);
            }
        }
    }

    fn ask(&mut self, place: usize, key: &str, op: Op<'_>) -> Reply {
        let command = Command::Key {
            key: key.as_bytes(),
            op,
        };
        let mut outputs = Vec::new();
        let executed = self.cores[place].execute(self.now, &mut Client::new(), &command, &mut outputs);
        self.take(place, outputs);
        match executed {
            Executed::Done(reply) => reply,
            Executed::Pending(ticket) => {
                for _ in 0..10_000 {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        return reply;
                    }
                    self.pass(1);
                }
                panic!("no reply for {key} at {place}");
            }
        }
    }

    fn set(&mut self, place: usize, key: &str, value: &str) {
        let reply = self.ask(
            place,
            key,
            Op::Set {
                value: value.as_bytes(),
                flags: 0,
                expiry: SetExpiry::At(self.now.wall_ms + 1_440_000),
                condition: Condition::Always,
                want_old: false,
            },
        );
        assert_eq!(reply, Reply::Ok, "{key} at {place}");
    }

    /// What a user sees must be what was written last; an error is an error, and no session that has ended.
    fn sees(&mut self, place: usize, key: &str, value: &str, when: &str) {
        match self.ask(place, key, Op::Get) {
            Reply::Bytes(found) => assert_eq!(found, value.as_bytes(), "{key} at {place}, {when}"),
            Reply::Error(_) => {}
            other => panic!("{key} at {place}, {when}: {other:?}"),
        }
    }
}

/// Three members with sessions, one of which has been away for long; the places of the others, and the keys.
fn with_one_away(mode: Mode, away: usize) -> (Cluster, Vec<usize>, Vec<String>) {
    let mut cluster = Cluster::new(3, mode);
    let others = (0..3).filter(|place| *place != away).collect();
    let keys: Vec<String> = (0..60).map(|number| format!("session:{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        cluster.set(number % 3, key, "before");
    }
    cluster.pass(500);
    cluster.away = Some(away);
    cluster.pass(15_000);
    (cluster, others, keys)
}

/// It was alone, and took over everything; the others went on. When they hear each other again, nobody is told what it holds
/// from before, nor that what it does not hold is not there.
#[test]
fn who_was_away_has_no_say_in_what_happened_meanwhile() {
    for mode in [Mode::All, Mode::Backup(1)] {
        for away in 0..3 {
            let (mut cluster, others, keys) = with_one_away(mode, away);
            let fresh: Vec<String> = (0..60).map(|number| format!("fresh:{number}")).collect();
            for (number, key) in keys.iter().chain(&fresh).enumerate() {
                cluster.set(others[number % 2], key, "meanwhile");
            }
            cluster.pass(500);
            cluster.away = None;
            for moment in 0..400 {
                cluster.pass(5);
                for (number, key) in keys.iter().chain(&fresh).enumerate() {
                    if number % 40 == moment % 40 {
                        for place in 0..3 {
                            let alone = cluster.cores[place].stats().members.iter().all(|m| m.suspect);
                            if !alone {
                                cluster.sees(
                                    place,
                                    key,
                                    "meanwhile",
                                    &format!("{mode:?}, {away} back for {} ms", moment * 5),
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Who came while it was away knows nothing of that, and is the first to hear it again.
#[test]
fn who_was_away_has_no_say_either_with_one_who_came_meanwhile() {
    for mode in [Mode::All, Mode::Backup(1)] {
        for away in 0..3 {
            let (mut cluster, others, keys) = with_one_away(mode, away);
            let newcomer = cluster.join(mode);
            for (number, key) in keys.iter().enumerate() {
                cluster.set(others[number % 2], key, "meanwhile");
            }
            cluster.pass(500);
            for (met, moments) in [(Some(newcomer), 300), (None, 400)] {
                cluster.met = met;
                cluster.away = met.map(|_| away);
                for moment in 0..moments {
                    cluster.pass(5);
                    for (number, key) in keys.iter().enumerate() {
                        for place in others.iter().copied().chain([newcomer]) {
                            if number % 40 == moment % 40 {
                                let when = format!("{mode:?}, {away} met {met:?} for {} ms", moment * 5);
                                cluster.sees(place, key, "meanwhile", &when);
                            }
                        }
                    }
                }
            }
        }
    }
}
