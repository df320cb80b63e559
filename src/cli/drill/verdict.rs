//! What was promised, what was measured, and whether the two agree. Pure.

use serde_json::{Value, json};

use crate::api::{Event as Promised, Outcome, SessionPolicy, Survival};
use crate::drill::Report;
use crate::drill::account::Class;
use crate::drill::event::Event;

/// The row of the policy's status that an event is about.
pub fn promise(policy: &SessionPolicy, event: &Event, replicas: i32) -> Option<Survival> {
    let promised = match event {
        Event::Nothing(_) => return None,
        Event::Restart => Promised::RollingUpdate,
        Event::DeletePod(_) | Event::DrainNode(_) => Promised::PodLoss,
        Event::Scale(0) => Promised::ScaleToZero,
        Event::Scale(wanted) if *wanted < replicas => Promised::ScaleDown,
        Event::Scale(_) => Promised::ScaleUp,
    };
    let status = policy.status.as_ref()?;
    status.survives.iter().find(|row| row.event == promised).cloned()
}

/// A promise beside what was measured.
#[derive(Debug)]
pub struct Verdict {
    promise: Option<Survival>,
    users: u32,
    lost: u32,
    corrupted: u32,
    back: u32,
    unknown: u32,
    login_failed: u32,
    failed: u64,
}

impl Verdict {
    /// Puts the two side by side.
    pub fn new(promise: Option<Survival>, report: &Report) -> Self {
        Self {
            promise,
            users: report.users,
            lost: report.count(Class::Lost),
            corrupted: report.count(Class::Corrupted),
            back: report.count(Class::BackAfterLogout),
            unknown: report.count(Class::Unknown),
            login_failed: report.count(Class::LoginFailed),
            failed: report.failed(),
        }
    }

    /// Whether nothing is worse than promised. Contents that are wrong and sessions that come back after a logout are
    /// never promised, and a drill in which nobody could log in or answer shows nothing.
    pub fn agrees(&self) -> bool {
        if self.corrupted + self.back + self.unknown + self.login_failed > 0 {
            return false;
        }
        match &self.promise {
            Some(promise) if promise.outcome == Outcome::Kept => self.lost == 0,
            Some(_) => true,
            // Nothing happened, or nothing is known of it.
            None => self.lost == 0,
        }
    }

    /// The row that was promised.
    pub fn promise(&self) -> Value {
        json!(self.promise)
    }

    /// Both in one line.
    pub fn sentence(&self) -> String {
        let promised = self.promise.as_ref().map_or_else(
            || "the policy's status says nothing of it".to_owned(),
            |row| format!("{:?} {:?} ({})", row.event, row.outcome, row.reason),
        );
        let measured = [
            (self.lost, "lost"),
            (self.corrupted, "with wrong contents"),
            (self.back, "back after logout"),
            (self.unknown, "without a last answer"),
            (self.login_failed, "never logged in"),
        ];
        let measured: Vec<String> = measured
            .into_iter()
            .filter(|(count, what)| *count > 0 || *what == "lost")
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let verdict = if self.agrees() {
            "as promised"
        } else {
            "WORSE THAN PROMISED"
        };
        format!(
            "promised: {promised}; measured: {} of {} users, {} failed requests: {verdict}",
            measured.join(", "),
            self.users,
            self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome) -> Survival {
        let row = json!({"event": "PodLoss", "outcome": outcome, "reason": "ReplicatedAll", "message": "m"});
        serde_json::from_value(row).unwrap()
    }

    fn verdict(promise: Option<Survival>, lost: u32, back: u32) -> Verdict {
        Verdict {
            promise,
            users: 10,
            lost,
            corrupted: 0,
            back,
            unknown: 0,
            login_failed: 0,
            failed: 3,
        }
    }

    #[test]
    fn kept_means_all_and_a_logout_never_comes_back() {
        assert!(verdict(Some(row(Outcome::Kept)), 0, 0).agrees());
        assert!(!verdict(Some(row(Outcome::Kept)), 1, 0).agrees());
        assert!(verdict(Some(row(Outcome::Partly)), 4, 0).agrees());
        assert!(verdict(Some(row(Outcome::Lost)), 10, 0).agrees());
        assert!(!verdict(Some(row(Outcome::Lost)), 0, 1).agrees());
        assert!(!verdict(None, 1, 0).agrees());
    }

    #[test]
    fn the_sentence_has_both_sides() {
        assert_eq!(
            verdict(Some(row(Outcome::Kept)), 0, 0).sentence(),
            "promised: PodLoss Kept (ReplicatedAll); measured: 0 lost of 10 users, 3 failed requests: as promised"
        );
        assert_eq!(
            verdict(None, 2, 1).sentence(),
            "promised: the policy's status says nothing of it; measured: 2 lost, 1 back after logout of 10 users, 3 failed \
             requests: WORSE THAN PROMISED"
        );
    }
}
