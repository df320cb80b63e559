//! The control socket: one line in, the answer out. Who may open it decides its folder and mode.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::drain::drain;
use super::node::Shared;
use super::state::State;
use super::upstream::UpstreamRequest;
use super::{RunError, listen, unix, upstream};
use crate::config::{DrainTimes, Request};

/// Only the user that the sidecar runs as.
const MODE: u32 = 0o600;
/// For a request line to come: it is sent with the connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest request line.
const MAX_REQUEST: u64 = 64;
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Request {
    fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Drain => "drain",
            Self::CopyIn => "copy-in",
            Self::CopyOut => "copy-out",
            Self::Hold => "hold",
            Self::Follow => "follow",
            Self::Lead => "lead",
        }
    }
}

/// Opens the control socket.
///
/// # Errors
/// It cannot be made.
pub fn start(path: &Path, times: DrainTimes, node: &Shared) -> Result<(), RunError> {
    let listener = listen::unix(path, MODE)?;
    spawn_local(accept(listener, times, Rc::clone(node)));
    Ok(())
}

async fn accept(listener: unix::Listener, times: DrainTimes, node: Shared) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let node = Rc::clone(&node);
                spawn_local(async move {
                    if let Err(error) = answer(stream, times, &node).await {
                        debug!(%error, "a control request ended early");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept control requests");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: unix::Stream, times: DrainTimes, node: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(
        REQUEST_TIMEOUT,
        (&mut stream).take(MAX_REQUEST).read_line(&mut line),
    )
    .await??;
    let text = match line.trim() {
        "state" => {
            let state = State::of(&node.borrow());
            serde_json::to_string_pretty(&state)? + "\n"
        }
        "drain" => {
            if drain(node, times).await {
                "everything is handed over\n".to_owned()
            } else {
                "not everything was handed over in time; what is left is handed over at SIGTERM\n".to_owned()
            }
        }
        word => match UpstreamRequest::parse(word) {
            Some(request) => format!("{}\n", upstream::ask(node, request)),
            None => {
                "unknown request: expected state, drain, copy-in, copy-out, hold, follow or lead\n".to_owned()
            }
        },
    };
    stream.get_mut().write_all(text.as_bytes()).await?;
    stream.get_mut().shutdown().await
}

/// Asks a running process, and gives its answer.
///
/// # Errors
/// There is none, or it ended before it answered.
pub async fn ask(path: &Path, request: Request) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    stream
        .write_all(format!("{}\n", request.word()).as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
