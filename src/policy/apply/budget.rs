//! How often the operator puts back what somebody else removes: a bounded number of times, then it reports.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::affinity::model::ObjectKey;

/// Restores of one object within [`WINDOW`]. One accident is put right at once; two tools that fight are noticed
/// after a few rounds.
pub const RESTORES_PER_HOUR: usize = 5;

/// The window of [`RESTORES_PER_HOUR`].
const WINDOW: Duration = Duration::from_hours(1);

/// Remembers what was written where, per policy and object.
#[derive(Default)]
pub struct RestoreBudget {
    entries: Mutex<HashMap<(String, String), Entry>>,
}

struct Entry {
    fields: Value,
    /// resourceVersion of the cached object when the write was decided on.
    seen: String,
    stood: bool,
    restores: VecDeque<Instant>,
}

/// Whether to write.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Write,
    /// Written already; the cache has not caught up.
    Pending,
    /// Too often; try again after this long.
    Exhausted(Duration),
}

impl RestoreBudget {
    /// Asks whether `fields` may be written on an object that is cached at `resource_version` without them.
    pub fn ask(&self, policy: &str, object: &ObjectKey, fields: &Value, resource_version: &str) -> Answer {
        self.ask_at(Instant::now(), policy, object, fields, resource_version)
    }

    fn ask_at(
        &self,
        now: Instant,
        policy: &str,
        object: &ObjectKey,
        fields: &Value,
        version: &str,
    ) -> Answer {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(&key(policy, object)) else {
            return Answer::Write;
        };
        if entry.fields != *fields {
            return Answer::Write;
        }
        if entry.seen == version && !entry.stood {
            return Answer::Pending;
        }
        while entry
            .restores
            .front()
            .is_some_and(|first| now.duration_since(*first) >= WINDOW)
        {
            entry.restores.pop_front();
        }
        match entry.restores.front() {
            Some(first) if entry.restores.len() >= RESTORES_PER_HOUR => {
                Answer::Exhausted(WINDOW.saturating_sub(now.duration_since(*first)))
            }
            _ => Answer::Write,
        }
    }

    /// Notes a write. Writing the same again is a restore.
    pub fn wrote(&self, policy: &str, object: &ObjectKey, fields: &Value, resource_version: &str) {
        self.wrote_at(Instant::now(), policy, object, fields, resource_version);
    }

    fn wrote_at(&self, now: Instant, policy: &str, object: &ObjectKey, fields: &Value, version: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key(policy, object)).or_insert_with(|| Entry {
            fields: Value::Null,
            seen: String::new(),
            stood: false,
            restores: VecDeque::new(),
        });
        if entry.fields == *fields {
            entry.restores.push_back(now);
        } else {
            entry.fields = fields.clone();
        }
        version.clone_into(&mut entry.seen);
        entry.stood = false;
    }

    /// Notes that the wanted fields stand, so that their absence later means that somebody removed them.
    pub fn stands(&self, policy: &str, object: &ObjectKey) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(&key(policy, object)) {
            entry.stood = true;
        }
    }

    /// Forgets a policy that is gone.
    pub fn forget(&self, policy: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(uid, _), _| uid != policy);
    }
}

fn key(policy: &str, object: &ObjectKey) -> (String, String) {
    (policy.to_owned(), object.uid.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> ObjectKey {
        ObjectKey {
            api_version: "v1".into(),
            kind: "Service".into(),
            plural: "services".into(),
            namespace: "web".into(),
            name: "shop".into(),
            uid: "o-1".into(),
        }
    }

    #[test]
    fn a_write_that_the_cache_has_not_seen_is_not_repeated() {
        let (budget, fields) = (RestoreBudget::default(), json!({"a": 1}));
        assert_eq!(budget.ask("p", &object(), &fields, "10"), Answer::Write);
        budget.wrote("p", &object(), &fields, "10");
        assert_eq!(budget.ask("p", &object(), &fields, "10"), Answer::Pending);
        assert_eq!(budget.ask("p", &object(), &fields, "12"), Answer::Write);
        assert_eq!(budget.ask("p", &object(), &json!({"a": 2}), "10"), Answer::Write);
    }

    #[test]
    fn restores_are_bounded_within_the_window_and_free_again_after_it() {
        let (budget, fields, start) = (RestoreBudget::default(), json!({"a": 1}), Instant::now());
        budget.wrote_at(start, "p", &object(), &fields, "0");
        for round in 0..RESTORES_PER_HOUR {
            budget.stands("p", &object());
            let version = round.to_string();
            assert_eq!(
                budget.ask_at(start, "p", &object(), &fields, &version),
                Answer::Write
            );
            budget.wrote_at(start, "p", &object(), &fields, &version);
        }
        budget.stands("p", &object());
        let soon = start + Duration::from_mins(1);
        assert_eq!(
            budget.ask_at(soon, "p", &object(), &fields, "99"),
            Answer::Exhausted(WINDOW.checked_sub(Duration::from_mins(1)).unwrap())
        );
        assert_eq!(
            budget.ask_at(start + WINDOW, "p", &object(), &fields, "99"),
            Answer::Write
        );
        assert_eq!(
            budget.ask_at(soon, "another policy", &object(), &fields, "99"),
            Answer::Write
        );
    }
}
