//! Does what was decided.
//!
//! A promotion is recorded, the labels are changed and the Service leads to it before the server is told: clients are on their way
//! to it by then, and an operator that ends in between leaves a store that has no primary, which the next one finds, rather than two.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::observe::{Access, state};
use super::waiting::{QUEUE_TIMEOUT, WaitingRoom, is_primary};
use super::{Action, Member, Observation, Record, guard};
use crate::api::session_store::{Failover, FailoverCause};
use crate::runtime::writer::WriteError;
use crate::store::client::{Connection, Failure};
use crate::store::names::{PRIMARY, REPLICA};

/// How long a primary holds writes for a hand-over. Should the operator end meanwhile, it goes on after that.
const HOLD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the replica may take to get everything meanwhile; so much shorter that the primary has not gone on when the replica
/// has been told to take over, or has not answered.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first client is waited for that the Service leads to the server that is to be primary. Clients that stay connected
/// do not come there; those that connect anew for each request do as soon as a node has followed the labels, within half a second
/// where nothing is overloaded.
const ARRIVAL_TIMEOUT: Duration = Duration::from_millis(1500);

/// Pause between looks whether somebody has come.
const ARRIVAL_PAUSE: Duration = Duration::from_millis(10);

/// Once nobody new has come to the primary for so long, all nodes lead elsewhere; and whoever is in has had that time. Those that
/// connect anew for each request are done in milliseconds; those that stay connected connect again.
const QUIET: Duration = Duration::from_millis(500);

/// How long that is waited for, as clients wait at its successor meanwhile.
const QUIET_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between looks whether it has.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(5);

/// When connections to a server that is not the primary any more are closed: those that are open, and those that came in before
/// the door was shut.
const CLOSE_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1)];

/// How long the door of such a server is shut: nodes go on leading clients there for a moment, seconds on a busy machine.
const CLOSED_FOR: Duration = Duration::from_secs(5);

/// How long one that takes part in a hand-over is taken for shut, should nobody say how it ended.
const HAND_OVER_CLOSED_FOR: Duration = Duration::from_secs(15);

/// Servers whose users are shut out for now, by name, each until when. Who tells servers of their users leaves these alone.
#[derive(Clone, Debug, Default)]
pub struct Doors(Arc<Mutex<HashMap<String, Instant>>>);

impl Doors {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Instant>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives until when, by which the shutting is known.
    fn shut(&self, member: &Member, time: Duration) -> Instant {
        let until = Instant::now() + time;
        self.with(|doors| doors.insert(member.name.clone(), until));
        until
    }

    /// Whether a server that was shut until then has been opened since, or shut anew.
    fn is_another(&self, name: &str, until: Instant) -> bool {
        let is_opened = Instant::now() < until;
        self.with(|doors| doors.get(name).map_or(is_opened, |present| *present != until))
    }

    fn open(&self, name: &str) {
        self.with(|doors| doors.remove(name));
    }

    /// Those that are shut now.
    pub fn shut_now(&self) -> BTreeSet<String> {
        let now = Instant::now();
        self.with(|doors| {
            doors.retain(|_, until| *until > now);
            doors.keys().cloned().collect()
        })
    }
}

/// Where the servers are: what has to be written beside what they are told.
pub trait Surroundings {
    /// Keeps the record.
    fn record(&self, record: &Record) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Labels a pod.
    fn label(&self, member: &Member, role: &str) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Has the Service lead to a server.
    fn lead(&self, member: &Member) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Deletes a pod; another one is made.
    fn restart(&self, member: &Member) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write to the API server failed.
    #[error("{}", .0.explain())]
    Write(#[from] WriteError),
    /// A server refused, or did not answer.
    #[error("{}", .0.explain())]
    Server(#[from] Failure),
    /// Clients could not be made to wait at the replica.
    #[error("replica {to} did not hold what its primary sends, and its own promotion, within {} s", QUEUE_TIMEOUT.as_secs())]
    NotInTurn {
        /// The replica.
        to: String,
    },
    /// The replica did not get everything in time.
    #[error("replica {to} did not have everything within {} s", CATCH_UP_TIMEOUT.as_secs())]
    Behind {
        /// The replica.
        to: String,
    },
}

/// Does what was decided, with what was seen.
pub struct Actor<'a, S> {
    /// Where the servers are.
    pub surroundings: &'a S,
    /// How they are reached.
    pub access: &'a Access,
    /// What was seen.
    pub seen: &'a Observation,
    /// Servers whose users are shut out.
    pub doors: &'a Doors,
}

impl<S: Surroundings> Actor<'_, S> {
    /// Does one thing. Returns the record, if it is another one afterwards.
    pub async fn act(&self, action: &Action, now: jiff::Timestamp) -> Result<Option<Record>, Error> {
        match action {
            Action::Promote { member, cause } => self.promote(member, *cause, now).await.map(Some),
            Action::HandOver { from, to, cause } => self.hand_over(from, to, *cause, now).await.map(Some),
            Action::Follow { member, primary } => {
                if let (Some(member), Some(primary)) = (self.member(member), self.member(primary)) {
                    self.follow(member, primary).await?;
                }
                Ok(None)
            }
            Action::Label { member, role } => {
                if let Some(member) = self.member(member) {
                    self.label(member, role).await?;
                }
                Ok(None)
            }
            Action::Lead { member } => {
                if let Some(member) = self.member(member) {
                    self.surroundings.lead(member).await?;
                }
                Ok(None)
            }
            Action::Note { member } => {
                let Some(member) = self.member(member) else {
                    return Ok(None);
                };
                let record = noted(&self.seen.record, member);
                self.surroundings.record(&record).await?;
                Ok(Some(record))
            }
            Action::Guard { member, on } => {
                if let Some(member) = self.member(member) {
                    if !on && member.is_primary() {
                        // Changes nothing, but asks the API server: an operator on the same side of a cut must not lift it, as
                        // that hears the primary and nobody else.
                        self.surroundings.label(member, PRIMARY).await?;
                    }
                    let mut connection = self.access.connect(&member.address).await?;
                    let within_seconds = on.then_some(guard::LAG_SECONDS);
                    connection.take_writes_only_if_heard(within_seconds).await?;
                }
                Ok(None)
            }
            Action::Restart { member } => {
                if let Some(member) = self.member(member) {
                    self.surroundings.restart(member).await?;
                }
                Ok(None)
            }
        }
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.seen.members.iter().find(|member| member.name == name)
    }

    async fn label(&self, member: &Member, role: &str) -> Result<(), Error> {
        match self.surroundings.label(member, role).await {
            // A pod that is gone leads nobody anywhere.
            Ok(()) | Err(WriteError::Gone) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records who is about to be primary, and leads clients there.
    async fn announce(
        &self,
        member: &Member,
        cause: FailoverCause,
        now: jiff::Timestamp,
    ) -> Result<Record, Error> {
        let record = promoted(&self.seen.record, member, cause, now);
        let labels = self.seen.members.iter().filter(|other| other.pod.uid.is_some());
        let labels = labels.map(|other| {
            let role = if other.name == member.name {
                PRIMARY
            } else {
                REPLICA
            };
            async move {
                if other.pod.label.as_deref() == Some(role) {
                    return Ok(());
                }
                self.label(other, role).await
            }
        });
        let recording = async { self.surroundings.record(&record).await.map_err(Error::from) };
        let leading = async { self.surroundings.lead(member).await.map_err(Error::from) };
        futures::future::try_join3(recording, leading, futures::future::try_join_all(labels)).await?;
        Ok(record)
    }

    async fn promote(&self, name: &str, cause: FailoverCause, now: jiff::Timestamp) -> Result<Record, Error> {
        let Some(member) = self.member(name) else {
            return Ok(self.seen.record.clone());
        };
        let record = self.announce(member, cause, now).await?;
        let mut connection = self.access.connect(&member.address).await?;
        self.doors.open(name);
        connection.promote().await?;
        // An operator that ended while it handed over may have left them shut out.
        connection.let_in(&self.access.users).await?;
        self.gather(member).await;
        Ok(record)
    }

    /// The primary serves on until nobody new has come to it for a moment: nodes have followed the Service by then, and those who come
    /// to its successor wait there ([`WaitingRoom`]). Then nobody is let in at the primary any more, it lets writes wait for the
    /// moment in which its successor gets the last ones, and becomes its replica.
    async fn hand_over(
        &self,
        from: &str,
        to: &str,
        cause: FailoverCause,
        now: jiff::Timestamp,
    ) -> Result<Record, Error> {
        let (Some(primary), Some(replica)) = (self.member(from), self.member(to)) else {
            return Ok(self.seen.record.clone());
        };
        let (mut former, mut room) = futures::future::try_join(
            self.access.connect(&primary.address),
            WaitingRoom::at(self.access, to, &replica.address),
        )
        .await?;
        let users = &self.access.users;
        self.doors.shut(replica, HAND_OVER_CLOSED_FOR);
        let outcome = async {
            room.open(&mut former).await?;
            let record = self.announce(replica, cause, now).await?;
            self.followed(&mut former, &mut room).await?;
            self.doors.shut(primary, HAND_OVER_CLOSED_FOR);
            former.shut_out(users).await?;
            self.switch(&mut former, &mut room, replica).await?;
            Ok::<_, Error>(record)
        }
        .await;
        self.doors.open(&replica.name);
        // An answer that did not come leaves open whether it was done.
        if outcome.is_ok() || is_primary(&mut room.server).await? {
            let closed = room.close().await;
            self.close_clients(primary);
            self.gather(replica).await;
            closed?;
        } else {
            let called_off = room.call_off().await;
            self.doors.open(&primary.name);
            former.let_in(users).await?;
            called_off?;
            // Only now is it certain that there will not be two primaries.
            former.release_writes().await?;
        }
        outcome
    }

    /// Waits until clients come to the successor and no new ones to the former primary.
    async fn followed(&self, former: &mut Connection, room: &mut WaitingRoom<'_>) -> Result<(), Failure> {
        let users = &self.access.users;
        let begun = Instant::now();
        while room.server.newest_client_of(users).await?.is_none() && begun.elapsed() < ARRIVAL_TIMEOUT {
            tokio::time::sleep(ARRIVAL_PAUSE).await;
        }
        let (begun, mut quiet) = (Instant::now(), Instant::now());
        let mut newest = former.newest_client_of(users).await?;
        while quiet.elapsed() < QUIET && begun.elapsed() < QUIET_TIMEOUT {
            tokio::time::sleep(ARRIVAL_PAUSE).await;
            let now = former.newest_client_of(users).await?;
            if now > newest {
                (newest, quiet) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// From one primary to the next. The servers' own `FAILOVER` does the same, but hears of a replica's offset only once a second,
    /// and lets writes wait for as long.
    async fn switch(
        &self,
        former: &mut Connection,
        room: &mut WaitingRoom<'_>,
        replica: &Member,
    ) -> Result<(), Error> {
        former.hold_writes(Some(HOLD_TIMEOUT)).await?;
        everything_arrived(former, room, &replica.name).await?;
        room.promote().await?;
        // If this fails there are two primaries; the former one is found and demoted at the next look, by the record.
        let address = &replica.address;
        former
            .follow(
                &address.host,
                address.port,
                &self.access.follower,
                &self.access.password,
            )
            .await?;
        // Who still waits here connects again, which many clients do by themselves, rather than hear that this is a replica.
        former.close_clients_of(&self.access.users).await?;
        Ok(former.release_writes().await?)
    }

    /// Lets all others follow a new primary. What fails here is found and done at the next look.
    async fn gather(&self, primary: &Member) {
        let others = self.seen.members.iter().filter(|member| {
            member.name != primary.name
                && !member.pod.terminating
                && member
                    .state()
                    .is_some_and(|state| !state.loading && !state.handing_over)
        });
        let told = others.map(|member| async move {
            // The former primary has been told.
            if member.is_primary() {
                return;
            }
            if let Err(error) = self.follow(member, primary).await {
                tracing::info!(server = member.name, %error, "not told of the new primary yet");
            }
        });
        futures::future::join_all(told).await;
    }

    async fn follow(&self, member: &Member, primary: &Member) -> Result<(), Error> {
        let mut connection = self.access.connect(&member.address).await?;
        connection
            .follow(
                &primary.address.host,
                primary.address.port,
                &self.access.follower,
                &self.access.password,
            )
            .await?;
        if !member.follows(primary) {
            self.close_clients(member);
        }
        Ok(())
    }

    /// Shuts applications out of a server that is not the primary, for a while: a client that reads its session there cannot write
    /// it. Then they are let in again, as it may be primary some day.
    fn close_clients(&self, member: &Member) {
        let (access, address, name) = (self.access.clone(), member.address.clone(), member.name.clone());
        let doors = self.doors.clone();
        let until = doors.shut(member, CLOSED_FOR);
        tokio::spawn(async move {
            let begun = Instant::now();
            for after in CLOSE_AFTER {
                tokio::time::sleep(after.saturating_sub(begun.elapsed())).await;
                let is_other = || doors.is_another(&name, until);
                if is_other() {
                    return;
                }
                if let Err(error) = close(&access, &address, is_other).await {
                    tracing::debug!(server = name, %error, "connections not closed");
                }
            }
            tokio::time::sleep(CLOSED_FOR.saturating_sub(begun.elapsed())).await;
            if doors.is_another(&name, until) {
                return;
            }
            doors.open(&name);
            let admitted = async { access.connect(&address).await?.let_in(&access.users).await };
            if let Err(error) = admitted.await {
                tracing::info!(server = name, %error, "users are let in when it is told of them again");
            }
        });
    }
}

/// Shuts applications out of a server and closes their connections, unless it is primary by now. It is shut first: it may be
/// made primary, and opened, between a look and what follows from it.
async fn close(
    access: &Access,
    address: &super::Address,
    is_other: impl Fn() -> bool,
) -> Result<(), Failure> {
    let mut connection = access.connect(address).await?;
    // By now it may be the one that takes over.
    if is_other() {
        return Ok(());
    }
    connection.shut_out(&access.users).await?;
    if is_primary(&mut connection).await? {
        return connection.let_in(&access.users).await;
    }
    connection.close_clients_of(&access.users).await
}

/// Waits until everything that a primary which holds writes has sent has arrived at its successor.
async fn everything_arrived(
    former: &mut Connection,
    room: &mut WaitingRoom<'_>,
    name: &str,
) -> Result<(), Error> {
    let begun = Instant::now();
    let everything = state(former).await?.offset;
    while room.received().await? < everything {
        if begun.elapsed() > CATCH_UP_TIMEOUT {
            return Err(Error::Behind { to: name.to_owned() });
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
    Ok(())
}

/// The record once a server is made primary. Its history keeps the former name until it is seen: replicas that have not heard
/// of the change have that one.
fn promoted(former: &Record, member: &Member, cause: FailoverCause, now: jiff::Timestamp) -> Record {
    Record {
        epoch: former.epoch + 1,
        primary: Some(member.name.clone()),
        uid: member.pod.uid.clone(),
        history: former.history.clone(),
        last_failover: if cause == FailoverCause::Created {
            None
        } else {
            Some(Failover {
                time: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                from: former.primary.clone(),
                to: member.name.clone(),
                cause,
            })
        },
    }
}

/// The record once a server is seen to be primary.
fn noted(former: &Record, member: &Member) -> Record {
    let same = former.primary.as_deref() == Some(member.name.as_str());
    Record {
        epoch: if same && former.epoch > 0 {
            former.epoch
        } else {
            former.epoch + 1
        },
        primary: Some(member.name.clone()),
        uid: member.pod.uid.clone(),
        history: member.state().and_then(|state| state.history.first().cloned()),
        // One that was recorded and did not come about is none.
        last_failover: former
            .last_failover
            .clone()
            .filter(|failover| failover.to == member.name),
    }
}
