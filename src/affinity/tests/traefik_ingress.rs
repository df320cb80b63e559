use insta::assert_debug_snapshot;

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World};

#[test]
fn the_service_and_not_the_ingress_is_annotated() {
    let plan = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]).plan();
    assert_debug_snapshot!(plan);
}
