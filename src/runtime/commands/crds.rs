//! `crds`: the custom resource definitions as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::CommandError;
use crate::api::SessionPolicy;

/// All custom resource definitions of this version.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![SessionPolicy::crd()]
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
