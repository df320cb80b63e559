//! Environment variables as presets make them.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, SecretKeySelector};

use super::{CA_FILE, Subject};
use crate::api::session_injection::Extension;
use crate::api::session_store::Engine;

/// Seconds of idle life of a session, where the policy names them.
pub const TTL_VARIABLE: &str = "SESSION_OPERATOR_TTL_SECONDS";

/// What keys begin with, without the colon.
pub const PREFIX_VARIABLE: &str = "SESSION_OPERATOR_KEY_PREFIX";

/// Key of the binding Secret with the store as a URL, for presets whose clients read one.
pub const URL_KEY: &str = "session-url";

/// A variable with a value that anybody may read.
pub fn literal(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(escaped(&value.into())),
        value_from: None,
    }
}

/// A variable with the value of a key of the binding Secret.
pub fn bound(name: &str, subject: &Subject<'_>, key: &str) -> EnvVar {
    reference(name, subject, key, None)
}

/// As [`bound`], for a key that need not be there; the variable is not set then.
pub fn bound_if_there(name: &str, subject: &Subject<'_>, key: &str) -> EnvVar {
    reference(name, subject, key, Some(true))
}

/// Where the store is, for code of ours that reads variables of ours.
pub fn connection(subject: &Subject<'_>) -> Vec<EnvVar> {
    let endpoint = subject.endpoint;
    let mut variables = vec![
        bound("SESSION_OPERATOR_HOST", subject, "host"),
        bound("SESSION_OPERATOR_PORT", subject, "port"),
        bound_if_there("SESSION_OPERATOR_USERNAME", subject, "username"),
        bound_if_there("SESSION_OPERATOR_PASSWORD", subject, "password"),
        literal(PREFIX_VARIABLE, endpoint.key_prefix.as_str()),
        literal("SESSION_OPERATOR_TLS", endpoint.tls.to_string()),
        literal("SESSION_OPERATOR_CLUSTER", endpoint.cluster.to_string()),
    ];
    if endpoint.engine == Engine::Memcached {
        // Where it is not set, it is Redis' protocol.
        variables.push(literal("SESSION_OPERATOR_PROTOCOL", "memcached"));
    }
    if endpoint.tls && endpoint.own_authority {
        variables.push(literal("SESSION_OPERATOR_CA_FILE", CA_FILE));
    }
    if let Some(seconds) = subject.ttl_seconds {
        variables.push(literal(TTL_VARIABLE, seconds.to_string()));
    }
    variables
}

fn reference(name: &str, subject: &Subject<'_>, key: &str, optional: Option<bool>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: subject.binding.to_owned(),
                key: key.to_owned(),
                optional,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// A text in which the kubelet finds nothing to expand.
pub fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// A variable that the container defines itself.
pub fn defined<'a>(container: &'a Container, name: &str) -> Option<&'a EnvVar> {
    container
        .env
        .iter()
        .flatten()
        .rfind(|variable| variable.name == name)
}

/// What the preflight says of a variable that the image, or a source of the container's `envFrom`, sets; also if empty.
pub fn inherited<'a>(subject: &Subject<'a>, name: &str) -> Option<&'a str> {
    subject.facts.get(&format!("env.{name}")).map(String::as_str)
}
/// A variable that is a list, with one more entry at the end (or at the start, for `Place::First`). An empty list gets no
/// separator.
pub fn listed(subject: &Subject<'_>, name: &str, place: Place, separator: &str, entry: &str) -> Extension {
    let join = |list: &str| match place {
        Place::First => format!("{entry}{separator}{list}"),
        Place::Last => format!("{list}{separator}{entry}"),
    };
    let before = inherited(subject, name).filter(|value| !value.is_empty());
    Extension {
        name: name.to_owned(),
        when_set: match defined(subject.container, name) {
            Some(variable)
                if variable.value_from.is_none() && variable.value.as_ref().is_none_or(String::is_empty) =>
            {
                entry.to_owned()
            }
            _ => join(&format!("$({name})")),
        },
        when_unset: before.map_or_else(|| entry.to_owned(), |before| join(&escaped(before))),
    }
}

/// Where an entry goes in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// After all others.
    Last,
}
