//! What must hold of all requests of all operators in a run. `e2e/stage` runs this when the other tests have ended.

use crate::audit::{self, Request, assert_none};
use crate::stage;

#[test]
fn no_request_of_an_operator_was_forbidden_by_the_charts_roles() {
    let mut seen = 0;
    for stage in [&*stage::MAIN, &*stage::FAULTS] {
        let requests = audit::requests(&stage.audit_log, Request::is_of_an_operator);
        seen += requests
            .iter()
            .filter(|request| request.decision == "allow")
            .count();
        // An API server that has just started refuses everybody until it has read the roles.
        let outages = stage.windows_of_outages();
        let starting = |request: &Request| {
            let received: jiff::Timestamp = request.received.parse().unwrap();
            outages
                .iter()
                .any(|(from, to)| *from <= received && received <= *to)
        };
        let forbidden: Vec<_> = requests
            .into_iter()
            .filter(|request| request.decision == "forbid" && !starting(request))
            .collect();
        assert_none("these requests were forbidden", &forbidden);
    }
    assert!(
        seen > 0,
        "no operator asked for anything: the audit log or the user agent is not what is expected"
    );
}
