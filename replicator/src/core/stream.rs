//! The stream of changes to one member.
//!
//! Kept is which entries changed, not what they became: at the time of sending the newest state of each is encoded
//! once, however often it changed. So a slow member costs a bounded ring of small items, and a member that has fallen
//! behind the ring is brought up to date by comparing digests.

use std::collections::VecDeque;

use super::apply::{Change, What};
use super::clock::Hlc;
use super::io::TicketId;
use crate::store::SlotId;

/// Bytes under way to one member at most, before it confirms.
const WINDOW_BYTES: usize = 1 << 20;

/// An item that is in the ring.
#[derive(Debug, Clone, Copy)]
struct Item {
    id: SlotId,
    what: What,
    since: Hlc,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    items: VecDeque<Item>,
    /// The number of the first item; all before it are confirmed or lost.
    base: u64,
    /// The last number sent.
    sent: u64,
    /// Frames under way: last number and bytes.
    under_way: VecDeque<(u64, usize)>,
    /// When the oldest frame under way was sent, `mono_ms`.
    sent_ms: u64,
    /// The ring was too short: what came before `base` is lost.
    reset: bool,
    capacity: usize,
    /// Replies that wait for a number to be confirmed.
    waiters: VecDeque<(u64, TicketId)>,
}

/// What is to be sent next.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) reset: bool,
    pub(super) changes: Vec<Change>,
}

impl Stream {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            items: VecDeque::new(),
            base: 1,
            sent: 0,
            under_way: VecDeque::new(),
            sent_ms: 0,
            reset: false,
            capacity,
            waiters: VecDeque::new(),
        }
    }

    /// The last number given; 0 for none.
    pub(super) fn head(&self) -> u64 {
        self.base + u64::try_from(self.items.len()).unwrap_or(u64::MAX) - 1
    }

    /// The last number confirmed (or lost).
    pub(super) fn acked(&self) -> u64 {
        self.base - 1
    }

    /// Adds a change, and says its number. When the ring is full all of it is given up: the replies that waited for
    /// it are returned.
    pub(super) fn push(&mut self, change: &Change) -> (u64, Vec<TicketId>) {
        let mut lost = Vec::new();
        if self.items.len() >= self.capacity {
            lost = self.give_up();
        }
        self.items.push_back(Item {
            id: change.id,
            what: change.what,
            since: change.since,
        });
        (self.head(), lost)
    }

    /// Gives up all that is not confirmed; the member will have to compare digests.
    pub(super) fn give_up(&mut self) -> Vec<TicketId> {
        self.base = self.head() + 1;
        self.sent = self.base - 1;
        self.items.clear();
        self.under_way.clear();
        self.reset = true;
        self.waiters.drain(..).map(|(_, ticket)| ticket).collect()
    }

    /// Whether items have been given up since this was last asked. For a receiver that has no digests to compare.
    pub(super) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// Registers a reply that waits until `number` is confirmed.
    pub(super) fn wait(&mut self, number: u64, ticket: TicketId) {
        self.waiters.push_back((number, ticket));
    }

    /// All replies that wait; they wait no longer.
    pub(super) fn take_waiters(&mut self) -> Vec<TicketId> {
        self.waiters.drain(..).map(|(_, ticket)| ticket).collect()
    }

    /// Takes note of a confirmation and returns the replies that waited for it.
    pub(super) fn confirm(&mut self, upto: u64, now_ms: u64) -> Vec<TicketId> {
        let upto = upto.min(self.head());
        if upto >= self.base {
            let count = usize::try_from(upto + 1 - self.base)
                .unwrap_or(usize::MAX)
                .min(self.items.len());
            self.items.drain(..count);
            self.base = upto + 1;
            self.sent = self.sent.max(upto);
            self.sent_ms = now_ms;
        }
        if upto + 1 >= self.base {
            self.reset = false;
        }
        while self.under_way.front().is_some_and(|(last, _)| *last <= upto) {
            self.under_way.pop_front();
        }
        let mut done = Vec::new();
        while let Some((_, ticket)) = self.waiters.pop_front_if(|(number, _)| *number <= upto) {
            done.push(ticket);
        }
        done
    }

    /// Starts again behind what is confirmed.
    pub(super) fn rewind(&mut self) {
        self.sent = self.base - 1;
        self.under_way.clear();
    }

    /// Whether something sent has not been confirmed since `before_ms`.
    pub(super) fn is_overdue(&self, before_ms: u64) -> bool {
        (self.sent > self.acked() || (self.reset && !self.under_way.is_empty())) && self.sent_ms <= before_ms
    }

    /// Whether there is something to send and room for it.
    pub(super) fn is_due(&self) -> bool {
        let news = self.sent < self.head() || (self.reset && self.under_way.is_empty());
        let under_way = || self.under_way.iter().map(|(_, bytes)| bytes).sum::<usize>();
        news && under_way() < WINDOW_BYTES
    }

    /// What comes next, about `limit` bytes by the measure of `size`; changes of one entry are one.
    pub(super) fn next(&self, limit: usize, size: impl Fn(SlotId) -> usize) -> Portion {
        let skip = usize::try_from(self.sent + 1 - self.base).unwrap_or_default();
        let mut changes: Vec<Change> = Vec::new();
        let (mut taken, mut bytes) = (0, 0);
        let mut seen = hashbrown::HashTable::<u32>::new();
        for item in self.items.iter().skip(skip) {
            if bytes >= limit {
                break;
            }
            taken += 1;
            let hash = spread(item.id);
            let found = seen.find(hash, |&at| {
                changes.get(at as usize).is_some_and(|c: &Change| c.id == item.id)
            });
            if let Some(change) = found.copied().and_then(|at| changes.get_mut(at as usize)) {
                change.what = change.what.max(item.what);
                change.since = change.since.min(item.since);
                continue;
            }
            let at = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            changes.push(Change {
                id: item.id,
                what: item.what,
                since: item.since,
            });
            bytes += if item.what == What::Touch {
                64
            } else {
                size(item.id)
            };
            let hash_of = |&at: &u32| changes.get(at as usize).map_or(0, |c| spread(c.id));
            seen.insert_unique(hash, at, hash_of);
        }
        Portion {
            first: self.sent + 1,
            last: self.sent + taken,
            reset: self.reset,
            changes,
        }
    }

    /// Takes note that everything up to `last` is on its way.
    pub(super) fn sent(&mut self, last: u64, bytes: usize, now_ms: u64) {
        if self.under_way.is_empty() {
            self.sent_ms = now_ms;
        }
        self.sent = last;
        self.under_way.push_back((last, bytes));
    }
}

fn spread(id: SlotId) -> u64 {
    u64::from(id.number()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
