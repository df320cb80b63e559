//! What the chart grants is what the operator calls: no call without a rule, no rule without a call.

use std::collections::BTreeSet;

use serde_json::Value;
use session_operator::runtime::permissions::{
    CLUSTER, LEASE, LEASE_CREATE, NAMESPACED, Permission, WEBHOOK, WEBHOOK_CONFIGURATION, WEBHOOK_SECRET,
    WEBHOOK_SECRET_CREATE,
};

use crate::documents::{RELEASE, SETS, annotation, identity, list, objects, of_kind, strings, text};

/// One thing that a subject may do: namespace ("" at cluster scope and for all namespaces), group, resource, name
/// ("" for any) and verb.
type Grant = (String, String, String, String, String);

fn grants_of(role: &Value) -> BTreeSet<Grant> {
    let namespace = text(role, "/metadata/namespace");
    let mut grants = BTreeSet::new();
    for rule in list(role, "/rules") {
        let names = strings(rule, "/resourceNames");
        let names = if names.is_empty() { vec![""] } else { names };
        for group in strings(rule, "/apiGroups") {
            for resource in strings(rule, "/resources") {
                for verb in strings(rule, "/verbs") {
                    for name in &names {
                        grants.insert([namespace, group, resource, name, verb].map(str::to_owned).into());
                    }
                }
            }
        }
    }
    grants
}

/// Everything that the bindings of the chart grant to a `ServiceAccount` of the release's namespace.
fn grants_to(objects: &[Value], account: &str) -> BTreeSet<Grant> {
    let mut grants = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|object| text(object, "/kind").ends_with("RoleBinding"))
    {
        let subjects = list(binding, "/subjects");
        let bound = subjects.iter().any(|subject| {
            text(subject, "/kind") == "ServiceAccount"
                && text(subject, "/name") == account
                && text(subject, "/namespace") == RELEASE
        });
        if !bound {
            continue;
        }
        let kind = text(binding, "/roleRef/kind");
        let namespace = text(binding, "/metadata/namespace");
        assert_eq!(
            kind == "ClusterRole",
            text(binding, "/kind") == "ClusterRoleBinding",
            "{} binds a {kind}",
            identity(binding)
        );
        let role = of_kind(objects, kind).into_iter().find(|role| {
            text(role, "/metadata/name") == text(binding, "/roleRef/name")
                && text(role, "/metadata/namespace") == namespace
        });
        grants.extend(grants_of(role.unwrap_or_else(|| {
            panic!("{} binds a role that is not there", identity(binding))
        })));
    }
    grants
}

fn account_of(objects: &[Value], kind: &str) -> String {
    let pods = of_kind(objects, kind);
    let [object] = pods.as_slice() else {
        panic!("the chart has one {kind}, not {}", pods.len())
    };
    text(object, "/spec/template/spec/serviceAccountName").to_owned()
}

/// The argument `--NAME=…` of the operator's container.
fn argument<'a>(objects: &'a [Value], name: &str) -> Option<&'a str> {
    let deployment = of_kind(objects, "Deployment")[0];
    let prefix = format!("--{name}=");
    strings(deployment, "/spec/template/spec/containers/0/args")
        .into_iter()
        .find_map(|argument| argument.strip_prefix(&prefix))
}

#[test]
fn the_operator_may_do_what_it_does_and_no_more() {
    for set in SETS {
        let objects = objects(set);
        let watched: Vec<&str> =
            argument(&objects, "namespaces").map_or(vec![""], |list| list.split(',').collect());
        let lease = argument(&objects, "lease-name").unwrap();
        let mut needed = BTreeSet::new();
        let mut need = |namespace: &str, permissions: &[Permission], only: Option<&str>| {
            for permission in permissions {
                let subresource = permission.subresource.map(|name| format!("/{name}"));
                let resource = format!("{}{}", permission.resource, subresource.unwrap_or_default());
                let name = only.or(permission.name).unwrap_or_default();
                for verb in permission.verbs {
                    needed.insert(
                        [namespace, permission.group, &resource, name, verb]
                            .map(str::to_owned)
                            .into(),
                    );
                }
            }
        };
        for namespace in &watched {
            need(namespace, NAMESPACED, None);
        }
        need("", CLUSTER, None);
        need(RELEASE, &[LEASE], Some(lease));
        need(RELEASE, &[LEASE_CREATE], None);
        if let Some(configuration) = argument(&objects, "webhook-configuration") {
            for namespace in &watched {
                need(namespace, WEBHOOK, None);
            }
            need("", &[WEBHOOK_CONFIGURATION], Some(configuration));
            need(RELEASE, &[WEBHOOK_SECRET], argument(&objects, "webhook-secret"));
            need(RELEASE, &[WEBHOOK_SECRET_CREATE], None);
        }
        let granted = grants_to(&objects, &account_of(&objects, "Deployment"));
        let missing: Vec<_> = needed.difference(&granted).collect();
        let too_much: Vec<_> = granted.difference(&needed).collect();
        assert!(
            missing.is_empty(),
            "{set}: the operator calls, and the chart does not grant: {missing:?}"
        );
        assert!(
            too_much.is_empty(),
            "{set}: the chart grants, and the operator does not call: {too_much:?}"
        );
    }
}

#[test]
fn the_uninstall_guard_only_lists_policies_and_stores() {
    for set in SETS {
        let objects = objects(set);
        let account = account_of(&objects, "Job");
        assert_ne!(
            account,
            account_of(&objects, "Deployment"),
            "{set}: the guard has an account of its own"
        );
        let watched: Vec<&str> =
            argument(&objects, "namespaces").map_or(vec![""], |list| list.split(',').collect());
        let expected: BTreeSet<Grant> = watched
            .iter()
            .flat_map(|namespace| {
                ["sessionpolicies", "sessionstores"].map(|resource| {
                    [namespace, "session-operator.dev", resource, "", "list"]
                        .map(str::to_owned)
                        .into()
                })
            })
            .collect();
        assert_eq!(grants_to(&objects, &account), expected, "{set}");
    }
}

#[test]
fn no_role_lists_secrets_or_uses_wildcards() {
    for set in SETS {
        let objects = objects(set);
        let key = argument(&objects, "webhook-secret");
        for role in objects
            .iter()
            .filter(|object| text(object, "/kind").ends_with("Role"))
        {
            for (namespace, group, resource, name, verb) in grants_of(role) {
                let own = namespace == RELEASE && (verb == "create" || Some(name.as_str()) == key);
                assert!(
                    resource != "secrets"
                        || own
                        || ["get", "create", "patch", "delete"].contains(&verb.as_str()),
                    "{set}: {} lets {verb} Secrets",
                    identity(role)
                );
                for word in [&group, &resource, &verb] {
                    assert!(!word.contains('*'), "{set}: {} has a wildcard", identity(role));
                }
                assert!(
                    !["bind", "escalate", "impersonate"].contains(&verb.as_str()),
                    "{set}: {}",
                    identity(role)
                );
            }
        }
    }
}

#[test]
fn named_namespaces_leave_nothing_at_cluster_scope_but_reading_class_objects() {
    let objects = objects("namespaces");
    let account = account_of(&objects, "Deployment");
    let at_cluster_scope: Vec<Grant> = grants_to(&objects, &account)
        .into_iter()
        .filter(|grant| grant.0.is_empty())
        .collect();
    for (_, _, resource, _, verb) in &at_cluster_scope {
        assert!(
            ["ingressclasses", "customresourcedefinitions", "nodes"].contains(&resource.as_str()),
            "{resource}"
        );
        assert!(
            ["get", "list", "watch"].contains(&verb.as_str()),
            "{resource}: {verb}"
        );
    }
    assert!(!at_cluster_scope.is_empty());
}

/// Hooks are not deleted with the release: what helps one has to say itself when it goes.
#[test]
fn everything_of_the_guard_goes_with_the_guard() {
    for set in SETS {
        let objects = objects(set);
        let name = account_of(&objects, "Job");
        let guard: Vec<&Value> = objects
            .iter()
            .filter(|object| text(object, "/metadata/name").ends_with(name.as_str()))
            .collect();
        assert!(guard.len() >= 4, "{set}: account, role, binding and job");
        for object in guard {
            assert_eq!(
                annotation(object, "helm.sh/hook"),
                "pre-delete",
                "{set}: {}",
                identity(object)
            );
            let policy = annotation(object, "helm.sh/hook-delete-policy");
            assert_eq!(
                policy,
                "before-hook-creation,hook-succeeded",
                "{set}: {}",
                identity(object)
            );
        }
    }
}
