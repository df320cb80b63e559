//! TLS 1.3 with certificates on both sides. A peer has to be signed by the policy's CA and to carry the policy's
//! identity as a DNS name; anything else is refused before the core hears of it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The protocol (ALPN) of requests that are no link.
pub const HTTP: &[u8] = b"http/1.1";

/// Where the certificates are, and whom to expect.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificates of the CA, PEM.
    pub ca: PathBuf,
    /// Our certificate and those that lead to the CA, PEM.
    pub certificate: PathBuf,
    /// Our key, PEM.
    pub key: PathBuf,
    /// The DNS name that every peer's certificate has to carry.
    pub identity: ServerName<'static>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} holds no usable PEM: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificates and key do not make a configuration.
    #[error("the certificates cannot be used: {0}")]
    Config(#[from] rustls::Error),
    /// The CA cannot be used for checking clients.
    #[error("the CA cannot be used for checking peers: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The peer's certificate does not carry the policy's identity.
    #[error("the peer's certificate does not carry the expected identity: {0}")]
    Identity(#[source] rustls::Error),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
}

/// What the files held when they were last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub async fn read(&self) -> Result<Material, TlsError> {
        let read = async |path: &PathBuf| {
            tokio::fs::read(path).await.map_err(|source| TlsError::Read {
                path: path.clone(),
                source,
            })
        };
        Ok(Material {
            ca: read(&self.ca).await?,
            certificate: read(&self.certificate).await?,
            key: read(&self.key).await?,
        })
    }

    /// Makes both sides of TLS from what the files held.
    ///
    /// # Errors
    /// They hold no certificates or key, or these do not fit together.
    pub fn context(&self, material: &Material) -> Result<TlsContext, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let roots = Arc::new(self.roots(&material.ca)?);
        let chain = certificates(&self.certificate, &material.certificate)?;
        let key = || {
            PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| TlsError::Pem {
                path: self.key.clone(),
                source,
            })
        };
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)?;
        // Links name no protocol; who names this one asks for the state or brings hints.
        server.alpn_protocols = vec![HTTP.to_vec()];
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)?;
        Ok(TlsContext {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            identity: self.identity.clone(),
        })
    }

    fn roots(&self, pem: &[u8]) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca, pem)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

/// A client that checks servers against the certificates in a file, and shows none itself.
///
/// # Errors
/// The file cannot be read or holds no certificates.
pub async fn client(ca: &std::path::Path) -> Result<TlsConnector, TlsError> {
    let pem = tokio::fs::read(ca).await.map_err(|source| TlsError::Read {
        path: ca.to_owned(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, &pem)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

fn certificates(path: &std::path::Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if found.is_empty() {
        return Err(failed(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Both sides of TLS.
#[derive(Clone)]
pub struct TlsContext {
    /// For links that peers dial.
    pub acceptor: TlsAcceptor,
    /// For links that we dial. It checks the peer's identity by itself, as that of any server.
    pub connector: TlsConnector,
    /// The DNS name that every peer's certificate has to carry.
    pub identity: ServerName<'static>,
}

impl std::fmt::Debug for TlsContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsContext")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl TlsContext {
    /// Checks that a peer that has dialled us carries the policy's identity. That it is signed by the CA has been
    /// checked in the handshake.
    ///
    /// # Errors
    /// It does not.
    pub fn check_identity(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), TlsError> {
        let leaf = chain.and_then(<[_]>::first).ok_or(TlsError::NoCertificate)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(TlsError::Identity)?;
        verify_server_name(&parsed, &self.identity).map_err(TlsError::Identity)
    }
}
