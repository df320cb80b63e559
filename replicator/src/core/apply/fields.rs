//! Writes of fields: hashes, sets, sorted sets.

use bytes::Bytes;

use super::{Apply, Outcome, Target, What};
use crate::core::command::{CommandError, Kind, Reply};
use crate::core::numbers::{format_float, parse_float, parse_int, score, score_bytes};
use crate::core::read::length;

impl Apply<'_> {
    pub(super) fn put_fields(&mut self, kind: Kind, fields: &[(&[u8], &[u8])], only_absent: bool) -> Outcome {
        let size: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.check_size(size)?;
        let entry = self.live_of(kind)?;
        let is_new = |name: &[u8]| entry.is_none_or(|entry| entry.field(name).is_none());
        let mut fresh: Vec<&[u8]> = fields
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| is_new(name))
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        let added = length(fresh.len());
        let differs = |name: &[u8], value: &[u8]| entry.and_then(|entry| entry.field(name)) != Some(value);
        if !only_absent && self.is_dead_since() {
            self.confirm();
            return Ok(Reply::Int(added));
        }
        let stands = |name: &[u8]| entry.is_some_and(|entry| self.is_overtaken_by(entry.field_at(name)));
        let overtaken = !only_absent && fields.iter().any(|(name, _)| stands(name));
        let wanted: Vec<_> = fields
            .iter()
            .filter(|(name, value)| {
                if only_absent {
                    is_new(name)
                } else {
                    differs(name, value) && !stands(name)
                }
            })
            .copied()
            .collect();
        if overtaken {
            self.confirm();
        }
        if wanted.is_empty() {
            return Ok(Reply::Int(added));
        }
        let Some(target) = self.target(kind, false) else {
            return Ok(Reply::Int(added));
        };
        let mut version = target.version;
        for (name, value) in wanted {
            self.store.put_field(target.id, name, Some(value), version);
            // Two values for one field in one command: the later one has to win everywhere.
            version.at = self.clock.tick(self.now.wall_ms);
        }
        self.fields_changed(target);
        Ok(Reply::Int(added))
    }

    /// Whether the entry was deleted after the command was given.
    fn is_dead_since(&self) -> bool {
        let dead = self.entry().filter(|entry| entry.is_dead());
        dead.is_some_and(|entry| self.is_overtaken_by(entry.version().at))
    }

    fn fields_changed(&mut self, target: Target) {
        if !target.created {
            self.store.revisit(target.id);
        }
        let what = if target.created { What::Whole } else { What::Fields };
        self.changed(target.id, what, target.version.at);
    }

    pub(super) fn remove_fields(&mut self, kind: Kind, fields: &[&[u8]]) -> Outcome {
        let Some(entry) = self.live_of(kind)? else {
            return Ok(Reply::Int(0));
        };
        let mut there: Vec<&[u8]> = fields
            .iter()
            .filter(|name| entry.field(name).is_some() && !self.is_overtaken_by(entry.field_at(name)))
            .copied()
            .collect();
        there.sort_unstable();
        there.dedup();
        if !there.is_empty()
            && let Some(target) = self.target(kind, false)
        {
            for name in &there {
                self.store.put_field(target.id, name, None, target.version);
            }
            self.fields_changed(target);
        }
        Ok(Reply::Int(length(there.len())))
    }

    pub(super) fn increment_field(&mut self, field: &[u8], by: i64) -> Outcome {
        let present = match self.live_of(Kind::Hash)?.and_then(|entry| entry.field(field)) {
            Some(value) => parse_int(value).ok_or(CommandError::FieldNotInteger)?,
            None => 0,
        };
        let sum = present.checked_add(by).ok_or(CommandError::Overflow)?;
        self.put_fields(Kind::Hash, &[(field, sum.to_string().as_bytes())], false)?;
        Ok(Reply::Int(sum))
    }

    pub(super) fn increment_field_float(&mut self, kind: Kind, field: &[u8], by: f64) -> Outcome {
        let present = match self.live_of(kind)?.and_then(|entry| entry.field(field)) {
            Some(value) if kind == Kind::SortedSet => score(value),
            Some(value) => parse_float(value).ok_or(CommandError::FieldNotFloat)?,
            None => 0.0,
        };
        let sum = present + by;
        if sum.is_nan() || (kind != Kind::SortedSet && sum.is_infinite()) {
            return Err(CommandError::NotFinite);
        }
        let text = format_float(sum);
        let score = score_bytes(sum);
        let value = if kind == Kind::SortedSet {
            score.as_slice()
        } else {
            text.as_bytes()
        };
        self.put_fields(kind, &[(field, value)], false)?;
        Ok(Reply::Bytes(Bytes::from(text)))
    }
}
