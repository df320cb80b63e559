//! The alerts, as Prometheus itself understands them, and the dashboard.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::documents::{objects, of_kind, read, repository, text};

/// What every metric of the operator begins with.
const PREFIX: &str = "session_operator_";

/// Endings of the series of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_count", "_sum"];

/// Runs `promtool` (or what the environment variable PROMTOOL names).
fn promtool(arguments: &[&str], file: &PathBuf) {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let output = Command::new(&promtool)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {promtool} ({error}): install Prometheus' promtool, or set PROMTOOL to its path"
            )
        });
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `promtool` reads YAML, of which JSON is a part.
#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let objects = objects("everything");
    let groups = &of_kind(&objects, "PrometheusRule")[0]["spec"]["groups"];
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("alerts");
    std::fs::create_dir_all(&folder).unwrap();
    let rules = folder.join("rules.yaml");
    std::fs::write(&rules, json!({"groups": groups}).to_string()).unwrap();
    promtool(&["check", "rules"], &rules);
    let cases = folder.join("alerts.yaml");
    std::fs::copy(repository().join("e2e/tests/chart/alerts.yaml"), &cases).unwrap();
    promtool(&["test", "rules"], &cases);
}

#[test]
fn every_alert_has_a_case_in_which_it_fires() {
    let objects = objects("everything");
    let rule = of_kind(&objects, "PrometheusRule")[0];
    let cases = read("e2e/tests/chart/alerts.yaml");
    for alert in rule["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let name = text(alert, "/alert");
        assert!(
            cases.contains(&format!("alertname: {name}\n        exp_alerts:")),
            "e2e/tests/chart/alerts.yaml has no case in which {name} fires"
        );
    }
}

/// Names of the operator's metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    expression
        .split(|letter| !is_name(letter))
        .filter(|word| word.starts_with(PREFIX))
        .map(|word| {
            let stripped = OF_HISTOGRAMS.iter().find_map(|ending| word.strip_suffix(ending));
            stripped.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let handbook = read("docs/operations.md");
    let objects = objects("everything");
    let rule = of_kind(&objects, "PrometheusRule")[0].to_string();
    let config = of_kind(&objects, "ConfigMap")
        .into_iter()
        .find_map(|config| config["data"]["session-operator.json"].as_str());
    let dashboard: Value = serde_json::from_str(config.expect("the dashboard")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 10);
    for panel in panels {
        assert!(
            !metrics(&panel["targets"].to_string()).is_empty(),
            "{}",
            panel["title"]
        );
    }
    for name in metrics(&rule).union(&metrics(&dashboard.to_string())) {
        assert!(
            handbook.contains(&format!("| `{name}` |")),
            "docs/operations.md has no metric {name}"
        );
    }
}
