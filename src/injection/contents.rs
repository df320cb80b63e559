//! What a pod has of an injection, by its contents: labels and annotations can be forged.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::api::SessionInjectionSpec;
use crate::api::session_injection::{ContainerInjection, Extension};

/// Whether `pod` has everything that `injection` adds. What it lacks otherwise, each a few words for a message.
///
/// Lists are compared by what identifies their elements (name, mountPath), not by whole values: what the pod's owner
/// wrote stands, and other admission, such as one that rewrites image names, may have changed an element since.
pub fn contains(pod: &Pod, injection: &SessionInjectionSpec) -> Result<(), Vec<String>> {
    let Some(pod) = &pod.spec else {
        return Err(vec!["its spec".to_owned()]);
    };
    let mut missing = Vec::new();
    for wanted in &injection.containers {
        for container in pod.containers.iter().filter(|has| has.name == wanted.name) {
            missing.extend(missing_of(container, wanted));
        }
    }
    let has = volumes_of(pod);
    let volumes = injection.volumes.iter().map(|volume| volume.name.as_str());
    missing.extend(lacking("volume", volumes, &has));
    let has = names_of(pod);
    let init_containers = injection.init_containers.iter();
    let init_containers = init_containers.map(|container| container.name.as_str());
    missing.extend(lacking("init container", init_containers, &has));
    let has = pull_secrets_of(pod);
    let secrets = injection
        .image_pull_secrets
        .iter()
        .map(|secret| secret.name.as_str());
    missing.extend(lacking("pull secret", secrets, &has));
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn lacking<'a>(
    what: &str,
    wanted: impl Iterator<Item = &'a str>,
    has: &BTreeSet<&str>,
) -> impl Iterator<Item = String> {
    wanted
        .filter(|name| !has.contains(name))
        .map(move |name| format!("{what} {name}"))
}

fn missing_of(container: &Container, wanted: &ContainerInjection) -> Vec<String> {
    let of = |what: &str, name: &str| format!("{what} {name} of container {}", container.name);
    let env = wanted.env.iter().map(|variable| &variable.name);
    let env = env.filter(|name| !defines(container, name));
    let extended = wanted
        .extend
        .iter()
        .filter(|extension| !extends(container, extension));
    let variables = env
        .chain(extended.map(|extension| &extension.name))
        .map(|name| of("variable", name));
    let mounts = wanted.volume_mounts.iter().map(|mount| &mount.mount_path);
    let mounts = mounts.filter(|path| {
        let mut has = container.volume_mounts.iter().flatten();
        !has.any(|mount| mount.mount_path == **path)
    });
    let mut missing: Vec<String> = variables.chain(mounts.map(|path| of("mount at", path))).collect();
    if wanted.pre_stop_sleep_seconds.is_some() && !has_pre_stop(container) {
        missing.push(format!("preStop hook of container {}", container.name));
    }
    missing
}

/// Whether a container has a preStop hook, whatever it does.
pub(super) fn has_pre_stop(container: &Container) -> bool {
    let lifecycle = container.lifecycle.as_ref();
    lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// Whether a container's `env` has a variable of that name.
pub(super) fn defines(container: &Container, name: &str) -> bool {
    container
        .env
        .iter()
        .flatten()
        .any(|variable| variable.name == name)
}

/// Whether a variable already has what an extension adds to it. A part of the value is enough: an injector that came
/// later may have put something beside it.
pub(super) fn extends(container: &Container, extension: &Extension) -> bool {
    let values = container.env.iter().flatten();
    let mut values = values
        .filter(|variable| variable.name == extension.name)
        .filter_map(|variable| variable.value.as_deref());
    values.any(|value| value.contains(&extension.when_set) || value.contains(&extension.when_unset))
}

/// Names of the containers of a pod, of both kinds.
pub(super) fn names_of(pod: &PodSpec) -> BTreeSet<&str> {
    let all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    all.map(|container| container.name.as_str()).collect()
}

/// Names of a pod's volumes.
pub(super) fn volumes_of(pod: &PodSpec) -> BTreeSet<&str> {
    let volumes = pod.volumes.iter().flatten();
    volumes.map(|volume| volume.name.as_str()).collect()
}

/// Names of a pod's pull secrets.
pub(super) fn pull_secrets_of(pod: &PodSpec) -> BTreeSet<&str> {
    let secrets = pod.image_pull_secrets.iter().flatten();
    secrets.map(|secret| secret.name.as_str()).collect()
}
