//! From the wanted revision to pods that contain it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, PostParams};
use kube::{Api, ResourceExt};

use super::{POLL, SECRETS_PERIOD, Work, patience, suspended};
use crate::api::conditions::reasons;
use crate::api::session_policy::Rollout;
use crate::api::{CREDENTIALS_ANNOTATION, INPUTS_ANNOTATION, SessionInjection};
use crate::injection;
use crate::policy::sessions::moving::PLACE_ANNOTATION;
use crate::policy::sessions::revision::{self, Choice, Wanted};
use crate::policy::sessions::{Sessions, Trouble, blocked, names, pods};
use crate::policy::validate::Kept;
use crate::runtime::writer::{WriteError, classify};

/// How long every API server is given to see a new SessionInjection after one of them applied it to a dry-run pod.
const SETTLE: Duration = Duration::from_secs(2);

/// Age of a SessionInjection from which every API server has long seen it.
const KNOWN_TO_ALL: Duration = Duration::from_mins(1);

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
                        "spec.rollout is Manual: kubectl session rollout {} replaces the pods of Deployment {} with ones that {}",
                        self.validated.name,
                        self.validated.target.name_any(),
                        self.in_words()
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
        meta.annotations.get_or_insert_default().extend([
            (INPUTS_ANNOTATION.to_owned(), wanted.inputs.clone()),
            (PLACE_ANNOTATION.to_owned(), wanted.place.name().to_owned()),
        ]);
        if let Some(credentials) = &wanted.credentials {
            meta.annotations
                .get_or_insert_default()
                .insert(CREDENTIALS_ANNOTATION.to_owned(), credentials.clone());
        }
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
        let known = self.found.injections.iter();
        let mut known = known.filter(|known| known.name_any() == name);
        let written = known
            .next()
            .and_then(|known| known.metadata.creation_timestamp.as_ref());
        let age = written.map(|written| jiff::Timestamp::now().duration_since(written.0));
        let age = age.and_then(|age| Duration::try_from(age).ok());
        let client = self.tools.writer.client();
        match injection::probe::admitted(client, injection, &spec.template).await {
            Ok(Ok(())) => {
                self.tools.memory.admitted(&key);
                // One whose mark somebody took off: each moment without it starts pods that keep sessions for themselves.
                if age.is_some_and(|age| age >= KNOWN_TO_ALL) {
                    return Ok(Ok(()));
                }
                Ok(Err(pending(
                    "it did, and the other API servers are given a moment",
                )))
            }
            Ok(Err(lacks)) => {
                sessions.retry_after = Some(patience(written, POLL));
                Ok(Err(pending(&format!("it lacks {}", lacks.join(", ")))))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                sessions.retry_after = Some(SECRETS_PERIOD);
                Ok(Err(blocked::refused(&self.validated.target, &status.message)))
            }
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
            } else if let Some(trouble) = blocked::why(target, &self.found.pods) {
                return Ok(Err(trouble));
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
                self.replace(pod, sessions).await?
            } else {
                "delete them, one at a time".to_owned()
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
        let mut sentence = format!("{} of {} pods {}", count.injected, count.total, self.in_words());
        if let Some(next) = next {
            sentence = format!(
                "{sentence}; revision {next} is available: kubectl session rollout {}",
                self.validated.name
            );
        }
        Ok(Ok(sentence))
    }

    /// Evicts the pod if the one that takes its place comes out better: else pods would be evicted for ever.
    async fn replace(&self, pod: &str, sessions: &Sessions) -> Result<String, WriteError> {
        let target = &self.validated.target;
        let revisions = self.found.injections.iter();
        let mut revisions = revisions.filter(|revision| Some(revision.name_any()) == sessions.mark);
        let (Some(revision), Some(spec)) = (revisions.next(), &target.spec) else {
            return Ok("the revision is gone".to_owned());
        };
        let absent = pods::absent(spec.template.spec.as_ref(), &revision.spec);
        if !absent.is_empty() {
            return Ok(format!("the pod template has no {} any more", absent.join(", ")));
        }
        match injection::probe::admitted(self.tools.writer.client(), revision, &spec.template).await {
            Ok(Ok(())) => self.evict(pod).await.map(str::to_owned),
            Ok(Err(lacks)) => Ok(format!(
                "none is evicted, as a test pod lacks {} as well: look for what takes it out again at admission, and whether the chart's own admission policy or webhook is installed",
                lacks.join(", ")
            )),
            Err(kube::Error::Api(status)) => Ok(format!(
                "none is evicted, as a test pod is refused: {}",
                status.message
            )),
            Err(error) => Err(classify(error)),
        }
    }

    /// What pods do once they are as they are to be.
    fn in_words(&self) -> &'static str {
        match self.wish.kept {
            Kept::Replicated(_) => "keep their sessions in their sidecars",
            Kept::Shared(_) => "keep their sessions in the store",
            Kept::Application(_) => "hand their users over before they end",
        }
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
