//! Symfony, whose sessions are PHP's own unless its configuration names another handler (`docs/frameworks.md`).

use std::collections::BTreeMap;

use super::php::Php;
use super::{Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Symfony;

impl Preset for Symfony {
    fn framework(&self) -> Framework {
        Framework::Symfony
    }

    fn speaks_memcached(&self) -> bool {
        true
    }

    fn speaks_cluster(&self) -> bool {
        true
    }

    fn preflight(&self, engine: Engine, settings_module: Option<&str>) -> Option<Preflight> {
        Php.preflight(engine, settings_module)
    }

    fn binding_keys(&self, endpoint: &Endpoint, ttl_seconds: Option<i32>) -> BTreeMap<String, String> {
        Php.binding_keys(endpoint, ttl_seconds)
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        Php.parts(subject)
    }
}
