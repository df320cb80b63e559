//! Sessions in a store.

use super::*;
use crate::api::session_store::Topology;
use crate::policy::sessions::source::Promise;
use crate::policy::survives::StoreFacts;

fn standalone(persistent: bool) -> Promise {
    Promise::Store {
        name: "sessions".to_owned(),
        topology: Topology::Standalone,
        persistent,
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
