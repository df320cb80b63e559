use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World, applied, configured, summary, write_summary};
use crate::affinity::merge_writes;
use crate::api::conditions::reasons;

const STICKY: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

const WITH_TLS: &str = "
kind: Ingress
metadata: {name: shop-tls, namespace: web, uid: i-2}
spec:
  ingressClassName: edge
  tls: [{hosts: [shop.example]}]
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop-svc, port: {name: http}}}}]}
";

fn annotation(world: &World, key: &str) -> Option<String> {
    let fields = applied(&world.configured());
    fields["metadata"]["annotations"][format!("{STICKY}{key}")]
        .as_str()
        .map(str::to_owned)
}

#[test]
fn the_service_and_not_the_ingress_is_annotated() {
    assert_yaml_snapshot!(summary(&World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]).plan()));
}

#[test]
fn every_wished_attribute_is_written() {
    let world = World::new(&[SERVICE, TRAEFIK_CLASS, WITH_TLS]).sticky(
        "cookie: {name: SHOPID, path: /shop, maxAgeSeconds: 3600, secure: true, httpOnly: false, sameSite: None, \
         domain: shop.example}",
    );
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn same_site_values_have_traefiks_spelling() {
    for (wish, written) in [("Lax", "lax"), ("Strict", "strict")] {
        let world =
            World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]).sticky(&format!("cookie: {{sameSite: {wish}}}"));
        assert_eq!(annotation(&world, ".samesite").as_deref(), Some(written));
    }
}

#[test]
fn secure_follows_the_tls_of_the_route() {
    let plain = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]);
    assert_eq!(annotation(&plain, ".secure").as_deref(), Some("false"));
    let tls = World::new(&[SERVICE, TRAEFIK_CLASS, WITH_TLS]);
    assert_eq!(annotation(&tls, ".secure").as_deref(), Some("true"));
    let by_annotation = INGRESS.replace(
        "uid: i-1}",
        "uid: i-1, annotations: {traefik.ingress.kubernetes.io/router.tls: 'true'}}",
    );
    let router = World::new(&[SERVICE, TRAEFIK_CLASS, &by_annotation]);
    assert_eq!(annotation(&router, ".secure").as_deref(), Some("true"));
}

#[test]
fn secure_without_tls_is_written_with_a_warning() {
    let world = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]).sticky("cookie: {secure: true}");
    assert_eq!(annotation(&world, ".secure").as_deref(), Some("true"));
    let notes = world.configured().notes.join("\n");
    assert!(
        notes.contains("no TLS is declared on Ingress shop-ing"),
        "{notes}"
    );
}

/// One Service can carry one setting only, so the weaker of the two decides on Secure.
#[test]
fn two_ingresses_of_one_service_get_one_setting() {
    let plan = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS, WITH_TLS]).plan();
    let writes = plan
        .routes
        .iter()
        .flat_map(|route| configured(route).writes)
        .collect();
    let merged = merge_writes(writes).expect("equal writes");
    assert_yaml_snapshot!(merged.iter().map(write_summary).collect::<Vec<_>>());
    let notes = configured(&plan.routes[0]).notes.join("\n");
    assert!(
        notes.contains("Service shop-svc also acts on Ingress shop-tls"),
        "{notes}"
    );
}

/// The setting is on the Service, so what else the Ingress routes to does not matter.
#[test]
fn an_ingress_with_other_backends_is_fine() {
    let both = INGRESS.replace(
        "http: {paths: [",
        "http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}, ",
    );
    let configured = World::new(&[SERVICE, TRAEFIK_CLASS, &both]).configured();
    assert_eq!(configured.written_to, ["Service/shop-svc"]);
}

#[test]
fn client_addresses_are_refused_with_a_remedy() {
    let refusal = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS])
        .sticky("mode: ClientIP")
        .refused();
    assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
    assert!(refusal.message.contains("IngressRoute"), "{}", refusal.message);
}

#[test]
fn a_service_behind_one_address_is_refused() {
    for key in ["nativelb", "nodeportlb"] {
        let annotation = format!("traefik.ingress.kubernetes.io/service.{key}");
        let service = SERVICE.replace(
            "uid: s-1}",
            &format!("uid: s-1, annotations: {{{annotation}: 'true'}}}}"),
        );
        let refusal = World::new(&[&service, TRAEFIK_CLASS, INGRESS]).refused();
        assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
        assert!(refusal.message.contains(&annotation), "{}", refusal.message);
    }
}

#[test]
fn the_derived_name_differs_by_policy_and_stays() {
    let name = |policy: &str| {
        let world = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]).policy(policy);
        annotation(&world, ".name").expect("a name")
    };
    assert_eq!(
        name("keep"),
        "keep_39b88178",
        "a changed name ends every user's stickiness"
    );
    assert_ne!(name("keep").rsplit('_').next(), name("kept").rsplit('_').next());
}
