//! The only way from a controller to a change in the cluster.
//!
//! Every failure comes back as a value that says who is in the way. That only the leader writes, and that each request
//! has a limit in time, is the client's doing ([`crate::runtime::client`]).

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::response::StatusCause;
use kube::core::{ApiResource, GroupVersion, Status};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::affinity::model::ObjectKey;
use crate::runtime::client::RequestError;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Leadership passed on, or may have.
    #[error("this process is not the leader")]
    NotLeader,
    /// Another manager holds fields with other values.
    #[error("conflict with other field managers")]
    Conflict(Vec<Conflict>),
    /// The object is gone, or another one stands under its name.
    #[error("the object is gone")]
    Gone,
    /// The object changed since it was read.
    #[error("the object changed since it was read")]
    Changed,
    /// The API server refused the content.
    #[error("refused by the API server: {}", .0.message)]
    Refused(Box<Status>),
    /// Pods still run with something that is to be removed: their names.
    #[error(
        "pods still run with what is to be removed: {}; resume the Deployment or delete them, then try again",
        .0.join(", ")
    )]
    PodsLeft(Vec<String>),
    /// No answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// Anything else; worth another try.
    #[error("request to the API server failed")]
    Api(#[source] kube::Error),
}

/// One field that another manager holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field, as the API server names it, such as `.spec.sessionAffinity`.
    pub field: String,
    /// The manager.
    pub manager: String,
}

/// Sends writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    dry_run: bool,
}

impl Writer {
    /// A writer with the rights of `client`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            dry_run: false,
        }
    }

    /// A writer whose requests go through validation and admission and change nothing.
    pub fn dry(client: Client) -> Self {
        Self {
            client,
            dry_run: true,
        }
    }

    /// The client, for reads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Server-side apply of `fields` on an object that must exist as `object.uid`.
    pub async fn apply(
        &self,
        object: &ObjectKey,
        manager: &str,
        fields: &Value,
        force: bool,
    ) -> Result<DynamicObject, WriteError> {
        let mut body = fields.as_object().cloned().unwrap_or_default();
        body.insert("apiVersion".into(), json!(object.api_version));
        body.insert("kind".into(), json!(object.kind));
        let metadata = body.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("name".into(), json!(object.name));
            metadata.insert("namespace".into(), json!(object.namespace));
            metadata.insert("uid".into(), json!(object.uid));
        }
        let mut params = PatchParams::apply(manager).validation_strict();
        params.force = force;
        params.dry_run = self.dry_run;
        let body = Value::Object(body);
        let api = self.api(object);
        api.patch(&object.name, &params, &Patch::Apply(&body))
            .await
            .map_err(classify)
    }

    /// JSON Patch of an object that must still be at `resource_version`.
    pub async fn patch(
        &self,
        object: &ObjectKey,
        manager: &str,
        resource_version: &str,
        operations: Vec<Value>,
    ) -> Result<DynamicObject, WriteError> {
        let mut guarded = vec![
            json!({"op": "test", "path": "/metadata/uid", "value": object.uid}),
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}),
        ];
        guarded.extend(operations);
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(guarded))
            .map_err(|error| WriteError::Api(kube::Error::SerdeError(error)))?;
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            dry_run: self.dry_run,
            ..PatchParams::default()
        };
        let params = params.validation_strict();
        let api = self.api(object);
        api.patch(&object.name, &params, &Patch::<Value>::Json(patch))
            .await
            .map_err(|error| match classify(error) {
                // A failed `test` is Invalid without a cause; content that is refused names its fields.
                WriteError::Refused(status) if status.code == 422 && causes(&status).next().is_none() => {
                    WriteError::Changed
                }
                other => other,
            })
    }

    /// Server-side apply of the status subresource. The status is ours alone, so it is forced.
    pub async fn apply_status(
        &self,
        object: &ObjectKey,
        manager: &str,
        status: &Value,
    ) -> Result<(), WriteError> {
        let body = json!({
            "apiVersion": object.api_version,
            "kind": object.kind,
            "metadata": {"name": object.name, "namespace": object.namespace, "uid": object.uid},
            "status": status,
        });
        let params = PatchParams::apply(manager).force();
        let api = self.api(object);
        api.patch_status(&object.name, &params, &Patch::Apply(&body))
            .await
            .map(|_| ())
            .map_err(classify)
    }

    /// Reads an object; `None` if it is gone or another one stands under its name.
    pub async fn read(&self, object: &ObjectKey) -> Result<Option<DynamicObject>, WriteError> {
        match self.api(object).get(&object.name).await.map_err(classify) {
            Ok(live) => Ok(Some(live).filter(|live| live.metadata.uid.as_deref() == Some(&object.uid))),
            Err(WriteError::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn api(&self, object: &ObjectKey) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &object.namespace, &resource(object))
    }
}

fn resource(object: &ObjectKey) -> ApiResource {
    let (group, version) = object
        .api_version
        .split_once('/')
        .unwrap_or(("", &object.api_version));
    let gv = GroupVersion {
        group: group.to_owned(),
        version: version.to_owned(),
    };
    ApiResource {
        group: gv.group,
        version: gv.version,
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        plural: object.plural.clone(),
    }
}

/// Sorts the failures of a request.
pub fn classify(error: kube::Error) -> WriteError {
    let status = match error {
        kube::Error::Api(status) => status,
        kube::Error::Service(source) => {
            return match source.downcast_ref() {
                Some(RequestError::NotLeader) => WriteError::NotLeader,
                Some(RequestError::Timeout) => WriteError::Timeout,
                None => WriteError::Api(kube::Error::Service(source)),
            };
        }
        other => return WriteError::Api(other),
    };
    // By code: where the whole kind is gone with its CRD, the answer is plain text and has no reason.
    if status.code == 404 {
        return WriteError::Gone;
    }
    if status.is_conflict() {
        let conflicts = conflicts(&status);
        // An apply with a uid on nothing is refused as a conflict; on another object, as an invalid uid (below).
        if status.message.contains("uid") && conflicts.is_empty() {
            return WriteError::Gone;
        }
        return if conflicts.is_empty() {
            WriteError::Changed
        } else {
            WriteError::Conflict(conflicts)
        };
    }
    match status.code {
        422 if causes(&status).any(|cause| cause.field == "metadata.uid") => WriteError::Gone,
        400 | 422 => WriteError::Refused(status),
        _ => WriteError::Api(kube::Error::Api(status)),
    }
}

/// The conflicts of a refused server-side apply; each cause reads `conflict with "manager" …`.
fn conflicts(status: &Status) -> Vec<Conflict> {
    causes(status)
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| Conflict {
            field: cause.field.clone(),
            manager: cause.message.split('"').nth(1).unwrap_or("unknown").to_owned(),
        })
        .collect()
}

fn causes(status: &Status) -> impl Iterator<Item = &StatusCause> {
    status.details.iter().flat_map(|details| &details.causes)
}

impl WriteError {
    /// Reason for conditions, events and the error metric.
    pub fn reason(&self) -> &'static str {
        use crate::api::conditions::reasons;
        match self {
            Self::Conflict(_) => reasons::FIELD_CONFLICT,
            _ => reasons::API_ERROR,
        }
    }

    /// What a person should read: the API server's own sentence where there is one.
    pub fn explain(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => format!("the API server answered: {}", status.message),
            Self::Api(error) => format!("the API server could not be asked: {error}"),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorts an answer of the API server, given as it came.
    fn sorted(answer: Value) -> WriteError {
        classify(kube::Error::Api(Box::new(
            serde_json::from_value(answer).unwrap(),
        )))
    }

    #[test]
    fn an_object_that_is_gone_or_another_one_is_told_from_a_refused_setting() {
        let uid =
            json!({"field": "metadata.uid", "reason": "FieldValueInvalid", "message": "field is immutable"});
        let gone = [
            json!({"code": 404, "reason": "NotFound", "message": "services \"shop\" not found"}),
            // Made by kube from a body that is no Status.
            json!({"code": 404, "reason": "Failed to parse error data", "message": "404 page not found\n"}),
            json!({"code": 409, "reason": "Conflict", "message": "uid mismatch: the provided object specified uid 1, and no existing object was found"}),
            json!({"code": 422, "reason": "Invalid", "message": "metadata.uid: field is immutable", "details": {"causes": [uid]}}),
        ];
        for answer in gone {
            let text = answer.to_string();
            assert!(matches!(sorted(answer), WriteError::Gone), "{text}");
        }
        let refused = json!({"code": 422, "reason": "Invalid", "message": "spec.sessionAffinity: Unsupported value",
            "details": {"causes": [{"field": "spec.sessionAffinity", "reason": "FieldValueNotSupported", "message": ""}]}});
        assert!(matches!(sorted(refused), WriteError::Refused(_)));
        let changed = json!({"code": 409, "reason": "Conflict", "message": "the object has been modified"});
        assert!(matches!(sorted(changed), WriteError::Changed));
    }

    #[test]
    fn a_conflict_names_field_and_manager() {
        let answer = json!({"code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict", "details": {"causes": [
            {"reason": "FieldManagerConflict", "field": ".spec.sessionAffinity", "message": "conflict with \"flux\" using v1"}]}});
        let WriteError::Conflict(conflicts) = sorted(answer) else {
            panic!("no conflict")
        };
        let expected = Conflict {
            field: ".spec.sessionAffinity".to_owned(),
            manager: "flux".to_owned(),
        };
        assert_eq!(conflicts, [expected]);
    }
}
