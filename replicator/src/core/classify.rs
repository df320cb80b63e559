//! What a command touches.

use super::command::{Command, Op};

impl<'a> Command<'a> {
    /// The key whose home decides; `None` for what concerns all.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Key { key, .. } => Some(key),
            Self::Rename { from, .. } => Some(from),
            Self::Transaction { watches, steps } => steps
                .first()
                .map(|(key, _)| *key)
                .or_else(|| watches.first().map(|(key, _)| *key)),
            Self::Keys { .. } | Self::Scan { .. } | Self::Count => None,
        }
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<&'a [u8]> {
        match self {
            Self::Key { key, .. } => vec![key],
            Self::Rename { from, to, .. } => vec![from, to],
            Self::Transaction { watches, steps } => steps
                .iter()
                .map(|(key, _)| *key)
                .chain(watches.iter().map(|(key, _)| *key))
                .collect(),
            Self::Keys { .. } | Self::Scan { .. } | Self::Count => Vec::new(),
        }
    }

    /// Whether it leaves the store as it is.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Key { op, .. } => op.is_read(),
            Self::Rename { .. } | Self::Transaction { .. } => false,
            Self::Keys { .. } | Self::Scan { .. } | Self::Count => true,
        }
    }

    /// Whether it may need memory.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Key { op, .. } => op.grows(),
            Self::Transaction { steps, .. } => steps.iter().any(|(_, op)| op.grows()),
            _ => false,
        }
    }
}

impl Op<'_> {
    fn grows(&self) -> bool {
        matches!(
            self,
            Self::Set { .. }
                | Self::Append { .. }
                | Self::Increment { .. }
                | Self::IncrementFloat { .. }
                | Self::Counter { .. }
                | Self::PutFields { .. }
                | Self::IncrementField { .. }
                | Self::IncrementFieldFloat { .. }
                | Self::Restore { .. }
        )
    }
}
