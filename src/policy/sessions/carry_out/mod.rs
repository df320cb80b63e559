//! Reads what decides on the sessions of a policy and writes what belongs to it.

mod binding;
mod garbage;
mod hand_over;
mod in_pods;
mod memory;
mod moving;
mod peer_access;
mod preflights;
mod replication;
mod rollout;
mod store;
mod surroundings;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};

pub use garbage::collect_garbage;
pub use memory::Memory;
pub use peer_access::keep_peer_access;
use store::describe;
pub use surroundings::{old_nodes, read_old_nodes, read_surroundings, surroundings};

use super::moving::{self as course, Course, Place};
use super::revision::{self, Images, Known};
use super::source::Promise;
use super::{Sessions, Trouble, container, names, pods};
use crate::api::conditions::reasons;
use crate::api::session_policy::{Binding, Injection, PreflightResult, Replication};
use crate::api::{POLICY_UID_ANNOTATION, SessionPolicy};
use crate::framework::{self, Endpoint, Preset};
use crate::policy::dereference::Dereferenced;
use crate::policy::validate::{Kept, SessionsWish, Validated};
use crate::runtime::writer::{WriteError, Writer, classify};

/// Secrets are not watched; they are read again this often.
const SECRETS_PERIOD: Duration = Duration::from_secs(45);

/// Pause between looks at a preflight and at admission, which no watch tells of.
const POLL: Duration = Duration::from_secs(1);

/// When to look again at something that has been under way since a time: soon while it is young, and ever less often,
/// for what is wrong with it may take a person.
pub fn patience(since: Option<&Time>, least: Duration) -> Duration {
    let age = since.map(|since| jiff::Timestamp::now().duration_since(since.0));
    let age = age.and_then(|age| Duration::try_from(age).ok());
    age.map_or(least, |age| (age / 10).clamp(least, SECRETS_PERIOD))
}

/// What the work needs.
pub struct Tools<'a> {
    /// Write side, and reads of single objects.
    pub writer: &'a Writer,
    /// Images that are injected.
    pub images: &'a Images,
    /// What is known of admission and stores between reconciles.
    pub memory: &'a Memory,
    /// Whether every request of a user reaches the same pod.
    pub bound_to_pods: bool,
}

/// Sets up what `wish` says, as far as that is possible now.
pub async fn carry_out(
    tools: &Tools<'_>,
    policy: &SessionPolicy,
    validated: &Validated,
    wish: &SessionsWish,
    found: &Dereferenced,
) -> Result<Sessions, WriteError> {
    let work = Work {
        tools,
        validated,
        wish,
        found,
        preset: framework::preset(wish.client.framework),
        former: policy.status.as_ref().and_then(|status| status.injection.clone()),
        known: policy
            .status
            .as_ref()
            .and_then(|status| status.replication.clone()),
    };
    // Also one whose object somebody deleted: it is made anew, and the template has to name it all the time.
    let current = pods::mark_of(&validated.target).filter(|mark| names::is_revision(&validated.name, mark));
    let mut sessions = Sessions {
        // What stands stays while something else is wrong: taking it away would log everybody out.
        mark: current.map(str::to_owned),
        retry_after: Some(SECRETS_PERIOD),
        ..Sessions::default()
    };
    let mut next = None;
    let mut preflight = work.former.as_ref().and_then(|former| former.preflight.clone());
    let outcome = match keep_peer_access(tools.writer, validated, found).await? {
        Ok(changed) => {
            sessions.changed.extend(changed);
            work.steps(&mut sessions, &mut next, &mut preflight).await?
        }
        Err(trouble) => Err(trouble),
    };
    let count = pods::count(&validated.target, &found.pods, &found.injections);
    sessions.injected = Some(match outcome {
        Ok(()) => cautioned(work.judge(&sessions, next.as_deref(), &count).await?, &sessions),
        Err(trouble) => cautioned(Err(trouble), &sessions),
    });
    work.replication(&mut sessions, &count).await?;
    sessions.injection = Some(Injection {
        revision: sessions.mark.clone(),
        injected_pods: i32::try_from(count.injected).unwrap_or(i32::MAX),
        total_pods: i32::try_from(count.total).unwrap_or(i32::MAX),
        update_available: next.is_some(),
        next_revision: next,
        rolled_back_at: sessions.rolled_back_at.clone(),
        preflight,
    });
    Ok(sessions)
}

/// Adds what to know of sessions in the pods where all is well, and where somebody is about to let pods be replaced.
fn cautioned(judged: Result<String, Trouble>, sessions: &Sessions) -> Result<String, Trouble> {
    let Some(Promise::Pods { cautions, .. }) = &sessions.promise else {
        return judged;
    };
    let with = |message: String| {
        std::iter::once(message.as_str())
            .chain(cautions.sentences())
            .collect::<Vec<_>>()
            .join("; ")
    };
    match judged {
        Ok(message) => Ok(with(message)),
        Err(trouble) if trouble.reason == reasons::ROLLOUT_NEEDED => {
            Err(Trouble::new(trouble.reason, with(trouble.message)))
        }
        Err(trouble) => Err(trouble),
    }
}

struct Work<'a> {
    tools: &'a Tools<'a>,
    validated: &'a Validated,
    wish: &'a SessionsWish,
    found: &'a Dereferenced,
    preset: &'static dyn Preset,
    former: Option<Injection>,
    known: Option<Replication>,
}

impl Work<'_> {
    /// The steps up to the mark; the trouble is that of the injection.
    async fn steps(
        &self,
        sessions: &mut Sessions,
        next: &mut Option<String>,
        preflight: &mut Option<PreflightResult>,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let named = self
            .found
            .injections
            .iter()
            .find(|injection| Some(injection.name_any()) == sessions.mark);
        let current = named.map(|injection| Place::of(injection));
        let wanted = match &self.wish.kept {
            Kept::Replicated(_) => Place::Pods,
            Kept::Shared(_) => Place::Store,
            Kept::Application(drain) => return self.hand_over(*drain, sessions, next).await,
        };
        match course::course(current, wanted, self.wish.otherwise.is_some()) {
            Course::To(place) => self.towards(place, sessions, next, preflight).await,
            Course::Through(wanted) => {
                let begun = current.unwrap_or(wanted);
                match self.through(begun, wanted, sessions).await? {
                    Ok(place) => self.towards(place, sessions, next, preflight).await,
                    Err(trouble) => Ok(Err(trouble)),
                }
            }
        }
    }

    /// Makes pods of this kind the ones that run.
    async fn towards(
        &self,
        place: Place,
        sessions: &mut Sessions,
        next: &mut Option<String>,
        preflight: &mut Option<PreflightResult>,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let store = match (place, self.wish.shared()) {
            (Place::Pods, _) | (_, None) => None,
            (_, Some(shared)) => match self.store_source(shared).await? {
                Ok(store) => Some(store),
                Err(trouble) => {
                    let waits = Trouble::new(
                        reasons::STORE_NOT_READY,
                        format!(
                            "nothing new is injected until the store is ready: {}",
                            trouble.message
                        ),
                    );
                    sessions.store = Some(Err(trouble));
                    return Ok(Err(waits));
                }
            },
        };
        let replicated = self.wish.replicated().filter(|_| place != Place::Store);
        let pods = match replicated {
            Some(replicated) => match self.in_pods(replicated).await? {
                Ok(pods) => Some(pods),
                Err(trouble) => return Ok(Err(trouble)),
            },
            None => None,
        };
        if let (Kept::Shared(_), Some(store)) = (&self.wish.kept, &store) {
            sessions.store = Some(Ok(describe(store)));
        }
        // While sessions move, the store has everything.
        sessions.promise = store
            .as_ref()
            .or(pods.as_ref())
            .map(|source| source.promise.clone());
        let (source, binding) = match (&pods, &store) {
            (Some(pods), _) => (pods, names::binding_in_pods(&self.validated.name)),
            (None, Some(store)) => (store, names::binding(&self.validated.name)),
            (None, None) => return Ok(Ok(())),
        };
        let upstream = match (&pods, &store) {
            (Some(pods), Some(store)) => match self.upstream_of(place, pods, store, sessions).await? {
                Ok(upstream) => Some(upstream),
                Err(trouble) => return Ok(Err(trouble)),
            },
            _ => None,
        };
        let has_shards = matches!(source.promise, Promise::Store { shards: Some(_), .. });
        if let Some(refusal) = framework::unsuitable(self.preset, source.endpoint.engine, has_shards) {
            return Ok(Err(refusal.into()));
        }
        let binding_version = match self.binding(&binding, source, sessions).await? {
            Ok(version) => version,
            Err(trouble) => return Ok(Err(trouble)),
        };
        sessions.binding = Some(Binding {
            name: binding.clone(),
        });
        let containers = match container::chosen(&self.validated.target, &self.wish.client.containers) {
            Ok(containers) => containers,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let known = match self
            .preflights(&containers, source.endpoint.engine, preflight, sessions)
            .await?
        {
            Ok(facts) => containers.into_iter().zip(facts).collect::<Vec<_>>(),
            Err(trouble) => return Ok(Err(trouble)),
        };
        let public = Endpoint {
            password: None,
            ..source.endpoint.clone()
        };
        let template = self.validated.target.spec.as_ref().map(|spec| &spec.template);
        let pod = template
            .and_then(|template| template.spec.clone())
            .unwrap_or_default();
        let sidecar = replicated.map(|replicated| self.sidecar(replicated, upstream, &pod));
        let wanted = revision::build(&Known {
            policy: self.validated,
            wish: self.wish,
            preset: self.preset,
            containers: &known,
            endpoint: &public,
            place,
            binding: &binding,
            binding_version: &binding_version,
            credentials: source.credentials.as_deref(),
            images: self.tools.images,
            sidecar: sidecar.as_ref(),
        });
        match wanted {
            Ok(wanted) => self.take(&wanted, sessions, next).await,
            Err(trouble) => Ok(Err(trouble)),
        }
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>, WriteError> {
        self.api::<Secret>().get_opt(name).await.map_err(classify)
    }

    fn is_ours(&self, meta: &ObjectMeta) -> bool {
        meta.annotations
            .as_ref()
            .and_then(|annotations| annotations.get(POLICY_UID_ANNOTATION))
            == Some(&self.validated.uid)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.tools.writer.client().clone(), &self.validated.namespace)
    }
}

/// Deletes this very object; one that is gone is no error.
pub async fn remove<K>(api: &Api<K>, meta: &ObjectMeta) -> Result<(), WriteError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api
        .delete(meta.name.as_deref().unwrap_or_default(), &params)
        .await
        .map_err(classify)
    {
        Ok(_) | Err(WriteError::Gone | WriteError::Changed) => Ok(()),
        Err(error) => Err(error),
    }
}

fn suspended(what: &str) -> Trouble {
    Trouble::new(reasons::SUSPENDED, format!("{what} while spec.suspend is true"))
}
