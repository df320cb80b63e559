//! Passwords, users and certificates: what is there is kept, what is missing is made.
//!
//! The only part of building that is not deterministic; it is given the clock and the source of passwords.

use std::collections::{BTreeMap, BTreeSet};

use ring::rand::{SecureRandom, SystemRandom};

use super::acl::{Users, hash};
use super::client::Password;
use super::dereference::{Dereferenced, USERS_FILE};
use super::memory::Passwords;
use super::validate::Validated;
use crate::certificates::{self, Pair, Usage};
use crate::runtime::writer::WriteError;

/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 24;

/// Passwords, users and certificates of one store.
#[derive(Clone, Debug)]
pub struct Material {
    /// Password of the operator's own user.
    pub admin: Password,
    /// The one that it had before, if that was another.
    pub former_admin: Option<Password>,
    /// Password by which servers follow each other, where there are several.
    pub replication: Option<Password>,
    /// Passwords of the users of key prefixes.
    pub passwords: BTreeMap<String, Password>,
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
    /// The authority that signs.
    pub authority: Pair,
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

/// Completes what was found.
pub fn complete(
    validated: &Validated,
    found: &Dereferenced,
    remembered: &Passwords,
    now: jiff::Timestamp,
    random: impl Fn() -> Result<Password, Error>,
) -> Result<Material, Error> {
    let names = &validated.names;
    let known = |secret: &str| found.secret_text(secret, "password").map(Password::new);
    let admin = known(&names.admin_secret())
        .or_else(|| remembered.admin.clone())
        .map_or_else(&random, Ok)?;
    let replication = if validated.servers > 1 {
        let there = known(&names.replication_secret()).or_else(|| remembered.replication.clone());
        Some(there.map_or_else(&random, Ok)?)
    } else {
        None
    };
    let mut users = Users {
        admin: hash(admin.reveal()),
        replication: replication.as_ref().map(|password| hash(password.reveal())),
        ..Users::default()
    };
    let mut passwords = BTreeMap::new();
    for prefix in validated.prefixes.keys() {
        let former = found.users.prefixes.get(prefix).cloned().unwrap_or_default();
        // A Secret that is lost is made again as it was. Where that is not known, it gets a new password, and applications
        // that hold the old one must not be locked out: both are good from then on. A password that somebody wrote into
        // the Secret replaces all others.
        let there = known(&names.user_secret(prefix)).or_else(|| remembered.prefixes.get(prefix).cloned());
        let (password, mut hashes) = if let Some(password) = there {
            let known = former.contains(&hash(password.reveal()));
            (password, if known { former } else { BTreeSet::new() })
        } else {
            (random()?, former.into_iter().take(1).collect())
        };
        hashes.insert(hash(password.reveal()));
        users.prefixes.insert(prefix.clone(), hashes);
        passwords.insert(prefix.clone(), password);
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
            Some(tls(validated, found, now)?)
        } else {
            None
        },
        former_admin: remembered.admin.clone().filter(|former| *former != admin),
        admin,
        replication,
        passwords,
        users,
    })
}

fn tls(validated: &Validated, found: &Dereferenced, now: jiff::Timestamp) -> Result<Certificates, Error> {
    let names = &validated.names;
    let pair = |secret: &str| {
        Some(Pair {
            certificate: found.secret_text(secret, "tls.crt")?,
            key: found.secret_text(secret, "tls.key")?,
        })
    };
    let former = pair(&names.authority_secret());
    let authority = match &former {
        Some(authority) if !certificates::is_due(&authority.certificate, now) => authority.clone(),
        _ => certificates::authority(&format!("session store {}", names.store()), now)?,
    };
    let mut trusted = authority.certificate.clone();
    if let Some(before) = found.secret_text(&names.ca_secret(), "ca.crt") {
        let former: Vec<&str> = certificates::split(&before)
            .into_iter()
            .filter(|certificate| *certificate != authority.certificate.trim())
            .take(1)
            .collect();
        for certificate in former {
            trusted.push_str(certificate);
            trusted.push('\n');
        }
    }
    let hosts = names.hosts(validated.servers);
    let fits = |server: &Pair| {
        !certificates::is_due(&server.certificate, now)
            && certificates::split(&trusted)
                .iter()
                .any(|authority| certificates::fits(&server.certificate, authority, &hosts))
    };
    let server = match pair(&names.server_secret()) {
        Some(server) if fits(&server) => server,
        // Clients learn of a new authority when they start: the first certificate beside it is still by the old one.
        _ => certificates::leaf(former.as_ref().unwrap_or(&authority), &hosts, Usage::Server, now)?,
    };
    Ok(Certificates {
        authority,
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
    use crate::store::build::build;
    use crate::store::names::Names;
    use crate::store::testing::{nothing_but, validated};

    fn now() -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn made(found: &Dereferenced, remembered: &Passwords, now: jiff::Timestamp) -> Material {
        complete(&validated("{}", found, &[]), found, remembered, now, password).unwrap()
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
        assert_eq!(second.passwords, first.passwords);
        assert_eq!(second.users, first.users);
        assert_eq!(second.tls, first.tls);
        assert_eq!(second.former_admin, None);
    }

    #[test]
    fn passwords_differ_and_need_no_quotes() {
        let material = made(&nothing_but(&["shop", "blog"]), &Passwords::default(), now());
        let mut all: Vec<&str> = material.passwords.values().map(Password::reveal).collect();
        all.push(material.admin.reveal());
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
        assert_eq!(second.passwords["shop"], first.passwords["shop"]);
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
            prefixes: first.passwords.clone(),
        };
        let second = made(&found, &remembered, now());
        assert_eq!(
            (&second.admin, &second.passwords, &second.users),
            (&first.admin, &first.passwords, &first.users)
        );
    }

    #[test]
    fn a_lost_password_that_nobody_remembers_is_still_good() {
        let first = made(&nothing_but(&["shop"]), &Passwords::default(), now());
        let mut found = written(&first, &["shop"]);
        found.secrets.remove("larder-user-shop");
        let second = made(&found, &Passwords::default(), now());
        assert_ne!(second.passwords["shop"], first.passwords["shop"]);
        let both = [&first, &second].map(|material| hash(material.passwords["shop"].reveal()));
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
        assert_eq!(second.admin.reveal(), "chosen");
        assert_eq!(second.former_admin, Some(first.admin));
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
        assert_ne!(material.admin.reveal(), "theirs");
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
}
