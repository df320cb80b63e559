//! The store that a policy names, and how it is reached. Pure: what was read is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::Trouble;
use super::cautions::Cautions;
use super::names;
use super::sidecar;
use crate::api::SessionStore;
use crate::api::conditions::{reasons, types};
use crate::api::session_policy::{Acknowledge, Replicated, ReplicationMode, Shared};
use crate::api::session_store::{Engine, MemberRole, SessionStoreStatus, StoreMember, StoreUser, Topology};
use crate::framework::Endpoint;
use crate::store::build::port;
use crate::store::names::{MADE_ANNOTATION, Names as StoreNames};
use crate::store::rotation;

/// A store that can be told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its authority (PEM), if it has one of its own.
    pub ca: Option<String>,
    /// Says which password and which authorities these are; of a SessionStore only.
    pub credentials: Option<String>,
    /// Whether its user may list keys, without which sessions cannot be copied from it.
    pub lists: bool,
    /// What it promises.
    pub promise: Promise,
}

/// What a store promises for the sessions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It is in somebody else's hands: nothing is known.
    External,
    /// The pods themselves.
    Pods {
        /// Which of them hold a session.
        mode: ReplicationMode,
        /// Copies beside the first (mode Backup).
        backups: i32,
        /// Whether a write is confirmed before another pod has it.
        confirmed_alone: bool,
        /// Nodes that the pods run on.
        nodes: usize,
        /// Replicas of the target.
        replicas: i32,
        /// What to know besides.
        cautions: Cautions,
    },
    /// A SessionStore.
    Store {
        /// Its name.
        name: String,
        /// Its server.
        engine: Engine,
        /// Whether sessions are on a volume.
        persistent: bool,
        /// What its replicas are good for, where it is to have any (topology Replicated).
        replicas: Option<Replicas>,
        /// What its shards are good for, where it has any.
        shards: Option<Shards>,
    },
}

/// Shards of a store, each with a part of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    /// How many there are.
    pub count: usize,
    /// How many have a replica with everything.
    pub covered: usize,
    /// How many have one on another node than their primary.
    pub elsewhere: usize,
    /// Whether some node carries half of the primaries or more, so that without it the others cannot elect.
    pub voters_together: bool,
}

impl Shards {
    /// Shards by what a store says of its servers; nothing for a store that has none.
    pub fn of(store: &SessionStore) -> Option<Self> {
        if store.spec.topology != Topology::Cluster {
            return None;
        }
        let members: Vec<_> = store
            .status
            .iter()
            .flat_map(|status| &status.members)
            .filter(|member| member.ready)
            .collect();
        let primaries: Vec<_> = members
            .iter()
            .filter(|member| member.role == MemberRole::Primary)
            .collect();
        let covers = |is_fit: &dyn Fn(&StoreMember, &StoreMember) -> bool| {
            let covered = primaries.iter().filter(|primary| {
                let mut replicas = members
                    .iter()
                    .filter(|member| member.shard == primary.shard && member.role == MemberRole::Replica);
                replicas.any(|replica| is_fit(primary, replica))
            });
            covered.count()
        };
        let voters = primaries.iter().map(|primary| {
            let together = primaries.iter().filter(|other| other.node == primary.node);
            together.count()
        });
        Some(Self {
            count: store.spec.shards().max(primaries.len()),
            covered: covers(&|_, _| true),
            elsewhere: covers(&|primary, replica| replica.node.is_some() && replica.node != primary.node),
            voters_together: voters.max().is_none_or(|most| most * 2 >= primaries.len()),
        })
    }
}

/// Replicas of a store beside its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// How many have everything.
    pub synced: usize,
    /// How many of these run on another node than the primary.
    pub elsewhere: usize,
}

impl Replicas {
    /// Replicas by what a store says of its servers; nothing for a store that is to have none.
    pub fn of(store: &SessionStore) -> Option<Self> {
        if store.spec.topology != Topology::Replicated {
            return None;
        }
        let members = store.status.iter().flat_map(|status| &status.members);
        let (primaries, replicas): (Vec<_>, Vec<_>) = members
            .filter(|member| member.ready)
            .partition(|member| member.role == MemberRole::Primary);
        let node = primaries.first().and_then(|primary| primary.node.as_ref());
        Some(Self {
            synced: replicas.len(),
            elsewhere: replicas
                .iter()
                .filter(|replica| replica.node.is_some() && replica.node.as_ref() != node)
                .count(),
        })
    }
}

/// What a policy's wish for a store comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A SessionStore and a prefix in it.
    Store {
        /// Its name.
        name: String,
        /// What keys begin with.
        key_prefix: String,
    },
    /// A Secret that says where the store is.
    External {
        /// Its name.
        secret: String,
        /// What keys begin with.
        key_prefix: String,
    },
}

/// Where the policy's sessions are to be.
pub fn place(policy: &str, shared: &Shared) -> Place {
    let own = || policy.to_owned();
    if let Some(reference) = &shared.store_ref {
        return Place::Store {
            name: reference.name.clone(),
            key_prefix: reference.key_prefix.clone().unwrap_or_else(own),
        };
    }
    match &shared.external {
        Some(external) => Place::External {
            secret: external.secret_ref.name.clone(),
            key_prefix: own(),
        },
        None => Place::Store {
            name: names::store(policy),
            key_prefix: own(),
        },
    }
}

/// What keys begin with, by what the spec says of a store.
pub fn key_prefix(policy: &str, shared: Option<&Shared>) -> String {
    match shared.map(|shared| place(policy, shared)) {
        Some(Place::Store { key_prefix, .. } | Place::External { key_prefix, .. }) => key_prefix,
        None => policy.to_owned(),
    }
}

/// What has to be read of a SessionStore: its endpoint, its user for the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAccess {
    /// Host and port.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Secret with the authority.
    pub ca_secret: Option<String>,
    /// Secret with the credentials, where the server knows users.
    pub user_secret: Option<String>,
}

/// How a SessionStore is reached, once it is ready and knows the prefix.
pub fn access<'a>(
    name: &str,
    key_prefix: &str,
    store: Option<&'a Arc<SessionStore>>,
) -> Result<(&'a SessionStore, StoreAccess), Trouble> {
    let Some(store) = store else {
        return Err(Trouble::new(
            reasons::STORE_NOT_FOUND,
            format!(
                "SessionStore {name} does not exist; create it, or name another one in spec.shared.storeRef"
            ),
        ));
    };
    let empty = SessionStoreStatus::default();
    let status = store.status.as_ref().unwrap_or(&empty);
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::READY);
    if let Some(ready) = ready
        && ready.status != "True"
    {
        return Err(not_ready(name, &format!("{}: {}", ready.reason, ready.message)));
    }
    if ready.is_none() || status.observed_generation != store.metadata.generation {
        return Err(not_ready(name, "the operator has not set it up yet"));
    }
    // A server without users keeps nobody out, so it serves one prefix.
    if let (Engine::Memcached, None, [other, ..]) = (
        store.spec.engine,
        user(&status.users, key_prefix),
        status.users.as_slice(),
    ) {
        return Err(Trouble::new(
            reasons::KEY_PREFIX_TAKEN,
            format!(
                "SessionStore {name} has engine Memcached, which keeps no application out of the sessions of another one, so it \
                 serves the key prefix {} alone; name another store for the key prefix {key_prefix}, or share the sessions by \
                 the same spec.shared.storeRef.keyPrefix",
                other.key_prefix
            ),
        ));
    }
    let (Some(endpoint), Some(user)) = (&status.endpoint, user(&status.users, key_prefix)) else {
        return Err(not_ready(
            name,
            &format!("it does not know the key prefix {key_prefix} yet"),
        ));
    };
    let access = StoreAccess {
        host: endpoint.host.clone(),
        port: u16::try_from(endpoint.port).unwrap_or(port(store.spec.engine)),
        ca_secret: endpoint.ca_secret.clone(),
        user_secret: user.secret.clone(),
    };
    Ok((store, access))
}

/// Key prefixes that a store serves beside this one.
pub fn others<'a>(store: &'a SessionStore, key_prefix: &str) -> Vec<&'a str> {
    let users = store.status.iter().flat_map(|status| &status.users);
    users
        .map(|user| user.key_prefix.as_str())
        .filter(|other| *other != key_prefix)
        .collect()
}

/// Why sessions cannot be copied from a SessionStore that serves others, too: a list of keys would show theirs.
pub fn unlisted(store: &str, key_prefix: &str, others: &[&str]) -> String {
    format!(
        "sessions cannot move into the pods from SessionStore {store}, which serves other key prefixes ({}), so that the user \
         of {key_prefix} may not list keys; give those a store of their own, or delete the policy and make it anew to leave the \
         sessions behind",
        others.join(", ")
    )
}

fn user<'a>(users: &'a [StoreUser], key_prefix: &str) -> Option<&'a StoreUser> {
    users.iter().find(|user| user.key_prefix == key_prefix)
}

fn not_ready(name: &str, why: &str) -> Trouble {
    Trouble::new(
        reasons::STORE_NOT_READY,
        format!("SessionStore {name} is not ready ({why}); see kubectl describe sessionstore {name}"),
    )
}

/// A cluster has no fewer shards.
const LEAST_SHARDS: usize = 3;

/// Names of the first servers of the first shards, which are there however many there are.
fn first_members(store: &SessionStore) -> Vec<String> {
    if store.spec.topology != Topology::Cluster {
        return Vec::new();
    }
    let names = StoreNames::new(&store.namespace().unwrap_or_default(), &store.name_any());
    (0..LEAST_SHARDS)
        .map(|shard| names.member_host(&names.shard_member(shard, 0)))
        .collect()
}

/// The source that a SessionStore is.
pub fn of_store(
    store: &SessionStore,
    access: &StoreAccess,
    key_prefix: &str,
    user: Option<&Secret>,
    ca: Option<&Secret>,
) -> Result<Source, Trouble> {
    let credential = |key| user.map(|secret| Keys::of(secret).required(key)).transpose();
    let ca = ca.map(|secret| Keys::of(secret).required("ca.crt")).transpose()?;
    Ok(Source {
        endpoint: Endpoint {
            engine: store.spec.engine,
            cluster: store.spec.topology == Topology::Cluster,
            host: access.host.clone(),
            members: first_members(store),
            port: access.port,
            tls: access.ca_secret.is_some(),
            own_authority: ca.is_some(),
            username: credential("username")?,
            password: credential("password")?,
            key_prefix: key_prefix.to_owned(),
        },
        credentials: user.map(|user| {
            rotation::credentials(
                user.annotations().get(MADE_ANNOTATION).map(String::as_str),
                ca.as_deref(),
            )
        }),
        ca,
        lists: others(store, key_prefix).is_empty(),
        promise: Promise::Store {
            name: store.name_any(),
            engine: store.spec.engine,
            persistent: store.spec.persistence.is_some(),
            replicas: Replicas::of(store),
            shards: Shards::of(store),
        },
    })
}

/// The source that the sidecar beside the application is.
///
/// Keys begin as they do in the store that the spec names, too, so that sessions can move between the two.
pub fn of_pods(
    key_prefix: &str,
    wish: &Replicated,
    bound_to_pods: bool,
    nodes: usize,
    replicas: i32,
    cautions: Cautions,
) -> Source {
    let confirmed_alone = match wish.acknowledge {
        Acknowledge::Local => true,
        Acknowledge::Auto => bound_to_pods && wish.mode == ReplicationMode::All,
        Acknowledge::One | Acknowledge::Quorum | Acknowledge::All => false,
    };
    Source {
        endpoint: Endpoint {
            engine: Engine::Redis,
            cluster: false,
            host: "127.0.0.1".to_owned(),
            members: Vec::new(),
            port: sidecar::REDIS_PORT,
            tls: false,
            own_authority: false,
            username: None,
            password: None,
            key_prefix: key_prefix.to_owned(),
        },
        ca: None,
        credentials: None,
        lists: true,
        promise: Promise::Pods {
            mode: wish.mode,
            backups: wish.backups,
            confirmed_alone,
            nodes,
            replicas,
            cautions,
        },
    }
}

/// The source that a user's own Secret describes.
pub fn external(secret: &Secret, key_prefix: &str) -> Result<Source, Trouble> {
    let keys = Keys::of(secret);
    let engine = match keys.optional("provider")?.as_deref() {
        Some("valkey") => Engine::Valkey,
        Some("memcached") => Engine::Memcached,
        _ => Engine::Redis,
    };
    let port = match keys.optional("port")? {
        None => port(engine),
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| keys.wrong("port", "a number from 1 to 65535"))?,
    };
    let ca = keys.optional("ca.crt")?;
    let tls = keys.flag("tls")?;
    if ca.is_some() && tls == Some(false) {
        return Err(keys.wrong("tls", "true, as there is a ca.crt"));
    }
    if engine == Engine::Memcached {
        for key in ["username", "password", "ca.crt", "tls", "cluster"] {
            if keys.optional(key)?.is_some_and(|value| value != "false") {
                return Err(keys.wrong(
                    key,
                    "absent: clients talk to memcached without TLS and without a user",
                ));
            }
        }
    }
    Ok(Source {
        endpoint: Endpoint {
            engine,
            cluster: keys.flag("cluster")?.unwrap_or(false),
            host: keys.required("host")?,
            members: Vec::new(),
            port,
            tls: tls.unwrap_or(ca.is_some()),
            own_authority: ca.is_some(),
            username: keys.optional("username")?,
            password: keys.optional("password")?,
            key_prefix: key_prefix.to_owned(),
        },
        ca,
        credentials: None,
        // Only the server knows.
        lists: false,
        promise: Promise::External,
    })
}

/// The keys of a Secret, as text.
struct Keys<'a> {
    name: String,
    data: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Keys<'a> {
    fn of(secret: &'a Secret) -> Self {
        let data = secret.data.iter().flatten();
        Self {
            name: secret.name_any(),
            data: data
                .map(|(key, value)| (key.as_str(), value.0.as_slice()))
                .collect(),
        }
    }

    fn optional(&self, key: &str) -> Result<Option<String>, Trouble> {
        let Some(value) = self.data.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value).map_err(|_| self.wrong(key, "text in UTF-8"))?;
        // A line break at the end is the trace of an editor or of `echo`.
        let text = text.trim_end_matches(['\r', '\n']);
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    fn required(&self, key: &str) -> Result<String, Trouble> {
        self.optional(key)?.ok_or_else(|| {
            Trouble::new(
                reasons::SECRET_INCOMPLETE,
                format!("Secret {} has no key {key}; add it", self.name),
            )
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Trouble> {
        match self.optional(key)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Never holds the value: it may be a secret that stands under a wrong key.
    fn wrong(&self, key: &str, expected: &str) -> Trouble {
        Trouble::new(
            reasons::SECRET_INCOMPLETE,
            format!("key {key} of Secret {} has to be {expected}", self.name),
        )
    }
}

/// What a Secret that cannot be found means.
pub fn secret_missing(name: &str, remedy: &str) -> Trouble {
    Trouble::new(
        reasons::SECRET_INCOMPLETE,
        format!("Secret {name} does not exist; {remedy}"),
    )
}
