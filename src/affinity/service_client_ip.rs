//! kube-proxy: `sessionAffinity: ClientIP` of a Service.
//!
//! Only for traffic that goes through the Service's own address: a proxy that knows HTTP dials pods directly, and the
//! setting does nothing behind it. kube-proxy remembers for each client address which pod it chose, on each node by
//! itself, until the address was silent for the timeout.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::{Value, json};

use super::adapter::{Adapter, Scope};
use super::detect::Served;
use super::model::{Configured, DefaultedField, ObjectKey, Refusal, Write};
use super::routes::{Route, RouteKind, RouteObject};
use crate::api::conditions::reasons;
use crate::api::{Binds, StickyController, StickyMode};

/// Seconds without a connection after which a client's pod is chosen anew. The API server's default, written out:
/// a default that stands nowhere can change.
const TIMEOUT_SECONDS: i32 = 10_800;

/// The adapter.
#[derive(Debug)]
pub struct ServiceClientIp;

impl Adapter for ServiceClientIp {
    fn controller(&self) -> StickyController {
        StickyController::Service
    }

    fn kind(&self) -> RouteKind {
        RouteKind::Service
    }

    fn plan(&self, scope: &Scope<'_>, route: &Route<'_>, _: &Served) -> Result<Configured, Refusal> {
        let RouteObject::Service(service) = route.object else {
            return Err(Refusal::new(
                reasons::CONTROLLER_NOT_RECOGNISED,
                format!("{} is no Service", route.display()),
            ));
        };
        if scope.mode() == StickyMode::Cookie {
            return Err(Refusal::new(
                reasons::MODE_UNSUPPORTED,
                format!(
                    "{}: a plain Service knows no cookies; set spec.sticky.mode to ClientIP, or put an Ingress in front",
                    route.display()
                ),
            ));
        }
        refuse_headless(route, service)?;
        let key = ObjectKey::service(service);
        Ok(Configured {
            written_to: vec![key.short()],
            writes: vec![Write::Apply {
                object: key,
                fields: json!({
                    "spec": {
                        "sessionAffinity": "ClientIP",
                        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": TIMEOUT_SECONDS } },
                    }
                }),
                takeable_defaults: vec![DefaultedField {
                    pointer: "/spec/sessionAffinity".to_owned(),
                    default: Value::from("None"),
                }],
            }],
            advice: None,
            binds: Binds::Pod,
            keeps_terminating_pods: false,
            unsupported: Vec::new(),
            notes: notes(service),
        })
    }
}

fn refuse_headless(route: &Route<'_>, service: &Service) -> Result<(), Refusal> {
    if !is_headless(service) {
        return Ok(());
    }
    Err(Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: it is headless (clusterIP: None), so clients choose a pod themselves and no affinity can be set; give \
             the target a Service with an address of its own",
            route.display()
        ),
    ))
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether clients outside the cluster can reach the Service itself.
pub fn is_exposed(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            || spec
                .external_ips
                .as_ref()
                .is_some_and(|addresses| !addresses.is_empty())
    })
}

fn notes(service: &Service) -> Vec<String> {
    let mut notes = vec![format!(
        "mode ClientIP on a Service: clients behind one NAT or proxy share a pod; a client that makes no connection for \
         {TIMEOUT_SECONDS} s, or whose connections arrive at another node, gets another pod"
    )];
    let policy = service
        .spec
        .as_ref()
        .and_then(|spec: &ServiceSpec| spec.external_traffic_policy.as_deref());
    if is_exposed(service) && policy != Some("Local") {
        notes.push(
            "externalTrafficPolicy is not Local: traffic from outside is forwarded between nodes under a node's address, \
             so all clients of one node may share a pod; set externalTrafficPolicy: Local (nodes without a pod then \
             drop that traffic)"
                .to_owned(),
        );
    }
    notes
}
