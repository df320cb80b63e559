//! The merge: a join of a lattice, so that members agree in whatever order, and however often, they hear of changes.
//!
//! Higher incarnation wins. Within an incarnation deletion beats everything; values, fields and expiry are registers
//! of their own, each won by the highest version.

#[cfg(test)]
mod tests;

use super::slot::State;
use super::{Content, EntryState, Expiry, SlotId, Store};
use crate::core::{Hlc, Kind};

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merged {
    /// Whether anything is different from before.
    pub changed: bool,
    /// Whether it was only part of an entry that is not known here: the rest has to be asked for.
    pub incomplete: bool,
    /// Whether what came lost against what is here: a conflict, or late news.
    pub lost: bool,
}

impl Store {
    /// Merges what a member says. `stable` is the time up to which everybody knows everything: an older tombstone need
    /// not be kept when there is nothing for it to stop.
    pub fn merge(&mut self, partition: u16, state: &EntryState<'_>, now_ms: u64, stable: Hlc) -> Merged {
        let Some(id) = self.find(state.key) else {
            return self.merge_new(partition, state, now_ms, stable);
        };
        let Some(entry) = self.entry(id) else {
            return Merged::default();
        };
        let (here, dead) = (entry.incarnation(), entry.is_dead());
        match state.incarnation.cmp(&here) {
            std::cmp::Ordering::Less => Merged {
                lost: true,
                ..Merged::default()
            },
            std::cmp::Ordering::Greater => {
                let Some(born) = born_state(&state.content) else {
                    return Merged {
                        incomplete: true,
                        ..Merged::default()
                    };
                };
                self.renew(id.0, born, state.incarnation);
                self.fill(id, state)
            }
            std::cmp::Ordering::Equal if dead => {
                if let Content::Dead { version, redirect } = &state.content
                    && self.entry(id).is_some_and(|entry| entry.version() < *version)
                {
                    self.kill(id, *version, redirect);
                    return Merged {
                        changed: true,
                        ..Merged::default()
                    };
                }
                Merged {
                    lost: !matches!(state.content, Content::Dead { .. }),
                    ..Merged::default()
                }
            }
            std::cmp::Ordering::Equal => self.merge_same(id, state),
        }
    }

    fn merge_new(&mut self, partition: u16, state: &EntryState<'_>, now_ms: u64, stable: Hlc) -> Merged {
        if let Content::Dead { version, .. } = &state.content
            && version.at <= stable
        {
            return Merged {
                lost: true,
                ..Merged::default()
            };
        }
        if state.expiry.is_some_and(|expiry| is_over(expiry, now_ms)) {
            return Merged {
                lost: true,
                ..Merged::default()
            };
        }
        let Some(born) = born_state(&state.content) else {
            return Merged {
                incomplete: true,
                ..Merged::default()
            };
        };
        let id = SlotId(self.insert(state.key, partition, born, state.incarnation));
        self.fill(id, state)
    }

    /// Fills an entry that has just been made.
    fn fill(&mut self, id: SlotId, state: &EntryState<'_>) -> Merged {
        let mut incomplete = state.expiry.is_none();
        match &state.content {
            Content::Unsaid => incomplete = true,
            Content::Dead { version, redirect } => {
                self.kill(id, *version, redirect);
                return Merged {
                    changed: true,
                    ..Merged::default()
                };
            }
            Content::Value {
                version,
                flags,
                value,
            } => self.set_value(id, value, *flags, *version),
            Content::Fields { fields, whole, .. } => {
                incomplete |= !whole;
                for field in fields {
                    self.put_field(id, field.name, field.value, field.version);
                }
            }
        }
        if let Some(expiry) = state.expiry {
            self.set_expiry(id, expiry);
        }
        Merged {
            changed: true,
            incomplete,
            lost: false,
        }
    }

    /// Merges into a living entry of the same incarnation.
    fn merge_same(&mut self, id: SlotId, state: &EntryState<'_>) -> Merged {
        let mut merged = Merged::default();
        let Some(entry) = self.entry(id) else {
            return merged;
        };
        let (kind, present, expiry) = (entry.kind(), entry.version(), entry.expiry());
        match &state.content {
            Content::Unsaid => {}
            Content::Dead { version, redirect } => {
                self.kill(id, *version, redirect);
                return Merged {
                    changed: true,
                    ..merged
                };
            }
            Content::Value {
                version,
                flags,
                value,
            } if kind == Some(Kind::String) => {
                if *version > present {
                    self.set_value(id, value, *flags, *version);
                    merged.changed = true;
                } else {
                    merged.lost = *version < present;
                }
            }
            Content::Fields {
                kind: theirs, fields, ..
            } if kind == Some(*theirs) => {
                for field in fields {
                    if self
                        .field_version(id, field.name)
                        .is_none_or(|version| version < field.version)
                    {
                        self.put_field(id, field.name, field.value, field.version);
                        merged.changed = true;
                    }
                }
            }
            // One incarnation has one type, given at its creation: two types in one are two creations with one
            // version, which no member makes.
            Content::Value { .. } | Content::Fields { .. } => merged.lost = true,
        }
        if let Some(theirs) = state.expiry
            && theirs.version > expiry.version
        {
            self.set_expiry(id, theirs);
            merged.changed = true;
        }
        merged
    }

    fn field_version(&self, id: SlotId, name: &[u8]) -> Option<crate::core::Version> {
        let field = self.slots.get(id.0)?.fields()?.get(name)?;
        Some(self.version(field.at, field.node))
    }
}

/// The state in which an entry with this content is born; `None` when the content does not tell.
fn born_state(content: &Content<'_>) -> Option<State> {
    match content {
        Content::Unsaid => None,
        Content::Dead { .. } => Some(State::Dead),
        Content::Value { flags: 0, .. } => Some(State::String),
        Content::Value { .. } => Some(State::Item),
        Content::Fields { kind, .. } => Some(State::of_kind(*kind)),
    }
}

/// Whether an entry with this expiry has ended for everybody.
fn is_over(expiry: Expiry, now_ms: u64) -> bool {
    let ttl = expiry.at_ms.saturating_sub(expiry.version.at.ms());
    expiry.at_ms != 0 && now_ms >= expiry.at_ms + super::sweep::keep_ms(ttl)
}
