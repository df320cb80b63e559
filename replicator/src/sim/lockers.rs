//! Clients that take a lock around their request, and whether it protects them.

use super::requests::{LOCK_MS, Owner, Request, Stage};
use super::scenario::TTL_MS;
use super::users::parse;
use super::world::{Event, World};
use crate::core::{Client, Reply};

/// A client that takes a lock around its request.
#[derive(Debug)]
pub(super) struct Locker {
    pub(super) key: String,
    pub(super) inside_since_us: Option<u64>,
    /// Who was the home when the lock was granted.
    pub(super) home: Option<usize>,
    /// The number last confirmed under the lock, and since when it was being written.
    pub(super) confirmed: Option<(u64, u64)>,
}

impl World {
    /// A locker begins a request.
    pub(super) fn locker_acts(&mut self, number: usize) {
        let endpoints = self.endpoints();
        let Some(process) = self.random.pick(&endpoints) else {
            self.after(300_000, Event::Locker { locker: number });
            return;
        };
        let Some(locker) = self.lockers.get(number) else {
            return;
        };
        self.next_request += 1;
        let id = self.next_request;
        let request = Request {
            owner: Owner::Locker(number),
            process,
            client: Client::new(),
            key: locker.key.clone(),
            new_key: String::new(),
            generation: 1,
            stage: Stage::Locking,
            started_us: self.now_us,
            n: 0,
            field: 0,
            tries: 0,
            wrote: false,
            token: format!("locker{number}-{id}"),
        };
        self.met.requests += 1;
        self.requests.insert(id, request);
        self.after(0, Event::Request { id });
    }

    pub(super) fn locker_replied(&mut self, id: u64, number: usize, reply: &Reply) {
        let now_us = self.now_us;
        let calm = self.is_calm();
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let key = request.key.clone();
        match (request.stage, reply) {
            (Stage::Locking, Reply::Ok) => {
                request.stage = Stage::Reading;
                self.met.locks += 1;
                self.enter(number, &key);
                let delay = self.random.range(0, 20_000);
                self.after(delay, Event::Request { id });
            }
            (Stage::Locking, Reply::Nil) if request.tries < 400 && !self.stopped => {
                request.tries += 1;
                self.met.lock_waits += u64::from(request.tries == 1);
                self.after(self.scenario.lock_retry_us, Event::Request { id });
            }
            (Stage::Reading, Reply::Bytes(_) | Reply::Nil) => {
                let read = if let Reply::Bytes(value) = reply {
                    parse(value).map_or(0, |(_, n)| n)
                } else {
                    0
                };
                request.n = read + 1;
                request.stage = Stage::Writing;
                let mates: Vec<(u64, u64)> = self
                    .lockers
                    .iter()
                    .filter(|l| l.key == key)
                    .filter_map(|l| l.confirmed)
                    .collect();
                let newest = mates.iter().max().copied().unwrap_or((0, 0));
                // Who evicts has to expect that something is missing.
                let kept = self.scenario.memory_limit == 0;
                // Where nobody got the lock for long, its session has come to its end.
                let lives = self.now_us + 2 * self.scenario.skew_ms * 1_000 < newest.1 + TTL_MS * 1_000;
                if kept && lives && newest.0 > read && calm && self.calm_since(newest.1) {
                    let detail = format!("{key}: {read} read under the lock, {} written before", newest.0);
                    self.violate("who takes a lock sees what its last holder wrote", detail);
                }
                let longest = if self.random.per_mille(80) {
                    4_000_000
                } else {
                    60_000
                };
                let delay = self.random.range(0, longest);
                self.after(delay, Event::Request { id });
            }
            (Stage::Writing, Reply::Ok) => {
                let n = request.n;
                let started_us = request.started_us;
                request.stage = Stage::Unlocking;
                let inside = self.lockers.get(number).and_then(|l| l.inside_since_us);
                let held = inside.is_some_and(|since| since + LOCK_MS * 900 > now_us);
                let home = self.home_of(&key);
                if let Some(locker) = self.lockers.get_mut(number) {
                    locker.inside_since_us = None;
                    self.met.home_changes_under_lock += u64::from(home.is_some() && locker.home != home);
                    if held {
                        locker.confirmed = Some((n, started_us));
                    }
                }
                self.after(0, Event::Request { id });
            }
            _ => self.end_request(id),
        }
    }

    fn home_of(&self, key: &str) -> Option<usize> {
        self.processes
            .iter()
            .position(|one| one.alive && one.core.peek_acts(key.as_bytes()))
    }

    /// A locker is granted its lock.
    fn enter(&mut self, number: usize, key: &str) {
        let now_us = self.now_us;
        let other = self.lockers.iter().enumerate().find_map(|(other, locker)| {
            let since = locker.inside_since_us?;
            (other != number && locker.key == key && since + LOCK_MS * 900 > now_us).then_some((other, since))
        });
        if let Some((other, since)) = other {
            if self.calm_since(since) {
                let detail = format!("{key}: granted to {number} while {other} has it");
                self.violate("a lock has one holder", detail);
            }
            self.met.excused += 1;
        }
        let home = self.home_of(key);
        if let Some(locker) = self.lockers.get_mut(number) {
            locker.inside_since_us = Some(now_us);
            locker.home = home;
        }
    }
}
