//! What the core remembers of a client connection: which incarnations it has read.
//!
//! A request reads a session, works, and writes it back. If somebody logged out meanwhile, the write belongs to an
//! incarnation that is gone, and must not bring it back. The protocol does not say what a write was based on; the last
//! read over the same connection does.

use super::version::{Incarnation, Version};

/// Reads remembered for a connection. A pool that runs more requests at once than this over one connection is guarded
/// by the tombstone alone.
const MARKS: usize = 32;

/// One connection of an application. The front keeps one per connection and hands it in with every command.
#[derive(Debug)]
pub struct Client {
    marks: Vec<Mark>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    key: u64,
    incarnation: Incarnation,
}

/// What a write is based on, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nobody here has read the key lately.
    Unknown,
    /// The last read found that there is nothing.
    Nothing,
    /// The connection's last read of the key found this incarnation.
    Read(Incarnation),
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A connection that has read nothing yet. Allocates at the first read.
    pub const fn new() -> Self {
        Self {
            marks: Vec::new(),
            next: 0,
        }
    }

    /// What a write of the key (by its hash) is based on.
    pub(super) fn base(&self, key: u64) -> Base {
        let found = self
            .marks
            .iter()
            .find(|mark| mark.key == key)
            .map(|mark| mark.incarnation);
        match found {
            None => Base::Unknown,
            Some(Version::ZERO) => Base::Nothing,
            Some(incarnation) => Base::Read(incarnation),
        }
    }

    /// Notes what a read of the key found; [`Version::ZERO`] for nothing.
    pub(super) fn note(&mut self, key: u64, incarnation: Incarnation) {
        if let Some(mark) = self.marks.iter_mut().find(|mark| mark.key == key) {
            mark.incarnation = incarnation;
            return;
        }
        let mark = Mark { key, incarnation };
        if self.marks.len() < MARKS {
            self.marks.push(mark);
        } else if let Some(oldest) = self.marks.get_mut(self.next) {
            *oldest = mark;
            self.next = (self.next + 1) % MARKS;
        }
    }

    /// Notes what a delayed reply tells about a read. Call it with every completed ticket of this connection.
    pub fn observe(&mut self, observed: &Observed) {
        self.note(observed.key, observed.incarnation);
    }
}

/// What a read found, for [`Client::observe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The key's hash.
    pub key: u64,
    /// What was found; [`Version::ZERO`] for nothing.
    pub incarnation: Incarnation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Hlc, NodeId};

    fn at(ms: u64) -> Incarnation {
        Version {
            at: Hlc::from_ms(ms),
            node: NodeId(1),
        }
    }

    #[test]
    fn the_last_read_counts() {
        let mut client = Client::new();
        assert_eq!(client.base(7), Base::Unknown);
        client.note(7, at(1));
        assert_eq!(client.base(7), Base::Read(at(1)));
        client.note(7, Version::ZERO);
        assert_eq!(client.base(7), Base::Nothing);
    }

    #[test]
    fn memory_is_bounded() {
        let mut client = Client::new();
        for key in 0..10_000 {
            client.note(key, at(key + 1));
        }
        assert_eq!(client.marks.len(), MARKS);
        assert_eq!(client.base(9_999), Base::Read(at(10_000)));
    }
}
