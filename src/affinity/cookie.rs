//! The affinity cookie with every attribute decided.

use xxhash_rust::xxh64::xxh64;

use super::model::PolicyIdentity;
use crate::api::{Cookie, SameSite};

/// Bits of the hash that go into a derived name, as hexadecimal digits.
const NAME_DIGITS: usize = 8;

/// A cookie with nothing left to a controller's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedCookie {
    /// Name.
    pub name: String,
    /// Path.
    pub path: String,
    /// Lifetime in seconds; 0 = until the browser ends.
    pub max_age_seconds: i32,
    /// Whether browsers send it over TLS only.
    pub secure: bool,
    /// Whether scripts are kept from it.
    pub http_only: bool,
    /// `SameSite`, if wished for.
    pub same_site: Option<SameSite>,
    /// Domain, if wished for.
    pub domain: Option<String>,
    /// What was derived, and what to know about it.
    pub notes: Vec<String>,
}

/// Decides the attributes that `wish` leaves open. `without_tls` names the routes on which no TLS is declared.
pub fn resolve(policy: PolicyIdentity<'_>, wish: Option<&Cookie>, without_tls: &[String]) -> ResolvedCookie {
    let wish = wish.cloned().unwrap_or_default();
    let mut notes = Vec::new();
    let secure = wish.secure.unwrap_or(without_tls.is_empty());
    match wish.secure {
        Some(true) if !without_tls.is_empty() => notes.push(format!(
            "cookie.secure is true, but no TLS is declared on {}: browsers keep the cookie only if TLS ends in \
             front of the controller",
            without_tls.join(", ")
        )),
        Some(_) => {}
        None if secure => notes.push(
            "the cookie is Secure because every route declares TLS: a host that is also served without TLS is not \
             sticky there; redirect to HTTPS, or set cookie.secure to false"
                .to_owned(),
        ),
        None => notes.push(format!(
            "the cookie is not Secure because no TLS is declared on {}",
            without_tls.join(", ")
        )),
    }
    ResolvedCookie {
        name: wish.name.unwrap_or_else(|| derived_name(policy)),
        path: wish.path,
        max_age_seconds: wish.max_age_seconds,
        secure,
        http_only: wish.http_only,
        same_site: wish.same_site,
        domain: wish.domain.filter(|domain| !domain.is_empty()),
        notes,
    }
}

/// The policy's name and the first digits of XXH64 (seed 0) of `namespace/name`: two policies of one name in
/// two namespaces may serve one host. Never to be changed: another name ends every user's stickiness.
fn derived_name(policy: PolicyIdentity<'_>) -> String {
    let hash = format!(
        "{:016x}",
        xxh64(format!("{}/{}", policy.namespace, policy.name).as_bytes(), 0)
    );
    let digits: String = hash.chars().take(NAME_DIGITS).collect();
    format!("{}_{digits}", policy.name)
}

/// The spelling of a `SameSite` value in a cookie.
pub const fn same_site_word(value: SameSite) -> &'static str {
    match value {
        SameSite::None => "None",
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
    }
}
