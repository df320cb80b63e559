//! RENAME: the entry begins a new incarnation under the new name, at that name's home; then the old name becomes a
//! tombstone that points there. Requests that began under the old name write on to the new one; nobody can read the
//! old name any more.

use super::acknowledge::{Asker, Outcome, Patience};
use super::apply::{Change, What};
use super::client::Base;
use super::clock::{Hlc, Now};
use super::command::{Command, CommandError, Kind, Op, Reply, Restored};
use super::decide::{Asking, Verdict};
use super::io::{Output, TicketId};
use super::node::Core;
use super::read;
use super::version::{NodeId, Version};
use crate::store::{Entry, key_hash};

/// A RENAME that waits for the new name's home.
#[derive(Debug)]
pub(super) struct Renaming {
    asker: Asker,
    /// When it was asked for.
    given: Hlc,
    from: Box<[u8]>,
    to: Box<[u8]>,
    only_if_absent: bool,
    copied: bool,
    /// What the old entry was when it was copied.
    token: i64,
    tries: u8,
}

impl Renaming {
    /// Whether a member has asked for it.
    pub(super) fn is_for(&self, member: NodeId) -> bool {
        matches!(self.asker, Asker::Member(node, _) if node == member)
    }
}

/// Times that the copy is made again because the old entry changed meanwhile.
const MAX_TRIES: u8 = 4;

impl Core {
    /// Renames an entry that this member decides about.
    pub(super) fn rename(
        &mut self,
        now: Now,
        asking: Asking,
        from: &[u8],
        to: &[u8],
        only_if_absent: bool,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Asking {
            asker, given, retry, ..
        } = asking;
        if self.store.live(from, now.wall_ms).is_none() {
            if let Some(done) = self.renamed_before(given, from, to).filter(|_| retry) {
                let reply = renamed_reply(only_if_absent);
                let partition = self.partition(from);
                self.changes.clear();
                self.changes.push(done);
                return match self.conclude(now, asker, partition, Patience::OfWrites, outcome(from, reply)) {
                    Some(outcome) => Verdict::Done(outcome),
                    None => Verdict::Waiting,
                };
            }
            return Verdict::Done(outcome(from, Reply::Error(CommandError::NoSuchKey)));
        }
        if from == to {
            let reply = if only_if_absent { Reply::Int(0) } else { Reply::Ok };
            return Verdict::Done(outcome(from, reply));
        }
        let renaming = Renaming {
            asker,
            given,
            from: from.into(),
            to: to.into(),
            only_if_absent,
            copied: false,
            token: 0,
            tries: 0,
        };
        self.copy_renamed(now, renaming, out);
        Verdict::Waiting
    }

    /// What a RENAME that may have been carried out before did to the old name, if it has been: the answer to that was lost.
    fn renamed_before(&self, given: Hlc, from: &[u8], to: &[u8]) -> Option<Change> {
        let id = self.store.find(from)?;
        let entry = self.store.entry(id)?;
        let done = entry.is_dead() && entry.value() == to && entry.version().at > given;
        done.then_some(Change {
            id,
            what: What::Whole,
            since: given,
        })
    }

    /// Has the new name's home put a copy of the old entry there.
    fn copy_renamed(&mut self, now: Now, mut renaming: Renaming, out: &mut Vec<Output>) {
        let Some(entry) = self.store.live(&renaming.from, now.wall_ms) else {
            let gone = outcome(&renaming.from, Reply::Error(CommandError::NoSuchKey));
            self.deliver(now, renaming.asker, gone, out);
            return;
        };
        renaming.token = read::token(Some(entry));
        renaming.tries += 1;
        let expires_ms = entry.expires_ms().unwrap_or(0);
        let (value, flags) = (entry.value().to_vec(), entry.flags());
        let fields: Vec<(Vec<u8>, Vec<u8>)> = entry.fields().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let content = match entry.kind().unwrap_or(Kind::String) {
            Kind::String => Restored::String { value: &value, flags },
            kind => Restored::Fields {
                kind,
                fields: fields.iter().map(|(n, v)| (&**n, &**v)).collect(),
            },
        };
        let only_absent = renaming.only_if_absent && renaming.tries == 1;
        let to = renaming.to.clone();
        let command = Command::Key {
            key: &to,
            op: Op::Restore {
                content,
                expires_ms,
                only_absent,
            },
        };
        // Another member may have been asked as well, and have made the copy, to which the client has written since. A copy made
        // again because the old entry changed has to replace the first one.
        let (given, retry) = (renaming.given, renaming.tries == 1);
        let ticket = self.next_ticket();
        self.renaming.insert(ticket, renaming);
        let asking = Asking {
            asker: Asker::Own(ticket),
            base: Base::Unknown,
            given,
            retry,
        };
        self.ask(now, asking, &command, out);
    }

    /// A home has answered: that of the new name, or afterwards that of the old one.
    pub(super) fn renamed(&mut self, now: Now, ticket: TicketId, reply: &Reply, out: &mut Vec<Output>) {
        let Some(mut renaming) = self.renaming.remove(&ticket) else {
            return;
        };
        match (renaming.copied, reply) {
            (false, Reply::Int(1)) => {
                renaming.copied = true;
                let (from, to, given) = (renaming.from.clone(), renaming.to.clone(), renaming.given);
                let op = Op::Bury {
                    redirect: &to,
                    token: renaming.token,
                };
                let ticket = self.next_ticket();
                self.renaming.insert(ticket, renaming);
                // Not simply here: the old name's home may have changed meanwhile.
                let asking = Asking {
                    asker: Asker::Own(ticket),
                    base: Base::Unknown,
                    given,
                    retry: false,
                };
                self.ask(now, asking, &Command::Key { key: &from, op }, out);
            }
            (true, Reply::Int(1)) => {
                let reply = renamed_reply(renaming.only_if_absent);
                self.deliver(now, renaming.asker, outcome(&renaming.from, reply), out);
            }
            // The old entry changed after it was copied.
            (true, Reply::Int(_)) if renaming.tries < MAX_TRIES => {
                renaming.copied = false;
                self.copy_renamed(now, renaming, out);
            }
            (true, Reply::Int(_)) => {
                let reply = Reply::Error(CommandError::HomeUnreachable);
                self.deliver(now, renaming.asker, outcome(&renaming.from, reply), out);
            }
            (_, reply) => self.deliver(now, renaming.asker, outcome(&renaming.from, reply.clone()), out),
        }
    }

    /// The new name of an entry that a write is based on and that has been renamed since.
    pub(super) fn new_name(&self, base: Base, key: &[u8]) -> Option<Box<[u8]>> {
        let Base::Read(read) = base else { return None };
        let entry = self
            .store
            .lookup(key)
            .filter(|entry| entry.is_dead() && entry.incarnation() > read)?;
        Some(Entry::value(entry))
            .filter(|name| !name.is_empty())
            .map(Into::into)
    }
}

fn renamed_reply(only_if_absent: bool) -> Reply {
    if only_if_absent { Reply::Int(1) } else { Reply::Ok }
}

fn outcome(key: &[u8], reply: Reply) -> Outcome {
    Outcome {
        reply,
        read: false,
        key: key_hash(key),
        found: Version::ZERO,
        lock: None,
    }
}
