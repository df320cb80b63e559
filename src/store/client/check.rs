//! Whether a store does for an application what the application needs: answer, and take a write and a delete.

use std::collections::BTreeMap;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{Connection, Credentials, Endpoint, Failure, answer, connect};
use crate::api::session_store::Engine;

/// Seconds that a probe key lives when it cannot be deleted again.
const PROBE_TTL: &str = "10";

/// Redirections that are followed: a slot moves once while a check runs, not again and again.
const REDIRECTIONS: usize = 3;

/// A store that does what an application needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The server.
    pub engine: Engine,
    /// Its version.
    pub version: String,
    /// Whether it is a cluster, which clients have to know.
    pub cluster: bool,
    /// Whether the user may list keys.
    pub lists: bool,
}

/// Connects as an application would, and writes and deletes a key under `prefix`.
pub async fn check(endpoint: &Endpoint, credentials: &Credentials, prefix: &str) -> Result<Reached, Failure> {
    let mut connection = connect(endpoint, credentials).await?;
    let reached = identify(&mut connection).await?;
    let key = format!("{prefix}:session-operator-probe-{:08x}", fastrand::u32(..));
    let lists = may_list(&mut connection).await?;
    write(connection, endpoint, credentials, &key).await?;
    Ok(Reached { lists, ..reached })
}

async fn may_list(connection: &mut Connection) -> Result<bool, Failure> {
    match connection
        .command::<redis::Value>(&["SCAN", "0", "COUNT", "1"])
        .await
    {
        Ok(_) => Ok(true),
        Err(Failure::Refused { .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// What the server says it is: by HELLO, which everybody may send, else (before Redis 6) by INFO.
async fn identify(connection: &mut Connection) -> Result<Reached, Failure> {
    let fields = match connection
        .command::<BTreeMap<String, redis::Value>>(&["HELLO"])
        .await
    {
        Ok(hello) => hello
            .into_iter()
            .filter_map(|(name, value)| Some((name, redis::from_redis_value::<String>(value).ok()?)))
            .collect(),
        Err(Failure::Refused { .. }) => {
            let info = connection.info().await?;
            let field = |name: &str| info.get(name).cloned().unwrap_or_default();
            BTreeMap::from([
                (
                    "server".to_owned(),
                    info.get("server_name")
                        .cloned()
                        .unwrap_or_else(|| "redis".to_owned()),
                ),
                (
                    "version".to_owned(),
                    info.get("valkey_version")
                        .cloned()
                        .unwrap_or_else(|| field("redis_version")),
                ),
                ("mode".to_owned(), field("redis_mode")),
            ])
        }
        Err(failure) => return Err(failure),
    };
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    Ok(Reached {
        engine: if field("server") == "valkey" {
            Engine::Valkey
        } else {
            Engine::Redis
        },
        version: field("version").to_owned(),
        cluster: field("mode") == "cluster",
        lists: false,
    })
}

/// Writes and deletes a key, on the member of a cluster that has it.
async fn write(
    mut connection: Connection,
    endpoint: &Endpoint,
    credentials: &Credentials,
    key: &str,
) -> Result<(), Failure> {
    let mut endpoint = endpoint.clone();
    for _ in 0..REDIRECTIONS {
        let written = connection
            .raw::<redis::Value>(&["SET", key, "", "EX", PROBE_TTL])
            .await;
        let Err(error) = written else {
            return connection.command::<i64>(&["DEL", key]).await.map(|_| ());
        };
        let Some((host, port)) = redirection(&error) else {
            return Err(refused(&connection, &error));
        };
        if !host.is_empty() {
            endpoint.host = host;
        }
        endpoint.port = port;
        endpoint.address = None;
        connection = connect(&endpoint, credentials).await?;
    }
    Err(Failure::RefusesWrites {
        server: endpoint.server(),
        cause: format!("the cluster redirected more than {REDIRECTIONS} times"),
    })
}

/// Host and port that an error redirects to.
fn redirection(error: &RedisError) -> Option<(String, u16)> {
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

fn refused(connection: &Connection, error: &RedisError) -> Failure {
    let server = connection.server.clone();
    let cause = match error.code() {
        Some("OOM") => format!("its memory is full ({})", answer(error)),
        Some("MISCONF") => format!("it cannot write to its disk ({})", answer(error)),
        Some("NOREPLICAS") => format!("too few replicas are connected to it ({})", answer(error)),
        _ if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            format!("it is a read-only replica ({})", answer(error))
        }
        _ if error.kind() == ErrorKind::Server(ServerErrorKind::ClusterDown) => {
            format!("the cluster is down ({})", answer(error))
        }
        Some("NOPERM") => format!("the user may not write the key ({})", answer(error)),
        _ => return connection.failure(&["SET"], error),
    };
    Failure::RefusesWrites { server, cause }
}
