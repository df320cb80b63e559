//! Spring Boot 3 and 4 with Spring Session for Redis, by the variables that Boot binds to its properties.

use std::collections::BTreeMap;

use super::variables::{bound, bound_if_there, literal};
use super::{CA_FILE, Endpoint, Parts, Preflight, Preset, Refusal, Subject};
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// How long a connection, or an answer, may take.
const TIMEOUT: &str = "5s";

/// How often it asks a cluster who has which keys, beside when a server says that it has them no more.
const REFRESH_PERIOD: &str = "10s";

/// Name of the SSL bundle with the store's authority, in the only spelling that a variable can give it.
const BUNDLE: &str = "sessionoperator";

/// The preset.
#[derive(Debug)]
pub struct Spring;

impl Preset for Spring {
    fn framework(&self) -> Framework {
        Framework::Spring
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

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let endpoint = subject.endpoint;
        let mut env = vec![
            bound_if_there("SPRING_DATA_REDIS_USERNAME", subject, "username"),
            bound_if_there("SPRING_DATA_REDIS_PASSWORD", subject, "password"),
            literal("SPRING_DATA_REDIS_TIMEOUT", TIMEOUT),
            literal("SPRING_DATA_REDIS_CONNECTTIMEOUT", TIMEOUT),
        ];
        if endpoint.cluster {
            env.push(literal(
                "SPRING_DATA_REDIS_CLUSTER_NODES",
                endpoint.nodes().join(","),
            ));
            // As it comes, its client asks only once who has which keys, and goes on to a server that is gone.
            let refresh = "SPRING_DATA_REDIS_LETTUCE_CLUSTER_REFRESH";
            env.push(literal(&format!("{refresh}_ADAPTIVE"), "true"));
            env.push(literal(&format!("{refresh}_PERIOD"), REFRESH_PERIOD));
        } else {
            env.push(bound("SPRING_DATA_REDIS_HOST", subject, "host"));
            env.push(bound("SPRING_DATA_REDIS_PORT", subject, "port"));
        }
        if endpoint.tls {
            env.push(literal("SPRING_DATA_REDIS_SSL_ENABLED", "true"));
        }
        if endpoint.tls && endpoint.own_authority {
            env.push(literal("SPRING_DATA_REDIS_SSL_BUNDLE", BUNDLE));
            env.push(literal(
                "SPRING_SSL_BUNDLE_PEM_SESSIONOPERATOR_TRUSTSTORE_CERTIFICATE",
                format!("file:{CA_FILE}"),
            ));
        }
        if let Some(seconds) = subject.ttl_seconds {
            env.push(literal("SPRING_SESSION_TIMEOUT", format!("{seconds}s")));
        }
        // Boot 3 and Boot 4 have different names for what follows.
        for session in ["SPRING_SESSION_REDIS", "SPRING_SESSION_DATA_REDIS"] {
            env.push(literal(
                &format!("{session}_NAMESPACE"),
                endpoint.key_prefix.as_str(),
            ));
            // The repository with an index would set the server up for notifications, which its user may not.
            env.push(literal(&format!("{session}_CONFIGUREACTION"), "none"));
        }
        Ok(Parts {
            env,
            ..Parts::default()
        })
    }
}
