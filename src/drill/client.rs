//! One user's browser, as far as sessions go: a cookie jar (RFC 6265) and HTTP/1.1 to a fixed address.
//!
//! The address and the `Host` header are independent, so that no DNS is needed. Redirects are not followed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cookie_store::CookieStore;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::account::Failure;

/// Longest body of an answer that is read, in bytes; session pages are far smaller.
const BODY_LIMIT: usize = 4 << 20;

/// Where the application answers.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address to connect to.
    pub address: SocketAddr,
    host: HeaderValue,
    base: Url,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No valid host.
    #[error("host {host:?} is no host name, with or without a port")]
    Host {
        /// What was given.
        host: String,
    },
    /// No certificate of an authority in the PEM text.
    #[error("the text holds no readable PEM certificate")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The certificates or the TLS library refuse.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl Target {
    /// A target without TLS. `host` is what users type: a name, with a port where it is not 80.
    ///
    /// # Errors
    /// When `host` is not the host part of a URL.
    pub fn http(address: SocketAddr, host: &str) -> Result<Self, TargetError> {
        Self::new(address, "http", host)
    }

    /// A target with TLS, trusting the authorities in `roots` (PEM).
    ///
    /// # Errors
    /// When `host` is not the host part of a URL, or no trust can be built on `roots`.
    pub fn https(address: SocketAddr, host: &str, roots: &[u8]) -> Result<Self, TargetError> {
        let mut store = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(roots) {
            store
                .add(certificate.map_err(TargetError::Pem)?)
                .map_err(TargetError::Tls)?;
        }
        Self::trusting(address, host, store)
    }

    /// A target with TLS, trusting the authorities that browsers trust.
    ///
    /// # Errors
    /// When `host` is not the host part of a URL.
    pub fn https_public(address: SocketAddr, host: &str) -> Result<Self, TargetError> {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::trusting(address, host, roots)
    }

    fn trusting(address: SocketAddr, host: &str, store: rustls::RootCertStore) -> Result<Self, TargetError> {
        let mut target = Self::new(address, "https", host)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TargetError::Tls)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let bad_host = || TargetError::Host {
            host: host.to_owned(),
        };
        let name = target.base.host_str().ok_or_else(bad_host)?.to_owned();
        target.tls = Some((
            Arc::new(config),
            ServerName::try_from(name).map_err(|_| bad_host())?,
        ));
        Ok(target)
    }

    fn new(address: SocketAddr, scheme: &str, host: &str) -> Result<Self, TargetError> {
        let bad_host = || TargetError::Host {
            host: host.to_owned(),
        };
        let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| bad_host())?;
        if base.path() != "/"
            || base.query().is_some()
            || base.fragment().is_some()
            || !base.username().is_empty()
        {
            return Err(bad_host());
        }
        let header = HeaderValue::from_str(host).map_err(|_| bad_host())?;
        Ok(Self {
            address,
            host: header,
            base,
            tls: None,
        })
    }

    /// The URL that users see.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }
}

/// A request, complete but for host and cookies.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Call {
    /// A request for `path` (with its query, if any).
    ///
    /// # Errors
    /// Says what is wrong with `path`.
    pub fn new(
        method: Method,
        path: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Self, String> {
        let fits = path.starts_with('/') && path.parse::<hyper::Uri>().is_ok();
        if fits {
            Ok(Self {
                method,
                path: path.to_owned(),
                headers,
                body,
            })
        } else {
            Err(format!("{path:?} is no path"))
        }
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// From the first attempt to connect or send until the last byte.
    pub took: Duration,
}

/// One user's cookies and connection.
#[derive(Debug)]
pub struct Client {
    target: Target,
    jar: CookieStore,
    connection: Option<SendRequest<Full<Bytes>>>,
    keep_alive: bool,
    timeout: Duration,
}

impl Client {
    /// A client with an empty jar. Without `keep_alive` each request has its own connection. `timeout` bounds a whole
    /// request: connecting, sending, and reading the answer.
    pub fn new(target: Target, keep_alive: bool, timeout: Duration) -> Self {
        Self {
            target,
            jar: CookieStore::default(),
            connection: None,
            keep_alive,
            timeout,
        }
    }

    /// What is in the jar now.
    pub fn cookies(&self) -> CookieStore {
        self.jar.clone()
    }

    /// Puts back what [`Client::cookies`] gave.
    pub fn set_cookies(&mut self, jar: CookieStore) {
        self.jar = jar;
    }

    /// Sends a request with the cookies that belong to it and keeps those of the answer.
    ///
    /// # Errors
    /// When no complete answer came; statuses are not judged here.
    pub async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let begun = Instant::now();
        // A request that failed or was given up leaves its connection in an unknown state: `exchange` puts it back
        // only after a complete answer.
        let limit = self.timeout;
        let response = tokio::time::timeout(limit, self.exchange(call))
            .await
            .map_err(|_| Failure::Timeout)??;
        let (head, body) = response.into_parts();
        self.keep_cookies(&head.headers, &call.path);
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            took: begun.elapsed(),
        })
    }

    async fn exchange(&mut self, call: &Call) -> Result<Response<Bytes>, Failure> {
        if let Some(mut sender) = self.connection.take().filter(|sender| !sender.is_closed())
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(self.request(call)?).await {
                Ok(response) => return self.finish(sender, response).await,
                // The server closed the idle connection. Like a browser, try once more on a fresh one if the
                // request was not sent, or may be acted upon twice (RFC 9110 section 9.2.2).
                Err(failed)
                    if failed.message().is_some()
                        || (call.method.is_idempotent() && !failed.error().is_parse()) => {}
                Err(failed) => return Err(classify(&failed.into_error())),
            }
        }
        let mut sender = self.connect().await?;
        let request = self.request(call)?;
        let response = sender.send_request(request).await.map_err(|e| classify(&e))?;
        self.finish(sender, response).await
    }

    async fn finish(
        &mut self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<hyper::body::Incoming>,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|e| {
            e.downcast_ref::<hyper::Error>()
                .map_or(Failure::Unreadable, classify)
        })?;
        self.connection = self.keep_alive.then_some(sender);
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header(HOST, &self.target.host)
            .header(
                USER_AGENT,
                concat!("session-operator-drill/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(cookies) = self.cookie_header(&call.path) {
            request = request.header(COOKIE, cookies);
        }
        // Every part was validated when it was made, cookies aside: a server may set bytes that may not be sent.
        request
            .body(Full::new(call.body.clone()))
            .map_err(|_| Failure::Unreadable)
    }

    /// The `Cookie` header for a path: those with longer paths first (RFC 6265 section 5.4).
    fn cookie_header(&self, path: &str) -> Option<String> {
        let url = self.target.base.join(path).ok()?;
        let mut cookies = self.jar.matches(&url);
        cookies.sort_by_key(|cookie| (std::cmp::Reverse(cookie.path.len()), cookie.name().to_owned()));
        let pairs: Vec<String> = cookies
            .iter()
            .map(|c| format!("{}={}", c.name(), c.value()))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep_cookies(&mut self, headers: &HeaderMap, path: &str) {
        let Ok(url) = self.target.base.join(path) else {
            return;
        };
        for cookie in headers.get_all(SET_COOKIE) {
            let kept = cookie.to_str().ok().map(|text| self.jar.parse(text, &url));
            // Browsers drop such cookies without a word (RFC 6265 section 5.2); what follows from it shows in the
            // account.
            if !matches!(kept, Some(Ok(_))) {
                tracing::debug!(?cookie, "cookie refused by the jar");
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.target.address)
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::ConnectionRefused => Failure::Refused,
                io::ErrorKind::TimedOut => Failure::Timeout,
                _ => Failure::Unreachable,
            })?;
        stream.set_nodelay(true).map_err(|_| Failure::Closed)?;
        match &self.target.tls {
            None => handshake(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                handshake(
                    connector
                        .connect(name.clone(), stream)
                        .await
                        .map_err(|_| Failure::Tls)?,
                )
                .await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| classify(&e))?;
    // Ends by itself when the sender is dropped or the server closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender)
}

fn classify(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        Failure::Unreadable
    } else {
        Failure::Closed
    }
}
