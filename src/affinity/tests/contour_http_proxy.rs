use insta::assert_yaml_snapshot;
use serde_json::json;

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World, edits, parse, summary};
use crate::affinity::model::PlanOutcome;
use crate::affinity::readback::missing_edits;
use crate::api::Binds;
use crate::api::conditions::reasons;

const BY_HAND: &str =
    "managedFields: [{manager: kubectl-create, operation: Update, apiVersion: projectcontour.io/v1}]";

/// An `HTTPProxy` with these fields in `metadata` and this list as `spec.routes`.
fn proxy(metadata: &str, routes: &str) -> String {
    format!(
        "{{apiVersion: projectcontour.io/v1, kind: HTTPProxy, metadata: {{name: shop-proxy, namespace: web, uid: h-1, \
         resourceVersion: '7', {metadata}}}, spec: {{virtualhost: {{fqdn: shop.example}}, routes: {routes}}}}}"
    )
}

const ONE: &str = "[{services: [{name: shop-svc, port: 80}]}]";

const MANY: &str = "[
  {conditions: [{prefix: /}], services: [{name: copies, port: 80, mirror: true}, {name: shop-svc, port: 80}]},
  {conditions: [{prefix: /api}], services: [{name: api, port: 80}]},
  {conditions: [{prefix: /old}, {header: {name: x-old, present: true}}], services: [{name: shop-svc, port: 80}]},
]";

fn unsupported(cookie: &str, routes: &str) -> Vec<String> {
    let world = World::new(&[SERVICE, &proxy(BY_HAND, routes)]).sticky(&format!("cookie: {cookie}"));
    world.configured().unsupported
}

#[test]
fn every_route_that_leads_to_the_target_is_patched() {
    assert_yaml_snapshot!(summary(&World::new(&[SERVICE, &proxy(BY_HAND, MANY)]).plan()));
}

#[test]
fn client_addresses_are_hashed() {
    let world = World::new(&[SERVICE, &proxy(BY_HAND, ONE)]).sticky("mode: ClientIP");
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn an_object_that_helm_applies_gets_advice() {
    let metadata = "managedFields: [{manager: helm, operation: Apply, apiVersion: projectcontour.io/v1}]";
    let world = World::new(&[SERVICE, &proxy(metadata, MANY)]).sticky("mode: ClientIP");
    assert_yaml_snapshot!(summary(&world.plan()));
}

/// What the advice says is what counts as configured once it stands.
#[test]
fn advice_that_was_followed_is_configured_without_a_write() {
    let metadata = "managedFields: [{manager: helm, operation: Apply}]";
    for mode in ["Cookie", "ClientIP"] {
        let world = |routes: &str| {
            World::new(&[SERVICE, &proxy(metadata, routes)])
                .sticky(&format!("mode: {mode}"))
                .configured()
        };
        let advice = world(ONE).advice.expect("advice");
        let field: serde_json::Value = parse(&advice.yaml);
        let followed = format!(
            "[{{services: [{{name: shop-svc, port: 80}}], loadBalancerPolicy: {}}}]",
            field["loadBalancerPolicy"]
        );
        let after = world(&followed);
        assert_eq!(after.advice, None);
        assert_eq!(after.writes, Vec::new());
        assert_eq!(after.written_to, ["HTTPProxy/shop-proxy"]);
        assert_eq!(after.binds, Binds::Hash);
    }
}

#[test]
fn guards_name_the_route_by_its_conditions_and_its_service() {
    let wanted = edits(&World::new(&[SERVICE, &proxy(BY_HAND, MANY)]).configured());
    let set = MANY.replace("]},", "], loadBalancerPolicy: {strategy: Cookie}},");
    assert_eq!(
        missing_edits(&parse(&proxy(BY_HAND, &set)), &wanted),
        Vec::<String>::new()
    );
    for (from, to) in [
        ("prefix: /old", "prefix: /new"),
        ("{name: shop-svc, port: 80}]}", "{name: shop-svc, port: 81}]}"),
    ] {
        let other = MANY
            .replace(from, to)
            .replace("]},", "], loadBalancerPolicy: {strategy: Cookie}},");
        assert!(
            !missing_edits(&parse(&proxy(BY_HAND, &other)), &wanted).is_empty(),
            "what stands in another route says nothing: {to}"
        );
    }
}

/// Only what a policy says outright is a wish; what it leaves open is Contour's to decide.
#[test]
fn wishes_for_the_cookie_are_unsupported_with_a_remedy() {
    for (cookie, remedy) in [
        ("{}", None),
        ("{name: X-Contour-Session-Affinity, path: /, secure: false}", None),
        ("{name: mine}", Some("remove cookie.name")),
        ("{maxAgeSeconds: 60}", Some("set cookie.maxAgeSeconds to 0")),
        ("{httpOnly: false}", Some("set cookie.httpOnly to true")),
        ("{path: /shop}", Some("\n  pathRewrite: {\"value\":\"/shop\"}")),
        ("{secure: true}", Some("\n  secure: true")),
        ("{sameSite: Lax}", Some("\n  sameSite: \"Lax\"")),
        (
            "{domain: shop.example}",
            Some("\n  domainRewrite: {\"value\":\"shop.example\"}"),
        ),
    ] {
        let unsupported = unsupported(cookie, ONE);
        match remedy {
            None => assert_eq!(unsupported, Vec::<String>::new(), "{cookie}"),
            Some(remedy) => assert!(
                unsupported.len() == 1 && unsupported[0].contains(remedy),
                "{cookie}: {unsupported:?}"
            ),
        }
    }
    let all = unsupported(
        "{name: mine, maxAgeSeconds: 1, httpOnly: false, secure: true, sameSite: None}",
        ONE,
    );
    assert_eq!(
        all.len(),
        4,
        "one rule for the cookie, as it may stand only once: {all:?}"
    );
}

#[test]
fn a_cookie_that_the_owner_rewrites_as_wished_is_none_to_complain_about() {
    let wish = "{secure: true, domain: shop.example}";
    let before = unsupported(wish, ONE);
    let (_, yaml) = before[0].split_once(":\n").expect("the rule to add");
    let rule: serde_json::Value = parse(yaml);
    let rules = rule["cookieRewritePolicies"].to_string();
    let of_route = ONE.replace("}]}]", &format!("}}], cookieRewritePolicies: {rules}}}]"));
    let of_service = ONE.replace("port: 80", &format!("port: 80, cookieRewritePolicies: {rules}"));
    for followed in [&of_route, &of_service] {
        assert_eq!(unsupported(wish, followed), Vec::<String>::new(), "{followed}");
        assert_eq!(
            unsupported(wish, &followed.replace("X-Contour-Session-Affinity", "mine")).len(),
            1,
            "another cookie"
        );
        assert_eq!(
            unsupported(wish, &followed.replace("\"secure\":true", "\"secure\":false")).len(),
            1,
            "another value"
        );
    }
    let half = format!(
        "[{}, {}]",
        &of_route[1..of_route.len() - 1],
        &ONE[1..ONE.len() - 1]
    );
    let left = unsupported(wish, &half);
    assert!(
        left[0].contains("add to spec.routes[1] (Service shop-svc, port 80):"),
        "{left:?}"
    );
}

#[test]
fn routes_that_cannot_bind_are_refused() {
    let target = "{name: shop-svc, port: 80}";
    let weighted = |weight: u8| format!("{{name: shop-svc, port: 80, weight: {weight}}}");
    let api = "{name: api, port: 80, weight: 10}";
    let table = [
        (
            format!("{target}, {{name: api, port: 80}}"),
            Some("leave one service in the route"),
        ),
        (format!("{}, {api}", weighted(90)), Some("over shop-svc and api")),
        (format!("{target}, {target}"), Some("over shop-svc and shop-svc")),
        (
            format!("{}, {{name: api, port: 80, weight: 0}}", weighted(100)),
            None,
        ),
        (format!("{}, {{name: api, port: 80}}", weighted(100)), None),
        (format!("{target}, {{name: api, port: 80, mirror: true}}"), None),
        (
            format!("{target}, {{name: api, port: 80, mirror: true, weight: 50}}"),
            None,
        ),
        (
            "{name: shop-svc, port: 80, slowStartPolicy: {window: 10s}}".to_owned(),
            Some("remove slowStartPolicy"),
        ),
        (
            format!("{target}, {{name: api, port: 80, mirror: true, slowStartPolicy: {{window: 10s}}}}"),
            Some("remove slowStartPolicy"),
        ),
    ];
    for (services, remedy) in table {
        let world = World::new(&[SERVICE, &proxy(BY_HAND, &format!("[{{services: [{services}]}}]"))]);
        match remedy {
            None => assert_eq!(edits(&world.configured()).len(), 1, "{services}"),
            Some(remedy) => {
                let refusal = world.refused();
                assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
                assert!(refusal.message.contains(remedy), "{}", refusal.message);
            }
        }
    }
}

/// Copies of requests and a share of nothing bring no users.
#[test]
fn what_gets_no_requests_is_not_reached() {
    for services in [
        "{name: api, port: 80}, {name: shop-svc, port: 80, mirror: true}",
        "{name: api, port: 80, weight: 1}, {name: shop-svc, port: 80, weight: 0}",
        "{name: api, port: 80, weight: 1}, {name: shop-svc, port: 80}",
    ] {
        let plan = World::new(&[SERVICE, &proxy(BY_HAND, &format!("[{{services: [{services}]}}]"))]).plan();
        assert_eq!(plan.routes, Vec::new(), "{services}");
    }
}

#[test]
fn whole_connections_are_bound_to_nothing() {
    let spec = "virtualhost: {fqdn: shop.example, tls: {passthrough: true}}, \
                tcpproxy: {services: [{name: shop-svc, port: 80}]}";
    let tcp = proxy(BY_HAND, "[]").replace("virtualhost: {fqdn: shop.example}", spec);
    for mode in ["Cookie", "ClientIP"] {
        let refusal = World::new(&[SERVICE, &tcp])
            .sticky(&format!("mode: {mode}"))
            .refused();
        assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
        assert!(
            refusal
                .message
                .contains("lead to the Service with spec.routes instead"),
            "{}",
            refusal.message
        );
    }
    let elsewhere = tcp
        .replace("shop-svc", "api")
        .replace("routes: []", &format!("routes: {ONE}"));
    assert_eq!(edits(&World::new(&[SERVICE, &elsewhere]).configured()).len(), 1);
}

/// A proxy that others include is a route by itself; the one that includes it has nothing to set.
#[test]
fn of_a_delegation_the_child_gets_the_setting() {
    let child = proxy(BY_HAND, ONE).replace("virtualhost: {fqdn: shop.example}, ", "");
    let root = proxy(BY_HAND, "[{services: [{name: api, port: 80}]}]")
        .replace("shop-proxy", "root")
        .replace(
            "routes:",
            "includes: [{name: shop-proxy, conditions: [{prefix: /shop}]}], routes:",
        );
    let world = World::new(&[SERVICE, &root, &child]);
    assert_eq!(world.configured().written_to, ["HTTPProxy/shop-proxy"]);
}

/// The cookie's attributes are decided over all routes, and Contour's own route does not show what it does not do.
#[test]
fn tls_counts_for_the_cookies_of_others() {
    let ingress = INGRESS.replace("rules:", "tls: [{hosts: [shop.example]}]\n  rules:");
    let tls = "virtualhost: {fqdn: shop.example, tls: {secretName: cert}}";
    let host = "virtualhost: {fqdn: shop.example}";
    let plain = proxy(BY_HAND, ONE);
    let with_tls = plain.replace(host, tls);
    let table = [
        (plain.clone(), false),
        (with_tls.clone(), true),
        (with_tls.replace("secretName: cert", "passthrough: true"), false),
        (
            with_tls.replace("services:", "permitInsecure: true, services:"),
            false,
        ),
        (
            with_tls.replace(
                "routes:",
                "tcpproxy: {services: [{name: api, port: 80}]}, routes:",
            ),
            false,
        ),
        (plain.replace(&format!("{host}, "), ""), false),
    ];
    for (proxy, secure) in table {
        let plan = World::new(&[SERVICE, TRAEFIK_CLASS, &ingress, &proxy]).plan();
        let notes = |kind: &str| {
            let route = plan
                .routes
                .iter()
                .find(|route| route.kind == kind)
                .expect("a route");
            match &route.outcome {
                PlanOutcome::Configured(configured) => configured.notes.join("; "),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            notes("Ingress").contains("the cookie is Secure because every route declares TLS"),
            secure,
            "{proxy}"
        );
        assert!(!notes("HTTPProxy").contains("because"), "{}", notes("HTTPProxy"));
        assert!(notes("HTTPProxy").contains("X-Contour-Session-Affinity"));
    }
}

#[test]
fn a_drain_is_promised_by_nobody() {
    let configured = World::new(&[SERVICE, &proxy(BY_HAND, ONE)])
        .sticky("drainSeconds: 30")
        .configured();
    assert!(!configured.keeps_terminating_pods);
    assert!(
        configured.unsupported[0]
            .starts_with("drainSeconds 30: Contour sends a terminating pod nothing more"),
        "{:?}",
        configured.unsupported
    );
}

#[test]
fn what_contour_does_not_serve_is_said() {
    for (status, said) in [
        ("{}", None),
        ("{currentStatus: valid, description: Valid HTTPProxy}", None),
        (
            "{currentStatus: orphaned, description: \"no root\\nincludes it\"}",
            Some(r"status orphaned: no root\nincludes it"),
        ),
        ("{currentStatus: NotReconciled}", Some("status NotReconciled")),
    ] {
        let object = proxy(BY_HAND, ONE).replace(", spec:", &format!(", status: {status}, spec:"));
        let notes = World::new(&[SERVICE, &object]).configured().notes;
        let found = notes
            .iter()
            .find(|note| note.starts_with("Contour does not serve"));
        match said {
            None => assert_eq!(found, None, "{status}"),
            Some(said) => assert!(
                found.is_some_and(|note| note.contains(said)),
                "{status}: {notes:?}"
            ),
        }
    }
}

#[test]
fn edits_hold_the_whole_policy_of_a_route() {
    let chosen =
        "[{services: [{name: shop-svc, port: 80}], loadBalancerPolicy: {strategy: WeightedLeastRequest}}]";
    let object = proxy(BY_HAND, chosen);
    let wanted = edits(&World::new(&[SERVICE, &object]).configured());
    assert_eq!(wanted[0].pointer, "/spec/routes/0/loadBalancerPolicy");
    assert_eq!(wanted[0].value, json!({"strategy": "Cookie"}));
    assert_eq!(
        missing_edits(&parse(&object), &wanted),
        ["/spec/routes/0/loadBalancerPolicy/strategy"],
        "what the owner chose is no affinity"
    );
}
