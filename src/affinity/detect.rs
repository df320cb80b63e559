//! Whose route it is.
//!
//! The class of an Ingress is looked up in the order in which controllers do it: the annotation
//! `kubernetes.io/ingress.class`, then `spec.ingressClassName`, then the cluster's default `IngressClass`. Of the
//! class, `spec.controller` says who serves it. `spec.sticky.controller` of the policy decides where that is not
//! enough.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt;

use super::adapter::{ADAPTERS, Adapter};
use super::model::{Inputs, Refusal};
use super::routes::{Route, RouteKind, RouteObject};
use crate::api::StickyController;
use crate::api::conditions::reasons;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Who serves a route.
#[derive(Clone, Debug)]
pub struct Served {
    /// The adapter that knows how.
    pub adapter: &'static dyn Adapter,
    /// The controller, if it is certain: class strings that several controllers claim do not tell.
    pub controller: Option<StickyController>,
    /// How it was found, for messages; empty where the kind of the route says it.
    pub because: String,
}

/// Finds the adapter of a route.
pub fn detect(inputs: &Inputs<'_>, route: &Route<'_>) -> Result<Served, Refusal> {
    let RouteObject::Ingress(ingress) = route.object else {
        return by_kind(route);
    };
    let class = Class::of(ingress, inputs.ingress_classes);
    match inputs.sticky.controller {
        StickyController::Auto => by_class(&class, route),
        StickyController::Contour => Err(ingress_of_contour(route, "spec.sticky.controller is Contour")),
        wanted => by_wish(&class, wanted, route),
    }
}

fn by_kind(route: &Route<'_>) -> Result<Served, Refusal> {
    let adapter = ADAPTERS.iter().find(|adapter| adapter.kind() == route.kind());
    adapter
        .map(|adapter| Served {
            adapter: *adapter,
            controller: Some(adapter.controller()),
            because: String::new(),
        })
        .ok_or_else(|| {
            unknown(
                route,
                &format!("no adapter handles the kind {}", route.kind().as_str()),
            )
        })
}

fn by_class(class: &Class<'_>, route: &Route<'_>) -> Result<Served, Refusal> {
    let adapter = of_kind(RouteKind::Ingress).find(|adapter| class.is_claimed_by(*adapter));
    adapter
        .map(|adapter| Served {
            adapter,
            controller: adapter.also_read_by().is_empty().then(|| adapter.controller()),
            because: class.describe(),
        })
        .ok_or_else(|| {
            if class.is_contours() {
                ingress_of_contour(route, &class.describe())
            } else {
                unknown(route, &class.describe())
            }
        })
}

/// Contour reads nothing of an Ingress that could bind users.
fn ingress_of_contour(route: &Route<'_>, why: &str) -> Refusal {
    Refusal::new(
        reasons::MODE_UNSUPPORTED,
        format!(
            "{}: {why}, and Contour has no annotation for affinity; route with an HTTPProxy instead, or serve the Ingress \
             with another controller",
            route.display()
        ),
    )
}

/// A wish for a controller whose compatibility mode claims the class means that mode: there the controller reads
/// the other one's fields and not its own.
fn by_wish(class: &Class<'_>, wanted: StickyController, route: &Route<'_>) -> Result<Served, Refusal> {
    let compatible = of_kind(RouteKind::Ingress)
        .find(|adapter| class.is_claimed_by(*adapter) && adapter.also_read_by().contains(&wanted));
    let own = of_kind(RouteKind::Ingress).find(|adapter| adapter.controller() == wanted);
    compatible
        .or(own)
        .map(|adapter| Served {
            adapter,
            controller: Some(wanted),
            because: format!("spec.sticky.controller is {}", controller_name(wanted)),
        })
        .ok_or_else(|| {
            unknown(
                route,
                &format!(
                    "spec.sticky.controller {} has no adapter for an Ingress",
                    controller_name(wanted)
                ),
            )
        })
}

fn of_kind(kind: RouteKind) -> impl Iterator<Item = &'static dyn Adapter> {
    ADAPTERS
        .iter()
        .copied()
        .filter(move |adapter| adapter.kind() == kind)
}

fn unknown(route: &Route<'_>, why: &str) -> Refusal {
    let mut known: Vec<&str> = ADAPTERS
        .iter()
        .flat_map(|adapter| adapter.class_controllers())
        .copied()
        .collect();
    known.sort_unstable();
    known.dedup();
    let mut names: Vec<&str> = of_kind(RouteKind::Ingress)
        .map(|adapter| controller_name(adapter.controller()))
        .collect();
    names.dedup();
    Refusal::new(
        reasons::CONTROLLER_NOT_RECOGNISED,
        format!(
            "{}: {why}; recognised are classes with spec.controller {}. If one of these controllers serves it \
             under another name, set spec.sticky.controller to {}",
            route.display(),
            known.join(", "),
            names.join(" or ")
        ),
    )
}

/// A controller as `spec.sticky.controller` and `status.affinity[].controller` spell it.
pub const fn controller_name(controller: StickyController) -> &'static str {
    match controller {
        StickyController::Auto => "Auto",
        StickyController::Traefik => "Traefik",
        StickyController::IngressNginx => "IngressNginx",
        StickyController::Contour => "Contour",
        StickyController::Service => "Service",
    }
}

/// Where the name of a class came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Annotation,
    Spec,
    Default,
    Nowhere,
}

/// The class of an Ingress.
#[derive(Clone, Debug)]
struct Class<'a> {
    source: Source,
    name: &'a str,
    exists: bool,
    controller: Option<&'a str>,
}

impl<'a> Class<'a> {
    fn of(ingress: &'a Ingress, classes: &'a [Arc<IngressClass>]) -> Self {
        let annotation = ingress.annotations().get(CLASS_ANNOTATION).map(String::as_str);
        let in_spec = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_deref());
        let (source, name) = match (annotation.filter(|name| !name.is_empty()), in_spec) {
            (Some(name), _) => (Source::Annotation, Some(name)),
            (None, Some(name)) => (Source::Spec, Some(name)),
            (None, None) => (Source::Default, default_class(classes)),
        };
        let Some(name) = name else {
            return Self {
                source: Source::Nowhere,
                name: "",
                exists: false,
                controller: None,
            };
        };
        let class = classes
            .iter()
            .find(|class| class.metadata.name.as_deref() == Some(name));
        let controller = class.and_then(|class| class.spec.as_ref()?.controller.as_deref());
        Self {
            source,
            name,
            exists: class.is_some(),
            controller,
        }
    }

    fn is_claimed_by(&self, adapter: &dyn Adapter) -> bool {
        match self.controller {
            Some(controller) => adapter.class_controllers().contains(&controller),
            None => {
                self.source == Source::Annotation
                    && !self.exists
                    && adapter.class_names().contains(&self.name)
            }
        }
    }

    /// Contour itself goes by the name and looks at no object.
    fn is_contours(&self) -> bool {
        self.name == "contour"
            || self
                .controller
                .is_some_and(|controller| controller.starts_with("projectcontour.io/"))
    }

    fn describe(&self) -> String {
        let from = match self.source {
            Source::Annotation => "by its annotation kubernetes.io/ingress.class",
            Source::Spec => "by spec.ingressClassName",
            Source::Default => "by default",
            Source::Nowhere => return "it names no class, and no IngressClass is the default".to_owned(),
        };
        match (self.exists, self.controller) {
            (_, Some(controller)) => format!(
                "its class {} ({from}) has spec.controller {controller}",
                self.name
            ),
            (true, None) => format!("its class {} ({from}) has no spec.controller", self.name),
            (false, None) => format!(
                "its class {} ({from}) names no IngressClass that exists",
                self.name
            ),
        }
    }
}

/// Of several default classes the newest counts, then the first by name: the rule of the API server's
/// `DefaultIngressClass` admission.
fn default_class(classes: &[Arc<IngressClass>]) -> Option<&str> {
    let mut defaults: Vec<&IngressClass> = classes
        .iter()
        .map(Arc::as_ref)
        .filter(|class| {
            class
                .annotations()
                .get(DEFAULT_CLASS_ANNOTATION)
                .is_some_and(|value| value == "true")
        })
        .collect();
    defaults.sort_by(|a, b| {
        let newest_first = b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp);
        newest_first.then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    defaults.first()?.metadata.name.as_deref()
}
