//! `crds`: the custom resource definitions as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::CommandError;
use crate::api::{SessionInjection, SessionPolicy, SessionStore};

/// All custom resource definitions of this version.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![SessionPolicy::crd(), SessionInjection::crd(), SessionStore::crd()]
}

/// The definitions as a stream of YAML documents.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for crd in all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Prints the definitions.
pub fn print() -> Result<(), CommandError> {
    print!("{}", yaml()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_one_document_per_kind() {
        let text = yaml().unwrap();
        assert_eq!(
            text.matches("\nkind: CustomResourceDefinition\n").count(),
            all().len()
        );
        assert_eq!(text.lines().filter(|line| *line == "---").count(), all().len());
        assert!(text.starts_with("---\n") && text.ends_with('\n'));
    }

    /// Kubernetes' API conventions forbid unsigned integers, and `format: uint32` is none that API servers know.
    #[test]
    fn no_unsigned_types() {
        let text = yaml().unwrap();
        assert!(!text.contains("format: uint"), "use i32 or i64 with a range");
    }
}
