//! Between apply and status: tells servers what they have to know, and asks them how they are.

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::cluster;
use super::dereference::Dereferenced;
use super::material::Material;
use super::memcached;
use super::reconcile::{Context, Error};
use super::replication::report::Report;
use super::replication::servers;
use super::server::{self, Facts};
use super::status::{self, Unready};
use super::trouble;
use super::validate::Validated;
use crate::api::conditions::reasons;
use crate::runtime::writer::classify;

/// What servers answered.
pub struct Asked {
    /// The one that serves.
    pub server: Result<Facts, Unready>,
    /// Every server that there is to be, with what it says if it was asked.
    pub everyone: Vec<(String, Option<Facts>)>,
}

impl Asked {
    /// Nothing if all servers do, else which ones do not.
    pub fn lack(&self, what: &str, does: impl Fn(&Facts) -> bool) -> Result<(), String> {
        let those = self
            .everyone
            .iter()
            .filter(|(_, facts)| !facts.as_ref().is_some_and(&does));
        let those: Vec<&str> = those.map(|(name, _)| name.as_str()).collect();
        if those.is_empty() {
            Ok(())
        } else {
            Err(format!("servers that {what}: {}", those.join(", ")))
        }
    }
}

/// Asks the server, if there is one.
pub async fn ask(
    context: &Context,
    store: &Validated,
    material: &Material,
    found: &Dereferenced,
) -> Result<Asked, Error> {
    let server = ask_one(context, store, material, found).await?;
    Ok(Asked {
        everyone: vec![(store.names.pod(), server.clone().ok())],
        server,
    })
}

/// Asks a server of engine Memcached, if there is one.
pub async fn ask_memcached(
    context: &Context,
    store: &Validated,
    found: &Dereferenced,
) -> Result<Result<Facts, Unready>, Error> {
    ask_server(context, found, |address| async move {
        memcached::ask(store, &address, &context.memory, Instant::now()).await
    })
    .await
}

async fn ask_one(
    context: &Context,
    store: &Validated,
    material: &Material,
    found: &Dereferenced,
) -> Result<Result<Facts, Unready>, Error> {
    ask_server(context, found, |address| async move {
        let endpoint = server::endpoint(store, material, &address);
        let pod = store.names.pod();
        let facts = server::tend(&store.names, &pod, material, &endpoint, &context.memory, false).await;
        facts.map_err(|failure| status::of_server(store, failure))
    })
    .await
}

/// Asks the only server of a store at its address, if it has one.
async fn ask_server<F>(
    context: &Context,
    found: &Dereferenced,
    ask: impl FnOnce(String) -> F,
) -> Result<Result<Facts, Unready>, Error>
where
    F: Future<Output = Result<Facts, Unready>>,
{
    let pod = found.pod().map(AsRef::as_ref);
    let Some(address) = pod.and_then(serving_address) else {
        let refused = refused_pod(context, found).await?;
        return Ok(Err(trouble::unready(found, refused.as_deref())));
    };
    Ok(match ask(address).await {
        // The Service leads nowhere yet.
        Ok(_) if !pod.is_some_and(trouble::is_ready) => Err(trouble::unready(found, None)),
        answer => answer,
    })
}

/// Asks the primary how it is, and tells every server of its users and certificate.
pub async fn ask_all(
    context: &Context,
    store: &Validated,
    material: &Material,
    found: &Dereferenced,
    report: Option<&Report>,
) -> Result<Asked, Error> {
    let told = match report {
        Some(report) => {
            let closed = context.watches.shared(&context_key(store)).shut_now();
            let answering = servers::answering(report);
            servers::tend_all(store, material, &answering, &context.memory, &closed).await
        }
        None => Vec::new(),
    };
    // Those, too, of which nothing was seen yet.
    let all: BTreeSet<String> = (0..store.servers)
        .map(|ordinal| store.names.member(ordinal))
        .chain(
            report
                .iter()
                .flat_map(|report| &report.seen.members)
                .map(|member| member.name.clone()),
        )
        .collect();
    let facts = |name: &String| {
        let answer = told.iter().find(|(told, _)| told == name);
        answer.and_then(|(_, answer)| answer.clone().ok())
    };
    let everyone = all
        .into_iter()
        .map(|name| (facts(&name), name))
        .map(|(facts, name)| (name, facts))
        .collect();
    let primary = report.and_then(Report::primary).map(|member| &member.name);
    let is_current = told
        .iter()
        .all(|(_, told)| told.as_ref().is_ok_and(|facts| facts.certificate_is_current));
    let server = match told.into_iter().find(|(name, _)| Some(name) == primary) {
        Some((_, Ok(mut facts))) => {
            facts.certificate_is_current = is_current;
            Ok(facts)
        }
        Some((_, Err(failure))) => Err(status::of_server(store, failure)),
        None => {
            let refused = refused_pod(context, found).await?;
            let trouble = trouble::unready(found, refused.as_deref());
            // What keeps a pod from running is nearer to the cause than that nobody is primary.
            let waits = report.and_then(|report| report.decision.waits.clone());
            Err(match waits {
                Some(waits)
                    if trouble.reason == reasons::STORE_STARTING && waits.reason != trouble.reason =>
                {
                    Unready {
                        reason: waits.reason,
                        message: waits.message,
                    }
                }
                _ => trouble,
            })
        }
    };
    Ok(Asked { server, everyone })
}

/// Asks the primaries of all shards how they are, and tells every server of its users and certificate.
pub async fn ask_shards(
    context: &Context,
    store: &Validated,
    material: &Material,
    found: &Dereferenced,
    report: Option<&cluster::report::Report>,
) -> Result<Asked, Error> {
    let members = || report.iter().flat_map(|report| &report.seen.members);
    let answering: Vec<_> = members()
        .filter(|member| member.state().is_some_and(|state| !state.loading))
        .map(|member| (member.name.clone(), member.address.clone()))
        .collect();
    let closed = report.map(cluster::report::Report::closed).unwrap_or_default();
    let told = servers::tend_all(store, material, &answering, &context.memory, &closed).await;
    let facts = |name: &String| {
        let answer = told.iter().find(|(told, _)| told == name);
        answer.and_then(|(_, answer)| answer.clone().ok())
    };
    let wanted = (0..store.shards.len())
        .flat_map(|shard| (0..store.servers_per_shard()).map(move |ordinal| (shard, ordinal)))
        .map(|(shard, ordinal)| store.names.shard_member(shard, ordinal));
    let all: BTreeSet<String> = wanted
        .chain(members().map(|member| member.name.clone()))
        .collect();
    let everyone = all
        .into_iter()
        .map(|name| (facts(&name), name))
        .map(|(facts, name)| (name, facts))
        .collect();
    let all_told = |is_so: fn(&Facts) -> bool| told.iter().all(|(_, told)| told.as_ref().is_ok_and(is_so));
    let primaries = members().filter(|member| member.is_owner());
    let server = if let Some(facts) = whole(primaries.filter_map(|member| facts(&member.name))) {
        Ok(Facts {
            users_are_current: all_told(|facts| facts.users_are_current),
            certificate_is_current: all_told(|facts| facts.certificate_is_current),
            ..facts
        })
    } else {
        let refused = refused_pod(context, found).await?;
        let trouble = trouble::unready_shards(store, found, refused.as_deref());
        let waits = report.and_then(|report| report.decision.waits.clone());
        let failure = told.iter().find_map(|(_, told)| told.as_ref().err());
        Err(match (waits, failure) {
            (_, Some(failure)) => status::of_server(store, failure.clone()),
            (Some(waits), None) if trouble.reason == reasons::STORE_STARTING => Unready {
                reason: waits.reason,
                message: waits.message,
            },
            _ => trouble,
        })
    };
    Ok(Asked { server, everyone })
}

/// What primaries say together: of memory the one that has the least left, as it is the first to refuse writes.
fn whole(primaries: impl Iterator<Item = Facts>) -> Option<Facts> {
    primaries.reduce(|one, other| {
        let (fuller, emptier) = if one.used >= other.used {
            (one, other)
        } else {
            (other, one)
        };
        Facts {
            clients: fuller.clients + emptier.clients,
            evicted: fuller.evicted + emptier.evicted,
            disk_failed: fuller.disk_failed || emptier.disk_failed,
            ..fuller
        }
    })
}

/// The address of a pod whose server has started.
fn serving_address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let started = status
        .container_statuses
        .iter()
        .flatten()
        .any(|container| container.started == Some(true));
    (started && pod.metadata.deletion_timestamp.is_none())
        .then(|| status.pod_ip.clone())
        .flatten()
}

/// Why the StatefulSet could not make its pod: it has no condition for that, only Events.
async fn refused_pod(context: &Context, found: &Dereferenced) -> Result<Option<String>, Error> {
    let lacks_pods = |set: &StatefulSet| {
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let of_shard = found
            .shard_pods
            .keys()
            .filter(|(shard, _)| found.names.shard(*shard) == name);
        let there = if name == found.names.store() {
            found.pods.len()
        } else {
            of_shard.count()
        };
        there < usize::try_from(wanted).unwrap_or_default()
    };
    let Some(stateful_set) = found.stateful_sets.values().find(|set| lacks_pods(set)) else {
        return Ok(None);
    };
    let api: Api<CoreEvent> = Api::namespaced(context.writer.client().clone(), found.names.namespace());
    let uid = stateful_set.uid().unwrap_or_default();
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},reason=FailedCreate"));
    let events = api.list(&params).await.map_err(classify)?;
    let latest = events.items.into_iter().max_by_key(|event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    });
    Ok(latest.and_then(|event| event.message))
}

/// How a store that can be built is remembered.
fn context_key(store: &Validated) -> String {
    format!("{}/{}", store.names.namespace(), store.names.store())
}
