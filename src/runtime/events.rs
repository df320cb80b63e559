//! Events: what a person wants to hear of, told once.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::writer::classify;

/// Longest note of an Event (`events.k8s.io/v1`: 1024 bytes; characters here may take several).
const NOTE_LIMIT: usize = 256;

/// Writes Events.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events of the process `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "session-operator".into(),
            instance: Some(identity.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Events are best effort: one that cannot be written is logged and changes nothing else.
    pub async fn publish(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let note: String = note.chars().take(NOTE_LIMIT).collect();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, about).await.map_err(classify) {
            tracing::warn!(
                kind = about.kind,
                namespace = about.namespace,
                name = about.name,
                error = error.explain(),
                reason,
                "event not written"
            );
        }
    }
}
