//! When things may be expected to be in order.

use super::world::World;

/// How long after a disturbance things are expected to be in order again.
const CALM_AFTER_MS: u64 = 9_000;

impl World {
    /// Whether everything has been in order for a while.
    pub(super) fn is_calm(&self) -> bool {
        self.disturbances == 0 && self.now_us >= self.calm_from_us
    }

    /// Whether everything has been in order since before a time.
    pub(super) fn calm_since(&self, at_us: u64) -> bool {
        self.disturbances == 0 && at_us >= self.calm_from_us
    }

    /// Whether no member has died or been separated from others since before a time.
    pub(super) fn whole_since(&self, at_us: u64) -> bool {
        self.losses == 0 && at_us >= self.whole_from_us
    }

    /// A fault that may cost data or separate members begins or ends.
    pub(super) fn lose(&mut self, begins: bool) {
        self.disturb(begins);
        if begins {
            self.losses += 1;
        } else {
            self.losses = self.losses.saturating_sub(1);
        }
        self.whole_from_us = self.calm_from_us;
    }

    /// A fault that may cost availability begins or ends.
    pub(super) fn disturb(&mut self, begins: bool) {
        if begins {
            self.disturbances += 1;
        } else {
            self.disturbances = self.disturbances.saturating_sub(1);
        }
        self.calm_from_us = self.now_us + CALM_AFTER_MS * 1_000;
    }

    /// Whether no fault is under way and nothing is being replaced.
    pub(super) fn is_at_rest(&self) -> bool {
        self.disturbances == 0 && self.leaving.is_empty() && self.surge.is_none() && self.rolling.is_empty()
    }

    /// Lets everything that users have begun come to its end, and users do nothing more.
    pub(super) fn quiet(&mut self) {
        self.stopped = true;
        self.run_until(self.now_us + 6_000_000);
    }
}
