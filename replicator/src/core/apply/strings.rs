//! Writes of strings.

use bytes::Bytes;

use super::{Apply, Outcome, Target, What};
use crate::core::command::{CommandError, Condition, Kind, Op, Reply, SetExpiry};
use crate::core::numbers::{format_float, parse_float, parse_int};
use crate::core::read::{self, length};
use crate::store::{Entry, Expiry};

impl Apply<'_> {
    pub(super) fn set(
        &mut self,
        value: &[u8],
        flags: u32,
        expiry: SetExpiry,
        condition: Condition<'_>,
        want_old: bool,
    ) -> Outcome {
        self.check_size(value.len())?;
        let old = if want_old {
            Some(read::answer(self.live_string()?, &Op::Get, self.now.wall_ms))
        } else {
            None
        };
        if let Some(refusal) = self.refused(condition)? {
            return Ok(old.unwrap_or(refusal));
        }
        let written = self.entry().map(|entry| entry.version().at);
        if matches!(condition, Condition::Always | Condition::Present)
            && written.is_some_and(|at| self.is_overtaken_by(at))
        {
            self.confirm();
            return Ok(old.unwrap_or(Reply::Ok));
        }
        if matches!(expiry, SetExpiry::At(at_ms) if at_ms <= self.now.wall_ms) {
            self.kill();
            return Ok(old.unwrap_or(Reply::Ok));
        }
        self.write_value(value, flags, expiry, condition == Condition::Absent);
        Ok(old.unwrap_or(Reply::Ok))
    }

    fn write_value(&mut self, value: &[u8], flags: u32, expiry: SetExpiry, create: bool) {
        let unchanged = self.live().is_some_and(|entry| {
            entry.kind() == Some(Kind::String) && entry.value() == value && entry.flags() == flags
        });
        // KEEPTTL holds also where a value of another kind begins a new incarnation.
        let kept = self.live().and_then(Entry::expires_ms);
        let Some(target) = self.target(Kind::String, create) else {
            return;
        };
        let Target { id, created, version } = target;
        if unchanged && !created {
            // The others have the value already: only the life is news, if at all.
            match expiry {
                SetExpiry::Keep => {}
                SetExpiry::Never => {
                    self.set_expiry(id, 0, version);
                }
                SetExpiry::At(at_ms) => self.touch(id, at_ms, version),
            }
            return;
        }
        self.store.set_value(id, value, flags, version);
        if !created {
            self.store.revisit(id);
        }
        let at_ms = match expiry {
            SetExpiry::Keep => kept.filter(|_| created),
            SetExpiry::Never => Some(self.never()),
            SetExpiry::At(at_ms) => Some(self.cap(at_ms)),
        };
        if let Some(at_ms) = at_ms {
            self.store.set_expiry(id, Expiry { at_ms, version });
        }
        self.changed(id, What::Whole, version.at);
    }

    pub(super) fn append(&mut self, value: &[u8], in_front: bool, create: bool) -> Outcome {
        let Some(entry) = self.live_string()? else {
            if !create {
                return Ok(Reply::Nil);
            }
            self.check_size(value.len())?;
            self.write_value(value, 0, SetExpiry::Never, false);
            return Ok(Reply::Int(length(value.len())));
        };
        let (flags, old) = (entry.flags(), entry.value());
        let joined = if in_front {
            [value, old].concat()
        } else {
            [old, value].concat()
        };
        self.check_size(joined.len())?;
        self.write_value(&joined, flags, SetExpiry::Keep, false);
        Ok(Reply::Int(length(joined.len())))
    }

    pub(super) fn increment(&mut self, by: i64) -> Outcome {
        let present = match self.live_string()? {
            Some(entry) => parse_int(entry.value()).ok_or(CommandError::NotInteger)?,
            None => 0,
        };
        let sum = present.checked_add(by).ok_or(CommandError::Overflow)?;
        let expiry = if self.live().is_some() {
            SetExpiry::Keep
        } else {
            SetExpiry::Never
        };
        self.write_value(sum.to_string().as_bytes(), 0, expiry, false);
        Ok(Reply::Int(sum))
    }

    pub(super) fn increment_float(&mut self, by: f64) -> Outcome {
        let present = match self.live_string()? {
            Some(entry) => parse_float(entry.value()).ok_or(CommandError::NotFloat)?,
            None => 0.0,
        };
        let sum = present + by;
        if !sum.is_finite() {
            return Err(CommandError::NotFinite);
        }
        let expiry = if self.live().is_some() {
            SetExpiry::Keep
        } else {
            SetExpiry::Never
        };
        let text = format_float(sum);
        self.write_value(text.as_bytes(), 0, expiry, false);
        Ok(Reply::Bytes(Bytes::from(text)))
    }

    pub(super) fn counter(&mut self, by: u64, down: bool, initial: Option<(u64, SetExpiry)>) -> Outcome {
        let Some(entry) = self.live_string()? else {
            let Some((value, expiry)) = initial else {
                return Ok(Reply::Nil);
            };
            self.write_value(value.to_string().as_bytes(), 0, expiry, true);
            return Ok(Reply::Int(value.cast_signed()));
        };
        let flags = entry.flags();
        let text = std::str::from_utf8(entry.value()).map_err(|_| CommandError::NotInteger)?;
        let present: u64 = text.trim_end().parse().map_err(|_| CommandError::NotInteger)?;
        let value = if down {
            present.saturating_sub(by)
        } else {
            present.wrapping_add(by)
        };
        self.write_value(value.to_string().as_bytes(), flags, SetExpiry::Keep, false);
        Ok(Reply::Int(value.cast_signed()))
    }
}
