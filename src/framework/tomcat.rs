//! Servlets on Apache Tomcat 10.1, by a session manager of ours that keeps nothing in the process.
//!
//! `context.xml.default` of a host acts on each of its applications that names no manager of its own, without a change of
//! `server.xml` or `context.xml`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::VolumeMount;

use super::variables::connection;
use super::{AGENT_VOLUME, Endpoint, Parts, Preflight, Preset, Refusal, Subject, preflight};
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// The session manager, in Tomcat's `lib`.
const JAR: &str = "session-operator-tomcat.jar";

/// What names the session manager, in the folder of each host.
const CONTEXT: &str = "context.xml.default";

/// The preset.
#[derive(Debug)]
pub struct Tomcat;

impl Preset for Tomcat {
    fn framework(&self) -> Framework {
        Framework::Tomcat
    }

    fn preflight(&self, _: Engine, _: Option<&str>) -> Option<Preflight> {
        Some(preflight::tomcat())
    }

    fn binding_keys(&self, _: &Endpoint, _: Option<i32>) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal> {
        let fact = |name: &str| subject.facts.get(name).map(String::as_str);
        let (Some(base), Some(hosts)) = (fact("base"), fact("hosts")) else {
            return Err(Refusal {
                reason: reasons::PREFLIGHT_FAILED,
                message: format!(
                    "container {}: the preflight does not say where Tomcat keeps its configuration",
                    subject.container.name
                ),
            });
        };
        let base = base.trim_end_matches('/');
        let mut mounts = vec![mount(format!("{base}/lib/{JAR}"), JAR)];
        for host in hosts.split_whitespace() {
            mounts.push(mount(format!("{base}/{host}/{CONTEXT}"), CONTEXT));
        }
        refuse_inside_of_volumes(subject, &mounts)?;
        Ok(Parts {
            env: connection(subject),
            extend: Vec::new(),
            mounts,
            agent: Some("tomcat"),
        })
    }
}

fn mount(path: String, file: &str) -> VolumeMount {
    VolumeMount {
        name: AGENT_VOLUME.to_owned(),
        mount_path: path,
        sub_path: Some(file.to_owned()),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// No file can be mounted into a volume that is read-only, such as a ConfigMap: the container would not start.
fn refuse_inside_of_volumes(subject: &Subject<'_>, mounts: &[VolumeMount]) -> Result<(), Refusal> {
    for taken in subject.container.volume_mounts.iter().flatten() {
        let at = taken.mount_path.trim_end_matches('/');
        let inside = mounts
            .iter()
            .find(|mount| mount.mount_path.starts_with(&format!("{at}/")));
        if let Some(mount) = inside
            && (taken.read_only == Some(true) || is_read_only(subject, &taken.name))
        {
            return Err(Refusal {
                reason: reasons::HANDLER_MISSING,
                message: format!(
                    "container {}: volume {} is mounted read-only at {at}, where {} has to be added; mount its files one by one \
                     by subPath (for example {at}/server.xml)",
                    subject.container.name, taken.name, mount.mount_path,
                ),
            });
        }
    }
    Ok(())
}

/// Volumes that the kubelet fills are mounted read-only whatever the container says.
fn is_read_only(subject: &Subject<'_>, volume: &str) -> bool {
    subject.volumes.iter().any(|candidate| {
        candidate.name == volume
            && (candidate.config_map.is_some()
                || candidate.secret.is_some()
                || candidate.projected.is_some()
                || candidate.downward_api.is_some()
                || candidate.image.is_some())
    })
}
