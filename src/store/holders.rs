//! Who still uses what a rotation replaces: pods by the revision that they were started with, and Secrets of policies.
//!
//! A server does not tell with which password a client was let in, so the pods are looked at: each one names the revision that
//! admission gave it, and each revision says with which credentials its pods are started. What pods outside of policies read
//! from a store's Secrets nobody can see.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};

use super::caches::Caches;
use super::dereference::text;
use super::material::Material;
use super::rotation::credentials;
use super::validate::Validated;
use crate::api::{CREDENTIALS_ANNOTATION, INJECTION_LABEL, POLICY_LABEL, SessionInjection};
use crate::policy::sessions::moving::Place;
use crate::policy::sessions::names;
use crate::runtime::writer::{WriteError, classify};

/// Pods that may still use what they were started with.
const NOT_OVER: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What stands around one policy.
struct Holder {
    policy: String,
    /// What its applications are told of the store, if they are told anything.
    binding: Option<Secret>,
}

/// What is wanted of every holder of one prefix.
struct Wanted<'a> {
    password: &'a str,
    trusted: Option<&'a str>,
    credentials: String,
}

/// Sentences about who has not got the new password, or does not trust the new authority.
#[derive(Debug, Default)]
pub struct Left {
    /// Of passwords.
    pub passwords: BTreeSet<String>,
    /// Of authorities.
    pub authorities: BTreeSet<String>,
}

/// Looks.
pub async fn look(
    client: &Client,
    caches: &Caches,
    store: &Validated,
    material: &Material,
) -> Result<Left, WriteError> {
    let namespace = store.names.namespace();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let running = ListParams::default().labels(INJECTION_LABEL).fields(NOT_OVER);
    let pods = pods.list_metadata(&running).await.map_err(classify)?.items;
    let revisions: Api<SessionInjection> = Api::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(POLICY_LABEL);
    let revisions = revisions.list(&labelled).await.map_err(classify)?.items;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut left = Left::default();
    for (prefix, policies) in &store.prefixes {
        let Some(login) = material.logins.get(prefix) else {
            continue;
        };
        let trusted = material.tls.as_ref().map(|tls| tls.trusted.as_str());
        let wanted = Wanted {
            password: login.password.reveal(),
            trusted,
            credentials: credentials(login.made.as_deref(), trusted),
        };
        if policies.is_empty() {
            let sentence = format!(
                "no policy uses the key prefix {prefix} any more, and pods may still do; its user goes once every pod of the \
                 namespace's policies is replaced"
            );
            left.passwords.insert(sentence.clone());
            left.authorities.insert(sentence);
        }
        for policy in policies {
            let holder = Holder {
                binding: match binding_of(caches, namespace, policy) {
                    Some(name) => secrets.get_opt(&name).await.map_err(classify)?,
                    None => None,
                },
                policy: policy.clone(),
            };
            holder.judge(&wanted, &revisions, &pods, &mut left);
        }
    }
    Ok(left)
}

/// Name of the Secret that tells the policy's applications of the store. One whose sessions are in the pods tells of none.
fn binding_of(caches: &Caches, namespace: &str, policy: &str) -> Option<String> {
    let policy = caches.policies.get(&ObjectRef::new(policy).within(namespace))?;
    let policy = policy.0.as_ref().ok()?;
    let told = policy.status.as_ref()?.binding.as_ref()?.name.clone();
    (told == names::binding(&policy.name_any())).then_some(told)
}

impl Holder {
    fn judge(
        &self,
        wanted: &Wanted<'_>,
        revisions: &[SessionInjection],
        pods: &[PartialObjectMeta<Pod>],
        left: &mut Left,
    ) {
        let policy = &self.policy;
        if let Some(binding) = &self.binding {
            let name = binding.name_any();
            if text(binding, "password").as_deref() != Some(wanted.password) {
                left.passwords.insert(format!(
                    "SessionPolicy {policy} has not put the new password into Secret {name} yet"
                ));
            }
            if text(binding, "ca.crt").as_deref().map(str::trim) != wanted.trusted.map(str::trim) {
                left.authorities.insert(format!(
                    "SessionPolicy {policy} has not put the new authority into Secret {name} yet"
                ));
            }
        }
        let (mut passwords, mut authorities) = (0_u32, 0_u32);
        for pod in pods {
            let Some(name) = pod.labels().get(INJECTION_LABEL) else {
                continue;
            };
            if !names::is_revision(policy, name) {
                continue;
            }
            let revision = revisions.iter().find(|revision| revision.name_any() == *name);
            let (password, authority) = has(revision, &wanted.credentials);
            passwords += u32::from(!password);
            authorities += u32::from(!authority);
        }
        for (count, sentences, what) in [
            (passwords, &mut left.passwords, "the old password"),
            (authorities, &mut left.authorities, "the old authority alone"),
        ] {
            if count > 0 {
                sentences.insert(format!(
                    "{count} pods of SessionPolicy {policy} were started with {what}; they are replaced as its spec.rollout \
                     says (Manual: kubectl session rollout {policy})"
                ));
            }
        }
    }
}

/// Whether pods of a revision are started with this password, and with these authorities. Of one that is gone nobody knows;
/// pods that keep their sessions themselves need neither.
fn has(revision: Option<&SessionInjection>, wanted: &str) -> (bool, bool) {
    let Some(revision) = revision else {
        return (false, false);
    };
    if matches!(Place::of(revision), Place::Pods | Place::Application) {
        return (true, true);
    }
    let has = revision.annotations().get(CREDENTIALS_ANNOTATION);
    let has = has.map(|text| text.split_once(' ').unwrap_or_default());
    let (password, authority) = wanted.split_once(' ').unwrap_or_default();
    (
        has.is_some_and(|has| has.0 == password),
        has.is_some_and(|has| has.1 == authority),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::policy::sessions::moving::PLACE_ANNOTATION;

    const CURRENT: &str = "shop-00000000aa";
    const FORMER: &str = "shop-00000000bb";

    fn revision(name: &str, place: Place, credentials: &str) -> SessionInjection {
        let annotations = json!({PLACE_ANNOTATION: place.name(), CREDENTIALS_ANNOTATION: credentials});
        serde_json::from_value(json!({
            "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionInjection",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"policy": {"name": "shop", "uid": "u"}}
        }))
        .unwrap()
    }

    fn pod(revision: &str) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {INJECTION_LABEL: revision}}
        }))
        .unwrap()
    }

    fn binding(password: &str, authority: &str) -> Secret {
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        Secret {
            data: Some(
                [("password", text(password)), ("ca.crt", text(authority))]
                    .map(|(key, value)| (key.to_owned(), value))
                    .into(),
            ),
            ..Secret::default()
        }
    }

    fn left(
        binding: Option<Secret>,
        revisions: &[SessionInjection],
        pods: &[PartialObjectMeta<Pod>],
    ) -> [usize; 2] {
        let holder = Holder {
            policy: "shop".to_owned(),
            binding,
        };
        let wanted = Wanted {
            password: "new",
            trusted: Some("both"),
            credentials: credentials(Some("now"), Some("both")),
        };
        let mut left = Left::default();
        holder.judge(&wanted, revisions, pods, &mut left);
        for sentence in left.passwords.iter().chain(&left.authorities) {
            assert!(sentence.contains("SessionPolicy shop"), "{sentence}");
        }
        [left.passwords.len(), left.authorities.len()]
    }

    #[test]
    fn a_pod_has_what_its_revision_says() {
        let good = credentials(Some("now"), Some("both"));
        let old = credentials(Some("before"), Some("one"));
        let revisions = [
            revision(CURRENT, Place::Store, &good),
            revision(FORMER, Place::Store, &old),
        ];
        let bound = || Some(binding("new", "both\n"));
        assert_eq!(left(bound(), &revisions, &[pod(CURRENT)]), [0, 0]);
        assert_eq!(left(bound(), &revisions, &[pod(CURRENT), pod(FORMER)]), [1, 1]);
        assert_eq!(left(bound(), &[], &[pod(CURRENT)]), [1, 1], "nobody knows");
        assert_eq!(
            left(bound(), &[], &[pod("blog-00000000aa")]),
            [0, 0],
            "of another policy"
        );
        let only_password = [revision(
            FORMER,
            Place::Store,
            &credentials(Some("now"), Some("one")),
        )];
        assert_eq!(left(bound(), &only_password, &[pod(FORMER)]), [0, 1]);
        let in_pods = [revision(FORMER, Place::Pods, "")];
        assert_eq!(left(bound(), &in_pods, &[pod(FORMER)]), [0, 0]);
        let on_their_way = [revision(FORMER, Place::StoreToPods, "")];
        assert_eq!(left(bound(), &on_their_way, &[pod(FORMER)]), [1, 1]);
    }

    #[test]
    fn a_policy_that_has_no_pods_yet_has_to_know_before_it_gets_some() {
        assert_eq!(left(Some(binding("old", "one")), &[], &[]), [1, 1]);
        assert_eq!(left(Some(binding("new", "both")), &[], &[]), [0, 0]);
        assert_eq!(left(None, &[], &[]), [0, 0]);
    }
}
