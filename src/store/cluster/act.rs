//! Does what was decided. Each thing can be done twice, and what was not done is decided again at the next look.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::decide::Means;
use super::nodes::FEWEST_CLIENTS;
use super::{Action, Member, Observation, Record, Slots};
use crate::api::session_store::{ClusterLoss, Failover, FailoverCause};
use crate::runtime::writer::WriteError;
use crate::store::client::{Connection, Failure};
use crate::store::replication::Address;
use crate::store::replication::observe::Access;

/// How long slots are moved key by key before the servers are looked at again.
const MOVES_TIMEOUT: Duration = Duration::from_secs(1);

/// Slots that are between two servers at once.
const MOVED_SLOTS: usize = 64;

/// Keys that are moved at once. The server does nothing else meanwhile.
const MOVED_KEYS: u16 = 50;

/// How long that may take: less than a server may be silent before the others take it for failed.
const MOVED_KEYS_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the servers are: what has to be written beside what they are told.
pub trait Surroundings {
    /// Keeps the record.
    fn record(&self, record: &Record) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Labels a pod.
    fn label(&self, member: &Member, role: &str) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Deletes a pod; another one is made.
    fn restart(&self, member: &Member) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Removes the servers of a shard, and their volumes.
    fn remove(&self, shard: usize) -> impl Future<Output = Result<(), WriteError>> + Send;
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
}

/// Does what was decided, with what was seen.
pub struct Actor<'a, S> {
    /// Where the servers are.
    pub surroundings: &'a S,
    /// How they are reached.
    pub access: &'a Access,
    /// What was seen.
    pub seen: &'a Observation,
    /// Why servers were told to become primary lately, by their pods. It is recorded once they are.
    pub causes: &'a HashMap<String, FailoverCause>,
}

impl<S: Surroundings> Actor<'_, S> {
    /// Does one thing. Returns the record, if it is another one afterwards.
    pub async fn act(&self, action: &Action, now: jiff::Timestamp) -> Result<Option<Record>, Error> {
        match action {
            Action::Meet { at, member } => {
                if let (Some(at), Some(member)) = (self.member(at), self.member(member))
                    && let Some(myself) = member.state().and_then(|state| state.myself())
                {
                    let mut connection = self.connect(at).await?;
                    connection.meet(&member.address, myself.bus).await?;
                }
                Ok(None)
            }
            Action::Forget { at, id } => {
                if let Some(at) = self.member(at) {
                    self.connect(at).await?.forget(id).await?;
                }
                Ok(None)
            }
            Action::Follow { member, primary } => {
                if let (Some(member), Some(id)) =
                    (self.member(member), self.member(primary).and_then(Member::id))
                {
                    self.connect(member).await?.replicate(id).await?;
                }
                Ok(None)
            }
            Action::TakeOver { member, means, .. } => {
                if let Some(member) = self.member(member) {
                    self.connect(member).await?.take_over(*means).await?;
                }
                Ok(None)
            }
            Action::Assign { member, slots } => {
                let Some(member) = self.member(member) else {
                    return Ok(None);
                };
                self.connect(member).await?.assign(slots).await?;
                // Of a new store nothing was lost.
                if !self.seen.record.formed {
                    return Ok(None);
                }
                self.keep(lost(&self.seen.record, slots.len(), now)).await
            }
            Action::Label { member, role } => {
                let Some(member) = self.member(member) else {
                    return Ok(None);
                };
                match self.surroundings.label(member, role).await {
                    Ok(()) | Err(WriteError::Gone) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Action::Move { from, to, slots } => {
                if let (Some(from), Some(to)) = (self.member(from), self.member(to)) {
                    self.move_slots(from, to, slots).await?;
                }
                Ok(None)
            }
            Action::MoveWhole { from, to, slots } => {
                if let (Some(from), Some(id)) = (self.member(from), self.member(to).and_then(Member::id)) {
                    self.connect(from).await?.move_whole(slots, id).await?;
                }
                Ok(None)
            }
            Action::Settle { member, slot } => {
                if let Some(member) = self.member(member) {
                    self.connect(member)
                        .await?
                        .set_slots(&[*slot], &["STABLE"])
                        .await?;
                }
                Ok(None)
            }
            Action::Remove { shard } => {
                self.surroundings.remove(*shard).await?;
                Ok(None)
            }
            Action::Note {
                primaries,
                formed,
                shards,
            } => self.keep(self.noted(primaries, *formed, *shards, now)).await,
            Action::TurnAway { member } => {
                if let Some(member) = self.member(member) {
                    let mut connection = self.connect(member).await?;
                    let fewest = FEWEST_CLIENTS.to_string();
                    connection.set_config("maxclients", &fewest).await?;
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

    async fn connect(&self, member: &Member) -> Result<Connection, Failure> {
        self.access.connect(&member.address).await
    }

    async fn keep(&self, record: Record) -> Result<Option<Record>, Error> {
        self.surroundings.record(&record).await?;
        Ok(Some(record))
    }

    /// The record once other servers are seen to be primary: servers elect by themselves.
    fn noted(
        &self,
        primaries: &BTreeMap<usize, String>,
        formed: bool,
        shards: usize,
        now: jiff::Timestamp,
    ) -> Record {
        let former = &self.seen.record;
        let changed = primaries.iter().find_map(|(shard, to)| {
            let from = former.primaries.get(shard)?;
            (from != to).then_some((from, to))
        });
        let mut record = Record {
            version: former.version + 1,
            formed,
            shards,
            primaries: primaries.clone(),
            ..former.clone()
        };
        if let Some((from, to)) = changed {
            let known = self.causes.get(to).copied();
            let cause = known.unwrap_or_else(|| super::decide::cause(self.member(from)));
            record.last_failover = Some(Failover {
                time: text(now),
                from: Some(from.clone()),
                to: to.clone(),
                cause,
            });
            let slots = self
                .member(to)
                .and_then(Member::state)
                .map(|state| state.slots().len());
            if let (FailoverCause::AllLost, Some(slots)) = (cause, slots) {
                return lost(&record, slots, now);
            }
        }
        record
    }
}

/// The record once slots of which nobody had anything any more were given to somebody. Those of the same moment count together.
fn lost(former: &Record, slots: usize, now: jiff::Timestamp) -> Record {
    let time = text(now);
    let before = former.last_loss.as_ref().filter(|loss| loss.time == time);
    let slots = i32::try_from(slots).unwrap_or(i32::MAX);
    Record {
        version: former.version + 1,
        last_loss: Some(ClusterLoss {
            slots: slots + before.map_or(0, |loss| loss.slots),
            time,
        }),
        ..former.clone()
    }
}

fn text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Moves of slots, key by key (<https://valkey.io/commands/cluster-setslot/>).
impl<S: Surroundings> Actor<'_, S> {
    /// A few slots are opened, emptied and given away before the next ones: a server writes a file to its disk for whatever it is told
    /// at once, and waits for it. Those that an operator leaves open when it ends are found by the next one, and serve meanwhile. What
    /// was not begun within the time is decided again.
    async fn move_slots(&self, from: &Member, to: &Member, slots: &Slots) -> Result<(), Error> {
        let (Some(from_id), Some(to_id)) = (from.id(), to.id()) else {
            return Ok(());
        };
        let mut source = self.connect(from).await?;
        let mut target = self.connect(to).await?;
        let begun = Instant::now();
        let slots: Vec<u16> = slots.iter().collect();
        for some in slots.chunks(MOVED_SLOTS) {
            if begun.elapsed() > MOVES_TIMEOUT {
                break;
            }
            // First who is to have them, so that nobody is sent there who is not let in.
            target.set_slots(some, &["IMPORTING", from_id]).await?;
            source.set_slots(some, &["MIGRATING", to_id]).await?;
            for slot in source.slots_with_keys(some).await? {
                while source.move_keys(slot, &to.address, self.access).await? > 0 {}
            }
            // Then, too: who has them from now on says so first. The others hear of it, a moment later.
            target.set_slots(some, &["NODE", to_id]).await?;
            source.set_slots(some, &["NODE", to_id]).await?;
        }
        Ok(())
    }
}

/// What servers of a cluster are told.
impl Connection {
    /// `CLUSTER MEET`: know the server at an address.
    async fn meet(&mut self, address: &Address, bus: u16) -> Result<(), Failure> {
        let (port, bus) = (address.port.to_string(), bus.to_string());
        self.command(&["CLUSTER", "MEET", &address.host, &port, &bus])
            .await
    }

    /// `CLUSTER FORGET`. Who does not know that one any more has forgotten it.
    async fn forget(&mut self, id: &str) -> Result<(), Failure> {
        match self.command(&["CLUSTER", "FORGET", id]).await {
            Err(Failure::Refused { cause, .. }) if cause.contains("Unknown node") => Ok(()),
            answer => answer,
        }
    }

    /// `CLUSTER REPLICATE`: follow the server of this name. Refused by one that has keys or slots.
    async fn replicate(&mut self, id: &str) -> Result<(), Failure> {
        self.command(&["CLUSTER", "REPLICATE", id]).await
    }

    /// `CLUSTER FAILOVER`: become primary in place of the one that is followed.
    async fn take_over(&mut self, means: Means) -> Result<(), Failure> {
        match means {
            Means::Agreed => self.command(&["CLUSTER", "FAILOVER"]).await,
            Means::Elected => self.command(&["CLUSTER", "FAILOVER", "FORCE"]).await,
            Means::Alone => self.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await,
        }
    }

    /// `CLUSTER SETSLOT` for each of these slots.
    async fn set_slots(&mut self, slots: &[u16], words: &[&str]) -> Result<(), Failure> {
        let of_slot = |slot: &u16| {
            let mut command = vec!["CLUSTER".to_owned(), "SETSLOT".to_owned(), slot.to_string()];
            command.extend(words.iter().map(|word| (*word).to_owned()));
            command
        };
        let commands: Vec<_> = slots.iter().map(of_slot).collect();
        self.commands::<()>(&commands).await.map(|_| ())
    }

    /// `CLUSTER COUNTKEYSINSLOT`: those of these slots that have any.
    async fn slots_with_keys(&mut self, slots: &[u16]) -> Result<Vec<u16>, Failure> {
        let of_slot = |slot: &u16| {
            vec![
                "CLUSTER".to_owned(),
                "COUNTKEYSINSLOT".to_owned(),
                slot.to_string(),
            ]
        };
        let commands: Vec<_> = slots.iter().map(of_slot).collect();
        let counts: Vec<i64> = self.commands(&commands).await?;
        let counted = slots.iter().zip(counts);
        Ok(counted
            .filter(|(_, count)| *count > 0)
            .map(|(slot, _)| *slot)
            .collect())
    }

    /// `MIGRATE`: moves some keys of a slot. Returns how many there were.
    async fn move_keys(&mut self, slot: u16, to: &Address, access: &Access) -> Result<usize, Failure> {
        let (slot, count) = (slot.to_string(), MOVED_KEYS.to_string());
        let keys: Vec<Vec<u8>> = self.command(&["CLUSTER", "GETKEYSINSLOT", &slot, &count]).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        let port = to.port.to_string();
        let timeout = MOVED_KEYS_TIMEOUT.as_millis().to_string();
        let words = ["MIGRATE", &to.host, &port, "", "0", &timeout, "REPLACE", "AUTH2"];
        let login = [access.follower.as_str(), access.password.reveal(), "KEYS"];
        let mut words: Vec<&[u8]> = words.iter().chain(&login).map(|word| word.as_bytes()).collect();
        words.extend(keys.iter().map(Vec::as_slice));
        self.bytes::<()>("MIGRATE", &words).await?;
        Ok(keys.len())
    }

    /// `CLUSTER MIGRATESLOTS`: begins to move slots as a whole.
    async fn move_whole(&mut self, slots: &Slots, to: &str) -> Result<(), Failure> {
        let ranges = words_of(slots);
        let mut words = vec!["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"];
        words.extend(ranges.iter().map(String::as_str));
        words.extend(["NODE", to]);
        self.command(&words).await
    }

    /// `CLUSTER ADDSLOTSRANGE`: serve slots that nobody has; then `CLUSTER BUMPEPOCH`, so that no older word weighs as much.
    async fn assign(&mut self, slots: &Slots) -> Result<(), Failure> {
        let ranges = words_of(slots);
        let mut words = vec!["CLUSTER", "ADDSLOTSRANGE"];
        words.extend(ranges.iter().map(String::as_str));
        self.command::<()>(&words).await?;
        self.command::<String>(&["CLUSTER", "BUMPEPOCH"])
            .await
            .map(|_| ())
    }
}

/// Slots as commands take them: first and last of each range.
fn words_of(slots: &Slots) -> Vec<String> {
    let ranges = slots.ranges();
    let words = ranges
        .iter()
        .flat_map(|range| [range.start().to_string(), range.end().to_string()]);
    words.collect()
}
