//! Removes revisions that nothing names any more.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::remove;
use crate::api::{INJECTION_LABEL, SessionInjection};
use crate::policy::dereference::Dereferenced;
use crate::policy::sessions::{garbage, pods};
use crate::policy::validate::Validated;
use crate::runtime::writer::{WriteError, Writer, classify};

/// Removes revisions that nothing names any more. Returns their names.
pub async fn collect_garbage(
    writer: &Writer,
    validated: &Validated,
    found: &Dereferenced,
    mark: Option<&str>,
) -> Result<Vec<String>, WriteError> {
    let all: Vec<String> = found
        .injections
        .iter()
        .map(|injection| injection.name_any())
        .filter(|name| Some(name.as_str()) != mark && pods::mark_of(&validated.target) != Some(name))
        .collect();
    if all.is_empty() || validated.suspended {
        return Ok(Vec::new());
    }
    let client = writer.client();
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &validated.namespace);
    let selector = ListParams::default().labels(&format!("{INJECTION_LABEL} in ({})", all.join(",")));
    let sets = sets.list_metadata(&selector).await.map_err(classify)?;
    let labels = sets.items.iter().map(ResourceExt::labels);
    let named: BTreeSet<String> = labels
        .chain(found.pods.iter().map(|pod| pod.labels()))
        .filter_map(|labels| labels.get(INJECTION_LABEL).cloned())
        .collect();
    let unused = garbage::unused(all.iter().map(String::as_str), mark, &named);
    let api: Api<SessionInjection> = Api::namespaced(client.clone(), &validated.namespace);
    let mut removed = Vec::with_capacity(unused.len());
    for name in unused {
        let meta = found
            .injections
            .iter()
            .find(|injection| injection.name_any() == name)
            .map(|injection| injection.metadata.clone());
        remove(&api, &meta.unwrap_or_default()).await?;
        removed.push(name.to_owned());
    }
    Ok(removed)
}
