//! What admission adds to a pod, as a JSON Patch (RFC 6902).

use std::collections::BTreeSet;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, VolumeMount};
use serde::Serialize;
use serde_json::{Value, json};

use super::contents::{defines, extends, has_pre_stop, names_of, pull_secrets_of, volumes_of};
use crate::api::session_injection::ContainerInjection;
use crate::api::{INJECTION_LABEL, SessionInjectionSpec};

/// The name of the injection that a pod's label asks for.
pub fn named_by(pod: &Pod) -> Option<&str> {
    Some(pod.metadata.labels.as_ref()?.get(INJECTION_LABEL)?.as_str())
}

/// What is added to `pod`. Only adds: nothing that the pod has is replaced, removed or put in another order, and applied
/// to its own result it adds nothing.
///
/// An error means that a part of the injection has no form in JSON, which no object from an API server has.
pub fn patch(pod: &Pod, injection: &SessionInjectionSpec) -> Result<Patch, serde_json::Error> {
    let Some(pod) = &pod.spec else {
        return Ok(Patch::default());
    };
    let mut additions = Additions::default();
    for (index, container) in pod.containers.iter().enumerate() {
        let wanted = injection
            .containers
            .iter()
            .find(|wanted| wanted.name == container.name);
        if let Some(wanted) = wanted {
            let index = index.to_string();
            let at = |list| ["spec", "containers", index.as_str(), list];
            additions.append(&at("env"), container.env.is_some(), env(container, wanted))?;
            let mounts = container.volume_mounts.is_some();
            additions.append(&at("volumeMounts"), mounts, new_mounts(container, wanted))?;
            if let Some(seconds) = wanted.pre_stop_sleep_seconds.filter(|_| !has_pre_stop(container)) {
                let hook = json!({"sleep": {"seconds": seconds}});
                if container.lifecycle.is_some() {
                    additions.add(&["spec", "containers", &index, "lifecycle", "preStop"], hook);
                } else {
                    additions.add(&at("lifecycle"), json!({"preStop": hook}));
                }
            }
        }
    }
    let taken = volumes_of(pod);
    let volumes = injection.volumes.iter();
    let volumes = volumes.filter(|volume| !taken.contains(volume.name.as_str()));
    additions.append(&["spec", "volumes"], pod.volumes.is_some(), volumes)?;
    additions.prepend(
        &["spec", "initContainers"],
        pod.init_containers.is_some(),
        new_init_containers(pod, injection),
    )?;
    let taken = pull_secrets_of(pod);
    let secrets = injection.image_pull_secrets.iter();
    let secrets = secrets.filter(|secret| !taken.contains(secret.name.as_str()));
    additions.append(
        &["spec", "imagePullSecrets"],
        pod.image_pull_secrets.is_some(),
        secrets,
    )?;
    Ok(Patch(additions.0))
}

/// The variables to add: new ones first, then those that are extended, which may refer to what stands before them.
fn env(container: &Container, wanted: &ContainerInjection) -> Vec<EnvVar> {
    let new = wanted.env.iter();
    let new = new
        .filter(|variable| !defines(container, &variable.name))
        .cloned();
    let extended = wanted
        .extend
        .iter()
        .filter(|extension| !extends(container, extension));
    let extended = extended.map(|extension| EnvVar {
        name: extension.name.clone(),
        value: Some(if defines(container, &extension.name) {
            extension.when_set.clone()
        } else {
            extension.when_unset.clone()
        }),
        value_from: None,
    });
    new.chain(extended).collect()
}

fn new_mounts<'a>(container: &Container, wanted: &'a ContainerInjection) -> Vec<&'a VolumeMount> {
    let taken: BTreeSet<&str> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| mount.mount_path.as_str())
        .collect();
    let mounts = wanted.volume_mounts.iter();
    mounts
        .filter(|mount| !taken.contains(mount.mount_path.as_str()))
        .collect()
}

/// Names of containers are unique among both kinds of containers.
fn new_init_containers<'a>(pod: &PodSpec, injection: &'a SessionInjectionSpec) -> Vec<&'a Container> {
    let taken = names_of(pod);
    let containers = injection.init_containers.iter();
    containers
        .filter(|container| !taken.contains(container.name.as_str()))
        .collect()
}

/// Operations in the order in which they are applied.
#[derive(Default)]
struct Additions(Vec<PatchOperation>);

impl Additions {
    /// Adds one value.
    fn add(&mut self, path: &[&str], value: Value) {
        let path = PointerBuf::from_tokens(path.iter().copied());
        self.0.push(PatchOperation::Add(AddOperation { path, value }));
    }

    /// Adds elements to the end of a list, which is made where it does not exist.
    fn append<T: Serialize>(
        &mut self,
        list: &[&str],
        exists: bool,
        elements: impl IntoIterator<Item = T>,
    ) -> Result<(), serde_json::Error> {
        self.insert(list, exists, elements, |_| "-".to_owned())
    }

    /// Adds elements to the begin of a list, in their order.
    fn prepend<T: Serialize>(
        &mut self,
        list: &[&str],
        exists: bool,
        elements: impl IntoIterator<Item = T>,
    ) -> Result<(), serde_json::Error> {
        self.insert(list, exists, elements, |index| index.to_string())
    }

    fn insert<T: Serialize>(
        &mut self,
        list: &[&str],
        exists: bool,
        elements: impl IntoIterator<Item = T>,
        place: impl Fn(usize) -> String,
    ) -> Result<(), serde_json::Error> {
        let elements = elements.into_iter().map(serde_json::to_value);
        let elements = elements.collect::<Result<Vec<_>, _>>()?;
        let add = |path, value| PatchOperation::Add(AddOperation { path, value });
        if exists {
            for (index, value) in elements.into_iter().enumerate() {
                let place = place(index);
                let path = PointerBuf::from_tokens(list.iter().copied().chain([place.as_str()]));
                self.0.push(add(path, value));
            }
        } else if !elements.is_empty() {
            self.0.push(add(
                PointerBuf::from_tokens(list.iter().copied()),
                elements.into(),
            ));
        }
        Ok(())
    }
}
