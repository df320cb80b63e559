//! Symfony, whose sessions are PHP's own unless its configuration names another handler (`docs/frameworks.md`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

use super::php::Php;
use super::{Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;

/// The preset.
#[derive(Debug)]
pub struct Symfony;

impl Preset for Symfony {
    fn framework(&self) -> Framework {
        Framework::Symfony
    }

    fn preflight(&self, container: &Container, settings_module: Option<&str>) -> Option<Preflight> {
        Php.preflight(container, settings_module)
    }

    fn binding_keys(&self, endpoint: &Endpoint, ttl_seconds: Option<i32>) -> BTreeMap<String, String> {
        Php.binding_keys(endpoint, ttl_seconds)
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        Php.parts(subject)
    }
}
