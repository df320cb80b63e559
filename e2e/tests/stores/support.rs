//! A store in a namespace, and a client that talks to it from a node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::store::{redis_cli, value};
use e2e::wait::eventually;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::{SessionPolicy, SessionStore};

/// How long a store may take to be ready: its pod is scheduled, its images are there, a busy machine starts it.
pub const READY_LIMIT: Duration = Duration::from_secs(90);

/// The store of one test, called `sessions`.
pub struct Store<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    folder: PathBuf,
}

impl<'a> Store<'a> {
    /// Makes the store.
    pub async fn create(cluster: &'a Cluster, namespace: &'a str, spec: Value) -> Result<Self> {
        let store: SessionStore = serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1",
            "kind": "SessionStore",
            "metadata": {"name": "sessions"},
            "spec": spec
        }))?;
        let api: Api<SessionStore> = Api::namespaced(cluster.client.clone(), namespace);
        api.create(&PostParams::default(), &store).await?;
        let folder = std::env::temp_dir().join(format!("session-operator-{namespace}"));
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            cluster,
            namespace,
            folder,
        })
    }

    /// Access to objects of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Makes a policy that keeps its sessions here. Its target does not exist: no pod is touched.
    pub async fn shared_by(&self, policy: &str, key_prefix: Option<&str>) -> Result<()> {
        let mut reference = json!({"name": "sessions"});
        if let (Some(prefix), Some(reference)) = (key_prefix, reference.as_object_mut()) {
            reference.insert("keyPrefix".into(), json!(prefix));
        }
        let policy: SessionPolicy = serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1",
            "kind": "SessionPolicy",
            "metadata": {"name": policy},
            "spec": {"targetRef": {"name": policy}, "strategy": "Shared", "shared": {"storeRef": reference}}
        }))?;
        self.api().create(&PostParams::default(), &policy).await?;
        Ok(())
    }

    /// Waits until the Ready condition has a reason and the users are those of `prefixes`.
    pub async fn until(&self, reason: &str, prefixes: &[&str]) -> Result<SessionStore> {
        let what = format!("store {}/sessions: {reason}, users {prefixes:?}", self.namespace);
        eventually(&what, READY_LIMIT, || async {
            let store = self.api::<SessionStore>().get("sessions").await?;
            let status = store.status.clone().unwrap_or_default();
            let said = status.conditions.first().map(|ready| ready.reason.clone());
            let users: Vec<&str> = status.users.iter().map(|user| user.key_prefix.as_str()).collect();
            let is_so = said.as_deref() == Some(reason) && users == prefixes;
            Ok(if is_so { Ok(store) } else { Err(status) })
        })
        .await
    }

    /// Waits until it is ready for the users of `prefixes`.
    pub async fn until_ready(&self, prefixes: &[&str]) -> Result<SessionStore> {
        self.until("Ready", prefixes).await
    }

    /// Arguments of a client that talks to the Service as the user of a prefix.
    pub async fn as_user(&self, prefix: &str) -> Result<Vec<String>> {
        let secret: Secret = self.api().get(&format!("sessions-user-{prefix}")).await?;
        let mut arguments = self.anonymous().await?;
        arguments.extend(["--user".into(), value(&secret, "username")?]);
        arguments.extend(["--pass".into(), value(&secret, "password")?]);
        Ok(arguments)
    }

    /// Arguments of a client without a password.
    pub async fn anonymous(&self) -> Result<Vec<String>> {
        let mut arguments = self.plain().await?;
        if let Some(authority) = self.api::<Secret>().get_opt("sessions-ca").await? {
            let file = self.folder.join("ca.crt");
            std::fs::write(&file, value(&authority, "ca.crt")?)?;
            arguments.extend(["--tls".into(), "--cacert".into(), file.display().to_string()]);
        }
        Ok(arguments)
    }

    /// Arguments of a client without TLS.
    pub async fn plain(&self) -> Result<Vec<String>> {
        let service: Service = self.api().get("sessions").await?;
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("no cluster IP")?;
        Ok(["-h", address.as_str(), "--no-auth-warning"]
            .map(str::to_owned)
            .into())
    }

    /// What redis-cli prints when it sends a command from a node.
    pub async fn say(&self, client: &[String], command: &[&str]) -> Result<String> {
        redis_cli(client, command).await
    }

    /// Sends a command that has to be answered with `expected`.
    pub async fn expect(&self, client: &[String], command: &[&str], expected: &str) -> Result<()> {
        let said = self.say(client, command).await?;
        ensure!(
            said == expected,
            "{command:?}: expected {expected:?}, got {said:?}"
        );
        Ok(())
    }

    /// Sends a command that has to be refused in words that contain `words`.
    pub async fn refused(&self, client: &[String], command: &[&str], words: &str) -> Result<()> {
        let said = self.say(client, command).await?;
        ensure!(
            said.contains(words),
            "{command:?}: expected a refusal with {words:?}, got {said:?}"
        );
        Ok(())
    }

    /// Uid of the pod.
    pub async fn pod(&self) -> Result<String> {
        let pod: Pod = self.api().get("sessions-0").await?;
        pod.metadata.uid.context("no uid")
    }

    /// Deletes the pod and waits for the next one to serve.
    pub async fn replace_pod(&self, prefixes: &[&str]) -> Result<SessionStore> {
        let before = self.pod().await?;
        self.api::<Pod>()
            .delete("sessions-0", &DeleteParams::default())
            .await?;
        eventually("another pod", READY_LIMIT, || async {
            let pod = self.api::<Pod>().get_opt("sessions-0").await?;
            let other = pod.and_then(|pod| pod.metadata.uid).filter(|uid| *uid != before);
            Ok(other.map(|_| ()).ok_or("not yet"))
        })
        .await?;
        self.until_serving(prefixes).await
    }

    /// SIGKILL to the server inside its pod; waits for the next one to serve.
    pub async fn kill_server(&self, prefixes: &[&str]) -> Result<SessionStore> {
        let restarts = self.restarts().await?;
        self.cluster
            .run(["kill", "-n", self.namespace, "sessions-0", "server"])
            .await?;
        eventually("a restart", READY_LIMIT, || async {
            let now = self.restarts().await?;
            Ok(if now > restarts { Ok(()) } else { Err(now) })
        })
        .await?;
        self.until_serving(prefixes).await
    }

    async fn restarts(&self) -> Result<i32> {
        let pod: Pod = self.api().get("sessions-0").await?;
        let statuses = pod.status.and_then(|status| status.container_statuses);
        Ok(statuses
            .into_iter()
            .flatten()
            .map(|status| status.restart_count)
            .sum())
    }

    /// Waits until it is ready, and until the nodes have learnt where its Service leads.
    pub async fn until_serving(&self, prefixes: &[&str]) -> Result<SessionStore> {
        let store = self.until_ready(prefixes).await?;
        let client = self.anonymous().await?;
        eventually("the Service to lead to it", READY_LIMIT, || async {
            let said = self.say(&client, &["PING"]).await?;
            Ok(if said.contains("NOAUTH") {
                Ok(())
            } else {
                Err(said)
            })
        })
        .await?;
        Ok(store)
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.folder);
    }
}
