//! Who uses a store: the key prefixes that policies name.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use crate::api::SessionPolicy;

/// Name of the store that the operator makes for the policy `policy` alone.
pub fn inline_store(policy: &str) -> String {
    format!("{policy}-sessions")
}

/// Key prefixes of `store` that are used, each with the names of the policies that share it.
///
/// A policy that is being deleted or has just changed its strategy counts while it still has a binding: its pods go on
/// using the store until they are replaced.
pub fn prefixes<'a>(
    policies: impl Iterator<Item = &'a SessionPolicy>,
    store: &str,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut prefixes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for policy in policies {
        if let Some(prefix) = prefix(policy, store) {
            prefixes.entry(prefix).or_default().insert(policy.name_any());
        }
    }
    prefixes
}

fn prefix(policy: &SessionPolicy, store: &str) -> Option<String> {
    use crate::api::Strategy;
    if policy.spec.strategy != Strategy::Shared && !is_bound(policy) {
        return None;
    }
    let shared = policy.spec.shared.as_ref()?;
    let name = policy.name_any();
    match &shared.store_ref {
        Some(reference) if reference.name == store => Some(reference.key_prefix.clone().unwrap_or(name)),
        None if shared.store.is_some() && inline_store(&name) == store => Some(name),
        _ => None,
    }
}

/// Whether the policy has told pods of a store.
fn is_bound(policy: &SessionPolicy) -> bool {
    policy
        .status
        .as_ref()
        .is_some_and(|status| status.binding.is_some())
}

/// Whether the store may not be removed because of this policy. Of those that have the store to themselves a suspended one does
/// not hold it, as detaching suspends a policy and then removes its store; nor does one without a binding: the store is that of
/// a former policy of this name, and has to go before another one can be made.
pub fn holds(policy: &SessionPolicy, store: &str) -> bool {
    let is_inline = inline_store(&policy.name_any()) == store;
    prefix(policy, store).is_some() && (!is_inline || (is_bound(policy) && !policy.spec.suspend))
}

/// Whether pods of the policy's target are still to be replaced: they use what they were started with.
pub fn is_settling(policy: &SessionPolicy) -> bool {
    policy
        .status
        .as_ref()
        .and_then(|status| status.injection.as_ref())
        .is_some_and(|injection| {
            injection.update_available || injection.injected_pods != injection.total_pods
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, spec: &Value) -> SessionPolicy {
        let mut spec = spec.clone();
        spec["targetRef"] = json!({"name": "web"});
        serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionPolicy", "metadata": {"name": name}, "spec": spec
        }))
        .unwrap()
    }

    fn named(store: &str, prefix: Option<&str>) -> Value {
        json!({"strategy": "Shared", "shared": {"storeRef": {"name": store, "keyPrefix": prefix}}})
    }

    fn inline() -> Value {
        json!({"strategy": "Shared", "shared": {"store": {}}})
    }

    #[test]
    fn policies_with_one_prefix_share_it_and_others_count_for_other_stores() {
        let policies = [
            policy("web", &named("sessions", Some("shop"))),
            policy("api", &named("sessions", Some("shop"))),
            policy("blog", &named("sessions", None)),
            policy("other", &named("elsewhere", None)),
            policy("own", &inline()),
        ];
        let found = prefixes(policies.iter(), "sessions");
        let expected = [("blog", vec!["blog"]), ("shop", vec!["api", "web"])];
        assert_eq!(
            found,
            expected
                .map(|(prefix, users)| (prefix.to_owned(), users.into_iter().map(str::to_owned).collect()))
                .into()
        );
        let own = prefixes(policies.iter(), "own-sessions");
        assert_eq!(own.keys().collect::<Vec<_>>(), ["own"]);
    }

    #[test]
    fn another_strategy_counts_while_its_pods_still_have_the_binding() {
        let mut switched = policy("shop", &named("sessions", None));
        switched.spec.strategy = crate::api::Strategy::Sticky;
        assert!(prefixes(std::iter::once(&switched), "sessions").is_empty());
        switched.status = Some(serde_json::from_value(json!({"binding": {"name": "shop-session"}})).unwrap());
        assert_eq!(prefixes(std::iter::once(&switched), "sessions").len(), 1);
    }

    #[test]
    fn a_suspended_policy_holds_a_store_only_if_it_may_not_be_alone_in_it() {
        let bound = |spec: &Value| {
            let mut policy = policy("shop", spec);
            policy.status =
                Some(serde_json::from_value(json!({"binding": {"name": "shop-session"}})).unwrap());
            policy
        };
        let suspended = |spec: &Value| {
            let mut policy = bound(spec);
            policy.spec.suspend = true;
            policy
        };
        assert!(holds(&bound(&inline()), "shop-sessions"));
        assert!(
            !holds(&policy("shop", &inline()), "shop-sessions"),
            "that of a former policy"
        );
        assert!(holds(&policy("shop", &named("sessions", None)), "sessions"));
        assert!(!holds(&suspended(&inline()), "shop-sessions"));
        assert!(holds(&suspended(&named("sessions", None)), "sessions"));
        assert_eq!(
            prefixes(std::iter::once(&suspended(&inline())), "shop-sessions").len(),
            1,
            "its user stays"
        );
    }
}
