//! PHP's own sessions, by the session handler of the extension redis (phpredis), or of memcached (php-memcached).
//!
//! An ini file in a folder of ours that PHP reads after its own; what is secret in it comes from variables, which ini files
//! expand when the server starts (also that of php-fpm, which hides its environment from its workers).

use std::collections::BTreeMap;

use super::encoding::{percent, url_host};
use super::variables::{PREFIX_VARIABLE, TTL_VARIABLE, bound, defined, escaped, inherited, literal};
use super::{AGENT_DIR, CA_FILE, Endpoint, Parts, Preflight, Preset, Refusal, Subject, preflight};
use crate::api::conditions::reasons;
use crate::api::session_injection::Extension;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// Key of the binding Secret with `session.save_path`.
const SAVE_PATH_KEY: &str = "php-save-path";

/// Folders that PHP reads after the one that it was built with; the empty entry is that one.
const SCAN_DIR: &str = "PHP_INI_SCAN_DIR";

/// What OpenSSL trusts beside its own folder of authorities.
pub(super) const CERT_FILE: &str = "SSL_CERT_FILE";

/// Seconds after which PHP gives up connecting, or waiting for an answer. The extension's own default is a day.
const STORE_TIMEOUT: u32 = 5;

/// The same for connections to servers of a cluster, as it can begin at another one, and be done before its user gives up.
const CLUSTER_CONNECT_TIMEOUT: u32 = 3;

/// The preset.
#[derive(Debug)]
pub struct Php;

impl Preset for Php {
    fn framework(&self) -> Framework {
        Framework::Php
    }

    fn speaks_memcached(&self) -> bool {
        true
    }

    fn speaks_cluster(&self) -> bool {
        true
    }

    fn preflight(&self, engine: Engine, _: Option<&str>) -> Option<Preflight> {
        Some(preflight::php(extension(engine)))
    }

    fn binding_keys(&self, endpoint: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::from([(SAVE_PATH_KEY.to_owned(), save_path(endpoint))])
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let endpoint = subject.endpoint;
        let handler = if endpoint.cluster {
            "rediscluster"
        } else {
            extension(endpoint.engine)
        };
        let mut env = vec![
            literal("SESSION_OPERATOR_PHP_SAVE_HANDLER", handler),
            bound("SESSION_OPERATOR_PHP_SAVE_PATH", subject, SAVE_PATH_KEY),
        ];
        let mut folders = vec![format!("{AGENT_DIR}/session")];
        if endpoint.engine == Engine::Memcached {
            // The other handler has it in its save_path.
            env.push(literal(PREFIX_VARIABLE, endpoint.key_prefix.as_str()));
            folders.push(format!("{AGENT_DIR}/memcached"));
        }
        if let Some(seconds) = subject.ttl_seconds {
            env.push(literal(TTL_VARIABLE, seconds.to_string()));
            folders.push(format!("{AGENT_DIR}/ttl"));
        }
        if needs_cert_file(subject) {
            refuse_other_authorities(
                subject,
                "phpredis before 6.0 takes the store's own authority from nowhere else; put phpredis 6 into the image",
            )?;
            env.push(literal(CERT_FILE, CA_FILE));
            if has(subject, "fpm") {
                refuse_other_prepends(subject)?;
                folders.push(format!("{AGENT_DIR}/authority"));
            }
        }
        Ok(Parts {
            env,
            extend: vec![scan_dir(subject, &folders.join(":"))],
            mounts: Vec::new(),
            agent: Some("php"),
        })
    }
}

/// The extension whose session handler speaks to the store. The handler is called the same.
fn extension(engine: Engine) -> &'static str {
    match engine {
        Engine::Valkey | Engine::Redis => "redis",
        Engine::Memcached => "memcached",
    }
}

/// `session.save_path`, as phpredis reads it: a URL for one server, a query for a cluster; and as php-memcached does: a list of
/// servers.
fn save_path(endpoint: &Endpoint) -> String {
    let scheme = if endpoint.tls { "tls" } else { "tcp" };
    let server = format!("{}:{}", url_host(&endpoint.host), endpoint.port);
    if endpoint.engine == Engine::Memcached {
        return server;
    }
    let connect_timeout = if endpoint.cluster {
        CLUSTER_CONNECT_TIMEOUT
    } else {
        STORE_TIMEOUT
    };
    let mut query = vec![
        format!("prefix={}", percent(&format!("{}:", endpoint.key_prefix))),
        format!("timeout={connect_timeout}"),
        format!("read_timeout={STORE_TIMEOUT}"),
    ];
    match (&endpoint.username, &endpoint.password) {
        (Some(user), Some(password)) => {
            query.push(format!("auth[user]={}", percent(user)));
            query.push(format!("auth[pass]={}", percent(password)));
        }
        (None, Some(password)) => query.push(format!("auth={}", percent(password))),
        (_, None) => {}
    }
    if endpoint.tls && endpoint.own_authority {
        query.push(format!("stream[cafile]={CA_FILE}"));
    } else if endpoint.tls && endpoint.cluster {
        // Any option of the stream makes the cluster's handler talk TLS.
        query.push("stream[verify_peer]=1".to_owned());
    }
    if endpoint.cluster {
        // It begins at any of them, and goes on to the next one if that cannot be reached.
        let seeds = endpoint.nodes().into_iter().map(|node| format!("seed[]={node}"));
        seeds.chain(query).collect::<Vec<_>>().join("&")
    } else {
        format!("{scheme}://{server}?{}", query.join("&"))
    }
}

/// Before 6.0 (and as packaged by Debian 12) the handler `redis` ignores `stream[cafile]`; `rediscluster` does not.
fn needs_cert_file(subject: &Subject<'_>) -> bool {
    let endpoint = subject.endpoint;
    endpoint.tls && endpoint.own_authority && !endpoint.cluster && !reads_cafile(subject)
}

/// A version that is not known counts as an old one, for which there is a way that also suits new ones.
fn reads_cafile(subject: &Subject<'_>) -> bool {
    let version = subject
        .facts
        .get("redis")
        .and_then(|version| version.split('.').next());
    version
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= 6)
}

fn has(subject: &Subject<'_>, fact: &str) -> bool {
    subject.facts.get(fact).is_some_and(|value| !value.is_empty())
}

/// `SSL_CERT_FILE` is a single file. `why` says what else could be done.
pub(super) fn refuse_other_authorities(subject: &Subject<'_>, why: &str) -> Result<(), Refusal> {
    if defined(subject.container, CERT_FILE).is_none() && inherited(subject, CERT_FILE).is_none() {
        return Ok(());
    }
    Err(Refusal {
        reason: reasons::ENV_CONFLICT,
        message: format!(
            "container {}: {CERT_FILE} is set already, and {why}, remove {CERT_FILE}, or use a store without TLS or with a \
             certificate of a public authority",
            subject.container.name
        ),
    })
}

fn refuse_other_prepends(subject: &Subject<'_>) -> Result<(), Refusal> {
    for (fact, setting) in [
        ("autoPrepend", "auto_prepend_file"),
        ("openBasedir", "open_basedir"),
    ] {
        if has(subject, fact) {
            return Err(Refusal {
                reason: reasons::HANDLER_MISSING,
                message: format!(
                    "container {}: under php-fpm, phpredis before 6.0 needs an auto_prepend_file of ours to trust the store's own \
                     authority, and the image sets {setting}; put phpredis 6 into the image, remove {setting}, or use a store \
                     without TLS or with a certificate of a public authority",
                    subject.container.name
                ),
            });
        }
    }
    Ok(())
}

/// An empty entry stands for the folder that PHP was built with, and a variable that is set and empty for no folder at
/// all.
fn scan_dir(subject: &Subject<'_>, folders: &str) -> Extension {
    let after = |list: Option<String>| match list {
        Some(list) if list.is_empty() => folders.to_owned(),
        list => format!("{}:{folders}", list.unwrap_or_default()),
    };
    let of_container = defined(subject.container, SCAN_DIR).map(|variable| {
        if variable.value_from.is_none() && variable.value.as_deref().unwrap_or_default().is_empty() {
            String::new()
        } else {
            format!("$({SCAN_DIR})")
        }
    });
    Extension {
        name: SCAN_DIR.to_owned(),
        when_set: after(of_container.or_else(|| Some(format!("$({SCAN_DIR})")))),
        when_unset: after(inherited(subject, SCAN_DIR).map(escaped)),
    }
}
