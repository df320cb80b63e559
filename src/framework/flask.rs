//! Flask with Flask-Session.
//!
//! Flask-Session wants a client object in the application's configuration, which no variable can be: the application has one
//! line for it (`docs/frameworks.md`). The rest is what `Config.from_prefixed_env` reads.

use std::collections::BTreeMap;

use super::encoding::{percent, redis_url};
use super::variables::{URL_KEY, bound, connection, literal};
use super::{CA_FILE, Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Flask;

impl Preset for Flask {
    fn framework(&self) -> Framework {
        Framework::Flask
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        None
    }

    /// The URL as redis-py reads it, with the authority in it.
    fn binding_keys(&self, endpoint: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        let authority = if endpoint.tls && endpoint.own_authority {
            format!("?ssl_ca_certs={}", percent(CA_FILE))
        } else {
            String::new()
        };
        BTreeMap::from([(URL_KEY.to_owned(), format!("{}{authority}", redis_url(endpoint)))])
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let mut env = connection(subject);
        env.push(bound("SESSION_OPERATOR_URL", subject, URL_KEY));
        env.push(literal("FLASK_SESSION_TYPE", "redis"));
        env.push(literal(
            "FLASK_SESSION_KEY_PREFIX",
            format!("{}:", subject.endpoint.key_prefix),
        ));
        if let Some(seconds) = subject.ttl_seconds {
            env.push(literal("FLASK_PERMANENT_SESSION_LIFETIME", seconds.to_string()));
        }
        Ok(Parts {
            env,
            ..Parts::default()
        })
    }
}
