//! From the wanted revision to pods that contain it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, PostParams};
use kube::{Api, ResourceExt};

use super::{POLL, SECRETS_PERIOD, Work, suspended};
use crate::api::conditions::reasons;
use crate::api::session_policy::Rollout;
use crate::api::{INPUTS_ANNOTATION, SessionInjection};
use crate::injection;
use crate::policy::sessions::revision::{self, Choice, Wanted};
use crate::policy::sessions::{Sessions, Trouble, names, pods};
use crate::runtime::writer::{WriteError, classify};

/// How long every API server is given to see a new SessionInjection after one of them applied it to a dry-run pod.
const SETTLE: Duration = Duration::from_secs(2);

impl Work<'_> {
    /// Makes the wanted revision the one that the template is to name, if it is to be.
    pub(super) async fn take(
        &self,
        wanted: &Wanted,
        sessions: &mut Sessions,
        next: &mut Option<String>,
    ) -> Result<Result<(), Trouble>, WriteError> {
        let current = self
            .found
            .injections
            .iter()
            .find(|injection| Some(injection.name_any()) == sessions.mark);
        let accepted = self.wish.accepted.as_deref();
        // A mark that names nothing is no rollback: its pods would stay without an injection.
        let standing = current.and(sessions.mark.as_deref());
        let back = revision::rolled_back(wanted, self.former.as_ref(), standing, accepted);
        if back.is_some() {
            sessions.rolled_back_at = back;
            *next = Some(wanted.name.clone());
            return Ok(Ok(()));
        }
        match revision::choose(wanted, current.map(AsRef::as_ref), self.wish.rollout, accepted) {
            Choice::Keep { next: waiting } => {
                *next = waiting;
                Ok(Ok(()))
            }
            Choice::Wait => {
                *next = Some(wanted.name.clone());
                Ok(Err(Trouble::new(
                    reasons::ROLLOUT_NEEDED,
                    format!(
                        "spec.rollout is Manual: kubectl session rollout {} replaces the pods of Deployment {} with ones that keep their sessions in the store",
                        self.validated.name,
                        self.validated.target.name_any()
                    ),
                )))
            }
            Choice::Take if self.validated.suspended => Ok(Err(suspended("no pod is replaced"))),
            Choice::Take => {
                sessions.coming = Some(wanted.name.clone());
                let injection = self.write_revision(wanted, sessions).await?;
                match self.admitted(&injection, sessions).await? {
                    Ok(()) => {
                        sessions.mark = Some(wanted.name.clone());
                        Ok(Ok(()))
                    }
                    Err(trouble) => Ok(Err(trouble)),
                }
            }
        }
    }

    pub(super) async fn write_revision(
        &self,
        wanted: &Wanted,
        sessions: &mut Sessions,
    ) -> Result<SessionInjection, WriteError> {
        let mut meta = names::metadata(self.validated, wanted.name.clone());
        meta.annotations
            .get_or_insert_default()
            .insert(INPUTS_ANNOTATION.to_owned(), wanted.inputs.clone());
        let injection = SessionInjection {
            metadata: meta,
            spec: wanted.spec.clone(),
        };
        let exists = self
            .found
            .injections
            .iter()
            .any(|injection| injection.name_any() == wanted.name);
        if exists {
            return Ok(injection);
        }
        let api: Api<SessionInjection> = self.api();
        match api.create(&PostParams::default(), &injection).await {
            Ok(_) => {
                sessions.changed.push(format!("SessionInjection/{}", wanted.name));
                Ok(injection)
            }
            // The cache is behind. Equal names have equal contents.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(injection),
            Err(error) => Err(classify(error)),
        }
    }

    /// Whether admission applies the revision, and every API server has had the time to learn of it.
    pub(super) async fn admitted(
        &self,
        injection: &SessionInjection,
        sessions: &mut Sessions,
    ) -> Result<Result<(), Trouble>, WriteError> {
        sessions.retry_after = Some(POLL);
        let name = injection.name_any();
        let pending = |what: &str| {
            Trouble::new(
                reasons::ADMISSION_PENDING,
                format!(
                    "SessionInjection {name} is written; the pod template is marked once a test pod comes back with it: {what}"
                ),
            )
        };
        let key = format!("{}/{name}", self.validated.namespace);
        if let Some(since) = self.tools.memory.admitted_since(&key) {
            return Ok(if since >= SETTLE {
                Ok(())
            } else {
                Err(pending("it did, and the other API servers are given a moment"))
            });
        }
        let Some(spec) = &self.validated.target.spec else {
            return Ok(Err(pending("the Deployment has no pod template")));
        };
        let client = self.tools.writer.client();
        match injection::probe::admitted(client, injection, &spec.template).await {
            Ok(Ok(())) => {
                self.tools.memory.admitted(&key);
                Ok(Err(pending(
                    "it did, and the other API servers are given a moment",
                )))
            }
            Ok(Err(lacks)) => Ok(Err(pending(&format!("it lacks {}", lacks.join(", "))))),
            Err(error @ kube::Error::Api(_)) => {
                sessions.retry_after = Some(SECRETS_PERIOD);
                Ok(Err(pending(&classify(error).explain())))
            }
            Err(error) => Err(classify(error)),
        }
    }

    /// What can be said of the pods, now that the mark is known; evicts one that came out without its injection.
    pub(super) async fn judge(
        &self,
        sessions: &Sessions,
        next: Option<&str>,
        count: &pods::Count,
    ) -> Result<Result<String, Trouble>, WriteError> {
        let target = &self.validated.target;
        let marked = pods::mark_of(target) == sessions.mark.as_deref();
        if !marked || (!pods::is_rolled_out(target) && count.lacking.is_empty()) {
            let how = if pods::is_paused(target) {
                "; the Deployment is paused: kubectl rollout resume lets them be replaced"
            } else {
                ""
            };
            return Ok(Err(Trouble::new(
                reasons::ROLLOUT_RUNNING,
                format!(
                    "{} of {} pods of Deployment {} are injected and the rollout is not over{how}",
                    count.injected,
                    count.total,
                    target.name_any()
                ),
            )));
        }
        if let Some((pod, lacks)) = count.lacking.first() {
            let evict = pods::is_rolled_out(target)
                && !pods::is_paused(target)
                && !self.validated.suspended
                && self.wish.rollout == Rollout::Automatic;
            let done = if evict {
                self.evict(pod).await?
            } else {
                "delete them, one at a time"
            };
            return Ok(Err(Trouble::new(
                reasons::PODS_NOT_INJECTED,
                format!(
                    "{} of {} pods run without what their revision says (pod {pod} lacks {}); {done}",
                    count.lacking.len(),
                    count.total,
                    lacks.join(", ")
                ),
            )));
        }
        let mut sentence = format!(
            "{} of {} pods keep their sessions in the store",
            count.injected, count.total
        );
        if let Some(next) = next {
            sentence = format!(
                "{sentence}; revision {next} is available: kubectl session rollout {}",
                self.validated.name
            );
        }
        Ok(Ok(sentence))
    }

    /// Asks for the pod to be evicted; a budget that forbids it is no error.
    pub(super) async fn evict(&self, pod: &str) -> Result<&'static str, WriteError> {
        let api: Api<Pod> = self.api();
        match api.evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok("it was evicted, so that a new one takes its place"),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                Ok("a PodDisruptionBudget does not let it be evicted yet")
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok("it is gone by now"),
            Err(error) => Err(classify(error)),
        }
    }
}
