use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;

fn world() -> World {
    World::new(Framework::Django).fact("settings", "library.settings")
}

fn application(world: &World) -> String {
    let env = world.parts().env;
    let variable = env
        .iter()
        .find(|variable| variable.name == "SESSION_OPERATOR_DJANGO_SETTINGS");
    variable
        .and_then(|variable| variable.value.clone())
        .expect("the variable")
}

#[test]
fn settings_of_ours_before_those_of_the_application() {
    let mut world = world();
    world.ttl_seconds = Some(1800);
    assert_yaml_snapshot!(world.summary());
}

/// The variable wins over manage.py and wsgi.py, which set a default only.
#[test]
fn the_name_of_the_application_s_settings_is_the_one_in_force() {
    assert_eq!(application(&world()), "library.settings");
    let mut given = world();
    given.settings_module = Some("library.production".to_owned());
    assert_eq!(application(&given), "library.production");
    let given = given.fact("env.DJANGO_SETTINGS_MODULE", "of.image");
    assert_eq!(application(&given), "of.image");
    let given = given.container("{name: app, env: [{name: DJANGO_SETTINGS_MODULE, value: of.container}]}");
    assert_eq!(
        application(&given),
        "$(DJANGO_SETTINGS_MODULE)",
        "a later change of the template needs no new revision"
    );
    assert_eq!(given.parts().extend[1].when_set, "session_operator_settings");
}

#[test]
fn without_a_name_nothing_is_guessed() {
    let refusal = World::new(Framework::Django).refused();
    assert_eq!(refusal.reason, reasons::HANDLER_MISSING);
    assert!(
        refusal.message.contains("spec.client.settingsModule"),
        "{}",
        refusal.message
    );
}

#[test]
fn a_cluster_is_refused() {
    let refusal = world().endpoint(|endpoint| endpoint.cluster = true).refused();
    assert!(
        refusal.message.contains("topology Standalone"),
        "{}",
        refusal.message
    );
}
