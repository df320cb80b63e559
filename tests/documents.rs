//! What the repository's documents say is what the code says.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use k8s_openapi::api::apps::v1::Deployment;
    use kube::CustomResourceExt;
    use kube::core::cel::validate_cel;
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;
    use session_operator::affinity::drain;
    use session_operator::api::{SessionPolicy, SessionStore};

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Names of the constants of a module of `conditions.rs` with their values.
    fn constants(source: &str, module: &str) -> BTreeSet<String> {
        let start = source.find(&format!("pub mod {module} {{")).unwrap();
        let body = source[start..].split("\n}").next().unwrap();
        let values = body
            .split("&str = \"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned());
        values.collect()
    }

    #[test]
    fn every_condition_and_reason_is_documented_and_no_other() {
        let source = read(&repository().join("src/api/conditions.rs"));
        let document = read(&repository().join("docs/conditions.md"));
        let rows: BTreeSet<String> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(str::to_owned)
            .collect();
        let types = constants(&source, "types");
        let reasons = constants(&source, "reasons");
        assert!(
            types.len() >= 3 && reasons.len() >= 15,
            "conditions.rs is read wrongly: {types:?} {reasons:?}"
        );
        let survival = constants(&read(&repository().join("src/policy/survives.rs")), "reasons");
        assert!(survival.len() >= 10, "survives.rs is read wrongly: {survival:?}");
        let known: BTreeSet<String> = [types, reasons, survival].into_iter().flatten().collect();
        assert_eq!(
            rows, known,
            "left: docs/conditions.md, right: the constants in the code"
        );
    }

    /// Every Rust file below a folder.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(read(&path));
            }
        }
    }

    #[test]
    fn every_complaint_has_a_test_that_exists() {
        let mut code = Vec::new();
        for folder in ["src", "e2e/tests"] {
            sources(&repository().join(folder), &mut code);
        }
        let document = read(&repository().join("docs/complaints.md"));
        let rows = document.lines().filter(|line| line.starts_with("| ")).skip(2);
        let mut seen = 0;
        for row in rows {
            let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let names: Vec<&str> = tests
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|name| !name.contains(' '))
                .collect();
            assert!(!names.is_empty(), "no test is named: {row}");
            for name in names {
                let is_there = code.iter().any(|file| file.contains(&format!("fn {name}(")));
                assert!(is_there, "no test is called {name}: {row}");
            }
            seen += 1;
        }
        assert!(seen >= 15, "docs/complaints.md is read wrongly: {seen} rows");
    }

    /// The YAML blocks of a Markdown document.
    fn yaml_blocks(markdown: &str) -> Vec<&str> {
        markdown
            .split("```yaml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect()
    }

    /// Every object in `examples/` and in YAML blocks of the README.
    fn examples() -> Vec<(PathBuf, Value)> {
        let entries = std::fs::read_dir(repository().join("examples")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.push(repository().join("README.md"));
        let documents = |path: PathBuf| {
            let text = read(&path);
            let markdown = path.extension().is_some_and(|extension| extension == "md");
            let parts = if markdown {
                yaml_blocks(&text)
            } else {
                vec![text.as_str()]
            };
            let parsed = parts
                .into_iter()
                .flat_map(|part| serde_saphyr::from_multiple::<Value>(part).unwrap());
            let named: Vec<_> = parsed.map(|value| (path.clone(), value)).collect();
            named
        };
        paths.into_iter().flat_map(documents).collect()
    }

    /// Whether everything that `given` says is also said by `kept`.
    fn is_kept(given: &Value, kept: &Value) -> bool {
        match (given, kept) {
            (Value::Object(given), Value::Object(kept)) => given
                .iter()
                .all(|(key, value)| kept.get(key).is_some_and(|kept| is_kept(value, kept))),
            _ => given == kept,
        }
    }

    #[test]
    fn examples_are_valid_and_spell_every_field_as_the_api_does() {
        let (mut policies, mut stores) = (0, 0);
        for (path, value) in examples() {
            if value["kind"] == "SessionPolicy" {
                policies += 1;
                is_valid::<SessionPolicy>(&path, &value);
            } else if value["kind"] == "SessionStore" {
                stores += 1;
                is_valid::<SessionStore>(&path, &value);
            }
        }
        assert!(policies >= 6 && stores >= 1, "{policies} {stores}");
    }

    fn is_valid<K: DeserializeOwned + Serialize + CustomResourceExt>(path: &Path, value: &Value) {
        let path = path.display();
        let object: K = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(
            is_kept(value, &serde_json::to_value(&object).unwrap()),
            "{path} has an unknown field: {value}"
        );
        let refused = validate_cel(&object).err();
        assert!(refused.is_none(), "{path} is refused: {refused:?}");
    }

    #[test]
    fn the_drain_example_lacks_nothing() {
        let of_file = |(path, _): &(PathBuf, Value)| path.ends_with("sticky-drain.yaml");
        let objects: Vec<Value> = examples()
            .into_iter()
            .filter(of_file)
            .map(|(_, value)| value)
            .collect();
        let of_kind = |kind: &str| {
            objects
                .iter()
                .find(|value| value["kind"] == kind)
                .unwrap()
                .clone()
        };
        let policy: SessionPolicy = serde_json::from_value(of_kind("SessionPolicy")).unwrap();
        let wanted = policy.spec.sticky.unwrap().drain_seconds;
        assert_eq!(wanted, 60);
        let mut deployment: Deployment = serde_json::from_value(of_kind("Deployment")).unwrap();
        let verdict = drain::judge(&deployment, wanted, "Traefik", true, false);
        assert_eq!(verdict, drain::Verdict::default());

        let template = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        template.termination_grace_period_seconds = None;
        let verdict = drain::judge(&deployment, wanted, "Traefik", true, false);
        assert!(
            !verdict.unsupported.is_empty(),
            "without its grace period it lacks something"
        );
    }

    /// Targets of the links of a Markdown document, without what leads out of the repository.
    fn links(markdown: &str) -> impl Iterator<Item = &str> {
        let targets = markdown
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://"))
    }

    /// The anchor that a heading gets: lower case, spaces as hyphens, punctuation dropped.
    fn anchor(heading: &str) -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars()
            .filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
            .collect()
    }

    #[test]
    fn links_between_documents_lead_somewhere() {
        let mut documents: Vec<PathBuf> = Vec::new();
        for folder in ["", "docs", "charts/session-operator", "e2e/cluster"] {
            let entries = std::fs::read_dir(repository().join(folder)).unwrap();
            documents.extend(entries.map(|entry| entry.unwrap().path()));
        }
        documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        assert!(documents.len() >= 8);
        for document in documents {
            let text = read(&document);
            for link in links(&text) {
                let (file, section) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => document.clone(),
                    file => document.parent().unwrap().join(file),
                };
                assert!(target.exists(), "{}: {link} leads nowhere", document.display());
                let known = section.is_empty()
                    || read(&target).lines().any(|line| {
                        line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == section
                    });
                assert!(known, "{}: {link}: no such section", document.display());
            }
        }
    }
}
