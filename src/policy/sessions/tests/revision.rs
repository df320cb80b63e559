use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::{policy, target};
use crate::api::conditions::reasons;
use crate::api::session_policy::{Framework, Injection, Rollout};
use crate::api::session_store::Engine;
use crate::api::{INPUTS_ANNOTATION, SessionInjection};
use crate::framework::{Endpoint, Facts, preset};
use crate::policy::sessions::Trouble;
use crate::policy::sessions::moving::Place;
use crate::policy::sessions::revision::{Choice, Images, Known, Wanted, build, choose, rolled_back};
use crate::policy::validate::{Kept, SessionsWish};

/// Everything that a revision is made of.
struct World {
    container: Container,
    wish: SessionsWish,
    endpoint: Endpoint,
    binding_version: String,
    images: Images,
}

impl World {
    fn new() -> Self {
        Self {
            container: container(&json!({})),
            wish: SessionsWish {
                kept: Kept::Shared(serde_json::from_value(json!({"store": {}})).unwrap()),
                otherwise: None,
                client: serde_json::from_value(json!({"framework": "PHP"})).unwrap(),
                ttl_seconds: None,
                rollout: Rollout::Automatic,
                accepted: None,
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
                password: None,
                key_prefix: "shop".to_owned(),
            },
            binding_version: "17".to_owned(),
            images: Images {
                agents: "agents:1".to_owned(),
                replicator: "replicator:1".to_owned(),
                pull_policy: None,
                pull_secrets: Vec::new(),
            },
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new();
        change(&mut world);
        world
    }

    fn build(&self) -> Result<Wanted, Trouble> {
        self.build_with(Framework::Php)
    }

    fn build_with(&self, framework: Framework) -> Result<Wanted, Trouble> {
        build(&Known {
            policy: &policy(target(&json!({}))),
            wish: &self.wish,
            preset: preset(framework),
            containers: &[(&self.container, Facts::new())],
            endpoint: &self.endpoint,
            place: Place::Store,
            binding: "shop-session",
            binding_version: &self.binding_version,
            credentials: None,
            images: &self.images,
            sidecar: None,
        })
    }

    fn wanted(&self) -> Wanted {
        self.build().unwrap()
    }
}

fn container(more: &Value) -> Container {
    let mut value = json!({"name": "php", "image": "shop:1"});
    for (key, more) in more.as_object().unwrap() {
        value[key] = more.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn standing(wanted: &Wanted) -> SessionInjection {
    let mut injection = SessionInjection::new(&wanted.name, wanted.spec.clone());
    injection.metadata.annotations = Some([(INPUTS_ANNOTATION.to_owned(), wanted.inputs.clone())].into());
    injection
}

#[test]
fn equal_inputs_give_the_same_name_and_others_another() {
    let first = World::new().wanted();
    assert_eq!(first, World::new().wanted());
    assert!(first.name.starts_with("shop-") && first.name.len() <= 63);
    let others: [fn(&mut World); 5] = [
        |world| world.endpoint.host = "other".to_owned(),
        |world| world.wish.ttl_seconds = Some(600),
        |world| world.binding_version = "18".to_owned(),
        |world| world.images.agents = "agents:2".to_owned(),
        |world| {
            world.wish.client.env = serde_json::from_value(json!([{"name": "URL", "key": "uri"}])).unwrap();
        },
    ];
    for other in others {
        assert_ne!(World::with(other).wanted().name, first.name);
    }
}

#[test]
fn nothing_secret_and_no_token_is_in_it() {
    let wanted = World::with(|world| {
        world.wish.client.env = serde_json::from_value(json!([{"name": "URL", "key": "uri"}])).unwrap();
    })
    .wanted();
    for container in &wanted.spec.containers {
        for variable in &container.env {
            let bound = variable
                .value_from
                .as_ref()
                .and_then(|from| from.secret_key_ref.as_ref());
            assert!(
                bound.is_none_or(|bound| bound.name == "shop-session"),
                "{variable:?}"
            );
        }
    }
    let installer = &wanted.spec.init_containers[0];
    let hides_token = installer
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| mount.mount_path == "/var/run/secrets/kubernetes.io/serviceaccount");
    assert!(
        hides_token,
        "the injected container would get the application's token"
    );
    let resources = installer.resources.as_ref().unwrap();
    assert_eq!(resources.requests, resources.limits, "a Guaranteed pod stays one");
    let context = installer.security_context.as_ref().unwrap();
    assert_eq!((context.run_as_non_root, context.run_as_user), (Some(true), None));
}

#[test]
fn an_injected_image_brings_its_pull_secrets() {
    let named = World::with(|world| world.images.pull_secrets = vec!["mirror".to_owned()]).wanted();
    let secrets = named.spec.image_pull_secrets.iter();
    assert_eq!(
        secrets.map(|secret| secret.name.as_str()).collect::<Vec<_>>(),
        ["mirror"]
    );
    assert_eq!(
        named.inputs,
        World::new().wanted().inputs,
        "a value of the chart rolls nothing"
    );
    let nothing_injected = World::with(|world| world.images.pull_secrets = vec!["mirror".to_owned()]);
    let generic = nothing_injected.build_with(Framework::Generic).unwrap();
    assert!(generic.spec.init_containers.is_empty() && generic.spec.image_pull_secrets.is_empty());
}

#[test]
fn a_variable_that_the_container_defines_is_left_alone() {
    let world = World::with(|world| {
        world.container = container(&json!({"env": [{"name": "URL", "value": "mine"}]}));
        world.wish.client.env = serde_json::from_value(json!([{"name": "URL", "key": "uri"}])).unwrap();
    });
    let trouble = world.build().unwrap_err();
    assert_eq!(trouble.reason, reasons::ENV_CONFLICT);
    assert!(
        trouble.message.contains("container php") && trouble.message.contains("URL"),
        "{}",
        trouble.message
    );
}

#[test]
fn a_newer_operator_alone_replaces_no_pods() {
    let old = standing(&World::new().wanted());
    let newer = World::with(|world| world.images.agents = "agents:2".to_owned()).wanted();
    let offered = Choice::Keep {
        next: Some(newer.name.clone()),
    };
    assert_eq!(choose(&newer, Some(&old), Rollout::Automatic, None), offered);
    assert_eq!(choose(&newer, Some(&old), Rollout::Manual, None), offered);
    let accepted = Some(newer.name.as_str());
    assert_eq!(
        choose(&newer, Some(&old), Rollout::Automatic, accepted),
        Choice::Take
    );
    // Something else changes, too: the pods are replaced anyway.
    let both = World::with(|world| {
        world.images.agents = "agents:2".to_owned();
        world.wish.ttl_seconds = Some(600);
    })
    .wanted();
    assert_eq!(choose(&both, Some(&old), Rollout::Automatic, None), Choice::Take);
}

#[test]
fn under_manual_every_revision_waits_for_a_person() {
    let wanted = World::new().wanted();
    assert_eq!(choose(&wanted, None, Rollout::Automatic, None), Choice::Take);
    assert_eq!(choose(&wanted, None, Rollout::Manual, None), Choice::Wait);
    assert_eq!(
        choose(&wanted, None, Rollout::Manual, Some("shop-other")),
        Choice::Wait
    );
    assert_eq!(
        choose(&wanted, None, Rollout::Manual, Some(&wanted.name)),
        Choice::Take
    );
    let old = standing(&World::with(|world| world.wish.ttl_seconds = Some(60)).wanted());
    assert!(matches!(
        choose(&wanted, Some(&old), Rollout::Manual, None),
        Choice::Keep { next: Some(_) }
    ));
    assert_eq!(
        choose(&wanted, Some(&standing(&wanted)), Rollout::Manual, None),
        Choice::Keep { next: None }
    );
}

#[test]
fn a_rollback_by_the_owner_stands_until_something_changes() {
    let wanted = World::new().wanted();
    let status = |value: Value| -> Injection {
        let mut full = json!({"injectedPods": 3, "totalPods": 3, "updateAvailable": false});
        for (key, value) in value.as_object().unwrap() {
            full[key] = value.clone();
        }
        serde_json::from_value(full).unwrap()
    };
    let was_there = status(json!({"revision": wanted.name}));
    let old = Some("shop-old");
    // The template named the wanted revision, and names an older one now.
    assert_eq!(
        rolled_back(&wanted, Some(&was_there), old, None),
        Some(String::new())
    );
    let since = status(json!({"revision": "shop-old", "nextRevision": wanted.name, "rolledBackAt": ""}));
    assert_eq!(rolled_back(&wanted, Some(&since), old, None), Some(String::new()));
    // A person accepts the newer one, or the policy changes, or the template names it again.
    let accepted = format!("{} at 2026-01-01T00:00:00Z", wanted.name);
    assert_eq!(rolled_back(&wanted, Some(&since), old, Some(&accepted)), None);
    assert_eq!(
        choose(
            &wanted,
            Some(&standing(&other())),
            Rollout::Manual,
            Some(&accepted)
        ),
        Choice::Take
    );
    assert_eq!(rolled_back(&other(), Some(&since), old, None), None);
    assert_eq!(rolled_back(&wanted, Some(&since), Some(&wanted.name), None), None);
    // The acceptance that was there before the rollback does not count again.
    let after =
        status(json!({"revision": "shop-old", "nextRevision": wanted.name, "rolledBackAt": accepted}));
    assert_eq!(
        rolled_back(&wanted, Some(&after), old, Some(&accepted)),
        Some(accepted.clone())
    );
    // No rollback: a mark that was never another one.
    let never = status(json!({"revision": "shop-old"}));
    assert_eq!(rolled_back(&wanted, Some(&never), old, None), None);
}

fn other() -> Wanted {
    World::with(|world| world.wish.ttl_seconds = Some(600)).wanted()
}
