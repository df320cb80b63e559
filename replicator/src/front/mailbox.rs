//! What reaches a connection from elsewhere: replies that had to wait, and published messages.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use crate::core::{Observed, Reply, TicketId};

/// A reply that had to wait.
#[derive(Debug)]
pub struct Completion {
    /// The command it answers.
    pub ticket: TicketId,
    /// The reply.
    pub reply: Reply,
    /// What the connection has thereby read.
    pub observed: Option<Observed>,
}

/// One connection's mailbox. All sides are on one thread.
#[derive(Debug)]
pub struct Mailbox {
    completions: RefCell<Vec<Completion>>,
    messages: RefCell<Vec<u8>>,
    limit: usize,
    overflowed: Cell<bool>,
    closing: Cell<bool>,
    leaving: Cell<bool>,
    busy: Cell<bool>,
    active_ms: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Mailbox {
    /// An empty mailbox. `limit` bounds the bytes of messages that have not been fetched.
    pub fn new(limit: usize) -> Self {
        Self {
            completions: RefCell::default(),
            messages: RefCell::default(),
            limit,
            overflowed: Cell::new(false),
            closing: Cell::new(false),
            leaving: Cell::new(false),
            busy: Cell::new(false),
            active_ms: Cell::new(0),
            waker: RefCell::default(),
        }
    }

    /// Delivers a reply.
    pub fn complete(&self, completion: Completion) {
        self.completions.borrow_mut().push(completion);
        self.wake();
    }

    /// Delivers an encoded message. A client that does not read its messages is cut off.
    pub fn publish(&self, encoded: &[u8]) {
        let mut messages = self.messages.borrow_mut();
        if messages.len() + encoded.len() > self.limit {
            self.overflowed.set(true);
        } else {
            messages.extend_from_slice(encoded);
        }
        drop(messages);
        self.wake();
    }

    /// Asks the connection to end.
    pub fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Asks the connection to end as soon as nothing is owed to the client.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.wake();
    }

    /// Notes whether a reply is owed to the client, or a part of a request has come.
    pub fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    /// Whether a reply is owed to the client, or a part of a request has come.
    pub fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// Notes that the client has sent something. Milliseconds since the Unix epoch.
    pub fn touch(&self, now_ms: u64) {
        self.active_ms.set(now_ms);
    }

    /// When the client last sent something, milliseconds since the Unix epoch; 0 for never.
    pub fn active_ms(&self) -> u64 {
        self.active_ms.get()
    }

    /// Whether the connection has to end.
    pub fn must_close(&self) -> bool {
        self.closing.get() || self.overflowed.get() || (self.leaving.get() && !self.busy.get())
    }

    /// The reply to `ticket`, if it has come.
    pub fn take(&self, ticket: TicketId) -> Option<Completion> {
        let mut completions = self.completions.borrow_mut();
        let place = completions
            .iter()
            .position(|completion| completion.ticket == ticket)?;
        Some(completions.swap_remove(place))
    }

    /// Moves the messages behind what `out` holds.
    pub fn fetch(&self, out: &mut Vec<u8>) {
        out.append(&mut self.messages.borrow_mut());
    }

    /// Whether messages wait.
    pub fn has_messages(&self) -> bool {
        !self.messages.borrow().is_empty()
    }

    /// Ready when `wanted` holds, when a message waits or when the connection has to end.
    pub fn poll_ready(&self, context: &Context<'_>, wanted: impl Fn(&Self) -> bool) -> Poll<()> {
        if wanted(self) || self.must_close() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the reply to `ticket` has come.
    pub fn has(&self, ticket: TicketId) -> bool {
        self.completions
            .borrow()
            .iter()
            .any(|completion| completion.ticket == ticket)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_by_its_ticket_once() {
        let mailbox = Mailbox::new(10);
        mailbox.complete(Completion {
            ticket: TicketId(1),
            reply: Reply::Ok,
            observed: None,
        });
        assert!(mailbox.take(TicketId(2)).is_none());
        assert!(mailbox.has(TicketId(1)));
        assert_eq!(mailbox.take(TicketId(1)).map(|c| c.reply), Some(Reply::Ok));
        assert!(mailbox.take(TicketId(1)).is_none());
    }

    #[test]
    fn who_is_to_leave_does_so_when_nothing_is_owed() {
        let mailbox = Mailbox::new(10);
        mailbox.set_busy(true);
        mailbox.leave();
        assert!(!mailbox.must_close());
        mailbox.set_busy(false);
        assert!(mailbox.must_close());
    }

    #[test]
    fn a_client_that_does_not_fetch_is_cut_off() {
        let mailbox = Mailbox::new(10);
        mailbox.publish(b"12345678");
        assert!(!mailbox.must_close());
        mailbox.publish(b"901");
        assert!(mailbox.must_close());
        let mut out = Vec::new();
        mailbox.fetch(&mut out);
        assert_eq!(out, b"12345678");
    }
}
