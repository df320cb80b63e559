//! Laravel, by the variables that its own configuration files read.

use std::collections::BTreeMap;

use super::encoding::url;
use super::php::{CERT_FILE, refuse_other_authorities};
use super::variables::{URL_KEY, bound, literal};
use super::{CA_FILE, Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The preset.
#[derive(Debug)]
pub struct Laravel;

impl Preset for Laravel {
    fn framework(&self) -> Framework {
        Framework::Laravel
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        None
    }

    /// `REDIS_URL`, whose scheme is that of the stream and not of Redis.
    fn binding_keys(&self, endpoint: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        let scheme = if endpoint.tls { "tls" } else { "tcp" };
        BTreeMap::from([(URL_KEY.to_owned(), url(endpoint, scheme))])
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let endpoint = subject.endpoint;
        if endpoint.cluster {
            return Err(Refusal {
                reason: reasons::HANDLER_MISSING,
                message: format!(
                    "container {}: the configuration files of Laravel name one server and no cluster; name a store with topology \
                     Standalone",
                    subject.container.name
                ),
            });
        }
        let mut env = vec![
            literal("SESSION_DRIVER", "redis"),
            bound("REDIS_URL", subject, URL_KEY),
            literal("REDIS_PREFIX", format!("{}:", endpoint.key_prefix)),
        ];
        if let Some(seconds) = subject.ttl_seconds {
            // Minutes, and never less than was asked for.
            env.push(literal(
                "SESSION_LIFETIME",
                (seconds + 59).div_euclid(60).to_string(),
            ));
        }
        if endpoint.tls && endpoint.own_authority {
            // The files have no place for an authority, so it is added to those that OpenSSL trusts.
            refuse_other_authorities(
                subject,
                "the configuration files of Laravel have no other place for the store's own authority",
            )?;
            env.push(literal(CERT_FILE, CA_FILE));
        }
        Ok(Parts {
            env,
            ..Parts::default()
        })
    }
}
