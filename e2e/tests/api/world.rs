//! A namespace for one test, and what a user does in it.

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use session_operator::api::{FINALIZER, FOREIGN_FIELD_MANAGER_PREFIX, RESTORE_ANNOTATION};

use crate::operator::Operator;
use crate::stage::{self, Stage};
use crate::wait::until;

/// Field manager of what tests write as a user with an Update.
pub const USER: &str = "kubectl-edit";

/// One namespace.
pub struct World {
    /// The API server.
    pub stage: &'static Stage,
    /// As administrator.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl World {
    /// A namespace that the shared operator serves.
    pub async fn shared(name: &str) -> (Self, &'static Operator) {
        let operator = Operator::shared().await;
        (Self::on(&stage::MAIN, name).await, operator)
    }

    /// A namespace on one of the API servers, whoever serves it.
    pub async fn on(stage: &'static Stage, name: &str) -> Self {
        let world = Self {
            stage,
            client: stage.client().await,
            namespace: format!("{name}-{:06x}", fastrand::u32(..) >> 8),
        };
        world
            .create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace}}))
            .await;
        world
    }

    /// Objects of a kind, in this namespace if they live in one.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (resource, namespaced) = resource(kind);
        if namespaced {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    /// Creates an object. `validation` says what becomes of unknown fields: Strict or Ignore.
    pub async fn try_create(&self, object: &Value, validation: &str) -> kube::Result<Value> {
        let kind = object["kind"].as_str().unwrap();
        // A plain request: kube's own says nothing of validation.
        let api = self.api(kind);
        let url = api.resource_url();
        let request = http::Request::post(format!("{url}?fieldManager={USER}&fieldValidation={validation}"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object).unwrap())
            .unwrap();
        self.client.request(request).await
    }

    /// Creates an object that has to be accepted.
    pub async fn create(&self, object: &Value) -> Value {
        self.try_create(object, "Strict")
            .await
            .unwrap_or_else(|error| panic!("cannot create {object}: {error}"))
    }

    /// Server-side apply as some other manager.
    pub async fn apply(&self, manager: &str, object: &Value) -> Value {
        let params = PatchParams::apply(manager).force();
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = self
            .api(object["kind"].as_str().unwrap())
            .patch(name, &params, &Patch::Apply(object))
            .await
            .unwrap();
        value(&applied)
    }

    /// A merge patch, as `kubectl edit`, `label` and `annotate` send it.
    pub async fn patch(&self, kind: &str, name: &str, change: &Value) -> Value {
        let params = PatchParams {
            field_manager: Some(USER.into()),
            ..PatchParams::default()
        };
        value(
            &self
                .api(kind)
                .patch(name, &params, &Patch::Merge(change))
                .await
                .unwrap(),
        )
    }

    /// Replaces an object after a change, as `kubectl edit` with an older kubectl.
    pub async fn replace(&self, kind: &str, name: &str, change: impl Fn(&mut Value)) {
        let params = PostParams {
            field_manager: Some(USER.into()),
            ..PostParams::default()
        };
        until(&format!("replacing {kind} {name}"), || async {
            let mut object = self.get(kind, name).await;
            change(&mut object);
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            self.api(kind)
                .replace(name, &params, &object)
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// An object that exists.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        value(&self.api(kind).get(name).await.unwrap())
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Deletes an object as `kubectl delete --cascade=foreground` does.
    pub async fn delete_in_foreground(&self, kind: &str, name: &str) {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        self.api(kind).delete(name, &params).await.unwrap();
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, kind: &str, name: &str) {
        until(
            &format!("{kind} {}/{name} to be gone", self.namespace),
            || async {
                match self.api(kind).get_opt(name).await.unwrap() {
                    None => Ok(()),
                    Some(object) => Err(value(&object).to_string()),
                }
            },
        )
        .await;
    }

    /// Waits until an object is as wanted, and returns it.
    pub async fn until(&self, kind: &str, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{kind} {}/{name}: {what}", self.namespace), || async {
            let object = match self.api(kind).get_opt(name).await {
                Ok(Some(object)) => value(&object),
                Ok(None) => return Err("it does not exist".to_owned()),
                Err(error) => return Err(error.to_string()),
            };
            if wanted(&object) {
                Ok(object)
            } else {
                Err(object.to_string())
            }
        })
        .await
    }

    /// Waits until a policy says of its present spec that it is ready, and returns it.
    pub async fn until_ready(&self, name: &str) -> Value {
        self.until("SessionPolicy", name, "Ready", |policy| {
            condition(policy, "Ready").is_some_and(|ready| ready["status"] == "True")
        })
        .await
    }

    /// Waits until a condition of a policy is False for a reason, and returns its message.
    pub async fn until_refused(&self, name: &str, type_: &str, reason: &str) -> String {
        let policy = self
            .until(
                "SessionPolicy",
                name,
                &format!("{type_}=False, {reason}"),
                |policy| {
                    condition(policy, type_)
                        .is_some_and(|found| found["status"] == "False" && found["reason"] == reason)
                        && condition(policy, "Ready")
                            .is_some_and(|ready| ready["status"] == "False" && ready["reason"] == reason)
                },
            )
            .await;
        condition(&policy, type_).unwrap()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits for an Event about a policy, and returns its note.
    pub async fn until_event(&self, policy: &str, reason: &str) -> String {
        until(&format!("Event {reason} of {policy}"), || async {
            let events = self.api("Event").list(&ListParams::default()).await.unwrap();
            let events: Vec<Value> = events.items.iter().map(value).collect();
            events
                .iter()
                .find(|event| event["regarding"]["name"] == policy && event["reason"] == reason)
                .map(|event| event["note"].as_str().unwrap().to_owned())
                .ok_or_else(|| format!("{events:?}"))
        })
        .await
    }

    /// Deletes a policy and waits until its changes are undone.
    pub async fn delete_policy(&self, name: &str) {
        self.delete("SessionPolicy", name).await;
        self.until_gone("SessionPolicy", name).await;
    }

    /// Deployment, Service and Ingress of one application, all called the same.
    pub async fn application(&self, name: &str, class: &str) {
        self.create(&deployment(name)).await;
        self.create(&service(name)).await;
        self.create(&ingress(name, class, &[name])).await;
    }
}

/// A condition of a policy, if it speaks of the present spec.
pub fn condition<'a>(policy: &'a Value, type_: &str) -> Option<&'a Value> {
    let found = policy["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == type_)?;
    (found["observedGeneration"] == policy["metadata"]["generation"]).then_some(found)
}

/// The entry of `managedFields` of a manager.
pub fn managed<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    entries.iter().find(|entry| entry["manager"] == manager)
}

/// The field manager of a policy.
pub fn manager_of(policy: &Value) -> String {
    format!(
        "{FOREIGN_FIELD_MANAGER_PREFIX}{}",
        policy["metadata"]["uid"].as_str().unwrap()
    )
}

/// An annotation, escaped for nobody: keys have dots and slashes.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(key)?.as_str()
}

/// Whether a policy carries the finalizer.
pub fn has_finalizer(policy: &Value) -> bool {
    policy["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

/// What a policy has recorded for putting back.
pub fn records(policy: &Value) -> Option<Value> {
    annotation(policy, RESTORE_ANNOTATION).map(|text| serde_json::from_str(text).unwrap())
}

/// The resourceVersion of an object.
pub fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// An object without what every write changes: all that its owner can see of it.
pub fn essence(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for volatile in ["resourceVersion", "managedFields", "generation"] {
        metadata.remove(volatile);
    }
    object
}

/// An object as JSON.
pub fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

fn resource(kind: &str) -> (ApiResource, bool) {
    let (api_version, plural, namespaced) = match kind {
        "Namespace" => ("v1", "namespaces", false),
        "Service" => ("v1", "services", true),
        "Deployment" => ("apps/v1", "deployments", true),
        "Ingress" => ("networking.k8s.io/v1", "ingresses", true),
        "NetworkPolicy" => ("networking.k8s.io/v1", "networkpolicies", true),
        "IngressClass" => ("networking.k8s.io/v1", "ingressclasses", false),
        "HTTPProxy" => ("projectcontour.io/v1", "httpproxies", true),
        "IngressRoute" => ("traefik.io/v1alpha1", "ingressroutes", true),
        "PersistentVolumeClaim" => ("v1", "persistentvolumeclaims", true),
        "StatefulSet" => ("apps/v1", "statefulsets", true),
        "PodDisruptionBudget" => ("policy/v1", "poddisruptionbudgets", true),
        "SessionPolicy" => ("session-operator.dev/v1alpha1", "sessionpolicies", true),
        "SessionStore" => ("session-operator.dev/v1alpha1", "sessionstores", true),
        "SessionInjection" => ("session-operator.dev/v1alpha1", "sessioninjections", true),
        "MutatingWebhookConfiguration" => (
            "admissionregistration.k8s.io/v1",
            "mutatingwebhookconfigurations",
            false,
        ),
        "Pod" => ("v1", "pods", true),
        "Secret" => ("v1", "secrets", true),
        "Event" => ("events.k8s.io/v1", "events", true),
        "Lease" => ("coordination.k8s.io/v1", "leases", true),
        "CustomResourceDefinition" => ("apiextensions.k8s.io/v1", "customresourcedefinitions", false),
        other => panic!("no test knows the kind {other}"),
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    (resource, namespaced)
}

/// A Deployment whose pods carry `app: NAME`.
pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"team": "shop"}, "annotations": {"owner": "somebody"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "localhost/shop:1"}]}
            }
        }
    })
}

/// A Service that selects `app: NAME`.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"team": "shop"}, "annotations": {"owner": "somebody"}},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]
        }
    })
}

/// An Ingress that leads to Services, each under a path of its name.
pub fn ingress(name: &str, class: &str, services: &[&str]) -> Value {
    let paths: Vec<Value> = services
        .iter()
        .map(|service| {
            json!({
                "path": format!("/{service}"),
                "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"name": "http"}}}
            })
        })
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "labels": {"team": "shop"}, "annotations": {"owner": "somebody"}},
        "spec": {
            "ingressClassName": class,
            "rules": [{"host": format!("{name}.example.org"), "http": {"paths": paths}}]
        }
    })
}

/// A policy with strategy Sticky; `sticky` null = absent.
pub fn policy(name: &str, target: &str, sticky: &Value) -> Value {
    let mut policy = json!({
        "apiVersion": "session-operator.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": {"name": name},
        "spec": {"targetRef": {"name": target}, "strategy": "Sticky"}
    });
    if !sticky.is_null() {
        policy["spec"]["sticky"] = sticky.clone();
    }
    policy
}
