//! Values that nobody sane writes, and an API server lets through or may let through one day.

use serde_json::{Value, json};

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World, applied, parse};
use crate::affinity::readback::missing_fields;

fn route_with(spec: &str) -> String {
    format!(
        "{{kind: IngressRoute, metadata: {{name: r, namespace: web, managedFields: [{{manager: m, operation: Update}}]}}, \
         spec: {spec}}}"
    )
}

#[test]
fn misshapen_ingress_routes_reach_nothing() {
    for spec in [
        "null",
        "[]",
        "{routes: 7}",
        "{routes: [null, 7, text]}",
        "{routes: [{services: {name: shop-svc}}]}",
        "{routes: [{services: [null, 1, [], {port: 80}]}]}",
        "{routes: [{services: [{name: 7, port: 80}]}]}",
        "{routes: [{services: [{name: shop-svc, kind: Pod, port: 80}]}]}",
    ] {
        let plan = World::new(&[SERVICE, &route_with(spec)]).plan();
        assert_eq!(plan.routes, Vec::new(), "{spec}");
    }
}

fn proxy_with(spec: &str) -> String {
    route_with(spec).replace("kind: IngressRoute", "kind: HTTPProxy")
}

#[test]
fn misshapen_http_proxies_reach_nothing() {
    for spec in [
        "null",
        "[]",
        "{routes: 7}",
        "{routes: [null, 7, text]}",
        "{routes: [{services: {name: shop-svc}}]}",
        "{routes: [{services: [null, 1, [], {port: 80}]}]}",
        "{routes: [{services: [{name: 7, port: 80}]}]}",
        "{tcpproxy: [], routes: {services: [{name: shop-svc, port: 80}]}}",
        "{tcpproxy: {services: shop-svc}, includes: [{name: shop-svc}]}",
    ] {
        let plan = World::new(&[SERVICE, &proxy_with(spec)]).plan();
        assert_eq!(plan.routes, Vec::new(), "{spec}");
    }
}

#[test]
fn misshapen_fields_of_an_http_proxy_are_as_good_as_absent() {
    let service = "services: [{name: shop-svc, port: 80";
    for (routes, edits) in [
        (
            format!("[7, {{{service}, weight: many, mirror: 'true', slowStartPolicy: 3}}]}}]"),
            1,
        ),
        (
            format!("[{{{service}}}, {{name: api, port: 80, weight: -1, mirror: true}}], conditions: 7}}]"),
            1,
        ),
        (
            format!("[{{{service}}}], loadBalancerPolicy: 7, cookieRewritePolicies: [7, {{name: 7}}]}}]"),
            1,
        ),
    ] {
        let proxy = proxy_with(&format!("{{virtualhost: [], routes: {routes}}}"));
        let world = World::new(&[SERVICE, &proxy]).sticky("cookie: {sameSite: Lax}");
        assert_eq!(
            super::fixture::edits(&world.configured()).len(),
            edits,
            "{routes}"
        );
    }
    let no_port =
        proxy_with("{routes: [{services: [{name: shop-svc}]}, {services: [{name: shop-svc, port: 81}]}]}");
    assert_eq!(World::new(&[SERVICE, &no_port]).configured().writes.len(), 1);
}

#[test]
fn odd_ports_do_not_match_by_accident() {
    for (port, usable) in [
        ("80", true),
        ("'80'", true),
        ("http", true),
        ("-1", false),
        ("'8 0'", false),
    ] {
        let spec = format!("{{routes: [{{services: [{{name: shop-svc, port: {port}}}]}}]}}");
        let world = World::new(&[SERVICE, &route_with(&spec)]);
        if usable {
            assert_eq!(world.configured().writes.len(), 1, "{port}");
        } else {
            assert!(world.refused().message.contains("names port"), "{port}");
        }
    }
}

#[test]
fn the_longest_names_fit() {
    let policy = "p".repeat(40);
    let host = format!("{}.example", "h".repeat(63));
    let ingress = INGRESS
        .replace("shop.example", &host)
        .replace("shop-ing", &"i".repeat(253));
    let world = World::new(&[SERVICE, TRAEFIK_CLASS, &ingress]).policy(&policy);
    let name = applied(&world.configured())["metadata"]["annotations"]
        ["traefik.ingress.kubernetes.io/service.sticky.cookie.name"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert!(name.len() <= 64, "{name}");
    assert!(
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'),
        "{name}"
    );
}

#[test]
fn many_routes_are_planned_in_bounded_time() {
    let routes: Vec<String> = (0..2000)
        .map(|n| format!("{{match: Path(`/{n}`), services: [{{name: shop-svc, port: 80}}]}}"))
        .collect();
    let world = World::new(&[
        SERVICE,
        &route_with(&format!("{{routes: [{}]}}", routes.join(", "))),
    ]);
    let started = std::time::Instant::now();
    let configured = world.configured();
    assert_eq!(configured.written_to, ["IngressRoute/r"]);
    let proxy = proxy_with(&format!("{{routes: [{}]}}", routes.join(", ")));
    let configured = World::new(&[SERVICE, &proxy]).configured();
    assert_eq!(configured.written_to, ["HTTPProxy/r"]);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn pointers_of_odd_keys_are_escaped() {
    let fields: Value = parse("{'': {'~/': 1, '/~1': 2, 'a b': 3}}");
    assert_eq!(
        missing_fields(&json!({}), &fields),
        ["/~1~01", "/a b", "/~0~1"].map(|key| format!("/{key}"))
    );
}

/// Advice is pasted into manifests, so nothing that stands in the object may get out of its comment.
#[test]
fn advice_holds_what_it_should_and_nothing_else() {
    let spec = r#"{routes: [{services: [{name: shop-svc, port: 80}]}, {services: [{name: shop-svc, port: "x\nhostNetwork: true"}]}]}"#;
    let route = route_with(spec).replace("operation: Update", "operation: Apply");
    let advice = World::new(&[SERVICE, &route])
        .configured()
        .advice
        .expect("advice");
    let proxy = route.replace("kind: IngressRoute", "kind: HTTPProxy");
    let of_proxy = World::new(&[SERVICE, &proxy])
        .configured()
        .advice
        .expect("advice");
    for (advice, field) in [(advice, "sticky:"), (of_proxy, "loadBalancerPolicy:")] {
        let mut found = 0;
        for line in advice.yaml.lines() {
            found += usize::from(line.starts_with(field));
            assert!(
                line.starts_with("# in spec.routes[") || !line.contains("hostNetwork"),
                "{line}"
            );
        }
        assert_eq!(found, 2, "{}", advice.yaml);
    }
}
