//! The way in for everything that is not a client's command.

use bytes::Bytes;

use super::clock::Now;
use super::config::Mode;
use super::handoff::Answer;
use super::io::{Event, Input, KeyEvent, LinkId, Output};
use super::node::Core;
use super::version::NodeId;
use super::wire::{Hello, OLDEST, PeerMessage, hello_versions};

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Link {
    dialled: bool,
    /// Who is there, after its hello.
    pub(super) peer: Option<NodeId>,
    wire: u8,
}

/// Clocks further apart than this do not join, milliseconds.
const MAX_JOIN_DRIFT_MS: u64 = 60_000;

impl Core {
    /// Takes in what happened outside.
    pub fn step(&mut self, now: Now, input: &Input<'_>, out: &mut Vec<Output>) {
        self.wake(now);
        match input {
            Input::LinkUp { link, dialled } => {
                self.links.insert(
                    *link,
                    Link {
                        dialled: *dialled,
                        peer: None,
                        wire: OLDEST,
                    },
                );
                let frame = Bytes::from(self.hello(now, false).encode());
                out.push(Output::Send { link: *link, frame });
            }
            Input::LinkDown { link } => self.drop_link(*link),
            Input::Frame { link, bytes } => self.on_frame(now, *link, bytes, out),
            Input::Discovered { addresses } => self.on_discovered(now, addresses, out),
            Input::Tick => self.tick(now, out),
            Input::Flush => {}
            Input::Drain => self.drain(now, out),
            Input::Stop => self.stop(now, out),
            Input::Fetched { number, fetched } => self.on_fetched(now, *number, fetched, out),
            Input::UpstreamConfirmed { upto } => self.on_upstream_confirmed(now, *upto, out),
            Input::UpstreamLost => self.on_upstream_lost(now, out),
            Input::Topology { places } => self.on_topology(places),
            Input::Exists { names } => self.on_exists(now, names, out),
        }
        self.follow_view(now, out);
        self.flush(now, out);
    }

    /// When [`Input::Tick`] is due at the latest, `mono_ms`.
    pub fn next_tick_ms(&self, now: Now) -> u64 {
        let deadline = self.deadlines.first().map_or(u64::MAX, |(at_ms, _)| *at_ms);
        let sweep = self
            .store
            .next_sweep_ms()
            .saturating_sub(now.wall_ms)
            .saturating_add(now.mono_ms);
        let busy = !self.held.is_empty()
            || !self.arriving.is_empty()
            || !self.comparisons.is_idle()
            || self.unconfirmed_out;
        let soon = if busy {
            now.mono_ms + self.config.resend_ms.min(50)
        } else {
            u64::MAX
        };
        self.beat_due_ms
            .min(self.suspect_due_ms)
            .min(deadline)
            .min(sweep)
            .min(soon)
            .min(self.homes.next_ms())
            .min(self.next_fetch_ms())
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.stirred |= self.unconfirmed_out;
        while let Some((at_ms, ticket)) = self.deadlines.first().copied() {
            if at_ms > now.mono_ms {
                break;
            }
            self.deadlines.pop_first();
            self.try_asked(now, ticket, out);
            self.acknowledge_timed_out(now, ticket, out);
        }
        self.sweep(now, out);
        self.expire_fetches(now, out);
        self.expire_forwards(now, out);
        self.resend_overdue(now);
        if now.mono_ms >= self.beat_due_ms {
            self.beat_due_ms = now.mono_ms + self.config.heartbeat_ms;
            self.stirred = true;
            self.greet_again(now, out);
            self.watch_members(now, out);
            self.settle(now);
            self.beat(now, out);
            self.expire_gathering(now, out);
            self.forget_answers(now);
        } else if now.mono_ms >= self.suspect_due_ms {
            // Writes wait for it: up to a heartbeat more is more than they have.
            self.watch_members(now, out);
        }
        self.live(now, out);
        self.seek_homes(now, out);
        self.compare(now, out);
    }

    /// Notices that the process has stood still: then the silence of others says nothing about them. They may have given it
    /// up meanwhile, if that was long enough.
    pub(super) fn wake(&mut self, now: Now) {
        let stood_still_ms = now.mono_ms.saturating_sub(self.awake_ms);
        if stood_still_ms > 2 * self.config.heartbeat_ms {
            for member in self.members.values_mut().filter(|m| !m.suspect) {
                member.heard_ms = now.mono_ms;
            }
            self.stalled_until_ms = now.mono_ms + self.config.suspect_after_ms;
            if stood_still_ms >= self.config.suspect_after_ms {
                self.catch_up_after_standstill(now);
            }
        }
        self.awake_ms = now.mono_ms;
    }

    fn sweep(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.store.next_sweep_ms() > now.wall_ms {
            return;
        }
        let swept = self.store.sweep(now.wall_ms);
        self.counters.expired += u64::try_from(swept.expired.len()).unwrap_or_default();
        if self.key_events {
            let event = |key| Output::KeyEvent {
                key,
                what: KeyEvent::Expired,
            };
            out.extend(swept.expired.into_iter().map(event));
        }
    }

    fn backups(&self) -> u8 {
        match self.config.mode {
            Mode::All => u8::MAX,
            Mode::Backup(backups) => backups,
        }
    }

    fn hello(&self, now: Now, answers: bool) -> Hello {
        let mut others = self.records();
        others.pop();
        Hello {
            newest: self.config.wire_version,
            oldest: OLDEST,
            me: self.record(),
            others,
            backups: self.backups(),
            partitions: self.config.partitions,
            wall_ms: now.wall_ms,
            answers,
        }
    }

    /// Repeats the hello on links that have not answered.
    fn greet_again(&mut self, now: Now, out: &mut Vec<Output>) {
        let silent: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.peer.is_none())
            .map(|(id, _)| *id)
            .collect();
        for link in silent {
            out.push(Output::Send {
                link,
                frame: Bytes::from(self.hello(now, false).encode()),
            });
        }
    }

    fn drop_link(&mut self, link: LinkId) {
        let Some(peer) = self.links.remove(&link).and_then(|link| link.peer) else {
            return;
        };
        if let Some(member) = self.members.get_mut(&peer).filter(|m| m.link == Some(link)) {
            member.link = None;
            member.out.rewind();
        }
    }

    fn refuse(&mut self, link: LinkId, reason: &'static str, out: &mut Vec<Output>) {
        self.drop_link(link);
        out.push(Output::Log(Event::Refused(reason)));
        out.push(Output::Close { link, reason });
    }

    fn on_frame(&mut self, now: Now, link: LinkId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(known) = self.links.get(&link) else {
            return;
        };
        if hello_versions(bytes).is_ok() {
            self.on_hello(now, link, bytes, out);
            return;
        }
        // Frames that overtook the hello are lost; their senders repeat them.
        let (Some(peer), wire) = (known.peer, known.wire) else {
            return;
        };
        match PeerMessage::decode(bytes, wire) {
            Ok(message) => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.heard_ms = now.mono_ms;
                    self.on_message(now, peer, message, out);
                }
            }
            Err(_) => self.refuse(link, "a frame could not be understood", out),
        }
    }

    fn on_hello(&mut self, now: Now, link: LinkId, bytes: &[u8], out: &mut Vec<Output>) {
        let Ok(hello) = Hello::decode(bytes) else {
            return self.refuse(link, "a hello could not be understood", out);
        };
        let Some(wire) = hello.common_version(self.config.wire_version) else {
            return self.refuse(link, "no wire version in common", out);
        };
        let peer = hello.me.info.id;
        if peer == self.me.id {
            return self.refuse(link, "connected to itself", out);
        }
        if (hello.backups, hello.partitions) != (self.backups(), self.config.partitions) {
            return self.refuse(link, "mode or number of partitions differ", out);
        }
        if hello.wall_ms.abs_diff(now.wall_ms) > MAX_JOIN_DRIFT_MS && !self.members.contains_key(&peer) {
            return self.refuse(link, "clocks are too far apart", out);
        }
        if self.gone.contains_key(&peer) {
            return self.refuse(link, "the member has gone", out);
        }
        self.learn(now, &hello.me, out);
        let id = self.me.id;
        let Some(member) = self.members.get_mut(&peer) else {
            return self.refuse(link, "a newer process has this name", out);
        };
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        if let Some(other) = member.link.filter(|other| *other != link) {
            // Both sides keep the connection that the lower id dialled.
            let keep_new = known.dialled == (id < peer);
            let closed = if keep_new { other } else { link };
            out.push(Output::Close {
                link: closed,
                reason: "there are two connections",
            });
            if !keep_new {
                self.links.remove(&link);
                return;
            }
            self.links.remove(&other);
        }
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        let first = known.peer.is_none();
        known.peer = Some(peer);
        known.wire = wire;
        member.link = Some(link);
        member.wire = wire;
        self.stirred = true;
        if first {
            member.out.rewind();
            self.claims_for(now, peer, out);
            self.beat_due_ms = now.mono_ms;
        }
        if !hello.answers {
            out.push(Output::Send {
                link,
                frame: Bytes::from(self.hello(now, true).encode()),
            });
        }
        self.learn_all(now, &hello.others, out);
    }

    fn on_message(&mut self, now: Now, from: NodeId, message: PeerMessage<'_>, out: &mut Vec<Output>) {
        match message {
            PeerMessage::Heartbeat(beat) => self.on_heartbeat(now, from, &beat, out),
            PeerMessage::Members(records) => self.learn_all(now, &records, out),
            PeerMessage::Batch {
                first,
                last,
                as_of,
                reset,
                entries,
            } => {
                self.on_batch(now, from, (first, last, reset), as_of, &entries, out);
            }
            PeerMessage::Ack { upto, gap } => self.on_ack(now, from, upto, gap, out),
            PeerMessage::Fetch { keys } => self.on_fetch(from, &keys, out),
            PeerMessage::Entries(entries) => self.absorb(now, from, &entries, out),
            PeerMessage::Forward {
                id,
                position,
                base,
                given,
                retry,
                command,
            } => {
                self.on_forward(now, from, (id, position, base), (given, retry), command, out);
            }
            PeerMessage::Answer {
                id,
                position,
                clock,
                found,
                reply,
                entries,
            } => {
                self.clock.observe(clock);
                self.on_answer(now, from, (id, position, found), reply, &entries, out);
            }
            PeerMessage::Redirect { id, to } => self.on_redirect(now, id, to, out),
            PeerMessage::HandoffRequest { round, partitions } => {
                self.on_handoff_request(now, from, round, &partitions, out);
            }
            PeerMessage::HandoffReply {
                round,
                granted,
                pending,
                refused,
            } => {
                let answer = Answer {
                    granted: &granted,
                    pending: &pending,
                    refused: &refused,
                };
                self.on_handoff_reply(now, from, round, &answer, out);
            }
            PeerMessage::Claims {
                number,
                claims,
                others,
            } => {
                self.learn_homes(&others);
                self.on_claims(now, from, number, &claims, out);
            }
            PeerMessage::ClaimsAck { number } => self.on_claims_ack(now, from, number, out),
            PeerMessage::Gather { id, command } => self.on_gather(now, from, id, command, out),
            PeerMessage::Gathered { id, reply } => self.on_gathered(now, from, id, reply, out),
            message => self.on_comparison(now, from, message, out),
        }
    }

    /// Sends a message to a member, if there is a link.
    pub(super) fn send(&mut self, to: NodeId, message: &PeerMessage<'_>, out: &mut Vec<Output>) {
        let Some(member) = self.members.get(&to) else {
            return;
        };
        if let Some(link) = member.link {
            out.push(Output::Send {
                link,
                frame: Bytes::from(message.encode(member.wire)),
            });
        }
    }

    /// Sends an encoded message to a member, if there is a link.
    pub(super) fn send_frame(&mut self, to: NodeId, frame: impl Into<Bytes>, out: &mut Vec<Output>) {
        if let Some(link) = self.members.get(&to).and_then(|m| m.link) {
            out.push(Output::Send {
                link,
                frame: frame.into(),
            });
        }
    }
}
