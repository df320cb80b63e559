//! Asks the API server what its admission makes of a pod, before anything is rolled.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};

use super::contents::contains;
use crate::api::{INJECTION_LABEL, SessionInjection};

/// Whether admission adds what `injection` says: what a pod lacks that is created as a dry run.
///
/// The pod is made from the target's own template, so that it meets the same quotas, security standards and other
/// admission as the pods that are to come; none is stored, scheduled or selected by a Service. Admission learns of a new
/// injection only after some milliseconds, and each API server by itself: whoever asks waits a little longer after the
/// first good answer.
///
/// An error of the API server means that the target's pods would be refused as well, or that it cannot be asked.
pub async fn admitted(
    client: &Client,
    injection: &SessionInjection,
    template: &PodTemplateSpec,
) -> kube::Result<Result<(), Vec<String>>> {
    let namespace = injection.namespace().unwrap_or_default();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pod = pods.create(&dry_run, &marked(injection, template)).await?;
    Ok(contains(&pod, &injection.spec))
}

/// The pod that a ReplicaSet would create from the template once it has the mark.
fn marked(injection: &SessionInjection, template: &PodTemplateSpec) -> Pod {
    let of_template = template.metadata.clone().unwrap_or_default();
    let mut labels = of_template.labels.unwrap_or_default();
    labels.insert(INJECTION_LABEL.to_owned(), injection.name_any());
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", injection.name_any())),
            labels: Some(labels),
            annotations: of_template.annotations,
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
