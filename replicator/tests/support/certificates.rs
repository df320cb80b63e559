//! A CA and certificates, as an operator would make them.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Writes ca.pem, cert.pem and key.pem for this identity, and other-cert.pem and other-key.pem for another one.
pub fn write(folder: &Path, identity: &str) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::from_params(&ca, &ca_key);
    for (name, prefix) in [(identity, ""), ("other.web.sessions", "other-")] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        fs::write(folder.join(format!("{prefix}cert.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{prefix}key.pem")), key.serialize_pem()).unwrap();
    }
}
