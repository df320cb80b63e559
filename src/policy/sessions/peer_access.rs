//! What lets members reach each other where a NetworkPolicy of somebody else isolates the pods of the target. Pure.
//!
//! The first NetworkPolicy that selects a pod for ingress isolates it from everything that none allows, so ours may stand
//! only beside another one. It is owned by those: when the last of them goes, the garbage collector takes it away, even
//! while no operator runs.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt as _};
use kube::{Resource, ResourceExt};

use super::moving::Place;
use super::sidecar::PEER_PORT;
use super::{names, peers};
use crate::api::{POLICY_LABEL, SessionInjection};
use crate::policy::validate::{Kept, SessionsWish, Validated};

/// Label of the operator's own pods, which ask members how they do.
const OPERATOR: (&str, &str) = ("app.kubernetes.io/component", "operator");

/// Whether pods of the target are members, or may still be: revisions of their kind stand until no pod needs them.
pub fn has_members<'a>(
    wish: Option<&SessionsWish>,
    revisions: impl IntoIterator<Item = &'a SessionInjection>,
) -> bool {
    wish.is_some_and(|wish| matches!(wish.kept, Kept::Replicated(_)))
        || revisions.into_iter().any(|revision| {
            matches!(
                Place::of(revision),
                Place::Pods | Place::StoreToPods | Place::PodsToStore
            )
        })
}

/// Those of `policies` that isolate the pods of the target for ingress, in order of their names. The operator's own are none
/// of them, nor are those that are about to go.
pub fn isolating<'a>(
    target: &Deployment,
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
) -> Vec<&'a NetworkPolicy> {
    let labels = target
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let mut isolating: Vec<_> = policies
        .into_iter()
        .filter(|policy| !policy.labels().contains_key(POLICY_LABEL))
        .filter(|policy| policy.metadata.deletion_timestamp.is_none())
        .filter(|policy| selects(policy, &labels) && is_for_ingress(policy))
        .collect();
    isolating.sort_unstable_by_key(|policy| policy.name_any());
    isolating
}

/// networking.k8s.io/v1: an empty selector selects every pod of the namespace.
fn selects(policy: &NetworkPolicy, labels: &BTreeMap<String, String>) -> bool {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone());
    Selector::try_from(selector.unwrap_or_default()).is_ok_and(|selector| selector.matches(labels))
}

/// networking.k8s.io/v1: without policyTypes a policy is always for ingress.
fn is_for_ingress(policy: &NetworkPolicy) -> bool {
    let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.as_deref());
    types.is_none_or(|types| types.is_empty() || types.iter().any(|type_| type_ == "Ingress"))
}

/// Lets members and the operator reach the port of members, and nobody else.
pub fn rule(policy: &Validated, isolating: &[&NetworkPolicy]) -> NetworkPolicy {
    let members = policy.target.spec.as_ref().map(|spec| spec.selector.clone());
    let operator = LabelSelector {
        match_labels: Some(BTreeMap::from([(OPERATOR.0.to_owned(), OPERATOR.1.to_owned())])),
        ..LabelSelector::default()
    };
    let owners = isolating.iter().filter_map(|owner| {
        Some(OwnerReference {
            api_version: NetworkPolicy::api_version(&()).into_owned(),
            kind: NetworkPolicy::kind(&()).into_owned(),
            name: owner.name_any(),
            uid: owner.uid()?,
            ..OwnerReference::default()
        })
    });
    NetworkPolicy {
        metadata: ObjectMeta {
            owner_references: Some(owners.collect()),
            ..names::metadata(policy, peers::name(&policy.name))
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: members.clone(),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(vec![
                    NetworkPolicyPeer {
                        pod_selector: members,
                        ..NetworkPolicyPeer::default()
                    },
                    NetworkPolicyPeer {
                        namespace_selector: Some(LabelSelector::default()),
                        pod_selector: Some(operator),
                        ..NetworkPolicyPeer::default()
                    },
                ]),
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::Int(i32::from(PEER_PORT))),
                    protocol: Some("TCP".to_owned()),
                    ..NetworkPolicyPort::default()
                }]),
            }]),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// Whether what stands says what it should.
pub fn is_same(standing: &NetworkPolicy, wanted: &NetworkPolicy) -> bool {
    let owners = |policy: &NetworkPolicy| {
        let mut uids: Vec<String> = policy
            .owner_references()
            .iter()
            .map(|owner| owner.uid.clone())
            .collect();
        uids.sort_unstable();
        uids
    };
    standing.spec == wanted.spec && owners(standing) == owners(wanted)
}
