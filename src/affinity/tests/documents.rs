//! `docs/controllers.md` names what exists.

use std::path::Path;

use crate::affinity::adapter::ADAPTERS;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Rows of the first table: cells without the outer bars.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let table = document
        .lines()
        .skip_while(|line| !line.starts_with("| controller and route"));
    table
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_tests_that_rows_are_proved_with_exist() {
    let document = read("docs/controllers.md");
    let rows = rows(&document);
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        let proof = row.last().expect("a last cell");
        let named = proof.split('`').nth(1).expect("a test in backticks");
        let (module, function) = named
            .split_once("::")
            .map_or((named, None), |(m, f)| (m, Some(f)));
        let source = read(&format!("src/affinity/tests/{module}.rs"));
        let proof = function.map_or_else(|| "#[test]".to_owned(), |function| format!("\nfn {function}("));
        assert!(source.contains(&proof), "{named} does not exist");
    }
}

#[test]
fn every_class_that_is_recognised_is_in_the_table() {
    let document = read("docs/controllers.md");
    for class in ADAPTERS.iter().flat_map(|adapter| adapter.class_controllers()) {
        assert!(
            document.contains(&format!("class `{class}`")),
            "{class} is missing in docs/controllers.md"
        );
    }
}
