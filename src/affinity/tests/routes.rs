use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World, configured, summary};
use crate::api::conditions::reasons;

fn no_service(documents: &[&str]) -> bool {
    let plan = World::new(documents).plan();
    let refusal = plan.refusal.map(|refusal| refusal.reason);
    assert!(refusal != Some(reasons::NO_SERVICE) || plan.services.is_empty());
    refusal == Some(reasons::NO_SERVICE)
}

#[test]
fn services_are_found_by_what_they_select() {
    for (selector, found) in [
        ("{app: shop}", true),
        ("{app: shop, tier: front}", true),
        ("{app: shop, tier: back}", false),
        ("{app: other}", false),
        ("{}", false),
        ("null", false),
    ] {
        let service = SERVICE.replace("{app: shop}", selector);
        assert_eq!(no_service(&[&service]), !found, "{selector}");
    }
    let ours = SERVICE.replace(
        "uid: s-1",
        "uid: s-1, labels: {app.kubernetes.io/managed-by: session-operator}",
    );
    assert!(no_service(&[&ours]), "the operator's own Services are no way in");
}

#[test]
fn nothing_to_configure_says_what_to_create() {
    assert_yaml_snapshot!("no_service", summary(&World::new(&[]).plan()));
    assert_yaml_snapshot!("no_route", summary(&World::new(&[SERVICE]).plan()));
    let client_ip = World::new(&[SERVICE])
        .sticky("{mode: ClientIP, controller: Traefik}")
        .plan();
    let refusal = client_ip.refusal.expect("no route");
    assert!(
        refusal.message.ends_with("set spec.sticky.controller to Service"),
        "{}",
        refusal.message
    );
}

#[test]
fn ports_go_by_name_and_number() {
    for (port, usable) in [
        ("{number: 80}", true),
        ("{name: http}", true),
        ("{number: 81}", false),
        ("{name: web}", false),
        ("{name: '80'}", false),
    ] {
        let ingress = INGRESS.replace("{number: 80}", port);
        let world = World::new(&[SERVICE, TRAEFIK_CLASS, &ingress]);
        if usable {
            assert_eq!(world.configured().writes.len(), 1, "{port}");
        } else {
            let refusal = world.refused();
            assert_eq!(refusal.reason, reasons::NO_ROUTE);
            assert!(
                refusal.message.contains("which has ports 80 (http)"),
                "{}",
                refusal.message
            );
        }
    }
}

#[test]
fn one_broken_backend_beside_a_good_one_is_a_note() {
    let ingress = INGRESS.replace(
        "http: {paths: [",
        "http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: shop-svc, port: {number: 81}}}}, ",
    );
    let configured = World::new(&[SERVICE, TRAEFIK_CLASS, &ingress]).configured();
    assert!(
        configured.notes.iter().any(|note| note.contains("names port 81")),
        "{:?}",
        configured.notes
    );
    assert_eq!(
        configured.writes.len(),
        1,
        "one write although two paths lead to the Service"
    );
}

#[test]
fn the_default_backend_is_a_route() {
    let ingress = "{kind: Ingress, metadata: {name: all, namespace: web, uid: i-3}, spec: {ingressClassName: edge, \
                   defaultBackend: {service: {name: shop-svc, port: {name: http}}}}}";
    assert_eq!(
        World::new(&[SERVICE, TRAEFIK_CLASS, ingress])
            .configured()
            .written_to,
        ["Service/shop-svc"]
    );
}

#[test]
fn routes_that_lead_elsewhere_are_none_of_ours() {
    let other = INGRESS
        .replace("shop-svc", "blog")
        .replace("shop-ing", "blog-ing");
    let plan = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS, &other]).plan();
    assert_eq!(
        plan.routes
            .iter()
            .map(|route| route.name.as_str())
            .collect::<Vec<_>>(),
        ["shop-ing"]
    );
}

#[test]
fn routes_of_other_namespaces_and_traefik_services_are_reported() {
    let elsewhere = "{kind: IngressRoute, metadata: {name: front, namespace: edge}, spec: {routes: [{services: \
                     [{name: shop-svc, namespace: web, port: 80}]}]}}";
    let unrelated = "{kind: IngressRoute, metadata: {name: shop-svc, namespace: edge}, spec: {routes: [{services: \
                     [{name: shop-svc, port: 80}]}]}}";
    let weighted = "{kind: IngressRoute, metadata: {name: split, namespace: web}, spec: {routes: [{services: \
                    [{kind: TraefikService, name: shop-weighted}]}]}}";
    let dashboard = "{kind: IngressRoute, metadata: {name: dashboard, namespace: web}, spec: {routes: [{services: \
                     [{kind: TraefikService, name: api@internal}]}]}}";
    assert_yaml_snapshot!(summary(
        &World::new(&[SERVICE, elsewhere, unrelated, weighted, dashboard]).plan()
    ));
}

#[test]
fn tls_has_to_cover_every_host() {
    for (tls, hosts, covered) in [
        ("[{hosts: [shop.example]}]", vec!["shop.example"], true),
        ("[{hosts: [SHOP.example]}]", vec!["shop.example"], true),
        ("[{hosts: ['*.example']}]", vec!["shop.example"], true),
        ("[{hosts: ['*.example']}]", vec!["a.shop.example"], false),
        ("[{hosts: ['*.example']}]", vec!["*.example"], true),
        (
            "[{hosts: [shop.example]}]",
            vec!["shop.example", "www.example"],
            false,
        ),
        (
            "[{hosts: [shop.example]}, {hosts: [www.example]}]",
            vec!["shop.example", "www.example"],
            true,
        ),
        ("[{secretName: cert}]", vec!["shop.example"], true),
        ("[{hosts: [shop.example]}]", vec![""], false),
        ("[]", vec!["shop.example"], false),
    ] {
        let rule = |host: &&str| {
            format!(
                "{{host: '{host}', http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: shop-svc, \
                 port: {{number: 80}}}}}}}}]}}}}"
            )
        };
        let ingress = format!(
            "{{kind: Ingress, metadata: {{name: i, namespace: web}}, spec: {{ingressClassName: edge, tls: {tls}, rules: \
             [{}]}}}}",
            hosts.iter().map(rule).collect::<Vec<_>>().join(", ")
        );
        let configured = World::new(&[SERVICE, TRAEFIK_CLASS, &ingress]).configured();
        let secure = configured
            .notes
            .iter()
            .any(|note| note.contains("because every route declares TLS"));
        assert_eq!(secure, covered, "{tls} {hosts:?}");
    }
}

#[test]
fn equal_inputs_give_equal_plans() {
    let world = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS]);
    assert_eq!(world.plan(), world.plan());
    assert_eq!(configured(&world.route()).writes, world.configured().writes);
}
