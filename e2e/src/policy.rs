//! `SessionPolicies` of tests: made from YAML, waited for, taken away.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use session_operator::api::conditions::types;
use session_operator::api::{Affinity, Event, SessionPolicy, Survival};

use crate::app::App;
use crate::wait::eventually;

/// How long the operator may take to set a policy up, or to undo it, on a busy machine.
pub const POLICY_LIMIT: Duration = Duration::from_secs(30);

/// Until a store runs, the image was looked at and every pod is replaced, on a busy machine.
pub const SHARED_LIMIT: Duration = Duration::from_mins(6);

/// The policies of one namespace.
#[derive(Clone)]
pub struct Policies {
    api: Api<SessionPolicy>,
    namespace: String,
}

impl Policies {
    /// Policies of `namespace`.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Creates a policy with strategy Sticky for the Deployment `target`; `sticky` as in the spec, or null.
    pub async fn create(&self, name: &str, target: &str, sticky: Value) -> Result<SessionPolicy> {
        let mut spec = json!({"targetRef": {"name": target}, "strategy": "Sticky"});
        if let (Some(spec), false) = (spec.as_object_mut(), sticky.is_null()) {
            spec.insert("sticky".into(), sticky);
        }
        self.create_with(name, spec).await
    }

    /// Creates a policy.
    pub async fn create_with(&self, name: &str, spec: Value) -> Result<SessionPolicy> {
        let policy = json!({
            "apiVersion": "session-operator.dev/v1alpha1",
            "kind": "SessionPolicy",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        let policy = serde_json::from_value(policy)?;
        self.api
            .create(&PostParams::default(), &policy)
            .await
            .with_context(|| format!("creating policy {name}"))
    }

    /// Creates a policy called as its target, and waits until every pod keeps its sessions in the store.
    pub async fn shared(&self, spec: Value) -> Result<SessionPolicy> {
        let name = spec.pointer("/targetRef/name").and_then(Value::as_str);
        let name = name.context("the spec has no targetRef.name")?.to_owned();
        self.create_with(&name, spec).await?;
        self.ready_within(&name, SHARED_LIMIT).await
    }

    /// The API, for changes.
    pub fn api(&self) -> &Api<SessionPolicy> {
        &self.api
    }

    /// The policy, once Ready is True for its present spec.
    pub async fn ready(&self, name: &str) -> Result<SessionPolicy> {
        self.ready_within(name, POLICY_LIMIT).await
    }

    /// The same, for what takes longer.
    pub async fn ready_within(&self, name: &str, limit: Duration) -> Result<SessionPolicy> {
        self.condition_within(name, types::READY, "True", None, limit)
            .await
    }

    /// The policy, once a condition has a status (and a reason) for its present spec.
    pub async fn condition(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: Option<&str>,
    ) -> Result<SessionPolicy> {
        self.condition_within(name, type_, status, reason, POLICY_LIMIT)
            .await
    }

    /// The same, for what takes longer.
    pub async fn condition_within(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> Result<SessionPolicy> {
        let what = format!(
            "SessionPolicy {}/{name} {type_}={status} {}",
            self.namespace,
            reason.unwrap_or_default()
        );
        eventually(&what, limit, || async {
            let policy = self.api.get(name).await?;
            let fits = condition_of(&policy, type_).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == policy.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason)
            });
            Ok(if fits { Ok(policy) } else { Err(policy.status) })
        })
        .await
    }

    /// Deletes a policy and waits until it is gone, and so everything that it did is undone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.remove_within(name, POLICY_LIMIT).await
    }

    /// The same, for what takes longer.
    pub async fn remove_within(&self, name: &str, limit: Duration) -> Result<()> {
        let policy = self.api.get(name).await?;
        let uid = policy.uid().unwrap_or_default();
        self.api.delete(name, &DeleteParams::default()).await?;
        let gone = await_condition(self.api.clone(), name, conditions::is_deleted(&uid));
        tokio::time::timeout(limit, gone)
            .await
            .with_context(|| format!("policy {name} does not go"))??;
        Ok(())
    }
}

/// The spec of a policy with strategy Shared; `shared` as in the spec.
pub fn in_store(app: App, shared: &Value) -> Value {
    json!({
        "targetRef": {"name": app.name},
        "strategy": "Shared",
        "shared": shared,
        "client": {"framework": app.framework},
    })
}

/// A condition of a policy.
pub fn condition_of<'a>(policy: &'a SessionPolicy, type_: &str) -> Option<&'a Condition> {
    policy
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// The entry of a route in status.
///
/// # Errors
/// When there is none.
pub fn route<'a>(policy: &'a SessionPolicy, kind: &str, name: &str) -> Result<&'a Affinity> {
    let mut entries = policy.status.iter().flat_map(|status| &status.affinity);
    let found = entries.find(|entry| entry.kind == kind && entry.name == name);
    found.ok_or_else(|| anyhow!("status.affinity has no {kind} {name}: {:#?}", policy.status))
}

/// What the policy promises for an event.
///
/// # Errors
/// When it says nothing of it.
pub fn promise(policy: &SessionPolicy, event: Event) -> Result<&Survival> {
    let mut rows = policy.status.iter().flat_map(|status| &status.survives);
    rows.find(|row| row.event == event)
        .ok_or_else(|| anyhow!("status.survives says nothing of {event:?}"))
}
