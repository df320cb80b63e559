//! The webhook's certificate, and when it is replaced by what. No I/O.
//!
//! Each certificate is signed by an authority of its own, whose key is thrown away: what the API server trusts can sign
//! nothing else. A replacement takes three steps, so that at every moment each replica has a certificate that each API
//! server trusts, however long either takes to see a change:
//!
//! 1. a next certificate is made; the API servers are told to trust both authorities;
//! 2. after a while the replicas change over to it;
//! 3. after another while the API servers are told to trust the new authority only.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

/// Clocks of API servers may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// How times follow from the life of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Life of a certificate.
    pub life: SignedDuration,
    /// Age at which it is replaced.
    pub renewal: SignedDuration,
    /// Pause between two steps of a replacement: every replica has read the Secret by then, and every API server has
    /// seen its configuration.
    pub settle: SignedDuration,
    /// Pause between two looks at the Secret and the configuration.
    pub period: Duration,
}

impl Timing {
    /// With 90 days: replaced after 60, 5 minutes between steps, a look every 30 s.
    pub fn of(life_seconds: u32) -> Self {
        let life = i64::from(life_seconds);
        Self {
            life: SignedDuration::from_secs(life),
            renewal: SignedDuration::from_secs(life * 2 / 3),
            settle: SignedDuration::from_secs((life / 30).clamp(3, 300)),
            period: Duration::from_secs(u64::from(life_seconds / 120).clamp(1, 30)),
        }
    }
}

/// A certificate with its key and its authority, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    certificate: String,
    key: String,
    authority: String,
    names: Vec<String>,
    made: Timestamp,
    expires: Timestamp,
}

/// Without the key.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("names", &self.names)
            .field("made", &self.made)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Its text is no PEM.
    #[error("not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The TLS library refuses it.
    #[error("not usable: {0}")]
    Use(#[from] rustls::Error),
}

impl Pair {
    /// Makes a certificate for these DNS names.
    pub fn make(names: &[String], now: Timestamp, life: SignedDuration) -> Result<Self, KeyError> {
        let expires = now + life;
        let dates = |params: &mut CertificateParams| {
            params.not_before = (SystemTime::from(now) - CLOCK_SKEW).into();
            params.not_after = SystemTime::from(expires).into();
        };
        let mut authority = CertificateParams::new([])?;
        dates(&mut authority);
        // A name of its own for each: API servers find the authority by name first, and know two of them for a while.
        let name = format!("session-operator webhook {:016x}", fastrand::u64(..));
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut serving = CertificateParams::new(names)?;
        dates(&mut serving);
        serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = serving.signed_by(&key, &authority)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority: authority.pem(),
            names: names.to_vec(),
            made: now,
            expires,
        })
    }

    /// In the form in which TLS uses it.
    pub fn certified(&self) -> Result<CertifiedKey, KeyError> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let key = CertifiedKey::new(vec![certificate], any_supported_type(&key)?);
        key.keys_match()?;
        Ok(key)
    }

    /// When it expires.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    fn has_to_go(&self, names: &[String], now: Timestamp, timing: &Timing) -> bool {
        self.names != names || self.made + timing.renewal <= now
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The one that replicas serve with.
    pub current: Pair,
    /// The one that they will serve with once the API servers trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Pair>,
    /// Authority of the one before, with which a replica may still serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
}

impl Keys {
    /// The first ones.
    pub fn first(current: Pair) -> Self {
        Self {
            current,
            next: None,
            previous: None,
        }
    }

    /// What API servers have to trust.
    pub fn authorities(&self) -> String {
        let next = self.next.iter().map(|pair| &pair.authority);
        let all = self.previous.iter().chain([&self.current.authority]).chain(next);
        all.map(String::as_str).collect()
    }

    /// What follows, if anything does now. `trusted_since` is since when the API servers' configuration holds
    /// [`Self::authorities`]; absent, nothing may change that would need a trust which is not there yet.
    pub fn advanced(
        &self,
        names: &[String],
        now: Timestamp,
        trusted_since: Option<Timestamp>,
        timing: &Timing,
    ) -> Result<Option<Self>, KeyError> {
        let make = || Pair::make(names, now, timing.life);
        if self.current.expires <= now {
            // Nobody trusts the current one any more: there is nothing to be careful about.
            return Ok(Some(Self::first(make()?)));
        }
        let settled = trusted_since.is_some_and(|since| since + timing.settle <= now);
        let advanced = match &self.next {
            Some(next) if settled => Self {
                current: next.clone(),
                next: None,
                previous: Some(self.current.authority.clone()),
            },
            None if self.previous.is_some() && settled => Self::first(self.current.clone()),
            None if self.previous.is_none() && self.current.has_to_go(names, now, timing) => Self {
                next: Some(make()?),
                ..self.clone()
            },
            _ => return Ok(None),
        };
        Ok(Some(advanced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["webhook.example.org".to_owned()]
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    const TIMING: fn() -> Timing = || Timing::of(3000);

    fn first() -> Keys {
        Keys::first(Pair::make(&names(), at(0), TIMING().life).unwrap())
    }

    fn advanced(keys: &Keys, now: i64, trusted_since: Option<i64>) -> Option<Keys> {
        keys.advanced(&names(), at(now), trusted_since.map(at), &TIMING())
            .unwrap()
    }

    #[test]
    fn times_follow_from_the_life() {
        let timing = Timing::of(90 * 24 * 3600);
        assert_eq!(timing.renewal.as_hours(), 60 * 24);
        assert_eq!(timing.settle.as_secs(), 300);
        assert_eq!(timing.period.as_secs(), 30);
        for seconds in [20, 60, 3000, 86_400, u32::MAX] {
            let timing = Timing::of(seconds);
            let rest = timing.life - timing.renewal;
            assert!(
                timing.settle + timing.settle <= rest,
                "{seconds} s: two steps before the old one expires"
            );
            assert!(
                timing.settle.unsigned_abs() >= timing.period * 2,
                "{seconds} s: everybody has looked"
            );
        }
    }

    #[test]
    fn a_replacement_takes_three_steps_and_each_waits_for_trust() {
        let one = first();
        assert_eq!(advanced(&one, 1999, Some(0)), None, "not yet");
        let two = advanced(&one, 2000, Some(0)).expect("two thirds have passed");
        assert_eq!(two.current, one.current, "nobody trusts the next one yet");
        let both = two.authorities();
        assert!(both.starts_with(&one.authorities()) && both.len() > one.authorities().len());

        assert_eq!(
            advanced(&two, 2900, None),
            None,
            "the configuration lacks the next authority"
        );
        assert_eq!(
            advanced(&two, 2099, Some(2000)),
            None,
            "API servers may not have seen it yet"
        );
        let three = advanced(&two, 2100, Some(2000)).expect("settled");
        assert_eq!(Some(&three.current), two.next.as_ref());
        assert_eq!(
            three.authorities(),
            both,
            "some replica may still serve with the old one"
        );

        assert_eq!(advanced(&three, 2199, Some(2100)), None);
        let four = advanced(&three, 2200, Some(2100)).expect("settled");
        assert_eq!(four, Keys::first(three.current));
        assert_eq!(advanced(&four, 2300, Some(2200)), None, "done");
    }

    #[test]
    fn other_names_are_a_reason_and_an_expired_one_goes_at_once() {
        let one = first();
        let other = ["other.example.org".to_owned()];
        let two = one.advanced(&other, at(1), Some(at(0)), &TIMING()).unwrap();
        assert_eq!(two.unwrap().next.unwrap().names, other);

        let late = advanced(&one, 3000, None).expect("expired");
        assert_ne!(late.current, one.current);
        assert_eq!(late.previous, None);
    }

    #[test]
    fn keys_survive_the_secret_and_say_nothing_in_logs() {
        let keys = advanced(&first(), 2000, None).unwrap();
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Keys>(&text).unwrap(), keys);
        assert!(!format!("{keys:?}").contains("PRIVATE"));
        keys.current.certified().expect("TLS takes it");
        let mut mixed = keys.current.clone();
        mixed.key = keys.next.unwrap().key;
        assert!(mixed.certified().is_err(), "a key of another certificate");
    }
}
