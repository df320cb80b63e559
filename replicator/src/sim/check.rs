//! Properties that hold at any time, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::scenario::{TTL_MS, UNLIMITED_TTL_MS};
use super::users::parse;
use super::world::{World, seconds};
use crate::core::Kind;

impl World {
    /// What has to hold at any time.
    pub(super) fn check(&mut self) {
        self.check_memory();
        if self.is_calm() {
            self.check_dead(false);
            self.check_expired();
        }
    }

    /// Generation of a key's live entry at a process.
    fn generation_at(&self, process: usize, key: &str) -> Option<u64> {
        let now = self.now_at(process);
        let entry = self.processes.get(process)?.core.peek(now, key.as_bytes())?;
        if entry.kind() == Some(Kind::String) {
            return Some(parse(entry.value()).map_or(0, |(g, _)| g));
        }
        Some(
            entry
                .fields()
                .filter_map(|(_, value)| parse(value))
                .map(|(g, _)| g)
                .max()
                .unwrap_or(0),
        )
    }

    fn ready(&self) -> Vec<usize> {
        (0..self.processes.len())
            .filter(|p| {
                self.processes
                    .get(*p)
                    .is_some_and(|one| one.alive && one.ready && !one.paused)
            })
            .collect()
    }

    fn check_dead(&mut self, at_rest: bool) {
        let held: Vec<Vec<bool>> = self
            .ready()
            .into_iter()
            .map(|process| {
                let keys = self
                    .users
                    .iter()
                    .flat_map(|user| &user.dead)
                    .map(|dead| dead.key.as_bytes());
                let Some(one) = self.processes.get_mut(process) else {
                    return Vec::new();
                };
                keys.map(|key| at_rest || one.core.peek_holds(key)).collect()
            })
            .collect();
        let found = self.ready().into_iter().zip(held).find_map(|(process, held)| {
            self.users
                .iter()
                .flat_map(|user| &user.dead)
                .zip(held)
                .find_map(|(dead, held)| {
                    if !held {
                        return None;
                    }
                    let settled = dead.at_us + 5_000_000 < self.now_us;
                    let generation = self.generation_at(process, &dead.key)?;
                    (settled && generation <= dead.generation).then(|| {
                        format!(
                            "{} of generation {generation} lives at p{process}; ended at {} in {}",
                            dead.key,
                            seconds(dead.at_us).trim_start(),
                            dead.generation
                        )
                    })
                })
        });
        if let Some(detail) = found {
            self.violate("a logout never comes back", detail);
        }
    }

    fn check_expired(&mut self) {
        // A twentieth of the time to live is the touch slack.
        let late_us = (TTL_MS + TTL_MS / 20 + 2 * self.scenario.skew_ms + 2_500) * 1_000;
        let idle: Vec<(String, u64)> = self
            .users
            .iter()
            .filter_map(|user| Some((user.key.clone(), user.idle_since_us?)))
            .filter(|(_, since)| {
                since + late_us + 5_000_000 < self.now_us && self.calm_since(since + late_us)
            })
            .collect();
        for (key, _) in idle {
            let alive = self
                .ready()
                .into_iter()
                .find(|p| self.generation_at(*p, &key).is_some());
            if let Some(process) = alive {
                self.violate(
                    "a session expires in time",
                    format!("{key} still lives at p{process}"),
                );
            }
        }
    }

    /// A process says that it is ready: then it has what was there before it began to join.
    pub(super) fn check_joined(&mut self, process: usize) {
        if self.scenario.mode != crate::core::Mode::All || !self.is_calm() {
            return;
        }
        let now_us = self.now_us;
        let Some(one) = self.processes.get(process) else {
            return;
        };
        let missing = self.users.iter().find(|user| {
            let must = user.logged_in && !user.may_vanish && user.since_us + 2_000_000 < now_us;
            let must = must && user.idle_since_us.is_none() && now_us < user.lives_until_us;
            must && one.core.peek_any(user.key.as_bytes()).is_none()
        });
        if let Some(user) = missing {
            let detail = format!("{} is not at p{process}", user.key);
            self.violate("who is ready has what was there", detail);
        }
    }

    /// A process has become the home of partitions: then nobody else is.
    pub(super) fn check_homes(&mut self, process: usize) {
        if !self.is_calm() {
            return;
        }
        let acts = |p: usize| {
            let one = self.processes.get(p).filter(|one| one.alive);
            one.into_iter().flat_map(|one| one.core.peek_homes())
        };
        let mine: BTreeSet<u16> = acts(process).collect();
        let both = (0..self.processes.len())
            .filter(|other| *other != process)
            .find_map(|other| Some((other, acts(other).find(|p| mine.contains(p))?)));
        if let Some((other, partition)) = both {
            let detail = format!("p{process} and p{other} both act for partition {partition}");
            self.violate("a partition has one home", detail);
        }
    }

    /// A process says that it has handed over everything: then those that are to hold it from now on have it, not older
    /// than it was. What others wrote a moment ago is on its way from them.
    pub(super) fn check_handed_over(&mut self, process: usize) {
        if !self.is_calm() {
            return;
        }
        let now = self.now_at(process);
        let Some(one) = self.processes.get_mut(process) else {
            return;
        };
        let (id, left) = (one.core.peek_id(), one.core.peek_left_to(now));
        let version = |p: usize, key: &[u8]| {
            let entry = self.processes.get(p)?.core.peek_any(key)?;
            Some((entry.incarnation(), entry.version()))
        };
        let settled_ms = now.wall_ms.saturating_sub(1_500 + self.scenario.skew_ms);
        // Who has not heard of the last touches lets it go up to this much earlier.
        let ends_ms = now.wall_ms + TTL_MS / 20 + self.scenario.skew_ms;
        let missing = left.iter().find_map(|(key, holders)| {
            let entry = self.processes.get(process)?.core.peek_any(key)?;
            // What has no expiry lives on for a time after it was written, by everybody's own clock.
            let written_ms = entry.version().at.max(entry.expiry().version.at).ms();
            let unlimited_ms = written_ms + UNLIMITED_TTL_MS;
            if entry.expires_ms().unwrap_or(unlimited_ms) < ends_ms {
                return None;
            }
            let (_, written) = version(process, key)?;
            if written.node != id && written.at.ms() > settled_ms {
                return None;
            }
            let stays = |p: &usize| {
                let one = self.processes.get(*p);
                one.is_some_and(|one| one.alive && holders.contains(&one.core.peek_id()))
            };
            let older = |p: &usize| version(*p, key) < version(process, key);
            let other = (0..self.processes.len()).filter(stays).find(older)?;
            Some((String::from_utf8_lossy(key).into_owned(), other))
        });
        if let Some((key, other)) = missing {
            let state = |p: usize| {
                let entry = self.processes.get(p)?.core.peek_any(key.as_bytes())?;
                Some((entry.incarnation(), entry.version(), entry.expires_ms()))
            };
            let detail = format!(
                "{key} has not come from p{process} ({:?}) to p{other} ({:?})",
                state(process),
                state(other)
            );
            self.violate("who leaves has handed over everything", detail);
        }
    }

    fn check_memory(&mut self) {
        for process in self.ready() {
            let Some((used, limit)) = self.processes.get(process).map(|p| p.core.peek_memory()) else {
                continue;
            };
            // What others replicate to it comes on top: for as long as a heartbeat takes to tell them.
            if limit != 0 && used > limit * 3 {
                self.violate("memory is bounded", format!("p{process} uses {used} of {limit}"));
            }
        }
    }

    /// What has to hold when everything has come to rest.
    pub(super) fn check_at_rest(&mut self) {
        self.check();
        if self.violation.is_some() {
            return;
        }
        self.check_dead(true);
        self.check_calm();
        self.check_sessions();
    }

    fn check_calm(&mut self) {
        let exist: Vec<_> = self
            .processes
            .iter()
            .filter(|p| p.alive)
            .map(|p| p.core.peek_id())
            .collect();
        for process in self.ready() {
            let unrest = self
                .processes
                .get(process)
                .filter(|p| !p.core.peek_calm(|id| exist.contains(&id)))
                .map(|p| format!("p{process}: {}", p.core.peek_unrest()));
            if let Some(unrest) = unrest {
                self.violate("members find together again", unrest);
            }
        }
        if self.ready().len() != self.pods.len() {
            let detail = format!("{} of {} pods are ready", self.ready().len(), self.pods.len());
            self.violate("every pod becomes ready", detail);
        }
    }

    /// Members hold the same.
    pub(super) fn check_converged(&mut self) {
        let mut digests: BTreeMap<u16, (usize, u64)> = BTreeMap::new();
        for process in self.ready() {
            let Some(one) = self.processes.get_mut(process) else {
                continue;
            };
            for (partition, digest) in one.core.peek_digests() {
                let &mut (other, expected) = digests.entry(partition).or_insert((process, digest));
                if expected != digest && self.violation.is_none() {
                    let lines = |p: usize| self.processes.get(p).map(|p| p.core.peek_partition(partition));
                    let unrest = |p: usize| self.processes.get(p).map(|p| p.core.peek_unrest());
                    let detail = format!(
                        "partition {partition}: p{other} {:#?} {:?}\np{process} {:#?} {:?}",
                        lines(other),
                        unrest(other),
                        lines(process),
                        unrest(process)
                    );
                    self.violate("members converge", detail);
                    return;
                }
            }
        }
    }

    /// Every session that must be there is there, on every member that has to hold it.
    fn check_sessions(&mut self) {
        let mut found = None;
        for user in &self.users {
            let must = user.logged_in && !user.may_vanish && self.now_us < user.lives_until_us;
            if !must || user.idle_since_us.is_some() {
                continue;
            }
            for process in self.ready() {
                let now = self.now_at(process);
                let Some(one) = self.processes.get(process) else {
                    continue;
                };
                let entry = one.core.peek(now, user.key.as_bytes());
                let n = match entry {
                    None => [0, 0],
                    Some(entry) if entry.kind() == Some(Kind::String) => {
                        [parse(entry.value()).map_or(0, |(_, n)| n), u64::MAX]
                    }
                    Some(entry) => [b"a", b"b"].map(|f| entry.field(f).and_then(parse).map_or(0, |(_, n)| n)),
                };
                let holds = entry.is_some() || one.core.peek_any(user.key.as_bytes()).is_some();
                let all = self.scenario.mode == crate::core::Mode::All;
                if (holds || all) && n.iter().zip(&user.floor).any(|(n, floor)| n < floor) {
                    found = Some(format!(
                        "{} at p{process}: {n:?}, confirmed {:?}",
                        user.key, user.floor
                    ));
                }
            }
            let somewhere = self
                .ready()
                .into_iter()
                .any(|p| self.generation_at(p, &user.key).is_some());
            if !somewhere {
                found = Some(format!("{} is nowhere, confirmed {:?}", user.key, user.floor));
            }
        }
        if let Some(detail) = found {
            self.violate("confirmed writes survive", detail);
        }
    }
}
