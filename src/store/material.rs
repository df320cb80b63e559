//! Passwords, users and certificates: what is there is kept, what is missing is made.
//!
//! The only part of building that is not deterministic; it is given the clock and the source of passwords.

use std::collections::{BTreeMap, BTreeSet};

use ring::rand::{SecureRandom, SystemRandom};

use super::acl::Users;
use super::client::Password;
use super::dereference::{Dereferenced, USERS_FILE};
use super::login::{Circumstances, Login};
use super::memory::Passwords;
use super::rotation;
use super::validate::Validated;
use crate::api::session_store::{RotationPhase, StoreRotation};
use crate::certificates::{self, Pair, Usage};
use crate::runtime::writer::WriteError;

/// Key of the authority before, in the Secret of the authority.
pub const FORMER_CERTIFICATE: &str = "former.crt";

/// Key of its key.
pub const FORMER_KEY: &str = "former.key";

/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 24;

/// Passwords, users and certificates of one store.
#[derive(Clone, Debug)]
pub struct Material {
    /// The operator's own user.
    pub admin: Login,
    /// The password that it had before, if that was another.
    pub former_admin: Option<Password>,
    /// How servers follow each other, where there are several.
    pub replication: Option<Login>,
    /// Whether servers may still follow each other by another password.
    pub relinks: bool,
    /// Users of key prefixes.
    pub logins: BTreeMap<String, Login>,
    /// What the server has to know of all users.
    pub users: Users,
    /// Certificates, where there is TLS.
    pub tls: Option<Certificates>,
    /// Prefixes that nobody uses any more; their Secrets go.
    pub obsolete: BTreeSet<String>,
}

/// Certificates of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The authority.
    pub authority: Pair,
    /// The one before it, while it still signs: not every client trusts the new one yet.
    pub former: Option<Pair>,
    /// What clients trust: the authority, and the one before it while a server may still present its certificate.
    pub trusted: String,
    /// The server's certificate.
    pub server: Pair,
}

/// Why something could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    /// A password.
    #[error("the system gives no random numbers")]
    Random,
}

/// A password of letters and digits, which no URI, file or shell has to quote.
pub fn password() -> Result<Password, Error> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";
    let mut bytes = [0_u8; PASSWORD_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    let letters = bytes
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(byte % 64)));
    Ok(Password::new(
        letters.map(|letter| char::from(*letter)).collect::<String>(),
    ))
}

/// Completes what was found, as far as a rotation wants it to be something else.
pub fn complete(
    validated: &Validated,
    found: &Dereferenced,
    remembered: &Passwords,
    course: &StoreRotation,
    now: jiff::Timestamp,
    random: impl Fn() -> Result<Password, Error>,
) -> Result<Material, Error> {
    let names = &validated.names;
    let phase = rotation::under_way(course.passwords.as_ref());
    // A file that is lost is made again as it was.
    let known = if found.secrets.contains_key(&names.users_secret()) {
        &found.users
    } else {
        &remembered.users
    };
    let decide = |secret: &str, remembered: Option<&Login>, former: BTreeSet<String>| {
        Circumstances {
            there: found.login(secret).or_else(|| remembered.cloned()),
            former,
            phase,
            now,
            random: &random,
        }
        .decide()
    };
    let (admin, hashes) = decide(
        &names.admin_secret(),
        remembered.admin.as_ref(),
        known.admin.clone(),
    )?;
    let mut users = Users {
        admin: hashes,
        ..Users::default()
    };
    let mut replication = None;
    if validated.servers > 1 {
        let (login, hashes) = decide(
            &names.replication_secret(),
            remembered.replication.as_ref(),
            known.replication.clone().unwrap_or_default(),
        )?;
        users.replication = Some(hashes);
        replication = Some(login);
    }
    let mut logins = BTreeMap::new();
    for prefix in validated.prefixes.keys() {
        let former = known.prefixes.get(prefix).cloned().unwrap_or_default();
        let secret = names.user_secret(prefix);
        let (login, hashes) = decide(&secret, remembered.prefixes.get(prefix), former)?;
        users.prefixes.insert(prefix.clone(), hashes);
        logins.insert(prefix.clone(), login);
    }
    Ok(Material {
        obsolete: found
            .users
            .prefixes
            .keys()
            .filter(|prefix| !validated.prefixes.contains_key(*prefix))
            .cloned()
            .collect(),
        tls: if validated.tls {
            let phase = rotation::under_way(course.certificates.as_ref());
            Some(tls(validated, found, phase, now)?)
        } else {
            None
        },
        former_admin: remembered
            .admin
            .as_ref()
            .map(|former| former.password.clone())
            .filter(|former| *former != admin.password),
        admin,
        replication,
        relinks: phase.is_some_and(|phase| phase != RotationPhase::Introducing),
        logins,
        users,
    })
}

/// A new authority first is one that clients trust and that signs nothing: they learn of it when they start. The certificate is
/// made anew all the same, by the authority before it: a server that presents it has read its files, and so the authorities.
fn tls(
    validated: &Validated,
    found: &Dereferenced,
    phase: Option<RotationPhase>,
    now: jiff::Timestamp,
) -> Result<Certificates, Error> {
    let names = &validated.names;
    let pair = |secret: &str, certificate: &str, key: &str| {
        Some(Pair {
            certificate: found.secret_text(secret, certificate)?,
            key: found.secret_text(secret, key)?,
        })
    };
    let secret = names.authority_secret();
    let standing = pair(&secret, "tls.crt", "tls.key");
    let presented = pair(&names.server_secret(), "tls.crt", "tls.key");
    let by = |authority: &Pair, hosts: &[String]| {
        presented
            .as_ref()
            .is_some_and(|server| certificates::fits(&server.certificate, &authority.certificate, hosts))
    };
    // One that signs was not made for this.
    let wants_another = |authority: &Pair| {
        certificates::is_due(&authority.certificate, now)
            || (phase == Some(RotationPhase::Introducing) && by(authority, &[]))
    };
    let (authority, mut former, is_new) = match standing {
        Some(standing) if !wants_another(&standing) => {
            (standing, pair(&secret, FORMER_CERTIFICATE, FORMER_KEY), false)
        }
        standing => (
            certificates::authority(&format!("session store {}", names.store()), now)?,
            standing,
            true,
        ),
    };
    let before = match &former {
        Some(former) => Some(former.certificate.clone()),
        None => found.secret_text(&names.ca_secret(), "ca.crt"),
    };
    let mut trusted = authority.certificate.clone();
    let before = before.iter().flat_map(|pem| certificates::split(pem));
    for certificate in before
        .filter(|before| *before != authority.certificate.trim())
        .take(1)
    {
        trusted.push_str(certificate);
        trusted.push('\n');
    }
    let hosts = names.hosts(validated.servers);
    let is_due = presented
        .as_ref()
        .is_none_or(|server| certificates::is_due(&server.certificate, now));
    // Unless somebody waits for it, clients have had the time from the last renewal to this one.
    if phase == Some(RotationPhase::Retiring) || (phase.is_none() && is_due && !is_new) {
        former = None;
    }
    let signer = former.as_ref().unwrap_or(&authority);
    let server = match &presented {
        Some(server) if !is_due && !is_new && by(signer, &hosts) => server.clone(),
        _ => certificates::leaf(signer, &hosts, Usage::Server, now)?,
    };
    Ok(Certificates {
        authority,
        former,
        trusted,
        server,
    })
}

impl Material {
    /// The users' file.
    pub fn users_file(&self) -> (&'static str, String) {
        (USERS_FILE, self.users.file())
    }
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Api(kube::Error::Service(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
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
            let good =
                |login: &Login, hashes: &BTreeSet<String>| hashes.contains(&hash(login.password.reveal()));
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
        let by = |authority: &Pair, tls: &Certificates| {
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
}
