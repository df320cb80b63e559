//! Several cores in one thread, for tests of what no single one does.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Client, Command, Condition, Config, Core, Executed, Input, LinkId, Mode, NodeId, NodeInfo, Now, Op,
    Output, Reply, SetExpiry, TicketId,
};

/// Cores in one thread. Each frame takes a millisecond; those to and from `away` are lost, but for those between it and `met`.
pub(super) struct Cluster {
    pub(super) cores: Vec<Core>,
    pub(super) now: Now,
    wire: Vec<(u64, usize, usize, Bytes)>,
    pub(super) away: Option<usize>,
    pub(super) met: Option<usize>,
    /// Frames to and from this one take until then, `mono_ms`.
    late: Option<(usize, u64)>,
    replies: BTreeMap<TicketId, Reply>,
}

fn core(id: u64, config: Config, now: Now) -> Core {
    let me = NodeInfo {
        id: NodeId(id),
        name: format!("pod-{id}"),
        address: format!("10.0.0.{id}:1"),
        zone: String::new(),
        machine: String::new(),
        started_ms: now.wall_ms,
    };
    Core::new(config, me, id, now)
}

/// The settings of members.
pub(super) fn config(mode: Mode) -> Config {
    Config {
        mode,
        partitions: 64,
        ..Config::default()
    }
}

impl Cluster {
    pub(super) fn new(members: u64, mode: Mode) -> Self {
        Self::with(members, &config(mode))
    }

    /// Members with settings other than those of [`config`].
    pub(super) fn with(members: u64, config: &Config) -> Self {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 1_000,
        };
        let mut cluster = Self {
            cores: (1..=members).map(|id| core(id, config.clone(), now)).collect(),
            now,
            wire: Vec::new(),
            away: None,
            met: None,
            late: None,
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

    /// One more member comes, and has joined.
    pub(super) fn join(&mut self, mode: Mode) -> usize {
        let place = self.come(mode);
        self.pass(12_000);
        place
    }

    /// One more member comes.
    pub(super) fn come(&mut self, mode: Mode) -> usize {
        let place = self.cores.len();
        self.cores.push(core(place as u64 + 1, config(mode), self.now));
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
        place
    }

    /// Frames to and from a member do not arrive for so long.
    pub(super) fn late(&mut self, place: usize, ms: u64) {
        self.late = Some((place, self.now.mono_ms + ms));
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
                        let at_ms = match self.late {
                            Some((late, until_ms)) if late == place || late == to => until_ms,
                            _ => 0,
                        };
                        let at_ms = at_ms.max(self.now.mono_ms + 1);
                        self.wire.push((at_ms, place, to, frame));
                    }
                }
                Output::Complete { ticket, reply, .. } => {
                    self.replies.insert(ticket, reply);
                }
                _ => {}
            }
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
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

    pub(super) fn ask(&mut self, place: usize, key: &str, op: Op<'_>) -> Reply {
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

    pub(super) fn set(&mut self, place: usize, key: &str, value: &str) {
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
    pub(super) fn sees(&mut self, place: usize, key: &str, value: &str, when: &str) {
        match self.ask(place, key, Op::Get) {
            Reply::Bytes(found) => assert_eq!(found, value.as_bytes(), "{key} at {place}, {when}"),
            Reply::Error(_) => {}
            other => panic!("{key} at {place}, {when}: {other:?}"),
        }
    }
}
