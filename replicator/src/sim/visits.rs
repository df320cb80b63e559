//! What users do, one request after the other, and whether what they are told may be so.

use super::requests::{Job, Owner, Request, Stage};
use super::scenario::TTL_MS;
use super::users::{Dead, Everywhere, Style, User, Written, parse};
use super::world::{Event, World};
use crate::core::{Acknowledge, Client, Reply};

impl World {
    /// A user does the next thing.
    pub(super) fn user_acts(&mut self, number: usize) {
        let pause = self.random.range(100_000, 1_500_000);
        self.after(pause, Event::User { user: number });
        let Some(user) = self.users.get(number) else {
            return;
        };
        if user.open > 0 {
            return;
        }
        if let Some(idle) = user.idle_since_us {
            if self.now_us < idle + (TTL_MS + 8_000) * 1_000 {
                return;
            }
            if let Some(user) = self.users.get_mut(number) {
                user.idle_since_us = None;
                user.new_session();
            }
            return;
        }
        if !user.logged_in {
            if !self.finishing {
                self.begin(number, Job::Login);
            }
            return;
        }
        // Clocks may be wrong by less than a session lasts.
        let fresh = user.since_us + 1_500_000 > self.now_us;
        match self.random.below(100) {
            _ if self.finishing || fresh => self.begin(number, Job::Visit),
            0..=3 => self.begin(number, Job::Logout),
            4..=7 => {
                self.begin(number, Job::Late);
                self.begin(number, Job::Logout);
            }
            8..=10 => self.begin(number, Job::Rename),
            11 => {
                if let Some(user) = self.users.get_mut(number) {
                    user.idle_since_us = Some(self.now_us);
                }
            }
            _ => self.begin(number, Job::Visit),
        }
    }

    /// The answer to a form is a redirect: the next request comes at once, wherever it is sent to.
    fn follow(&mut self, number: usize, job: Job) {
        let share = if matches!(job, Job::Login | Job::Rename) {
            700
        } else {
            100
        };
        let ready = |user: &User| user.logged_in && user.open == 0 && user.idle_since_us.is_none();
        if !self.stopped && self.users.get(number).is_some_and(ready) && self.random.per_mille(share) {
            self.met.redirects += 1;
            self.begin(number, Job::Visit);
        }
    }

    /// The process that a user's request comes to.
    fn route(&mut self, number: usize) -> Option<usize> {
        let endpoints = self.endpoints();
        let affinity = self.scenario.affinity;
        let user = self.users.get_mut(number)?;
        if affinity && let Some(sticky) = user.sticky.filter(|sticky| endpoints.contains(sticky)) {
            return Some(sticky);
        }
        let chosen = self.random.pick(&endpoints)?;
        user.sticky = Some(chosen);
        Some(chosen)
    }

    fn begin(&mut self, number: usize, job: Job) {
        let Some(process) = self.route(number) else { return };
        let Some(user) = self.users.get_mut(number) else {
            return;
        };
        user.open += 1;
        if !self.cut.is_empty() && !user.cut_sides.contains(&process) {
            user.cut_sides.push(process);
            if user.cut_sides.len() == 2 {
                self.met.touched_both_sides += 1;
            }
        }
        let stage = match job {
            Job::Logout => Stage::Deleting,
            Job::Rename => Stage::Renaming,
            _ => Stage::Reading,
        };
        let field = if user.style == Style::Fields {
            self.random.index(2)
        } else {
            0
        };
        let request = Request {
            owner: Owner::User(number, job),
            process,
            client: Client::new(),
            key: user.key.clone(),
            new_key: format!("sess:{}:{}r{}", user.number, user.generation, self.next_request),
            generation: user.generation,
            stage,
            started_us: self.now_us,
            n: 0,
            field,
            tries: 0,
            wrote: false,
            token: String::new(),
        };
        self.met.requests += 1;
        self.next_request += 1;
        let id = self.next_request;
        self.requests.insert(id, request);
        let delay = if job == Job::Logout {
            self.random.range(1_000, 60_000)
        } else {
            0
        };
        self.after(delay, Event::Request { id });
    }

    pub(super) fn user_replied(&mut self, id: u64, number: usize, job: Job, reply: &Reply) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        match request.stage {
            Stage::Reading => {
                if matches!(reply, Reply::Error(_)) {
                    return self.end_request(id);
                }
                if !self.session_read(id, number, job, reply) {
                    return self.end_request(id);
                }
                let think = if job == Job::Late {
                    self.random.range(50_000, 4_000_000)
                } else {
                    self.random.range(0, 20_000)
                };
                if let Some(request) = self.requests.get_mut(&id) {
                    request.stage = Stage::Thinking;
                }
                self.after(think, Event::Request { id });
            }
            // A hash gets its expiry by a second command.
            Stage::Writing if matches!(reply, Reply::Int(_)) => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.stage = Stage::Touching;
                    request.wrote = true;
                }
                self.after(0, Event::Request { id });
            }
            Stage::Writing | Stage::Touching => {
                self.session_written(id, number, job, reply);
                self.end_request(id);
                self.follow(number, job);
            }
            Stage::Deleting => {
                if let Reply::Int(_) = reply {
                    self.session_ended(id, number);
                }
                self.end_request(id);
            }
            Stage::Renaming => {
                if *reply == Reply::Ok {
                    self.session_renamed(id, number);
                }
                self.end_request(id);
                self.follow(number, job);
            }
            _ => self.end_request(id),
        }
    }

    /// Looks whether what was read may be so. `false` when the request is over with that.
    fn session_read(&mut self, id: u64, number: usize, job: Job, reply: &Reply) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return false;
        };
        let read = match reply {
            Reply::Bytes(value) => parse(value).map(|(g, n)| (g, [n, 0])),
            Reply::Map(fields) if !fields.is_empty() => {
                let number = |name: &[u8]| {
                    fields
                        .iter()
                        .find(|(field, _)| &field[..] == name)
                        .and_then(|(_, value)| parse(value))
                };
                let both = [number(b"a"), number(b"b")];
                let generation = both.iter().flatten().map(|(g, _)| *g).max();
                generation.map(|g| (g, both.map(|one| one.map_or(0, |(_, n)| n))))
            }
            _ => None,
        };
        self.met.reads += 1;
        let (started_us, generation, process) = (request.started_us, request.generation, request.process);
        let Some(user) = self.users.get(number) else {
            return false;
        };
        let strict = !self.scenario.affinity
            && matches!(self.scenario.acknowledge, Acknowledge::Auto | Acknowledge::All);
        let last = user.last_write;
        let arrived = |w: &Written| w.process == process || w.at_us + 1_500_000 < started_us;
        let sees_own = strict || user.recent.iter().all(arrived);
        let calm = last.is_none_or(|w| self.calm_since(w.at_us.min(started_us))) && self.is_calm();
        let started_calm = self.calm_since(started_us);
        let dead = user.dead.iter().find(|d| d.key == user.key);
        if let (Some((g, _)), Some(dead)) = (read, dead)
            && g <= dead.generation
            && self.calm_since(dead.at_us)
            && dead.at_us < started_us
        {
            let detail = format!("{} generation {g} read at p{process} after its logout", user.key);
            self.violate("a logout never comes back", detail);
            return false;
        }
        if job == Job::Login {
            return true;
        }
        if job == Job::Visit
            && let Some(detail) = self.forgotten(number, generation, read)
        {
            let detail = format!("p{process}: {detail}");
            self.violate("what all members had none of them forgets", detail);
            return false;
        }
        let Some(user) = self.users.get(number) else {
            return false;
        };
        match read {
            None => {
                let expected = user.logged_in && generation == user.generation && !user.may_vanish;
                // Entries begin at their homes, and who has none asks there: that something is there is seen at once,
                // whatever is awaited for its value.
                let whole = strict && self.whole_since(last.map_or(started_us, |w| w.at_us));
                let due = calm || whole;
                if expected && due && self.now_us < user.lives_until_us && job == Job::Visit {
                    let detail = format!("{} not found at p{process}, {:?} confirmed", user.key, user.floor);
                    self.violate("a confirmed session is there", detail);
                }
                if let Some(user) = self.users.get_mut(number)
                    && job == Job::Visit
                    && generation == user.generation
                {
                    // Who was told that it is gone must not meet it again.
                    if calm && started_calm && sees_own {
                        let (key, at_us) = (user.key.clone(), self.now_us);
                        user.dead.push(Dead {
                            key,
                            generation,
                            at_us,
                            process,
                        });
                    }
                    user.new_session();
                    user.key = format!("sess:{}:{}n", user.number, user.generation);
                }
                false
            }
            Some((g, n)) => {
                let behind = n.iter().zip(&user.floor).any(|(n, floor)| n < floor);
                let same = g == user.generation && generation == user.generation;
                // A write to what has just been evicted comes to nothing; until the eviction has come here, the value
                // from before is still seen.
                let evicted = self.scenario.memory_limit != 0
                    && last.is_some_and(|w| {
                        let writer = self.processes.get(w.process);
                        let entry = writer.and_then(|p| p.core.peek_any(user.key.as_bytes()));
                        entry.is_none_or(crate::store::Entry::is_dead)
                    });
                if same && behind && calm && sees_own && !evicted && job == Job::Visit {
                    let detail = format!("{} at p{process} has {n:?}, {:?} confirmed", user.key, user.floor);
                    self.violate("a user sees own confirmed writes", detail);
                }
                true
            }
        }
    }

    /// What all members had and is not in an answer. That counts also while members do not hear each other, and at once when they
    /// do again.
    fn forgotten(&mut self, number: usize, generation: u64, read: Option<(u64, [u64; 2])>) -> Option<String> {
        let user = self.users.get(number)?;
        let is_present = user.logged_in && generation == user.generation;
        let all = user
            .everywhere
            .filter(|all| is_present && self.newest_ready_us < all.since_us && self.now_us < all.until_us)?;
        self.met.everywhere += u64::from(!self.is_calm());
        let less = match read {
            None => true,
            Some((g, n)) => g == generation && n.iter().zip(&all.n).any(|(n, all)| n < all),
        };
        less.then(|| format!("{} has {read:?}, all had {:?}", user.key, all.n))
    }

    fn session_written(&mut self, id: u64, number: usize, job: Job, reply: &Reply) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let done = matches!(reply, Reply::Ok | Reply::Int(_));
        let touched = request.stage == Stage::Touching && !request.wrote;
        let calm = self.calm_since(request.started_us);
        let strict = !self.scenario.affinity
            && matches!(self.scenario.acknowledge, Acknowledge::Auto | Acknowledge::All);
        let whole = strict && self.whole_since(request.started_us);
        if job == Job::Late {
            self.met.late_writes += 1;
            return;
        }
        if !done || (*reply == Reply::Int(0)) {
            return;
        }
        self.met.writes += 1;
        let written = Written {
            field: request.field,
            n: request.n,
            at_us: self.now_us,
            process: request.process,
        };
        let started_us = request.started_us;
        let margin_us = (self.scenario.skew_ms * 2 + 2_500) * 1_000;
        let evicts = self.scenario.memory_limit != 0;
        let now_us = self.now_us;
        let Some(user) = self.users.get_mut(number) else {
            return;
        };
        if user.generation != request.generation {
            return;
        }
        if job == Job::Login {
            self.met.logins += 1;
            self.met.relogins += u64::from(user.dead.iter().any(|d| d.key == user.key));
            user.logged_in = true;
            user.since_us = now_us;
        }
        user.lives_until_us = started_us + TTL_MS * 1_000 - margin_us;
        if touched {
            return;
        }
        // Elsewhere, before the last write has come there: the two are concurrent, and either may win.
        let concurrent = !strict
            && user
                .recent
                .iter()
                .any(|w| w.process != written.process && w.at_us + 1_500_000 > started_us);
        user.recent.retain(|w| w.at_us + 10_000_000 > now_us);
        user.recent.push(written);
        user.last_write = Some(written);
        let by_all = !evicts && self.scenario.mode == crate::core::Mode::All && strict;
        if calm && by_all {
            let n = user.everywhere.map_or([0; 2], |all| all.n);
            let mut all = Everywhere {
                n,
                since_us: started_us,
                until_us: user.lives_until_us,
            };
            if let Some(n) = all.n.get_mut(written.field) {
                *n = (*n).max(written.n);
            }
            user.everywhere = Some(all);
        }
        if calm {
            if !concurrent && let Some(floor) = user.floor.get_mut(written.field) {
                *floor = (*floor).max(written.n);
            }
            user.may_vanish = evicts;
        } else if whole {
            user.may_vanish = evicts;
        }
    }

    fn session_ended(&mut self, id: u64, number: usize) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (key, generation, process) = (request.key.clone(), request.generation, request.process);
        let at_us = self.now_us;
        self.met.logouts += 1;
        if let Some(user) = self.users.get_mut(number) {
            user.dead.push(Dead {
                key,
                generation,
                at_us,
                process,
            });
            if user.generation == generation {
                user.new_session();
            }
        }
    }

    fn session_renamed(&mut self, id: u64, number: usize) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (old, new, process) = (request.key.clone(), request.new_key.clone(), request.process);
        let generation = request.generation;
        let calm = self.calm_since(request.started_us);
        let at_us = self.now_us;
        self.met.renames += 1;
        if let Some(user) = self.users.get_mut(number).filter(|u| u.generation == generation) {
            user.dead.push(Dead {
                key: old,
                generation: u64::MAX,
                at_us,
                process,
            });
            user.key = new;
            user.everywhere = None;
            if !calm {
                user.may_vanish = true;
                user.floor = [0; 2];
            }
        }
    }
}
