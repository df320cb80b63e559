//! What the sidecars of a policy need to find and trust each other: a headless Service, certificates, places. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::sidecar::PEER_PORT;
use super::{Trouble, names};
use crate::api::conditions::reasons;
use crate::policy::validate::Validated;

/// Key of the ConfigMap with the places of pods.
pub const PLACES_KEY: &str = "places";

/// Name of Service, Secret and ConfigMap.
pub fn name(policy: &str) -> String {
    format!("{policy}-peers")
}

/// Name of the Secret with the authority, which no pod mounts.
pub fn authority_name(policy: &str) -> String {
    format!("{}-authority", name(policy))
}

/// The DNS name that every member's certificate carries. It is never resolved.
pub fn identity(policy: &str, namespace: &str) -> String {
    format!("{policy}.{namespace}.peers.session-operator.dev")
}

/// The headless Service with the addresses of all pods, ready or not: a starting pod has to find the others before it is
/// ready.
pub fn service(policy: &Validated) -> Result<Service, Trouble> {
    let selector = policy
        .target
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .filter(|labels| !labels.is_empty());
    let Some(selector) = selector else {
        return Err(Trouble::new(
            reasons::PEERS_NOT_SELECTABLE,
            format!(
                "Deployment {} selects its pods by expressions only, which a Service cannot; give its selector matchLabels",
                policy.target_name()
            ),
        ));
    };
    Ok(Service {
        metadata: names::metadata(policy, name(&policy.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ports: Some(vec![ServicePort {
                name: Some("session-peers".to_owned()),
                port: i32::from(PEER_PORT),
                target_port: Some(IntOrString::Int(i32::from(PEER_PORT))),
                app_protocol: Some("tcp".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

/// Where pods are: name, zone and machine, a line each, in the order of their names.
pub fn places<'a>(
    policy: &Validated,
    pods: impl IntoIterator<Item = &'a Pod>,
    zones: &BTreeMap<String, String>,
) -> ConfigMap {
    let mut lines: Vec<(String, String)> = pods
        .into_iter()
        .filter_map(|pod| Some((pod.name_any(), pod.spec.as_ref()?.node_name.clone()?)))
        .collect();
    lines.sort();
    let mut text = String::new();
    for (pod, node) in lines {
        let zone = zones.get(&node).filter(|zone| !zone.is_empty());
        // Writing to a String cannot fail.
        _ = writeln!(text, "{pod} {} {node}", zone.map_or("-", String::as_str));
    }
    ConfigMap {
        metadata: names::metadata(policy, name(&policy.name)),
        data: Some(BTreeMap::from([(PLACES_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// Why the sessions of this Deployment cannot be handed from pod to pod, whatever is injected.
pub fn obstacle(target: &Deployment, grace_needed: i64) -> Option<Trouble> {
    let spec = target.spec.as_ref()?;
    let name = target.name_any();
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Some(Trouble::new(
            reasons::NO_OVERLAP,
            format!(
                "Deployment {name} has strategy Recreate: all pods end before the first new one starts, and nobody is there to take their sessions; use RollingUpdate"
            ),
        ));
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let fixed = |value: Option<&IntOrString>| match value {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(text)) if text == "0" || text == "0%" => Some(0),
        Some(IntOrString::String(text)) if text == "100%" => Some(replicas),
        _ => None,
    };
    if replicas == 1 && fixed(rolling.and_then(|rolling| rolling.max_surge.as_ref())) == Some(0) {
        return Some(Trouble::new(
            reasons::NO_OVERLAP,
            format!(
                "Deployment {name} has one replica and maxSurge 0: its pod ends before the next one starts; set maxSurge to 1"
            ),
        ));
    }
    let unavailable = fixed(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    if replicas > 0 && unavailable.is_some_and(|unavailable| unavailable >= replicas) {
        return Some(Trouble::new(
            reasons::NO_OVERLAP,
            format!(
                "Deployment {name} lets all {replicas} pods be missing at once during an update; set maxUnavailable to less"
            ),
        ));
    }
    let pod = spec.template.spec.as_ref()?;
    if pod.host_network == Some(true) {
        return Some(Trouble::new(
            reasons::HOST_NETWORK,
            format!(
                "the pods of Deployment {name} use the network of their nodes, where two of them would want the same ports; remove hostNetwork"
            ),
        ));
    }
    let grace = pod.termination_grace_period_seconds.unwrap_or(30);
    (grace < grace_needed).then(|| {
        Trouble::new(
            reasons::GRACE_PERIOD_TOO_SHORT,
            format!(
                "the pods of Deployment {name} have {grace} s to end, and handing over their sessions may take {grace_needed} s; set terminationGracePeriodSeconds to {grace_needed}"
            ),
        )
    })
}
