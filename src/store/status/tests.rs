//! What status says, by what was found.

use super::*;
use crate::store::testing::{nothing_but, store, validated};

const MIB: i64 = 1 << 20;

fn facts(used: i64, clients: i64) -> Facts {
    Facts {
        version: "9.1.2".to_owned(),
        used: used * MIB,
        max: 200 * MIB,
        clients,
        evicted: 0,
        certificate_is_current: true,
        disk_failed: false,
    }
}

fn after(former: Option<SessionStoreStatus>, facts: Facts, applied: &Applied) -> SessionStoreStatus {
    let mut subject = store("{}");
    subject.status = former;
    let verdict = Verdict::Applied {
        store: &validated("{}", &nothing_but(&["shop"]), &[]),
        applied,
        server: Ok(facts),
        report: None,
    };
    compute(&subject, &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
}

#[test]
fn memory_and_clients_are_told_in_steps_that_do_not_flutter() {
    let nothing = Applied::default();
    let mut status = after(None, facts(42, 10), &nothing);
    let used = |status: &SessionStoreStatus| status.memory.clone().unwrap().used;
    assert_eq!((used(&status).as_str(), status.clients), ("40Mi", Some(10)));
    for (megabytes, clients) in [(45, 20), (46, 5), (44, 12), (36, 19)] {
        let next = after(Some(status.clone()), facts(megabytes, clients), &nothing);
        assert_eq!(next, status, "{megabytes} MiB, {clients} clients");
    }
    status = after(Some(status), facts(52, 21), &nothing);
    assert_eq!((used(&status).as_str(), status.clients), ("50Mi", Some(21)));
    status = after(Some(status), facts(52, 0), &nothing);
    assert_eq!(status.clients, Some(0));
    // A probe that is connected just now.
    status = after(Some(status), facts(52, 2), &nothing);
    assert_eq!(status.clients, Some(0));
}

#[test]
fn users_are_listed_once_the_server_knows_them_and_stay_while_it_is_away() {
    let nothing = Applied::default();
    let away = |former| {
        let mut subject = store("{}");
        subject.status = former;
        let verdict = Verdict::Applied {
            store: &validated("{}", &nothing_but(&["shop"]), &[]),
            applied: &nothing,
            server: Err(unready(&nothing_but(&["shop"]), None)),
            report: None,
        };
        compute(&subject, &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
    };
    assert_eq!(away(None).users, []);
    let up = after(None, facts(1, 0), &nothing);
    let secrets: Vec<&str> = up.users.iter().map(|user| user.secret.as_str()).collect();
    assert_eq!(secrets, ["larder-user-shop"]);
    assert_eq!(away(Some(up.clone())).users, up.users);
}

#[test]
fn how_long_a_store_has_not_been_ready_is_counted_from_when_it_was() {
    let now = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(100);
    let mut subject = store("{}");
    assert_eq!(unready_for(&subject, now).as_secs(), 0);
    let refusal = Refusal {
        reason: reasons::INVALID_SPEC,
        message: String::new(),
    };
    let status = compute(
        &subject,
        &Verdict::Refused(&refusal),
        &Time(jiff::Timestamp::UNIX_EPOCH),
    );
    subject.status = Some(status);
    assert_eq!(unready_for(&subject, now).as_secs(), 100);
    subject.status = Some(after(None, facts(1, 0), &Applied::default()));
    assert_eq!(unready_for(&subject, now).as_secs(), 0);
}

#[test]
fn a_store_that_runs_and_takes_no_sessions_is_not_ready() {
    let reason = |facts: Facts, applied: &Applied| {
        let status = after(None, facts, applied);
        let ready = status.conditions[0].clone();
        (ready.status, ready.reason)
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    let nothing = Applied::default();
    assert_eq!(reason(facts(1, 0), &nothing), pair("True", "Ready"));
    assert_eq!(
        reason(facts(200, 0), &nothing),
        pair("False", "StoreRefusesWrites")
    );
    let mut disk = facts(1, 0);
    disk.disk_failed = true;
    assert_eq!(reason(disk, &nothing), pair("False", "StoreRefusesWrites"));
    let refused = Applied {
        volume_refused: Some("the class says no".to_owned()),
        ..Applied::default()
    };
    assert_eq!(reason(facts(1, 0), &refused), pair("True", "VolumeCannotGrow"));
}
