//! Rails, whose session store is named in an initializer of the application (`docs/frameworks.md`).

use std::collections::BTreeMap;

use super::encoding::redis_url;
use super::variables::{URL_KEY, bound, connection};
use super::{Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Rails;

impl Preset for Rails {
    fn framework(&self) -> Framework {
        Framework::Rails
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        None
    }

    fn binding_keys(&self, endpoint: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::from([(URL_KEY.to_owned(), redis_url(endpoint))])
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let mut env = connection(subject);
        env.push(bound("SESSION_OPERATOR_URL", subject, URL_KEY));
        Ok(Parts {
            env,
            ..Parts::default()
        })
    }
}
