//! What admission adds to the pods, and which revision of it the pod template is to name. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath, LocalObjectReference,
    ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::moving::Place;
use super::names;
use super::sidecar::{Sidecar, UNREADY_SECONDS};
use super::{Trouble, binding};
use crate::api::conditions::reasons;
use crate::api::session_injection::{ContainerInjection, PolicyReference};
use crate::api::session_policy::{BindingVariable, Injection, Rollout};
use crate::api::{INPUTS_ANNOTATION, SessionInjection, SessionInjectionSpec};
use crate::framework::{AGENT_DIR, AGENT_VOLUME, CA_FILE, Endpoint, Facts, Parts, Preset, Subject};
use crate::policy::validate::{SessionsWish, Validated};

/// Volume with the store's authority.
const BINDING_VOLUME: &str = "session-operator-binding";

/// Empty volume that hides the ServiceAccount's token from what is injected.
const NO_TOKEN_VOLUME: &str = "session-operator-no-token";

/// Where the ServiceAccount admission plugin mounts the token, unless something is mounted there already.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Space for the files of a preset.
const AGENT_SPACE: &str = "128Mi";

/// Images that are injected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The agents image.
    pub agents: String,
    /// The replicator's image.
    pub replicator: String,
    /// Its pull policy; absent = the API server's default.
    pub pull_policy: Option<String>,
    /// Names of the Secrets with its credentials, in the namespace of each application.
    pub pull_secrets: Vec<String>,
}

/// A revision as it would be made now.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Name of the SessionInjection.
    pub name: String,
    /// Where its pods keep their sessions.
    pub place: Place,
    /// Hash of what it is made from.
    pub inputs: String,
    /// Which credentials of a SessionStore its pods are started with.
    pub credentials: Option<String>,
    /// Its contents.
    pub spec: SessionInjectionSpec,
}

/// What is known when a revision is built.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The policy.
    pub policy: &'a Validated,
    /// Its wish.
    pub wish: &'a SessionsWish,
    /// The preset.
    pub preset: &'a dyn Preset,
    /// The containers, each with what the preflight found out.
    pub containers: &'a [(&'a Container, Facts)],
    /// The store, without password.
    pub endpoint: &'a Endpoint,
    /// Where its pods keep their sessions.
    pub place: Place,
    /// The binding Secret.
    pub binding: &'a str,
    /// resourceVersion of the binding Secret: a container sees its contents only when it starts.
    pub binding_version: &'a str,
    /// Which credentials of a SessionStore it holds.
    pub credentials: Option<&'a str>,
    /// Images.
    pub images: &'a Images,
    /// The sidecar, if sessions are in the pods.
    pub sidecar: Option<&'a Sidecar<'a>>,
}

/// Builds the revision.
pub fn build(known: &Known<'_>) -> Result<Wanted, Trouble> {
    let secret = known.binding;
    let template = known
        .policy
        .target
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let volumes = template
        .and_then(|pod| pod.volumes.as_deref())
        .unwrap_or_default();
    let mut containers = Vec::with_capacity(known.containers.len());
    let mut agent = None;
    for (container, facts) in known.containers {
        let parts = known.preset.parts(&Subject {
            container,
            volumes,
            ttl_seconds: known.wish.ttl_seconds,
            settings_module: known.wish.client.settings_module.as_deref(),
            binding: secret,
            endpoint: known.endpoint,
            facts,
        })?;
        agent = agent.or(parts.agent);
        containers.push(contained(container, parts, known, secret)?);
    }
    let mut volumes = Vec::new();
    if known.endpoint.own_authority {
        volumes.push(authority(secret));
    }
    let mut init_containers = Vec::new();
    if let Some(folder) = agent {
        volumes.push(empty(AGENT_VOLUME, AGENT_SPACE));
        init_containers.push(installer(folder, known.images));
    }
    if let Some(sidecar) = known.sidecar {
        volumes.extend(sidecar.volumes());
        init_containers.push(sidecar.container());
    }
    if !init_containers.is_empty() {
        volumes.push(no_token_volume());
    }
    let spec = SessionInjectionSpec {
        policy: PolicyReference {
            name: known.policy.name.clone(),
            uid: known.policy.uid.clone(),
        },
        containers,
        volumes,
        image_pull_secrets: pull_secrets(!init_containers.is_empty(), known.images),
        init_containers,
    };
    let inputs = inputs(known);
    Ok(Wanted {
        name: format!("{}-{}", known.policy.name, names::digest(&(&inputs, &spec))),
        place: known.place,
        inputs,
        credentials: known.credentials.map(str::to_owned),
        spec,
    })
}

/// A hash of all that comes from the policy, the store and the target, and nothing that comes from the operator's own
/// version.
fn inputs(known: &Known<'_>) -> String {
    let endpoint = known.endpoint;
    let facts: BTreeMap<&str, &Facts> = known
        .containers
        .iter()
        .map(|(container, facts)| (container.name.as_str(), facts))
        .collect();
    names::digest(&(
        (known.wish.client.framework, &known.wish.client.env),
        (&known.wish.client.settings_module, known.wish.ttl_seconds),
        (
            &endpoint.host,
            endpoint.port,
            endpoint.tls,
            endpoint.own_authority,
        ),
        (
            endpoint.engine,
            endpoint.cluster,
            &endpoint.username,
            &endpoint.key_prefix,
        ),
        facts,
        known.binding_version,
        known.sidecar.map(|sidecar| {
            (
                sidecar.wish,
                sidecar.bound_to_pods,
                sidecar.drain_seconds,
                &sidecar.upstream,
            )
        }),
    ))
}

fn contained(
    container: &Container,
    parts: Parts,
    known: &Known<'_>,
    secret: &str,
) -> Result<ContainerInjection, Trouble> {
    let mut env = parts.env;
    env.extend(
        known
            .wish
            .client
            .env
            .iter()
            .map(|variable| from_binding(variable, secret)),
    );
    for variable in &env {
        let theirs = container
            .env
            .iter()
            .flatten()
            .any(|own| own.name == variable.name);
        if theirs {
            return Err(Trouble::new(
                reasons::ENV_CONFLICT,
                format!(
                    "container {} of Deployment {} defines {} itself; remove it there, so that the policy can set it",
                    container.name,
                    known.policy.target_name(),
                    variable.name
                ),
            ));
        }
    }
    let mut volume_mounts = parts.mounts;
    if parts.agent.is_some() {
        volume_mounts.push(mount(AGENT_VOLUME, AGENT_DIR));
    }
    if known.sidecar.is_some() {
        volume_mounts.push(Sidecar::application_mount());
    }
    if known.endpoint.own_authority {
        let folder = CA_FILE.trim_end_matches("/ca.crt");
        volume_mounts.push(mount(BINDING_VOLUME, folder));
    }
    Ok(ContainerInjection {
        name: container.name.clone(),
        env,
        extend: parts.extend,
        // As long as the sidecar keeps users, and then until every proxy knows that the pod is not ready any more.
        pre_stop_sleep_seconds: known
            .sidecar
            .map(|sidecar| i64::from(sidecar.drain_seconds) + UNREADY_SECONDS + 1),
        volume_mounts,
    })
}

fn from_binding(variable: &BindingVariable, secret: &str) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: variable.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// What an injected container may do: nothing beyond its own process. No user is set: the images have a numeric one, and
/// OpenShift gives each namespace its own.
pub fn restricted() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

/// The volume of [`without_token`].
pub(super) fn no_token_volume() -> Volume {
    empty(NO_TOKEN_VOLUME, "1Mi")
}

/// Hides the ServiceAccount's token from an injected container.
pub fn without_token() -> VolumeMount {
    mount(NO_TOKEN_VOLUME, TOKEN_DIR)
}

fn authority(secret: &str) -> Volume {
    Volume {
        name: BINDING_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(vec![KeyToPath {
                key: binding::CA_KEY.to_owned(),
                path: binding::CA_KEY.to_owned(),
                mode: None,
            }]),
            default_mode: Some(0o444),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn empty(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What pulling the injected images needs; nothing where none is injected.
pub(super) fn pull_secrets(injects_image: bool, images: &Images) -> Vec<LocalObjectReference> {
    let names = images.pull_secrets.iter().filter(|_| injects_image);
    names
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect()
}

/// The init container that copies a preset's files. Requests equal limits, so that a Guaranteed pod stays one.
fn installer(folder: &str, images: &Images) -> Container {
    let amounts: BTreeMap<String, Quantity> = [("cpu", "100m"), ("memory", "32Mi")]
        .map(|(resource, amount)| (resource.to_owned(), Quantity(amount.to_owned())))
        .into();
    Container {
        name: AGENT_VOLUME.to_owned(),
        image: Some(images.agents.clone()),
        image_pull_policy: images.pull_policy.clone(),
        command: Some(
            ["/session-agents", "install", folder, AGENT_DIR]
                .map(str::to_owned)
                .into(),
        ),
        resources: Some(ResourceRequirements {
            requests: Some(amounts.clone()),
            limits: Some(amounts),
            ..ResourceRequirements::default()
        }),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            VolumeMount {
                read_only: None,
                ..mount(AGENT_VOLUME, AGENT_DIR)
            },
            without_token(),
        ]),
        ..Container::default()
    }
}

/// The revision that a value of the annotation `session-operator.dev/rollout` accepts: its first word. What follows tells
/// one command from the next.
fn revision_of(accepted: &str) -> &str {
    accepted.split_whitespace().next().unwrap_or_default()
}

/// Whether the owner has rolled the target back: the template names an older revision although the wanted one was there.
/// Gives the value of the annotation that does not count any more.
///
/// `former` is the status before, `mark` the revision that the template names.
pub fn rolled_back(
    wanted: &Wanted,
    former: Option<&Injection>,
    mark: Option<&str>,
    accepted: Option<&str>,
) -> Option<String> {
    let (former, mark) = (former?, mark?);
    let was = former.revision.as_deref()?;
    if mark == wanted.name {
        return None;
    }
    if was == wanted.name {
        return Some(accepted.unwrap_or_default().to_owned());
    }
    let since = former.rolled_back_at.as_ref()?;
    let same = was == mark
        && former.next_revision.as_deref() == Some(wanted.name.as_str())
        && accepted.unwrap_or_default() == since;
    same.then(|| since.clone())
}

/// Which revision the template is to name.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The one that it names.
    Keep {
        /// Name of the revision that a rollout would bring, if there is another one.
        next: Option<String>,
    },
    /// The wanted one.
    Take,
    /// The wanted one waits for a person.
    Wait,
}

/// Chooses between what the template names and what would be made now.
///
/// A change of the operator alone (its images, its presets) replaces no pods: it is offered, and taken when a person
/// accepts it or when something else changes, too.
pub fn choose(
    wanted: &Wanted,
    current: Option<&SessionInjection>,
    rollout: Rollout,
    accepted: Option<&str>,
) -> Choice {
    let is_accepted = accepted.is_some_and(|accepted| revision_of(accepted) == wanted.name);
    let Some(current) = current else {
        return match rollout {
            Rollout::Automatic => Choice::Take,
            Rollout::Manual if is_accepted => Choice::Take,
            Rollout::Manual => Choice::Wait,
        };
    };
    let annotations = current.metadata.annotations.as_ref();
    let inputs = annotations.and_then(|annotations| annotations.get(INPUTS_ANNOTATION));
    let same_name = current.metadata.name.as_deref() == Some(wanted.name.as_str());
    if same_name || (current.spec == wanted.spec && inputs == Some(&wanted.inputs)) {
        return Choice::Keep { next: None };
    }
    let operator_alone = inputs == Some(&wanted.inputs);
    if is_accepted || (rollout == Rollout::Automatic && !operator_alone) {
        return Choice::Take;
    }
    Choice::Keep {
        next: Some(wanted.name.clone()),
    }
}
