//! Slots in chunks: growth never copies and never takes more than it uses, and a chunk knows when the next of its
//! entries wants attention.

use super::slot::{Slot, State};

/// Slots in a chunk.
const CHUNK: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Slot>>,
    /// Per chunk: not after the earliest time at which one of its entries can go.
    due_ms: Vec<u64>,
    free: Vec<u32>,
    used: usize,
}

impl Slab {
    pub(super) fn get(&self, id: u32) -> Option<&Slot> {
        let id = id as usize;
        self.chunks.get(id / CHUNK)?.get(id % CHUNK)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Slot> {
        let id = id as usize;
        self.chunks.get_mut(id / CHUNK)?.get_mut(id % CHUNK)
    }

    /// Puts a slot somewhere.
    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        self.used += 1;
        if let Some(id) = self.free.pop() {
            if let Some(place) = self.get_mut(id) {
                *place = slot;
            }
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it is needed: a sidecar at rest should be small.
            self.chunks.push(if self.chunks.is_empty() {
                Vec::new()
            } else {
                Vec::with_capacity(CHUNK)
            });
            self.due_ms.push(u64::MAX);
        }
        let chunks = self.chunks.len();
        let Some(chunk) = self.chunks.last_mut() else {
            return u32::MAX;
        };
        chunk.push(slot);
        u32::try_from((chunks - 1) * CHUNK + chunk.len() - 1).unwrap_or(u32::MAX)
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, id: u32) -> Option<Slot> {
        let slot = std::mem::replace(self.get_mut(id)?, Slot::free());
        if slot.state == State::Free {
            return None;
        }
        self.free.push(id);
        self.used -= 1;
        Some(slot)
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// One more than the highest id ever given.
    pub(super) fn end(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).unwrap_or(u32::MAX)
    }

    /// Slots in use, from an id on.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &Slot)> {
        (from..self.end())
            .filter_map(|id| Some((id, self.get(id)?)))
            .filter(|(_, slot)| slot.state != State::Free)
    }

    /// Says that an entry may want attention at `at_ms`.
    pub(super) fn wake(&mut self, id: u32, at_ms: u64) {
        if let Some(due) = self.due_ms.get_mut(id as usize / CHUNK) {
            *due = (*due).min(at_ms);
        }
    }

    /// Ids of the slots in chunks that are due; the chunks are then due again only when [`Slab::wake`] says so.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<u32> {
        let mut ids = Vec::new();
        for (number, (due, chunk)) in self.due_ms.iter_mut().zip(&self.chunks).enumerate() {
            if *due <= now_ms {
                *due = u64::MAX;
                let first = number * CHUNK;
                ids.extend((first..first + chunk.len()).filter_map(|id| u32::try_from(id).ok()));
            }
        }
        ids
    }

    /// When the next chunk is due.
    pub(super) fn next_due_ms(&self) -> u64 {
        self.due_ms.iter().copied().min().unwrap_or(u64::MAX)
    }
}
