use insta::assert_yaml_snapshot;

use super::fixture::{INGRESS, NGINX_CLASS, SERVICE, TRAEFIK_CLASS, World, parse};
use crate::affinity::drain::{Verdict, judge, window_seconds};

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
    let verdict = judge(&deployment("", ""), 30, "Traefik", true);
    assert_yaml_snapshot!(verdict.unsupported);
}

#[test]
fn what_the_snippets_say_is_enough() {
    let handover = deployment("terminationGracePeriodSeconds: 40, ", HANDOVER);
    assert_eq!(judge(&handover, 20, "Traefik", true), Verdict::default());
    assert_eq!(
        judge(&deployment("", ""), 0, "IngressNginx", false),
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
        let verdict = judge(&deployment(pod, &container), 20, "Traefik", true);
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
    let verdict = judge(&deployment("", ""), 30, "IngressNginx", false);
    assert_eq!(verdict.unsupported.len(), 1);
    assert!(verdict.unsupported[0].contains("IngressNginx sends a terminating pod nothing more"));
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
