//! What happens in a run: drawn from the seed, and made smaller when a run fails.

use super::random::Random;
use crate::core::{Acknowledge, Config, Mode};

/// Something that goes wrong, or is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Some members cannot reach the others, for so long (ms).
    Partition { ms: u64 },
    /// One member can send to another but not hear it, for so long.
    OneWay { ms: u64 },
    /// A member's process dies and is started again in the same pod after so long.
    Crash { restart_ms: u64 },
    /// A member's pod is lost with its machine, and another one takes its place after so long.
    LosePod { replace_ms: u64 },
    /// A process stands still for so long.
    Pause { ms: u64 },
    /// All pods are replaced, one after the other.
    Roll,
    /// Half of the pods are removed at once, in order.
    Shrink,
    /// One more pod, or one fewer in order.
    Scale { up: bool },
}

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) mode: Mode,
    pub(super) acknowledge: Acknowledge,
    pub(super) affinity: bool,
    pub(super) users: usize,
    pub(super) lockers: usize,
    /// How long a client waits before it tries again to get a lock, µs.
    pub(super) lock_retry_us: u64,
    /// Length of the part with faults, ms.
    pub(super) length_ms: u64,
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) drop_per_mille: u64,
    pub(super) duplicate_per_mille: u64,
    pub(super) reorder_per_mille: u64,
    pub(super) skew_ms: u64,
    /// Less than the sessions need; 0 for no limit.
    pub(super) memory_limit: usize,
    /// Bytes of a session beyond its number.
    pub(super) padding: u64,
    /// Some members speak the old wire version.
    pub(super) mixed_wire: bool,
    pub(super) ring: usize,
    /// The operator tells the members which pods exist.
    pub(super) hints: bool,
    pub(super) partitions: u16,
    /// Discovery answers a member each so many tenths of a second.
    pub(super) discovery_tenths: usize,
}

/// The life of a session without touch, ms.
pub(super) const TTL_MS: u64 = 20_000;
/// How long what has no expiry lives after it was written, ms.
pub(super) const UNLIMITED_TTL_MS: u64 = 25_000;
/// Silence after which members count another one as dead, ms.
pub(super) const DEAD_AFTER_MS: u64 = 6_000;

impl Scenario {
    /// The run of a seed.
    pub(super) fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mode = match random.below(5) {
            0..=2 => Mode::All,
            3 => Mode::Backup(1),
            _ => Mode::Backup(2),
        };
        let acknowledge = match random.below(8) {
            0..=3 => Acknowledge::Auto,
            4 => Acknowledge::Local,
            5 => Acknowledge::One,
            6 => Acknowledge::Quorum,
            _ => Acknowledge::All,
        };
        let small = random.per_mille(150);
        let mut scenario = Self {
            seed,
            nodes: usize::try_from(random.range(if small { 2 } else { 3 }, 7)).unwrap_or(3),
            mode,
            acknowledge,
            affinity: random.per_mille(500),
            users: usize::try_from(random.range(4, 14)).unwrap_or(4),
            lockers: random.pick(&[0, 0, 4, 4, 10]).unwrap_or(0),
            lock_retry_us: random.pick(&[20_000, 3_000]).unwrap_or(20_000),
            length_ms: random.range(25_000, 60_000),
            faults: Vec::new(),
            drop_per_mille: random.pick(&[0, 0, 5, 20]).unwrap_or(0),
            duplicate_per_mille: random.pick(&[0, 0, 10]).unwrap_or(0),
            reorder_per_mille: random.pick(&[0, 0, 20, 100]).unwrap_or(0),
            skew_ms: random.pick(&[0, 50, 400]).unwrap_or(0),
            memory_limit: 0,
            padding: 0,
            mixed_wire: random.per_mille(250),
            ring: random.pick(&[16, 256, 4_096]).unwrap_or(256),
            hints: random.per_mille(500),
            partitions: 32,
            discovery_tenths: 1,
        };
        if random.per_mille(120) {
            scenario.padding = 500;
            scenario.memory_limit = 4_000 + 400 * scenario.users;
        }
        scenario.draw_faults(&mut random);
        scenario
    }

    /// A cluster of hundreds, in mode All for even seeds. All kinds of faults come, but for those that take minutes: a
    /// partition longer than sessions live, and the replacement of each pod. The rest is drawn from the seed.
    pub(super) fn of_many(seed: u64, nodes: usize) -> Self {
        let drawn = Self::from_seed(seed);
        let mut random = Random::new(seed ^ 0x300);
        let mut at = 9_000;
        let mut next = |lasts: u64| {
            let begins = at + random.below(1_000);
            at = begins + lasts + 10_000;
            begins
        };
        let faults = vec![
            (next(3_000), Fault::LosePod { replace_ms: 3_000 }),
            (next(5_000), Fault::Partition { ms: 5_000 }),
            (next(4_000), Fault::OneWay { ms: 4_000 }),
            (next(0), Fault::Crash { restart_ms: 1_000 }),
            (next(0), Fault::Pause { ms: 4_000 }),
            (next(0), Fault::Scale { up: true }),
            (next(0), Fault::Shrink),
        ];
        let mode = match seed % 4 {
            0 | 2 => Mode::All,
            1 => Mode::Backup(1),
            _ => Mode::Backup(2),
        };
        Self {
            nodes,
            mode,
            users: 20,
            memory_limit: 0,
            padding: 0,
            length_ms: at,
            faults,
            partitions: 256,
            discovery_tenths: 10,
            ..drawn
        }
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let count = random.pick(&[0, 1, 1, 2, 3]).unwrap_or(1);
        let mut at = random.range(3_000, 8_000);
        for _ in 0..count {
            let fault = match random.below(17) {
                0..=2 => Fault::Partition {
                    ms: random.range(500, 15_000),
                },
                3 => Fault::Partition {
                    ms: random.range(TTL_MS + 15_000, TTL_MS + 30_000),
                },
                4..=5 => Fault::OneWay {
                    ms: random.range(1_000, 12_000),
                },
                6..=7 => Fault::Crash {
                    restart_ms: random.range(200, 6_000),
                },
                8 => Fault::LosePod {
                    replace_ms: random.range(1_000, 8_000),
                },
                9..=10 => Fault::Pause {
                    ms: random.range(500, 12_000),
                },
                11..=13 => Fault::Roll,
                14 => Fault::Shrink,
                n => Fault::Scale { up: n == 15 },
            };
            self.faults.push((at, fault));
            let lasts = match fault {
                Fault::Partition { ms } | Fault::OneWay { ms } | Fault::Pause { ms } => ms,
                Fault::Crash { restart_ms } => restart_ms,
                Fault::LosePod { replace_ms } => replace_ms,
                Fault::Roll => 25_000,
                Fault::Shrink | Fault::Scale { .. } => 5_000,
            };
            // Mostly one after the other, now and then two at once.
            at += if random.per_mille(800) {
                lasts + random.range(12_000, 16_000)
            } else {
                random.range(0, 3_000)
            };
            self.length_ms = self.length_ms.max(at);
        }
    }

    /// Settings of the member with this number.
    pub(super) fn config(&self, number: usize) -> Config {
        Config {
            mode: self.mode,
            acknowledge: self.acknowledge,
            affinity: self.affinity,
            acknowledge_timeout_ms: 1_000,
            home_timeout_ms: 4_000,
            resend_ms: 100,
            heartbeat_ms: 500,
            suspect_after_ms: 2_500,
            dead_after_ms: DEAD_AFTER_MS,
            discovery_ms: 1_000,
            join_timeout_ms: 30_000,
            antientropy_ms: 5_000,
            tombstone_min_ms: 6_000,
            logout_guard_ms: 6_000,
            unlimited_ttl_ms: UNLIMITED_TTL_MS,
            memory_limit: self.memory_limit,
            evict: self.memory_limit != 0,
            max_lock_ttl_ms: 10_000,
            partitions: self.partitions,
            ring: self.ring,
            wire_version: if self.mixed_wire && number.is_multiple_of(2) {
                1
            } else {
                2
            },
            ..Config::default()
        }
    }

    /// Smaller runs that may still fail in the same way.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut one = self.clone();
            change(&mut one);
            smaller.push(one);
        };
        if self.nodes > 8 {
            with(&|s| s.nodes /= 2);
        }
        for at in 0..self.faults.len() {
            with(&|s| {
                s.faults.remove(at);
            });
        }
        if self.lockers > 0 {
            with(&|s| s.lockers = 0);
        }
        if self.users > 1 {
            with(&|s| s.users /= 2);
            with(&|s| s.users -= 1);
        }
        if self.nodes > 2 {
            with(&|s| s.nodes -= 1);
        }
        if self.drop_per_mille + self.duplicate_per_mille + self.reorder_per_mille > 0 {
            with(&|s| (s.drop_per_mille, s.duplicate_per_mille, s.reorder_per_mille) = (0, 0, 0));
        }
        if self.skew_ms > 0 {
            with(&|s| s.skew_ms = 0);
        }
        if self.mixed_wire {
            with(&|s| s.mixed_wire = false);
        }
        if self.length_ms > 10_000 {
            with(&|s| s.length_ms = s.length_ms * 3 / 4);
        }
        smaller
    }
}
