//! Requests to the sidecars, over their own TLS and with a certificate of the policy, which the operator made.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::moving;
use super::report::Member;
use super::sidecar::PEER_PORT;

/// For one request, connecting included: sidecars are in the same cluster.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Longest answer that is read, bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// The sidecars of a policy.
pub struct Members {
    connector: TlsConnector,
    identity: ServerName<'static>,
}

impl Members {
    /// By the Secret with their certificates, and the name that each of these carries.
    ///
    /// # Errors
    /// A sentence when the Secret does not hold what it should.
    pub fn new(secret: &Secret, identity: &str) -> Result<Self, String> {
        let value = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map(|value| value.0.as_slice())
                .ok_or_else(|| format!("the Secret with the sidecars' certificates has no key {key}"))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(value("ca.crt")?) {
            roots.add(certificate.map_err(unusable)?).map_err(unusable)?;
        }
        let chain = CertificateDer::pem_slice_iter(value("tls.crt")?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(unusable)?;
        let key = PrivateKeyDer::from_pem_slice(value("tls.key")?).map_err(unusable)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        // By this a sidecar tells a request from a link of another one.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            identity: ServerName::try_from(identity.to_owned()).map_err(unusable)?,
        })
    }

    /// What a sidecar says of itself.
    ///
    /// # Errors
    /// A sentence when it does not answer.
    pub async fn state(&self, address: &str) -> Result<Member, String> {
        let body = self.request(address, Method::GET, "/state").await?;
        serde_json::from_slice(&body).map_err(|error| format!("its state is not understood: {error}"))
    }

    /// Asks a sidecar to do something.
    ///
    /// # Errors
    /// A sentence when it does not answer, or cannot.
    pub async fn ask(&self, address: &str, request: moving::Request) -> Result<(), String> {
        self.request(address, Method::POST, request.path())
            .await
            .map(|_| ())
    }

    async fn request(&self, address: &str, method: Method, path: &'static str) -> Result<Bytes, String> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(address, method, path)).await;
        answer
            .map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())
    }

    async fn exchange(
        &self,
        address: &str,
        method: Method,
        path: &str,
    ) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let address: IpAddr = address.parse()?;
        let stream = TcpStream::connect((address, PEER_PORT)).await?;
        let stream = self.connector.connect(self.identity.clone(), stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "sidecar")
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await?;
            let body = body.to_bytes();
            if status.is_success() {
                Ok(body)
            } else {
                Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
            }
        };
        // The connection does its work while the answer is waited for, and ends with it.
        tokio::select! {
            answer = answer => answer,
            ended = connection => Err(ended.err().map_or_else(|| "it hung up".into(), Into::into)),
        }
    }
}

fn unusable(error: impl Display) -> String {
    format!("the sidecars' certificates cannot be used: {error}")
}
