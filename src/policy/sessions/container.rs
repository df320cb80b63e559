//! Which containers of the target keep sessions.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use kube::ResourceExt;

use super::Trouble;
use crate::api::conditions::reasons;

/// Annotation of a pod template that names the container which users mean when they name none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The containers with these names; for no names, the one that the template's annotation names, else the first.
pub fn chosen<'a>(target: &'a Deployment, names: &[String]) -> Result<Vec<&'a Container>, Trouble> {
    let template = target.spec.as_ref().map(|spec| &spec.template);
    let all: &[Container] = template
        .and_then(|template| template.spec.as_ref())
        .map_or(&[], |pod| &pod.containers);
    if !names.is_empty() {
        return names.iter().map(|name| named(target, all, name)).collect();
    }
    let annotated = template
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.annotations.as_ref())
        .and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    match annotated {
        Some(name) => Ok(vec![named(target, all, name)?]),
        None => Ok(all.first().into_iter().collect()),
    }
}

fn named<'a>(target: &Deployment, all: &'a [Container], name: &str) -> Result<&'a Container, Trouble> {
    all.iter().find(|container| container.name == name).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|container| container.name.as_str()).collect();
        Trouble::new(
            reasons::CONTAINER_NOT_FOUND,
            format!(
                "Deployment {} has no container {name}; it has {}: name one of these in spec.client.containers",
                target.name_any(),
                names.join(", ")
            ),
        )
    })
}
