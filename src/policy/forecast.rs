//! What a policy would do: the same five steps, with requests that change nothing.

use kube::api::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::apply::{Applied, AppliedRoute};
use super::build::{Desired, build};
use super::caches::Caches;
use super::dereference::{Dereferenced, dereference};
use super::restore::edit_operations;
use super::sessions::carry_out::{read_old_nodes, read_surroundings};
use super::sessions::cautions::{Cautions, too_old};
use super::sessions::source::{Place, Promise, Replicas, Shards, key_prefix, of_pods, place};
use super::sessions::{Sessions, Trouble, hand_over, in_pods, moving, names, pods, source};
use super::status;
use super::validate::{Kept, Validated, validate};
use crate::affinity::model::{ObjectKey, PlanOutcome, Write};
use crate::api::session_policy::Injection;
use crate::api::session_store::Topology;
use crate::api::{SessionPolicy, SessionStoreSpec, Survival};
use crate::framework;
use crate::runtime::client::explain;
use crate::runtime::writer::{WriteError, Writer};

/// What would come of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Objects that would change.
    pub changes: Vec<Change>,
    /// What would be in the way, each a sentence with a remedy.
    pub troubles: Vec<String>,
    /// What to know beforehand, above all what is lost on the way.
    pub notes: Vec<String>,
    /// What sessions would survive once everything is set up.
    pub survives: Vec<Survival>,
}

/// One object before and after. Without what the API server counts and dates.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The object, as `Kind/name`.
    pub object: String,
    /// As it stands; null where there is none.
    pub before: Value,
    /// As it would be; null where it would be removed.
    pub after: Value,
}

/// Looks ahead with the rights of `client`.
///
/// # Errors
/// When the API server cannot be asked. What it refuses is part of the forecast.
pub async fn forecast(
    client: &Client,
    caches: &Caches,
    policy: &SessionPolicy,
) -> Result<Forecast, WriteError> {
    let found = dereference(caches, policy);
    let validated = match validate(policy, &found) {
        Ok(validated) => hand_over::settled(validated, &found),
        Err(unresolved) => {
            return Ok(Forecast {
                troubles: vec![unresolved.message],
                ..Forecast::default()
            });
        }
    };
    let mut forecast = Forecast {
        notes: notes(&validated, &found),
        ..Forecast::default()
    };
    let cautions = look_around(client, &validated, &mut forecast).await;
    let sessions = expected(&validated, &found, cautions);
    forecast
        .troubles
        .extend(unsuitable(&validated, sessions.as_ref()));
    forecast.troubles.extend(unlisted(&validated, &found));
    let mark = sessions.as_ref().and_then(|sessions| sessions.mark.as_deref());
    let desired = build(&validated, &found, mark);
    if let Some(change) = own_store(&validated, &found) {
        forecast.changes.push(change);
    }
    let writer = Writer::dry(client.clone());
    try_out(&writer, &validated, &found, &desired, &mut forecast).await?;
    let applied = Applied {
        routes: desired
            .routes
            .into_iter()
            .map(|plan| AppliedRoute {
                outcome: match &plan.outcome {
                    PlanOutcome::Refused(refusal) => Err(refusal.clone()),
                    PlanOutcome::Configured(_) | PlanOutcome::Reported(_) => Ok(()),
                },
                plan,
            })
            .collect(),
        ..Applied::default()
    };
    let refusals = applied
        .routes
        .iter()
        .filter_map(|route| route.outcome.as_ref().err());
    let refusals = desired.refusal.iter().chain(refusals);
    forecast
        .troubles
        .extend(refusals.map(|refusal| refusal.message.clone()));
    forecast.survives = status::survival(&validated, &applied, sessions.as_ref());
    Ok(forecast)
}

/// Why the framework is of no use with the store.
fn unsuitable(validated: &Validated, sessions: Option<&Sessions>) -> Option<String> {
    let wish = validated.sessions.as_ref()?;
    let Some(Promise::Store { engine, shards, .. }) = &sessions?.promise else {
        return None;
    };
    let preset = framework::preset(wish.client.framework);
    framework::unsuitable(preset, *engine, shards.is_some()).map(|refusal| refusal.message)
}

/// Why sessions that are in a SessionStore now could not be copied into the pods.
fn unlisted(validated: &Validated, found: &Dereferenced) -> Option<String> {
    let wish = validated.sessions.as_ref()?;
    if !matches!(wish.kept, Kept::Replicated(_)) || current(validated, found) != Some(moving::Place::Store) {
        return None;
    }
    let Place::Store { name, key_prefix } = place(&validated.name, wish.shared()?) else {
        return None;
    };
    let store = found.stores.iter().find(|store| store.name_any() == name)?;
    let others = source::others(store, &key_prefix);
    (!others.is_empty()).then(|| source::unlisted(&name, &key_prefix, &others))
}

/// Where the sessions of the pods are, by the revision that the template names.
fn current(validated: &Validated, found: &Dereferenced) -> Option<moving::Place> {
    let mark = pods::mark_of(&validated.target)?;
    let named = found
        .injections
        .iter()
        .find(|injection| injection.name_any() == *mark)?;
    Some(moving::Place::of(named))
}

/// What is in the way of sessions in the pods, and what to know of them. What the user may not read is noted.
async fn look_around(client: &Client, validated: &Validated, forecast: &mut Forecast) -> Cautions {
    let mut troubles = match validated.sessions.as_ref().map(|wish| &wish.kept) {
        Some(Kept::Replicated(wish)) => Vec::from_iter(in_pods::refusal(validated, wish)),
        Some(Kept::Application(_)) => Vec::new(),
        Some(Kept::Shared(_)) | None => return Cautions::default(),
    };
    match read_old_nodes(client).await {
        Ok(nodes) => troubles.extend(too_old(&validated.target, &nodes)),
        Err(error) => forecast.notes.push(format!(
            "whether every node runs native sidecars was not looked at: {}",
            explain(&error)
        )),
    }
    let troubles = troubles.into_iter().map(|trouble| trouble.message);
    forecast.troubles.extend(troubles);
    if validated
        .sessions
        .as_ref()
        .is_none_or(|wish| wish.replicated().is_none())
    {
        return Cautions::default();
    }
    match read_surroundings(client, &validated.namespace).await {
        Ok(around) => {
            let cautions = Cautions::of(&validated.target, &around);
            forecast.notes.extend(cautions.sentences().map(str::to_owned));
            cautions
        }
        Err(error) => {
            forecast.notes.push(format!(
                "budgets and autoscalers of the target were not looked at: {}",
                explain(&error)
            ));
            Cautions::default()
        }
    }
}

/// The sessions of a policy once everything that it says is set up.
fn expected(validated: &Validated, found: &Dereferenced, cautions: Cautions) -> Option<Sessions> {
    let wish = validated.sessions.as_ref()?;
    let shared = match &wish.kept {
        Kept::Shared(shared) => shared,
        Kept::Application(_) => return Some(with(validated, None, None)),
        Kept::Replicated(replicated) => {
            let bound = validated.sticky.is_some();
            let source = of_pods(
                &key_prefix(&validated.name, wish.shared()),
                replicated,
                bound,
                usize::MAX,
                replicas(validated),
                cautions,
            );
            return Some(with(validated, Some(source.promise), None));
        }
    };
    let promise = match place(&validated.name, shared) {
        Place::External { .. } => Promise::External,
        Place::Store { name, .. } => {
            let standing = found.stores.iter().find(|store| store.name_any() == name);
            let spec = standing
                .map(|store| store.spec.clone())
                .or_else(|| shared.store.clone())
                .unwrap_or_default();
            // Of a store that is yet to be made nothing is known but what it is to be.
            let hoped = (spec.topology == Topology::Replicated).then(|| Replicas {
                synced: spec.servers() - 1,
                elsewhere: spec.servers() - 1,
            });
            let covered = if spec.servers_per_shard() > 1 {
                spec.shards()
            } else {
                0
            };
            let hoped_shards = (spec.topology == Topology::Cluster).then(|| Shards {
                count: spec.shards(),
                covered,
                elsewhere: covered,
                voters_together: false,
            });
            Promise::Store {
                engine: spec.engine,
                persistent: spec.persistence.is_some(),
                replicas: standing.map_or(hoped, |store| Replicas::of(store)),
                shards: standing.map_or(hoped_shards, |store| Shards::of(store)),
                name,
            }
        }
    };
    Some(with(validated, Some(promise), Some(Ok(String::new()))))
}

fn with(validated: &Validated, promise: Option<Promise>, store: Option<Result<String, Trouble>>) -> Sessions {
    let pods = replicas(validated);
    let mark =
        pods::mark_of(&validated.target).map_or_else(|| format!("{}-new", validated.name), str::to_owned);
    Sessions {
        store,
        promise,
        injection: Some(Injection {
            revision: Some(mark.clone()),
            injected_pods: pods,
            total_pods: pods,
            update_available: false,
            next_revision: None,
            rolled_back_at: None,
            preflight: None,
        }),
        mark: Some(mark),
        ..Sessions::default()
    }
}

fn replicas(validated: &Validated) -> i32 {
    let spec = validated.target.spec.as_ref();
    spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

fn notes(validated: &Validated, found: &Dereferenced) -> Vec<String> {
    let current = current(validated, found);
    let wanted = validated.sessions.as_ref().map(|wish| match wish.kept {
        Kept::Replicated(_) => moving::Place::Pods,
        Kept::Shared(_) => moving::Place::Store,
        Kept::Application(_) => moving::Place::Application,
    });
    let movable = validated
        .sessions
        .as_ref()
        .is_some_and(|wish| wish.otherwise.is_some());
    let replaced = format!(
        "the {} pods of Deployment {} are replaced",
        replicas(validated),
        validated.target_name()
    );
    let place = |place: moving::Place| match place {
        moving::Place::Store => "in the store",
        moving::Place::Pods | moving::Place::StoreToPods | moving::Place::PodsToStore => {
            "in the sidecars of the pods"
        }
        moving::Place::Application => "in the pods",
    };
    match (current, wanted) {
        (None, None) | (Some(moving::Place::Application), Some(moving::Place::Application)) => Vec::new(),
        (None, Some(moving::Place::Application)) => vec![format!(
            "{replaced}: sessions that are in these pods now end with them; later pods keep their users for drainSeconds when they end, and then hand them over"
        )],
        (None | Some(moving::Place::Application), Some(wanted)) => vec![format!(
            "{replaced}: sessions that are in these pods now end with them, later ones are {}",
            place(wanted)
        )],
        (Some(current), None | Some(moving::Place::Application)) => vec![format!(
            "{replaced}: sessions that are {} now are not found by the new pods, later ones are in the pods",
            place(current)
        )],
        (Some(current), Some(wanted)) => match moving::course(Some(current), wanted, movable) {
            moving::Course::To(next) if next == current => Vec::new(),
            moving::Course::To(next) if next == wanted => vec![format!(
                "{replaced}: sessions that are {} now are not found by the new pods, as spec.shared does not say where they are; later ones are {}",
                place(current),
                place(wanted)
            )],
            moving::Course::To(_) | moving::Course::Through(_) => vec![format!(
                "{replaced} twice, by ones that know both places and then by ones whose sessions are {}: on the way all sessions are copied, and nobody is logged out",
                place(wanted)
            )],
        },
    }
}

/// The SessionStore that would be made or changed for the policy alone.
fn own_store(validated: &Validated, found: &Dereferenced) -> Option<Change> {
    let Kept::Shared(shared) = &validated.sessions.as_ref()?.kept else {
        return None;
    };
    let wanted = shared.store.as_ref()?;
    let name = names::store(&validated.name);
    let standing = found.stores.iter().find(|store| store.name_any() == name);
    let show =
        |spec: &SessionStoreSpec| json!({"kind": "SessionStore", "metadata": {"name": name}, "spec": spec});
    let before = standing.map_or(Value::Null, |store| show(&store.spec));
    let after = show(wanted);
    (before != after).then(|| Change {
        object: format!("SessionStore/{name}"),
        before,
        after,
    })
}

async fn try_out(
    writer: &Writer,
    validated: &Validated,
    found: &Dereferenced,
    desired: &Desired,
    forecast: &mut Forecast,
) -> Result<(), WriteError> {
    for write in &desired.writes {
        let object = write.object();
        let outcome = match write {
            Write::Apply { fields, .. } => writer.apply(object, &validated.manager, fields, false).await,
            Write::Patch { edits, .. } => {
                let Some(live) = found.live(object) else { continue };
                let operations = edit_operations(&live.value, edits);
                writer
                    .patch(object, &validated.manager, live.resource_version(), operations)
                    .await
            }
        };
        note(found, object, outcome, forecast)?;
    }
    for object in &desired.withdraw {
        let outcome = writer.apply(object, &validated.manager, &json!({}), false).await;
        note(found, object, outcome, forecast)?;
    }
    Ok(())
}

fn note(
    found: &Dereferenced,
    object: &ObjectKey,
    outcome: Result<DynamicObject, WriteError>,
    forecast: &mut Forecast,
) -> Result<(), WriteError> {
    let after = match outcome {
        Ok(after) => shown(serde_json::to_value(after).unwrap_or_default()),
        Err(WriteError::Gone | WriteError::Changed) => return Ok(()),
        Err(WriteError::Conflict(conflicts)) => {
            for conflict in conflicts {
                forecast.troubles.push(format!(
                    "{}: {} belongs to field manager {:?} with another value; remove it there, or make the policy agree with it",
                    object.short(),
                    conflict.field,
                    conflict.manager
                ));
            }
            return Ok(());
        }
        Err(WriteError::Refused(status)) => {
            forecast
                .troubles
                .push(format!("{}: {}", object.short(), status.message));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let before = found.live(object).map_or(Value::Null, |live| shown(live.value));
    if before != after {
        forecast.changes.push(Change {
            object: object.short(),
            before,
            after,
        });
    }
    Ok(())
}

/// An object without what the API server counts and dates, and without its status.
fn shown(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        for field in ["status", "apiVersion", "kind"] {
            fields.remove(field);
        }
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "managedFields",
            "resourceVersion",
            "generation",
            "uid",
            "creationTimestamp",
        ] {
            metadata.remove(field);
        }
    }
    object
}
