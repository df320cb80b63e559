//! Engine Memcached, between apply and status: whether the server takes a session and gives it back, and how full it is.

use std::time::Instant;

use super::build::MEMCACHED_PORT;
use super::client::memcached::{Figures, connect};
use super::client::{Endpoint, Failure};
use super::memory::Memory;
use super::server::Facts;
use super::status::Unready;
use super::validate::Validated;
use crate::api::conditions::reasons;

/// Key prefix of what is written to a server that no policy uses yet.
const NOBODY: &str = "session-operator";

/// Bytes that memcached gives to one size of items at a time.
const PAGE: i64 = 1 << 20;

/// Asks the server of one pod.
pub async fn ask(store: &Validated, address: &str, memory: &Memory, now: Instant) -> Result<Facts, Unready> {
    let endpoint = Endpoint {
        host: store.names.host(),
        port: MEMCACHED_PORT,
        address: Some(address.to_owned()),
        tls: None,
    };
    let prefix = store.prefixes.keys().next().map_or(NOBODY, String::as_str);
    let seen = look(&endpoint, prefix).await.map_err(Unready::from)?;
    let key = format!("{}/{}", store.names.namespace(), store.names.store());
    let refused = memory.refused_writes(&key, seen.refused_writes, now);
    if refused > 0 {
        return Err(Unready {
            reason: reasons::STORE_REFUSES_WRITES,
            message: format!(
                "{refused} writes were refused for want of memory in the last minutes, of {} Mi for sessions; shorten the life \
                 of sessions, or raise spec.memory, which restarts the server and so loses all of them",
                seen.facts.max >> 20
            ),
        });
    }
    Ok(seen.facts)
}

/// What a server said.
#[derive(Debug)]
struct Seen {
    facts: Facts,
    /// Writes that it refused for want of memory since it started.
    refused_writes: i64,
}

async fn look(endpoint: &Endpoint, prefix: &str) -> Result<Seen, Failure> {
    let (mut connection, version) = connect(endpoint).await?;
    let general = connection.stats("").await?;
    let slabs = connection.stats("slabs").await?;
    let items = number(&general, "curr_items");
    let mean = number(&general, "bytes").checked_div(items).unwrap_or_default();
    connection
        .try_out(prefix, usize::try_from(mean).unwrap_or_default())
        .await?;
    Ok(Seen {
        facts: Facts {
            version,
            used: used(&slabs, number(&general, "slab_global_page_pool")),
            max: number(&general, "limit_maxbytes"),
            clients: (number(&general, "curr_connections") - 1).max(0),
            // The other ones were in the way when memory of one size of items was given to another.
            evicted: number(&general, "evictions") + number(&general, "slab_reassign_evictions_nomem"),
            users_are_current: true,
            certificate_is_current: true,
            disk_failed: false,
        },
        refused_writes: number(&general, "store_no_memory"),
    })
}

/// Bytes that are taken: memory goes to sizes of items in whole pages, and to items in whole chunks of such a size.
fn used(slabs: &Figures, free_pages: i64) -> i64 {
    let free_chunks: i64 = slabs
        .iter()
        .filter_map(|(name, count)| {
            let size = name.strip_suffix(":free_chunks")?;
            Some(count.parse::<i64>().ok()? * number(slabs, &format!("{size}:chunk_size")))
        })
        .sum();
    (number(slabs, "total_malloced") - free_chunks - free_pages * PAGE).max(0)
}

fn number(figures: &Figures, name: &str) -> i64 {
    figures
        .get(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Server;

    #[tokio::test]
    async fn a_server_tells_how_full_it_is() {
        let server = Server::memcached(&["--memory-limit=48"]);
        let before = look(&server.endpoint(), "shop").await.unwrap();
        assert_eq!(before.facts.max, 48 << 20);
        assert_eq!((before.facts.clients, before.facts.evicted), (0, 0));
        assert!(before.facts.used < 4096, "{before:?}");
        let (mut connection, _) = connect(&server.endpoint()).await.unwrap();
        connection.fill(100, 100_000).await;
        let after = look(&server.endpoint(), "shop").await.unwrap();
        assert!((10_000_000..13_000_000).contains(&after.facts.used), "{after:?}");
        assert_eq!(after.facts.clients, 1);
    }

    #[tokio::test]
    async fn writes_that_were_refused_are_told_for_a_while() {
        let server = Server::memcached(&["--memory-limit=4", "--disable-evictions"]);
        let memory = Memory::default();
        let key = "kitchen/larder";
        let now = Instant::now();
        let seen = look(&server.endpoint(), "shop").await.unwrap();
        assert_eq!(memory.refused_writes(key, seen.refused_writes, now), 0);
        let (mut connection, _) = connect(&server.endpoint()).await.unwrap();
        connection.fill(1000, 10_000).await;
        let failure = look(&server.endpoint(), "shop").await.unwrap_err();
        assert_eq!(failure.reason(), reasons::STORE_REFUSES_WRITES, "{failure}");
        let figures = connection.stats("").await.unwrap();
        assert!(memory.refused_writes(key, number(&figures, "store_no_memory"), now) > 0);
    }
}
