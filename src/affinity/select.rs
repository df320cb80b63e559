//! Which Services lead to the pods of the target, and which of them also lead elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::model::Inputs;

/// Label and value that mark the operator's own Services, which are no way for users to reach a target.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "session-operator");

/// A Service whose selector matches the target's pod template.
#[derive(Clone, Debug)]
pub struct TargetService<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its name.
    pub name: String,
    /// Names of other Deployments whose pods it selects, too.
    pub shared_with: Vec<String>,
}

/// The Services of the policy's namespace that select the target's pods.
pub fn target_services<'a>(inputs: &Inputs<'a>) -> Vec<TargetService<'a>> {
    let Some(labels) = pod_labels(inputs.target) else {
        return Vec::new();
    };
    inputs
        .services
        .iter()
        .map(Arc::as_ref)
        .filter(|service| !is_ours(service) && selects(service, labels))
        .map(|service| TargetService {
            service,
            name: service.name_any(),
            shared_with: others_selected(service, inputs),
        })
        .collect()
}

fn others_selected(service: &Service, inputs: &Inputs<'_>) -> Vec<String> {
    let target = inputs.target.name_any();
    inputs
        .deployments
        .iter()
        .filter(|deployment| deployment.name_any() != target)
        .filter(|deployment| pod_labels(deployment).is_some_and(|labels| selects(service, labels)))
        .map(|deployment| deployment.name_any())
        .collect()
}

pub(super) fn pod_labels(deployment: &Deployment) -> Option<&BTreeMap<String, String>> {
    deployment
        .spec
        .as_ref()?
        .template
        .metadata
        .as_ref()?
        .labels
        .as_ref()
}

/// A Service without selector matches nothing: its endpoints are made by hand.
pub(super) fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

fn is_ours(service: &Service) -> bool {
    service
        .labels()
        .get(MANAGED_BY.0)
        .is_some_and(|value| value == MANAGED_BY.1)
}
