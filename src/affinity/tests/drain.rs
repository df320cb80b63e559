use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, NGINX_CLASS, SERVICE, TRAEFIK_CLASS, World, parse};
use crate::affinity::drain::{Verdict, judge, lacks_hand_over, window_seconds};

fn deployment(pod: &str, container: &str) -> k8s_openapi::api::apps::v1::Deployment {
    parse(&format!(
        "{{metadata: {{name: storefront}}, spec: {{selector: {{}}, template: {{spec: {{{pod}containers: [{{name: \
         php{container}}}]}}}}}}}}"
    ))
}

const HANDOVER: &str = ", lifecycle: {preStop: {exec: {command: [/bin/sh, -c, 'sleep 20; touch /tmp/x; sleep 5']}}}, \
                        readinessProbe: {periodSeconds: 1, failureThreshold: 1}";

#[test]
fn a_bare_template_lacks_everything() {
    let verdict = judge(&deployment("", ""), 30, "Traefik", true, false);
    assert_yaml_snapshot!(verdict.unsupported);
}

#[test]
fn what_the_snippets_say_is_enough() {
    let handover = deployment("terminationGracePeriodSeconds: 40, ", HANDOVER);
    assert_eq!(judge(&handover, 20, "Traefik", true, false), Verdict::default());
    assert_eq!(
        judge(&deployment("", ""), 0, "IngressNginx", false, false),
        Verdict::default(),
        "no wish, no verdict"
    );
}

/// Each row lacks one thing only.
#[test]
fn each_part_is_judged_by_itself() {
    let table = [
        (
            "terminationGracePeriodSeconds: 25, ",
            HANDOVER.to_owned(),
            "terminationGracePeriodSeconds is 25",
        ),
        (
            "",
            HANDOVER.replace("sleep 20", "sleep 2"),
            "has a preStop hook of 7 s",
        ),
        (
            "",
            HANDOVER.replace("periodSeconds: 1,", "periodSeconds: 10,"),
            "turns false only after 10 s (10 s x 1)",
        ),
        (
            "",
            HANDOVER.replace(", failureThreshold: 1", ", failureThreshold: 6"),
            "turns false only after 6 s",
        ),
        (
            "",
            HANDOVER[..HANDOVER.find(", readinessProbe").expect("a probe")].to_owned(),
            "has no readiness probe",
        ),
    ];
    for (pod, container, lacking) in table {
        let verdict = judge(&deployment(pod, &container), 20, "Traefik", true, false);
        assert_eq!(
            verdict.unsupported.len(),
            1,
            "{lacking}: {:?}",
            verdict.unsupported
        );
        assert!(
            verdict.unsupported[0].contains(lacking),
            "{}",
            verdict.unsupported[0]
        );
    }
}

#[test]
fn a_controller_that_drops_terminating_pods_makes_the_template_irrelevant() {
    let verdict = judge(&deployment("", ""), 30, "IngressNginx", false, false);
    assert_eq!(verdict.unsupported.len(), 1);
    assert!(verdict.unsupported[0].contains("IngressNginx sends a terminating pod nothing more"));
    assert!(!verdict.unsupported[0].contains("sidecar"));
    // But a policy that may add to the pods has them leave in order.
    let patient = deployment("terminationGracePeriodSeconds: 60, ", "");
    let verdict = judge(&patient, 30, "IngressNginx", false, true);
    assert!(verdict.unsupported[0].contains("a sidecar has it serve on for 10 s"));
}

#[test]
fn a_pod_that_stays_ready_to_its_end_is_noted() {
    let asleep = HANDOVER.replace(
        "exec: {command: [/bin/sh, -c, 'sleep 20; touch /tmp/x; sleep 5']}",
        "sleep: {seconds: 25}",
    );
    let verdict = judge(
        &deployment("terminationGracePeriodSeconds: 40, ", &asleep),
        20,
        "Traefik",
        true,
        false,
    );
    assert_eq!(verdict.unsupported, Vec::<String>::new());
    assert!(
        verdict.notes[0].contains("stays ready until it ends"),
        "{:?}",
        verdict.notes
    );
}

#[test]
fn the_window_is_what_surely_is_served() {
    let hook = |hook: &str| format!(", lifecycle: {{preStop: {{{hook}}}}}");
    let shell = |script: &str| hook(&format!("exec: {{command: [sh, -c, '{script}']}}"));
    for (pod, container, seconds) in [
        ("", String::new(), 0),
        ("", hook("sleep: {seconds: 12}"), 12),
        ("", hook("sleep: {seconds: 60}"), 30),
        (
            "terminationGracePeriodSeconds: 90, ",
            hook("sleep: {seconds: 60}"),
            60,
        ),
        ("", hook("exec: {command: [/bin/sleep, '7']}"), 7),
        ("", shell("sleep 5 && touch /x && sleep 3s"), 8),
        ("terminationGracePeriodSeconds: 600, ", shell("sleep 2m"), 120),
        ("", shell("sleep 5 || true"), 0),
        ("", shell("sleep 20 &"), 0),
        ("", shell("while test -e /x; do sleep 1; done"), 0),
        ("", shell("sleep $DRAIN"), 0),
        ("", shell("/drain.sh"), 0),
        ("", hook("httpGet: {port: 80}"), 0),
    ] {
        assert_eq!(
            window_seconds(&deployment(pod, &container)),
            seconds,
            "{container}"
        );
    }
}

#[test]
fn the_annotated_container_is_the_one_that_counts() {
    let two: k8s_openapi::api::apps::v1::Deployment = parse(
        "{spec: {selector: {}, template: {metadata: {annotations: {kubectl.kubernetes.io/default-container: php}}, \
         spec: {containers: [{name: proxy}, {name: php, lifecycle: {preStop: {sleep: {seconds: 9}}}}]}}}}",
    );
    assert_eq!(window_seconds(&two), 9);
}

#[test]
fn plans_carry_the_verdict() {
    for (class, lacking) in [
        (TRAEFIK_CLASS, "has no preStop hook"),
        (NGINX_CLASS, "sends a terminating pod nothing"),
    ] {
        let configured = World::new(&[SERVICE, class, INGRESS])
            .sticky("drainSeconds: 10")
            .configured();
        assert!(
            configured.unsupported[0].contains(lacking),
            "{:?}",
            configured.unsupported
        );
    }
}

/// The pod's fields, the container's, and whether the sidecar is added for a drain of 20 s.
#[test]
fn a_sidecar_hands_over_where_it_can_and_the_template_does_not() {
    let sleeping = |seconds: u32| format!(", lifecycle: {{preStop: {{sleep: {{seconds: {seconds}}}}}}}");
    let probe = ", readinessProbe: {periodSeconds: 1, failureThreshold: 1}";
    let grace = "terminationGracePeriodSeconds: 35, ";
    for (pod, container, added) in [
        (grace, String::new(), true),
        (grace, sleeping(30), true),
        (grace, format!("{}{probe}", sleeping(30)), true),
        // Whose own preStop hook ends before the sidecar is through.
        (grace, sleeping(29), false),
        (
            grace,
            ", lifecycle: {preStop: {exec: {command: [/drain.sh]}}}".to_owned(),
            false,
        ),
        ("terminationGracePeriodSeconds: 34, ", String::new(), false),
        ("", String::new(), false),
        (
            "hostNetwork: true, terminationGracePeriodSeconds: 35, ",
            String::new(),
            false,
        ),
        // It does all of it by itself.
        ("terminationGracePeriodSeconds: 40, ", HANDOVER.to_owned(), false),
    ] {
        let target = deployment(pod, &container);
        assert_eq!(lacks_hand_over(&target, 20), added, "{pod}{container}");
        assert!(!lacks_hand_over(&target, 0), "no wish");
    }
}

#[test]
fn what_is_added_to_the_pods_is_not_asked_for() {
    let bare = deployment("terminationGracePeriodSeconds: 35, ", "");
    assert_eq!(judge(&bare, 20, "Traefik", true, true), Verdict::default());
    assert_eq!(judge(&bare, 20, "Traefik", true, false).unsupported.len(), 2);
    let short = judge(&deployment("", ""), 20, "Traefik", true, true);
    assert_eq!(short.unsupported.len(), 1);
    assert!(
        short.unsupported[0].ends_with("terminationGracePeriodSeconds: 35"),
        "{:?}",
        short.unsupported
    );
    let own = ", lifecycle: {preStop: {sleep: {seconds: 5}}}";
    let verdict = judge(&deployment("", own), 20, "Traefik", true, true);
    assert!(
        verdict.unsupported[0].contains("has a preStop hook of 5 s"),
        "{:?}",
        verdict.unsupported
    );
}
