//! Drives one client connection: one read, all commands in it, one write.
//!
//! Buffers are lent by the node for the time of a read, so that an idle connection has none. Only what is left over of
//! a request, or could not be sent at once, is kept by the connection itself.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::node::{Node, Shared};
use crate::core::TicketId;
use crate::front::mailbox::Mailbox;
use crate::front::{Backend, Dialect, Progress};

/// For the last replies to be taken when a connection ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Room for input that is kept between two reads without asking for it again.
const KEPT: usize = 16 << 10;

/// A connection and what it keeps.
struct Driver<S, D> {
    stream: S,
    dialect: D,
    node: Shared,
    mailbox: Rc<Mailbox>,
    /// Input that is not done with.
    left: Vec<u8>,
    /// Replies that could not be sent at once.
    unsent: Vec<u8>,
    progress: Progress,
    requests: u64,
}

/// What a step of the connection came to.
enum Step {
    /// Go on.
    Continue,
    /// The connection is over.
    End,
}

/// Serves a connection until it ends.
///
/// # Errors
/// The socket failed; there is nobody left to tell.
pub async fn serve<S, D>(stream: S, dialect: D, node: Shared, mailbox: Rc<Mailbox>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect + Unpin,
{
    let mut driver = Driver {
        stream,
        dialect,
        node,
        mailbox,
        left: Vec::new(),
        unsent: Vec::new(),
        progress: Progress::Read { total: 1 },
        requests: 0,
    };
    loop {
        if let Step::End = poll_fn(|context| driver.poll_step(context)).await? {
            break;
        }
        driver.note_busy();
        driver.send_what_waits().await?;
        // A long pipeline is worked on in pieces, so that its replies do not pile up.
        while driver.progress == Progress::Flush {
            driver.work();
            driver.send_what_waits().await?;
            driver.note_busy();
        }
        if driver.progress == Progress::Close || driver.mailbox.must_close() {
            break;
        }
    }
    driver.end().await
}

impl<S, D> Driver<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect + Unpin,
{
    /// Notes whether the client waits for something.
    fn note_busy(&self) {
        let idle = self.left.is_empty() && matches!(self.progress, Progress::Read { .. });
        self.mailbox.set_busy(!idle);
    }

    /// Ends the connection in good order, but does not wait long for a client that does not read.
    async fn end(mut self) -> io::Result<()> {
        timeout(END_TIMEOUT, async {
            self.stream.write_all(&self.unsent).await?;
            self.stream.shutdown().await
        })
        .await?
    }

    /// Sends what could not be sent at once. Ends early when the connection has to end.
    async fn send_what_waits(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            let rest = self.unsent.get(sent..).unwrap_or_default();
            let (stream, mailbox) = (&mut self.stream, &self.mailbox);
            let written = poll_fn(|context| {
                if let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(context, rest) {
                    return Poll::Ready(written);
                }
                mailbox
                    .poll_ready(context, |_| false)
                    .map(|()| Err(io::ErrorKind::TimedOut.into()))
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            sent += written;
        }
        self.unsent = Vec::new();
        Ok(())
    }

    /// Waits for the next thing to do, does it, and tries to send the replies.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Step>> {
        if self.mailbox.must_close() {
            return Poll::Ready(Ok(Step::End));
        }
        if let Progress::Wait(ticket) = self.progress {
            ready!(self.mailbox.poll_ready(context, |mailbox| mailbox.has(ticket)));
            return Poll::Ready(self.completed(context, ticket));
        }
        if self.mailbox.has_messages() {
            self.mailbox.fetch(&mut self.unsent);
            return Poll::Ready(Ok(Step::Continue));
        }
        match self.poll_read(context) {
            Poll::Pending => {
                let ready = self.mailbox.poll_ready(context, Mailbox::has_messages);
                ready.map(|()| Ok(Step::Continue))
            }
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Step>> {
        let node = Rc::clone(&self.node);
        let mut node = node.borrow_mut();
        let mut scratch = std::mem::take(&mut node.input);
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
        let read = buffer.filled().len();
        let result = match polled {
            Poll::Ready(Ok(())) if read == 0 => Poll::Ready(Ok(Step::End)),
            Poll::Ready(Ok(())) => Poll::Ready(self.received(context, &mut node, buffer.filled())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        node.input = scratch;
        result
    }

    fn received(&mut self, context: &mut Context<'_>, node: &mut Node, bytes: &[u8]) -> io::Result<Step> {
        let start = Instant::now();
        let before = self.requests;
        let step = self.answer(context, node, bytes, start);
        node.server
            .stats
            .latency
            .observe(start.elapsed().as_secs_f64(), self.requests - before);
        step
    }

    fn answer(
        &mut self,
        context: &mut Context<'_>,
        node: &mut Node,
        bytes: &[u8],
        start: Instant,
    ) -> io::Result<Step> {
        if self.left.is_empty() {
            let mut out = std::mem::take(&mut node.output);
            let consumed = self.advance(node, bytes, &mut out, start);
            self.left
                .extend_from_slice(bytes.get(consumed..).unwrap_or_default());
            self.reserve();
            return self.send(context, node, out);
        }
        self.left.extend_from_slice(bytes);
        let out = self.work_on(node);
        self.send(context, node, out)
    }

    /// Works on what is left of the input, the replies going to `unsent`.
    fn work(&mut self) {
        let node = Rc::clone(&self.node);
        let mut node = node.borrow_mut();
        let mut out = self.work_on(&mut node);
        self.unsent.append(&mut out);
        node.output = out;
    }

    fn work_on(&mut self, node: &mut Node) -> Vec<u8> {
        let mut out = std::mem::take(&mut node.output);
        let mut left = std::mem::take(&mut self.left);
        let consumed = self.advance(node, &left, &mut out, Instant::now());
        if consumed >= left.len() {
            left.clear();
            if left.capacity() > KEPT {
                left = Vec::new();
            }
        } else {
            left.drain(..consumed);
        }
        self.left = left;
        self.reserve();
        out
    }

    /// Makes room for the rest of a request whose length is known.
    fn reserve(&mut self) {
        if let Progress::Read { total } = self.progress
            && !self.left.is_empty()
            && total > self.left.capacity()
        {
            self.left.reserve_exact(total - self.left.len());
        }
    }

    fn advance(&mut self, node: &mut Node, input: &[u8], out: &mut Vec<u8>, at: Instant) -> usize {
        let now = node.at(at);
        self.mailbox.touch(now.wall_ms);
        let mut backend = Backend::new(&mut node.core, now, &mut node.outputs);
        let advanced = self.dialect.advance(&mut node.server, &mut backend, input, out);
        let asked = backend.finish(|ticket| {
            node.tickets
                .insert(ticket, (Rc::clone(&self.mailbox), now.mono_ms));
        });
        if asked {
            node.request_flush_if_due();
        }
        self.requests += advanced.requests;
        self.progress = advanced.progress;
        advanced.consumed
    }

    fn completed(&mut self, context: &mut Context<'_>, ticket: TicketId) -> io::Result<Step> {
        let Some(completion) = self.mailbox.take(ticket) else {
            return Ok(Step::End);
        };
        let node = Rc::clone(&self.node);
        let mut node = node.borrow_mut();
        let now = node.now();
        let mut out = std::mem::take(&mut node.output);
        let Node {
            core,
            outputs,
            server,
            tickets,
            ..
        } = &mut *node;
        let mut backend = Backend::new(core, now, outputs);
        self.dialect.complete(server, &mut backend, completion, &mut out);
        let asked = backend.finish(|ticket| {
            tickets.insert(ticket, (Rc::clone(&self.mailbox), now.mono_ms));
        });
        if asked {
            node.request_flush_if_due();
        }
        node.output = out;
        let out = self.work_on(&mut node);
        self.send(context, &mut node, out)
    }

    /// Sends at once what the socket takes and keeps the rest.
    fn send(&mut self, context: &mut Context<'_>, node: &mut Node, mut out: Vec<u8>) -> io::Result<Step> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            while sent < out.len() {
                let rest = out.get(sent..).unwrap_or_default();
                match Pin::new(&mut self.stream).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(written)) => sent += written,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
        }
        self.unsent.extend_from_slice(out.get(sent..).unwrap_or_default());
        out.clear();
        node.give_back(out);
        if self.unsent.len() > node.server.settings.output_limit {
            node.server.stats.connections_overflowed += 1;
            return Ok(Step::End);
        }
        Ok(Step::Continue)
    }
}
