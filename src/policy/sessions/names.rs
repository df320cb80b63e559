//! Names and labels of what belongs to a policy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{POLICY_LABEL, POLICY_UID_ANNOTATION};
use crate::policy::validate::Validated;

/// The binding Secret of a policy.
pub fn binding(policy: &str) -> String {
    format!("{policy}-session")
}

/// The binding Secret of a policy whose sessions are in the pods. Another one, so that a container that is restarted while
/// sessions move still finds what its pod began with.
pub fn binding_in_pods(policy: &str) -> String {
    format!("{policy}-session-pods")
}

/// The Secret that tells sidecars of the store that sessions come from or go to.
pub fn upstream(policy: &str) -> String {
    format!("{policy}-session-upstream")
}

/// The SessionStore that the operator makes for a policy.
pub use crate::store::users::inline_store as store;

/// Metadata of an object that belongs to the policy.
///
/// No ownerReference to the policy: foreground deletion would remove the object before the policy's finalizer ran.
pub fn metadata(policy: &Validated, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(policy.namespace.clone()),
        labels: Some(labels(&policy.name)),
        annotations: Some(BTreeMap::from([(
            POLICY_UID_ANNOTATION.to_owned(),
            policy.uid.clone(),
        )])),
        ..ObjectMeta::default()
    }
}

/// Labels of everything that belongs to the policy of that name.
pub fn labels(policy: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "session-operator".to_owned(),
        ),
        (POLICY_LABEL.to_owned(), policy.to_owned()),
    ])
}

/// Whether an object belongs to the policy of that name. One of a former policy of the same name does, too: what was kept
/// of it is taken over.
pub fn is_of(meta: &ObjectMeta, policy: &str) -> bool {
    meta.labels
        .as_ref()
        .and_then(|labels| labels.get(POLICY_LABEL))
        .is_some_and(|name| name == policy)
}

/// Whether `name` is what a revision of the policy is called, whether it still exists or not.
pub fn is_revision(policy: &str, name: &str) -> bool {
    let digest = name.strip_prefix(policy).and_then(|rest| rest.strip_prefix('-'));
    digest.is_some_and(|digest| {
        digest.len() == DIGITS
            && digest
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Length of [`digest`].
const DIGITS: usize = 10;

/// Hexadecimal digits that stand for `content`.
pub fn digest(content: &impl serde::Serialize) -> String {
    // Serialising plain data to memory cannot fail.
    let bytes = serde_json::to_vec(content).unwrap_or_default();
    let mut digest = format!("{:016x}", xxhash_rust::xxh64::xxh64(&bytes, 0));
    digest.truncate(DIGITS);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_told_from_other_names() {
        let name = format!("shop-{}", digest(&"anything"));
        assert!(is_revision("shop", &name));
        for other in [
            "shop",
            "shop-",
            "shop-web",
            "shop-0123456789a",
            "shop-012345678G",
            "shop-2-0123456789",
        ] {
            assert!(!is_revision("shop", other), "{other}");
        }
    }
}
