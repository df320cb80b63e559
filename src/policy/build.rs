//! Step 3: what the cluster should look like. Pure: the same input gives the same output.

use std::collections::BTreeSet;

use serde_json::json;

use super::dereference::Dereferenced;
use super::sessions::{names, pods};
use super::validate::Validated;
use crate::affinity::model::{
    DefaultedField, Inputs, ObjectKey, PlanOutcome, PolicyIdentity, Refusal, RoutePlan, Write,
};
use crate::affinity::{merge_writes, plan};
use crate::api::{INJECTION_LABEL, Sticky};

/// The wanted state.
#[derive(Debug, Default)]
pub struct Desired {
    /// One per route that reaches the target.
    pub routes: Vec<RoutePlan>,
    /// Why there is nothing to configure at all.
    pub refusal: Option<Refusal>,
    /// At most one apply and one patch per object.
    pub writes: Vec<Write>,
    /// Objects on which fields of this policy stand and should not any more.
    pub withdraw: Vec<ObjectKey>,
}

/// Plans for a validated policy.
///
/// `mark` is the revision that the pod template has to name.
pub fn build(policy: &Validated, found: &Dereferenced, mark: Option<&str>) -> Desired {
    let mut desired = match &policy.sticky {
        Some(sticky) => affinity(policy, sticky, found),
        None => nothing(found),
    };
    if let Some(mark) = mark {
        let object = ObjectKey::deployment(&policy.target);
        desired.withdraw.retain(|carrier| carrier.uid != object.uid);
        desired.writes.push(Write::Apply {
            object,
            fields: json!({"spec": {"template": {"metadata": {"labels": {INJECTION_LABEL: mark}}}}}),
            takeable_defaults: former_mark(policy),
        });
    }
    desired
}

/// The mark that stands, if it names a revision of this policy: whoever wrote it (a rollback does, and a replace by a
/// manifest that was once read from the cluster), it is not their choice of a value but ours of another day. The revision
/// itself may be gone by then.
fn former_mark(policy: &Validated) -> Vec<DefaultedField> {
    let mark = pods::mark_of(&policy.target).filter(|mark| names::is_revision(&policy.name, mark));
    let field = mark.map(|mark| DefaultedField {
        pointer: format!(
            "/spec/template/metadata/labels/{}",
            INJECTION_LABEL.replace('/', "~1")
        ),
        default: json!(mark),
    });
    field.into_iter().collect()
}

fn affinity(policy: &Validated, sticky: &Sticky, found: &Dereferenced) -> Desired {
    let planned = plan(&Inputs {
        policy: PolicyIdentity {
            namespace: &policy.namespace,
            name: &policy.name,
            uid: &policy.uid,
        },
        sticky,
        target: &policy.target,
        services: &found.services,
        deployments: &found.deployments,
        ingresses: &found.ingresses,
        ingress_classes: &found.ingress_classes,
        ingress_routes: &found.ingress_routes,
        http_proxies: &found.http_proxies,
        hands_over: policy.hands_over,
        field_manager: &policy.manager,
    });
    let writes = planned.routes.iter().filter_map(|route| match &route.outcome {
        PlanOutcome::Configured(configured) => Some(configured.writes.clone()),
        PlanOutcome::Refused(_) | PlanOutcome::Reported(_) => None,
    });
    let (writes, refusal) = match merge_writes(writes.flatten().collect()) {
        Ok(writes) => (writes, planned.refusal),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let wanted: BTreeSet<&str> = writes
        .iter()
        .filter(|write| matches!(write, Write::Apply { .. }))
        .map(|write| write.object().uid.as_str())
        .collect();
    let withdraw = found
        .carriers
        .iter()
        .filter(|carrier| !wanted.contains(carrier.uid.as_str()))
        .cloned()
        .collect();
    Desired {
        routes: planned.routes,
        refusal,
        writes,
        withdraw,
    }
}

/// What to do when no affinity is wished, or the policy lost its target to another one: take everything back.
pub fn nothing(found: &Dereferenced) -> Desired {
    Desired {
        withdraw: found.carriers.clone(),
        ..Desired::default()
    }
}
