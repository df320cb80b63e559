//! Properties of accounts, whatever is observed.

use proptest::prelude::*;

use crate::drill::account::{Account, Class, Failure, Observation, Role};
use crate::drill::report::{Entry, EventTimes, Frame};
use crate::drill::{Marks, Report};

fn observation() -> impl Strategy<Value = Observation> {
    let item = || (1u32..4).prop_map(|n| format!("ada-{n}"));
    let user = prop_oneof![3 => Just(Some("ada")), 1 => Just(None), 1 => Just(Some("eve"))];
    let items = prop::option::of(prop::collection::vec(item(), 0..4));
    prop_oneof![
        2 => Just(Observation::LoggedIn),
        1 => Just(Observation::LoginRefused(401)),
        2 => item().prop_map(Observation::Wrote),
        1 => item().prop_map(|item| Observation::WriteUnsure(item, Failure::Timeout)),
        1 => Just(Observation::LoggedOut),
        6 => (user, items).prop_map(|(user, items)| Observation::Seen { user: user.map(str::to_owned), items }),
        1 => Just(Observation::Failed(Failure::Status(502))),
    ]
}

fn course() -> impl Strategy<Value = Vec<(Option<&'static str>, Observation)>> {
    let pod = prop_oneof![1 => Just(None), 3 => Just(Some("a")), 2 => Just(Some("b"))];
    prop::collection::vec((pod, observation()), 0..30)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Member), Just(Role::Leaver)]
}

fn account(role: Role, course: &[(Option<&'static str>, Observation)]) -> Account {
    let mut account = Account::new("ada", role);
    for (at, (pod, observation)) in (0..).zip(course) {
        account.enter(at, *pod, observation.clone());
    }
    account
}

fn entry(account: Account) -> Entry {
    Entry {
        account,
        requests: 0,
        latencies: Vec::new(),
    }
}

fn frame() -> Frame {
    let event = EventTimes {
        name: "nothing".to_owned(),
        from_ms: 5,
        to_ms: 6,
    };
    let text = String::new;
    Frame {
        application: text(),
        url: text(),
        started: text(),
        duration_ms: 0,
        event,
        newcomers: Vec::new(),
        marks: Vec::new(),
    }
}

proptest! {
    #[test]
    fn classes_always_sum_to_the_number_of_users(courses in prop::collection::vec((role(), course()), 0..8)) {
        let entries: Vec<Entry> = courses.iter().map(|(role, course)| entry(account(*role, course))).collect();
        let report = Report::assemble(frame(), &entries).unwrap();
        prop_assert_eq!(report.classes.values().sum::<u32>() as usize, courses.len());
        prop_assert_eq!(report.classes.len(), Class::ALL.len());
        let leavers = report.count(Class::LoggedOut) + report.count(Class::BackAfterLogout);
        prop_assert!(leavers <= report.users);
    }

    /// What was seen once is never forgotten: no later answer makes good a loss, a spoilt session or a return.
    #[test]
    fn harm_is_never_taken_back(role in role(), course in course()) {
        let mut account = Account::new("ada", role);
        let mut harmed = false;
        for (at, (pod, observation)) in (0..).zip(&course) {
            account.enter(at, *pod, observation.clone());
            let class = account.class();
            let harm = matches!(class, Class::Lost | Class::Corrupted | Class::BackAfterLogout);
            prop_assert!(harm || !harmed, "{:?} after harm", class);
            harmed |= harm;
        }
    }

    /// A good class needs evidence: a login, nothing bad in what was seen since, and a last answer.
    #[test]
    fn kept_and_moved_are_earned(course in course()) {
        // Only leavers log out.
        let course: Vec<_> = course.into_iter().filter(|(_, o)| *o != Observation::LoggedOut).collect();
        let account = account(Role::Member, &course);
        if matches!(account.class(), Class::Kept | Class::Moved) {
            let since = course.iter().map(|(_, o)| o).skip_while(|o| **o != Observation::LoggedIn);
            let seen: Vec<Option<&str>> = since.filter_map(|o| match o {
                Observation::Seen { user, .. } => Some(user.as_deref()),
                _ => None,
            }).collect();
            prop_assert!(!seen.is_empty());
            prop_assert!(seen.iter().all(|user| *user == Some("ada")), "{:?}", seen);
            prop_assert_eq!(account.class() == Class::Moved, account.moves() > 0);
        }
    }

    /// The time line has every entry once, in order.
    #[test]
    fn time_lines_are_complete(role in role(), course in course()) {
        let account = account(role, &course);
        let entries: u32 = account.timeline().iter().map(|segment| segment.requests).sum();
        prop_assert_eq!(entries as usize, course.len());
        let mut last = None;
        for segment in account.timeline() {
            prop_assert!(segment.from_ms <= segment.to_ms);
            prop_assert!(last < Some(segment.from_ms));
            last = Some(segment.to_ms);
        }
    }
}

#[test]
fn a_final_check_counts_only_answers_after_it() {
    let seen = || Observation::Seen {
        user: Some("ada".to_owned()),
        items: None,
    };
    let mut account = account(
        Role::Member,
        &[(Some("a"), Observation::LoggedIn), (Some("a"), seen())],
    );
    assert_eq!(account.class(), Class::Kept);
    account.begin_final_check();
    account.enter(7, None, Observation::Failed(Failure::Timeout));
    assert_eq!(account.class(), Class::Unknown);
    account.enter(8, Some("b"), seen());
    assert_eq!(account.class(), Class::Moved);
    // What is seen in the very millisecond may already be the event's effect.
    let before = [7, 8, 9].map(|at_ms| account.pod_before(at_ms));
    assert_eq!(before, [Some("a"), Some("a"), Some("b")]);
}

#[test]
fn failures_are_written_as_they_are_read() {
    let all = [
        Failure::Refused,
        Failure::Unreachable,
        Failure::Timeout,
        Failure::Closed,
        Failure::Tls,
        Failure::Unreadable,
        Failure::Status(502),
    ];
    for failure in all {
        assert_eq!(failure.to_string().parse(), Ok(failure));
    }
    assert!("status many".parse::<Failure>().is_err());
}

#[test]
fn marks_keep_their_order_and_pods() {
    let marks = Marks::begin();
    marks.note("deleting", Some("a"));
    marks.note("scaled", None);
    let taken = marks.take();
    assert_eq!(
        taken.iter().map(|mark| mark.what.as_str()).collect::<Vec<_>>(),
        ["deleting", "scaled"]
    );
    assert_eq!(taken[0].pod.as_deref(), Some("a"));
    assert!(marks.take().is_empty());
}
