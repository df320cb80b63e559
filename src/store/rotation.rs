//! Other passwords and certificates without a failed request: which phase a rotation is in, and when the next one may begin.
//! Pure.
//!
//! Who asks writes an annotation. In each phase everything that a client may still use is good, so an operator that ends in the
//! middle leaves a store that serves, and the next one goes on by what status says. Each phase may be done more than once.
//! [`super::login`] and [`super::material`] do what a phase says; [`super::holders`] looks who still uses the old ones.

use std::time::Duration;

use kube::ResourceExt;

use crate::api::session_store::{Rotation, RotationPhase, StoreRotation};
use crate::api::{ROTATE_CERTIFICATES_ANNOTATION, ROTATE_PASSWORDS_ANNOTATION, SessionStore};

/// Least time for which two passwords are good: until then every kubelet has seen the users' file with both, should it start a
/// server's pod.
const LEAST_WINDOW: Duration = Duration::from_secs(30);

/// What was seen once the present phase was carried out. Each is a sentence if something lacks.
pub struct Seen {
    /// Whether every server knows its users as they are to be.
    pub users: Result<(), String>,
    /// Whether every server presents its certificate.
    pub certificates: Result<(), String>,
    /// Whether no pod is left that was started with an old password.
    pub passwords_held: Result<(), String>,
    /// Whether every pod trusts the new authority.
    pub authorities_held: Result<(), String>,
}

/// What is asked for, and how far it is. A store that has just been made has what was asked for.
pub fn course(
    store: &SessionStore,
    is_new: bool,
    has_certificates: bool,
    now: jiff::Timestamp,
) -> StoreRotation {
    let status = store.status.as_ref().and_then(|status| status.rotation.clone());
    let StoreRotation {
        passwords,
        certificates,
    } = status.unwrap_or_default();
    let wish = |name: &str| store.annotations().get(name).map(String::as_str);
    StoreRotation {
        passwords: begun(passwords, wish(ROTATE_PASSWORDS_ANNOTATION), is_new, now),
        certificates: begun(certificates, wish(ROTATE_CERTIFICATES_ANNOTATION), is_new, now)
            .filter(|_| has_certificates),
    }
}

fn begun(
    former: Option<Rotation>,
    wish: Option<&str>,
    is_new: bool,
    now: jiff::Timestamp,
) -> Option<Rotation> {
    let wish = wish.filter(|wish| former.as_ref().is_none_or(|former| former.request != *wish));
    let Some(request) = wish else { return former };
    Some(Rotation {
        request: request.to_owned(),
        phase: if is_new {
            RotationPhase::Finished
        } else {
            RotationPhase::Introducing
        },
        started_at: now.to_string(),
        finished_at: is_new.then(|| now.to_string()),
        waits_for: None,
    })
}

/// The phase of a rotation that is under way.
pub fn under_way(rotation: Option<&Rotation>) -> Option<RotationPhase> {
    rotation
        .map(|rotation| rotation.phase)
        .filter(|phase| *phase != RotationPhase::Finished)
}

/// Whether it has to be looked who still uses the old password or trusts the old authority alone.
pub fn asks_for_holders(course: &StoreRotation) -> bool {
    [&course.passwords, &course.certificates]
        .into_iter()
        .any(|rotation| under_way(rotation.as_ref()) == Some(RotationPhase::Replacing))
}

/// How far it is now that the present phase was carried out.
pub fn advance(course: &StoreRotation, seen: &Seen, now: jiff::Timestamp) -> StoreRotation {
    StoreRotation {
        passwords: course
            .passwords
            .as_ref()
            .map(|rotation| advanced(rotation, now, passwords(rotation, seen, now))),
        certificates: course
            .certificates
            .as_ref()
            .map(|rotation| advanced(rotation, now, certificates(rotation, seen))),
    }
}

/// The phase that comes next, or what the present one waits for.
fn passwords(rotation: &Rotation, seen: &Seen, now: jiff::Timestamp) -> Result<RotationPhase, String> {
    match rotation.phase {
        RotationPhase::Introducing => seen.users.clone().map(|()| RotationPhase::Switching),
        // That the Secrets are written is why we got here.
        RotationPhase::Switching => Ok(RotationPhase::Replacing),
        RotationPhase::Replacing => {
            seen.passwords_held.clone()?;
            seen.users.clone()?;
            let begun: jiff::Timestamp = rotation.started_at.parse().unwrap_or(now);
            let age = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
            if age < LEAST_WINDOW {
                return Err(format!(
                    "both passwords are good for {} s at least",
                    LEAST_WINDOW.as_secs()
                ));
            }
            Ok(RotationPhase::Retiring)
        }
        RotationPhase::Retiring => seen.users.clone().map(|()| RotationPhase::Finished),
        RotationPhase::Finished => Ok(RotationPhase::Finished),
    }
}

fn certificates(rotation: &Rotation, seen: &Seen) -> Result<RotationPhase, String> {
    match rotation.phase {
        // Its files come together: one that presents the certificate of this phase has read the authorities, too.
        RotationPhase::Introducing => seen.certificates.clone().map(|()| RotationPhase::Replacing),
        RotationPhase::Switching => Ok(RotationPhase::Replacing),
        RotationPhase::Replacing => seen.authorities_held.clone().map(|()| RotationPhase::Retiring),
        RotationPhase::Retiring => seen.certificates.clone().map(|()| RotationPhase::Finished),
        RotationPhase::Finished => Ok(RotationPhase::Finished),
    }
}

fn advanced(rotation: &Rotation, now: jiff::Timestamp, next: Result<RotationPhase, String>) -> Rotation {
    let (phase, waits_for) = match next {
        Ok(phase) => (phase, None),
        Err(waits_for) => (rotation.phase, Some(waits_for)),
    };
    let finished = || now.to_string();
    let is_over = phase == RotationPhase::Finished;
    Rotation {
        phase,
        finished_at: rotation.finished_at.clone().or_else(|| is_over.then(finished)),
        waits_for,
        ..rotation.clone()
    }
}

/// Nothing if there is no sentence.
pub fn nobody(sentences: std::collections::BTreeSet<String>) -> Result<(), String> {
    if sentences.is_empty() {
        return Ok(());
    }
    Err(sentences.into_iter().collect::<Vec<_>>().join("; "))
}

/// When to look again, if a rotation is under way: ever less often, for it may wait for a person.
pub fn patience(course: &StoreRotation, now: jiff::Timestamp) -> Option<Duration> {
    let rotations = [&course.passwords, &course.certificates].into_iter().flatten();
    let ages = rotations
        .filter(|rotation| under_way(Some(rotation)).is_some())
        .map(|rotation| {
            let begun: jiff::Timestamp = rotation.started_at.parse().unwrap_or(now);
            Duration::try_from(now.duration_since(begun)).unwrap_or_default() / 20
        });
    ages.min()
}

/// Says how the credentials that a pod is started with differ from others: when the password was made, and a hash of the
/// certificates that it trusts. Nothing of it is secret.
pub fn credentials(made: Option<&str>, trusted: Option<&str>) -> String {
    let digest = xxhash_rust::xxh64::xxh64(trusted.unwrap_or_default().trim().as_bytes(), 0);
    format!("{} {digest:016x}", made.unwrap_or("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::store as subject;

    fn seen() -> Seen {
        Seen {
            users: Ok(()),
            certificates: Ok(()),
            passwords_held: Ok(()),
            authorities_held: Ok(()),
        }
    }

    fn asked(request: &str, status: Option<StoreRotation>) -> SessionStore {
        let mut store = subject("{}");
        let annotations = [ROTATE_PASSWORDS_ANNOTATION, ROTATE_CERTIFICATES_ANNOTATION];
        store.metadata.annotations = Some(
            annotations
                .map(|name| (name.to_owned(), request.to_owned()))
                .into(),
        );
        store.status.get_or_insert_default().rotation = status;
        store
    }

    fn course_of(request: &str, status: Option<StoreRotation>, now: jiff::Timestamp) -> StoreRotation {
        course(&asked(request, status), false, true, now)
    }

    fn phases(course: &StoreRotation) -> [RotationPhase; 2] {
        [&course.passwords, &course.certificates].map(|rotation| rotation.as_ref().unwrap().phase)
    }

    fn later(seconds: i64) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn each_phase_waits_for_what_makes_the_next_one_safe() {
        use RotationPhase::{Finished, Introducing, Replacing, Retiring, Switching};
        let wrong = || Err("not yet".to_owned());
        let mut now = 0;
        let mut step = |course: &StoreRotation, seen: &Seen| {
            now += 40;
            let next = advance(course, seen, later(now));
            assert_eq!(
                course_of("1", Some(next.clone()), later(now)),
                next,
                "by status alone it goes on"
            );
            next
        };
        let begun = course_of("1", None, later(0));
        assert_eq!(phases(&begun), [Introducing, Introducing]);
        let no_server = Seen {
            users: wrong(),
            certificates: wrong(),
            ..seen()
        };
        let waits = step(&begun, &no_server);
        assert_eq!(phases(&waits), [Introducing, Introducing]);
        assert_eq!(
            waits.passwords.clone().unwrap().waits_for.as_deref(),
            Some("not yet")
        );
        let course = step(&waits, &seen());
        assert_eq!(phases(&course), [Switching, Replacing]);
        let no_pod = || Seen {
            passwords_held: wrong(),
            authorities_held: wrong(),
            ..seen()
        };
        let course = step(&course, &no_pod());
        assert_eq!(phases(&course), [Replacing, Replacing]);
        let course = step(&course, &no_pod());
        assert_eq!(phases(&course), [Replacing, Replacing]);
        let course = step(&course, &seen());
        assert_eq!(phases(&course), [Retiring, Retiring]);
        let course = step(&course, &no_server);
        assert_eq!(phases(&course), [Retiring, Retiring]);
        let course = step(&course, &seen());
        assert_eq!(phases(&course), [Finished, Finished]);
        let over = course.passwords.clone().unwrap();
        assert!(over.finished_at.is_some() && over.waits_for.is_none(), "{over:?}");
        // Nothing more is written, whatever is seen then.
        assert_eq!(step(&course, &no_server), course);
        let again = course_of("2", Some(course), later(999));
        assert_eq!(phases(&again), [Introducing, Introducing]);
    }

    #[test]
    fn both_passwords_are_good_for_a_while_though_nobody_uses_them() {
        let mut course = course(&asked("1", None), false, true, later(0));
        for _ in 0..3 {
            course = advance(&course, &seen(), later(1));
        }
        assert_eq!(course.passwords.as_ref().unwrap().phase, RotationPhase::Replacing);
        course = advance(&course, &seen(), later(31));
        assert_eq!(course.passwords.unwrap().phase, RotationPhase::Retiring);
    }

    #[test]
    fn a_new_store_has_what_its_manifest_asks_for_and_one_without_tls_no_certificates() {
        let new = course(&asked("1", None), true, false, later(0));
        assert_eq!(new.passwords.unwrap().phase, RotationPhase::Finished);
        assert_eq!(new.certificates, None);
    }

    #[test]
    fn a_wish_that_is_taken_back_is_carried_out_all_the_same() {
        let begun = course(&asked("1", None), false, true, later(0));
        let mut store = asked("1", Some(begun.clone()));
        store.metadata.annotations = None;
        assert_eq!(course(&store, false, true, later(9)), begun);
    }
}
