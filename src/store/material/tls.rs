//! The authority of a store, and the certificate of its servers. An authority that is replaced goes on signing for a while.

use super::Error;
use crate::api::session_store::{RotationPhase, Topology};
use crate::certificates::{self, Pair, Usage};
use crate::store::dereference::Dereferenced;
use crate::store::validate::Validated;

/// Key of the authority before, in the Secret of the authority.
pub const FORMER_CERTIFICATE: &str = "former.crt";

/// Key of its key.
pub const FORMER_KEY: &str = "former.key";

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

/// A new authority first is one that clients trust and that signs nothing: they learn of it when they start. The certificate is
/// made anew all the same, by the authority before it: a server that presents it has read its files, and so the authorities.
pub(super) fn complete(
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
    // One that signs was not made for this.
    let wants_another = |authority: &Pair| {
        certificates::is_due(&authority.certificate, now)
            || (phase == Some(RotationPhase::Introducing)
                && signed(presented.as_ref(), &authority.certificate, &[]))
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
    let told = found
        .secret_text(&names.ca_secret(), "ca.crt")
        .unwrap_or_default();
    let told = certificates::split(&told);
    let before: Vec<&str> = former
        .iter()
        .map(|former| former.certificate.trim())
        .chain(told)
        .filter(|before| *before != authority.certificate.trim())
        .collect();
    // Of several the one whose certificate a server may still present.
    let signs = |before: &&&str| signed(presented.as_ref(), before, &[]);
    let mut trusted = authority.certificate.clone();
    if let Some(before) = before.iter().find(signs).or(before.first()) {
        trusted.push_str(before);
        trusted.push('\n');
    }
    let hosts = validated.hosts();
    let is_due = presented
        .as_ref()
        .is_none_or(|server| certificates::is_due(&server.certificate, now));
    // Unless somebody waits for it, clients have had the time from the last renewal to this one.
    if phase == Some(RotationPhase::Retiring) || (phase.is_none() && is_due && !is_new) {
        former = None;
    }
    let fits = if phase == Some(RotationPhase::Retiring) {
        signed(presented.as_ref(), &authority.certificate, &hosts)
    } else {
        let mut authorities = certificates::split(&trusted).into_iter();
        authorities.any(|authority| signed(presented.as_ref(), authority, &hosts))
    };
    let shows_nothing = is_new && former.is_some();
    let server = match &presented {
        Some(server) if fits && !is_due && !shows_nothing => server.clone(),
        _ => {
            let signer = former.as_ref().unwrap_or(&authority);
            certificates::leaf(signer, &hosts, usage(validated), now)?
        }
    };
    Ok(Certificates {
        authority,
        former,
        trusted,
        server,
    })
}

/// What servers present to each other, too, where they form a cluster.
fn usage(store: &Validated) -> Usage {
    match store.topology {
        Topology::Standalone | Topology::Replicated => Usage::Server,
        Topology::Cluster => Usage::Both,
    }
}

/// Whether a certificate was issued by `authority` for all of `hosts`.
fn signed(presented: Option<&Pair>, authority: &str, hosts: &[String]) -> bool {
    presented.is_some_and(|server| certificates::fits(&server.certificate, authority, hosts))
}
