//! Requests: how a handler turns a user's click into commands, and what it is told.

use super::scenario::TTL_MS;
use super::users::{Style, value};
use super::world::Event;
use super::world::World;
use crate::core::{
    Client, Command, CommandError, Condition, Executed, ExpireCondition, Kind, Observed, Op, Reply, SetExpiry,
};

/// How long a lock lives, ms.
pub(super) const LOCK_MS: u64 = 8_000;
const FIELDS: [&[u8]; 2] = [b"a", b"b"];

/// Who a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    User(usize, Job),
    Locker(usize),
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// Read, and write or touch.
    Visit,
    /// Read that there is nothing, and write.
    Login,
    /// Delete.
    Logout,
    /// Read, take long, write: the logout comes in between.
    Late,
    /// Change the id.
    Rename,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Locking,
    Reading,
    Thinking,
    Writing,
    Touching,
    Deleting,
    Renaming,
    Unlocking,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) owner: Owner,
    pub(super) process: usize,
    pub(super) client: Client,
    pub(super) key: String,
    pub(super) new_key: String,
    pub(super) generation: u64,
    pub(super) stage: Stage,
    pub(super) started_us: u64,
    pub(super) n: u64,
    pub(super) field: usize,
    pub(super) tries: u32,
    /// Fields have been written; their expiry follows.
    pub(super) wrote: bool,
    pub(super) token: String,
}

impl World {
    /// The next command of a request.
    pub(super) fn continue_request(&mut self, id: u64) {
        let Some(mut request) = self.requests.remove(&id) else {
            return;
        };
        if request.stage == Stage::Thinking {
            request.stage = Stage::Writing;
            if let Owner::User(number, Job::Visit) = request.owner
                && self.random.per_mille(300)
                && self.users.get(number).is_some_and(|u| u.last_write.is_some())
            {
                request.stage = Stage::Touching;
            }
        }
        if request.stage == Stage::Writing
            && request.n == 0
            && let Owner::User(number, _) = request.owner
            && let Some(user) = self.users.get_mut(number)
        {
            request.n = user.next_n;
            user.next_n += 1;
        }
        let shared = match request.owner {
            Owner::User(number, _) => self.users.get(number).is_some_and(|u| u.shared_connection),
            Owner::Locker(_) => false,
        };
        let executed = self.perform(&mut request, shared);
        let process = request.process;
        self.requests.insert(id, request);
        match executed {
            Some(Executed::Done(reply)) => self.replied(id, &reply, None),
            Some(Executed::Pending(ticket)) => {
                self.waiting.insert((process, ticket), id);
                // It may have been completed before its number was known here.
                if let Some((reply, observed)) = self.early.remove(&(process, ticket)) {
                    self.waiting.remove(&(process, ticket));
                    self.replied(id, &reply, observed);
                }
            }
            None => self.request_lost(id),
        }
    }

    fn perform(&mut self, request: &mut Request, _shared: bool) -> Option<Executed> {
        let wall_ms = self.now_at(request.process).wall_ms;
        let expires = wall_ms + TTL_MS;
        let key = request.key.as_bytes();
        let lock_key = format!("{}_LOCK", request.key);
        let written = value(request.generation, request.n, self.scenario.padding);
        let style = match request.owner {
            Owner::User(number, _) => self.users.get(number).map_or(Style::Whole, |u| u.style),
            Owner::Locker(_) => Style::Whole,
        };
        let whole = style == Style::Whole;
        let one = |key, op| Command::Key { key, op };
        let set = |expiry, condition| Op::Set {
            value: if request.stage == Stage::Locking {
                request.token.as_bytes()
            } else {
                written.as_bytes()
            },
            flags: 0,
            expiry,
            condition,
            want_old: false,
        };
        let command = match request.stage {
            Stage::Locking => one(
                lock_key.as_bytes(),
                set(SetExpiry::At(wall_ms + LOCK_MS), Condition::Absent),
            ),
            Stage::Unlocking => {
                let condition = Condition::Equals(request.token.as_bytes());
                one(lock_key.as_bytes(), Op::Delete { condition })
            }
            Stage::Reading | Stage::Thinking if whole => one(key, Op::Get),
            Stage::Reading | Stage::Thinking => one(key, Op::AllFields { kind: Kind::Hash }),
            Stage::Writing if whole => one(key, set(SetExpiry::At(expires), Condition::Always)),
            Stage::Writing => {
                let name = FIELDS.get(request.field).copied().unwrap_or(b"a");
                let fields = vec![(name, written.as_bytes())];
                one(
                    key,
                    Op::PutFields {
                        kind: Kind::Hash,
                        fields,
                        only_absent: false,
                    },
                )
            }
            Stage::Touching => one(
                key,
                Op::Expire {
                    at_ms: expires,
                    condition: ExpireCondition::Always,
                },
            ),
            Stage::Deleting => one(
                key,
                Op::Delete {
                    condition: Condition::Always,
                },
            ),
            Stage::Renaming => Command::Rename {
                from: key,
                to: request.new_key.as_bytes(),
                only_if_absent: false,
            },
        };
        let client = &mut request.client;
        self.with_core(request.process, |core, now, out| {
            core.execute(now, client, &command, out)
        })
    }

    /// The reply to a request's command.
    pub(super) fn replied(&mut self, id: u64, reply: &Reply, observed: Option<Observed>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if let Some(observed) = observed {
            request.client.observe(&observed);
        }
        let (owner, key, process, stage) =
            (request.owner, request.key.clone(), request.process, request.stage);
        self.log(|| format!("p{process} {owner:?} {stage:?} {key} → {}", short(reply)));
        match reply {
            Reply::Error(CommandError::NoReplicas) => self.met.no_replicas += 1,
            Reply::Error(CommandError::HomeUnreachable) => self.met.unreachable += 1,
            Reply::Error(CommandError::LockWithoutMajority) => self.met.lock_refusals += 1,
            Reply::Error(CommandError::OutOfMemory) => self.met.out_of_memory += 1,
            _ => {}
        }
        match owner {
            Owner::User(number, job) => self.user_replied(id, number, job, reply),
            Owner::Locker(locker) => self.locker_replied(id, locker, reply),
        }
    }

    /// The process died under a request.
    pub(super) fn request_lost(&mut self, id: u64) {
        self.end_request(id);
    }

    pub(super) fn end_request(&mut self, id: u64) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        match request.owner {
            Owner::User(number, job) => {
                if let Some(user) = self.users.get_mut(number) {
                    user.open = user.open.saturating_sub(1);
                    // Nobody knows whether it came through.
                    if matches!(job, Job::Logout | Job::Rename) && user.key == request.key && user.logged_in {
                        user.new_session();
                        user.key = format!("sess:{}:{}x", user.number, user.generation);
                    }
                }
            }
            Owner::Locker(locker) => {
                if let Some(locker) = self.lockers.get_mut(locker) {
                    locker.inside_since_us = None;
                }
                let delay = self.random.range(100_000, 1_200_000);
                self.after(delay, Event::Locker { locker });
            }
        }
    }
}

fn short(reply: &Reply) -> String {
    let mut text = format!("{reply:?}");
    text.truncate(60);
    text
}
