//! A web application on loopback, with pods, a proxy in front of them, and faults on demand.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::drill::{Application, Target};

/// How the test application is used.
pub const DESCRIPTION: &str = "
name: test
login: {method: POST, path: /login, form: {user: '{user}'}, accept: [303]}
check:
  request: {path: /whoami}
  user: {json: /user}
  items: {json: /items/*}
write:
  request: {method: POST, path: /items, form: {item: '{user}-{n}'}, accept: [303]}
  item: '{user}-{n}'
logout: {method: POST, path: /logout, accept: [303]}
pod: {header: x-pod}
";

/// What requests meet instead of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A status; nothing is done.
    Status(u16),
    /// A status after the request was acted upon.
    StatusAfter(u16),
    /// No answer, ever.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// A page that is not what was asked for.
    Page,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user: String,
    pub items: Vec<String>,
}

/// State of the application; tests change it while users are there.
#[derive(Default)]
pub struct World {
    pub pods: Vec<String>,
    /// Sessions by pod (or one place for all, if shared) and session id.
    pub sessions: BTreeMap<(String, String), Session>,
    /// Whether all pods see the same sessions.
    pub shared: bool,
    /// Whether the proxy keeps users on their pods.
    pub sticky: bool,
    /// Attributes of the session cookie.
    pub cookie: &'static str,
    pub fault: Option<Fault>,
    /// The only path that the fault acts on; empty = every path.
    pub fault_path: &'static str,
    /// Number of requests that met the fault.
    pub faulted: u64,
    /// Users who may not log in.
    pub banned: Vec<&'static str>,
    /// Sessions that were logged out.
    pub logged_out: Vec<((String, String), Session)>,
    pub requests: u64,
    pub connections: u64,
    /// A token that the login wants, taken from its page.
    pub token: Option<&'static str>,
    /// Ends the connections that are open now, as a server does that is tired of idle ones.
    pub idle: Option<watch::Sender<()>>,
    pub next_pod: usize,
    pub next_session: u64,
}

impl World {
    pub fn session_of(&mut self, user: &str) -> &mut Session {
        self.sessions
            .values_mut()
            .find(|session| session.user == user)
            .expect("the user has a session")
    }

    pub fn remove_pod(&mut self, pod: &str) {
        self.pods.retain(|name| name != pod);
        self.sessions.retain(|(place, _), _| place != pod);
    }

    /// Closes every connection that is open.
    pub fn close_idle(&mut self) {
        self.idle = None;
    }

    fn place(&self, pod: &str) -> String {
        if self.shared {
            "all".to_owned()
        } else {
            pod.to_owned()
        }
    }
}

/// The running application.
pub struct Server {
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
    accepting: AbortHandle,
    tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(world: World) -> Self {
        Self::listen(world, None).await
    }

    /// Also gives the authority's certificate.
    pub async fn start_tls(world: World, host: &str) -> (Self, String) {
        let key = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from(key.cert.der().to_vec())];
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        (
            Self::listen(world, Some(TlsAcceptor::from(Arc::new(config)))).await,
            key.cert.pem(),
        )
    }

    async fn listen(world: World, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(world));
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(accept(listener, tls, Arc::clone(&world)));
        Self {
            address,
            world,
            accepting,
            tasks,
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn target(&self) -> Target {
        Target::http(self.address, "app.test").unwrap()
    }

    pub fn application() -> Application {
        Application::from_yaml(DESCRIPTION).unwrap()
    }

    /// Waits for so many more requests: on a busy machine a time says nothing about what happened in it.
    pub async fn after_requests(&self, requests: u64) {
        let enough = self.world().requests + requests;
        let reached = async {
            while self.world().requests < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("users go on");
    }

    /// Ends the application: connections break, new ones are refused.
    pub async fn stop(&mut self) {
        self.accepting.abort();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, world: Arc<Mutex<World>>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut tired = {
            let mut world = world.lock().unwrap();
            world.connections += 1;
            world.idle.get_or_insert_with(|| watch::channel(()).0).subscribe()
        };
        let (world, tls) = (Arc::clone(&world), tls.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&world), request));
            let serve = async {
                // Broken connections are what some tests are about.
                let _ended = match tls {
                    None => {
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                    }
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else {
                            return;
                        };
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                    }
                };
            };
            tokio::select! {
                () = serve => {}
                // An error means that the sender was dropped: the sign to close.
                _ = tired.changed() => {}
            }
        });
    }
}

async fn handle(world: Arc<Mutex<World>>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let fault = {
        let mut world = world.lock().unwrap();
        world.requests += 1;
        let fault = world
            .fault
            .filter(|_| request.uri().path().starts_with(world.fault_path));
        world.faulted += u64::from(fault.is_some());
        fault
    };
    let plain = |status: u16| Ok(Response::builder().status(status).body(Full::default()).unwrap());
    match fault {
        Some(Fault::Status(status)) => return plain(status),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Close) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Page) => return Ok(Response::new(Full::from("<html>hello</html>"))),
        Some(Fault::StatusAfter(_)) | None => {}
    }
    let answer = answer(&world, request).await;
    match fault {
        Some(Fault::StatusAfter(status)) => plain(status),
        _ => Ok(answer),
    }
}

async fn answer(world: &Mutex<World>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let cookies: HashMap<String, String> = head
        .headers
        .get_all("cookie")
        .iter()
        .flat_map(|header| header.to_str().unwrap().split("; "))
        .filter_map(|pair| {
            pair.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();

    let mut world = world.lock().unwrap();
    let mut response = Response::builder();
    let kept = cookies
        .get("route")
        .filter(|pod| world.sticky && world.pods.contains(pod))
        .cloned();
    let pod = kept.clone().unwrap_or_else(|| {
        world.next_pod += 1;
        world.pods[world.next_pod % world.pods.len()].clone()
    });
    if world.sticky && kept.is_none() {
        response = response.header("set-cookie", format!("route={pod}; Path=/; HttpOnly"));
    }
    response = response.header("x-pod", &pod);
    let place = world.place(&pod);
    let key = cookies.get("sid").map(|id| (place.clone(), id.clone()));
    let session = key.as_ref().and_then(|key| world.sessions.get(key)).cloned();

    let (status, body) = match (&head.method, head.uri.path(), session) {
        (&Method::GET, "/login", _) => (
            200,
            format!("<input name=token value='{}'>", world.token.unwrap_or("")),
        ),
        (&Method::POST, "/login", _) => {
            let user = form["user"].clone();
            let token = form.get("token").map(String::as_str);
            if world.banned.contains(&user.as_str()) || token != world.token {
                (401, String::new())
            } else {
                world.next_session += 1;
                let id = format!("s{}", world.next_session);
                response = response.header("set-cookie", format!("sid={id}; Path=/{}", world.cookie));
                world.sessions.insert(
                    (place, id),
                    Session {
                        user,
                        items: Vec::new(),
                    },
                );
                (303, String::new())
            }
        }
        (&Method::GET, "/whoami", Some(session)) => (
            200,
            json!({"user": session.user, "items": session.items}).to_string(),
        ),
        (&Method::GET, "/whoami", None) => (200, json!({"user": null, "items": []}).to_string()),
        (&Method::GET, "/page", session) => {
            let name = session.map_or_else(|| "stranger".to_owned(), |session| session.user);
            (200, format!("<p>Hello, <b>{name}</b>!</p>"))
        }
        (&Method::POST, "/items", Some(_)) => {
            world
                .sessions
                .get_mut(&key.unwrap())
                .unwrap()
                .items
                .push(form["item"].clone());
            (303, String::new())
        }
        (&Method::POST, "/logout", session) => {
            if let (Some(key), Some(session)) = (key, session) {
                world.sessions.remove(&key);
                world.logged_out.push((key, session));
            }
            response = response.header("set-cookie", "sid=; Path=/; Max-Age=0");
            (303, String::new())
        }
        (_, "/items", None) => (401, String::new()),
        _ => (404, String::new()),
    };
    response.status(status).body(Full::from(body)).unwrap()
}
