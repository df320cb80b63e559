//! Users: what they have done to their sessions, and what they may expect.

use super::lockers::Locker;
use super::random::Random;
use super::scenario::Scenario;
use super::world::{Event, World};
use crate::core::Acknowledge;

/// How a user's framework keeps the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One value, read and written as a whole.
    Whole,
    /// A hash; only changed fields are written.
    Fields,
}

/// A session that was logged out of, or renamed: it must not be seen again.
#[derive(Debug, Clone)]
pub(super) struct Dead {
    pub(super) key: String,
    /// This generation and all before it.
    pub(super) generation: u64,
    pub(super) at_us: u64,
    pub(super) process: usize,
}

/// A confirmed write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) field: usize,
    pub(super) n: u64,
    pub(super) at_us: u64,
    pub(super) process: usize,
}

/// What all members have confirmed while nothing was wrong: whatever happens to the network afterwards, none of them may answer
/// with less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Everywhere {
    /// By field.
    pub(super) n: [u64; 2],
    pub(super) since_us: u64,
    pub(super) until_us: u64,
}

/// See the module.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not exclude each other"
)]
pub(super) struct User {
    pub(super) number: usize,
    pub(super) style: Style,
    /// All requests of a process share one connection, as in Node.
    pub(super) shared_connection: bool,
    /// A new session may get the old id.
    pub(super) reuses_id: bool,
    pub(super) key: String,
    pub(super) generation: u64,
    pub(super) logged_in: bool,
    pub(super) next_n: u64,
    /// What must be there, by field.
    pub(super) floor: [u64; 2],
    pub(super) recent: Vec<Written>,
    /// What every member has confirmed, in mode All.
    pub(super) everywhere: Option<Everywhere>,
    /// The session may have vanished: nobody promises otherwise.
    pub(super) may_vanish: bool,
    /// Until then the session must be there, if it must at all.
    pub(super) lives_until_us: u64,
    pub(super) sticky: Option<usize>,
    pub(super) last_write: Option<Written>,
    pub(super) dead: Vec<Dead>,
    /// Without activity since, so that the session has to expire.
    pub(super) idle_since_us: Option<u64>,
    /// When the present session began.
    pub(super) since_us: u64,
    pub(super) open: u32,
    pub(super) cut_sides: Vec<usize>,
    /// When members last began not to see each other.
    cut_us: u64,
}

impl User {
    fn new(number: usize, random: &mut Random) -> Self {
        let shared_connection = random.per_mille(250);
        Self {
            number,
            style: if random.per_mille(350) {
                Style::Fields
            } else {
                Style::Whole
            },
            shared_connection,
            reuses_id: !shared_connection && random.per_mille(500),
            key: format!("sess:{number}:0"),
            generation: 0,
            logged_in: false,
            next_n: 1,
            floor: [0; 2],
            everywhere: None,
            recent: Vec::new(),
            may_vanish: true,
            lives_until_us: 0,
            sticky: None,
            last_write: None,
            dead: Vec::new(),
            idle_since_us: None,
            since_us: 0,
            open: 0,
            cut_sides: Vec::new(),
            cut_us: 0,
        }
    }

    /// From now on members do not see each other.
    pub(super) fn partition_begins(&mut self, now_us: u64) {
        self.cut_us = now_us;
        self.cut_sides.clear();
    }

    /// A member dies, and with it what only it had. If it was `apart` from all others, that is also what was confirmed on its side
    /// of the cut, by it and by members that had gone before it.
    pub(super) fn member_dies(
        &mut self,
        scenario: &Scenario,
        (process, apart): (usize, Option<&[usize]>),
        deaths: usize,
        now_us: u64,
    ) {
        // A replica that is not the only one left is copied again within this time.
        const SETTLED_US: u64 = 3_000_000;
        let survives = match (scenario.acknowledge, scenario.mode) {
            (Acknowledge::Local, _) => 0,
            (Acknowledge::Auto, crate::core::Mode::All) if scenario.affinity => 0,
            (Acknowledge::Auto, _) if scenario.affinity => 1,
            (Acknowledge::One, _) => 1,
            (Acknowledge::Quorum, crate::core::Mode::All) => scenario.nodes / 2,
            (Acknowledge::Quorum, crate::core::Mode::Backup(k)) => usize::from(k).div_ceil(2),
            (_, crate::core::Mode::All) => scenario.nodes - 1,
            (_, crate::core::Mode::Backup(k)) => usize::from(k),
        };
        if let crate::core::Mode::Backup(k) = scenario.mode
            && deaths > usize::from(k)
        {
            self.forget_everything();
            return;
        }
        if deaths > survives || apart.is_some() {
            let cut_us = self.cut_us;
            let only_here = |by: usize, at_us: u64| {
                let on_this_side = apart.is_some_and(|others| !others.contains(&by)) && at_us >= cut_us;
                (by == process && at_us + SETTLED_US > now_us) || on_this_side
            };
            let lost = |w: &&Written| only_here(w.process, w.at_us);
            for (field, floor) in self.floor.iter_mut().enumerate() {
                let first = self
                    .recent
                    .iter()
                    .filter(lost)
                    .filter(|w| w.field == field)
                    .map(|w| w.n)
                    .min();
                if let Some(first) = first {
                    *floor = (*floor).min(first.saturating_sub(1));
                }
            }
            if self.recent.iter().any(|w| lost(&w)) {
                self.may_vanish = true;
            }
            self.dead.retain(|dead| !only_here(dead.process, dead.at_us));
        }
        if deaths > 1 {
            self.forget_everything();
        }
    }

    fn forget_everything(&mut self) {
        self.floor = [0; 2];
        self.may_vanish = true;
        self.dead.clear();
    }

    pub(super) fn new_session(&mut self) {
        self.logged_in = false;
        self.floor = [0; 2];
        self.everywhere = None;
        self.may_vanish = true;
        self.recent.clear();
        self.last_write = None;
        self.generation += 1;
        if !self.reuses_id {
            self.key = format!("sess:{}:{}", self.number, self.generation);
        }
    }
}

/// A session's value.
pub(super) fn value(generation: u64, n: u64, padding: u64) -> String {
    let padding = usize::try_from(padding + n % 60).unwrap_or(0);
    format!("{generation}:{n}:{}", "x".repeat(padding))
}

/// Generation and number of a value.
pub(super) fn parse(value: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl World {
    pub(super) fn make_users(&mut self) {
        for number in 0..self.scenario.users {
            let user = User::new(number, &mut self.random);
            self.users.push(user);
            let delay = self.random.range(1_500_000, 4_000_000);
            self.after(delay, Event::User { user: number });
        }
        for locker in 0..self.scenario.lockers {
            let key = format!("locked:{}", locker % 2);
            self.lockers.push(Locker {
                key,
                inside_since_us: None,
                home: None,
                confirmed: None,
            });
            let delay = self.random.range(2_000_000, 3_000_000);
            self.after(delay, Event::Locker { locker });
        }
    }
}
