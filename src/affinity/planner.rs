//! From the objects that were read to what should be written.

use super::adapter::Scope;
use super::cookie::{self, ResolvedCookie};
use super::detect::{self, Served, controller_name};
use super::drain;
use super::model::{Configured, Inputs, Plan, PlanOutcome, Refusal, RoutePlan};
use super::routes::{self, Route};
use super::select::{self, TargetService};
use crate::api::conditions::reasons;
use crate::api::{SharedRoutes, StickyController, StickyMode};

/// Plans affinity for one policy. Deterministic: equal inputs give an equal plan.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let services = select::target_services(inputs);
    if services.is_empty() {
        return Plan {
            refusal: Some(no_service(inputs)),
            ..Plan::default()
        };
    }
    let mut found = routes::discover(inputs, &services);
    let direct = routes::direct(inputs, &services, &found.reached);
    if inputs.sticky.controller == StickyController::Service {
        found
            .reported
            .extend(found.routes.drain(..).map(|route| bypassed(inputs, &route)));
    }
    found.routes.extend(direct);
    let mut plans = Vec::new();
    let served: Vec<_> = found
        .routes
        .iter()
        .map(|route| detect::detect(inputs, route))
        .collect();
    let scope = Scope {
        inputs,
        cookie: resolve_cookie(inputs, &found.routes, &served),
        routes: &found.routes,
    };
    for (route, served) in found.routes.iter().zip(served) {
        plans.push(plan_route(&scope, route, served));
    }
    let refusal = plans.is_empty().then(|| no_route(inputs, &services));
    plans.extend(found.reported);
    Plan {
        services: services.into_iter().map(|service| service.name).collect(),
        routes: plans,
        refusal,
    }
}

fn plan_route<'a>(scope: &Scope<'a>, route: &Route<'a>, served: Result<Served, Refusal>) -> RoutePlan {
    let controller = served.as_ref().ok().map(|served| {
        controller_name(served.controller.unwrap_or_else(|| served.adapter.controller())).to_owned()
    });
    let outcome = served.and_then(|served| configure(scope, route, &served));
    RoutePlan {
        kind: route.kind().as_str().to_owned(),
        namespace: scope.inputs.policy.namespace.to_owned(),
        name: route.name.clone(),
        controller,
        outcome: outcome.map_or_else(PlanOutcome::Refused, PlanOutcome::Configured),
    }
}

/// A route through a proxy, where the policy says that clients reach the Service itself.
fn bypassed(inputs: &Inputs<'_>, route: &Route<'_>) -> RoutePlan {
    RoutePlan {
        kind: route.kind().as_str().to_owned(),
        namespace: inputs.policy.namespace.to_owned(),
        name: route.name.clone(),
        controller: None,
        outcome: PlanOutcome::Reported(
            "left alone, because spec.sticky.controller is Service: users who come through it have no affinity"
                .to_owned(),
        ),
    }
}

/// What holds for every controller, around what its adapter knows.
fn configure(scope: &Scope<'_>, route: &Route<'_>, served: &Served) -> Result<Configured, Refusal> {
    if !route.usable {
        return Err(Refusal::new(
            reasons::NO_ROUTE,
            format!(
                "{} reaches no pod of the target: {}; correct the port in the route or in the Service",
                route.display(),
                route.broken.join("; ")
            ),
        ));
    }
    let shared = shared_services(scope.inputs, route)?;
    let mut configured = served.adapter.plan(scope, route, served)?;
    let drain = drain::judge(
        scope.inputs.target,
        scope.inputs.sticky.drain_seconds,
        controller_name(served.controller.unwrap_or_else(|| served.adapter.controller())),
        configured.keeps_terminating_pods,
        scope.inputs.hands_over,
    );
    configured.unsupported.extend(drain.unsupported);
    configured.notes.extend(drain.notes);
    if scope.mode() == StickyMode::Cookie && served.adapter.writes_cookie() {
        configured.notes.extend(scope.cookie.notes.iter().cloned());
    }
    configured.notes.extend(shared);
    configured.notes.extend(
        route
            .broken
            .iter()
            .map(|broken| format!("a backend is without effect: {broken}")),
    );
    Ok(configured)
}

/// Affinity on a Service acts on all pods that the Service selects, whichever object carries the setting.
fn shared_services(inputs: &Inputs<'_>, route: &Route<'_>) -> Result<Vec<String>, Refusal> {
    let mut notes = Vec::new();
    for service in &route.reaches {
        if service.shared_with.is_empty() {
            continue;
        }
        let message = format!(
            "Service {} also selects the pods of Deployment {}",
            service.name,
            service.shared_with.join(", ")
        );
        match inputs.sticky.shared_routes {
            SharedRoutes::Refuse => {
                return Err(Refusal::new(
                    reasons::SHARED_ROUTE,
                    format!(
                        "{}: {message}, on which affinity would act as well; narrow the Service's selector, or set \
                         spec.sticky.sharedRoutes to Allow",
                        route.display()
                    ),
                ));
            }
            SharedRoutes::Allow => notes.push(format!("{message}: affinity acts on them as well")),
        }
    }
    Ok(notes)
}

fn resolve_cookie(
    inputs: &Inputs<'_>,
    routes: &[Route<'_>],
    served: &[Result<Served, Refusal>],
) -> ResolvedCookie {
    let without_tls: Vec<String> = routes
        .iter()
        .zip(served)
        .filter(|(route, served)| match served {
            Ok(served) => !served.adapter.has_tls(route),
            Err(_) => !super::tls::declared(route),
        })
        .map(|(route, _)| route.display())
        .collect();
    cookie::resolve(inputs.policy, inputs.sticky.cookie.as_ref(), &without_tls)
}

fn no_service(inputs: &Inputs<'_>) -> Refusal {
    let name = inputs.target.metadata.name.as_deref().unwrap_or_default();
    let labels = inputs
        .target
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref()?.labels.as_ref());
    let labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Refusal::new(
        reasons::NO_SERVICE,
        format!(
            "no Service in namespace {} selects the pods of Deployment {name} (their labels: {}); create one whose \
             selector matches",
            inputs.policy.namespace,
            if labels.is_empty() {
                "none".to_owned()
            } else {
                labels.join(", ")
            }
        ),
    )
}

fn no_route(inputs: &Inputs<'_>, services: &[TargetService<'_>]) -> Refusal {
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let mode = match inputs.sticky.mode {
        StickyMode::Cookie => "spec.sticky.mode to ClientIP and ",
        StickyMode::ClientIP => "",
    };
    Refusal::new(
        reasons::NO_ROUTE,
        format!(
            "no Ingress, IngressRoute or HTTPProxy in namespace {} routes to Service {}; create one, or, if clients reach the \
             Service itself, set {mode}spec.sticky.controller to Service",
            inputs.policy.namespace,
            names.join(", ")
        ),
    )
}
