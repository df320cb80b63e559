//! Revisions that nothing names any more. Pure.

use std::collections::BTreeSet;

/// Of the revisions `all`, those that are neither about to be named nor named by the template, a ReplicaSet or a pod: a
/// rollback has to find the revision with which the pods ran then.
pub fn unused<'a>(
    all: impl IntoIterator<Item = &'a str>,
    wanted: &[Option<&str>],
    named: &BTreeSet<String>,
) -> Vec<&'a str> {
    all.into_iter()
        .filter(|name| !wanted.contains(&Some(*name)) && !named.contains(*name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rollback_needs_is_kept() {
        let named = BTreeSet::from(["shop-2".to_owned()]);
        assert_eq!(
            unused(["shop-1", "shop-2", "shop-3"], &[Some("shop-3"), None], &named),
            ["shop-1"]
        );
        assert_eq!(unused(["shop-1"], &[None], &BTreeSet::new()), ["shop-1"]);
    }

    #[test]
    fn what_admission_has_yet_to_learn_is_kept() {
        let marked_and_coming = [Some("shop-1"), Some("shop-2")];
        assert_eq!(
            unused(["shop-1", "shop-2"], &marked_and_coming, &BTreeSet::new()),
            Vec::<&str>::new()
        );
    }
}
