//! Writes, and takes away again, what lets members reach each other past the NetworkPolicies of others.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::remove;
use crate::api::FIELD_MANAGER;
use crate::api::conditions::reasons;
use crate::policy::dereference::Dereferenced;
use crate::policy::sessions::{Trouble, names, peer_access, peers};
use crate::policy::validate::Validated;
use crate::runtime::writer::{WriteError, Writer, classify};

/// Brings it about; gives what was changed, as `Kind/name`.
pub async fn keep_peer_access(
    writer: &Writer,
    validated: &Validated,
    found: &Dereferenced,
) -> Result<Result<Option<String>, Trouble>, WriteError> {
    if validated.suspended {
        return Ok(Ok(None));
    }
    let name = peers::name(&validated.name);
    let standing = found
        .network_policies
        .iter()
        .find(|policy| policy.name_any() == name);
    let revisions = found.injections.iter().map(AsRef::as_ref);
    let isolating = if peer_access::has_members(validated.sessions.as_ref(), revisions) {
        peer_access::isolating(
            &validated.target,
            found.network_policies.iter().map(AsRef::as_ref),
        )
    } else {
        Vec::new()
    };
    let own = standing.filter(|policy| names::is_of(&policy.metadata, &validated.name));
    let api: Api<NetworkPolicy> = Api::namespaced(writer.client().clone(), &validated.namespace);
    let changed = Some(format!("NetworkPolicy/{name}"));
    if isolating.is_empty() {
        let Some(own) = own else { return Ok(Ok(None)) };
        remove(&api, &own.metadata).await?;
        return Ok(Ok(changed));
    }
    if standing.is_some() && own.is_none() {
        return Ok(Err(Trouble::new(
            reasons::FIELD_CONFLICT,
            format!("NetworkPolicy {name} exists and is not the operator's; rename it, or rename the policy"),
        )));
    }
    let wanted = peer_access::rule(validated, &isolating);
    if own.is_some_and(|own| peer_access::is_same(own, &wanted)) {
        return Ok(Ok(None));
    }
    let mut body = json!(wanted);
    if let Some(body) = body.as_object_mut() {
        body.insert("apiVersion".to_owned(), json!(NetworkPolicy::api_version(&())));
        body.insert("kind".to_owned(), json!(NetworkPolicy::kind(&())));
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&body))
        .await
        .map_err(classify)?;
    Ok(Ok(changed))
}
