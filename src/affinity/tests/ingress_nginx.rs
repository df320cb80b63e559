use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, NGINX_CLASS, SERVICE, World, applied, configured, summary};
use crate::api::Binds;
use crate::api::conditions::reasons;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

fn annotated(annotations: &str) -> String {
    let prefixed = annotations.replace('@', PREFIX);
    INGRESS.replace("uid: i-1}", &format!("uid: i-1, annotations: {{{prefixed}}}}}"))
}

fn with_other_backend() -> String {
    INGRESS.replace(
        "http: {paths: [",
        "http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}, ",
    )
}

#[test]
fn the_class_alone_gets_the_common_subset_and_a_note() {
    assert_yaml_snapshot!(summary(&World::new(&[SERVICE, NGINX_CLASS, INGRESS]).plan()));
}

#[test]
fn every_wished_attribute_is_written() {
    let world = World::new(&[SERVICE, NGINX_CLASS, INGRESS]).sticky(
        "{controller: IngressNginx, cookie: {name: SHOPID, path: /shop, maxAgeSeconds: 3600, secure: true, \
         httpOnly: false, sameSite: None, domain: shop.example}}",
    );
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn client_addresses_are_hashed() {
    let world =
        World::new(&[SERVICE, NGINX_CLASS, INGRESS]).sticky("{controller: IngressNginx, mode: ClientIP}");
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn where_traefik_may_read_it_the_hash_uses_what_traefik_knows() {
    for controller in ["Auto", "Traefik"] {
        let world = World::new(&[SERVICE, NGINX_CLASS, INGRESS])
            .sticky(&format!("{{controller: {controller}, mode: ClientIP}}"));
        let configured = world.configured();
        let annotations = &applied(&configured)["metadata"]["annotations"];
        assert_eq!(annotations[format!("{PREFIX}upstream-hash-by")], "$remote_addr");
        assert_eq!(configured.binds, Binds::Hash);
        assert!(
            !configured.keeps_terminating_pods,
            "hashing leaves terminating pods out"
        );
    }
}

/// Traefik's provider keeps terminating pods, ingress-nginx does not: only a named controller decides.
#[test]
fn draining_is_promised_only_where_it_is_certain() {
    for (controller, keeps, named) in [
        ("Auto", false, "IngressNginx"),
        ("IngressNginx", false, "IngressNginx"),
        ("Traefik", true, "Traefik"),
    ] {
        let world = World::new(&[SERVICE, NGINX_CLASS, INGRESS]).sticky(&format!("controller: {controller}"));
        let route = world.route();
        assert_eq!(configured(&route).keeps_terminating_pods, keeps, "{controller}");
        assert_eq!(route.controller.as_deref(), Some(named));
        assert_eq!(
            configured(&route).written_to,
            ["Ingress/shop-ing"],
            "{controller} reads the Ingress"
        );
    }
}

#[test]
fn all_ingresses_of_a_service_get_the_same() {
    let second = INGRESS
        .replace("shop-ing", "shop-api")
        .replace("i-1", "i-2")
        .replace("path: /,", "path: /api,");
    let plan = World::new(&[SERVICE, NGINX_CLASS, INGRESS, &second]).plan();
    let written: Vec<_> = plan
        .routes
        .iter()
        .map(|route| applied(&configured(route)))
        .collect();
    assert_eq!(written.len(), 2);
    assert_eq!(written[0], written[1]);
}

#[test]
fn an_ingress_with_another_target_is_refused_unless_allowed() {
    let ingress = with_other_backend();
    let refusal = World::new(&[SERVICE, NGINX_CLASS, &ingress]).refused();
    assert_eq!(refusal.reason, reasons::SHARED_ROUTE);
    assert!(refusal.message.contains("Service/api"), "{}", refusal.message);
    let allowed = World::new(&[SERVICE, NGINX_CLASS, &ingress])
        .sticky("sharedRoutes: Allow")
        .configured();
    let notes = allowed.notes.join("\n");
    assert!(notes.contains("also act on Service/api"), "{notes}");
}

#[test]
fn the_services_own_address_as_upstream_is_refused() {
    let ingress = annotated("@service-upstream: 'true'");
    let refusal = World::new(&[SERVICE, NGINX_CLASS, &ingress]).refused();
    assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
    assert!(
        refusal.message.contains("remove that annotation"),
        "{}",
        refusal.message
    );
}

/// With regular expressions the controller has no path to fall back to.
#[test]
fn the_path_is_written_also_with_regular_expressions() {
    let ingress = annotated("@use-regex: 'true'");
    let configured = World::new(&[SERVICE, NGINX_CLASS, &ingress]).configured();
    assert_eq!(
        applied(&configured)["metadata"]["annotations"][format!("{PREFIX}session-cookie-path")],
        "/"
    );
}

#[test]
fn a_foreign_cookie_affinity_beats_the_hash() {
    let ingress = annotated("@affinity: cookie");
    let world = World::new(&[SERVICE, NGINX_CLASS, &ingress]).sticky("mode: ClientIP");
    let unsupported = world.configured().unsupported.join("\n");
    assert!(
        unsupported.contains("takes precedence over upstream-hash-by"),
        "{unsupported}"
    );
}

#[test]
fn a_canary_is_noted_and_a_legacy_one_binds_nobody() {
    let sticky = World::new(&[SERVICE, NGINX_CLASS, &annotated("@canary: 'true'")]).configured();
    assert_eq!(sticky.binds, Binds::Pod);
    assert!(
        sticky.notes.iter().any(|note| note.contains("is a canary")),
        "{:?}",
        sticky.notes
    );
    let legacy = annotated("@canary: 'true', @affinity-canary-behavior: legacy");
    let legacy = World::new(&[SERVICE, NGINX_CLASS, &legacy]).configured();
    assert_eq!(legacy.binds, Binds::None);
    assert!(
        legacy.unsupported[0].contains("affinity-canary-behavior to sticky"),
        "{:?}",
        legacy.unsupported
    );
}
