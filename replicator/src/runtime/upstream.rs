//! The upstream store's tasks: looking up, writing, and copying everything from there.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::follow;
use super::node::{Node, Shared};
use crate::core::{Client, Command, CommandError, Executed, Fetched, Input, Op, Reply};
use crate::front::mailbox::Mailbox;
use crate::front::resp::keyspace;
use crate::net::upstream::{KEPT, Store, UpstreamError};

/// After a failure nothing is asked for so long.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks whether it is in reach, and for what is to be written.
const INTERVAL: Duration = Duration::from_millis(500);
/// Keys of a copy that are looked up at once: clients' look-ups have as many connections left.
const COPY_AT_ONCE: usize = KEPT / 2;
/// After a failure a copy rests for so long, and so often in a row before it ends.
const COPY_PAUSE: Duration = Duration::from_secs(1);
const COPY_ATTEMPTS: u32 = 30;

/// How copying everything from the upstream store goes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CopyIn {
    /// It is under way.
    pub running: bool,
    /// Copies that came to their end.
    pub completed: u64,
    /// Copies that were given up.
    pub abandoned: u64,
    /// Keys that the present or last copy has come upon.
    pub seen: u64,
    /// Of those, keys that are here now.
    pub present: u64,
    /// Of those, keys that ended in the meantime or are no sessions.
    pub absent: u64,
}

/// What the tasks share.
#[derive(Debug)]
pub struct Upstream {
    store: Rc<Store>,
    prefix: Vec<u8>,
    lookups: Rc<Semaphore>,
    /// Nothing is asked before.
    paused_until: RefCell<Option<Instant>>,
    /// Told when there may be something to write.
    pub written: Rc<Notify>,
    /// How copying from there goes.
    pub copy: RefCell<CopyIn>,
    /// How often copying everything there was begun.
    pub copies_out: Cell<u64>,
    /// The hold (by [`Node::holds`]) during which that was begun last.
    pub copied_in_hold: Cell<Option<u64>>,
    timeout: Duration,
}

impl Upstream {
    /// Nothing is under way yet. Look-ups take `timeout` at most.
    pub fn new(store: Store, prefix: Vec<u8>, timeout: Duration) -> Self {
        Self {
            store: Rc::new(store),
            prefix,
            lookups: Rc::new(Semaphore::new(KEPT)),
            paused_until: RefCell::default(),
            written: Rc::default(),
            copy: RefCell::default(),
            copies_out: Cell::default(),
            copied_in_hold: Cell::default(),
            timeout,
        }
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn is_paused(&self) -> bool {
        self.paused_until
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self, error: &UpstreamError) {
        if matches!(error, UpstreamError::Io(_) | UpstreamError::Late(_)) {
            *self.paused_until.borrow_mut() = Some(Instant::now() + PAUSE);
        }
    }

    /// It has answered: there is no reason to hold look-ups back.
    fn resume(&self) {
        *self.paused_until.borrow_mut() = None;
    }

    async fn look_up(&self, key: &[u8], wall_ms: u64) -> Fetched {
        if self.is_paused() {
            return Fetched::Failed;
        }
        let asked = timeout(self.timeout, async {
            let Ok(_permit) = self.lookups.acquire().await else {
                return Fetched::Failed;
            };
            match self.store.fetch(keyspace::decode(key).1, wall_ms).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.pause(&error);
                    warn!(%error, "a look-up in the upstream store failed");
                    Fetched::Failed
                }
            }
        });
        asked.await.unwrap_or_else(|late| {
            self.pause(&late.into());
            Fetched::Failed
        })
    }
}

/// Answers a look-up of the core.
pub fn look_up(node: &Shared, upstream: &Rc<Upstream>, number: u64, key: Box<[u8]>) {
    let (node, upstream) = (Rc::clone(node), Rc::clone(upstream));
    spawn_local(async move {
        let wall_ms = node.borrow().now().wall_ms;
        let fetched = upstream.look_up(&key, wall_ms).await;
        node.borrow_mut().step(&Input::Fetched {
            number,
            fetched: &fetched,
        });
    });
}

/// Answers look-ups, and writes what is to be written, for as long as the process lives.
pub fn start(node: &Shared, upstream: Rc<Upstream>) {
    let fetches = Rc::clone(&node.borrow().fetch);
    let (asking, answering) = (Rc::clone(node), Rc::clone(&upstream));
    spawn_local(async move {
        loop {
            fetches.notified().await;
            let wanted = std::mem::take(&mut asking.borrow_mut().fetches);
            for (number, key) in wanted {
                look_up(&asking, &answering, number, key);
            }
        }
    });
    spawn_local(write(Rc::clone(node), upstream));
}

async fn write(node: Shared, upstream: Rc<Upstream>) {
    let mut reached = false;
    loop {
        let portion = {
            let mut node = node.borrow_mut();
            let now = node.now();
            node.core.next_upstream(now).map(|portion| (portion, now.wall_ms))
        };
        let (upto, done) = match &portion {
            Some((portion, wall_ms)) => {
                let done = upstream.store.write(&portion.writes, *wall_ms).await;
                (portion.last, done)
            }
            None => (0, upstream.store.ping().await),
        };
        match done {
            Ok(()) => {
                if !reached {
                    info!("the upstream store is in reach");
                }
                reached = true;
                upstream.resume();
                node.borrow_mut().step(&Input::UpstreamConfirmed { upto });
            }
            Err(error) => {
                if reached {
                    warn!(%error, "the upstream store is not in reach, or does not take what is written");
                }
                reached = false;
                node.borrow_mut().step(&Input::UpstreamLost);
                sleep(PAUSE).await;
                continue;
            }
        }
        if portion.is_none() {
            // What came meanwhile has left a permit.
            drop(timeout(INTERVAL, upstream.written.notified()).await);
        }
    }
}

/// What a process can be asked about its upstream store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamRequest {
    /// Copy everything from there.
    CopyIn,
    /// Copy everything to there.
    CopyOut,
    /// Make clients wait for what is to come.
    Hold,
    /// Pass clients on to it.
    Follow,
    /// Answer clients from here.
    Lead,
}

impl UpstreamRequest {
    /// The request that a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "copy-in" => Self::CopyIn,
            "copy-out" => Self::CopyOut,
            "hold" => Self::Hold,
            "follow" => Self::Follow,
            "lead" => Self::Lead,
            _ => return None,
        })
    }
}

/// Does what is asked, or begins to; gives a sentence about it.
pub fn ask(node: &Shared, request: UpstreamRequest) -> &'static str {
    let Some(upstream) = node.borrow().upstream.clone() else {
        return "there is no upstream store: set --upstream";
    };
    match request {
        UpstreamRequest::CopyIn => {
            copy_in(node, &upstream);
            "copying from the upstream store: see upstream in the state"
        }
        UpstreamRequest::CopyOut => {
            let mut node = node.borrow_mut();
            let now = node.now();
            let hold = node.held.then_some(node.holds);
            // What is under way began when there were writes yet.
            if node.core.upstream_stats().is_some_and(|stats| stats.copying) {
                return "copying to the upstream store is under way";
            }
            node.core.copy_upstream(now, hold.is_some());
            upstream.copied_in_hold.set(hold);
            upstream.copies_out.set(upstream.copies_out.get() + 1);
            upstream.written.notify_one();
            "copying to the upstream store: see upstream in the state"
        }
        UpstreamRequest::Hold => {
            follow::hold(node);
            "clients wait until this is to follow or to lead, for 10 s at most"
        }
        UpstreamRequest::Follow => {
            follow::change(node, true);
            "clients are passed on to the upstream store"
        }
        UpstreamRequest::Lead if is_outdated(&node.borrow()) => {
            "what is held here may be older than what the upstream store has: start the process anew"
        }
        UpstreamRequest::Lead => {
            follow::change(node, false);
            "clients are answered from here"
        }
    }
}

/// Whether what is held here may be older than what the store has: clients have been passed on since they were answered.
fn is_outdated(node: &Node) -> bool {
    node.follows && node.led
}

/// Begins to copy everything from the upstream store, unless that is under way.
pub fn copy_in(node: &Shared, upstream: &Rc<Upstream>) {
    {
        let mut copy = upstream.copy.borrow_mut();
        if copy.running {
            return;
        }
        *copy = CopyIn {
            running: true,
            completed: copy.completed,
            abandoned: copy.abandoned,
            ..CopyIn::default()
        };
    }
    let (node, upstream) = (Rc::clone(node), Rc::clone(upstream));
    spawn_local(async move {
        let result = copy_all(&node, &upstream).await;
        let mut copy = upstream.copy.borrow_mut();
        copy.running = false;
        match result {
            Ok(()) => {
                copy.completed += 1;
                info!(
                    seen = copy.seen,
                    present = copy.present,
                    "everything is copied from the upstream store"
                );
            }
            Err(error) => {
                copy.abandoned += 1;
                warn!(%error, "copying from the upstream store was given up");
            }
        }
    });
}

async fn copy_all(node: &Shared, upstream: &Upstream) -> Result<(), UpstreamError> {
    let pattern = pattern(&upstream.prefix);
    for server in patiently(|| upstream.store.servers()).await? {
        let mut cursor = 0;
        loop {
            let (next, keys) = patiently(|| upstream.store.scan(&server, cursor, &pattern)).await?;
            for some in keys.chunks(COPY_AT_ONCE) {
                copy_some(node, upstream, some).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Asks for keys as a client does: what is not known yet is then looked up by its home, wherever that is.
async fn copy_some(node: &Shared, upstream: &Upstream, keys: &[Vec<u8>]) -> Result<(), UpstreamError> {
    let mut left: Vec<&Vec<u8>> = keys.iter().collect();
    upstream.copy.borrow_mut().seen += u64::try_from(keys.len()).unwrap_or_default();
    for _ in 0..COPY_ATTEMPTS {
        let mut again = Vec::new();
        for (key, reply) in left
            .iter()
            .zip(ask_all(node, upstream.store.database(), &left).await)
        {
            let mut copy = upstream.copy.borrow_mut();
            match reply {
                Reply::Int(1) => copy.present += 1,
                Reply::Error(CommandError::OutOfMemory) => {
                    return Err(UpstreamError::Unexpected("a copy: the memory limit is reached"));
                }
                Reply::Error(CommandError::WrongType) => copy.absent += 1,
                Reply::Error(_) => again.push(*key),
                _ => copy.absent += 1,
            }
        }
        left = again;
        if left.is_empty() {
            return Ok(());
        }
        sleep(COPY_PAUSE).await;
    }
    Err(UpstreamError::Unexpected("look-ups: they failed again and again"))
}

async fn ask_all(node: &Shared, database: u8, keys: &[&Vec<u8>]) -> Vec<Reply> {
    let mailbox = Rc::new(Mailbox::new(0));
    let mut asked = Vec::with_capacity(keys.len());
    {
        let mut node = node.borrow_mut();
        let now = node.now();
        for key in keys {
            let mut stored = Vec::new();
            keyspace::encode(database, key, &mut stored);
            let command = Command::Key {
                key: &stored,
                op: Op::Exists,
            };
            let node = &mut *node;
            let executed = node
                .core
                .execute(now, &mut Client::new(), &command, &mut node.outputs);
            if let Executed::Pending(ticket) = executed {
                node.tickets.insert(ticket, (Rc::clone(&mailbox), now.mono_ms));
            }
            asked.push(executed);
        }
        node.request_flush();
    }
    let mut replies = Vec::with_capacity(asked.len());
    for executed in asked {
        replies.push(match executed {
            Executed::Done(reply) => reply,
            Executed::Pending(ticket) => {
                poll_fn(|context| mailbox.poll_ready(context, |mailbox| mailbox.has(ticket))).await;
                mailbox
                    .take(ticket)
                    .map_or(Reply::Nil, |completion| completion.reply)
            }
        });
    }
    replies
}

/// Tries again and again for a while.
async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, UpstreamError>>,
{
    for _ in 1..COPY_ATTEMPTS {
        match attempt().await {
            Err(UpstreamError::Io(_) | UpstreamError::Late(_)) => sleep(COPY_PAUSE).await,
            other => return other,
        }
    }
    attempt().await
}

/// A glob for all keys with a prefix.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::new();
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}
