//! Anything: what `client.env` of the policy says is all that the container gets.

use std::collections::BTreeMap;

use super::{Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Generic;

impl Preset for Generic {
    fn framework(&self) -> Framework {
        Framework::Generic
    }

    fn speaks_memcached(&self) -> bool {
        true
    }

    fn speaks_cluster(&self) -> bool {
        true
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        None
    }

    fn binding_keys(&self, _: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn parts(&self, _: &Subject<'_>) -> Result<Parts, Refusal> {
        Ok(Parts::default())
    }
}
