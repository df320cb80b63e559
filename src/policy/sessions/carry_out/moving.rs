//! Sessions on their way between a store and the pods: what the sidecars say, and what they are told.

use std::time::{Duration, Instant};

use kube::ResourceExt;

use super::Work;
use crate::api::INJECTION_LABEL;
use crate::api::conditions::reasons;
use crate::api::session_store::Engine;
use crate::policy::sessions::members::Members;
use crate::policy::sessions::moving::{self, Place, Request, Step};
use crate::policy::sessions::sidecar::Upstream;
use crate::policy::sessions::source::{Promise, Source};
use crate::policy::sessions::{Sessions, Trouble, names, peers, pods, source};
use crate::runtime::writer::WriteError;

/// How long users may be made to wait for a turn; the sidecars themselves give up after 10 s.
const TURN_LIMIT: Duration = Duration::from_secs(8);

/// Pause between looks while they wait.
const TURN_LOOK: Duration = Duration::from_millis(100);

/// Pause between looks at sidecars whose sessions move.
const LOOK: Duration = Duration::from_secs(2);

impl Work<'_> {
    /// What sidecars are told of the store, once the Secret with it stands.
    pub(super) async fn upstream_of<'a>(
        &self,
        place: Place,
        pods: &Source,
        store: &'a Source,
        sessions: &mut Sessions,
    ) -> Result<Result<Upstream<'a>, Trouble>, WriteError> {
        let memcached = store.endpoint.engine == Engine::Memcached;
        if pods.endpoint.key_prefix != store.endpoint.key_prefix || store.endpoint.cluster || memcached {
            return Ok(Err(Trouble::new(
                reasons::SESSIONS_NOT_MOVABLE,
                format!(
                    "sessions cannot move between the pods (key prefix {}) and {} (key prefix {}{}); delete the policy and make it anew to leave them behind",
                    pods.endpoint.key_prefix,
                    store.endpoint.host,
                    store.endpoint.key_prefix,
                    match (store.endpoint.cluster, memcached) {
                        (true, _) => ", a cluster",
                        (_, true) => ", Memcached, which does not tell what it holds",
                        _ => "",
                    }
                ),
            )));
        }
        if place == Place::StoreToPods && !store.lists {
            return Ok(Err(Trouble::new(
                reasons::SESSIONS_NOT_MOVABLE,
                self.unlisted(store),
            )));
        }
        if let Err(trouble) = self.upstream(store, sessions).await? {
            return Ok(Err(trouble));
        }
        Ok(Ok(Upstream {
            follow: place == Place::StoreToPods,
            own_authority: store.ca.is_some(),
            key_prefix: &store.endpoint.key_prefix,
        }))
    }

    /// The SessionStore that it is, if it is one, and which other key prefixes that serves.
    fn served_too<'a>(&'a self, store: &'a Source) -> Option<(&'a str, Vec<&'a str>)> {
        let Promise::Store { name, .. } = &store.promise else {
            return None;
        };
        let found = self.found.stores.iter().find(|found| found.name_any() == *name)?;
        Some((name, source::others(found, &store.endpoint.key_prefix)))
    }

    fn unlisted(&self, store: &Source) -> String {
        match self.served_too(store) {
            Some((name, others)) => source::unlisted(name, &store.endpoint.key_prefix, &others),
            None => format!(
                "sessions cannot move into the pods from {}, whose user may not list keys; allow it SCAN, or delete the policy and \
                 make it anew to leave the sessions behind",
                store.endpoint.host
            ),
        }
    }

    /// Why it cannot go on that a store listed keys when the move began, and does not any more.
    fn unlisted_by_now(&self, store: &Source) -> String {
        let key_prefix = &store.endpoint.key_prefix;
        match self.served_too(store) {
            Some((_, others)) => format!(
                "the store has come to serve other key prefixes ({}), so that the user of {key_prefix} may not list keys any \
                 more; give those a store of their own, or set spec.strategy back to Shared",
                others.join(", ")
            ),
            None => format!(
                "the user of {key_prefix} may not list the keys of {} any more; allow it SCAN, or set spec.strategy back to Shared",
                store.endpoint.host
            ),
        }
    }

    /// Goes on with a move; gives the place whose pods may come now.
    pub(super) async fn through(
        &self,
        begun: Place,
        wanted: Place,
        sessions: &mut Sessions,
    ) -> Result<Result<Place, Trouble>, WriteError> {
        // Certificates and places of the sidecars have to stand meanwhile; what else is wrong with them is said later.
        if let Some(replicated) = self.wish.replicated()
            && let Ok(source) = self.in_pods(replicated).await?
        {
            sessions.promise = Some(source.promise);
            sessions.binding = Some(crate::api::session_policy::Binding {
                name: names::binding_in_pods(&self.validated.name),
            });
        }
        let target = &self.validated.target;
        let count = pods::count(target, &self.found.pods, &self.found.injections);
        if !pods::is_rolled_out(target) || count.injected < count.total {
            return Ok(Err(under_way(
                "pods are still being replaced by ones that know both places",
            )));
        }
        sessions.retry_after = Some(LOOK);
        // One that ends still serves, and may be the home of sessions; nobody makes its clients wait.
        let ending = pods::ending(self.found.pods.iter().map(AsRef::as_ref));
        if !ending.is_empty() {
            return Ok(Err(under_way(&format!(
                "{} still ends, and serves until then",
                ending.join(", ")
            ))));
        }
        if self.validated.suspended {
            return Ok(Err(super::suspended("sessions stay where they are")));
        }
        let addresses: Vec<String> = self
            .found
            .pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| pod.labels().get(INJECTION_LABEL) == sessions.mark.as_ref())
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone())
            .collect();
        let Some(secret) = self.secret(&peers::name(&self.validated.name)).await? else {
            return Ok(Err(under_way(
                "the Secret with the sidecars' certificates is being made",
            )));
        };
        let identity = peers::identity(&self.validated.name, &self.validated.namespace);
        let members = match Members::new(&secret, &identity) {
            Ok(members) => members,
            Err(wrong) => return Ok(Err(under_way(&wrong))),
        };
        let unlisted = match (begun, wanted, self.wish.shared()) {
            (Place::StoreToPods, Place::Pods, Some(shared)) => match self.store_source(shared).await? {
                Ok(store) => (!store.lists).then(|| self.unlisted_by_now(&store)),
                Err(trouble) => return Ok(Err(under_way(&trouble.message))),
            },
            _ => None,
        };
        let deadline = Instant::now() + TURN_LIMIT;
        loop {
            let course = (begun, wanted, unlisted.as_deref());
            let (step, end, held) = match look(&members, &addresses, course).await {
                Ok(found) => found,
                Err(wrong) => return Ok(Err(under_way(&wrong))),
            };
            let what = match step {
                Step::Done => return Ok(Ok(end)),
                Step::Wait(what) if !held => return Ok(Err(under_way(&what))),
                Step::Wait(what) => what,
                Step::Ask(whom, request, what) => {
                    let asked = whom.iter().filter_map(|index| addresses.get(*index));
                    let asked = asked.map(|address| members.ask(address, request));
                    for answer in futures::future::join_all(asked).await {
                        if let Err(wrong) = answer {
                            return Ok(Err(under_way(&wrong)));
                        }
                    }
                    let turned = matches!(request, Request::Lead | Request::Follow);
                    if turned || (request != Request::Hold && !held) {
                        sessions.retry_after = Some(super::POLL);
                        return Ok(Err(under_way(&what)));
                    }
                    what
                }
            };
            // Users wait: the next step is not left to the next reconcile.
            if Instant::now() >= deadline {
                return Ok(Err(under_way(&what)));
            }
            tokio::time::sleep(TURN_LOOK).await;
        }
    }
}

/// The next step by what the sidecars say now, where it leads, and whether clients of one of them wait.
async fn look(
    members: &Members,
    addresses: &[String],
    (begun, wanted, unlisted): (Place, Place, Option<&str>),
) -> Result<(Step, Place, bool), String> {
    let states = addresses.iter().map(async |address| {
        let state = members.state(address).await;
        state.map_err(|wrong| format!("the sidecar at {address}: {wrong}"))
    });
    let states = futures::future::try_join_all(states).await?;
    let held = states
        .iter()
        .filter_map(|member| member.upstream.as_ref())
        .any(|upstream| upstream.held);
    let (step, end) = moving::next(begun, wanted, &states, unlisted);
    Ok((step, end, held))
}

fn under_way(what: &str) -> Trouble {
    Trouble::new(
        reasons::SESSIONS_MOVING,
        format!("sessions are on their way, and nobody is logged out: {what}"),
    )
}
