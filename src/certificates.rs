//! Authorities of our own and the certificates that they issue: for stores, for the links between sidecars.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Days that an authority is valid: longer than a server is expected to live.
const AUTHORITY_DAYS: i64 = 3650;

/// Days that a server's certificate is valid.
const SERVER_DAYS: i64 = 90;

/// Certificates are valid from a little before they are made, for clocks that are behind.
const BACKDATED_HOURS: i64 = 1;

/// A certificate is renewed when less than this part of its life is left: 30 of 90 days, in which an operator that does
/// not run is noticed.
const RENEWED_AT: i64 = 3;

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .field("key", &"***")
            .finish()
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It is none.
    #[error("this is no certificate in PEM")]
    Unreadable,
}

/// `serialNumber` in a distinguished name (X.520).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// Makes an authority. Each has a subject of its own: OpenSSL looks for an issuer by its name, and of two authorities of one name
/// that a client trusts, as while one takes the place of the other, it takes any.
pub fn authority(name: &str, now: jiff::Timestamp) -> Result<Pair, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let key = KeyPair::generate()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let serial = digest
        .as_ref()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(
        DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
        format!("{serial:016x}"),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, AUTHORITY_DAYS);
    Ok(Pair {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server.
    Server,
    /// A member that is server and client of others.
    Both,
}

/// Makes a certificate for one that is reached as `hosts`.
pub fn leaf(authority: &Pair, hosts: &[String], usage: Usage, now: jiff::Timestamp) -> Result<Pair, Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = CertificateParams::new(hosts.to_vec())?;
    // Probes and tools inside the pod.
    params
        .subject_alt_names
        .push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    if let Some(host) = hosts.first().filter(|host| host.len() <= 64) {
        params.distinguished_name.push(DnType::CommonName, host);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = match usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
    };
    valid(&mut params, now, SERVER_DAYS);
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn valid(params: &mut CertificateParams, now: jiff::Timestamp, days: i64) {
    let at = |hours: i64| {
        let date = (now + jiff::SignedDuration::from_hours(hours)).to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    // Whole days: the day before, so that the certificate is valid at once everywhere.
    params.not_before = at(-24 - BACKDATED_HOURS);
    params.not_after = at(24 * days);
}

/// A certificate's DER from its PEM.
pub fn der(pem: &str) -> Result<Vec<u8>, Error> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Unreadable)?;
    Ok(certificate.to_vec())
}

/// Whether a certificate has to be renewed: it is unreadable, or less than a third of its life is left.
pub fn is_due(pem: &str, now: jiff::Timestamp) -> bool {
    let Ok(der) = der(pem) else { return true };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return true;
    };
    let from = certificate.validity().not_before.timestamp();
    let until = certificate.validity().not_after.timestamp();
    now.as_second() < from || now.as_second() > until - (until - from) / RENEWED_AT
}

/// Whether `certificate` was issued by `authority` for all of `hosts`.
pub fn fits(certificate: &str, authority: &str, hosts: &[String]) -> bool {
    let (Ok(der), Ok(authority)) = (der(certificate), der(authority)) else {
        return false;
    };
    let parsed = |der| {
        X509Certificate::from_der(der)
            .ok()
            .map(|(_, certificate)| certificate)
    };
    let (Some(certificate), Some(authority)) = (parsed(&der), parsed(&authority)) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let names: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    certificate.verify_signature(Some(authority.public_key())).is_ok()
        && hosts.iter().all(|host| names.contains(host))
}

/// The certificates of a PEM file, each from its first line to its last.
pub fn split(pem: &str) -> Vec<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .map(str::trim)
        .filter(|part| part.ends_with(END))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn later(days: i64) -> jiff::Timestamp {
        jiff::Timestamp::now() + jiff::SignedDuration::from_secs(days * DAY)
    }

    fn hosts() -> Vec<String> {
        vec!["sessions.web.svc".to_owned(), "sessions".to_owned()]
    }

    #[test]
    fn a_server_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let ours = authority("sessions", later(0)).unwrap();
        let pair = leaf(&ours, &hosts(), Usage::Server, later(0)).unwrap();
        assert!(!is_due(&pair.certificate, later(0)));
        assert!(!is_due(&pair.certificate, later(SERVER_DAYS * 2 / 3 - 2)));
        assert!(is_due(&pair.certificate, later(SERVER_DAYS * 2 / 3 + 2)));
        assert!(is_due(&pair.certificate, later(SERVER_DAYS + 1)));
        assert!(!is_due(&ours.certificate, later(AUTHORITY_DAYS / 2)));
        assert!(is_due(&ours.certificate, later(AUTHORITY_DAYS * 3 / 4)));
        assert!(is_due("no certificate", later(0)));
    }

    #[test]
    fn a_certificate_fits_its_authority_and_its_hosts() {
        let ours = authority("sessions", later(0)).unwrap();
        let theirs = authority("sessions", later(0)).unwrap();
        let pair = leaf(&ours, &hosts(), Usage::Server, later(0)).unwrap();
        assert!(fits(&pair.certificate, &ours.certificate, &hosts()));
        assert!(!fits(&pair.certificate, &theirs.certificate, &hosts()));
        let more = [hosts(), vec!["other".to_owned()]].concat();
        assert!(!fits(&pair.certificate, &ours.certificate, &more));
        assert!(!fits("", &ours.certificate, &hosts()));
    }

    /// As OpenSSL chooses among the authorities that it trusts: by name, then by the key that the certificate names.
    #[test]
    fn the_issuer_of_a_certificate_is_found_among_authorities_of_one_name() {
        use x509_parser::extensions::ParsedExtension;

        let both = [0, 1].map(|days| authority("sessions", later(days)).unwrap());
        let made = leaf(&both[1], &hosts(), Usage::Server, later(1)).unwrap();
        let [first, second, made] = [&both[0], &both[1], &made].map(|pair| der(&pair.certificate).unwrap());
        let [first, second, made] =
            [&first, &second, &made].map(|der| X509Certificate::from_der(der).unwrap().1);
        assert_ne!(first.subject(), second.subject());
        assert_eq!(made.issuer(), second.subject());
        let key = |certificate: &X509Certificate<'_>| {
            certificate
                .extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(named) => {
                        named.key_identifier.as_ref().map(|key| key.0.to_vec())
                    }
                    ParsedExtension::SubjectKeyIdentifier(key) if certificate.is_ca() => Some(key.0.to_vec()),
                    _ => None,
                })
        };
        assert!(key(&made).is_some());
        assert_eq!(key(&made), key(&second));
    }

    #[test]
    fn certificates_of_a_file_are_told_apart() {
        let first = authority("a", later(0)).unwrap().certificate;
        let second = authority("b", later(0)).unwrap().certificate;
        assert_eq!(
            split(&format!("{first}{second}\n")),
            [first.trim(), second.trim()]
        );
        assert!(split("").is_empty());
    }
}
