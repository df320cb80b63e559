//! What is kept, and what is made.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use super::*;
use crate::api::session_store::Rotation;
use crate::store::acl::hash;
use crate::store::build::build;
use crate::store::names::Names;
use crate::store::testing::{nothing_but, validated};

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn made(found: &Dereferenced, remembered: &Passwords, now: jiff::Timestamp) -> Material {
    rotating(&StoreRotation::default(), found, remembered, now)
}

fn rotating(
    course: &StoreRotation,
    found: &Dereferenced,
    remembered: &Passwords,
    now: jiff::Timestamp,
) -> Material {
    complete(
        &validated("{}", found, &[]),
        found,
        remembered,
        course,
        now,
        password,
    )
    .unwrap()
}

/// What is found once `material` is written.
fn written(material: &Material, prefixes: &[&str]) -> Dereferenced {
    let mut found = nothing_but(prefixes);
    let desired = build(&validated("{}", &found, &[]), material);
    for value in desired.secrets {
        let secret: Secret = serde_json::from_value(value).unwrap();
        found
            .secrets
            .insert(secret.metadata.name.clone().unwrap(), secret);
    }
    found.users = material.users.clone();
    found
}

#[test]
fn what_is_there_is_kept() {
    let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
    let second = made(&written(&first, &["shop"]), &Passwords::default(), now());
    assert_eq!(second.admin, first.admin);
    assert_eq!(second.logins, first.logins);
    assert_eq!(second.users, first.users);
    assert_eq!(second.tls, first.tls);
    assert_eq!(second.former_admin, None);
}

#[test]
fn passwords_differ_and_need_no_quotes() {
    let material = made(&nothing_but(&["shop", "blog"]), &Passwords::default(), now());
    let mut all: Vec<&str> = material
        .logins
        .values()
        .map(|login| login.password.reveal())
        .collect();
    all.push(material.admin.password.reveal());
    for password in &all {
        assert_eq!(password.len(), PASSWORD_BYTES);
        assert!(
            password.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{password}"
        );
    }
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_prefix_that_comes_gets_a_user_and_one_that_goes_loses_it() {
    let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
    let second = made(&written(&first, &["shop", "blog"]), &Passwords::default(), now());
    assert_eq!(second.logins["shop"], first.logins["shop"]);
    assert_eq!(second.users.prefixes.len(), 2);
    let mut third = written(&second, &["shop", "blog"]);
    third.prefixes.remove("shop");
    let third = made(&third, &Passwords::default(), now());
    assert_eq!(third.obsolete, BTreeSet::from(["shop".to_owned()]));
    assert_eq!(third.users.prefixes.keys().collect::<Vec<_>>(), ["blog"]);
}

#[test]
fn a_lost_secret_is_made_again_as_it_was() {
    let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
    let mut found = written(&first, &["shop"]);
    found.secrets.remove("larder-user-shop");
    found.secrets.remove("larder-admin");
    let remembered = Passwords {
        admin: Some(first.admin.clone()),
        replication: None,
        prefixes: first.logins.clone(),
        users: first.users.clone(),
    };
    let second = made(&found, &remembered, now());
    assert_eq!(
        (&second.admin, &second.logins, &second.users),
        (&first.admin, &first.logins, &first.users)
    );
}

#[test]
fn a_lost_password_that_nobody_remembers_is_still_good() {
    let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
    let mut found = written(&first, &["shop"]);
    found.secrets.remove("larder-user-shop");
    let second = made(&found, &Passwords::default(), now());
    assert_ne!(second.logins["shop"], first.logins["shop"]);
    let both = [&first, &second].map(|material| hash(material.logins["shop"].password.reveal()));
    assert_eq!(second.users.prefixes["shop"], BTreeSet::from(both));
    let third = made(&written(&second, &["shop"]), &Passwords::default(), now());
    assert_eq!(third.users, second.users, "both stay");
}

#[test]
fn a_password_that_somebody_chose_replaces_all_others() {
    let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
    let mut found = written(&first, &["shop"]);
    let secret = found.secrets.get_mut("larder-user-shop").unwrap();
    let data = secret.data.as_mut().unwrap();
    data.insert("password".to_owned(), ByteString(b"chosen".to_vec()));
    let second = made(&found, &Passwords::default(), now());
    assert_eq!(second.users.prefixes["shop"], BTreeSet::from([hash("chosen")]));
}

#[test]
fn a_changed_admin_password_can_still_be_told_to_the_server() {
    let first = made(&nothing_but(&[]), &Passwords::default(), now());
    let mut found = written(&first, &[]);
    let secret = found.secrets.get_mut("larder-admin").unwrap();
    let data = secret.data.as_mut().unwrap();
    data.insert("password".to_owned(), ByteString(b"chosen".to_vec()));
    let remembered = Passwords {
        admin: Some(first.admin.clone()),
        ..Passwords::default()
    };
    let second = made(&found, &remembered, now());
    assert_eq!(second.admin.password.reveal(), "chosen");
    assert_eq!(second.former_admin, Some(first.admin.password));
}

#[test]
fn a_secret_of_somebody_else_is_not_read() {
    let mut found = nothing_but(&["shop"]);
    let foreign = Secret {
        metadata: ObjectMeta::default(),
        data: Some([("password".to_owned(), ByteString(b"theirs".to_vec()))].into()),
        ..Secret::default()
    };
    found.secrets.insert("larder-admin".to_owned(), foreign);
    let material = made(&found, &Passwords::default(), now());
    assert_ne!(material.admin.password.reveal(), "theirs");
}

#[test]
fn certificates_are_renewed_in_time_and_the_authority_that_was_stays_trusted() {
    let first = made(&nothing_but(&[]), &Passwords::default(), now());
    let before = first.tls.clone().unwrap();
    let days = |days: i64| now() + jiff::SignedDuration::from_hours(24 * days);

    let renewed = made(&written(&first, &[]), &Passwords::default(), days(70))
        .tls
        .unwrap();
    assert_eq!(renewed.authority, before.authority);
    assert_ne!(renewed.server, before.server);

    let replaced = made(&written(&first, &[]), &Passwords::default(), days(3000))
        .tls
        .unwrap();
    assert_ne!(replaced.authority, before.authority);
    let trusted = certificates::split(&replaced.trusted);
    assert_eq!(
        trusted,
        [
            replaced.authority.certificate.trim(),
            before.authority.certificate.trim()
        ]
    );
    let hosts = Names::new("kitchen", "larder").hosts(1);
    assert!(
        certificates::fits(
            &replaced.server.certificate,
            &before.authority.certificate,
            &hosts
        ),
        "clients that have not heard of the new authority go on"
    );
}

fn course(passwords: Option<RotationPhase>, certificates: Option<RotationPhase>) -> StoreRotation {
    let rotation = |phase| Rotation {
        request: "now".to_owned(),
        phase,
        started_at: now().to_string(),
        finished_at: None,
        waits_for: None,
    };
    StoreRotation {
        passwords: passwords.map(rotation),
        certificates: certificates.map(rotation),
    }
}

#[test]
fn every_user_gets_another_password_and_an_operator_that_begins_anew_goes_on() {
    use RotationPhase::{Introducing, Replacing, Retiring, Switching};
    let first = made(&nothing_but(&["shop", "blog"]), &Passwords::default(), now());
    let mut found = written(&first, &["shop", "blog"]);
    let mut last = first.clone();
    for phase in [Introducing, Switching, Replacing, Retiring] {
        // Nothing is remembered: each step is another operator's.
        last = rotating(&course(Some(phase), None), &found, &Passwords::default(), now());
        let good = |login: &Login, hashes: &BTreeSet<String>| hashes.contains(&hash(login.password.reveal()));
        for (name, login) in &last.logins {
            assert!(good(login, &last.users.prefixes[name]), "{phase:?}");
            let old = good(&first.logins[name], &last.users.prefixes[name]);
            assert_eq!(old, phase != Retiring, "{phase:?}");
        }
        assert!(good(&last.admin, &last.users.admin), "{phase:?}");
        assert_eq!(good(&first.admin, &last.users.admin), phase != Retiring);
        found = written(&last, &["shop", "blog"]);
    }
    assert_ne!(last.admin.password, first.admin.password);
    let steady = made(&found, &Passwords::default(), now());
    assert_eq!(
        (&steady.admin, &steady.logins, &steady.users),
        (&last.admin, &last.logins, &last.users)
    );
    assert_eq!(steady.users.prefixes["shop"].len(), 1);
}

#[test]
fn a_new_authority_is_trusted_before_it_signs() {
    use RotationPhase::{Introducing, Replacing, Retiring};
    let step = |phase, found: &Dereferenced, time| {
        let course = course(None, Some(phase));
        rotating(&course, found, &Passwords::default(), time)
    };
    let hosts = Names::new("kitchen", "larder").hosts(1);
    let by = |authority: &certificates::Pair, tls: &Certificates| {
        certificates::fits(&tls.server.certificate, &authority.certificate, &hosts)
    };
    let first = made(&nothing_but(&[]), &Passwords::default(), now());
    let old = first.tls.clone().unwrap();
    let introduced = step(Introducing, &written(&first, &[]), now());
    let tls = introduced.tls.clone().unwrap();
    assert_ne!(tls.authority, old.authority);
    assert_ne!(
        tls.server, old.server,
        "it shows that the server has read its files"
    );
    assert!(by(&old.authority, &tls), "nobody trusts the new one yet");
    assert_eq!(
        certificates::split(&tls.trusted),
        [tls.authority.certificate.trim(), old.authority.certificate.trim()]
    );
    let found = written(&introduced, &[]);
    assert_eq!(step(Introducing, &found, now()).tls.unwrap(), tls);
    assert_eq!(step(Replacing, &found, now()).tls.unwrap(), tls);
    // Somebody waits for a person for so long that the certificate has to be renewed.
    let later = now() + jiff::SignedDuration::from_hours(24 * 70);
    let renewed = step(Replacing, &found, later).tls.unwrap();
    assert!(renewed.server != tls.server && by(&old.authority, &renewed));
    let retired = step(Retiring, &found, now());
    let tls = retired.tls.clone().unwrap();
    assert!(by(&tls.authority, &tls) && tls.former.is_none());
    let steady = made(&written(&retired, &[]), &Passwords::default(), now());
    assert_eq!(steady.tls.unwrap(), tls);
}

#[test]
fn a_server_that_is_added_while_a_new_authority_is_told_of_is_vouched_for_by_the_old_one() {
    let with = |replicas: i32, phase, found: &Dereferenced| {
        let spec = format!("{{topology: Replicated, replicas: {replicas}}}");
        let store = validated(&spec, found, &[]);
        let course = course(None, phase);
        complete(&store, found, &Passwords::default(), &course, now(), password).unwrap()
    };
    let first = with(1, None, &nothing_but(&[]));
    let introduced = with(1, Some(RotationPhase::Introducing), &written(&first, &[]));
    let more = with(2, Some(RotationPhase::Replacing), &written(&introduced, &[]));
    let (old, tls) = (first.tls.unwrap().authority, more.tls.unwrap());
    let hosts = Names::new("kitchen", "larder").hosts(3);
    assert!(certificates::fits(
        &tls.server.certificate,
        &old.certificate,
        &hosts
    ));
    assert_ne!(tls.authority, old);
}

#[test]
fn a_lost_authority_leaves_clients_the_one_that_they_trust() {
    let first = made(&nothing_but(&[]), &Passwords::default(), now());
    let introducing = course(None, Some(RotationPhase::Introducing));
    let introduced = rotating(&introducing, &written(&first, &[]), &Passwords::default(), now());
    let old = first.tls.clone().unwrap().authority.certificate;
    for before in [&first, &introduced] {
        let mut found = written(before, &[]);
        found.secrets.remove("larder-authority");
        let again = made(&found, &Passwords::default(), now());
        let tls = again.tls.clone().unwrap();
        assert_eq!(tls.server, before.tls.clone().unwrap().server);
        assert_ne!(tls.authority.certificate, old);
        assert!(tls.trusted.contains(old.trim()));
        let steady = made(&written(&again, &[]), &Passwords::default(), now());
        assert_eq!(steady.tls.unwrap(), tls);
    }
}

#[test]
fn an_operator_that_ends_among_the_secrets_of_a_new_authority_locks_nobody_out() {
    let course = course(None, Some(RotationPhase::Introducing));
    let first = made(&nothing_but(&[]), &Passwords::default(), now());
    let old = first.tls.clone().unwrap().authority.certificate;
    let introduced = rotating(&course, &written(&first, &[]), &Passwords::default(), now());
    let desired = build(&validated("{}", &nothing_but(&[]), &[]), &introduced);
    for count in 0..=desired.secrets.len() {
        let mut found = written(&first, &[]);
        for value in &desired.secrets[..count] {
            let secret: Secret = serde_json::from_value(value.clone()).unwrap();
            let name = secret.metadata.name.clone().unwrap();
            found.secrets.insert(name, secret);
        }
        let tls = rotating(&course, &found, &Passwords::default(), now())
            .tls
            .unwrap();
        let hosts = Names::new("kitchen", "larder").hosts(1);
        assert!(
            certificates::fits(&tls.server.certificate, &old, &hosts),
            "{count} written"
        );
        assert!(tls.trusted.contains(old.trim()), "{count} written");
        assert_ne!(tls.authority.certificate, old, "{count} written");
    }
}
