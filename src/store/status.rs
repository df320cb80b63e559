//! Step 5: says what stands and what was seen. Writes only when something changed.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::json;

use super::apply::{Applied, Error as ApplyError};
use super::build::port;
use super::client::Failure;
use super::cluster;
use super::dereference::Dereferenced;
use super::names::Names;
use super::replication::report::{Report, replication};
use super::server::Facts;
use super::store_key;
use super::validate::{Refusal, Validated};
use crate::api::conditions::{reasons, types};
use crate::api::session_store::{Engine, StoreEndpoint, StoreMemory, StoreRotation, StoreUser};
use crate::api::{STATUS_FIELD_MANAGER, SessionStore, SessionStoreStatus};
use crate::runtime::metrics::Load;
use crate::runtime::writer::{WriteError, Writer};

/// Steps in which used memory is told, of the whole.
const MEMORY_STEPS: i64 = 20;

/// Clients that come and go without being told: the kubelet's probes are some of them.
const FEW_CLIENTS: i64 = 2;

/// The last look at several servers.
#[derive(Clone, Debug)]
pub enum Several {
    /// A primary and its replicas.
    Replicas(Report),
    /// Shards.
    Shards(cluster::report::Report),
}

/// What a reconcile came to.
pub enum Verdict<'a> {
    /// Everything is written, and the server was asked; or why it could not be.
    Applied {
        /// The store.
        store: &'a Validated,
        /// What was written.
        applied: &'a Applied,
        /// What the server said, or the primary of several.
        server: Result<Facts, Unready>,
        /// The last look at several servers.
        report: Option<&'a Several>,
        /// How far rotations are.
        rotation: &'a StoreRotation,
    },
    /// The spec cannot be built.
    Refused(&'a Refusal),
    /// A request failed: a reason and a sentence.
    Failed(&'static str, String),
}

impl Verdict<'_> {
    /// What the server that takes writes said of itself, if it answered.
    pub fn load(&self) -> Option<Load> {
        let Self::Applied {
            server: Ok(facts), ..
        } = self
        else {
            return None;
        };
        Some(Load {
            used: facts.used,
            max: facts.max,
            clients: facts.clients,
            evicted: facts.evicted,
        })
    }
}

/// Why a server is not there for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// A reason of [`reasons`].
    pub reason: &'static str,
    /// A sentence with cause and remedy.
    pub message: String,
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason(),
            message: failure.explain(),
        }
    }
}

impl From<&ApplyError> for Unready {
    fn from(error: &ApplyError) -> Self {
        match error {
            ApplyError::Taken { kind, name } => Self {
                reason: reasons::NAME_TAKEN,
                message: format!(
                    "{kind} {name} exists and does not belong to this store, so it is left alone; delete or rename it, or \
                     give the store another name"
                ),
            },
            ApplyError::Write { source, .. } => Self {
                reason: source.reason(),
                message: error.to_string(),
            },
        }
    }
}

/// Why a server does not serve the operator itself.
pub fn of_server(store: &Validated, failure: Failure) -> Unready {
    match &failure {
        Failure::Authentication { .. } => Unready {
            reason: reasons::AUTHENTICATION_FAILED,
            message: format!(
                "the server does not know the password in Secret {}, which was changed or made anew while it could not be \
                 told; clients are served as before; it learns the password when pod {} is restarted{}",
                store.names.admin_secret(),
                store.names.pod(),
                if store.volume.is_some() {
                    ""
                } else {
                    ", which loses the sessions"
                }
            ),
        },
        _ => failure.into(),
    }
}

/// How long the store has not been ready; nothing if it is, or was a moment ago.
pub fn unready_for(store: &SessionStore, now: jiff::Timestamp) -> std::time::Duration {
    let conditions = store.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == types::READY && condition.status != "True");
    let since = ready.map_or(now, |condition| condition.last_transition_time.0);
    std::time::Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// What a store that is to be removed waits for.
pub fn still_used(found: &Dereferenced) -> Option<String> {
    let policies: Vec<&str> = found.holders.iter().map(String::as_str).collect();
    (!policies.is_empty()).then(|| {
        format!(
            "SessionPolicy {} still keeps sessions here; the store is removed when it no longer does",
            policies.join(", ")
        )
    })
}

/// The status after a reconcile. `now` is used for conditions that change.
pub fn compute(store: &SessionStore, verdict: &Verdict<'_>, now: &Time) -> SessionStoreStatus {
    let former = store.status.clone().unwrap_or_default();
    let generation = store.metadata.generation;
    let (status, reason, message);
    let mut next = former.clone();
    next.observed_generation = generation;
    match verdict {
        Verdict::Applied {
            store,
            applied,
            server,
            report,
            rotation,
        } => {
            next.rotation = (**rotation != StoreRotation::default()).then(|| (*rotation).clone());
            next.endpoint = Some(StoreEndpoint {
                host: store.names.host(),
                port: i32::from(port(store.engine)),
                ca_secret: store.tls.then(|| store.names.ca_secret()),
            });
            next.users
                .retain(|user| store.prefixes.contains_key(&user.key_prefix));
            match report {
                Some(Several::Replicas(report)) => {
                    next.members = report.members();
                    next.replication = replication(&report.seen.record);
                }
                Some(Several::Shards(report)) => {
                    next.members = report.members();
                    next.shards = Some(report.shards());
                    next.cluster = Some(report.cluster());
                }
                None => {}
            }
            match server {
                Ok(facts) => {
                    describe(&mut next, store, facts);
                    (status, reason, message) = up(store, applied, facts, *report);
                }
                Err(unready) => {
                    next.clients = None;
                    (status, reason, message) = ("False", unready.reason, unready.message.clone());
                }
            }
        }
        Verdict::Refused(refusal) => {
            (status, reason, message) = ("False", refusal.reason, refusal.message.clone());
        }
        Verdict::Failed(failed, text) => (status, reason, message) = ("Unknown", *failed, text.clone()),
    }
    next.conditions = vec![condition(&former, status, reason, message, generation, now)];
    next
}

fn condition(
    former: &SessionStoreStatus,
    status: &str,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let since = former
        .conditions
        .iter()
        .find(|known| known.type_ == types::READY && known.status == status)
        .map_or(now, |known| &known.last_transition_time);
    Condition {
        type_: types::READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.clone(),
    }
}

/// What the server said, coarse enough to be the same most of the time.
fn describe(status: &mut SessionStoreStatus, store: &Validated, facts: &Facts) {
    status.version = Some(facts.version.clone());
    status.users = store
        .prefixes
        .keys()
        .map(|prefix| StoreUser {
            key_prefix: prefix.clone(),
            secret: (store.engine != Engine::Memcached).then(|| store.names.user_secret(prefix)),
        })
        .collect();
    status.memory = Some(memory(status.memory.as_ref(), facts));
    status.clients = Some(clients(status.clients, facts.clients));
    status.evicted_keys = Some(facts.evicted);
}

fn memory(former: Option<&StoreMemory>, facts: &Facts) -> StoreMemory {
    let max = mebibytes(facts.max);
    let told = |step: i64| mebibytes(facts.max / MEMORY_STEPS * step);
    let step = if facts.max > 0 {
        (facts.used * MEMORY_STEPS + facts.max / 2) / facts.max
    } else {
        0
    };
    // A value that goes to and fro around the middle between two steps keeps the one that it has.
    let near = |candidate: i64| {
        let distance = (facts.used - facts.max / MEMORY_STEPS * candidate).abs();
        distance * MEMORY_STEPS * 4 <= facts.max * 3
    };
    let kept = (step - 1..=step + 1)
        .filter(|candidate| near(*candidate))
        .map(told)
        .find(|used| former.is_some_and(|former| former.max == max && &former.used == used));
    StoreMemory {
        used: kept.unwrap_or_else(|| told(step)),
        max,
    }
}

fn mebibytes(bytes: i64) -> String {
    format!("{}Mi", bytes / (1 << 20))
}

/// The former count while the present one is between its half and its double.
fn clients(former: Option<i64>, count: i64) -> i64 {
    former
        .filter(|former| {
            let between = (*former == 0) == (count == 0) && count * 2 >= *former && count <= former * 2;
            between || (count - former).abs() <= FEW_CLIENTS
        })
        .unwrap_or(count)
}

fn up(
    store: &Validated,
    applied: &Applied,
    facts: &Facts,
    report: Option<&Several>,
) -> (&'static str, &'static str, String) {
    if facts.used >= facts.max && facts.max > 0 {
        return (
            "False",
            reasons::STORE_REFUSES_WRITES,
            format!(
                "all {} for sessions are in use, and new ones are refused; shorten the life of sessions, or raise \
                 spec.memory, which restarts the server{}",
                mebibytes(facts.max),
                if store.volume.is_some() || report.is_some() {
                    ""
                } else {
                    " and so loses all sessions, as there is no volume"
                }
            ),
        );
    }
    if facts.disk_failed {
        return (
            "False",
            reasons::STORE_REFUSES_WRITES,
            format!(
                "the server cannot write to its volume {}; raise spec.persistence.size",
                volume_of(store, report)
            ),
        );
    }
    if let Some(refused) = &applied.volume_refused {
        return (
            "True",
            reasons::VOLUME_CANNOT_GROW,
            format!(
                "the server works, but its volume {} could not be changed to spec.persistence.size: {refused}",
                volume_of(store, report)
            ),
        );
    }
    let mut message = format!(
        "{:?} {} answers at {}:{} {}",
        store.engine,
        facts.version,
        store.names.host(),
        port(store.engine),
        if store.tls { "with TLS" } else { "without TLS" }
    );
    match report {
        Some(Several::Replicas(report)) => return replicated(store, report, message),
        Some(Several::Shards(report)) => return sharded(store, report, message),
        None => {}
    }
    if store.volume.is_none() {
        message.push_str("; sessions are in memory only: a restart of the server loses them");
    }
    if store.engine == Engine::Memcached {
        message.push_str(
            "; it knows no users: whoever reaches the port can read and change sessions, so let a NetworkPolicy admit the \
             application's pods and the operator alone",
        );
    }
    ("True", reasons::READY, message)
}

/// The volume of the server that serves, or of the shards' servers the first that fails.
fn volume_of(store: &Validated, report: Option<&Several>) -> String {
    let server = match report {
        Some(Several::Replicas(report)) => report.primary().map(|primary| primary.name.as_str()),
        Some(Several::Shards(report)) => report.failing_disks().first().copied(),
        None => return store.names.volume(),
    };
    server.map_or_else(|| "of a server".to_owned(), Names::volume_of)
}

/// What is to be said of several servers, one of which serves.
fn replicated(
    store: &Validated,
    report: &Report,
    mut message: String,
) -> (&'static str, &'static str, String) {
    let (synced, asked) = (report.synced(), store.servers.saturating_sub(1));
    // Writing to a String cannot fail.
    _ = write!(
        message,
        "; {} is the primary, and {synced} of {asked} replicas have everything",
        report.primary().map_or("?", |primary| primary.name.as_str())
    );
    if store.volume.is_none() {
        message.push_str("; sessions are in memory only: a restart of all servers at once loses them");
    }
    if let Some(waits) = &report.decision.waits {
        return ("True", waits.reason, format!("{message}; {}", waits.message));
    }
    if let Some(failing) = failing(&report.failing_disks()) {
        return ("True", reasons::VOLUME_FAILING, format!("{message}; {failing}"));
    }
    let reason = if synced < asked {
        reasons::REPLICAS_MISSING
    } else {
        reasons::READY
    };
    ("True", reason, message)
}

/// What is to be said of replicas that cannot write to their volumes.
fn failing(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "{} cannot write to the volume and has sessions in memory only; raise spec.persistence.size",
            names.join(", ")
        )
    })
}

/// What is to be said of shards.
fn sharded(
    store: &Validated,
    report: &cluster::report::Report,
    mut message: String,
) -> (&'static str, &'static str, String) {
    let (served, count) = (report.served(), cluster::slots::COUNT);
    let waits = report.decision.waits.as_ref();
    if !report.serves_all() {
        let why = waits.map_or("it is being seen to", |waits| waits.message.as_str());
        let missing = usize::from(count) - served;
        return (
            "False",
            reasons::SLOTS_UNSERVED,
            format!(
                "{missing} of {count} slots have no primary that serves them, and nobody reaches the sessions in them: {why}"
            ),
        );
    }
    let lacking = report.lacking();
    // Writing to a String cannot fail.
    _ = write!(message, "; {} shards serve all {count} slots", report.shards());
    if lacking.is_empty() {
        _ = match store.servers_per_shard() - 1 {
            0 => write!(
                message,
                ", and none of them has a replica: what its only server has is lost with it"
            ),
            asked => write!(
                message,
                ", each with {asked} of {asked} replicas that have everything"
            ),
        };
    }
    if store.volume.is_none() {
        message.push_str(
            "; sessions are in memory only: a restart of all servers of a shard at once loses those in it",
        );
    }
    if let Some(waits) = waits {
        return ("True", waits.reason, format!("{message}; {}", waits.message));
    }
    if let Some(failing) = failing(&report.failing_disks()) {
        return ("True", reasons::VOLUME_FAILING, format!("{message}; {failing}"));
    }
    if lacking.is_empty() {
        return ("True", reasons::READY, message);
    }
    (
        "True",
        reasons::REPLICAS_MISSING,
        format!("{message}; {}", lacking.join("; ")),
    )
}

/// Writes `status` if it differs from what stands; returns whether the summary is another one.
pub async fn update(
    writer: &Writer,
    store: &SessionStore,
    status: SessionStoreStatus,
) -> Result<Option<Condition>, WriteError> {
    let former = store.status.clone().unwrap_or_default();
    if former == status {
        return Ok(None);
    }
    writer
        .apply_status(&store_key(&store.metadata), STATUS_FIELD_MANAGER, &json!(status))
        .await?;
    let ready = |status: &SessionStoreStatus| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::READY);
        condition.cloned()
    };
    let told = ready(&former).map(|condition| (condition.status, condition.reason));
    Ok(ready(&status).filter(|now| told != Some((now.status.clone(), now.reason.clone()))))
}

/// The status of a store that cannot be read.
pub fn invalid(generation: Option<i64>, message: String, now: &Time) -> SessionStoreStatus {
    let nothing = SessionStoreStatus::default();
    SessionStoreStatus {
        observed_generation: generation,
        conditions: vec![condition(
            &nothing,
            "False",
            reasons::INVALID_SPEC,
            message,
            generation,
            now,
        )],
        ..nothing
    }
}

/// Name of the store for messages.
pub fn described(store: &SessionStore) -> String {
    format!(
        "SessionStore {}/{}",
        store.namespace().unwrap_or_default(),
        store.name_any()
    )
}

#[cfg(test)]
mod tests;
