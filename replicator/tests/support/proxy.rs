//! A link that can be cut, or fall silent: forwards TCP connections to a port until told not to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::free_port;

/// See the module. Its threads end with the connections they serve, or with the test.
pub struct Proxy {
    pub port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<Connection>>>,
}

/// The two ends of a connection, and whether what comes from either is dropped.
struct Connection {
    ends: [TcpStream; 2],
    silent: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let (is_cut, connections) = (Arc::clone(&cut), Arc::clone(&open));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { break };
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))) else {
                    continue;
                };
                let silent = Arc::new(AtomicBool::new(false));
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap())) {
                    let silent = Arc::clone(&silent);
                    std::thread::spawn(move || forward(from, to, &silent));
                }
                let ends = [client, server];
                connections.lock().unwrap().push(Connection { ends, silent });
            }
        });
        Self { port, cut, open }
    }

    /// Ends all connections, and lets no new ones through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..).flat_map(|open| open.ends) {
            // It may have ended by itself.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Lets no new connections through, and nothing on those that there are, also later: they stay open at either end.
    pub fn silence(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for connection in self.open.lock().unwrap().iter() {
            connection.silent.store(true, Ordering::SeqCst);
        }
    }

    pub fn heal(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if silent.load(Ordering::SeqCst) {
        return;
    }
    // Either end may be gone already.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
