//! Sessions in the pods, copied between them.

use super::*;
use crate::api::session_policy::ReplicationMode;
use crate::policy::sessions::cautions::Cautions;
use crate::policy::sessions::source::Promise;
use crate::policy::survives::StoreFacts;

/// Three pods on three nodes, each with every session, writes confirmed by all.
fn pods() -> Promise {
    Promise::Pods {
        mode: ReplicationMode::All,
        backups: 1,
        confirmed_alone: false,
        nodes: 3,
        replicas: 3,
        cautions: Cautions::default(),
    }
}

fn table(promise: &Promise) -> Vec<Survival> {
    compute(&Facts {
        hand_over: None,
        store: Some(StoreFacts {
            injected: 3,
            total: 3,
            marked: true,
            store: Ok(promise),
            webhook: false,
        }),
        routes: &[],
        target: &target(&THREE()),
    })
}

fn outcome(promise: &Promise, event: Event) -> (Outcome, String) {
    let row = table(promise).into_iter().find(|row| row.event == event).unwrap();
    (row.outcome, row.reason)
}

fn changed(change: impl FnOnce(&mut ReplicationMode, &mut i32, &mut bool, &mut usize, &mut i32)) -> Promise {
    let mut promise = pods();
    if let Promise::Pods {
        mode,
        backups,
        confirmed_alone,
        nodes,
        replicas,
        ..
    } = &mut promise
    {
        change(mode, backups, confirmed_alone, nodes, replicas);
    }
    promise
}

#[test]
fn snapshots_of_whole_tables() {
    assert_yaml_snapshot!("in_all_pods", table(&pods()));
    let backup = changed(|mode, _, alone, _, _| (*mode, *alone) = (ReplicationMode::Backup, false));
    assert_yaml_snapshot!("in_backups", table(&backup));
}

#[test]
fn each_row_flips_with_the_fact_it_stands_on() {
    let all = pods();
    assert_eq!(
        outcome(&all, Event::PodLoss),
        is(Outcome::Kept, reasons::REPLICATED)
    );
    let alone = changed(|_, _, alone, _, _| *alone = true);
    assert_eq!(
        outcome(&alone, Event::PodLoss),
        is(Outcome::Partly, reasons::CONFIRMED_BEFORE_COPIED)
    );
    assert_eq!(
        outcome(&alone, Event::RollingUpdate),
        is(Outcome::Kept, reasons::HANDED_OVER)
    );
    let one_node = changed(|_, _, _, nodes, _| *nodes = 1);
    assert_eq!(
        outcome(&one_node, Event::NodeLoss),
        is(Outcome::Lost, reasons::PODS_SHARE_NODE)
    );
    assert_eq!(
        outcome(&all, Event::NodeLoss),
        is(Outcome::Kept, reasons::REPLICATED)
    );
    let crowded = changed(|mode, backups, _, nodes, _| {
        (*mode, *backups, *nodes) = (ReplicationMode::Backup, 2, 2);
    });
    assert_eq!(
        outcome(&crowded, Event::NodeLoss),
        is(Outcome::Partly, reasons::PODS_SHARE_NODE)
    );
    let single = changed(|_, _, _, _, replicas| *replicas = 1);
    assert_eq!(
        outcome(&single, Event::PodLoss),
        is(Outcome::Lost, reasons::ONLY_POD)
    );
    assert_eq!(
        outcome(&single, Event::ScaleDown),
        is(Outcome::NotApplicable, reasons::SINGLE_REPLICA)
    );
    assert_eq!(
        outcome(&all, Event::ScaleToZero),
        is(Outcome::Lost, reasons::ALL_PODS_REMOVED)
    );
}

#[test]
fn what_to_know_besides_stands_in_the_row_that_it_concerns() {
    let drained = "nothing keeps pods while nodes are drained";
    let asleep = "night scales to zero";
    let mut promise = pods();
    if let Promise::Pods { cautions, .. } = &mut promise {
        *cautions = Cautions {
            drains: Some(drained.to_owned()),
            to_zero: Some(asleep.to_owned()),
        };
    }
    for (before, after) in table(&pods()).into_iter().zip(table(&promise)) {
        let caution = match after.event {
            Event::NodeLoss => format!("; {drained}"),
            Event::ScaleToZero => format!("; {asleep}"),
            _ => String::new(),
        };
        assert_eq!(after.message, format!("{}{caution}", before.message));
        assert_eq!((after.outcome, after.reason), (before.outcome, before.reason));
    }
}
