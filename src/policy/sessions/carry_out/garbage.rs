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

/// Removes revisions that nothing names any more. Those of `wanted` stay: the one that the template is to name, and the one
/// that it will be once admission knows it.
pub async fn collect_garbage(
    writer: &Writer,
    validated: &Validated,
    found: &Dereferenced,
    wanted: [Option<&str>; 2],
) -> Result<(), WriteError> {
    let wanted = [wanted[0], wanted[1], pods::mark_of(&validated.target)];
    let all = found.injections.iter().map(|injection| injection.name_any());
    let all: Vec<String> = all
        .filter(|name| !wanted.contains(&Some(name.as_str())))
        .collect();
    if all.is_empty() || validated.suspended {
        return Ok(());
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
    let unused = garbage::unused(all.iter().map(String::as_str), &wanted, &named);
    let api: Api<SessionInjection> = Api::namespaced(client.clone(), &validated.namespace);
    for injection in &found.injections {
        if unused.contains(&injection.name_any().as_str()) {
            remove(&api, &injection.metadata).await?;
        }
    }
    Ok(())
}
