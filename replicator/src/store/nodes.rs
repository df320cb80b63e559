//! Node ids as two bytes: an entry names up to three nodes, and a random id has eight bytes.

use std::collections::HashMap;

use crate::core::NodeId;

/// A node's place in the [`NodeTable`].
pub(super) type NodeIndex = u16;

/// The ids that entries refer to. A place is given back only by [`NodeTable::keep_only`].
#[derive(Debug, Default)]
pub(super) struct NodeTable {
    ids: Vec<NodeId>,
    places: HashMap<NodeId, NodeIndex>,
    free: Vec<NodeIndex>,
}

/// When this many ids are known, the store looks which are still in use.
const RECLAIM_AT: usize = 60_000;

impl NodeTable {
    /// The place of an id, made when it is new. `None` when all places are taken.
    pub(super) fn intern(&mut self, id: NodeId) -> Option<NodeIndex> {
        if let Some(&place) = self.places.get(&id) {
            return Some(place);
        }
        let place = if let Some(place) = self.free.pop() {
            if let Some(slot) = self.ids.get_mut(usize::from(place)) {
                *slot = id;
            }
            place
        } else {
            let place = NodeIndex::try_from(self.ids.len()).ok()?;
            self.ids.push(id);
            place
        };
        self.places.insert(id, place);
        Some(place)
    }

    /// The id at a place.
    pub(super) fn id(&self, place: NodeIndex) -> NodeId {
        self.ids.get(usize::from(place)).copied().unwrap_or_default()
    }

    /// Whether it is time for [`NodeTable::keep_only`].
    pub(super) fn is_nearly_full(&self) -> bool {
        self.places.len() >= RECLAIM_AT
    }

    /// Forgets the ids at places that `used` does not mark.
    pub(super) fn keep_only(&mut self, used: &[bool]) {
        let free = &mut self.free;
        self.places.retain(|_, place| {
            let keep = used.get(usize::from(*place)).copied().unwrap_or(false);
            if !keep {
                free.push(*place);
            }
            keep
        });
    }
}
