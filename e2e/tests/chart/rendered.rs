//! Single promises of the chart: kept CRDs, toggles, selectors, values and their documentation.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::documents::{
    SETS, annotation, chart, difference, helm_with_values, identity, list, objects, of_kind, parse, read,
    render, repository, text,
};

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths
        .map(|path| (name(&path), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn crds_are_those_of_the_repository_and_are_kept() {
    let source = files(&repository().join("crds"));
    assert!(!source.is_empty(), "crds/ holds no definitions");
    assert_eq!(
        files(&chart().join("files/crds")),
        source,
        "the chart's copies of crds/* are stale: run `make crds`"
    );

    let expected: Vec<Value> = source.values().flat_map(|text| parse(text)).collect();
    for set in SETS {
        let objects = objects(set);
        let rendered = of_kind(&objects, "CustomResourceDefinition");
        assert_eq!(rendered.len(), expected.len(), "{set}");
        for (crd, source) in rendered.iter().zip(&expected) {
            assert_eq!(annotation(crd, "helm.sh/resource-policy"), "keep", "{set}");
            assert_eq!(identity(crd), identity(source), "{set}");
            let difference = difference(&source["spec"], &crd["spec"], "spec");
            assert_eq!(difference, None, "{set}: templating changed the definition");
        }
    }
}

#[test]
fn toggles_leave_out_what_they_name() {
    for (toggle, kind) in [
        ("crds.install=false", "CustomResourceDefinition"),
        ("uninstallGuard.enabled=false", "Job"),
        ("podDisruptionBudget.enabled=false", "PodDisruptionBudget"),
        ("serviceMonitor.enabled=false", "ServiceMonitor"),
        ("prometheusRule.enabled=false", "PrometheusRule"),
        ("networkPolicy.enabled=false", "NetworkPolicy"),
    ] {
        let with = objects("everything");
        assert!(
            !of_kind(&with, kind).is_empty(),
            "{kind} is there with every toggle on"
        );
        let without = parse(&render("everything", &["--set", toggle]));
        assert!(
            of_kind(&without, kind).is_empty(),
            "{kind} is there with {toggle}"
        );
    }
    let aggregated = |objects: &[Value]| {
        objects
            .iter()
            .filter(|object| text(object, "/metadata/name").ends_with(":edit"))
            .count()
    };
    assert_eq!(aggregated(&objects("defaults")), 1);
    let without = parse(&render(
        "defaults",
        &["--set", "rbac.aggregateToDefaultRoles=false"],
    ));
    assert_eq!(aggregated(&without), 0);
}

/// A second disruption budget or a first network policy on somebody else's pods would break them.
#[test]
fn selectors_match_pods_of_this_release_only() {
    for set in SETS {
        let objects = objects(set);
        let deployment = of_kind(&objects, "Deployment")[0];
        let labels = deployment.pointer("/spec/template/metadata/labels").unwrap();
        for (kind, pointer) in [
            ("Deployment", "/spec/selector/matchLabels"),
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ] {
            for object in of_kind(&objects, kind) {
                let selector = object.pointer(pointer).and_then(Value::as_object).unwrap();
                for key in ["app.kubernetes.io/name", "app.kubernetes.io/instance"] {
                    assert!(
                        selector.contains_key(key),
                        "{set}: {} does not select by {key}",
                        identity(object)
                    );
                }
                for (key, value) in selector {
                    assert_eq!(
                        labels.get(key),
                        Some(value),
                        "{set}: {} misses the operator's pods",
                        identity(object)
                    );
                }
            }
        }
    }
}

#[test]
fn two_replicas_spread_over_hosts_and_answer_probes() {
    let objects = objects("defaults");
    let deployment = of_kind(&objects, "Deployment")[0];
    assert_eq!(deployment.pointer("/spec/replicas"), Some(&Value::from(2)));
    let spread = "/spec/template/spec/topologySpreadConstraints/0/topologyKey";
    assert_eq!(text(deployment, spread), "kubernetes.io/hostname");
    let container = deployment.pointer("/spec/template/spec/containers/0").unwrap();
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(text(container, &format!("/{probe}/httpGet/path")), path);
    }
    let budget = of_kind(&objects, "PodDisruptionBudget")[0];
    assert_eq!(budget.pointer("/spec/maxUnavailable"), Some(&Value::from(1)));
}

#[test]
fn images_are_named_by_tag_or_digest() {
    let image = |more: &[&str]| {
        let objects = parse(&render("defaults", more));
        text(
            of_kind(&objects, "Deployment")[0],
            "/spec/template/spec/containers/0/image",
        )
        .to_owned()
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(image(&[]), "session-operator.dev/session-operator:0.1.0");
    assert_eq!(
        image(&["--set", "image.tag=1.2.3"]),
        "session-operator.dev/session-operator:1.2.3"
    );
    assert_eq!(
        image(&[
            "--set",
            "image.tag=1.2.3",
            "--set",
            &format!("image.digest={digest}")
        ]),
        format!("session-operator.dev/session-operator@{digest}")
    );
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    for (argument, expected) in [
        ("replicas=3", "replicas"),
        ("image.registry=example.org", "registry"),
        ("watchNamespaces={Shops}", "watchNamespaces"),
        ("image.digest=sha256:abc", "digest"),
        ("log.format=xml", "format"),
        (r"podLabels.app\.kubernetes\.io/name=x", "podLabels"),
    ] {
        let output = helm_with_values(&["template", "x"], "defaults", &["--set", argument]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{argument} is accepted");
        assert!(
            message.contains(expected),
            "{argument}: the message does not name {expected}: {message}"
        );
    }
    let output = helm_with_values(&["template", "x"], "defaults", &["--kube-version", "1.32.9"]);
    assert!(!output.status.success(), "Kubernetes 1.32 is accepted");
}

/// An object of the schema that lists its properties allows no others.
fn assert_closed(schema: &Value, path: &str) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        assert_eq!(
            schema.get("additionalProperties"),
            Some(&Value::Bool(false)),
            "{path} is open"
        );
        for (name, property) in properties {
            assert_closed(property, &format!("{path}.{name}"));
        }
    }
    if let Some(items) = schema.get("items") {
        assert_closed(items, &format!("{path}[]"));
    }
}

/// The names of all values, with dots: those of lists, scalars and of objects that users fill freely.
fn value_names(values: &Value, schema: &Value, definitions: &Value, prefix: &str, names: &mut Vec<String>) {
    for (key, value) in values.as_object().unwrap() {
        let name = format!("{prefix}{key}");
        let mut known = schema
            .pointer(&format!("/properties/{key}"))
            .unwrap_or_else(|| panic!("{name}: not in the schema"));
        if let Some(name) = text(known, "/$ref").strip_prefix("#/definitions/") {
            known = &definitions[name];
        }
        if known.get("properties").is_some() && !name.starts_with("resources") {
            value_names(value, known, definitions, &format!("{name}."), names);
        } else {
            names.push(name);
        }
    }
}

#[test]
fn every_value_is_in_the_schema_and_in_the_readme() {
    let schema: Value = serde_json::from_str(&read("charts/session-operator/values.schema.json")).unwrap();
    assert_closed(&schema, "values");
    let values = &parse(&read("charts/session-operator/values.yaml"))[0];
    let mut names = Vec::new();
    value_names(values, &schema, &schema["definitions"], "", &mut names);
    let readme = read("charts/session-operator/README.md");
    let documented: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    for name in &names {
        assert!(
            documented.contains(&name.as_str()),
            "charts/session-operator/README.md has no row for `{name}`"
        );
    }
    for name in documented {
        assert!(
            names.iter().any(|known| known == name),
            "charts/session-operator/README.md: `{name}` is no value"
        );
    }
}

#[test]
fn every_alert_has_a_runbook() {
    let objects = objects("everything");
    let rule = of_kind(&objects, "PrometheusRule")[0];
    let alerts = list(rule, "/spec/groups/0/rules");
    let handbook = read("docs/operations.md");
    assert!(alerts.len() >= 5);
    for alert in alerts {
        let name = text(alert, "/alert");
        assert!(
            handbook.contains(&format!("\n### {name}\n")),
            "docs/operations.md has no section {name}"
        );
        let url = text(alert, "/annotations/runbook_url");
        assert!(
            url.ends_with(&format!("#{}", name.to_lowercase())),
            "{name}: {url}"
        );
    }
}

/// Without a cluster Helm knows no kinds; a real one lists Pod, and MutatingAdmissionPolicy from 1.36 on.
#[test]
fn the_mechanism_of_injection_follows_the_cluster_and_is_never_guessed() {
    let auto = ["--set", "injection.mode=Auto"];
    let output = helm_with_values(&["template", "x"], "defaults", &auto);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "guessed");
    assert!(
        message.contains("injection.mode=Policy"),
        "no remedy in: {message}"
    );
    assert!(
        message.contains("injection.mode=Webhook"),
        "no remedy in: {message}"
    );

    let mechanisms = |more: &[&str]| {
        let objects = parse(&render("defaults", &[&auto[..], more].concat()));
        [
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
        ]
        .map(|kind| of_kind(&objects, kind).len())
    };
    let old = ["--api-versions", "v1/Pod"];
    let new = [
        "--api-versions",
        "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
    ];
    assert_eq!(mechanisms(&old), [0, 0, 1]);
    assert_eq!(mechanisms(&[old, new].concat()), [1, 1, 0]);
}

/// Whatever Helm or `kubectl apply` writes must not take away what the operator fills in.
#[test]
fn the_webhook_is_reached_by_its_service_and_filled_in_by_the_operator() {
    let objects = objects("everything");
    let configuration = of_kind(&objects, "MutatingWebhookConfiguration")[0];
    let client = configuration.pointer("/webhooks/0/clientConfig").unwrap();
    assert_eq!(client.get("caBundle"), None);
    let name = text(client, "/service/name");
    let service = of_kind(&objects, "Service")
        .into_iter()
        .find(|service| text(service, "/metadata/name") == name)
        .expect("the webhook's Service");
    let deployment = of_kind(&objects, "Deployment")[0];
    let ports = list(deployment, "/spec/template/spec/containers/0/ports");
    let port = text(service, "/spec/ports/0/targetPort");
    assert!(ports.iter().any(|known| text(known, "/name") == port));
    let served = format!(
        "--webhook-names={name}.{}.svc",
        text(client, "/service/namespace")
    );
    let arguments = list(deployment, "/spec/template/spec/containers/0/args");
    assert!(
        arguments.iter().any(|argument| argument == served.as_str()),
        "{served}"
    );
    let secrets = of_kind(&objects, "Secret");
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].get("data"), None);
}
