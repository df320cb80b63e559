//! What the images of the target have.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::PostParams;

use super::{POLL, SECRETS_PERIOD, Work, patience, remove, suspended};
use crate::api::conditions::reasons;
use crate::api::session_policy::PreflightResult;
use crate::api::session_store::Engine;
use crate::framework::{self, Facts};
use crate::policy::sessions::preflight::{self, Progress};
use crate::policy::sessions::{Sessions, Trouble, blocked, names};
use crate::runtime::writer::{WriteError, classify};

/// How long a preflight that gave no answer is left alone.
pub(super) const PREFLIGHT_PAUSE: Duration = Duration::from_mins(1);

impl Work<'_> {
    /// What the preset has to know of each container.
    pub(super) async fn preflights(
        &self,
        containers: &[&Container],
        engine: Engine,
        known: &mut Option<PreflightResult>,
        sessions: &mut Sessions,
    ) -> Result<Result<Vec<Facts>, Trouble>, WriteError> {
        let mut all = Vec::with_capacity(containers.len());
        for container in containers {
            let Some(preflight) = self
                .preset
                .preflight(engine, self.wish.client.settings_module.as_deref())
            else {
                all.push(Facts::new());
                continue;
            };
            let key = preflight::key(self.wish.client.framework, container, &preflight);
            let result = match known.as_ref().filter(|known| known.of == key) {
                Some(known) => known.clone(),
                None => match self.preflight(container, &preflight, &key, sessions).await? {
                    Ok(result) => {
                        *known = Some(result.clone());
                        result
                    }
                    Err(trouble) => return Ok(Err(trouble)),
                },
            };
            if let Some(missing) = result.missing {
                return Ok(Err(Trouble::new(
                    reasons::HANDLER_MISSING,
                    format!(
                        "container {} (image {}): {missing}",
                        container.name,
                        container.image.as_deref().unwrap_or_default()
                    ),
                )));
            }
            all.push(result.facts);
        }
        Ok(Ok(all))
    }

    pub(super) async fn preflight(
        &self,
        container: &Container,
        preflight: &framework::Preflight,
        key: &str,
        sessions: &mut Sessions,
    ) -> Result<Result<PreflightResult, Trouble>, WriteError> {
        if self.validated.suspended {
            return Ok(Err(suspended("the image is not looked at")));
        }
        let name = preflight::name(&self.validated.name, key);
        let memory_key = format!("{}/{name}", self.validated.namespace);
        if let Some(trouble) = self.tools.memory.failed_lately(&memory_key) {
            sessions.retry_after = Some(PREFLIGHT_PAUSE);
            return Ok(Err(trouble));
        }
        let api: Api<Pod> = self.api();
        let running = |what: &str| {
            Trouble::new(
                reasons::PREFLIGHT_RUNNING,
                format!("pod {name} looks at the image: {what}"),
            )
        };
        sessions.retry_after = Some(POLL);
        let Some(pod) = api.get_opt(&name).await.map_err(classify)? else {
            let pod = preflight::pod(self.validated, container, preflight, key);
            return match api.create(&PostParams::default(), &pod).await.map_err(classify) {
                Ok(_) => Ok(Err(running("it is starting"))),
                Err(error @ (WriteError::Refused(_) | WriteError::Api(kube::Error::Api(_)))) => {
                    let trouble = Trouble::new(
                        reasons::PREFLIGHT_FAILED,
                        format!(
                            "pod {name}, which looks at the image, cannot be made: {}",
                            blocked::with_remedy(&error.explain())
                        ),
                    );
                    self.tools.memory.failed(&memory_key, &trouble);
                    sessions.retry_after = Some(PREFLIGHT_PAUSE);
                    Ok(Err(trouble))
                }
                Err(error) => Err(error),
            };
        };
        if !names::is_of(&pod.metadata, &self.validated.name) {
            return Ok(Err(Trouble::new(
                reasons::PREFLIGHT_FAILED,
                format!("pod {name} exists and is not the operator's; delete it"),
            )));
        }
        match preflight::progress(&pod, key) {
            Progress::Running(what) => {
                sessions.retry_after = Some(patience(pod.metadata.creation_timestamp.as_ref(), POLL));
                Ok(Err(running(&what)))
            }
            Progress::Answered(result) => {
                sessions.retry_after = Some(SECRETS_PERIOD);
                remove(&api, &pod.metadata).await?;
                Ok(Ok(result))
            }
            Progress::Failed(trouble) => {
                self.tools.memory.failed(&memory_key, &trouble);
                sessions.retry_after = Some(PREFLIGHT_PAUSE);
                remove(&api, &pod.metadata).await?;
                Ok(Err(trouble))
            }
        }
    }
}
