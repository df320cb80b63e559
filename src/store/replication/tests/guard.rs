//! A primary that nobody follows any more.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::IN_MEMORY;
use super::fixture::{LIMIT, Servers, name};

/// One that was cut off must not take what nobody will have once another one is in its place.
#[tokio::test]
async fn a_primary_that_no_replica_hears_takes_no_writes_until_the_operator_lifts_it() {
    let mut servers = Servers::start(IN_MEMORY);
    let primary = servers.settle().await;
    servers.write(primary, 0..20).await;
    let (one, two) = ((primary + 1) % 3, (primary + 2) % 3);
    // As if its node were cut off: it hears nobody, and nobody tells it anything.
    for replica in [one, two] {
        servers.processes[replica].signal("STOP");
    }
    let begun = Instant::now();
    let refusal = loop {
        let mut shop = servers.as_shop(primary).await;
        match shop.command::<redis::Value>(&["SET", "shop:late", "x"]).await {
            Err(failure) => break failure,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(begun.elapsed() < LIMIT, "still takes writes");
    };
    assert!(format!("{refusal:?}").contains("NOREPLICAS"), "{refusal:?}");
    // An operator on the same side of the cut does not lift it.
    servers.played.cut_off.store(true, Ordering::Relaxed);
    servers.round().await;
    assert!(is_guarded(&mut servers, primary).await);
    servers.played.cut_off.store(false, Ordering::Relaxed);
    // Two replicas lost while the primary is there: it goes on alone.
    while is_guarded(&mut servers, primary).await {
        servers.round().await;
    }
    servers.write(primary, 20..40).await;
    for replica in [one, two] {
        servers.processes[replica].signal("CONT");
    }
    assert_eq!(servers.settle().await, primary);
    assert!(is_guarded(&mut servers, primary).await);
}

/// Nobody is led to a server because it is freed.
#[tokio::test]
async fn a_replica_that_was_left_guarded_is_freed_and_stays_what_it_is() {
    let mut servers = Servers::start(IN_MEMORY);
    let primary = servers.settle().await;
    let replica = (primary + 1) % 3;
    let address = servers.address(replica);
    let mut connection = servers.access.connect(&address).await.unwrap();
    connection.take_writes_only_if_heard(Some(4)).await.unwrap();
    assert!(is_guarded(&mut servers, replica).await);
    assert_eq!(servers.settle().await, primary);
    assert!(!is_guarded(&mut servers, replica).await);
    assert_eq!(*servers.played.led_to.lock().unwrap(), Some(name(primary)));
}

async fn is_guarded(servers: &mut Servers, ordinal: usize) -> bool {
    let seen = servers.look().await;
    seen.members[ordinal].state().is_some_and(|state| state.guarded)
}
