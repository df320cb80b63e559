//! Django, by a settings module of ours in front of the application's own one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;

use super::variables::{Place, connection, defined, inherited, listed, literal};
use super::{AGENT_DIR, Endpoint, Parts, Preflight, Preset, Refusal, Subject, preflight};
use crate::api::conditions::reasons;
use crate::api::session_injection::Extension;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// What Django is told that its settings are.
const SETTINGS: &str = "DJANGO_SETTINGS_MODULE";

/// The module in `agents/django/settings`.
const OURS: &str = "session_operator_settings";

/// Where that module finds the name of the application's own one.
const APPLICATION: &str = "SESSION_OPERATOR_DJANGO_SETTINGS";

/// The preset.
#[derive(Debug)]
pub struct Django;

impl Preset for Django {
    fn framework(&self) -> Framework {
        Framework::Django
    }

    fn speaks_memcached(&self) -> bool {
        true
    }

    fn preflight(&self, _: Engine, settings_module: Option<&str>) -> Option<Preflight> {
        Some(preflight::django(settings_module))
    }

    fn binding_keys(&self, _: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        if subject.endpoint.cluster {
            return Err(Refusal {
                reason: reasons::HANDLER_MISSING,
                message: format!(
                    "container {}: Django's cache for Redis speaks to one server and not to a cluster; name a store with topology \
                     Standalone",
                    subject.container.name
                ),
            });
        }
        let mut env = connection(subject);
        env.push(application(subject)?);
        Ok(Parts {
            env,
            extend: vec![
                listed(
                    subject,
                    "PYTHONPATH",
                    Place::Last,
                    ":",
                    &format!("{AGENT_DIR}/settings"),
                ),
                Extension {
                    name: SETTINGS.to_owned(),
                    when_set: OURS.to_owned(),
                    when_unset: OURS.to_owned(),
                },
            ],
            mounts: Vec::new(),
            agent: Some("django"),
        })
    }
}

/// The name of the application's own settings: of the container, the image, the policy, or the application's files.
fn application(subject: &Subject<'_>) -> Result<EnvVar, Refusal> {
    if defined(subject.container, SETTINGS).is_some() {
        return Ok(EnvVar {
            name: APPLICATION.to_owned(),
            value: Some(format!("$({SETTINGS})")),
            value_from: None,
        });
    }
    let name = inherited(subject, SETTINGS)
        .filter(|name| !name.is_empty())
        .or(subject.settings_module)
        .or_else(|| subject.facts.get("settings").map(String::as_str));
    match name {
        Some(name) => Ok(literal(APPLICATION, name)),
        None => Err(Refusal {
            reason: reasons::HANDLER_MISSING,
            message: format!(
                "container {}: no settings module is known; set spec.client.settingsModule",
                subject.container.name
            ),
        }),
    }
}
