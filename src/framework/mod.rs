//! Framework presets: how the stock session handler of each framework is pointed at a store.
//!
//! Pure: a preset turns an endpoint and what is known of the container into variables, files and mounts. One file per
//! framework; what runs in the image beforehand is in `preflight/`, and what is brought into it in the folder `agents`.

mod django;
mod encoding;
mod express;
mod flask;
mod generic;
mod laravel;
mod php;
mod preflight;
mod rails;
mod spring;
mod symfony;
#[cfg(test)]
mod tests;
mod tomcat;
mod variables;

pub use variables::escaped;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Volume, VolumeMount};

use crate::api::conditions::reasons;
use crate::api::session_injection::Extension;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;

/// Folder, in the application's containers, under which everything lies that a preset brings.
pub const ROOT: &str = "/session-operator";

/// Folder with the preset's files from the agents image, mounted read-only.
pub const AGENT_DIR: &str = "/session-operator/agent";

/// The authority of the store's certificate, from the binding Secret. There only where the store has TLS and an
/// authority of its own.
pub const CA_FILE: &str = "/session-operator/binding/ca.crt";

/// Name of the volume that is mounted at [`AGENT_DIR`]; presets use it for further mounts by subPath.
pub const AGENT_VOLUME: &str = "session-operator-agent";

/// A store as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The server.
    pub engine: Engine,
    /// Whether it is a cluster, which clients have to know.
    pub cluster: bool,
    /// DNS name or address.
    pub host: String,
    /// Of a cluster, names of single servers: the host may lead to one that is out of reach.
    pub members: Vec<String>,
    /// Port.
    pub port: u16,
    /// Whether clients talk TLS.
    pub tls: bool,
    /// Whether [`CA_FILE`] is there; else the certificate is checked against the authorities of the image.
    pub own_authority: bool,
    /// User, if not the default one.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// What keys begin with, without the colon after it.
    pub key_prefix: String,
}

impl Endpoint {
    /// Where clients of a cluster begin; they learn the others there.
    pub fn nodes(&self) -> Vec<String> {
        let hosts = std::iter::once(&self.host).chain(&self.members);
        hosts
            .map(|host| format!("{}:{}", encoding::url_host(host), self.port))
            .collect()
    }
}

/// What a preset sees of the container that it is for. No secrets: what it makes of this is readable in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The container, from the pod template.
    pub container: &'a Container,
    /// The volumes of the pod template.
    pub volumes: &'a [Volume],
    /// Idle life of a session in seconds; absent = what the application says.
    pub ttl_seconds: Option<i32>,
    /// Name of the binding Secret, for `secretKeyRef`.
    pub binding: &'a str,
    /// The store, without password.
    pub endpoint: &'a Endpoint,
    /// What the preflight found out.
    pub facts: &'a Facts,
    /// `spec.client.settingsModule` of the policy.
    pub settings_module: Option<&'a str>,
}

/// What a preflight found out in the image, by names that the preset chose.
pub type Facts = BTreeMap<String, String>;

/// What is run once in a container of the target's image, with its environment, before anything is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The command. It ends with status 0 and writes a JSON object to `/dev/termination-log` (at most 4096 bytes):
    /// `{"facts": {…}}` with strings, or `{"missing": "a sentence", "remedy": "a sentence"}`.
    pub command: Vec<String>,
}

/// What is added to one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Variables that nobody else may define. They stand before those of `extend`, so that a value may hold the `$(NAME)`
    /// of one that is replaced there.
    pub env: Vec<EnvVar>,
    /// Variables that are extended, or replaced by something that goes on to what they said.
    pub extend: Vec<Extension>,
    /// Mounts of the agent volume beside [`AGENT_DIR`].
    pub mounts: Vec<VolumeMount>,
    /// Folder of the agents image that is put at [`AGENT_DIR`], if the preset brings files.
    pub agent: Option<&'static str>,
}

/// Why a preset cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A reason of [`crate::api::conditions::reasons`].
    pub reason: &'static str,
    /// A sentence that names the container, what is in the way and the remedy.
    pub message: String,
}

/// The preset of a framework.
pub fn preset(framework: Framework) -> &'static dyn Preset {
    match framework {
        Framework::Generic => &generic::Generic,
        Framework::Php => &php::Php,
        Framework::Django => &django::Django,
        Framework::Flask => &flask::Flask,
        Framework::Rails => &rails::Rails,
        Framework::Express => &express::Express,
        Framework::Spring => &spring::Spring,
        Framework::Tomcat => &tomcat::Tomcat,
        Framework::Laravel => &laravel::Laravel,
        Framework::Symfony => &symfony::Symfony,
    }
}

/// Why a preset is of no use with a store of this engine, or one of ours that has shards, whatever the image has.
pub fn unsuitable(preset: &dyn Preset, engine: Engine, has_shards: bool) -> Option<Refusal> {
    if has_shards && !preset.speaks_cluster() {
        return Some(Refusal {
            reason: reasons::HANDLER_MISSING,
            message: format!(
                "spec.client.framework {:?}: its session handler is not known to speak to a store with shards (topology Cluster); \
                 name a SessionStore with topology Replicated, or, for an application that is to keep its sessions there by its \
                 own configuration, set spec.client.framework to Generic and give it the keys nodes, username and password by \
                 spec.client.env",
                preset.framework()
            ),
        });
    }
    (engine == Engine::Memcached && !preset.speaks_memcached()).then(|| Refusal {
        reason: reasons::HANDLER_MISSING,
        message: format!(
            "spec.client.framework {:?}: its session handler does not speak to a store of engine Memcached; name a SessionStore \
             with engine Valkey, or, for an application that is to keep its sessions there by its own configuration, set \
             spec.client.framework to Generic and give it the keys host and port by spec.client.env",
            preset.framework()
        ),
    })
}

/// A framework's preset.
pub trait Preset: Sync {
    /// The framework.
    fn framework(&self) -> Framework;

    /// Whether the framework's session handler speaks to Memcached, too.
    fn speaks_memcached(&self) -> bool {
        false
    }

    /// Whether the framework's session handler, as it comes, speaks to a store with shards.
    fn speaks_cluster(&self) -> bool {
        false
    }

    /// What is looked at in the image first, for a store of this engine; `settings_module` is `spec.client.settingsModule` of
    /// the policy. `None`: nothing has to be known.
    fn preflight(&self, engine: Engine, settings_module: Option<&str>) -> Option<Preflight>;

    /// Keys that the binding Secret has beside those of the Service Binding specification, for values with a password in
    /// them.
    fn binding_keys(&self, endpoint: &Endpoint, ttl_seconds: Option<i32>) -> BTreeMap<String, String>;

    /// What is added to the container.
    fn parts(&self, subject: &Subject<'_>) -> Result<Parts, Refusal>;
}
