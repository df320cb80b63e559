//! Exponential backoff per object, with jitter.
//!
//! kube's `Controller` retries after whatever `error_policy` says and keeps no count of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Delay after the first failure: short, as many failures are races that the next try does not meet.
pub const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// Longest delay: how long an object stays broken after the cause is gone, if no watch event tells us before.
pub const BACKOFF_CAP: Duration = Duration::from_mins(5);

/// After this time without a failure an object is forgotten, so that deleted objects do not pile up. Above the longest
/// delay, or a steadily failing object would start over.
const FORGET_AFTER: Duration = Duration::from_mins(15);

/// Delay after the given number of failures in a row (at least 1). `fraction` in 0..=1 places it in the upper half
/// of the exponential delay, so that objects which failed together do not retry together.
pub fn delay(failures: u32, fraction: f64) -> Duration {
    let exponent = failures.saturating_sub(1).min(31);
    let full = BACKOFF_BASE.saturating_mul(1 << exponent).min(BACKOFF_CAP);
    full.mul_f64(0.5 + 0.5 * fraction.clamp(0.0, 1.0))
}

/// Counts failures by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failing: Mutex<HashMap<K, Failing>>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    count: u32,
    last: Instant,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failing: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts a failure of `key`, and says how long to wait before the next try.
    pub fn failed(&self, key: K) -> Duration {
        self.failed_at(key, Instant::now(), fastrand::f64())
    }

    /// [`Self::failed`] with the time and the random fraction given.
    pub fn failed_at(&self, key: K, now: Instant, fraction: f64) -> Duration {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.retain(|_, object| now.saturating_duration_since(object.last) < FORGET_AFTER);
        let object = failing.entry(key).or_insert(Failing { count: 0, last: now });
        object.count = object.count.saturating_add(1);
        object.last = now;
        delay(object.count, fraction)
    }

    /// Forgets the failures of `key`: it succeeded, or is gone.
    pub fn succeeded(&self, key: &K) {
        self.failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_base_to_cap() {
        let full: Vec<u128> = (1..=12)
            .map(|failures| delay(failures, 1.0).as_millis())
            .collect();
        assert_eq!(
            full,
            [
                500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000
            ]
        );
        assert_eq!(delay(u32::MAX, 1.0), BACKOFF_CAP);
        assert_eq!(delay(0, 1.0), BACKOFF_BASE);
    }

    #[test]
    fn jitter_stays_in_the_upper_half() {
        assert_eq!(delay(3, 0.0).as_millis(), 1000);
        assert_eq!(delay(3, 0.5).as_millis(), 1500);
        assert_eq!(delay(3, 7.0).as_millis(), 2000);
    }

    #[test]
    fn counts_by_object_and_resets_on_success() {
        let backoff = Backoff::default();
        let now = Instant::now();
        assert_eq!(backoff.failed_at("a", now, 1.0).as_millis(), 500);
        assert_eq!(backoff.failed_at("a", now, 1.0).as_millis(), 1000);
        assert_eq!(backoff.failed_at("b", now, 1.0).as_millis(), 500);
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed_at("a", now, 1.0).as_millis(), 500);
        assert_eq!(backoff.failed_at("b", now, 1.0).as_millis(), 1000);
    }

    #[test]
    fn forgets_what_no_longer_fails_but_not_what_fails_slowly() {
        let backoff = Backoff::default();
        let start = Instant::now();
        backoff.failed_at("gone", start, 1.0);
        backoff.failed_at("slow", start, 1.0);
        let later = start + BACKOFF_CAP;
        backoff.failed_at("slow", later, 1.0);
        let much_later = start + FORGET_AFTER;
        assert_eq!(backoff.failed_at("slow", much_later, 1.0).as_millis(), 2000);
        assert_eq!(
            backoff.failing.lock().unwrap().len(),
            1,
            "only the object that still fails is kept"
        );
    }
}
