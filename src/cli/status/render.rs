//! Policies as text for people. Pure.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::api::conditions::types;
use crate::api::{Affinity, SessionPolicy, SessionPolicyStatus, StickyMode, Strategy, Survival};
use crate::cli::output::printable;
use crate::cli::table::Table;

/// One policy with everything that its status says.
pub fn policy(policy: &SessionPolicy) -> String {
    let nothing = SessionPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&nothing);
    let mut text = head(policy);
    text.push_str(&printable(&inside(status)));
    if let Some(note) = staleness(policy, status) {
        // Writing to a String cannot fail.
        _ = writeln!(text, "Note       {note}");
    }
    let sections = [
        conditions(&status.conditions).render_unless_empty(),
        routes(&status.affinity).render_unless_empty(),
        survives(&status.survives).render_unless_empty(),
    ];
    for section in sections.into_iter().flatten() {
        text.push('\n');
        text.push_str(&section);
    }
    text
}

/// A line per policy.
pub fn list(policies: &[(String, Result<SessionPolicy, serde_json::Error>)]) -> String {
    let mut table = Table::new([
        "POLICY", "STRATEGY", "TARGET", "READY", "REASON", "ROUTES", "BINDS",
    ]);
    for (name, policy) in policies {
        match policy {
            Ok(policy) => table.row(list_row(name.clone(), policy)),
            Err(error) => {
                let [strategy, target, ready, reason, routes, binds] = <[String; 6]>::default();
                let cells = [name.clone(), strategy, target, ready, reason, routes, binds];
                table.row_with(cells, [format!("not a valid SessionPolicy: {error}")]);
            }
        }
    }
    table.render()
}

fn list_row(name: String, policy: &SessionPolicy) -> [String; 7] {
    let status = policy.status.as_ref();
    let ready = status.and_then(|status| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::READY)
    });
    let routes = status
        .map(|status| status.affinity.as_slice())
        .unwrap_or_default();
    let mut binds: Vec<_> = routes.iter().map(|route| route.binds).collect();
    binds.sort_unstable();
    binds.dedup();
    [
        name,
        format!("{:?}", policy.spec.strategy),
        policy.spec.target_ref.name.clone(),
        ready.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone()),
        ready
            .map(|condition| condition.reason.clone())
            .unwrap_or_default(),
        routes.len().to_string(),
        binds
            .iter()
            .map(|binds| format!("{binds:?}"))
            .collect::<Vec<_>>()
            .join(", "),
    ]
}

fn head(policy: &SessionPolicy) -> String {
    let spec = &policy.spec;
    let sticky = spec.sticky.as_ref();
    let by = if spec.strategy == Strategy::Sticky || sticky.is_some() {
        let mode = sticky.map_or(StickyMode::Cookie, |sticky| sticky.mode);
        let verb = if spec.strategy == Strategy::Sticky {
            "by"
        } else {
            "with affinity by"
        };
        format!(" {verb} {mode:?}")
    } else {
        String::new()
    };
    let suspended = if spec.suspend { ", suspended" } else { "" };
    printable(&format!(
        "Policy     {}/{}\nTarget     {:?} {}\nStrategy   {:?}{by}{suspended}\n",
        policy.namespace().unwrap_or_default(),
        policy.name_any(),
        spec.target_ref.kind,
        spec.target_ref.name,
        spec.strategy,
    ))
}

/// What is in the pods.
fn inside(status: &SessionPolicyStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(injection) = &status.injection {
        let revision = injection.revision.as_deref().unwrap_or("no revision yet");
        let newer = if injection.update_available {
            ", a newer one waits"
        } else {
            ""
        };
        _ = writeln!(
            text,
            "Injected   {} of {} pods ({revision}{newer})",
            injection.injected_pods, injection.total_pods
        );
    }
    if let Some(replication) = &status.replication {
        _ = write!(
            text,
            "Sidecars   {} of {}, about {} sessions",
            replication.members, replication.total_members, replication.sessions
        );
        if replication.lag > 0 {
            _ = write!(text, ", {} changes under way", replication.lag);
        }
        if !replication.unsupported_commands.is_empty() {
            _ = write!(
                text,
                ", commands not spoken: {}",
                replication.unsupported_commands.join(" ")
            );
        }
        text.push('\n');
        if let Some(recommendation) = &replication.recommendation {
            _ = writeln!(text, "Advice     {recommendation}");
        }
    }
    text
}

/// What makes the status say less than it seems to.
fn staleness(policy: &SessionPolicy, status: &SessionPolicyStatus) -> Option<String> {
    match (status.observed_generation, policy.metadata.generation) {
        (None, _) => {
            Some("no status yet: does the operator run, and does it watch this namespace?".to_owned())
        }
        (Some(observed), Some(generation)) if observed < generation => Some(format!(
            "this status is of generation {observed}; the operator has not dealt with generation {generation} yet"
        )),
        _ => None,
    }
}

fn conditions(conditions: &[Condition]) -> Table<4> {
    let mut table = Table::new(["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in conditions {
        table.row([
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    table
}

fn routes(routes: &[Affinity]) -> Table<5> {
    let mut table = Table::new([
        "ROUTE",
        "CONTROLLER",
        "BINDS TO",
        "KEEPS TERMINATING PODS",
        "WRITTEN TO",
    ]);
    for route in routes {
        let unsupported = route
            .unsupported
            .iter()
            .map(|entry| format!("unsupported: {entry}"));
        let notes = route.notes.iter().map(|note| format!("note: {note}"));
        table.row_with(
            [
                format!("{}/{}/{}", route.kind, route.namespace, route.name),
                route.controller.clone().unwrap_or_default(),
                format!("{:?}", route.binds),
                if route.keeps_terminating_pods { "yes" } else { "no" }.to_owned(),
                route.written_to.clone().unwrap_or_default(),
            ],
            unsupported.chain(notes),
        );
    }
    table
}

fn survives(rows: &[Survival]) -> Table<4> {
    let mut table = Table::new(["EVENT", "SESSIONS", "REASON", "MESSAGE"]);
    for row in rows {
        table.row([
            format!("{:?}", row.event),
            format!("{:?}", row.outcome),
            row.reason.clone(),
            row.message.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(value: Value) -> SessionPolicy {
        serde_json::from_value(value).unwrap()
    }

    fn minimal() -> Value {
        json!({
            "apiVersion": "session-operator.dev/v1alpha1",
            "kind": "SessionPolicy",
            "metadata": { "name": "shop", "namespace": "web", "generation": 2 },
            "spec": { "targetRef": { "name": "storefront" }, "strategy": "Sticky" },
        })
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
        })
    }

    fn configured() -> Value {
        let mut policy = minimal();
        policy["status"] = json!({
            "observedGeneration": 2,
            "conditions": [
                condition("Ready", "False", "ManualChangeNeeded", "IngressRoute/shop needs a change by its owner"),
                condition("TargetResolved", "True", "TargetFound", "Deployment storefront"),
                condition(
                    "AffinityConfigured",
                    "False",
                    "ManualChangeNeeded",
                    "IngressRoute/shop is applied by helm; add to it:\nsticky:\n  cookie:\n    name: shop",
                ),
            ],
            "affinity": [
                {
                    "kind": "Ingress", "namespace": "web", "name": "shop", "controller": "Traefik",
                    "writtenTo": "Service/shop", "binds": "Pod", "keepsTerminatingPods": true,
                    "unsupported": ["drainSeconds 30: the pod template has no preStop; add lifecycle.preStop.sleep"],
                    "notes": ["cookie name derived: shop_3f2a"],
                },
                {
                    "kind": "IngressRoute", "namespace": "web", "name": "shop", "binds": "None",
                    "keepsTerminatingPods": false,
                },
            ],
            "survives": [
                { "event": "PodLoss", "outcome": "Lost", "reason": "SessionsInPod", "message": "Sessions end with their pod." },
                { "event": "ScaleUp", "outcome": "Kept", "reason": "PodBound", "message": "Users stay on their pods." },
            ],
        });
        policy
    }

    #[test]
    fn a_configured_policy() {
        insta::assert_snapshot!(policy(&parse(configured())));
    }

    #[test]
    fn sessions_in_the_pods() {
        let mut replicated = minimal();
        replicated["spec"]["strategy"] = json!("Replicated");
        replicated["spec"]["sticky"] = json!({});
        replicated["status"] = json!({
            "observedGeneration": 2,
            "injection": {"revision": "shop-7f3a", "injectedPods": 6, "totalPods": 6, "updateAvailable": false},
            "replication": {
                "members": 6, "totalMembers": 6, "sessions": 41_000, "lag": 2_400,
                "unsupportedCommands": ["BLPOP", "LPUSH"],
                "recommendation": "mode Backup: each pod sends much to all others",
            },
        });
        insta::assert_snapshot!(policy(&parse(replicated)));
    }

    #[test]
    fn a_policy_that_no_operator_has_seen() {
        insta::assert_snapshot!(policy(&parse(minimal())));
    }

    #[test]
    fn a_suspended_policy_with_an_old_status() {
        let mut value = configured();
        value["metadata"]["generation"] = json!(3);
        value["spec"]["suspend"] = json!(true);
        value["spec"]["sticky"] = json!({ "mode": "ClientIP" });
        value["status"]["affinity"] = json!([]);
        value["status"]["survives"] = json!([]);
        insta::assert_snapshot!(policy(&parse(value)));
    }

    #[test]
    fn text_from_the_cluster_cannot_steer_the_terminal() {
        let mut value = configured();
        value["status"]["affinity"][0]["notes"] = json!(["\u{1b}]0;title\u{7}"]);
        value["status"]["conditions"][0]["message"] = json!("\u{1b}[2J");
        value["spec"]["targetRef"]["name"] = json!("\u{1b}[31m");
        let text = policy(&parse(value));
        assert!(
            text.chars()
                .all(|character| character == '\n' || !character.is_control()),
            "{text:?}"
        );
    }

    #[test]
    fn a_list() {
        let invalid = serde_json::from_value(json!({ "spec": 1 }));
        let rows = [
            ("web/shop".to_owned(), Ok(parse(configured()))),
            ("web/new".to_owned(), Ok(parse(minimal()))),
            ("web/odd".to_owned(), invalid),
        ];
        insta::assert_snapshot!(list(&rows));
    }
}
