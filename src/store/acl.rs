//! Users of the server and what they may do, as lines of its users' file.
//!
//! Commands are granted by category, as servers of different versions know different ones, and those taken away that
//! show or touch keys of others: `~prefix:*` confines commands that name keys, and SCAN, KEYS, RANDOMKEY and DBSIZE name
//! none. No user but the operator's own can change the server, its users or its functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The operator's own user.
pub const ADMIN: &str = "session-operator";

/// The user of probes: needs no password and can do nothing but PING.
pub const PROBE: &str = "probe";

/// The user by which servers follow each other.
pub const REPLICATION: &str = "replication";

/// Keys that the operator itself writes, to see that writes are taken.
pub const PROBE_PREFIX: &str = "session-operator";

/// What every name of an application's user begins with, so that none is one of the server's or the operator's.
pub const APPLICATION: &str = "app-";

/// With this begin the rules that say which commands a user may send.
const NOTHING_YET: &str = "-@all";

/// What the user of a prefix may do. Session handlers need keys of all types, transactions, scripts and messages. Redis 7.0
/// does not look at the key of a PFMERGE without sources.
const APPLICATION_COMMANDS: &str = "-@all +@read +@write +@connection +@transaction +@pubsub -@dangerous -@admin \
    +eval +evalsha +script|load +script|exists +info +time -function -scan -randomkey -dbsize -pubsub -client|tracking -client|caching \
    -pfmerge";

/// What the operator may do: look, manage users, settings and connections, and try a write.
const ADMIN_COMMANDS: &str = "-@all +ping +hello +info +acl +config +client +set +del +exists";

/// What the operator may do besides where servers follow each other.
const ADMIN_REPLICATION_COMMANDS: &str = "&session-operator:* +publish +replicaof +multi +exec";

/// What the operator may do besides where servers form a cluster. Keys of applications it may move from one server to the other,
/// and nothing else; nothing that empties a server.
const ADMIN_CLUSTER_COMMANDS: &str = "+cluster -cluster|reset -cluster|flushslots (~* +migrate)";

/// What a replica may do at its primary, and `redis-cli --rdb`, which asks with the older SYNC.
const REPLICATION_COMMANDS: &str = "-@all +psync +sync +replconf +ping";

/// What servers of a cluster may do besides at each other: take keys over, and slots as a whole, which is done by the commands that
/// make their keys. It is begun by a command of Valkey 9 which others do not know, so that it cannot be named.
const REPLICATION_CLUSTER_COMMANDS: &str = "+cluster -cluster|reset -cluster|flushslots \
    (~* +@write -@dangerous +@transaction +select +restore +restore-asking)";

/// What clients of a cluster ask besides: who has which keys.
const APPLICATION_CLUSTER_COMMANDS: &str =
    " +cluster|slots +cluster|shards +cluster|nodes +cluster|info +cluster|myid +cluster|keyslot";

/// Users by name, each with the hashes of its passwords (SHA-256, hexadecimal).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Hashes of the operator's passwords.
    pub admin: BTreeSet<String>,
    /// Hashes of the passwords by which servers follow each other, where there are several.
    pub replication: Option<BTreeSet<String>>,
    /// Whether servers form a cluster.
    pub cluster: bool,
    /// Hashes by key prefix.
    pub prefixes: BTreeMap<String, BTreeSet<String>>,
}

/// Name of the user of a key prefix.
pub fn user_name(prefix: &str) -> String {
    format!("{APPLICATION}{prefix}")
}

impl Users {
    /// Every user that exists, with its rules.
    pub fn rules(&self) -> BTreeMap<String, Vec<String>> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut users = BTreeMap::from([
            (
                "default".to_owned(),
                words("off resetpass resetkeys resetchannels -@all"),
            ),
            (
                PROBE.to_owned(),
                words(&format!(
                    "on nopass resetkeys resetchannels -@all +ping {}",
                    if self.cluster { "+cluster|info" } else { "" }
                )),
            ),
            (
                ADMIN.to_owned(),
                words(&format!(
                    "on{} resetkeys ~{PROBE_PREFIX}:* resetchannels {ADMIN_COMMANDS} {}",
                    passwords(&self.admin),
                    match (self.cluster, &self.replication) {
                        (true, _) => ADMIN_CLUSTER_COMMANDS,
                        (false, Some(_)) => ADMIN_REPLICATION_COMMANDS,
                        (false, None) => "",
                    }
                )),
            ),
        ]);
        if let Some(hashes) = &self.replication {
            let passwords = passwords(hashes);
            let mut rules = format!("on{passwords} resetkeys resetchannels {REPLICATION_COMMANDS}");
            if self.cluster {
                _ = write!(rules, " {REPLICATION_CLUSTER_COMMANDS}");
            }
            users.insert(REPLICATION.to_owned(), words(&rules));
        }
        for (prefix, hashes) in &self.prefixes {
            let mut rules = format!("on{}", passwords(hashes));
            // A subscription to a pattern is allowed only by that same pattern; the second is Spring Session's. The last
            // two tell of keys that are gone, whoever's they were.
            _ = write!(
                rules,
                " resetkeys ~{prefix}:* resetchannels &{prefix}:* &{prefix}:event:0:created:* \
                 &__keyevent@0__:del &__keyevent@0__:expired {APPLICATION_COMMANDS}"
            );
            if self.cluster {
                rules.push_str(APPLICATION_CLUSTER_COMMANDS);
            }
            // Who has the store to himself may list its keys: that is how his sessions move into pods.
            if self.prefixes.len() == 1 {
                rules.push_str(" +scan");
            }
            users.insert(user_name(prefix), words(&rules));
        }
        users
    }

    /// What users of applications may do, by name: those of their rules that say which commands.
    pub fn rights(&self) -> BTreeMap<String, Vec<String>> {
        let mut rules = self.rules();
        rules.retain(|name, _| name.starts_with(APPLICATION));
        for rules in rules.values_mut() {
            let first = rules.iter().position(|rule| rule == NOTHING_YET);
            rules.drain(..first.unwrap_or_default());
        }
        rules
    }

    /// The users' file.
    pub fn file(&self) -> String {
        let lines = self
            .rules()
            .into_iter()
            .map(|(name, rules)| format!("user {name} {}\n", rules.join(" ")));
        lines.collect()
    }

    /// Reads a users' file that [`Self::file`] wrote. What it does not know is left out.
    pub fn parse(file: &str) -> Self {
        let mut users = Self::default();
        for line in file.lines() {
            let mut words = line.split_whitespace().skip(1);
            let Some(name) = words.next() else { continue };
            users.cluster |= name == ADMIN && words.clone().any(|word| word == "+cluster");
            let hashes: BTreeSet<String> = words
                .filter_map(|word| word.strip_prefix('#'))
                .map(str::to_owned)
                .collect();
            if let Some(prefix) = name.strip_prefix(APPLICATION) {
                users.prefixes.insert(prefix.to_owned(), hashes);
            } else if name == ADMIN {
                users.admin = hashes;
            } else if name == REPLICATION {
                users.replication = Some(hashes);
            }
        }
        users
    }
}

/// The rules that a user's passwords are, each with a blank before it.
fn passwords(hashes: &BTreeSet<String>) -> String {
    let mut rules = String::new();
    for hash in hashes {
        // Writing to a String cannot fail.
        _ = write!(rules, " #{hash}");
    }
    rules
}

/// The hash by which a server knows a password.
pub fn hash(password: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, password.as_bytes());
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::client::{Connection, Credentials, Failure, Password, connect};
    use crate::store::testing::{Server, free_ports, valkey_server};

    fn users() -> Users {
        let hashes = |password: &str| BTreeSet::from([hash(password)]);
        Users {
            admin: hashes("admin-secret"),
            replication: Some(hashes("replication-secret")),
            cluster: false,
            prefixes: [("shop", hashes("shop-secret")), ("blog", hashes("blog-secret"))]
                .map(|(prefix, hashes)| (prefix.to_owned(), hashes))
                .into(),
        }
    }

    /// A server with these users, from a file as in a pod.
    fn server() -> Server {
        let file = std::env::temp_dir().join(format!("session-operator-users-{:016x}", fastrand::u64(..)));
        std::fs::write(&file, users().file()).unwrap();
        let server = Server::plain(&["--aclfile", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        server
    }

    async fn as_user(server: &Server, name: &str, password: &str) -> Connection {
        let credentials = Credentials {
            username: Some(name.to_owned()),
            password: Some(Password::new(password)),
        };
        connect(&server.endpoint(), &credentials).await.unwrap()
    }

    fn is_denied<T: std::fmt::Debug>(answer: &Result<T, Failure>) -> bool {
        matches!(answer, Err(Failure::Refused { cause, .. }) if cause.starts_with("NOPERM"))
    }

    #[test]
    fn the_file_says_what_was_read_from_it() {
        assert_eq!(Users::parse(&users().file()), users());
        assert_eq!(Users::parse(""), Users::default());
    }

    #[test]
    fn a_password_is_known_by_its_sha256() {
        // From FIPS 180-2, appendix B.1.
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[tokio::test]
    async fn session_handlers_may_do_what_they_do_under_their_prefix() {
        let server = server();
        let mut shop = as_user(&server, "app-shop", "shop-secret").await;
        // Of every handler in docs/frameworks.md, and of their clients' set-up.
        for command in [
            "HELLO 2",
            "CLIENT SETINFO LIB-NAME x",
            "CLIENT SETNAME x",
            "SELECT 0",
            "INFO",
            "ECHO x",
            "SETEX shop:a 60 x",
            "SET shop:a x NX PX 1000",
            "GET shop:a",
            "GETEX shop:a EX 60",
            "EXPIRE shop:a 60",
            "PEXPIREAT shop:a 99999999999999",
            "EXISTS shop:a",
            "UNLINK shop:a",
            "HSET shop:h f v",
            "HMSET shop:h f v",
            "HGETALL shop:h",
            "HMGET shop:h f",
            "RENAME shop:h shop:i",
            "APPEND shop:s x",
            "PERSIST shop:s",
            "SADD shop:set m",
            "SMEMBERS shop:set",
            "ZADD shop:z 1 m",
            "ZREVRANGEBYSCORE shop:z 2 0 LIMIT 0 100",
            "PUBLISH shop:event:0:created:1 x",
            "MGET shop:a shop:b",
            "DEL shop:i shop:z",
            "SCRIPT LOAD return",
            "MULTI",
            "SET shop:m 1",
            "EXEC",
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let answer = shop.command::<redis::Value>(&words).await;
            // SETINFO is newer than Debian's server, and the script is none.
            let unknown =
                matches!(&answer, Err(Failure::Refused { cause, .. }) if !cause.starts_with("NOPERM"));
            assert!(
                answer.is_ok() || (unknown && !is_denied(&answer)),
                "{command}: {answer:?}"
            );
        }
        let script = "return redis.call('get', KEYS[1])";
        let answer = shop
            .command::<redis::Value>(&["EVAL", script, "1", "shop:s"])
            .await;
        assert!(answer.is_ok(), "{answer:?}");
        for channels in [
            &["SUBSCRIBE", "__keyevent@0__:del", "__keyevent@0__:expired"][..],
            &["PSUBSCRIBE", "shop:event:0:created:*"],
        ] {
            let mut dry_run = vec!["ACL", "DRYRUN", "app-shop"];
            dry_run.extend(channels);
            let mut admin = as_user(&server, ADMIN, "admin-secret").await;
            assert_eq!(
                admin.command::<String>(&dry_run).await.as_deref(),
                Ok("OK"),
                "{channels:?}"
            );
        }
    }

    #[tokio::test]
    async fn nobody_reaches_the_keys_of_another_prefix() {
        let server = server();
        let mut shop = as_user(&server, "app-shop", "shop-secret").await;
        let mut blog = as_user(&server, "app-blog", "blog-secret").await;
        blog.command::<()>(&["SET", "blog:1", "x"]).await.unwrap();
        let script = "return redis.call('get', 'blog:1')";
        for command in [
            &["GET", "blog:1"][..],
            &["SET", "blog:1", "y"],
            &["DEL", "blog:1"],
            &["RENAME", "blog:1", "shop:1"],
            &["COPY", "blog:1", "shop:1"],
            &["GET", "shop-2:1"],
            &["PUBLISH", "blog:event:0:created:1", "x"],
            &["SCAN", "0"],
            &["KEYS", "*"],
            &["RANDOMKEY"],
            &["DBSIZE"],
            &["SORT", "shop:l", "BY", "blog:*"],
            &["FLUSHALL"],
            &["FLUSHDB"],
            &["SWAPDB", "0", "1"],
            &["CONFIG", "GET", "*"],
            &["ACL", "LIST"],
            &["MONITOR"],
            &["CLIENT", "LIST"],
            &["CLIENT", "TRACKING", "ON", "BCAST"],
            &["FUNCTION", "FLUSH"],
            &["SHUTDOWN"],
            &["REPLICAOF", "NO", "ONE"],
        ] {
            let answer = shop.command::<redis::Value>(command).await;
            assert!(is_denied(&answer), "{command:?}: {answer:?}");
        }
        let answer = shop.command::<redis::Value>(&["EVAL", script, "0"]).await;
        assert!(
            answer.is_err(),
            "a script reads the key of another prefix: {answer:?}"
        );
        assert_eq!(
            blog.command::<String>(&["GET", "blog:1"]).await.as_deref(),
            Ok("x")
        );
    }

    #[tokio::test]
    async fn in_a_cluster_clients_ask_where_keys_are_and_nobody_empties_a_server() {
        let clustered = Users {
            cluster: true,
            ..users()
        };
        assert_eq!(Users::parse(&clustered.file()), clustered);
        for program in ["redis-server", valkey_server()] {
            let server = Server::run(program, |folder, port| {
                let file = folder.join("users.acl");
                std::fs::write(&file, clustered.file()).unwrap();
                let bus = free_ports(1).to_string();
                let words = format!(
                    "--port {port} --bind 127.0.0.1 --dir {} --aclfile {} --cluster-enabled yes --cluster-port {bus}",
                    folder.display(),
                    file.display()
                );
                words.split(' ').map(str::to_owned).collect()
            });
            let emptying: [&[&str]; 3] = [
                &["CLUSTER", "RESET"],
                &["CLUSTER", "RESET", "HARD"],
                &["CLUSTER", "FLUSHSLOTS"],
            ];
            let changing: [&[&str]; 4] = [
                &["CLUSTER", "MEET", "127.0.0.1", "1"],
                &["CLUSTER", "ADDSLOTS", "1"],
                &["CLUSTER", "FORGET", "x"],
                &["MIGRATE", "127.0.0.1", "1", "shop:1", "0", "10"],
            ];
            let mut shop = as_user(&server, "app-shop", "shop-secret").await;
            for command in [
                &["CLUSTER", "SLOTS"][..],
                &["CLUSTER", "SHARDS"],
                &["CLUSTER", "NODES"],
                &["CLUSTER", "INFO"],
                &["CLUSTER", "KEYSLOT", "shop:1"],
                &["READONLY"],
                &["COMMAND", "COUNT"],
            ] {
                shop.command::<redis::Value>(command).await.unwrap();
            }
            for command in emptying.iter().chain(&changing) {
                let answer = shop.command::<redis::Value>(command).await;
                assert!(is_denied(&answer), "{command:?}: {answer:?}");
            }
            let mut probe = as_user(&server, PROBE, "any").await;
            probe.command::<String>(&["CLUSTER", "INFO"]).await.unwrap();
            assert!(is_denied(
                &probe.command::<redis::Value>(&["CLUSTER", "NODES"]).await
            ));
            for (user, password) in [(ADMIN, "admin-secret"), (REPLICATION, "replication-secret")] {
                let mut connection = as_user(&server, user, password).await;
                connection.command::<String>(&["CLUSTER", "NODES"]).await.unwrap();
                for command in emptying.iter().chain(&[&["GET", "shop:1"][..]]) {
                    let answer = connection.command::<redis::Value>(command).await;
                    assert!(is_denied(&answer), "{user} {command:?}: {answer:?}");
                }
            }
        }
    }

    /// Commands that name no key are not confined by `~prefix:*`; each has to be one that shows and does nothing to others.
    #[tokio::test]
    async fn every_command_without_a_key_that_is_allowed_is_known_to_be_harmless() {
        // XREAD without STREAMS is an error, WAIT waits.
        const HARMLESS: [&str; 36] = [
            "asking",
            "auth",
            "client",
            "command",
            "discard",
            "echo",
            "eval",
            "eval_ro",
            "evalsha",
            "evalsha_ro",
            "exec",
            "fcall",
            "fcall_ro",
            "hello",
            "info",
            "lolwut",
            "memory",
            "multi",
            "object",
            "ping",
            "psubscribe",
            "publish",
            "punsubscribe",
            "quit",
            "readonly",
            "readwrite",
            "reset",
            "script",
            "select",
            "subscribe",
            "sunsubscribe",
            "time",
            "unsubscribe",
            "unwatch",
            "wait",
            "xread",
        ];
        let server = server();
        let mut admin = as_user(&server, ADMIN, "admin-secret").await;
        let everything: Vec<String> = {
            // The operator's own user may not ask for all of them.
            let listing = Server::plain(&[]);
            let mut anybody = connect(&listing.endpoint(), &Credentials::default())
                .await
                .unwrap();
            anybody.command(&["COMMAND", "LIST"]).await.unwrap()
        };
        assert!(everything.len() > 200, "{}", everything.len());
        let mut allowed = BTreeSet::new();
        for command in &everything {
            // As many arguments as any of them wants: what is no key of the prefix is refused as a key.
            for count in 0..6 {
                let mut words = vec!["ACL", "DRYRUN", "app-shop", command];
                words.extend(std::iter::repeat_n("1", count));
                if admin.command::<String>(&words).await.as_deref() == Ok("OK") {
                    allowed.insert(command.as_str());
                }
            }
        }
        let surprising: Vec<&&str> = allowed
            .iter()
            .filter(|command| !HARMLESS.contains(*command))
            .collect();
        assert!(surprising.is_empty(), "{surprising:?}");
        assert!(
            allowed.contains("info") && allowed.contains("ping"),
            "{allowed:?}"
        );
    }

    #[test]
    fn only_who_has_the_store_to_himself_lists_keys() {
        let with = |prefixes: &[&str]| {
            let users = Users {
                admin: BTreeSet::from(["x".to_owned()]),
                replication: None,
                cluster: false,
                prefixes: prefixes
                    .iter()
                    .map(|prefix| ((*prefix).to_owned(), BTreeSet::from(["h".to_owned()])))
                    .collect(),
            };
            let rules = users.rules();
            let last = |name: &str| rules[name].iter().rfind(|rule| rule.ends_with("scan")).cloned();
            (last("app-shop"), last(ADMIN))
        };
        assert_eq!(with(&["shop"]), (Some("+scan".to_owned()), None));
        assert_eq!(with(&["shop", "blog"]), (Some("-scan".to_owned()), None));
    }

    #[tokio::test]
    async fn without_a_password_there_is_only_the_probe() {
        let server = server();
        let nobody = connect(&server.endpoint(), &Credentials::default()).await;
        assert!(
            matches!(nobody, Err(Failure::Authentication { .. })),
            "{nobody:?}"
        );
        let mut probe = as_user(&server, PROBE, "any").await;
        probe.ping().await.unwrap();
        for command in [&["INFO"][..], &["GET", "shop:1"], &["ACL", "LIST"]] {
            let answer = probe.command::<redis::Value>(command).await;
            assert!(is_denied(&answer), "{command:?}: {answer:?}");
        }
    }
}
