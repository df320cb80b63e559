use insta::assert_yaml_snapshot;
use serde_json::json;

use super::fixture::{SERVICE, World, configured, edits, parse, summary};
use crate::affinity::merge_writes;
use crate::affinity::readback::missing_edits;
use crate::api::Binds;
use crate::api::conditions::reasons;

const BY_HAND: &str =
    "managedFields: [{manager: kubectl-create, operation: Update, apiVersion: traefik.io/v1alpha1}]";

/// An `IngressRoute` with these fields in `metadata` and this list as `spec.routes`.
fn route(metadata: &str, routes: &str) -> String {
    format!(
        "{{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {{name: shop-ir, namespace: web, uid: r-1, \
         resourceVersion: '7', {metadata}}}, spec: {{entryPoints: [web], routes: {routes}}}}}"
    )
}

const ONE: &str = "[{match: Host(`shop.example`), kind: Rule, services: [{name: shop-svc, port: 80}]}]";

const MANY: &str = "[
  {match: Host(`shop.example`), services: [{kind: Service, name: shop-svc, namespace: web, port: http}]},
  {match: Host(`api.example`), services: [{name: api, port: 80}]},
  {match: Host(`old.example`), services: [{name: shop-svc, port: 80}]},
]";

#[test]
fn every_entry_that_leads_to_the_target_is_patched() {
    let world = World::new(&[SERVICE, &route(BY_HAND, MANY)])
        .sticky("cookie: {maxAgeSeconds: 60, sameSite: Lax, domain: shop.example}");
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn client_addresses_are_a_strategy() {
    let world = World::new(&[SERVICE, &route(BY_HAND, ONE)]).sticky("mode: ClientIP");
    assert_yaml_snapshot!(summary(&world.plan()));
}

#[test]
fn an_object_that_helm_applies_gets_advice() {
    let metadata = "labels: {app.kubernetes.io/managed-by: Helm}, \
                    managedFields: [{manager: helm, operation: Apply, apiVersion: traefik.io/v1alpha1}]";
    assert_yaml_snapshot!(summary(&World::new(&[SERVICE, &route(metadata, MANY)]).plan()));
}

#[test]
fn who_would_undo_a_patch_gets_advice() {
    let update = "managedFields: [{manager: kubectl, operation: Update}]";
    let table = [
        (update.to_owned(), None),
        ("managedFields: [{manager: helm, operation: Apply}]".to_owned(), Some("field manager helm applies it")),
        ("managedFields: [{manager: traefik, operation: Apply, subresource: status}]".to_owned(), None),
        ("managedFields: [{manager: session-operator.p-1, operation: Apply}]".to_owned(), None),
        ("annotations: {}".to_owned(), Some("no managedFields")),
        (format!("{update}, annotations: {{meta.helm.sh/release-name: shop}}"), Some("Helm keeps it")),
        (format!("{update}, labels: {{app.kubernetes.io/managed-by: Helm}}"), Some("Helm keeps it")),
        (format!("{update}, annotations: {{argocd.argoproj.io/tracking-id: a}}"), Some("Argo CD keeps it")),
        (format!("{update}, labels: {{kustomize.toolkit.fluxcd.io/name: a}}"), Some("Flux keeps it")),
        (format!("{update}, labels: {{helm.toolkit.fluxcd.io/name: a}}"), Some("Flux keeps it")),
        (format!("{update}, labels: {{app.kubernetes.io/instance: shop}}"), None),
        (
            "managedFields: [{manager: argocd-controller, operation: Update}], labels: {app.kubernetes.io/instance: shop}"
                .to_owned(),
            Some("Argo CD keeps it"),
        ),
    ];
    for (metadata, because) in table {
        let plan = World::new(&[SERVICE, &route(&metadata, ONE)]).configured();
        let found = plan.advice.as_ref().map(|advice| advice.because.clone());
        assert_eq!(plan.writes.is_empty(), because.is_some(), "{metadata}");
        match because {
            Some(because) => assert!(
                found.as_ref().is_some_and(|found| found.contains(because)),
                "{metadata}: {found:?}"
            ),
            None => assert_eq!(found, None, "{metadata}"),
        }
    }
}

/// What the advice says is what counts as configured once it stands.
#[test]
fn advice_that_was_followed_is_configured_without_a_write() {
    let metadata = "managedFields: [{manager: helm, operation: Apply}]";
    let before = World::new(&[SERVICE, &route(metadata, ONE)]).configured();
    let advice = before.advice.expect("advice");
    assert_eq!(before.written_to, Vec::<String>::new());
    let field: serde_json::Value = parse(&advice.yaml);
    let followed = format!(
        "[{{match: Host(`shop.example`), services: [{{name: shop-svc, port: 80, sticky: {}}}]}}]",
        field["sticky"]
    );
    let after = World::new(&[SERVICE, &route(metadata, &followed)]).configured();
    assert_eq!(after.advice, None);
    assert_eq!(after.writes, Vec::new());
    assert_eq!(after.written_to, ["IngressRoute/shop-ir"]);
    let other = followed.replace("keep_", "kept_");
    assert!(
        World::new(&[SERVICE, &route(metadata, &other)])
            .configured()
            .advice
            .is_some(),
        "another name is another cookie"
    );
}

/// A record of edits made must see that they are still wanted, so they stay in the plan.
#[test]
fn edits_that_stand_stay_in_the_plan_and_are_not_missing() {
    let wanted = edits(&World::new(&[SERVICE, &route(BY_HAND, ONE)]).configured());
    let standing = format!(
        "[{{match: Host(`shop.example`), services: [{{name: shop-svc, port: 80, sticky: {}}}]}}]",
        wanted[0].value
    );
    let object = route(BY_HAND, &standing);
    assert_eq!(edits(&World::new(&[SERVICE, &object]).configured()), wanted);
    assert_eq!(missing_edits(&parse(&object), &wanted), Vec::<String>::new());
    assert_eq!(
        missing_edits(&parse(&route(BY_HAND, ONE)), &wanted).len(),
        5,
        "one pointer per attribute"
    );
}

#[test]
fn guards_name_the_entry_and_its_rule() {
    let wanted = edits(&World::new(&[SERVICE, &route(BY_HAND, ONE)]).configured());
    let moved =
        "[{match: PathPrefix(`/x`), services: [{name: shop-svc, port: 80, sticky: {cookie: {name: a}}}]}]";
    assert_eq!(
        missing_edits(&parse(&route(BY_HAND, moved)), &wanted),
        ["/spec/routes/0/services/0/sticky"],
        "what stands in another route says nothing"
    );
}

#[test]
fn a_file_kept_with_kubectl_apply_is_patched_with_a_note() {
    let metadata =
        format!("{BY_HAND}, annotations: {{kubectl.kubernetes.io/last-applied-configuration: '{{}}'}}");
    let configured = World::new(&[SERVICE, &route(&metadata, ONE)]).configured();
    assert_eq!(configured.writes.len(), 1);
    assert!(
        configured.notes.iter().any(|note| note.contains("kubectl apply")),
        "{:?}",
        configured.notes
    );
}

#[test]
fn hashing_by_address_stands_in_the_way_of_cookies() {
    let hashed = "[{match: Host(`shop.example`), services: [{name: shop-svc, port: 80, strategy: hrw}]}]";
    let configured = World::new(&[SERVICE, &route(BY_HAND, hashed)]).configured();
    assert_eq!(configured.binds, Binds::Hash);
    assert!(!configured.keeps_terminating_pods);
    assert!(
        configured.unsupported[0].contains("remove strategy"),
        "{:?}",
        configured.unsupported
    );
}

#[test]
fn split_routes_and_single_addresses_are_refused() {
    let table = [
        (
            "[{services: [{name: shop-svc, port: 80}, {name: api, port: 80}]}]",
            Some("TraefikService"),
        ),
        (
            "[{services: [{name: shop-svc, port: 80}, {name: api, port: 80, weight: 0}]}]",
            None,
        ),
        (
            "[{services: [{name: shop-svc, port: 80, nativeLB: true}]}]",
            Some("remove nativeLB"),
        ),
        (
            "[{services: [{name: shop-svc, port: 80, nodePortLB: true}]}]",
            Some("remove nodePortLB"),
        ),
        (
            "[{services: [{name: shop-svc, port: 80, nativeLB: false}]}]",
            None,
        ),
    ];
    for (routes, remedy) in table {
        let world = World::new(&[SERVICE, &route(BY_HAND, routes)]);
        match remedy {
            None => assert_eq!(world.configured().writes.len(), 1, "{routes}"),
            Some(remedy) => {
                let refusal = world.refused();
                assert_eq!(refusal.reason, reasons::MODE_UNSUPPORTED);
                assert!(refusal.message.contains(remedy), "{}", refusal.message);
            }
        }
    }
}

#[test]
fn secure_follows_spec_tls() {
    let tls = route(BY_HAND, ONE).replace("entryPoints", "tls: {}, entryPoints");
    let plan = World::new(&[
        SERVICE,
        &tls,
        &route(BY_HAND, ONE).replace("shop-ir", "shop-other"),
    ])
    .plan();
    for planned in &plan.routes {
        assert_eq!(
            edits(&configured(planned))[0].value["cookie"]["secure"],
            json!(false),
            "all routes decide"
        );
    }
    let alone = World::new(&[SERVICE, &tls]).configured();
    assert_eq!(edits(&alone)[0].value["cookie"]["secure"], json!(true));
}

#[test]
fn one_patch_per_object() {
    let configured = World::new(&[SERVICE, &route(BY_HAND, MANY)]).configured();
    let twice = configured
        .writes
        .iter()
        .chain(&configured.writes)
        .cloned()
        .collect();
    assert_eq!(merge_writes(twice).expect("equal edits"), configured.writes);
}
