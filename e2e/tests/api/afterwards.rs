//! What must hold of all requests of all operators in a run. `e2e/stage` runs this when the other tests have ended.

use crate::audit::{self, Request, assert_none};
use crate::stage;

#[test]
fn no_request_of_an_operator_was_forbidden_by_the_charts_roles() {
    let mut seen = 0;
    for stage in [&*stage::MAIN, &*stage::FAULTS] {
        let requests = audit::requests(&stage.audit_log, Request::is_of_an_operator);
        seen += requests.len();
        let forbidden: Vec<_> = requests
            .into_iter()
            .filter(|request| request.code == 403)
            .collect();
        assert_none("these requests were forbidden", &forbidden);
    }
    assert!(
        seen > 0,
        "no operator asked for anything: the audit log or the user agent is not what is expected"
    );
}
