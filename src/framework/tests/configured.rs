//! Frameworks whose own configuration reads variables.

use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;

const ALL: [Framework; 10] = [
    Framework::Generic,
    Framework::Php,
    Framework::Django,
    Framework::Flask,
    Framework::Rails,
    Framework::Express,
    Framework::Spring,
    Framework::Tomcat,
    Framework::Laravel,
    Framework::Symfony,
];

fn timed(framework: Framework) -> World {
    let mut world = World::new(framework);
    world.ttl_seconds = Some(1801);
    world
}

#[test]
fn flask() {
    assert_yaml_snapshot!(timed(Framework::Flask).summary());
}

#[test]
fn rails() {
    assert_yaml_snapshot!(timed(Framework::Rails).summary());
}

#[test]
fn spring() {
    assert_yaml_snapshot!(timed(Framework::Spring).summary());
}

#[test]
fn spring_with_a_cluster_of_a_public_authority() {
    let world = World::new(Framework::Spring).endpoint(|endpoint| {
        endpoint.cluster = true;
        endpoint.own_authority = false;
    });
    assert_yaml_snapshot!(world.summary());
}

#[test]
fn laravel() {
    assert_yaml_snapshot!(timed(Framework::Laravel).summary());
}

#[test]
fn laravel_needs_one_server_and_a_place_for_the_authority() {
    let cluster = World::new(Framework::Laravel).endpoint(|endpoint| endpoint.cluster = true);
    assert!(cluster.refused().message.contains("topology Standalone"));
    let taken =
        World::new(Framework::Laravel).container("{name: app, env: [{name: SSL_CERT_FILE, value: /ca.pem}]}");
    assert_eq!(taken.refused().reason, reasons::ENV_CONFLICT);
}

#[test]
fn symfony_has_the_sessions_of_php() {
    let facts = |framework| World::new(framework).fact("redis", "6.2.0").summary();
    assert_eq!(facts(Framework::Symfony), facts(Framework::Php));
}

#[test]
fn generic_adds_nothing() {
    assert_eq!(
        World::new(Framework::Generic).parts(),
        crate::framework::Parts::default()
    );
}

/// Whatever is in `parts` can be read in the cluster by whoever may read SessionInjections.
#[test]
fn nothing_secret_is_in_what_is_added() {
    for framework in ALL {
        let world = World::new(framework)
            .fact("base", "/base")
            .fact("hosts", "conf/Catalina/localhost")
            .fact("settings", "shop.settings");
        let parts = format!("{:?}", world.parts());
        for secret in [super::fixture::PASSWORD, "p%40s"] {
            assert!(!parts.contains(secret), "{framework:?}: {parts}");
        }
    }
}

#[test]
fn every_framework_has_its_preset() {
    for framework in ALL {
        assert_eq!(crate::framework::preset(framework).framework(), framework);
    }
}

/// A key of the Service Binding specification would be overwritten.
#[test]
fn keys_are_valid_and_none_of_the_specification() {
    for framework in ALL {
        for key in World::new(framework).keys().into_keys() {
            let valid = key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            assert!(valid, "{framework:?}: {key}");
            let specified = [
                "type", "provider", "host", "port", "username", "password", "uri", "ca.crt",
            ];
            assert!(!specified.contains(&key.as_str()), "{framework:?}: {key}");
        }
    }
}
