//! KEYS, SCAN and DBSIZE: answered from all members, each for the partitions that it is the home of. In mode All
//! everything is here.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::acknowledge::{Asker, Outcome};
use super::clock::Now;
use super::command::{Command, CommandError, Reply};
use super::config::Mode;
use super::io::{Output, TicketId};
use super::node::Core;
use super::version::{NodeId, Version};
use super::wire::{OLDEST, PeerMessage, decode_command, encode_command};
use crate::store::{Entry, glob};

/// A command that waits for the parts of others.
#[derive(Debug)]
pub(super) struct Gathering {
    asker: Asker,
    awaited: BTreeSet<NodeId>,
    so_far: Reply,
    /// For SCAN: the member that is being looked through.
    ordinal: u64,
    more: bool,
    deadline_ms: u64,
}

/// Bits of a cursor that are a position; the rest is the member's number. Together they fit a JavaScript number.
const POSITION_BITS: u32 = 32;

impl Core {
    /// Answers at once, or asks the others.
    pub(super) fn gather(
        &mut self,
        now: Now,
        asker: Asker,
        command: &Command<'_>,
        out: &mut Vec<Output>,
    ) -> Option<Reply> {
        if self.config.mode == Mode::All {
            return Some(self.part(now, command));
        }
        let others: BTreeSet<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.serves() && !m.suspect)
            .map(|(id, _)| *id)
            .collect();
        let deadline_ms = now.mono_ms + self.config.home_timeout_ms;
        let mut gathering = Gathering {
            asker,
            awaited: others,
            so_far: Reply::Nil,
            ordinal: 0,
            more: false,
            deadline_ms,
        };
        let mut asked = encode_command(OLDEST, command);
        if let Command::Scan {
            cursor,
            pattern,
            count,
            kind,
        } = command
        {
            let mut all: BTreeSet<NodeId> = gathering.awaited.clone();
            all.insert(self.me.id);
            gathering.ordinal = cursor >> POSITION_BITS;
            gathering.more = gathering.ordinal + 1 < u64::try_from(all.len()).unwrap_or(u64::MAX);
            let at = usize::try_from(gathering.ordinal).unwrap_or(usize::MAX);
            let Some(member) = all.into_iter().nth(at) else {
                return Some(end_of_scan(Vec::new()));
            };
            let part = Command::Scan {
                cursor: cursor & u64::from(u32::MAX),
                pattern: *pattern,
                count: *count,
                kind: *kind,
            };
            if member == self.me.id {
                let part = self.part(now, &part);
                return Some(gathering.scan_reply(part));
            }
            asked = encode_command(OLDEST, &part);
            gathering.awaited = BTreeSet::from([member]);
        } else {
            gathering.so_far = self.part(now, command);
            if gathering.awaited.is_empty() {
                return Some(gathering.so_far);
            }
        }
        let id = self.next_ticket();
        for member in gathering.awaited.clone() {
            self.send(
                member,
                &PeerMessage::Gather {
                    id: id.0,
                    command: &asked,
                },
                out,
            );
        }
        self.gathering.insert(id, gathering);
        None
    }

    /// What this member has to say to a command: of everything in mode All, else of what it is the home of.
    fn part(&self, now: Now, command: &Command<'_>) -> Reply {
        let mine = |entry: &Entry<'_>| {
            entry.is_live(now.wall_ms)
                && (self.config.mode == Mode::All || self.homes.acts(entry.partition()))
        };
        let name = |entry: Entry<'_>| Reply::Bytes(Bytes::copy_from_slice(entry.key()));
        let entries = |from: u32| self.store.iter_from(from);
        match command {
            Command::Count => {
                let count = entries(0).filter(|(_, entry)| mine(entry)).count();
                Reply::Int(i64::try_from(count).unwrap_or(i64::MAX))
            }
            Command::Keys { pattern } => Reply::Array(
                entries(0)
                    .filter(|(_, entry)| mine(entry) && glob::matches(pattern, entry.key()))
                    .map(|(_, entry)| name(entry))
                    .collect(),
            ),
            Command::Scan {
                cursor,
                pattern,
                count,
                kind,
            } => {
                let from = u32::try_from(*cursor).unwrap_or(u32::MAX);
                let count = usize::try_from(*count).unwrap_or(usize::MAX).max(1);
                let mut keys = Vec::new();
                for (seen, (id, entry)) in entries(from).enumerate() {
                    if seen >= count {
                        return scan_part(id.number(), keys);
                    }
                    let fits = pattern.is_none_or(|pattern| glob::matches(pattern, entry.key()))
                        && kind.is_none_or(|kind| entry.kind() == Some(kind));
                    if fits && mine(&entry) {
                        keys.push(name(entry));
                    }
                }
                end_of_scan(keys)
            }
            _ => Reply::Error(CommandError::Malformed),
        }
    }

    /// A member asks for this one's part.
    pub(super) fn on_gather(
        &mut self,
        now: Now,
        from: NodeId,
        id: u64,
        command: &[u8],
        out: &mut Vec<Output>,
    ) {
        let reply = match decode_command(OLDEST, command) {
            Ok(command) => self.part(now, &command),
            Err(_) => Reply::Error(CommandError::Malformed),
        };
        self.send(from, &PeerMessage::Gathered { id, reply }, out);
    }

    /// A part has come.
    pub(super) fn on_gathered(
        &mut self,
        now: Now,
        from: NodeId,
        id: u64,
        reply: Reply,
        out: &mut Vec<Output>,
    ) {
        let id = TicketId(id);
        let Some(gathering) = self.gathering.get_mut(&id) else {
            return;
        };
        if !gathering.awaited.remove(&from) {
            return;
        }
        gathering.so_far = match (std::mem::replace(&mut gathering.so_far, Reply::Nil), reply) {
            (Reply::Nil, part @ Reply::Array(_)) => gathering.scan_reply(part),
            (Reply::Int(sum), Reply::Int(part)) => Reply::Int(sum + part),
            (Reply::Array(mut all), Reply::Array(part)) => {
                all.extend(part);
                Reply::Array(all)
            }
            (_, part) => part,
        };
        if gathering.awaited.is_empty()
            && let Some(gathering) = self.gathering.remove(&id)
        {
            self.deliver(now, gathering.asker, outcome(gathering.so_far), out);
        }
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_gathering(&mut self, now: Now, out: &mut Vec<Output>) {
        let late: Vec<TicketId> = self
            .gathering
            .iter()
            .filter(|(_, g)| g.deadline_ms <= now.mono_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(gathering) = self.gathering.remove(&id) {
                let reply = Reply::Error(CommandError::HomeUnreachable);
                self.deliver(now, gathering.asker, outcome(reply), out);
            }
        }
    }
}

impl Gathering {
    /// A member's part of a SCAN with the cursor that goes on in the cluster.
    fn scan_reply(&self, part: Reply) -> Reply {
        let Reply::Array(mut items) = part else {
            return part;
        };
        if let Some(Reply::Int(next)) = items.first_mut() {
            let ordinal = i64::try_from(self.ordinal).unwrap_or(i64::MAX >> POSITION_BITS);
            if *next != 0 {
                *next |= ordinal << POSITION_BITS;
            } else if self.more {
                *next = (ordinal + 1) << POSITION_BITS;
            }
        }
        Reply::Array(items)
    }
}

fn scan_part(next: u32, keys: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::Int(i64::from(next)), Reply::Array(keys)])
}

fn end_of_scan(keys: Vec<Reply>) -> Reply {
    scan_part(0, keys)
}

fn outcome(reply: Reply) -> Outcome {
    Outcome {
        reply,
        read: false,
        key: 0,
        found: Version::ZERO,
        lock: None,
    }
}
