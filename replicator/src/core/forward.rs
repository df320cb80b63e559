//! Commands that another member decides: asking it, and being asked.

use bytes::Bytes;

use super::acknowledge::{Asker, Granted, Outcome};
use super::client::Base;
use super::clock::{Hlc, Now};
use super::command::{Command, CommandError, Reply};
use super::decide::{Asking, Verdict};
use super::groups::group_of;
use super::io::{Output, TicketId};
use super::members::Member;
use super::node::Core;
use super::version::{Incarnation, NodeId, Version};
use super::wire::{OLDEST, PeerMessage, decode_command, encode_command};
use crate::store::{EntryState, key_hash};

/// A command that waits for another member's answer, or for this one to become the home.
#[derive(Debug)]
pub(super) struct Asked {
    asker: Asker,
    /// In the oldest layout, which every member reads.
    command: Vec<u8>,
    key: u64,
    partition: u16,
    base: Base,
    /// When the command was given.
    given: Hlc,
    read: bool,
    deadline_ms: u64,
    next_ms: u64,
    /// Where somebody said that it is decided.
    to: Option<NodeId>,
    hops: u32,
    tries: u32,
}

/// A command from another member that cannot be decided yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) from: NodeId,
    id: u64,
    position: u64,
    base: Base,
    given: Hlc,
    retry: bool,
    command: Vec<u8>,
    until_ms: u64,
}

/// A command from another member that has been executed: it must not be so twice.
#[derive(Debug)]
pub(super) struct Answered {
    /// Nothing while confirmations are awaited.
    frame: Option<Bytes>,
    at_ms: u64,
}

/// An answer that has overtaken what it refers to.
#[derive(Debug)]
pub(super) struct Arriving {
    from: NodeId,
    position: u64,
    asker: Asker,
    outcome: Outcome,
    until_ms: u64,
}

/// Times that an answer may point elsewhere before a pause is made.
const MAX_HOPS: u32 = 4;
/// Pause before asking again when nobody feels responsible, milliseconds.
const PAUSE_MS: u64 = 20;

impl Core {
    /// Has a command decided by the key's home.
    pub(super) fn ask(&mut self, now: Now, asking: Asking, command: &Command<'_>, out: &mut Vec<Output>) {
        let Asking {
            asker,
            base,
            given,
            retry,
        } = asking;
        let key = command.key().unwrap_or_default();
        let id = self.next_ticket();
        let asked = Asked {
            asker,
            given,
            command: encode_command(OLDEST, command),
            key: key_hash(key),
            partition: self.partition(key),
            base,
            read: command.is_read(),
            deadline_ms: now.mono_ms + self.config.home_timeout_ms,
            next_ms: now.mono_ms,
            to: None,
            hops: 0,
            tries: u32::from(retry),
        };
        self.asked.insert(id, asked);
        self.deadlines.insert((now.mono_ms, id));
        self.counters.forwarded += 1;
        self.try_asked(now, id, out);
    }

    /// Sends a command to its home, or decides it if that is here by now.
    pub(super) fn try_asked(&mut self, now: Now, id: TicketId, out: &mut Vec<Output>) {
        let Some(asked) = self.asked.get(&id) else { return };
        if now.mono_ms >= asked.deadline_ms {
            self.give_up_asked(now, id, out);
            return;
        }
        let partition = asked.partition;
        if self.homes.acts(partition) {
            let Some(asked) = self.take_asked(id) else { return };
            let verdict = match decode_command(OLDEST, &asked.command) {
                Ok(command) => {
                    let place = self.locate(command.key().unwrap_or_default());
                    let asking = Asking {
                        asker: asked.asker,
                        base: asked.base,
                        given: asked.given,
                        retry: asked.tries > 0,
                    };
                    self.decide(now, asking, &command, place, out)
                }
                Err(_) => Verdict::Done(error(CommandError::Malformed, asked.key)),
            };
            match verdict {
                Verdict::Done(outcome) => self.deliver(now, asked.asker, outcome, out),
                Verdict::Waiting => {}
                Verdict::NotYet => self.put_asked(
                    id,
                    Asked {
                        next_ms: now.mono_ms + PAUSE_MS,
                        ..asked
                    },
                ),
            }
            return;
        }
        let hint = asked
            .to
            .filter(|to| self.members.get(to).is_some_and(Member::in_reach));
        let to = hint
            .or_else(|| self.home_of(partition))
            .filter(|to| *to != self.me.id);
        let Some(to) = to.filter(|to| self.members.get(to).is_some_and(Member::in_reach)) else {
            self.postpone_asked(id, now.mono_ms + PAUSE_MS);
            return;
        };
        self.flush_to(now, to, out);
        let position = self.members.get(&to).map_or(0, |m| m.out.head());
        let wire = self.members.get(&to).map_or(OLDEST, |m| m.wire);
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        let retry = asked.tries > 0;
        asked.tries += 1;
        let message = PeerMessage::Forward {
            id: id.0,
            position,
            base: asked.base,
            given: asked.given,
            retry,
            command: &asked.command,
        };
        let frame = message.encode(wire);
        self.send_frame(to, frame, out);
        self.postpone_asked(id, now.mono_ms + self.config.resend_ms);
    }

    fn take_asked(&mut self, id: TicketId) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        self.deadlines.remove(&(asked.next_ms, id));
        Some(asked)
    }

    fn put_asked(&mut self, id: TicketId, asked: Asked) {
        self.deadlines.insert((asked.next_ms, id));
        self.asked.insert(id, asked);
    }

    fn postpone_asked(&mut self, id: TicketId, next_ms: u64) {
        if let Some(mut asked) = self.take_asked(id) {
            asked.next_ms = next_ms.min(asked.deadline_ms);
            self.put_asked(id, asked);
        }
    }

    fn give_up_asked(&mut self, now: Now, id: TicketId, out: &mut Vec<Output>) {
        let Some(asked) = self.take_asked(id) else { return };
        self.deliver(
            now,
            asked.asker,
            error(CommandError::HomeUnreachable, asked.key),
            out,
        );
    }

    /// What a member that is out of reach has asked for, it asks somebody else for now. Done here as well it might be done long after.
    pub(super) fn leave_to_others(&mut self, member: NodeId) {
        self.held.retain(|held| held.from != member);
        let renaming = &self.renaming;
        let is_its = |asker: &Asker| match asker {
            Asker::Client(_) => false,
            Asker::Member(node, _) => *node == member,
            Asker::Own(ticket) => renaming.get(ticket).is_some_and(|one| one.is_for(member)),
        };
        let its = self.asked.iter().filter(|(_, asked)| is_its(&asked.asker));
        for id in its.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(Asker::Own(ticket)) = self.take_asked(id).map(|asked| asked.asker) {
                self.renaming.remove(&ticket);
            }
        }
    }

    /// Asks again for everything: homes have changed.
    pub(super) fn retry_asked(&mut self, now: Now, out: &mut Vec<Output>) {
        let ids: Vec<TicketId> = self.asked.keys().copied().collect();
        for id in ids {
            let Some((partition, to, tries)) = self.asked.get(&id).map(|a| (a.partition, a.to, a.tries))
            else {
                continue;
            };
            let to = to.or_else(|| self.home_of(partition));
            let reachable = to
                .and_then(|to| self.members.get(&to))
                .is_some_and(Member::in_reach);
            if tries == 0 || !reachable || self.homes.acts(partition) {
                self.try_asked(now, id, out);
            }
        }
        let held = std::mem::take(&mut self.held);
        for one in held {
            self.consider(now, one, out);
        }
    }

    /// Something has arrived from a member: what waited for it can go on.
    pub(super) fn arrived(&mut self, now: Now, from: NodeId, out: &mut Vec<Output>) {
        let received = self.members.get(&from).map_or(0, |m| m.received);
        if self
            .held
            .iter()
            .any(|held| held.from == from && held.position <= received)
        {
            let held = std::mem::take(&mut self.held);
            for one in held {
                if one.from == from && one.position <= received {
                    self.consider(now, one, out);
                } else {
                    self.held.push(one);
                }
            }
        }
        if self
            .arriving
            .iter()
            .any(|a| a.from == from && a.position <= received)
        {
            let arriving = std::mem::take(&mut self.arriving);
            for one in arriving {
                if one.from == from && one.position <= received {
                    self.deliver(now, one.asker, one.outcome, out);
                } else {
                    self.arriving.push(one);
                }
            }
        }
    }

    /// Another member has a command decided.
    pub(super) fn on_forward(
        &mut self,
        now: Now,
        from: NodeId,
        (id, position, base): (u64, u64, Base),
        (given, retry): (Hlc, bool),
        command: &[u8],
        out: &mut Vec<Output>,
    ) {
        // What is written for it has to be later: see [`Asking::retry`].
        self.clock.observe(given);
        if self.members.get(&from).is_none_or(|m| m.suspect) {
            // Who does not hear this member has asked another one by now.
            return;
        }
        if let Some(answered) = self.answered.get(&(from, id)) {
            if let Some(frame) = answered.frame.clone() {
                self.send_frame(from, frame, out);
            }
            return;
        }
        if self.held.iter().any(|held| held.from == from && held.id == id) {
            return;
        }
        let until_ms = now.mono_ms + self.config.home_timeout_ms;
        let held = Held {
            from,
            id,
            position,
            base,
            given,
            retry,
            command: command.to_vec(),
            until_ms,
        };
        self.consider(now, held, out);
    }

    /// Decides a command of another member, keeps it for later, or says who decides.
    fn consider(&mut self, now: Now, mut held: Held, out: &mut Vec<Output>) {
        if now.mono_ms >= held.until_ms {
            return;
        }
        let asker = Asker::Member(held.from, held.id);
        let Ok(command) = decode_command(OLDEST, &held.command) else {
            self.deliver(now, asker, error(CommandError::Malformed, 0), out);
            return;
        };
        let place = self.locate(command.key().unwrap_or_default());
        let partition = place.partition;
        if !self.homes.acts(partition) {
            let me = self.me.id;
            let to = self.home_of(partition).filter(|to| *to != me);
            match to {
                // It will be here shortly. Until then whoever asks may have it done by the home that was.
                None if self.serves() && self.held.len() < self.config.max_pending => {
                    held.retry = true;
                    self.held.push(held);
                }
                to => {
                    let to = to.unwrap_or_default();
                    self.send(held.from, &PeerMessage::Redirect { id: held.id, to }, out);
                }
            }
            return;
        }
        let received = self.members.get(&held.from).map_or(0, |m| m.received);
        #[cfg(test)]
        let received = if self.config.faults == super::config::Faults::LockBeforeData {
            u64::MAX
        } else {
            received
        };
        if received < held.position && self.held.len() < self.config.max_pending {
            self.held.push(held);
            return;
        }
        if !command.is_read() {
            self.answered.insert(
                (held.from, held.id),
                Answered {
                    frame: None,
                    at_ms: now.mono_ms,
                },
            );
        }
        let asking = Asking {
            asker,
            base: held.base,
            given: held.given,
            retry: held.retry,
        };
        match self.decide(now, asking, &command, place, out) {
            Verdict::Done(outcome) => self.deliver(now, asker, outcome, out),
            Verdict::Waiting => {}
            Verdict::NotYet => {
                self.answered.remove(&(held.from, held.id));
                drop(command);
                held.retry = true;
                self.held.push(held);
            }
        }
    }

    /// Sends the answer to a member's command.
    pub(super) fn answer(&mut self, now: Now, to: NodeId, id: u64, outcome: &Outcome, out: &mut Vec<Output>) {
        self.flush_to(now, to, out);
        let Some(member) = self.members.get(&to) else {
            return;
        };
        // Whoever takes a lock gets the session that it protects.
        let session = |lock: &Granted| self.store.lookup(&group_of(&self.config.groups, &lock.key));
        let state = outcome
            .lock
            .as_ref()
            .and_then(session)
            .map(crate::store::Entry::state);
        let message = PeerMessage::Answer {
            id,
            position: member.out.head(),
            clock: self.clock.reading(now.wall_ms),
            found: outcome.found,
            reply: outcome.reply.clone(),
            entries: state.into_iter().collect(),
        };
        let frame = Bytes::from(message.encode(member.wire));
        if let Some(answered) = self.answered.get_mut(&(to, id)) {
            *answered = Answered {
                frame: Some(frame.clone()),
                at_ms: now.mono_ms,
            };
        }
        self.send_frame(to, frame, out);
    }

    /// The home has answered.
    pub(super) fn on_answer(
        &mut self,
        now: Now,
        from: NodeId,
        (id, position, found): (u64, u64, Incarnation),
        reply: Reply,
        entries: &[EntryState<'_>],
        out: &mut Vec<Output>,
    ) {
        let Some(asked) = self.take_asked(TicketId(id)) else {
            return;
        };
        let holder = self.holds(asked.partition);
        if holder {
            self.absorb(now, from, entries, out);
        }
        let outcome = Outcome {
            reply,
            read: asked.read,
            key: asked.key,
            found,
            lock: None,
        };
        let received = self.members.get(&from).map_or(u64::MAX, |m| m.received);
        if holder && received < position {
            let until_ms = asked.deadline_ms;
            self.arriving.push(Arriving {
                from,
                position,
                asker: asked.asker,
                outcome,
                until_ms,
            });
            return;
        }
        self.deliver(now, asked.asker, outcome, out);
    }

    /// The member asked is not the home.
    pub(super) fn on_redirect(&mut self, now: Now, id: u64, to: NodeId, out: &mut Vec<Output>) {
        let id = TicketId(id);
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        asked.hops += 1;
        asked.to = (to != NodeId::default() && to != self.me.id).then_some(to);
        if asked.hops % MAX_HOPS == 0 || asked.to.is_none() {
            self.postpone_asked(id, now.mono_ms + PAUSE_MS);
        } else {
            self.try_asked(now, id, out);
        }
    }

    /// Forgets answers that nobody asks for any more.
    pub(super) fn forget_answers(&mut self, now: Now) {
        let old_ms = now.mono_ms.saturating_sub(2 * self.config.home_timeout_ms);
        self.answered.retain(|_, answered| answered.at_ms > old_ms);
    }

    /// Forgets what is too old: kept commands, answers that wait.
    pub(super) fn expire_forwards(&mut self, now: Now, out: &mut Vec<Output>) {
        self.held.retain(|held| held.until_ms > now.mono_ms);
        let held = std::mem::take(&mut self.held);
        for one in held {
            self.consider(now, one, out);
        }
        if self.arriving.iter().any(|a| a.until_ms <= now.mono_ms) {
            let (late, rest) = std::mem::take(&mut self.arriving)
                .into_iter()
                .partition(|a| a.until_ms <= now.mono_ms);
            self.arriving = rest;
            for one in late {
                let one: Arriving = one;
                self.deliver(now, one.asker, one.outcome, out);
            }
        }
    }
}

fn error(error: CommandError, key: u64) -> Outcome {
    Outcome {
        reply: Reply::Error(error),
        read: false,
        key,
        found: Version::ZERO,
        lock: None,
    }
}
