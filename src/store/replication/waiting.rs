//! A replica at which clients wait while it is on its way to be primary.
//!
//! Nodes follow a Service one after the other, so for a moment some clients are led to the primary and others to its successor. The
//! latter are not refused: they are let in, may not read, and their writes wait (`CLIENT PAUSE … WRITE`), behind the changes that the
//! primary still sends and behind the command that makes the replica a primary. When writes are released, the server works on
//! all that in the order in which it came: it has everything, then it is primary, then it answers. A client that begins with a
//! write, as one with locks does, notices nothing but the wait; one that begins with reading is refused before it has read what
//! may be old.
//!
//! This rests on how Redis from 7.0 on and Valkey do it (`blockPostponeClient` and `processUnblockedClients` in their
//! `networking.c` and `blocked.c`): what waits goes on in the order in which it began to, each connection with all that it has
//! received. The tests with real servers hold them to it.

use std::time::{Duration, Instant};

use super::act::Error;
use super::observe::{Access, state};
use super::{Address, Role};
use crate::store::client::{Connection, Failure, Queued};

/// How long the primary's next change, and the command after it, may take to arrive.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between looks whether they have.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Channel of a message that the primary sends on to its replicas as it does changes. It does so, too, while it refuses writes, as its
/// memory or its volume is full.
const CHANNEL: &str = "session-operator:hand-over";

/// See the module.
#[derive(Debug)]
pub struct WaitingRoom<'a> {
    /// The replica.
    pub server: Connection,
    name: &'a str,
    address: &'a Address,
    access: &'a Access,
    /// Makes it primary in its turn.
    promotion: Option<(u64, Queued)>,
}

impl<'a> WaitingRoom<'a> {
    /// Of the replica `name`.
    pub async fn at(access: &'a Access, name: &'a str, address: &'a Address) -> Result<Self, Failure> {
        Ok(Self {
            server: access.connect(address).await?,
            name,
            address,
            access,
            promotion: None,
        })
    }

    /// From now on clients wait here, behind what `primary` sends.
    pub async fn open(&mut self, primary: &mut Connection) -> Result<(), Error> {
        let users = &self.access.users;
        self.server.let_in_without_reads(users).await?;
        self.server.hold_writes(None).await?;
        self.server.refuse_writes_as_replica(false).await?;
        primary.command::<i64>(&["PUBLISH", CHANNEL, ""]).await?;
        let begun = Instant::now();
        while !self.holds_changes().await? {
            self.still_in_time(begun)?;
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
        let mut next = self.access.connect(self.address).await?;
        let id = next.id().await?;
        self.promotion = Some((id, next.promote_in_turn()));
        while !self.server.is_waiting(id).await? {
            self.still_in_time(begun)?;
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
        Ok(())
    }

    async fn holds_changes(&mut self) -> Result<bool, Failure> {
        let state = state(&mut self.server).await?;
        Ok(state.received > state.offset)
    }

    fn still_in_time(&self, begun: Instant) -> Result<(), Error> {
        if begun.elapsed() < QUEUE_TIMEOUT {
            return Ok(());
        }
        Err(self.not_in_turn())
    }

    fn not_in_turn(&self) -> Error {
        Error::NotInTurn {
            to: self.name.to_owned(),
        }
    }

    /// Bytes of the history of changes that have arrived.
    pub async fn received(&mut self) -> Result<i64, Failure> {
        Ok(state(&mut self.server).await?.received)
    }

    /// Makes it primary, as everything is there, and lets clients go on.
    pub async fn promote(&mut self) -> Result<(), Error> {
        let is_next = match &self.promotion {
            Some((id, _)) => self.server.is_waiting(*id).await?,
            None => false,
        };
        if !is_next {
            return Err(self.not_in_turn());
        }
        self.server.let_in_and_release(&self.access.users).await?;
        // It has been carried out by the time that the next command is.
        if !is_primary(&mut self.server).await? {
            self.server.promote().await?;
        }
        Ok(())
    }

    /// Leaves it as a primary has to be.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.server.let_in_and_release(&self.access.users).await?;
        self.server.refuse_writes_as_replica(true).await
    }

    /// Leaves it as a replica has to be: clients that wait are refused, and its primary's changes go on.
    pub async fn call_off(mut self) -> Result<(), Failure> {
        // Before anything goes on: no write of a client may be taken here.
        self.server.refuse_writes_as_replica(true).await?;
        self.promotion = None;
        self.server.let_in_and_release(&self.access.users).await
    }
}

/// Whether a server is primary.
pub async fn is_primary(connection: &mut Connection) -> Result<bool, Failure> {
    Ok(state(connection).await?.role == Role::Primary)
}
