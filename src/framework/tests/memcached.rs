//! Presets with a store of engine Memcached.

use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;
use crate::framework::{preset, unsuitable};

fn world(framework: Framework) -> World {
    World::new(framework).endpoint(|endpoint| {
        endpoint.engine = Engine::Memcached;
        endpoint.port = 11211;
        endpoint.tls = false;
        endpoint.own_authority = false;
        endpoint.username = None;
        endpoint.password = None;
    })
}

#[test]
fn php() {
    let mut world = world(Framework::Php).fact("memcached", "3.2.0");
    world.ttl_seconds = Some(1440);
    assert_yaml_snapshot!(world.summary());
}

#[test]
fn django() {
    assert_yaml_snapshot!(
        world(Framework::Django)
            .fact("settings", "library.settings")
            .summary()
    );
}

#[test]
fn express() {
    assert_yaml_snapshot!(world(Framework::Express).summary());
}

#[test]
fn presets_that_do_not_speak_it_name_the_way_out() {
    for (framework, speaks) in [
        (Framework::Generic, true),
        (Framework::Php, true),
        (Framework::Symfony, true),
        (Framework::Django, true),
        (Framework::Express, true),
        (Framework::Flask, false),
        (Framework::Rails, false),
        (Framework::Spring, false),
        (Framework::Tomcat, false),
        (Framework::Laravel, false),
    ] {
        let refusal = unsuitable(preset(framework), Engine::Memcached, false);
        assert_eq!(refusal.is_none(), speaks, "{framework:?}: {refusal:?}");
        if let Some(refusal) = refusal {
            assert_eq!(refusal.reason, reasons::HANDLER_MISSING);
            assert!(refusal.message.contains("engine Valkey"), "{}", refusal.message);
        }
        assert_eq!(unsuitable(preset(framework), Engine::Redis, false), None);
    }
}

#[test]
fn who_does_not_speak_to_shards_is_told_so() {
    for (framework, speaks) in [
        (Framework::Generic, true),
        (Framework::Php, true),
        (Framework::Symfony, true),
        (Framework::Spring, true),
        (Framework::Django, false),
        (Framework::Express, false),
        (Framework::Flask, false),
        (Framework::Rails, false),
        (Framework::Tomcat, false),
        (Framework::Laravel, false),
    ] {
        let refusal = unsuitable(preset(framework), Engine::Valkey, true);
        assert_eq!(refusal.is_none(), speaks, "{framework:?}: {refusal:?}");
        if let Some(refusal) = refusal {
            assert_eq!(refusal.reason, reasons::HANDLER_MISSING);
            let message = refusal.message;
            assert!(
                message.contains(&format!("{framework:?}")) && message.contains("topology Replicated"),
                "{message}"
            );
        }
    }
}
