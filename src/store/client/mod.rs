//! A client of one Redis-compatible server, for the few commands that the operator sends; and one of Memcached ([`memcached`]).
//!
//! The protocol is the `redis` crate's. Connecting is done here, step by step, because a person has to be told apart
//! whether a name, a port, a certificate or a password is wrong.

mod check;
mod connect;
pub mod memcached;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use tokio::task::{AbortHandle, JoinHandle};

pub use check::{Reached, check};
pub use connect::{Authority, Credentials, Endpoint, Password, connect, open};

use crate::api::conditions::reasons;

/// Limit for one command: the server answers from memory, and one that is slower serves nobody.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what waits in turn may take.
const QUEUED_TIMEOUT: Duration = Duration::from_secs(30);

/// Rules of users that are let in without reading. In `ACL LIST` at least one of them is found again: Valkey prints the first as it
/// was given and knows no flags, Redis 7.0 prints the flag and says in its own way which commands are allowed. The flag is of no
/// effect, as no user may `RESTORE`.
pub const MARKS_OF_FEWER_RIGHTS: [&str; 2] = ["-@read", "skip-sanitize-payload"];

/// Rules of users that may not ask a server of a cluster who has which slots. The last one is there to be found again, as above.
pub const RIGHTS_WITHOUT_MAP: [&str; 4] = [
    "-cluster|slots",
    "-cluster|shards",
    "-cluster|nodes",
    "skip-sanitize-payload",
];

/// Takes the flag away.
const WITHOUT_MARK: &str = "sanitize-payload";

/// Milliseconds of a hold that nobody but the operator ends.
const FOR_EVER_MS: &str = "4611686018427387904";

/// Nothing has this key.
const NO_KEY: &str = "session-operator:nothing";

/// Users by name, each with what it may do, as rules of `ACL SETUSER`.
pub type Rights = BTreeMap<String, Vec<String>>;

/// Why a server is of no use to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("{server} cannot be reached: {cause}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What happened.
        cause: String,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {server} failed: {cause}")]
    Tls {
        /// Host and port.
        server: String,
        /// What happened.
        cause: String,
    },
    /// The credentials were refused.
    #[error("{server} refused {credentials}: {cause}")]
    Authentication {
        /// Host and port.
        server: String,
        /// What was refused, without the password.
        credentials: String,
        /// The server's answer.
        cause: String,
    },
    /// The server cannot be written to.
    #[error("{server} refuses writes: {cause}")]
    RefusesWrites {
        /// Host and port.
        server: String,
        /// The server's answer.
        cause: String,
    },
    /// The server is starting and reads its data.
    #[error("{server} is still loading its data")]
    Loading {
        /// Host and port.
        server: String,
    },
    /// The server refused a command for another reason.
    #[error("{server} refused {command}: {cause}")]
    Refused {
        /// Host and port.
        server: String,
        /// Name of the command.
        command: String,
        /// The server's answer.
        cause: String,
    },
}

impl Failure {
    /// The condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::Loading { .. } => reasons::STORE_UNREACHABLE,
            Self::Tls { .. } => reasons::TLS_FAILED,
            Self::Authentication { .. } => reasons::AUTHENTICATION_FAILED,
            Self::RefusesWrites { .. } | Self::Refused { .. } => reasons::STORE_REFUSES_WRITES,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "check host, port and network policies, and that the server runs",
            Self::Loading { .. } => "wait",
            Self::Tls { .. } => {
                "check that the server has TLS on this port exactly if it is asked for, that ca.crt is the authority of \
                 its certificate, and that the certificate is for this host name"
            }
            Self::Authentication { .. } => "check username and password",
            Self::RefusesWrites { .. } => {
                "give the server more memory or let it evict nothing but expired keys, and name a primary, not a replica"
            }
            Self::Refused { .. } => "give the user the right to this command",
        }
    }

    /// Cause and remedy in one sentence.
    pub fn explain(&self) -> String {
        format!("{self}; {}", self.remedy())
    }
}

/// A connection to one server. Ends when it is dropped.
pub struct Connection {
    server: String,
    credentials: String,
    inner: MultiplexedConnection,
    driver: AbortHandle,
    /// The server's certificate as it presented it (DER); `None` without TLS.
    pub certificate: Option<Vec<u8>>,
}

/// Something that waits at a server for its turn.
#[derive(Debug)]
pub struct Queued(JoinHandle<()>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The commands that give users their rights, and let them in.
fn letting_in(users: &Rights) -> Vec<Vec<String>> {
    let each = users.iter().map(|(user, rights)| {
        let mut command = words(&["ACL", "SETUSER", user, "on", WITHOUT_MARK]);
        command.extend(rights.iter().cloned());
        command
    });
    each.collect()
}

/// A field of a line of `CLIENT LIST`, such as `id=`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Sends a command, the name first.
    pub async fn command<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, Failure> {
        self.raw(words).await.map_err(|error| self.failure(words, &error))
    }

    /// Runs commands of one kind, which are sent together; gives their answers, or the first error.
    pub async fn commands<T: FromRedisValue>(&mut self, commands: &[Vec<String>]) -> Result<Vec<T>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for words in commands {
            let mut command = redis::Cmd::new();
            command.arg(words);
            pipe.add_command(command);
        }
        let answers = pipe.query_async(&mut self.inner).await;
        answers.map_err(|error| {
            let first: Vec<&str> = commands.iter().flatten().take(2).map(String::as_str).collect();
            self.failure(&first, &error)
        })
    }

    /// `PING`.
    pub async fn ping(&mut self) -> Result<(), Failure> {
        self.command(&["PING"]).await
    }

    /// `INFO`: every field of all sections.
    pub async fn info(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        let text: String = self.command(&["INFO"]).await?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect())
    }

    /// `CONFIG GET` of settings by their exact names.
    pub async fn config(&mut self, names: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        let mut words = vec!["CONFIG", "GET"];
        words.extend(names);
        self.command(&words).await
    }

    /// `CONFIG SET` of one setting.
    pub async fn set_config(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.command(&["CONFIG", "SET", name, value]).await
    }

    /// `ACL LIST`: one line per user, as the server prints it.
    pub async fn acl_list(&mut self) -> Result<Vec<String>, Failure> {
        self.command(&["ACL", "LIST"]).await
    }

    /// `ACL SETUSER` with all rules of the user.
    pub async fn acl_set_user(&mut self, name: &str, rules: &[String]) -> Result<(), Failure> {
        let mut words = vec!["ACL", "SETUSER", name];
        words.extend(rules.iter().map(String::as_str));
        self.command(&words).await
    }

    /// `ACL DELUSER`: ends the user's connections, too.
    pub async fn acl_delete_user(&mut self, name: &str) -> Result<(), Failure> {
        self.command::<i64>(&["ACL", "DELUSER", name]).await.map(|_| ())
    }

    /// `ACL SAVE`: writes the users to the server's file, from which it reads them when it starts again.
    pub async fn acl_save(&mut self) -> Result<(), Failure> {
        self.command(&["ACL", "SAVE"]).await
    }

    /// The failure of an answer that cannot be read.
    pub fn nonsense(&self, command: &str) -> Failure {
        Failure::Refused {
            server: self.server.clone(),
            command: command.to_owned(),
            cause: "its answer cannot be read".to_owned(),
        }
    }

    /// `REPLICAOF`: follow the server at `host`, as the user `user` of that one.
    pub async fn follow(
        &mut self,
        host: &str,
        port: u16,
        user: &str,
        password: &Password,
    ) -> Result<(), Failure> {
        self.set_config("masteruser", user).await?;
        self.set_config("masterauth", password.reveal()).await?;
        self.command::<()>(&["REPLICAOF", host, &port.to_string()])
            .await?;
        // Should it be primary again, it begins without any.
        self.take_writes_only_if_heard(None).await
    }

    /// `CONFIG SET masterauth`, if the server has ever followed another one and would do so again by another password. A link
    /// that stands is left alone.
    pub async fn relink(&mut self, password: &Password) -> Result<(), Failure> {
        // The setting has two names, and servers tell one or the other.
        let present = self.config(&["masterauth"]).await?.into_values().next();
        if present.is_some_and(|present| !present.is_empty() && present != password.reveal()) {
            self.set_config("masterauth", password.reveal()).await?;
        }
        Ok(())
    }

    /// `REPLICAOF NO ONE`: take writes, with all that it has.
    pub async fn promote(&mut self) -> Result<(), Failure> {
        self.command(&["REPLICAOF", "NO", "ONE"]).await
    }

    /// `CONFIG SET min-replicas-to-write`: refuse writes (`-NOREPLICAS`) unless a replica has been heard within so many seconds;
    /// absent = take them in any case.
    pub async fn take_writes_only_if_heard(&mut self, within_seconds: Option<i64>) -> Result<(), Failure> {
        let Some(seconds) = within_seconds else {
            return self.set_config("min-replicas-to-write", "0").await;
        };
        self.set_config("min-replicas-max-lag", &seconds.to_string())
            .await?;
        self.set_config("min-replicas-to-write", "1").await
    }

    /// `CLIENT PAUSE`: let writes wait, and change nothing by itself, for as long as `limit` at most; absent = until they are
    /// released. On a replica the changes of its primary wait, too.
    pub async fn hold_writes(&mut self, limit: Option<Duration>) -> Result<(), Failure> {
        let limit = limit.map_or_else(|| FOR_EVER_MS.to_owned(), |limit| limit.as_millis().to_string());
        self.command(&["CLIENT", "PAUSE", &limit, "WRITE"]).await
    }

    /// `CLIENT UNPAUSE`.
    pub async fn release_writes(&mut self) -> Result<(), Failure> {
        self.command(&["CLIENT", "UNPAUSE"]).await
    }

    /// `ACL SETUSER … on`: users are let in, with all their rights.
    pub async fn let_in(&mut self, users: &Rights) -> Result<(), Failure> {
        self.commands::<()>(&letting_in(users)).await.map(|_| ())
    }

    /// `ACL SETUSER … off`: users are not let in. Those that are in stay.
    pub async fn shut_out(&mut self, users: &Rights) -> Result<(), Failure> {
        for user in users.keys() {
            self.command::<()>(&["ACL", "SETUSER", user, "off"]).await?;
        }
        Ok(())
    }

    /// `ACL SETUSER … on … -@read`: users are let in, and may not read. They carry [`MARKS_OF_FEWER_RIGHTS`].
    pub async fn let_in_without_reads(&mut self, users: &Rights) -> Result<(), Failure> {
        let mut commands = letting_in(users);
        for command in &mut commands {
            command.extend(words(&MARKS_OF_FEWER_RIGHTS));
        }
        self.commands::<()>(&commands).await.map(|_| ())
    }

    /// Gives users their rights, and ends [`Self::hold_writes`] in the same moment.
    pub async fn let_in_and_release(&mut self, users: &Rights) -> Result<(), Failure> {
        let mut commands = letting_in(users);
        commands.push(words(&["CLIENT", "UNPAUSE"]));
        self.commands::<()>(&commands).await.map(|_| ())
    }

    /// `CONFIG SET replica-read-only`: whether a replica refuses writes, or lets them wait while they are held.
    pub async fn refuse_writes_as_replica(&mut self, refuse: bool) -> Result<(), Failure> {
        let value = if refuse { "yes" } else { "no" };
        self.set_config("replica-read-only", value).await
    }

    /// `CLIENT ID`: the number of this connection.
    pub async fn id(&mut self) -> Result<u64, Failure> {
        self.command(&["CLIENT", "ID"]).await
    }

    /// `CLIENT LIST`: whether the connection of that number waits.
    pub async fn is_waiting(&mut self, id: u64) -> Result<bool, Failure> {
        let list: String = self.command(&["CLIENT", "LIST", "ID", &id.to_string()]).await?;
        Ok(field(&list, "flags=").is_some_and(|flags| flags.contains('b')))
    }

    /// `CLIENT LIST`: the number of the users' connection that came last, if one of them is connected.
    pub async fn newest_client_of(&mut self, users: &Rights) -> Result<Option<u64>, Failure> {
        let list: String = self.command(&["CLIENT", "LIST", "TYPE", "normal"]).await?;
        let theirs = list
            .lines()
            .filter(|line| field(line, "user=").is_some_and(|user| users.contains_key(user)));
        Ok(theirs
            .filter_map(|line| field(line, "id=")?.parse::<u64>().ok())
            .max())
    }

    /// Sends a transaction that begins with a write, and ends as `REPLICAOF NO ONE`: while writes are held, it waits in the row of
    /// those that came before and after it. A server that refuses the write does not carry it out. Whoever drops what this gives
    /// takes it back.
    pub fn promote_in_turn(mut self) -> Queued {
        self.inner.set_response_timeout(QUEUED_TIMEOUT);
        Queued(tokio::spawn(async move {
            let mut transaction = redis::pipe();
            transaction
                .atomic()
                .cmd("DEL")
                .arg(NO_KEY)
                .cmd("REPLICAOF")
                .arg("NO")
                .arg("ONE");
            let answer = transaction.query_async::<redis::Value>(&mut self.inner).await;
            if let Err(error) = answer {
                tracing::debug!(%error, "not promoted in turn");
            }
        }))
    }

    /// `CLIENT KILL USER`: closes connections of users, who connect again, wherever their Service leads by then.
    pub async fn close_clients_of(&mut self, users: &Rights) -> Result<(), Failure> {
        for user in users.keys() {
            match self.command::<i64>(&["CLIENT", "KILL", "USER", user]).await {
                // A server that was not told of a user yet has no clients of it.
                Ok(_) | Err(Failure::Refused { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Sends a command whose words are not all text. `name` is what it is called in a failure.
    pub async fn bytes<T: FromRedisValue>(&mut self, name: &str, words: &[&[u8]]) -> Result<T, Failure> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = command.query_async(&mut self.inner).await;
        answer.map_err(|error| self.failure(&[name], &error))
    }

    async fn raw<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.inner).await
    }

    fn failure(&self, words: &[&str], error: &RedisError) -> Failure {
        let server = self.server.clone();
        let cause = answer(error);
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                Failure::Authentication {
                    server,
                    credentials: self.credentials.clone(),
                    cause,
                }
            }
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Failure::Loading { server },
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => Failure::Refused {
                server,
                command: words.iter().take(2).copied().collect::<Vec<_>>().join(" "),
                cause,
            },
            _ => Failure::Unreachable { server, cause },
        }
    }
}

/// The server's own words, or what happened to the connection.
fn answer(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (_, Some(detail)) => detail.to_owned(),
        _ if error.is_timeout() => format!("no answer within {} s", COMMAND_TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}
