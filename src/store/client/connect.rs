//! From an endpoint to a connection: name → port → certificate → credentials.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{COMMAND_TIMEOUT, Connection, Failure};

/// One for all connections.
static CRYPTOGRAPHY: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// Limit for a TCP connection: within a cluster it takes a millisecond, to a store elsewhere less than a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// When one more connection is tried to a server that has not answered the first. A packet that was lost is sent again only after
/// a second (RFC 6298, section 2): a primary that was cut off and is back would serve what it has from before for as long.
const CONNECT_AGAIN: Duration = Duration::from_millis(250);

/// Limit for the TLS handshake, and for the credentials to be accepted.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server as a client reaches it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// DNS name or address; with TLS the name that the certificate has to be for.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Where to connect instead of looking up `host`, such as the address of one pod.
    pub address: Option<String>,
    /// Who vouches for the server's certificate. `None`: no TLS.
    pub tls: Option<Authority>,
}

/// Who vouches for a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The authorities that browsers trust.
    Public,
    /// Those of a PEM file.
    Own(String),
}

/// Who the client says it is.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Name of the user; absent = the default user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Password>,
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Endpoint {
    /// Host and port as one word.
    pub fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) fn unreachable(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::Unreachable {
            server: self.server(),
            cause: cause.to_string(),
        }
    }

    fn tls_failed(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::Tls {
            server: self.server(),
            cause: cause.to_string(),
        }
    }
}

impl Credentials {
    fn described(&self) -> String {
        let password = if self.password.is_some() { "the" } else { "no" };
        match &self.username {
            Some(name) => format!("user {name} with {password} password"),
            None => format!("the default user with {password} password"),
        }
    }
}

/// Connects, authenticates, and sees that the server takes a PING. A replica without its primary refuses one, and is there.
pub async fn connect(endpoint: &Endpoint, credentials: &Credentials) -> Result<Connection, Failure> {
    let mut connection = open(endpoint, credentials).await?;
    // Without credentials nothing has been said yet.
    match redis::cmd("PING").query_async::<()>(&mut connection.inner).await {
        Err(error) if !matches!(error.code(), Some("NOPERM" | "MASTERDOWN")) => {
            Err(refused(endpoint, credentials, &error))
        }
        _ => Ok(connection),
    }
}

/// Connects and authenticates, whatever the server can do beyond that.
pub async fn open(endpoint: &Endpoint, credentials: &Credentials) -> Result<Connection, Failure> {
    let stream = tcp(endpoint).await?;
    let Some(authority) = &endpoint.tls else {
        return authenticate(endpoint, credentials, stream, None).await;
    };
    let stream = tls(endpoint, authority, stream).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate.to_vec());
    authenticate(endpoint, credentials, stream, certificate).await
}

pub(super) async fn tcp(endpoint: &Endpoint) -> Result<TcpStream, Failure> {
    let connecting = async {
        match &endpoint.address {
            Some(address) => first_to(address, endpoint.port).await,
            None => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await,
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => {
            stream
                .set_nodelay(true)
                .map_err(|error| endpoint.unreachable(error))?;
            Ok(stream)
        }
        Ok(Err(error)) => Err(endpoint.unreachable(error)),
        Err(_) => Err(endpoint.unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// The first of several connections to an address.
async fn first_to(address: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut tried = FuturesUnordered::new();
    loop {
        tried.push(TcpStream::connect((address, port)));
        if let Ok(Some(outcome)) = tokio::time::timeout(CONNECT_AGAIN, tried.next()).await {
            return outcome;
        }
    }
}

async fn tls(
    endpoint: &Endpoint,
    authority: &Authority,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let roots = roots(authority).map_err(|cause| endpoint.tls_failed(cause))?;
    let mut config = ClientConfig::builder_with_provider(CRYPTOGRAPHY.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| endpoint.tls_failed(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A connection lasts as long as its server: there is nothing to resume, and hundreds of them would each keep room for it.
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| endpoint.tls_failed(error))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(endpoint.tls_failed(error)),
        Err(_) => Err(endpoint.tls_failed(format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs()))),
    }
}

fn roots(authority: &Authority) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match authority {
        Authority::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Authority::Own(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("ca.crt is not PEM: {error}"))?;
                roots
                    .add(certificate)
                    .map_err(|error| format!("ca.crt holds no authority: {error}"))?;
            }
        }
    }
    if roots.is_empty() {
        return Err("ca.crt holds no certificate".to_owned());
    }
    Ok(roots)
}

async fn authenticate<S>(
    endpoint: &Endpoint,
    credentials: &Credentials,
    stream: S,
    certificate: Option<Vec<u8>>,
) -> Result<Connection, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The library's name is not sent: a user may lack the right to CLIENT.
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(username) = &credentials.username {
        info = info.set_username(username);
    }
    if let Some(password) = &credentials.password {
        info = info.set_password(password.reveal());
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(COMMAND_TIMEOUT));
    let opened = MultiplexedConnection::new_with_config(&info, stream, config);
    let (inner, driver) = tokio::time::timeout(HANDSHAKE_TIMEOUT, opened)
        .await
        .map_err(|_| endpoint.unreachable(format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs())))?
        .map_err(|error| refused(endpoint, credentials, &error))?;
    Ok(Connection {
        server: endpoint.server(),
        credentials: credentials.described(),
        inner,
        driver: tokio::spawn(driver).abort_handle(),
        certificate,
    })
}

/// Why the first words were not taken.
fn refused(endpoint: &Endpoint, credentials: &Credentials, error: &RedisError) -> Failure {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "ERR")) => {
            Failure::Authentication {
                server: endpoint.server(),
                credentials: credentials.described(),
                cause: super::answer(error),
            }
        }
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Failure::Loading {
            server: endpoint.server(),
        },
        // A server with TLS hangs up on the first plain word.
        _ if endpoint.tls.is_none() && error.is_connection_dropped() => endpoint
            .tls_failed("it closed the connection at the first word without TLS; it probably expects TLS"),
        _ => endpoint.unreachable(super::answer(error)),
    }
}
