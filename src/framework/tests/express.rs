use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::session_policy::Framework;

#[test]
fn a_preload_and_where_the_store_is() {
    assert_yaml_snapshot!(World::new(Framework::Express).summary());
}

#[test]
fn options_of_others_are_kept() {
    let ours = "--require /session-operator/agent/preload.cjs";
    let extension = |world: World| world.parts().extend.remove(0);
    let of_image =
        extension(World::new(Framework::Express).fact("env.NODE_OPTIONS", "--max-old-space-size=64"));
    assert_eq!(of_image.when_unset, format!("{ours} --max-old-space-size=64"));
    assert_eq!(of_image.when_set, format!("{ours} $(NODE_OPTIONS)"));
    let empty = extension(
        World::new(Framework::Express)
            .fact("env.NODE_OPTIONS", "")
            .container("{name: app, env: [{name: NODE_OPTIONS, value: ''}]}"),
    );
    assert_eq!((empty.when_set.as_str(), empty.when_unset.as_str()), (ours, ours));
}
