//! What kube-proxy does in a cluster, for servers on loopback: each new connection goes to one of the replicas that are
//! in the list. Nothing here looks into what is sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Forwards connections. Lives as long as the test's runtime.
pub struct Balancer {
    /// Where the API server connects to.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    replicas: Mutex<Vec<u16>>,
    /// Connections that each replica got.
    served: Mutex<BTreeMap<u16, usize>>,
    hang_up: Notify,
}

impl Balancer {
    /// Starts with no replica.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        tokio::spawn(accept(listener, state.clone()));
        Self { port, state }
    }

    /// A replica is ready.
    pub fn add(&self, port: u16) {
        self.state.replicas.lock().unwrap().push(port);
    }

    /// A replica is known to be going or gone.
    pub fn remove(&self, port: u16) {
        self.state.replicas.lock().unwrap().retain(|other| *other != port);
    }

    /// Ends all connections.
    pub fn hang_up(&self) {
        self.state.hang_up.notify_waiters();
    }

    /// How many connections a replica got so far.
    pub fn served(&self, port: u16) -> usize {
        self.state
            .served
            .lock()
            .unwrap()
            .get(&port)
            .copied()
            .unwrap_or_default()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (from, _) = listener.accept().await.unwrap();
        let replicas = state.replicas.lock().unwrap().clone();
        // None: the connection is dropped, as without endpoints.
        if let Some(port) = fastrand::choice(replicas) {
            tokio::spawn(forward(from, port, state.clone()));
        }
    }
}

async fn forward(mut from: TcpStream, port: u16, state: Arc<State>) {
    if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
        *state.served.lock().unwrap().entry(port).or_default() += 1;
        tokio::select! {
            // A side that ends abruptly is what these tests are about.
            _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
            () = state.hang_up.notified() => {}
        }
    }
}
