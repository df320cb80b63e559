use super::fixture::{INGRESS, SERVICE, World, refused};
use crate::affinity::model::PlanOutcome;
use crate::api::conditions::reasons;

fn class(name: &str, controller: &str, metadata: &str) -> String {
    format!(
        "{{kind: IngressClass, metadata: {{name: {name}{metadata}}}, spec: {{controller: {controller}}}}}"
    )
}

fn ingress(metadata: &str, spec: &str) -> String {
    INGRESS
        .replace("uid: i-1}", &format!("uid: i-1{metadata}}}"))
        .replace("ingressClassName: edge", spec)
}

const DEFAULT: &str = ", annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}";

/// Who serves an Ingress, and so where the setting goes.
#[test]
fn the_class_decides_in_the_order_of_the_controllers() {
    let traefik = class("edge", "traefik.io/ingress-controller", "");
    let nginx = class("old", "k8s.io/ingress-nginx", "");
    let default_nginx = class("old", "k8s.io/ingress-nginx", DEFAULT);
    let default_traefik = class("edge", "traefik.io/ingress-controller", DEFAULT);
    let by_annotation = |name: &str| format!(", annotations: {{kubernetes.io/ingress.class: {name}}}");
    let dated = |date: &str, name: &str, controller: &str| {
        class(
            name,
            controller,
            &format!(", creationTimestamp: '{date}'{DEFAULT}"),
        )
    };
    let older = dated("2026-01-01T00:00:00Z", "aaa", "traefik.io/ingress-controller");
    let newer = dated("2026-02-01T00:00:00Z", "bbb", "k8s.io/ingress-nginx");
    let own_traefik = class("traefik", "example.com/own", "");
    let haproxy = class("edge", "haproxy.org/ingress-controller", "");
    let table: [(&str, Vec<&str>, String, Option<&str>); 11] = [
        (
            "spec",
            vec![&traefik, &nginx],
            ingress("", "ingressClassName: edge"),
            Some("Traefik"),
        ),
        (
            "spec, other class",
            vec![&traefik, &nginx],
            ingress("", "ingressClassName: old"),
            Some("IngressNginx"),
        ),
        (
            "annotation before spec",
            vec![&traefik, &nginx],
            ingress(&by_annotation("old"), "ingressClassName: edge"),
            Some("IngressNginx"),
        ),
        (
            "spec before default",
            vec![&traefik, &default_nginx],
            ingress("", "ingressClassName: edge"),
            Some("Traefik"),
        ),
        (
            "default",
            vec![&default_traefik, &nginx],
            ingress("", "ingressClassName: null"),
            Some("Traefik"),
        ),
        (
            "newest default",
            vec![&older, &newer],
            ingress("", "ingressClassName: null"),
            Some("IngressNginx"),
        ),
        (
            "annotation without class object",
            vec![],
            ingress(&by_annotation("traefik"), "ingressClassName: null"),
            Some("Traefik"),
        ),
        (
            "annotation that names an object of another controller",
            vec![&own_traefik],
            ingress(&by_annotation("traefik"), "ingressClassName: null"),
            None,
        ),
        (
            "spec without class object",
            vec![],
            ingress("", "ingressClassName: traefik"),
            None,
        ),
        (
            "no class at all",
            vec![&traefik],
            ingress("", "ingressClassName: null"),
            None,
        ),
        (
            "unknown controller",
            vec![&haproxy],
            ingress("", "ingressClassName: edge"),
            None,
        ),
    ];
    for (case, classes, ingress, expected) in &table {
        let mut documents = vec![SERVICE, ingress.as_str()];
        documents.extend(classes);
        let route = World::new(&documents).route();
        assert_eq!(route.controller.as_deref(), *expected, "{case}: {route:#?}");
        assert_eq!(
            matches!(route.outcome, PlanOutcome::Configured(_)),
            expected.is_some(),
            "{case}"
        );
    }
}

#[test]
fn an_unknown_controller_is_named_with_the_remedy() {
    let odd = class("edge", "example.com/my-traefik", "");
    let refusal = refused(&World::new(&[SERVICE, INGRESS, &odd]).route());
    assert_eq!(refusal.reason, reasons::CONTROLLER_NOT_RECOGNISED);
    for part in [
        "Ingress shop-ing",
        "edge",
        "example.com/my-traefik",
        "k8s.io/ingress-nginx, traefik.io/ingress-controller",
        "set spec.sticky.controller to Traefik or IngressNginx",
    ] {
        assert!(refusal.message.contains(part), "{part} in: {}", refusal.message);
    }
}

/// Contour serves an Ingress, and nothing that could be written there would bind users.
#[test]
fn an_ingress_of_contour_is_refused_with_the_kind_to_use_instead() {
    let own = class("edge", "projectcontour.io/contour/contour", "");
    let odd = class("edge", "example.com/my-traefik", "");
    let by_spec = ingress("", "ingressClassName: contour");
    let by_annotation = ingress(
        ", annotations: {kubernetes.io/ingress.class: contour}",
        "ingressClassName: null",
    );
    for (documents, sticky) in [
        (vec![SERVICE, INGRESS, &own], "{}"),
        (vec![SERVICE, &by_spec], "{}"),
        (vec![SERVICE, &by_annotation], "{}"),
        (vec![SERVICE, INGRESS, &odd], "controller: Contour"),
    ] {
        let refusal = refused(&World::new(&documents).sticky(sticky).route());
        assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED, "{}", refusal.message);
        assert!(
            refusal
                .message
                .contains("Contour has no annotation for affinity; route with an HTTPProxy"),
            "{}",
            refusal.message
        );
    }
}

/// The name says nothing where another controller claims the class.
#[test]
fn a_class_that_is_only_called_contour_is_who_serves_it() {
    let nginx = class("contour", "k8s.io/ingress-nginx", "");
    let ingress = ingress("", "ingressClassName: contour");
    let route = World::new(&[SERVICE, &nginx, &ingress]).route();
    assert_eq!(route.controller.as_deref(), Some("IngressNginx"));
}

#[test]
fn the_policy_can_name_the_controller() {
    let odd = class("edge", "example.com/my-traefik", "");
    for (wish, written) in [
        ("Traefik", "Service/shop-svc"),
        ("IngressNginx", "Ingress/shop-ing"),
    ] {
        let world = World::new(&[SERVICE, INGRESS, &odd]).sticky(&format!("controller: {wish}"));
        assert_eq!(world.route().controller.as_deref(), Some(wish));
        assert_eq!(world.configured().written_to, [written]);
    }
}
