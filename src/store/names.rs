//! Names and labels of everything that belongs to a store.
//!
//! Children carry the store's name and uid as labels and no ownerReference: deletion in the foreground would remove
//! them before the finalizer ran, and with them what `deletionPolicy: Retain` keeps.

use std::collections::BTreeMap;

use crate::api::STORE_LABEL;

/// Label with the uid of the SessionStore that a child belongs to. Not on pods: a store that takes over what an earlier
/// one left must not restart the server for it.
pub const STORE_UID_LABEL: &str = "session-operator.dev/store-uid";

/// Annotation of children: a hash of what was applied, which finds fields that are no longer wanted.
pub const APPLIED_ANNOTATION: &str = "session-operator.dev/applied";

/// Annotation of a Secret with a password: when that was made.
pub const MADE_ANNOTATION: &str = "session-operator.dev/password-made";

/// Label of a server's pod: what the server is, or is about to be. The Service of a store with topology Replicated leads to the
/// primary by it until there has been one.
pub const ROLE_LABEL: &str = "session-operator.dev/role";

/// Label that a StatefulSet gives each of its pods. From the first primary on the Service leads to a pod by its name: that is
/// changed in one write, and nodes follow it in one step. Two labels are two, and a node may take a second between them in which
/// it leads nowhere.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// Label of the pods of a shard: its number. Each shard's StatefulSet finds its own by it.
pub const SHARD_LABEL: &str = "session-operator.dev/shard";

/// Value of [`ROLE_LABEL`] for the server that takes writes.
pub const PRIMARY: &str = "primary";

/// Value of [`ROLE_LABEL`] for all others.
pub const REPLICA: &str = "replica";

/// Name that children have in `app.kubernetes.io/name`.
const APP: &str = "session-store";

/// Names of one store's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    namespace: String,
    store: String,
}

impl Names {
    /// Names for the store `store` in `namespace`.
    pub fn new(namespace: &str, store: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            store: store.to_owned(),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The store; StatefulSet, Service and PodDisruptionBudget are named after it.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The only pod of a Standalone store.
    pub fn pod(&self) -> String {
        format!("{}-0", self.store)
    }

    /// A server's pod by its ordinal.
    pub fn member(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.store)
    }

    /// The ordinal of a server's pod.
    pub fn ordinal(&self, pod: &str) -> Option<usize> {
        pod.strip_prefix(&self.store)?.strip_prefix('-')?.parse().ok()
    }

    /// The StatefulSet of a shard.
    pub fn shard(&self, shard: usize) -> String {
        format!("{}-{shard}", self.store)
    }

    /// The number of the shard that a StatefulSet is.
    pub fn shard_of(&self, set: &str) -> Option<usize> {
        set.strip_prefix(&self.store)?.strip_prefix('-')?.parse().ok()
    }

    /// A server's pod by its shard and its ordinal in there.
    pub fn shard_member(&self, shard: usize, ordinal: usize) -> String {
        format!("{}-{shard}-{ordinal}", self.store)
    }

    /// Shard and ordinal of a server's pod.
    pub fn place(&self, pod: &str) -> Option<(usize, usize)> {
        let (shard, ordinal) = pod
            .strip_prefix(&self.store)?
            .strip_prefix('-')?
            .split_once('-')?;
        Some((shard.parse().ok()?, ordinal.parse().ok()?))
    }

    /// The volume of a Standalone store.
    pub fn volume(&self) -> String {
        format!("{}-data", self.store)
    }

    /// The volume of one of several servers, as the StatefulSet calls it.
    pub fn member_volume(&self, ordinal: usize) -> String {
        Self::volume_of(&self.member(ordinal))
    }

    /// The volume of a pod of a store with several servers.
    pub fn volume_of(pod: &str) -> String {
        format!("data-{pod}")
    }

    /// The headless Service that gives each of several servers a name.
    pub fn members(&self) -> String {
        format!("{}-members", self.store)
    }

    /// The name under which one of several servers is announced. Stays when its pod is replaced.
    pub fn member_host(&self, pod: &str) -> String {
        format!("{pod}.{}.{}.svc", self.members(), self.namespace)
    }

    /// Secret with name and password of the user by which servers follow each other.
    pub fn replication_secret(&self) -> String {
        format!("{}-replication", self.store)
    }

    /// Secret with name and password of the operator's own user.
    pub fn admin_secret(&self) -> String {
        format!("{}-admin", self.store)
    }

    /// Secret with the users' file of the server: names, hashes of passwords, rights.
    pub fn users_secret(&self) -> String {
        format!("{}-users", self.store)
    }

    /// Secret with the key of the authority.
    pub fn authority_secret(&self) -> String {
        format!("{}-authority", self.store)
    }

    /// Secret with the certificate of the authority, which clients need.
    pub fn ca_secret(&self) -> String {
        format!("{}-ca", self.store)
    }

    /// Secret with the server's certificate and key.
    pub fn server_secret(&self) -> String {
        format!("{}-tls", self.store)
    }

    /// Secret with name and password of the user of a key prefix.
    pub fn user_secret(&self, prefix: &str) -> String {
        format!("{}-user-{prefix}", self.store)
    }

    /// The name under which clients reach the store.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.store, self.namespace)
    }

    /// Every name under which clients may reach it, and those of its `servers` if there are several.
    pub fn hosts(&self, servers: usize) -> Vec<String> {
        let mut hosts = self.service_hosts();
        if servers > 1 {
            for ordinal in 0..servers {
                let host = self.member_host(&self.member(ordinal));
                hosts.push(format!("{host}.cluster.local"));
                hosts.push(host);
            }
        }
        hosts
    }

    /// The same for a store with shards: one name stands for all servers, as there may be more of them tomorrow.
    pub fn shard_hosts(&self) -> Vec<String> {
        let mut hosts = self.service_hosts();
        let host = self.member_host("*");
        hosts.push(format!("{host}.cluster.local"));
        hosts.push(host);
        hosts
    }

    fn service_hosts(&self) -> Vec<String> {
        let host = self.host();
        vec![
            host.clone(),
            format!("{host}.cluster.local"),
            format!("{}.{}", self.store, self.namespace),
            self.store.clone(),
        ]
    }

    /// What the Service selects when it leads to one server.
    pub fn led_to(&self, server: &str) -> BTreeMap<String, String> {
        let mut selector = self.selector();
        selector.insert(POD_NAME_LABEL.to_owned(), server.to_owned());
        selector
    }

    /// What selects the pods. Never changes: a StatefulSet's selector cannot.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", APP),
            ("app.kubernetes.io/managed-by", crate::api::FIELD_MANAGER),
            (STORE_LABEL, &self.store),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// What selects the pods of a shard.
    pub fn shard_selector(&self, shard: usize) -> BTreeMap<String, String> {
        let mut selector = self.selector();
        selector.insert(SHARD_LABEL.to_owned(), shard.to_string());
        selector
    }

    /// Labels of the pods.
    pub fn pod_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/instance".to_owned(), self.store.clone());
        labels.insert(
            "app.kubernetes.io/part-of".to_owned(),
            crate::api::FIELD_MANAGER.to_owned(),
        );
        labels
    }

    /// Labels of every other child.
    pub fn labels(&self, uid: &str) -> BTreeMap<String, String> {
        let mut labels = self.pod_labels();
        labels.insert(STORE_UID_LABEL.to_owned(), uid.to_owned());
        labels
    }

    /// Whether labels are those of a child of a store of this name, be it this one or one before it.
    pub fn are_ours(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let selector = self.selector();
        labels.is_some_and(|labels| {
            selector
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
        })
    }
}
