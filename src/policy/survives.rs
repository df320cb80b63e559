//! What happens to sessions at each event, computed from what is configured and was read back.
//!
//! Pure, and pessimistic: where the facts do not show that sessions are kept, they are lost. With strategy Sticky
//! a session lives in a pod, so nothing outlives the pod; affinity decides whether it can be reached until then.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::affinity::drain;
use crate::api::{Binds, Event, Outcome, Survival};

use store::Reach;
pub use store::StoreFacts;

mod replicated;
mod sharded;
mod store;

/// Why sessions are kept or lost. Part of the API.
pub mod reasons {
    /// Users are bound to pods, and the event leaves their pods alone.
    pub const BOUND_TO_POD: &str = "BoundToPod";
    /// Users are bound to positions on a hash ring, and the event changes the ring.
    pub const HASH_MOVES: &str = "HashMoves";
    /// At least one route has no affinity.
    pub const NOT_STICKY: &str = "NotSticky";
    /// The session ends with its pod.
    pub const ENDS_WITH_POD: &str = "EndsWithPod";
    /// The session ends with its pod, which serves its users while it terminates.
    pub const ENDS_AFTER_DRAIN: &str = "EndsAfterDrain";
    /// The session ends with its container.
    pub const ENDS_WITH_CONTAINER: &str = "EndsWithContainer";
    /// There is only one pod, and it has every session.
    pub const ONLY_POD: &str = "OnlyPod";
    /// Every pod is replaced.
    pub const ALL_PODS_REPLACED: &str = "AllPodsReplaced";
    /// Every pod is removed before the first new one starts.
    pub const RECREATE_STRATEGY: &str = "RecreateStrategy";
    /// Every pod is removed.
    pub const ALL_PODS_REMOVED: &str = "AllPodsRemoved";
    /// The target has no replicas.
    pub const NO_REPLICAS: &str = "NoReplicas";
    /// The target has one replica; to remove it is another event.
    pub const SINGLE_REPLICA: &str = "SingleReplica";
    /// Other pods have the sessions, too.
    pub const REPLICATED: &str = "Replicated";
    /// A pod that ends hands its sessions to others before.
    pub const HANDED_OVER: &str = "HandedOver";
    /// What a crashed pod confirmed last may not have reached another one.
    pub const CONFIRMED_BEFORE_COPIED: &str = "ConfirmedBeforeCopied";
    /// All pods run on one node.
    pub const PODS_SHARE_NODE: &str = "PodsShareNode";
    /// Sessions are in the store.
    pub const IN_STORE: &str = "InStore";
    /// Some pods do not use the store.
    pub const NOT_ALL_INJECTED: &str = "NotAllInjected";
    /// The store cannot be used now.
    pub const STORE_NOT_READY: &str = "StoreNotReady";
    /// The store's only server has every session.
    pub const STORE_HAS_ALL: &str = "StoreHasAll";
    /// The store is in other hands.
    pub const STORE_NOT_OURS: &str = "StoreNotOurs";
    /// The store keeps sessions on a volume.
    pub const STORE_PERSISTS: &str = "StorePersists";
    /// The store keeps sessions in memory only.
    pub const STORE_IN_MEMORY: &str = "StoreInMemory";
    /// The store runs on one node.
    pub const STORE_ON_ONE_NODE: &str = "StoreOnOneNode";
    /// A replica of the store takes over.
    pub const STORE_FAILS_OVER: &str = "StoreFailsOver";
    /// No replica of the store takes over without the operator.
    pub const FAILOVER_WAITS: &str = "FailoverWaits";
    /// A shard of the store has no replica with everything.
    pub const SHARD_ALONE: &str = "ShardAlone";
    /// Pods that are to use the store cannot start without the operator's webhook.
    pub const WEBHOOK_NEEDED: &str = "WebhookNeeded";
    /// No session store is in use.
    pub const NO_STORE: &str = "NoStore";
    /// The setting is in the objects that carry it and needs no operator.
    pub const FIELDS_STAY: &str = "FieldsStay";
}

/// Affinity of one route, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFact {
    /// The route, as `Kind name`.
    pub route: String,
    /// What its controller binds users to with the setting that was planned.
    pub binds: Binds,
    /// Whether its controller sends terminating pods the users they have.
    pub keeps_terminating_pods: bool,
    /// Whether the setting was found in the live objects.
    pub read_back: bool,
}

/// A sidecar that lets pods keep their users for a while when they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Seconds for which every pod does; 0 while some do not.
    pub seconds: i64,
    /// Whether a webhook in the operator adds it, so that pods cannot start without the operator.
    pub webhook: bool,
}

/// What survival depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The store, if sessions are to be in one.
    pub store: Option<StoreFacts<'a>>,
    /// What was added to the pods for their end, if sessions are in them.
    pub hand_over: Option<HandOver>,
    /// Every route of the policy's namespace that reaches the target.
    pub routes: &'a [RouteFact],
    /// The target.
    pub target: &'a Deployment,
}

/// One row per event, in the order of [`Event`].
pub fn compute(facts: &Facts<'_>) -> Vec<Survival> {
    if let Some(store) = &facts.store
        && let Reach::Rows(rows) = store::rows(store)
    {
        return rows.into_iter().map(survival).collect();
    }
    let situation = Situation::of(facts);
    let rows = [
        (Event::ContainerRestart, situation.container_restart()),
        (Event::PodLoss, situation.pod_loss()),
        (Event::RollingUpdate, situation.rolling_update()),
        (Event::ScaleUp, situation.scale_up()),
        (Event::ScaleDown, situation.scale_down()),
        (Event::ScaleToZero, situation.scale_to_zero()),
        (Event::NodeLoss, situation.node_loss()),
        (Event::StoreRestart, no_store()),
        (Event::StoreLoss, no_store()),
        (Event::OperatorDown, situation.operator_down()),
    ];
    rows.into_iter().map(survival).collect()
}

fn survival((event, (outcome, reason, message)): (Event, Row)) -> Survival {
    Survival {
        event,
        outcome,
        reason: reason.to_owned(),
        message,
    }
}

type Row = (Outcome, &'static str, String);

/// What holds over all routes: the weakest of them.
struct Situation<'a> {
    replicas: u32,
    spec: Option<&'a DeploymentSpec>,
    binding: Binding,
    /// Seconds for which every controller keeps users on a terminating pod and the pod serves them.
    drain: i64,
    /// Whether pods cannot start without the operator.
    webhook: bool,
}

/// What users are bound to.
enum Binding {
    /// At least one route binds to no pod.
    Unbound(String),
    /// A pod.
    Pod,
    /// A position on a hash ring; the sentence names the routes, if others are better.
    Hash(String),
}

impl<'a> Situation<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let spec = facts.target.spec.as_ref();
        // An absent number of replicas is 1 (apps/v1 DeploymentSpec).
        let replicas = spec.map_or(1, |spec| spec.replicas.unwrap_or(1));
        let keeps = facts.routes.iter().all(|route| route.keeps_terminating_pods);
        Self {
            replicas: u32::try_from(replicas).unwrap_or(0),
            spec,
            webhook: facts.hand_over.is_some_and(|added| added.webhook),
            binding: binding(facts.routes),
            drain: if keeps {
                // The sidecar turns the pod unready after that, however long a hook of the pod's own goes on.
                let added = facts.hand_over.map(|added| added.seconds);
                added
                    .filter(|seconds| *seconds > 0)
                    .unwrap_or_else(|| drain::window_seconds(facts.target))
            } else {
                0
            },
        }
    }

    /// What is true of every event that concerns running pods before it happens: there are none, or sessions
    /// are lost already.
    fn before(&self) -> Option<Row> {
        if self.replicas == 0 {
            return Some((
                Outcome::NotApplicable,
                reasons::NO_REPLICAS,
                "the target has no replicas, and so no sessions".to_owned(),
            ));
        }
        match &self.binding {
            Binding::Unbound(why) if self.replicas > 1 => {
                Some((Outcome::Lost, reasons::NOT_STICKY, self.spread(why)))
            }
            _ => None,
        }
    }

    fn spread(&self, why: &str) -> String {
        format!(
            "{why}: its users are spread over {} pods with every request, so sessions get lost without any event",
            self.replicas
        )
    }

    fn container_restart(&self) -> Row {
        self.before().unwrap_or_else(|| {
            let mounts = self.volumes();
            let volumes = if mounts.is_empty() {
                "the template mounts no volume that could hold them".to_owned()
            } else {
                format!("only what the application keeps on its volumes ({}) outlives it", mounts.join(", "))
            };
            let message = format!(
                "sessions in the memory or the file system of a container end with it: the users of that pod, \
                 {}, lose theirs; {volumes}",
                share(self.replicas)
            );
            (Outcome::Lost, reasons::ENDS_WITH_CONTAINER, message)
        })
    }

    fn pod_loss(&self) -> Row {
        self.before().or_else(|| self.only_pod()).unwrap_or_else(|| {
            let mut message = format!(
                "exactly the users of the lost pod, {}, lose their sessions; all others keep theirs",
                share(self.replicas)
            );
            if let Binding::Hash(routes) = &self.binding {
                message = format!(
                    "the users of the lost pod, {}, lose their sessions; when its replacement joins the hash ring, \
                     about as many of the others are moved to it and lose theirs{routes}",
                    share(self.replicas)
                );
            }
            self.ends_with_pod(&message, "a pod that is deleted, and does not crash,")
        })
    }

    fn rolling_update(&self) -> Row {
        if let Some(row) = self.before() {
            return row;
        }
        let strategy = self.spec.and_then(|spec| spec.strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            let message = format!(
                "strategy Recreate removes {} before the first new pod starts: every session ends, and nobody is \
                 served meanwhile",
                pods(self.replicas)
            );
            return (Outcome::Lost, reasons::RECREATE_STRATEGY, message);
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let (unavailable, surge) = pace(
            self.replicas,
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        );
        let mut message = format!(
            "{} replaced, with at most {unavailable} missing and {surge} added at a time: every user loses the session \
             when their pod ends",
            if self.replicas == 1 {
                "the only pod is".to_owned()
            } else {
                format!("all {} pods are", self.replicas)
            }
        );
        if let Binding::Hash(routes) = &self.binding {
            message = format!("{message}, and may be moved again with each further pod{routes}");
        }
        if self.drain > 0 {
            let message = format!("{message}; {}", self.drain_clause("a pod"));
            return (Outcome::Lost, reasons::ENDS_AFTER_DRAIN, message);
        }
        (Outcome::Lost, reasons::ALL_PODS_REPLACED, message)
    }

    fn scale_up(&self) -> Row {
        if let Some(row) = self.before() {
            return row;
        }
        let next = self.replicas.saturating_add(1);
        match &self.binding {
            Binding::Unbound(why) => (
                Outcome::Lost,
                reasons::NOT_STICKY,
                format!(
                    "{why}: with a second pod its users are spread over both, and find their sessions on one only"
                ),
            ),
            Binding::Pod => (
                Outcome::Kept,
                reasons::BOUND_TO_POD,
                "users stay on their pods; only new users reach the added ones".to_owned(),
            ),
            Binding::Hash(routes) => (
                Outcome::Partly,
                reasons::HASH_MOVES,
                format!(
                    "from {} to {next} pods {} is moved to the new pod and loses the session{routes}",
                    self.replicas,
                    share(next)
                ),
            ),
        }
    }

    fn scale_down(&self) -> Row {
        if self.replicas == 1 {
            return (
                Outcome::NotApplicable,
                reasons::SINGLE_REPLICA,
                "the target has one replica; removing it is ScaleToZero".to_owned(),
            );
        }
        self.before().unwrap_or_else(|| {
            let others = match &self.binding {
                Binding::Hash(routes) => format!("nearly all others keep theirs{routes}"),
                Binding::Pod | Binding::Unbound(_) => "all others keep theirs".to_owned(),
            };
            let message = format!(
                "the users of removed pods lose their sessions, from {} to {} pods {}; {others}",
                self.replicas,
                self.replicas.saturating_sub(1),
                share(self.replicas)
            );
            self.ends_with_pod(&message, "a removed pod")
        })
    }

    fn scale_to_zero(&self) -> Row {
        self.before()
            .filter(|(outcome, ..)| *outcome == Outcome::NotApplicable)
            .unwrap_or_else(|| {
                (
                    Outcome::Lost,
                    reasons::ALL_PODS_REMOVED,
                    "sessions are in the pods only: all end with the last pod".to_owned(),
                )
            })
    }

    fn node_loss(&self) -> Row {
        self.before().or_else(|| self.only_pod()).unwrap_or_else(|| {
            let mut message = format!(
                "the users of every pod on that node lose their sessions ({} for each pod); those of pods on other nodes \
                 keep theirs",
                share(self.replicas)
            );
            if let Binding::Hash(routes) = &self.binding {
                message = format!("{message}, apart from about as many whom the replacements draw over{routes}");
            }
            (Outcome::Lost, reasons::ENDS_WITH_POD, message)
        })
    }

    fn operator_down(&self) -> Row {
        match (&self.binding, self.replicas) {
            (Binding::Unbound(why), 2..) => (Outcome::Lost, reasons::NOT_STICKY, self.spread(why)),
            (Binding::Unbound(_), 1) => (
                Outcome::Kept,
                reasons::ONLY_POD,
                "the only pod has every session; the operator is not needed for that".to_owned(),
            ),
            (Binding::Unbound(_), 0) => (
                Outcome::NotApplicable,
                reasons::NO_REPLICAS,
                "the target has no replicas, and so no sessions".to_owned(),
            ),
            (Binding::Pod | Binding::Hash(_), _) if self.webhook => (
                Outcome::Partly,
                reasons::WEBHOOK_NEEDED,
                "users stay on their pods, but while no replica of the operator runs, pods that should have the sidecar \
                 cannot start: admission of them fails"
                    .to_owned(),
            ),
            (Binding::Pod | Binding::Hash(_), _) => (
                Outcome::Kept,
                reasons::FIELDS_STAY,
                "the setting stays in the objects that carry it; until the operator is back nobody restores what \
                 others remove, and new routes get none"
                    .to_owned(),
            ),
        }
    }

    fn only_pod(&self) -> Option<Row> {
        (self.replicas == 1).then(|| {
            let message = "the only pod has every session: all are lost, and nobody is served until its replacement is \
                           ready"
                .to_owned();
            (Outcome::Lost, reasons::ONLY_POD, message)
        })
    }

    fn ends_with_pod(&self, message: &str, subject: &str) -> Row {
        if self.drain > 0 {
            let message = format!("{message}; {}", self.drain_clause(subject));
            (Outcome::Lost, reasons::ENDS_AFTER_DRAIN, message)
        } else {
            (Outcome::Lost, reasons::ENDS_WITH_POD, message.to_owned())
        }
    }

    fn drain_clause(&self, subject: &str) -> String {
        format!(
            "{subject} serves the users it has for {} s more, so shorter sessions can end by themselves",
            self.drain
        )
    }

    fn volumes(&self) -> Vec<String> {
        let pod = self.spec.and_then(|spec| spec.template.spec.as_ref());
        let writable = |name: &str| {
            pod.and_then(|pod| pod.volumes.as_ref())
                .into_iter()
                .flatten()
                .any(|volume| {
                    volume.name == name
                        && (volume.empty_dir.is_some()
                            || volume.persistent_volume_claim.is_some()
                            || volume.ephemeral.is_some()
                            || volume.host_path.is_some()
                            || volume.nfs.is_some()
                            || volume.csi.is_some())
                })
        };
        let mut mounts: Vec<String> = pod
            .into_iter()
            .flat_map(|pod| &pod.containers)
            .flat_map(|container| container.volume_mounts.iter().flatten())
            .filter(|mount| mount.read_only != Some(true) && writable(&mount.name))
            .map(|mount| format!("{} at {}", mount.name, mount.mount_path))
            .collect();
        mounts.sort_unstable();
        mounts.dedup();
        mounts
    }
}

fn binding(routes: &[RouteFact]) -> Binding {
    if routes.is_empty() {
        return Binding::Unbound("no route with affinity reaches the target".to_owned());
    }
    let effective = |route: &RouteFact| if route.read_back { route.binds } else { Binds::None };
    let named = |wanted: &dyn Fn(Binds) -> bool| {
        let names: Vec<&str> = routes
            .iter()
            .filter(|route| wanted(effective(route)))
            .map(|route| route.route.as_str())
            .collect();
        names.join(", ")
    };
    match routes.iter().map(effective).min() {
        Some(Binds::Pod) => Binding::Pod,
        Some(Binds::Hash) if routes.iter().all(|route| effective(route) == Binds::Hash) => {
            Binding::Hash(String::new())
        }
        Some(Binds::Hash) => Binding::Hash(format!(
            "; this holds for {}, while users of {} are bound to pods",
            named(&|binds| binds == Binds::Hash),
            named(&|binds| binds == Binds::Pod)
        )),
        _ => Binding::Unbound(format!(
            "no affinity to pods stands on {}",
            named(&|binds| binds < Binds::Hash)
        )),
    }
}

fn no_store() -> Row {
    (
        Outcome::NotApplicable,
        reasons::NO_STORE,
        "sessions are in the pods, and no pod uses a session store".to_owned(),
    )
}

/// One pod's part of the users, if they are spread evenly.
fn share(pods: u32) -> String {
    if pods <= 1 {
        return "everybody".to_owned();
    }
    let percent = (100 + pods / 2) / pods;
    format!("about 1 in {pods} ({percent} %)")
}

fn pods(count: u32) -> String {
    if count == 1 {
        "the only pod".to_owned()
    } else {
        format!("all {count} pods")
    }
}

/// Numbers of pods that may be missing and added during a rolling update. Percentages are rounded down for
/// maxUnavailable and up for maxSurge; if both come out as 0, one pod may be missing (apps/v1
/// `RollingUpdateDeployment`).
fn pace(replicas: u32, unavailable: Option<&IntOrString>, surge: Option<&IntOrString>) -> (u32, u32) {
    let unavailable = amount(unavailable, |percent| replicas.saturating_mul(percent) / 100);
    let surge = amount(surge, |percent| replicas.saturating_mul(percent).div_ceil(100));
    if unavailable == 0 && surge == 0 {
        (1, 0)
    } else {
        (unavailable, surge)
    }
}

fn amount(value: Option<&IntOrString>, of_percent: impl Fn(u32) -> u32) -> u32 {
    /// Default of both fields.
    const DEFAULT_PERCENT: u32 = 25;
    match value {
        None => of_percent(DEFAULT_PERCENT),
        Some(IntOrString::Int(count)) => u32::try_from(*count).unwrap_or(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().map_or(0, of_percent),
    }
}

#[cfg(test)]
mod tests;
