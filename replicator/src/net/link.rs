//! Links: one stream per peer, frames with a length of four bytes in front.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::core::{Input, LinkId, MAX_FRAME};
use crate::runtime::node::Shared;

/// Bytes of the length in front of a frame.
const LENGTH: usize = 4;
/// Bytes that one write gathers at most, unless a single frame is longer.
const GATHERED: usize = 256 << 10;
/// Room for input, and the step in which it grows: what a peer announces is not believed before it has come.
const STEP: usize = 64 << 10;

/// What waits to be sent on a link.
#[derive(Debug, Default)]
struct Queue {
    frames: RefCell<VecDeque<Bytes>>,
    closing: Cell<bool>,
    changed: Notify,
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    queues: HashMap<LinkId, Rc<Queue>>,
    next: u64,
    /// Bytes sent to peers, lengths included.
    pub sent_bytes: u64,
    /// Bytes received from peers.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent_frames: u64,
    /// Frames received.
    pub received_frames: u64,
}

impl Links {
    /// Puts a frame behind those that wait. The core bounds what is under way.
    pub fn send(&mut self, link: LinkId, frame: Bytes) {
        if let Some(queue) = self.queues.get(&link) {
            self.sent_frames += 1;
            self.sent_bytes += u64::try_from(frame.len() + LENGTH).unwrap_or(0);
            queue.frames.borrow_mut().push_back(frame);
            queue.changed.notify_one();
        }
    }

    /// Ends a link once what waits is sent.
    pub fn close(&mut self, link: LinkId) {
        if let Some(queue) = self.queues.get(&link) {
            queue.closing.set(true);
            queue.changed.notify_one();
        }
    }

    /// Number of links.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    fn open(&mut self) -> (LinkId, Rc<Queue>) {
        self.next += 1;
        let link = LinkId(self.next);
        let queue = Rc::<Queue>::default();
        self.queues.insert(link, Rc::clone(&queue));
        (link, queue)
    }
}

/// Carries frames between a peer and the core until the stream ends, or nothing has come for so long that the core suspects the
/// peer. TCP tries less and less often to reach one that was cut off, and stays silent for as long again when it is back; a new
/// connection is made at once.
///
/// # Errors
/// The stream failed or fell silent, or the peer sent something that is no frame.
pub async fn run<S>(stream: S, node: &Shared, dialled: bool) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (link, queue, longest_silence) = {
        let mut node = node.borrow_mut();
        let (link, queue) = node.links.open();
        node.step(&Input::LinkUp { link, dialled });
        (link, queue, node.core.longest_silence())
    };
    let (reader, writer) = tokio::io::split(stream);
    let result = tokio::select! {
        result = read(reader, node, link, longest_silence) => result,
        result = write(writer, &queue) => result,
    };
    let mut node = node.borrow_mut();
    node.links.queues.remove(&link);
    node.step(&Input::LinkDown { link });
    result
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    node: &Shared,
    link: LinkId,
    longest_silence: Duration,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(STEP);
        }
        let read = timeout(longest_silence, reader.read_buf(&mut buffer)).await??;
        if read == 0 {
            return Ok(());
        }
        let mut node = node.borrow_mut();
        node.links.received_bytes += u64::try_from(read).unwrap_or(0);
        while let Some(frame) = next_frame(&mut buffer)? {
            node.links.received_frames += 1;
            node.step(&Input::Frame { link, bytes: &frame });
        }
        if buffer.is_empty() && buffer.capacity() > STEP {
            buffer = BytesMut::new();
        }
    }
}

/// Takes a frame off the buffer if a whole one is there.
fn next_frame(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some((length, _)) = buffer.split_first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a peer announced a frame that is too long",
        ));
    }
    if buffer.len() < LENGTH + length {
        return Ok(None);
    }
    buffer.advance(LENGTH);
    Ok(Some(buffer.split_to(length)))
}

async fn write(mut writer: impl AsyncWrite + Unpin, queue: &Queue) -> io::Result<()> {
    let mut gathered = Vec::new();
    loop {
        gather(queue, &mut gathered)?;
        if gathered.is_empty() {
            if queue.closing.get() {
                return writer.shutdown().await;
            }
            queue.changed.notified().await;
            continue;
        }
        writer.write_all(&gathered).await?;
        writer.flush().await?;
        gathered.clear();
        gathered.shrink_to(GATHERED);
    }
}

/// Moves waiting frames, with their lengths, into one buffer.
fn gather(queue: &Queue, gathered: &mut Vec<u8>) -> io::Result<()> {
    let mut frames = queue.frames.borrow_mut();
    while let Some(frame) = frames.pop_front() {
        let length = u32::try_from(frame.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long to be sent"))?;
        gathered.extend_from_slice(&length.to_be_bytes());
        gathered.extend_from_slice(&frame);
        if gathered.len() >= GATHERED {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off_one_by_one() {
        let mut buffer = BytesMut::from(b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02x".as_slice());
        assert_eq!(
            next_frame(&mut buffer).unwrap().as_deref(),
            Some(b"abc".as_slice())
        );
        assert_eq!(next_frame(&mut buffer).unwrap().as_deref(), Some(b"".as_slice()));
        assert!(next_frame(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(b"y");
        assert_eq!(
            next_frame(&mut buffer).unwrap().as_deref(),
            Some(b"xy".as_slice())
        );
        assert!(next_frame(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_comes() {
        let mut buffer = BytesMut::from(b"\xff\xff\xff\xff".as_slice());
        assert!(next_frame(&mut buffer).is_err());
    }
}
