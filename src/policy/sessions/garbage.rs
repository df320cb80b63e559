//! Revisions that nothing names any more. Pure.

use std::collections::BTreeSet;

/// Of the revisions `all`, those that neither the template nor a ReplicaSet nor a pod names: a rollback has to find the
/// revision with which the pods ran then.
pub fn unused<'a>(
    all: impl IntoIterator<Item = &'a str>,
    mark: Option<&str>,
    named: &BTreeSet<String>,
) -> Vec<&'a str> {
    all.into_iter()
        .filter(|name| Some(*name) != mark && !named.contains(*name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rollback_needs_is_kept() {
        let named = BTreeSet::from(["shop-2".to_owned()]);
        assert_eq!(
            unused(["shop-1", "shop-2", "shop-3"], Some("shop-3"), &named),
            ["shop-1"]
        );
        assert_eq!(unused(["shop-1"], None, &BTreeSet::new()), ["shop-1"]);
    }
}
