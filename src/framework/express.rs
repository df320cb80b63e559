//! Express with express-session, by a preload that gives it a store where the application names none.

use std::collections::BTreeMap;

use super::variables::{Place, connection, listed};
use super::{AGENT_DIR, Endpoint, Parts, Preflight, Preset, Refusal, Subject, preflight};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Express;

impl Preset for Express {
    fn framework(&self) -> Framework {
        Framework::Express
    }

    fn speaks_memcached(&self) -> bool {
        true
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        Some(preflight::express())
    }

    fn binding_keys(&self, _: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        Ok(Parts {
            env: connection(subject),
            // First: a preload that other tools bring must not load express-session before ours looks for it.
            extend: vec![listed(
                subject,
                "NODE_OPTIONS",
                Place::First,
                " ",
                &format!("--require {AGENT_DIR}/preload.cjs"),
            )],
            mounts: Vec::new(),
            agent: Some("express"),
        })
    }
}
