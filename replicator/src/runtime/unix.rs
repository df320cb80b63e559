//! Connections over UNIX sockets that are told of input alone.
//!
//! The kernel reports such a socket as writable each time the other side has read. A stream of Tokio listens for that,
//! too, which wakes the process once more per reply; here it is listened for only while a reply does not fit.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A socket that the event loop tells of what it is listened to for, and of nothing else.
#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that change; a socket of the standard library keeps its own"
)]
fn listening<S: AsRawFd>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}

/// Accepts connections. See the module.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<UnixListener>,
}

impl Listener {
    /// Takes a listening socket over.
    ///
    /// # Errors
    /// It cannot be registered with the event loop.
    pub fn new(socket: UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = listening(socket, Interest::READABLE)?;
        Ok(Self { socket })
    }

    /// The next connection.
    ///
    /// # Errors
    /// There are no file descriptors left, most likely.
    pub async fn accept(&self) -> io::Result<Stream> {
        let accepted = self
            .socket
            .async_io(Interest::READABLE, UnixListener::accept)
            .await;
        let (stream, _) = accepted?;
        Stream::new(stream)
    }
}

/// A connection. See the module.
#[derive(Debug)]
pub struct Stream {
    input: AsyncFd<UnixStream>,
    /// The same socket, listened to for room to write: there once a reply did not fit.
    output: Option<AsyncFd<UnixStream>>,
}

impl Stream {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let input = listening(stream, Interest::READABLE)?;
        Ok(Self { input, output: None })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.input.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            let Ok(read) = guard.try_io(|socket| socket.get_ref().read(room)) else {
                continue;
            };
            let read = read?;
            if read > 0 && read < wanted {
                // Nothing is left for now; a further read would only be told so (edge-triggered, epoll(7) question 9).
                guard.clear_ready();
            }
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.output.is_none() {
            match self.input.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
            let socket = self.input.get_ref().try_clone()?;
            self.output = Some(listening(socket, Interest::WRITABLE)?);
        }
        let Some(output) = &self.output else {
            return Poll::Pending;
        };
        loop {
            let mut guard = ready!(output.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|socket| socket.get_ref().write(bytes)) {
                drop(guard);
                self.output = None;
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.input.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::sleep;

    use super::*;

    fn pair() -> (Stream, Stream) {
        let (here, there) = UnixStream::pair().unwrap();
        (Stream::new(here).unwrap(), Stream::new(there).unwrap())
    }

    #[tokio::test]
    async fn more_than_fits_arrives_whole_and_then_the_end() {
        let (mut here, mut there) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let writer = async move {
            here.write_all(&sent).await.unwrap();
            assert!(here.output.is_none(), "listens for room no longer");
            here.shutdown().await.unwrap();
        };
        let reader = async move {
            // The writer has to have waited for room.
            sleep(Duration::from_millis(50)).await;
            let mut received = Vec::new();
            there.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(writer, reader);
        assert!(received == expected);
    }

    #[tokio::test]
    async fn messages_go_to_and_fro() {
        let (mut here, mut there) = pair();
        let mut buffer = [0; 64];
        for round in 0..100_u8 {
            here.write_all(&[round; 10]).await.unwrap();
            assert_eq!(there.read(&mut buffer).await.unwrap(), 10);
            there.write_all(&[round; 20]).await.unwrap();
            assert_eq!(here.read(&mut buffer).await.unwrap(), 20);
        }
        drop(here);
        assert_eq!(there.read(&mut buffer).await.unwrap(), 0);
    }
}
