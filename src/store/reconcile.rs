//! What one reconcile does: the five steps, or the end of a store that is being deleted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};

use super::apply::{Applied, apply, name_of};
use super::ask::{ask, ask_all, ask_memcached, ask_shards};
use super::build::{Desired, build, build_memcached};
use super::caches::Caches;
use super::dereference::{Dereferenced, dereference};
use super::material;
use super::memory::Memory;
use super::replication::servers;
use super::rotate::{announce, rotated};
use super::rotation;
use super::server::Facts;
use super::settings::StoreArgs;
use super::status::{self, Several, Unready, Verdict};
use super::validate::{Validated, removes_everything, validate};
use super::watches::Watches;
use super::{GuardedStore, cleanup, cluster, replication, store_key};
use crate::api::conditions::reasons;
use crate::api::session_store::{Engine, StoreRotation, Topology};
use crate::api::{STATUS_FIELD_MANAGER, SessionStore};
use crate::runtime::backoff::Backoff;
use crate::runtime::events::Events;
use crate::runtime::leader::Leadership;
use crate::runtime::metrics::{ReconcileMetrics, StoreMetrics};
use crate::runtime::writer::{WriteError, Writer, classify};

/// Longest that one reconcile may take; every request in it has its own, shorter limit.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_mins(1);

/// How often a store that is well is looked at: Secrets are not watched, and a lost one has to be noticed.
const ROUTINE_PERIOD: Duration = Duration::from_secs(50);

/// How soon a store that is not well is looked at again where no event tells of a change, such as a server that takes
/// connections again. Grows to a tenth of the time that it has not been well.
const UNREADY_PERIOD: Duration = Duration::from_secs(2);

/// How soon it is looked at whether a server presents its new certificate: kubelets bring files within two minutes.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(15);

/// How soon it is looked whether a rotation can go on, where no event tells: policies tell of their pods, and files are brought
/// within two minutes.
const ROTATION_PERIOD: Duration = Duration::from_secs(5);

/// When to look again after a write met a newer object than the cache holds.
const STALE_CACHE_RETRY: Duration = Duration::from_millis(500);

/// Everything that a reconcile needs.
pub struct Context {
    /// Read side.
    pub caches: Caches,
    /// Write side.
    pub writer: Writer,
    /// Images and the like.
    pub settings: StoreArgs,
    /// Whether this replica may write.
    pub leadership: Leadership,
    /// Events.
    pub events: Events,
    /// Measurements.
    pub metrics: ReconcileMetrics,
    /// Measurements of stores.
    pub stores: StoreMetrics,
    /// Failures so far, by namespace/name.
    pub backoff: Backoff<String>,
    /// What is remembered of stores.
    pub memory: Memory,
    /// Looks at stores with topology Replicated.
    pub watches: Watches<replication::watch::Watcher>,
    /// Looks at stores with topology Cluster.
    pub clusters: Watches<cluster::watch::Watcher>,
}

impl Context {
    /// Nothing is remembered, watched or shown of a store any more.
    pub fn forget(&self, namespace: &str, name: &str) {
        let key = format!("{namespace}/{name}");
        self.memory.forget(&key);
        self.watches.end(&key);
        self.clusters.end(&key);
        self.stores.forget(namespace, name);
    }
}

/// Why a reconcile has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write or read failed.
    #[error("{}", .0.explain())]
    Write(#[from] WriteError),
    /// An object could not be written.
    #[error(transparent)]
    Apply(#[from] super::apply::Error),
    /// The reconcile as a whole took too long.
    #[error("reconcile took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// Low-cardinality label for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(WriteError::NotLeader) => "NotLeader",
            Self::Write(WriteError::Timeout) | Self::Timeout => "Timeout",
            Self::Write(error) => error.reason(),
            Self::Apply(super::apply::Error::Taken { .. }) => reasons::NAME_TAKEN,
            Self::Apply(super::apply::Error::Write { source, .. }) => source.reason(),
        }
    }
}

/// Works on one store.
pub async fn reconcile_guarded(store: &GuardedStore, context: &Context) -> Result<Action, Error> {
    match &store.0 {
        Ok(store) if store.metadata.deletion_timestamp.is_some() => end(store, context).await,
        Ok(store) => reconcile_store(store, context).await,
        // Nothing is known of what to remove.
        Err(_) if store.meta().deletion_timestamp.is_some() => {
            cleanup::release(&context.writer, store.meta()).await?;
            Ok(Action::await_change())
        }
        Err(invalid) => {
            report_invalid(context, store.meta(), &invalid.error).await?;
            Ok(Action::await_change())
        }
    }
}

async fn reconcile_store(store: &SessionStore, context: &Context) -> Result<Action, Error> {
    let client = context.writer.client();
    let mut found = dereference(&context.caches, client, store).await?;
    let key = key(&store.metadata);
    let now = Instant::now();
    for prefix in context
        .memory
        .kept(&key, found.unused_prefixes(), found.settling, now)
    {
        found.prefixes.insert(prefix, BTreeSet::new());
    }
    let validated = match validate(store, &found, &context.settings) {
        Ok(validated) => validated,
        Err(refusal) => {
            publish(context, store, &Verdict::Refused(&refusal)).await?;
            return Ok(Action::await_change());
        }
    };
    if validated.engine == Engine::Memcached {
        return reconcile_memcached(store, context, &found, &validated).await;
    }
    let remembered = context.memory.passwords(&key);
    let is_new = remembered.admin.is_none()
        && !found.secrets.contains_key(&validated.names.admin_secret())
        && !found.secrets.contains_key(&validated.names.users_secret());
    let course = rotation::course(store, is_new, validated.tls, jiff::Timestamp::now());
    let material = material::complete(
        &validated,
        &found,
        &remembered,
        &course,
        jiff::Timestamp::now(),
        material::password,
    )
    .map_err(WriteError::from)?;
    cleanup::hold(&context.writer, store).await?;
    let size = validated.volume.as_ref().map_or(0, |volume| volume.size);
    let mut desired = build(&validated, &material);
    let refused = context.memory.refused_size(&key, size, now);
    if refused.is_some() {
        desired
            .volumes
            .retain(|claim| !found.volumes.contains_key(name_of(claim)));
    }
    let mut applied = match write(context, store, &found, desired).await? {
        Ok(applied) => applied,
        Err(later) => return Ok(later),
    };
    context.memory.note_passwords(&key, &material);
    if let Some(why) = &applied.volume_refused {
        context.memory.note_refused_size(&key, size, why, now);
    }
    applied.volume_refused = applied.volume_refused.or(refused);
    let (asked, report) = match validated.topology {
        Topology::Standalone => (ask(context, &validated, &material, &found).await?, None),
        Topology::Replicated => {
            context.watches.keep(&key, servers::plan(&validated, &material));
            let report = context.watches.report(&key);
            let asked = ask_all(context, &validated, &material, &found, report.as_ref()).await?;
            (asked, report.map(Several::Replicas))
        }
        Topology::Cluster => {
            context.clusters.keep(&key, cluster::plan(&validated, &material));
            let report = context.clusters.report(&key);
            let asked = ask_shards(context, &validated, &material, &found, report.as_ref()).await?;
            (asked, report.map(Several::Shards))
        }
    };
    let rotation = rotated(context, &validated, &material, &course, &asked).await?;
    let after = next_look(store, &asked.server);
    let after = rotation::patience(&rotation, jiff::Timestamp::now()).map_or(after, |patience| {
        after.min(patience.clamp(ROTATION_PERIOD, ROUTINE_PERIOD))
    });
    let verdict = Verdict::Applied {
        store: &validated,
        applied: &applied,
        server: asked.server,
        report: report.as_ref(),
        rotation: &rotation,
    };
    publish(context, store, &verdict).await?;
    announce(context, store, &course, &rotation).await;
    Ok(requeue(after))
}

/// A store of engine Memcached: no passwords, users or certificates, and a server that is told nothing.
async fn reconcile_memcached(
    store: &SessionStore,
    context: &Context,
    found: &Dereferenced,
    validated: &Validated,
) -> Result<Action, Error> {
    cleanup::hold(&context.writer, store).await?;
    let applied = match write(context, store, found, build_memcached(validated)).await? {
        Ok(applied) => applied,
        Err(later) => return Ok(later),
    };
    let server = ask_memcached(context, validated, found).await?;
    let after = next_look(store, &server);
    let verdict = Verdict::Applied {
        store: validated,
        applied: &applied,
        server,
        report: None,
        rotation: &StoreRotation::default(),
    };
    publish(context, store, &verdict).await?;
    Ok(requeue(after))
}

/// Writes what is wanted. The inner error says when to try again where nothing is wrong with the store.
async fn write(
    context: &Context,
    store: &SessionStore,
    found: &Dereferenced,
    desired: Desired,
) -> Result<Result<Applied, Action>, Error> {
    match apply(context.writer.client(), found, desired).await {
        Ok(applied) => {
            if !applied.changed.is_empty() {
                tracing::info!(changed = applied.changed.join(", "), "store written");
            }
            Ok(Ok(applied))
        }
        // The cache is behind; the event that brings it up to date triggers the next try, too.
        Err(super::apply::Error::Write {
            source: WriteError::Changed | WriteError::Gone,
            ..
        }) => Ok(Err(Action::requeue(STALE_CACHE_RETRY))),
        // What goes with its namespace is not made again.
        Err(super::apply::Error::Write { source, .. }) if is_namespace_terminating(&source) => {
            Ok(Err(Action::await_change()))
        }
        Err(error) => {
            let unready = Unready::from(&error);
            publish(context, store, &Verdict::Failed(unready.reason, unready.message)).await?;
            Err(error.into())
        }
    }
}

/// When to look at a store again, by how its server is.
fn next_look(store: &SessionStore, server: &Result<Facts, Unready>) -> Duration {
    match server {
        Ok(facts) if facts.certificate_is_current => ROUTINE_PERIOD,
        Ok(_) => CERTIFICATE_PERIOD,
        Err(_) => status::unready_for(store, jiff::Timestamp::now())
            .div_f64(10.0)
            .clamp(UNREADY_PERIOD, ROUTINE_PERIOD),
    }
}

/// Not all stores at the same time.
fn requeue(after: Duration) -> Action {
    Action::requeue(after.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

/// What happens when a store is deleted.
async fn end(store: &SessionStore, context: &Context) -> Result<Action, Error> {
    if !cleanup::has_finalizer(&store.metadata) {
        return Ok(Action::await_change());
    }
    let client = context.writer.client();
    let namespace = store.namespace().unwrap_or_default();
    if removes_everything(store) && !namespace_is_terminating(context, &namespace).await? {
        let found = dereference(&context.caches, client, store).await?;
        if let Some(message) = status::still_used(&found) {
            // A policy that is being deleted still needs its sessions: its pods are replaced first.
            publish(context, store, &Verdict::Failed(reasons::DELETING, message)).await?;
            return Ok(Action::requeue(ROUTINE_PERIOD));
        }
        let removed = cleanup::remove(client, &found).await?;
        if !removed.is_empty() {
            tracing::info!(
                removed = removed.join(", "),
                "{} removed",
                status::described(store)
            );
        }
    }
    cleanup::release(&context.writer, &store.metadata).await?;
    context.forget(&namespace, &store.name_any());
    Ok(Action::await_change())
}

/// Whether a write was refused because the namespace is being deleted.
fn is_namespace_terminating(error: &WriteError) -> bool {
    let WriteError::Api(kube::Error::Api(status)) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

async fn namespace_is_terminating(context: &Context, name: &str) -> Result<bool, Error> {
    let api = Api::<Namespace>::all(context.writer.client().clone());
    let namespace: Option<PartialObjectMeta<Namespace>> =
        api.get_metadata_opt(name).await.map_err(classify)?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

async fn publish(context: &Context, store: &SessionStore, verdict: &Verdict<'_>) -> Result<(), Error> {
    let status = status::compute(store, verdict, &Time(jiff::Timestamp::now()));
    let ready = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let (namespace, name) = (store.namespace().unwrap_or_default(), store.name_any());
    context.stores.tell(&namespace, &name, ready, verdict.load());
    if let Some(summary) = status::update(&context.writer, store, status).await? {
        let kind = if summary.status == "False" {
            EventType::Warning
        } else {
            EventType::Normal
        };
        context
            .events
            .publish(
                &store.object_ref(&()),
                kind,
                &summary.reason,
                "Reconcile",
                summary.message,
            )
            .await;
    }
    Ok(())
}

/// A store that this version cannot read: say so in its status, once.
async fn report_invalid(context: &Context, meta: &ObjectMeta, error: &str) -> Result<(), Error> {
    let key = store_key(meta);
    let Some(live) = context.writer.read(&key).await? else {
        return Ok(());
    };
    let message = format!(
        "SessionStore {}/{} cannot be read by this version of the operator: {error}; compare it with kubectl explain \
         sessionstore.spec",
        key.namespace, key.name
    );
    let said = live
        .data
        .pointer("/status/conditions/0/message")
        .and_then(serde_json::Value::as_str);
    if said == Some(message.as_str()) {
        return Ok(());
    }
    let status = status::invalid(live.metadata.generation, message, &Time(jiff::Timestamp::now()));
    context
        .writer
        .apply_status(&key, STATUS_FIELD_MANAGER, &serde_json::json!(status))
        .await?;
    Ok(())
}

/// How a store is remembered: namespace/name.
pub fn key(meta: &ObjectMeta) -> String {
    format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    )
}
