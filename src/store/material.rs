//! Passwords, users and certificates: what is there is kept, what is missing is made.
//!
//! The only part of building that is not deterministic; it is given the clock and the source of passwords.

mod tls;

use std::collections::{BTreeMap, BTreeSet};

use ring::rand::{SecureRandom, SystemRandom};

pub use tls::{Certificates, FORMER_CERTIFICATE, FORMER_KEY};

use super::acl::Users;
use super::client::Password;
use super::dereference::{Dereferenced, USERS_FILE};
use super::login::{Circumstances, Login};
use super::memory::Passwords;
use super::rotation;
use super::validate::Validated;
use crate::api::session_store::{RotationPhase, StoreRotation, Topology};
use crate::certificates;
use crate::runtime::writer::WriteError;

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
        cluster: validated.topology == Topology::Cluster,
        ..Users::default()
    };
    let mut replication = None;
    if validated.topology != Topology::Standalone {
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
            Some(tls::complete(validated, found, phase, now)?)
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
mod tests;
