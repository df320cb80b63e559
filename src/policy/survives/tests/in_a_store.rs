//! Sessions in a store.

use super::*;
use crate::api::session_store::Engine;
use crate::policy::sessions::source::{Promise, Replicas, Shards};
use crate::policy::survives::StoreFacts;

fn standalone(persistent: bool) -> Promise {
    Promise::Store {
        name: "sessions".to_owned(),
        engine: Engine::Valkey,
        persistent,
        replicas: None,
        shards: None,
    }
}

fn memcached() -> Promise {
    Promise::Store {
        name: "sessions".to_owned(),
        engine: Engine::Memcached,
        persistent: false,
        replicas: None,
        shards: None,
    }
}

fn replicated(persistent: bool, synced: usize, elsewhere: usize) -> Promise {
    Promise::Store {
        name: "sessions".to_owned(),
        engine: Engine::Valkey,
        persistent,
        replicas: Some(Replicas { synced, elsewhere }),
        shards: None,
    }
}

fn sharded(persistent: bool, covered: usize, elsewhere: usize, voters_together: bool) -> Promise {
    Promise::Store {
        name: "sessions".to_owned(),
        engine: Engine::Valkey,
        persistent,
        replicas: None,
        shards: Some(Shards {
            count: 3,
            covered,
            elsewhere,
            voters_together,
        }),
    }
}

fn facts(promise: &Promise) -> StoreFacts<'_> {
    StoreFacts {
        injected: 3,
        total: 3,
        marked: true,
        store: Ok(promise),
        webhook: false,
    }
}

fn table(store: StoreFacts<'_>) -> Vec<Survival> {
    compute(&Facts {
        hand_over: None,
        store: Some(store),
        routes: &[],
        target: &target(&THREE()),
    })
}

fn verdicts(store: StoreFacts<'_>) -> Vec<(Event, Outcome)> {
    table(store).iter().map(|row| (row.event, row.outcome)).collect()
}

fn outcome(store: StoreFacts<'_>, event: Event) -> (Outcome, String) {
    let row = table(store).into_iter().find(|row| row.event == event).unwrap();
    (row.outcome, row.reason)
}

#[test]
fn snapshots_of_whole_tables() {
    assert_yaml_snapshot!("standalone_in_memory", table(facts(&standalone(false))));
    assert_yaml_snapshot!("standalone_persistent", table(facts(&standalone(true))));
    assert_yaml_snapshot!("memcached", table(facts(&memcached())));
    assert_yaml_snapshot!("replicated", table(facts(&replicated(false, 2, 2))));
    assert_yaml_snapshot!("sharded", table(facts(&sharded(false, 3, 3, false))));
    assert_yaml_snapshot!("external", table(facts(&Promise::External)));
}

#[test]
fn each_row_flips_with_the_fact_it_stands_on() {
    let (memory, volume) = (standalone(false), standalone(true));
    assert_eq!(
        outcome(facts(&memory), Event::StoreRestart),
        is(Outcome::Lost, reasons::STORE_IN_MEMORY)
    );
    assert_eq!(
        outcome(facts(&volume), Event::StoreRestart),
        is(Outcome::Partly, reasons::STORE_PERSISTS)
    );
    let external = Promise::External;
    assert_eq!(
        outcome(facts(&external), Event::StoreRestart),
        is(Outcome::Lost, reasons::STORE_NOT_OURS)
    );
    assert_eq!(
        outcome(facts(&external), Event::NodeLoss),
        is(Outcome::Kept, reasons::IN_STORE)
    );
    assert_eq!(
        outcome(facts(&memory), Event::NodeLoss),
        is(Outcome::Partly, reasons::STORE_ON_ONE_NODE)
    );
    let webhook = StoreFacts {
        webhook: true,
        ..facts(&memory)
    };
    assert_eq!(
        outcome(webhook, Event::OperatorDown),
        is(Outcome::Partly, reasons::WEBHOOK_NEEDED)
    );
    assert_eq!(
        outcome(facts(&memory), Event::OperatorDown),
        is(Outcome::Kept, reasons::IN_STORE)
    );
}

#[test]
fn a_store_with_replicas_promises_as_much_as_they_are_good_for() {
    let kept = is(Outcome::Kept, reasons::STORE_FAILS_OVER);
    let (whole, near, none) = (
        replicated(false, 2, 1),
        replicated(false, 2, 0),
        replicated(false, 0, 0),
    );
    let on_volumes = replicated(true, 0, 0);
    for (promise, event, expected) in [
        (&whole, Event::StoreRestart, &kept),
        (&whole, Event::NodeLoss, &kept),
        (&near, Event::StoreRestart, &kept),
        (
            &near,
            Event::NodeLoss,
            &is(Outcome::Partly, reasons::STORE_ON_ONE_NODE),
        ),
        (
            &none,
            Event::StoreRestart,
            &is(Outcome::Lost, reasons::STORE_IN_MEMORY),
        ),
        (
            &on_volumes,
            Event::StoreRestart,
            &is(Outcome::Partly, reasons::STORE_PERSISTS),
        ),
        (
            &whole,
            Event::StoreLoss,
            &is(Outcome::Lost, reasons::STORE_HAS_ALL),
        ),
        (
            &whole,
            Event::OperatorDown,
            &is(Outcome::Partly, reasons::FAILOVER_WAITS),
        ),
        (&whole, Event::PodLoss, &is(Outcome::Kept, reasons::IN_STORE)),
    ] {
        assert_eq!(&outcome(facts(promise), event), expected, "{promise:?} {event:?}");
    }
    let webhook = StoreFacts {
        webhook: true,
        ..facts(&whole)
    };
    let row = table(webhook)
        .into_iter()
        .find(|row| row.event == Event::OperatorDown)
        .unwrap();
    assert!(row.message.contains("admission of them fails"), "{}", row.message);
}

#[test]
fn a_store_with_shards_promises_what_the_weakest_of_them_is_good_for() {
    let kept = is(Outcome::Kept, reasons::STORE_FAILS_OVER);
    let whole = sharded(false, 3, 3, false);
    for event in [Event::StoreRestart, Event::NodeLoss, Event::OperatorDown] {
        assert_eq!(outcome(facts(&whole), event), kept, "{event:?}");
    }
    for (promise, event, expected) in [
        (
            sharded(false, 2, 2, false),
            Event::StoreRestart,
            is(Outcome::Partly, reasons::SHARD_ALONE),
        ),
        (
            sharded(false, 0, 0, false),
            Event::StoreRestart,
            is(Outcome::Lost, reasons::SHARD_ALONE),
        ),
        (
            sharded(true, 0, 0, false),
            Event::StoreRestart,
            is(Outcome::Partly, reasons::SHARD_ALONE),
        ),
        (
            sharded(false, 2, 2, false),
            Event::OperatorDown,
            is(Outcome::Partly, reasons::SHARD_ALONE),
        ),
        (
            sharded(false, 3, 2, false),
            Event::NodeLoss,
            is(Outcome::Partly, reasons::STORE_ON_ONE_NODE),
        ),
        (
            sharded(false, 3, 3, true),
            Event::NodeLoss,
            is(Outcome::Partly, reasons::STORE_ON_ONE_NODE),
        ),
        (
            whole.clone(),
            Event::StoreLoss,
            is(Outcome::Lost, reasons::STORE_HAS_ALL),
        ),
        (
            whole.clone(),
            Event::PodLoss,
            is(Outcome::Kept, reasons::IN_STORE),
        ),
    ] {
        assert_eq!(outcome(facts(&promise), event), expected, "{promise:?} {event:?}");
    }
    let webhook = StoreFacts {
        webhook: true,
        ..facts(&whole)
    };
    assert_eq!(
        outcome(webhook, Event::OperatorDown),
        is(Outcome::Partly, reasons::WEBHOOK_NEEDED)
    );
}

#[test]
fn a_pod_without_the_injection_is_not_promised_for() {
    let memory = standalone(false);
    let some = StoreFacts {
        injected: 2,
        ..facts(&memory)
    };
    assert_eq!(
        outcome(some, Event::PodLoss),
        is(Outcome::Partly, reasons::NOT_ALL_INJECTED)
    );
    let none = StoreFacts {
        injected: 0,
        ..facts(&memory)
    };
    let unmarked = StoreFacts {
        marked: false,
        injected: 0,
        total: 0,
        ..facts(&memory)
    };
    let without = rows(&[], &THREE());
    assert_eq!(table(none), without, "as if there were no store");
    assert_eq!(table(unmarked), without);
    let scaled_to_zero = StoreFacts {
        injected: 0,
        total: 0,
        ..facts(&memory)
    };
    assert_eq!(
        outcome(scaled_to_zero, Event::ScaleToZero),
        is(Outcome::Kept, reasons::IN_STORE)
    );
}

#[test]
fn a_store_that_cannot_be_used_keeps_nothing() {
    let memory = standalone(false);
    let broken = StoreFacts {
        store: Err("no answer"),
        ..facts(&memory)
    };
    assert!(
        verdicts(broken)
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Lost)
    );
}
