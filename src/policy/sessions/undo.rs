//! Takes back what belongs to a policy, once no pod needs it any more.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};

use super::carry_out::remove;
use super::{names, peers};
use crate::api::session_store::DeletionPolicy;
use crate::api::{INJECTION_LABEL, POLICY_LABEL, SessionInjection, SessionStore};
use crate::runtime::writer::{WriteError, Writer, classify};

/// What is left after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing; what was removed, as `Kind/name`.
    Done(Vec<String>),
    /// Pods that still contain something of the policy: their names.
    PodsLeft(Vec<String>),
}

/// Removes the revisions, the binding Secret, preflight pods and, where its deletionPolicy says so, the store that was made
/// for the policy `name`. The mark has to be gone from the template before.
///
/// Pods that still run with a revision keep everything in place: their next restart must find the Secret.
pub async fn undo(writer: &Writer, namespace: &str, name: &str) -> Result<Outcome, WriteError> {
    let client = writer.client();
    let of_policy = ListParams::default().labels(&format!("{POLICY_LABEL}={name}"));
    let revisions: Api<SessionInjection> = Api::namespaced(client.clone(), namespace);
    let revisions_there = list(&revisions, &of_policy).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if !revisions_there.is_empty() {
        let names: BTreeSet<String> = revisions_there.iter().map(ResourceExt::name_any).collect();
        let names: Vec<String> = names.into_iter().collect();
        let left = marked_pods(&pods, &format!("{INJECTION_LABEL} in ({})", names.join(","))).await?;
        if !left.is_empty() {
            return Ok(Outcome::PodsLeft(left));
        }
    }
    let mut removed = Vec::new();
    for revision in &revisions_there {
        remove(&revisions, &revision.metadata).await?;
        removed.push(format!("SessionInjection/{}", revision.name_any()));
    }
    for pod in pods.list_metadata(&of_policy).await.map_err(classify)?.items {
        remove(&pods, &pod.metadata).await?;
        removed.push(format!("Pod/{}", pod.name_any()));
    }
    for secret in [
        names::binding(name),
        names::binding_in_pods(name),
        names::upstream(name),
    ] {
        removed.extend(remove_own::<Secret>(client, namespace, &secret, name).await?);
    }
    removed.extend(peers(client, namespace, name).await?);
    removed.extend(store(client, namespace, name).await?);
    Ok(Outcome::Done(removed))
}

/// What the sidecars needed to find and trust each other.
async fn peers(client: &Client, namespace: &str, name: &str) -> Result<Vec<String>, WriteError> {
    let mut removed = Vec::new();
    let peers = peers::name(name);
    removed.extend(remove_own::<NetworkPolicy>(client, namespace, &peers, name).await?);
    removed.extend(remove_own::<Service>(client, namespace, &peers, name).await?);
    removed.extend(remove_own::<ConfigMap>(client, namespace, &peers, name).await?);
    removed.extend(remove_own::<Secret>(client, namespace, &peers, name).await?);
    removed.extend(remove_own::<Secret>(client, namespace, &peers::authority_name(name), name).await?);
    Ok(removed)
}

/// Removes the object of that name if it belongs to the policy.
async fn remove_own<K>(
    client: &Client,
    namespace: &str,
    object: &str,
    policy: &str,
) -> Result<Option<String>, WriteError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(object).await.map_err(classify)?;
    let Some(found) = found.filter(|found| names::is_of(&found.metadata, policy)) else {
        return Ok(None);
    };
    remove(&api, &found.metadata).await?;
    Ok(Some(format!("{}/{object}", K::kind(&()))))
}

/// Names of the pods with these labels that run, or are about to go. One that has ended (evicted by a kubelet, say) stays
/// until somebody deletes it, and needs nothing any more.
async fn marked_pods(pods: &Api<Pod>, labels: &str) -> Result<Vec<String>, WriteError> {
    let marked = ListParams::default().labels(labels);
    let running = marked
        .clone()
        .fields("status.phase!=Failed,status.phase!=Succeeded");
    let running = pods.list_metadata(&running).await.map_err(classify)?.items;
    if !running.is_empty() {
        return Ok(running.iter().map(ResourceExt::name_any).collect());
    }
    let all = pods.list_metadata(&marked).await.map_err(classify)?.items;
    let going = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
    Ok(going.map(ResourceExt::name_any).collect())
}

async fn store(client: &Client, namespace: &str, name: &str) -> Result<Option<String>, WriteError> {
    let stores: Api<SessionStore> = Api::namespaced(client.clone(), namespace);
    let own = match stores.get_opt(&names::store(name)).await.map_err(classify) {
        Ok(own) => own,
        Err(WriteError::Gone) => None,
        Err(error) => return Err(error),
    };
    let Some(own) = own.filter(|store| {
        names::is_of(&store.metadata, name) && store.spec.deletion_policy == DeletionPolicy::Delete
    }) else {
        return Ok(None);
    };
    remove(&stores, &own.metadata).await?;
    Ok(Some(format!("SessionStore/{}", own.name_any())))
}

/// Objects of a kind; none where the kind is not served.
async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, WriteError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.list(params).await.map_err(classify) {
        Ok(list) => Ok(list.items),
        Err(WriteError::Gone) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
