//! Rotations in a reconcile: how far they are, and who is told.

use kube::Resource;
use kube::runtime::events::EventType;

use super::ask::Asked;
use super::holders;
use super::material::Material;
use super::reconcile::{Context, Error};
use super::rotation::{self, Seen};
use super::validate::Validated;
use crate::api::SessionStore;
use crate::api::conditions::reasons;
use crate::api::session_store::{Rotation, RotationPhase, StoreRotation};

/// How far rotations are, now that their present phases were carried out.
pub async fn rotated(
    context: &Context,
    store: &Validated,
    material: &Material,
    course: &StoreRotation,
    asked: &Asked,
) -> Result<StoreRotation, Error> {
    let left = if rotation::asks_for_holders(course) {
        holders::look(context.writer.client(), &context.caches, store, material).await?
    } else {
        holders::Left::default()
    };
    let seen = Seen {
        users: asked.lack("have not been told of their users", |facts| {
            facts.users_are_current
        }),
        certificates: asked.lack("do not present their new certificates yet", |facts| {
            facts.certificate_is_current
        }),
        passwords_held: rotation::nobody(left.passwords),
        authorities_held: rotation::nobody(left.authorities),
    };
    Ok(rotation::advance(course, &seen, jiff::Timestamp::now()))
}

/// Tells people of a rotation that is over.
pub async fn announce(
    context: &Context,
    store: &SessionStore,
    before: &StoreRotation,
    after: &StoreRotation,
) {
    let is_over = |before: &Option<Rotation>, after: &Option<Rotation>| {
        let over = |rotation: &Rotation| rotation.phase == RotationPhase::Finished;
        after.as_ref().is_some_and(over) && !before.as_ref().is_some_and(over)
    };
    for (before, after, reason, note) in [
        (
            &before.passwords,
            &after.passwords,
            reasons::PASSWORDS_ROTATED,
            "only the new passwords are good",
        ),
        (
            &before.certificates,
            &after.certificates,
            reasons::CERTIFICATES_ROTATED,
            "every server presents a certificate of the new authority",
        ),
    ] {
        if is_over(before, after) {
            let about = store.object_ref(&());
            context
                .events
                .publish(&about, EventType::Normal, reason, "Rotate", note.to_owned())
                .await;
        }
    }
}
