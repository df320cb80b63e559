//! A container, a store and facts to begin with, and what a preset makes of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Volume};
use serde_json::{Value, json};

use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;
use crate::framework::{Endpoint, Facts, Parts, Preset, Refusal, Subject, preset};

/// A password with everything in it that has a meaning somewhere.
pub const PASSWORD: &str = "p@s$:w/o?r d#&=%\"'\\{}";

pub struct World {
    pub container: Container,
    pub endpoint: Endpoint,
    pub facts: Facts,
    pub volumes: Vec<Volume>,
    pub ttl_seconds: Option<i32>,
    pub settings_module: Option<String>,
    framework: Framework,
}

impl World {
    /// A container without variables, a store with TLS, an authority and a user of its own, and no facts.
    pub fn new(framework: Framework) -> Self {
        Self {
            container: Container {
                name: "app".to_owned(),
                ..Container::default()
            },
            endpoint: Endpoint {
                engine: Engine::Valkey,
                cluster: false,
                host: "sessions.web.svc".to_owned(),
                members: Vec::new(),
                port: 6379,
                tls: true,
                own_authority: true,
                username: Some("shop".to_owned()),
                password: Some(PASSWORD.to_owned()),
                key_prefix: "shop".to_owned(),
            },
            facts: Facts::new(),
            volumes: Vec::new(),
            ttl_seconds: None,
            settings_module: None,
            framework,
        }
    }

    pub fn container(mut self, yaml: &str) -> Self {
        self.container = serde_saphyr::from_str(yaml).expect("a container");
        self
    }

    pub fn fact(mut self, name: &str, value: &str) -> Self {
        self.facts.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn endpoint(mut self, change: impl FnOnce(&mut Endpoint)) -> Self {
        change(&mut self.endpoint);
        self
    }

    pub fn preset(&self) -> &'static dyn Preset {
        preset(self.framework)
    }

    pub fn keys(&self) -> BTreeMap<String, String> {
        self.preset().binding_keys(&self.endpoint, self.ttl_seconds)
    }

    pub fn result(&self) -> Result<Parts, Refusal> {
        let shown = Endpoint {
            password: None,
            ..self.endpoint.clone()
        };
        self.preset().parts(&Subject {
            container: &self.container,
            volumes: &self.volumes,
            ttl_seconds: self.ttl_seconds,
            binding: "shop-session",
            endpoint: &shown,
            facts: &self.facts,
            settings_module: self.settings_module.as_deref(),
        })
    }

    pub fn parts(&self) -> Parts {
        self.result()
            .unwrap_or_else(|refusal| panic!("{}", refusal.message))
    }

    pub fn refused(&self) -> Refusal {
        self.result().expect_err("a refusal")
    }

    /// Parts and keys, for snapshots.
    pub fn summary(&self) -> Value {
        let parts = self.parts();
        let env: BTreeMap<_, _> = parts
            .env
            .iter()
            .map(|variable| {
                let reference = variable
                    .value_from
                    .as_ref()
                    .and_then(|from| from.secret_key_ref.as_ref());
                let value = match reference {
                    Some(reference) => {
                        let optional = reference.optional.unwrap_or(false);
                        let if_there = if optional { ", if there" } else { "" };
                        format!("secret {}, key {}{if_there}", reference.name, reference.key)
                    }
                    None => variable.value.clone().unwrap_or_default(),
                };
                (variable.name.clone(), value)
            })
            .collect();
        assert_eq!(env.len(), parts.env.len(), "each variable once");
        json!({
            "keys": self.keys(),
            "agent": parts.agent,
            "env": env,
            "extend": parts.extend,
            "mounts": parts.mounts,
        })
    }
}
