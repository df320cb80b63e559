//! Where members may be: a list for tests and fixed installations, or the addresses of a headless Service.
//!
//! The name is resolved by the system's resolver: it knows the pod's search domains, falls back to TCP when an answer
//! with many pods does not fit a datagram, and adds nothing to the process. Its answers are only seeds; what members
//! there really are is told over the links.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Where to look for members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seeds {
    /// `host:port` each; all are members, and may be this process itself.
    pub peers: Vec<String>,
    /// `name:port` of a headless Service.
    pub service: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Addresses of members, `host:port`.
    pub addresses: BTreeSet<String>,
    /// Whether everything that was asked has answered.
    pub complete: bool,
}

impl Seeds {
    /// Whether there is nowhere to look.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.service.is_none()
    }

    /// Looks once. `own` is left out.
    pub async fn look(&self, own: &str) -> Found {
        let mut addresses: BTreeSet<String> = self.peers.iter().cloned().collect();
        let mut complete = true;
        if let Some(service) = &self.service {
            match tokio::net::lookup_host(service.as_str()).await {
                Ok(found) => addresses.extend(found.map(|address: SocketAddr| address.to_string())),
                Err(error) => {
                    // A Service without ready or unready endpoints has no records: the resolver says so by an error.
                    tracing::debug!(%error, "the Service's name does not resolve");
                    complete = false;
                }
            }
        }
        addresses.remove(own);
        Found { addresses, complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_taken_without_oneself() {
        let seeds = Seeds {
            peers: vec!["10.0.0.1:7".into(), "10.0.0.2:7".into()],
            service: None,
        };
        let found = seeds.look("10.0.0.2:7").await;
        assert_eq!(found.addresses.into_iter().collect::<Vec<_>>(), ["10.0.0.1:7"]);
        assert!(found.complete);
    }

    #[tokio::test]
    async fn a_name_is_resolved() {
        let seeds = Seeds {
            peers: Vec::new(),
            service: Some("127.0.0.1:7".into()),
        };
        let found = seeds.look("").await;
        assert_eq!(found.addresses.into_iter().collect::<Vec<_>>(), ["127.0.0.1:7"]);
    }
}
