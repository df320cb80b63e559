//! Keys that clients of this process have lately read as missing: who has seen that a session is over may begin a new
//! one under its id, even over another connection of its pool.

use std::collections::{HashMap, VecDeque};

/// Keys remembered at most.
const CAPACITY: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Missed {
    at_ms: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl Missed {
    /// Takes note that a key (by its hash) was read as missing, or that it was found.
    pub(super) fn note(&mut self, key: u64, missing: bool, now_ms: u64) {
        if !missing {
            self.at_ms.remove(&key);
            return;
        }
        self.at_ms.insert(key, now_ms);
        self.order.push_back((key, now_ms));
        while self.order.len() > CAPACITY {
            if let Some((key, at_ms)) = self.order.pop_front()
                && self.at_ms.get(&key) == Some(&at_ms)
            {
                self.at_ms.remove(&key);
            }
        }
    }

    /// Whether a key was read as missing since a time.
    pub(super) fn contains(&self, key: u64, since_ms: u64) -> bool {
        self.at_ms.get(&key).is_some_and(|at_ms| *at_ms >= since_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_look_and_not_too_many() {
        let mut missed = Missed::default();
        missed.note(1, true, 5);
        assert!(missed.contains(1, 5) && !missed.contains(1, 6));
        missed.note(1, false, 6);
        assert!(!missed.contains(1, 0));
        for key in 0..10_000 {
            missed.note(key, true, 7);
        }
        assert!(missed.at_ms.len() <= CAPACITY && missed.order.len() <= CAPACITY);
        assert!(missed.contains(9_999, 0));
    }
}
