//! Step 4: writes what is wanted where it does not stand, and reads it back.
//!
//! In steady state every object already holds the wanted fields under the policy's manager, and nothing is sent.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::build::Desired;
use super::dereference::{Dereferenced, Live};
use super::managed;
use super::restore::{Records, edit_operations};
use super::undo;
use super::validate::Validated;
use crate::affinity::model::{DefaultedField, Edit, ObjectKey, PlanOutcome, Refusal, RoutePlan, Write};
use crate::affinity::{missing_edits, missing_fields};
use crate::api::conditions::reasons;
use crate::api::{FOREIGN_FIELD_MANAGER_PREFIX, SessionPolicy};
use crate::runtime::writer::{Conflict, WriteError, Writer};

mod budget;

pub use budget::RestoreBudget;

/// What stands in the cluster after this step.
#[derive(Debug, Default)]
pub struct Applied {
    /// The routes, each with what became of it.
    pub routes: Vec<AppliedRoute>,
    /// Why there was nothing to configure at all.
    pub refusal: Option<Refusal>,
    /// What became of the mark on the pod template, if one was to be written.
    pub mark: Option<Result<(), Refusal>>,
    /// Objects that were changed just now, as `Kind/name`.
    pub changed: Vec<String>,
    /// When to try again, if something has to wait.
    pub retry_after: Option<std::time::Duration>,
}

/// One route and what became of it.
#[derive(Debug)]
pub struct AppliedRoute {
    /// The plan.
    pub plan: RoutePlan,
    /// Whether everything that the plan writes was read back; else why not.
    pub outcome: Result<(), Refusal>,
}

/// State of one object after this step.
type ObjectOutcome = Result<(), Refusal>;

/// Applies `desired`.
///
/// # Errors
/// Those that concern the whole policy: lost leadership and an API server that does not answer. What concerns one
/// object is in the result.
pub async fn apply(
    writer: &Writer,
    budget: &RestoreBudget,
    policy: &SessionPolicy,
    validated: &Validated,
    found: &Dereferenced,
    desired: Desired,
) -> Result<Applied, WriteError> {
    let Desired {
        routes,
        refusal,
        writes,
        withdraw,
    } = desired;
    let mut step = Step {
        writer,
        budget,
        validated,
        found,
        records: validated.records.clone(),
        objects: BTreeMap::new(),
        changed: Vec::new(),
        retry_after: None,
    };
    if !validated.suspended {
        step.remember(policy, &writes).await?;
    }
    for write in &writes {
        let outcome = match write {
            Write::Apply {
                object,
                fields,
                takeable_defaults,
            } => step.apply_fields(object, fields, takeable_defaults).await?,
            Write::Patch { object, edits, .. } => step.patch_entries(object, edits).await?,
        };
        let known = step.objects.entry(write.object().clone()).or_insert(Ok(()));
        if known.is_ok() {
            *known = outcome;
        }
    }
    if !validated.suspended {
        for object in &withdraw {
            if undo::withdraw_fields(writer, object, &validated.manager).await? {
                step.changed.push(object.short());
            }
        }
        step.restore_unwanted(policy, &writes).await?;
    }
    let Step {
        objects,
        changed,
        retry_after,
        ..
    } = step;
    let mark = objects.get(&ObjectKey::deployment(&validated.target)).cloned();
    let routes = routes
        .into_iter()
        .map(|plan| AppliedRoute {
            outcome: outcome_of(&plan, &objects),
            plan,
        })
        .collect();
    Ok(Applied {
        routes,
        refusal,
        mark,
        changed,
        retry_after,
    })
}

fn outcome_of(plan: &RoutePlan, objects: &BTreeMap<ObjectKey, ObjectOutcome>) -> Result<(), Refusal> {
    match &plan.outcome {
        PlanOutcome::Refused(refusal) => Err(refusal.clone()),
        PlanOutcome::Reported(_) => Ok(()),
        PlanOutcome::Configured(configured) => {
            if let Some(advice) = &configured.advice {
                return Err(Refusal {
                    reason: reasons::MANUAL_CHANGE_NEEDED,
                    message: format!(
                        "{} is not written because {}; add:\n{}",
                        advice.object, advice.because, advice.yaml
                    ),
                });
            }
            configured
                .writes
                .iter()
                .try_for_each(|write| objects.get(write.object()).cloned().unwrap_or(Ok(())))
        }
    }
}

struct Step<'a> {
    writer: &'a Writer,
    budget: &'a RestoreBudget,
    validated: &'a Validated,
    found: &'a Dereferenced,
    records: Records,
    objects: BTreeMap<ObjectKey, ObjectOutcome>,
    changed: Vec<String>,
    retry_after: Option<std::time::Duration>,
}

impl Step<'_> {
    /// Before the first foreign write: the finalizer, and what stands in the entries that will be patched.
    async fn remember(&mut self, policy: &SessionPolicy, writes: &[Write]) -> Result<(), WriteError> {
        for write in writes {
            if let Write::Patch { object, edits, .. } = write
                && let Some(live) = self.found.live(object)
                && !missing_edits(&live.value, edits).is_empty()
                && self.foreign_value(object, edits, &live.value).is_none()
            {
                self.records.remember(object, edits, &live.value);
            }
        }
        let needed = !writes.is_empty() || !self.records.0.is_empty();
        let complete = undo::has_finalizer(&policy.metadata) && self.records == self.validated.records;
        if needed && !complete {
            undo::write_own_metadata(self.writer, &policy.metadata, &self.records).await?;
        }
        Ok(())
    }

    async fn apply_fields(
        &mut self,
        object: &ObjectKey,
        fields: &Value,
        takeable: &[DefaultedField],
    ) -> Result<ObjectOutcome, WriteError> {
        let Some(live) = self.found.live(object) else {
            return Ok(Err(gone(object)));
        };
        let missing = missing_fields(&live.value, fields);
        if self.validated.suspended {
            return Ok(suspended(object, &missing));
        }
        let owned = managed::applied_by(&live.meta, &self.validated.manager);
        if missing.is_empty() && owned.as_ref() == Some(&managed::leaf_paths(fields)) {
            self.budget.stands(&self.validated.uid, object);
            return Ok(Ok(()));
        }
        match self
            .budget
            .ask(&self.validated.uid, object, fields, live.resource_version())
        {
            budget::Answer::Pending => return Ok(Ok(())),
            budget::Answer::Exhausted(wait) => return Ok(Err(self.exhausted(object, &missing, wait))),
            budget::Answer::Write => {}
        }
        let manager = &self.validated.manager;
        let mut answer = self.writer.apply(object, manager, fields, false).await;
        if let Err(WriteError::Conflict(conflicts)) = &answer
            && let Some(fields) = self.take_defaults(object, fields, takeable, conflicts).await?
        {
            answer = self.writer.apply(object, manager, &fields, true).await;
        }
        let written = match answer {
            Ok(written) => written,
            Err(error) => return self.failed(object, error),
        };
        self.budget
            .wrote(&self.validated.uid, object, fields, live.resource_version());
        self.note_change(object, &live, &written);
        Ok(read_back(object, &missing_fields(&as_value(&written), fields)))
    }

    /// The fields with the live resourceVersion in them, if every conflict is about an API default that nobody chose.
    async fn take_defaults(
        &self,
        object: &ObjectKey,
        fields: &Value,
        takeable: &[DefaultedField],
        conflicts: &[Conflict],
    ) -> Result<Option<Value>, WriteError> {
        let is_takeable = |conflict: &Conflict| {
            takeable
                .iter()
                .find(|defaulted| defaulted.pointer.replace('/', ".").replace("~1", "/") == conflict.field)
        };
        let Some(live) = self.writer.read(object).await? else {
            return Ok(None);
        };
        let value = as_value(&live);
        let all = conflicts.iter().all(|conflict| {
            is_takeable(conflict).is_some_and(|defaulted| {
                value.pointer(&defaulted.pointer) == Some(&defaulted.default)
                    && managed::owned_by_update(&live.metadata, &defaulted.pointer, &self.validated.manager)
            })
        });
        Ok(all.then(|| {
            with_resource_version(
                fields,
                live.metadata.resource_version.as_deref().unwrap_or_default(),
            )
        }))
    }

    async fn patch_entries(
        &mut self,
        object: &ObjectKey,
        edits: &[Edit],
    ) -> Result<ObjectOutcome, WriteError> {
        let Some(live) = self.found.live(object) else {
            return Ok(Err(gone(object)));
        };
        let missing = missing_edits(&live.value, edits);
        if self.validated.suspended {
            return Ok(suspended(object, &missing));
        }
        if missing.is_empty() {
            self.budget.stands(&self.validated.uid, object);
            return Ok(Ok(()));
        }
        let wanted: Value = edits
            .iter()
            .map(|edit| json!([edit.pointer, edit.value]))
            .collect();
        match self
            .budget
            .ask(&self.validated.uid, object, &wanted, live.resource_version())
        {
            budget::Answer::Pending => return Ok(Ok(())),
            budget::Answer::Exhausted(wait) => return Ok(Err(self.exhausted(object, &missing, wait))),
            budget::Answer::Write => {}
        }
        if let Some(refusal) = self.foreign_value(object, edits, &live.value) {
            return Ok(Err(refusal));
        }
        let operations = edit_operations(&live.value, edits);
        let version = live.resource_version();
        let written = match self
            .writer
            .patch(object, &self.validated.manager, version, operations)
            .await
        {
            Ok(written) => written,
            Err(error) => return self.failed(object, error),
        };
        self.budget
            .wrote(&self.validated.uid, object, &wanted, live.resource_version());
        self.note_change(object, &live, &written);
        Ok(read_back(object, &missing_edits(&as_value(&written), edits)))
    }

    /// Puts back patched entries that are not wanted any more, and forgets objects that are gone.
    async fn restore_unwanted(&mut self, policy: &SessionPolicy, writes: &[Write]) -> Result<(), WriteError> {
        let mut kept = self.records.clone();
        for record in &self.records.0 {
            let wanted: Vec<Edit> = writes
                .iter()
                .filter(|write| write.object().uid == record.uid)
                .flat_map(|write| match write {
                    Write::Patch { edits, .. } => edits.clone(),
                    Write::Apply { .. } => Vec::new(),
                })
                .collect();
            let Validated {
                namespace, manager, ..
            } = self.validated;
            let live = self.found.live(&record.object(namespace)).map(|live| live.value);
            if live.as_ref().is_some_and(|live| record.is_wanted(live, &wanted)) {
                continue;
            }
            if undo::restore_entries(self.writer, namespace, manager, record, &wanted).await? {
                self.changed.push(format!("{}/{}", record.kind, record.name));
            }
            kept.keep_only(&record.uid, live.as_ref(), &wanted);
        }
        if kept != self.records {
            undo::write_own_metadata(self.writer, &policy.metadata, &kept).await?;
        }
        Ok(())
    }

    /// A conflict, if an edit would replace a value that the owner of the object chose.
    fn foreign_value(&self, object: &ObjectKey, edits: &[Edit], live: &Value) -> Option<Refusal> {
        let theirs = edits.iter().find(|edit| {
            live.pointer(&edit.pointer)
                .is_some_and(|value| *value != edit.value)
                && !self.validated.records.wrote(&object.uid, live, &edit.pointer)
        })?;
        Some(Refusal {
            reason: reasons::FIELD_CONFLICT,
            message: format!(
                "{} already says {} at {}; remove it there, or make spec.sticky agree with it",
                object.short(),
                live.pointer(&theirs.pointer)
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                theirs.pointer
            ),
        })
    }

    fn note_change(&mut self, object: &ObjectKey, before: &Live, after: &DynamicObject) {
        if after.metadata.resource_version.as_deref() != Some(before.resource_version()) {
            self.changed.push(object.short());
        }
    }

    /// Sorts a failed write into what concerns this object only and what stops the reconcile.
    fn failed(&self, object: &ObjectKey, error: WriteError) -> Result<ObjectOutcome, WriteError> {
        match error {
            WriteError::Conflict(conflicts) => Ok(Err(self.conflict(object, &conflicts))),
            WriteError::Gone => Ok(Err(gone(object))),
            WriteError::Refused(status) => Ok(Err(Refusal {
                reason: reasons::NOT_READ_BACK,
                message: format!(
                    "{}: the API server refused the setting: {}",
                    object.short(),
                    status.message
                ),
            })),
            other => Err(other),
        }
    }

    fn conflict(&self, object: &ObjectKey, conflicts: &[Conflict]) -> Refusal {
        let fields: Vec<String> = conflicts
            .iter()
            .map(|conflict| {
                let policy = conflict
                    .manager
                    .strip_prefix(FOREIGN_FIELD_MANAGER_PREFIX)
                    .and_then(|uid| self.found.policies.get(uid))
                    .map(|name| format!("SessionPolicy {name}"));
                let owner = policy.unwrap_or_else(|| format!("field manager {:?}", conflict.manager));
                format!("{} (by {owner})", conflict.field)
            })
            .collect();
        // The only field on a Deployment is the mark, which nobody else has a reason to choose.
        let or = if object.kind == "Deployment" {
            ""
        } else {
            ", or make spec.sticky agree with them"
        };
        Refusal {
            reason: reasons::FIELD_CONFLICT,
            message: format!(
                "{} has other values in {}; remove them there{or}",
                object.short(),
                fields.join(", ")
            ),
        }
    }

    fn exhausted(&mut self, object: &ObjectKey, missing: &[String], wait: std::time::Duration) -> Refusal {
        self.retry_after = Some(self.retry_after.map_or(wait, |known| known.min(wait)));
        Refusal {
            reason: reasons::REMOVED_REPEATEDLY,
            message: format!(
                "{}: somebody keeps removing {}; it was put back {} times within an hour and is left alone for now. \
                 Find what writes this object (kubectl get {} {} --show-managed-fields -o yaml) and let it keep the field",
                object.short(),
                missing.join(", "),
                budget::RESTORES_PER_HOUR,
                object.plural,
                object.name,
            ),
        }
    }
}

fn gone(object: &ObjectKey) -> Refusal {
    Refusal {
        reason: reasons::NOT_READ_BACK,
        message: format!(
            "{} was deleted or replaced while it was being configured",
            object.short()
        ),
    }
}

fn suspended(object: &ObjectKey, missing: &[String]) -> ObjectOutcome {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        reason: reasons::SUSPENDED,
        message: format!(
            "{}: {} not written while spec.suspend is true",
            object.short(),
            missing.join(", ")
        ),
    })
}

fn read_back(object: &ObjectKey, missing: &[String]) -> ObjectOutcome {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        reason: reasons::NOT_READ_BACK,
        message: format!(
            "{}: {} was written and is not there when read back; the schema of this cluster may not know the field",
            object.short(),
            missing.join(", ")
        ),
    })
}

fn as_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn with_resource_version(fields: &Value, resource_version: &str) -> Value {
    let mut fields = fields.clone();
    if let Some(object) = fields.as_object_mut() {
        let metadata = object.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".into(), json!(resource_version));
        }
    }
    fields
}
