//! Step 3: what the cluster should look like. Pure: the same input gives the same output.

use std::collections::BTreeSet;

use super::dereference::Dereferenced;
use super::validate::Validated;
use crate::affinity::model::{Inputs, ObjectKey, PlanOutcome, PolicyIdentity, Refusal, RoutePlan, Write};
use crate::affinity::{merge_writes, plan};

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
pub fn build(policy: &Validated, found: &Dereferenced) -> Desired {
    let planned = plan(&Inputs {
        policy: PolicyIdentity {
            namespace: &policy.namespace,
            name: &policy.name,
            uid: &policy.uid,
        },
        sticky: &policy.sticky,
        target: &policy.target,
        services: &found.services,
        deployments: &found.deployments,
        ingresses: &found.ingresses,
        ingress_classes: &found.ingress_classes,
        ingress_routes: &found.ingress_routes,
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

/// What to do when the policy lost its target to another one: take everything back.
pub fn nothing(found: &Dereferenced) -> Desired {
    Desired {
        withdraw: found.carriers.clone(),
        ..Desired::default()
    }
}
