use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, SERVICE, TRAEFIK_CLASS, World, configured, summary};
use crate::affinity::model::PlanOutcome;
use crate::api::conditions::reasons;

fn typed(kind: &str) -> String {
    SERVICE.replace("spec: {", &format!("spec: {{{kind}, "))
}

#[test]
fn without_a_proxy_the_service_itself_is_set() {
    let world = World::new(&[&typed("type: NodePort")]).sticky("mode: ClientIP");
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn hidden_addresses_are_warned_of() {
    for (kind, warned) in [
        ("type: NodePort", true),
        ("type: LoadBalancer, externalTrafficPolicy: Cluster", true),
        ("type: LoadBalancer, externalTrafficPolicy: Local", false),
        ("type: ClusterIP", false),
        ("externalIPs: [10.0.0.9]", true),
    ] {
        let configured = World::new(&[&typed(kind)]).sticky("mode: ClientIP").configured();
        let found = configured
            .notes
            .iter()
            .any(|note| note.contains("externalTrafficPolicy"));
        assert_eq!(found, warned, "{kind}");
    }
}

#[test]
fn the_services_that_count() {
    let headless = SERVICE
        .replace("shop-svc", "shop-peers")
        .replace("spec: {", "spec: {clusterIP: None, ");
    let exposed = typed("type: LoadBalancer").replace("shop-svc", "shop-lb");
    let internal = SERVICE.replace("shop-svc", "shop-internal");
    let behind_proxy = [TRAEFIK_CLASS, INGRESS, SERVICE, &exposed, &internal];
    let table: [(&[&str], &str, &[&str]); 6] = [
        (&[&headless, SERVICE], "mode: ClientIP", &["shop-svc"]),
        (
            &[SERVICE, &internal],
            "mode: ClientIP",
            &["shop-internal", "shop-svc"],
        ),
        (&behind_proxy, "mode: ClientIP", &["shop-lb"]),
        (&behind_proxy, "mode: Cookie", &[]),
        (
            &behind_proxy,
            "{mode: ClientIP, controller: Service}",
            &["shop-internal", "shop-lb", "shop-svc"],
        ),
        (&behind_proxy, "{mode: ClientIP, controller: Traefik}", &[]),
    ];
    for (documents, sticky, expected) in table {
        let plan = World::new(documents).sticky(sticky).plan();
        let mut found: Vec<_> = plan
            .routes
            .iter()
            .filter(|route| route.kind == "Service")
            .map(|route| route.name.as_str())
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{sticky}");
    }
}

#[test]
fn a_named_service_leaves_proxies_alone() {
    let plan = World::new(&[SERVICE, TRAEFIK_CLASS, INGRESS])
        .sticky("{mode: ClientIP, controller: Service}")
        .plan();
    let outcome = |kind: &str| {
        plan.routes
            .iter()
            .find(|route| route.kind == kind)
            .expect("a route")
            .outcome
            .clone()
    };
    assert!(
        matches!(outcome("Ingress"), PlanOutcome::Reported(_)),
        "{:?}",
        outcome("Ingress")
    );
    assert!(
        matches!(outcome("Service"), PlanOutcome::Configured(_)),
        "{:?}",
        outcome("Service")
    );
}

#[test]
fn cookies_and_headless_services_are_refused() {
    let cookie = World::new(&[SERVICE]).sticky("controller: Service").refused();
    assert_eq!(cookie.reason, reasons::MODE_UNSUPPORTED);
    let headless = SERVICE.replace("spec: {", "spec: {clusterIP: None, ");
    let headless = World::new(&[&headless]).sticky("mode: ClientIP").refused();
    assert_eq!(headless.reason, reasons::MODE_UNSUPPORTED);
    assert!(headless.message.contains("headless"), "{}", headless.message);
}

/// A Service carries the setting for all pods it selects.
#[test]
fn a_service_of_two_deployments_is_shared() {
    let second = "{kind: Deployment, metadata: {name: canary, namespace: web}, spec: {selector: {}, template: \
                  {metadata: {labels: {app: shop, track: canary}}}}}";
    let world = || World::new(&[SERVICE, second]);
    let refusal = world().sticky("mode: ClientIP").refused();
    assert_eq!(refusal.reason, reasons::SHARED_ROUTE);
    assert!(
        refusal.message.contains("Deployment canary"),
        "{}",
        refusal.message
    );
    let allowed = world().sticky("{mode: ClientIP, sharedRoutes: Allow}").route();
    assert!(
        configured(&allowed)
            .notes
            .iter()
            .any(|note| note.contains("canary"))
    );
}
