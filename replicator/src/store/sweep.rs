//! Removal: of expired entries in time, of tombstones when nobody needs them.

use super::slot::{Slot, State, touch_slack_ms};
use super::{SlotId, Store};
use crate::core::Hlc;

/// How far the clocks of two members may be apart, milliseconds: an expired entry is kept as much longer.
const CLOCK_SKEW_MS: u64 = 1_000;

/// How long an expired entry is kept for news of a touch.
pub(super) fn keep_ms(ttl_ms: u64) -> u64 {
    touch_slack_ms(ttl_ms) + CLOCK_SKEW_MS
}

/// What a sweep removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys of entries that expired and that clients could see until then.
    pub expired: Vec<Box<[u8]>>,
    /// Number of tombstones dropped.
    pub tombstones: usize,
}

impl Store {
    /// When [`Store::sweep`] may find something, milliseconds since the epoch.
    pub fn next_sweep_ms(&self) -> u64 {
        self.slots.next_due_ms()
    }

    /// Removes what has expired.
    pub fn sweep(&mut self, now_ms: u64) -> Swept {
        let mut swept = Swept::default();
        for id in self.slots.take_due(now_ms) {
            let Some(slot) = self.slots.get(id) else { continue };
            if matches!(slot.state, State::Free | State::Dead)
                || (slot.is_unlimited() && self.unlimited_ttl_ms == 0)
            {
                continue;
            }
            let gone_at = if slot.is_unlimited() {
                slot.version_at.max(slot.expiry_at).ms() + self.unlimited_ttl_ms
            } else {
                gone_at_ms(slot)
            };
            if gone_at <= now_ms {
                swept.expired.push(slot.key().into());
                self.remove(SlotId(id));
            } else {
                self.slots.wake(id, gone_at);
            }
        }
        swept
    }

    /// Drops tombstones, of entries and of fields, that were made not later than `stable`.
    pub fn release_tombstones(&mut self, stable: Hlc) -> usize {
        let mut dropped = 0;
        for id in 0..self.slots.end() {
            let Some(slot) = self.slots.get(id) else { continue };
            match slot.state {
                State::Dead if slot.version_at <= stable => {
                    self.remove(SlotId(id));
                    dropped += 1;
                }
                State::Hash | State::Set | State::SortedSet => {
                    let Some(fields) = slot.fields() else { continue };
                    if fields.live() < fields.len() {
                        let empty = fields.live() == 0;
                        self.purge_fields(id, stable);
                        if empty
                            && self
                                .slots
                                .get(id)
                                .and_then(Slot::fields)
                                .is_some_and(|f| f.len() == 0)
                        {
                            self.remove(SlotId(id));
                        }
                    }
                }
                _ => {}
            }
        }
        dropped
    }
}

/// When an entry is of no use to anybody.
fn gone_at_ms(slot: &Slot) -> u64 {
    let ttl = slot.expire_ms.saturating_sub(slot.expiry_at.ms());
    slot.expire_ms + u64::from(slot.extension_ms) + keep_ms(ttl)
}
