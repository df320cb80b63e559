//! What the chart renders to, against committed output. `UPDATE_GOLDENS=1` writes it anew.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::documents::{SETS, difference, helm_with_values, identity, parse, read, render, repository};

/// The rendered text without the CRDs, which are compared with their source elsewhere.
fn render_without_crds(set: &str) -> String {
    render(set, &["--set", "crds.install=false"])
}

fn by_identity(text: &str) -> BTreeMap<String, Value> {
    parse(text)
        .into_iter()
        .map(|object| (identity(&object), object))
        .collect()
}

/// Objects are compared, not bytes: Helm 3 and Helm 4 order and indent what `toYaml` writes differently.
#[test]
fn rendered_output_is_the_committed_one() {
    for set in SETS {
        let rendered = render_without_crds(set);
        let path = format!("e2e/tests/chart/golden/{set}.yaml");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(repository().join(&path), &rendered).unwrap();
        }
        let (expected, found) = (by_identity(&read(&path)), by_identity(&rendered));
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            names(&found),
            names(&expected),
            "{path}: the objects differ; {REMEDY}"
        );
        for (name, object) in &found {
            assert_eq!(
                difference(&expected[name], object, name),
                None,
                "{path}: {REMEDY}"
            );
        }
    }
}

const REMEDY: &str = "if that is wanted, run the test once with UPDATE_GOLDENS=1 and commit the result";

#[test]
fn lint_finds_nothing_with_any_set_of_values() {
    for set in SETS {
        let output = helm_with_values(&["lint", "--strict"], set, &[]);
        assert!(
            output.status.success(),
            "helm lint --strict with {set}-values.yaml: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
