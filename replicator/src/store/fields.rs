//! The fields of a hash, a set or a sorted set: each a register of its own.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::nodes::NodeIndex;
use super::slot::allocation_bytes;
use crate::core::Hlc;

/// One field. Without value it is a tombstone.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<[u8]>,
    pub(super) value: Option<Box<[u8]>>,
    pub(super) at: Hlc,
    pub(super) node: NodeIndex,
}

/// Above this many fields a table finds them; below, looking at each is faster and smaller.
const INDEX_ABOVE: usize = 24;

/// All fields of one entry, in order of their first appearance.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) key: Box<[u8]>,
    list: Vec<Field>,
    index: Option<HashTable<u32>>,
    live: usize,
    bytes: usize,
}

impl Fields {
    pub(super) fn new(key: &[u8]) -> Self {
        let bytes = size_of::<Self>() + allocation_bytes(key.len());
        Self {
            key: key.into(),
            bytes,
            ..Self::default()
        }
    }

    /// Fields that have a value.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Bytes taken, allocator overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All fields, tombstones included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.list.iter()
    }

    /// Number of fields, tombstones included.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    fn place(&self, name: &[u8]) -> Option<usize> {
        match &self.index {
            None => self.list.iter().position(|field| &*field.name == name),
            Some(index) => index
                .find(xxh3_64(name), |place| {
                    self.list.get(*place as usize).is_some_and(|f| &*f.name == name)
                })
                .map(|place| *place as usize),
        }
    }

    /// A field, tombstone or not.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Field> {
        self.place(name).and_then(|place| self.list.get(place))
    }

    /// The value of a live field.
    pub(super) fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name)?.value.as_deref()
    }

    /// Writes a field, whatever its present version.
    pub(super) fn put(&mut self, name: &[u8], value: Option<&[u8]>, at: Hlc, node: NodeIndex) {
        let value: Option<Box<[u8]>> = value.map(Into::into);
        self.live += usize::from(value.is_some());
        self.bytes += value.as_ref().map_or(0, |v| allocation_bytes(v.len()));
        if let Some(field) = self.place(name).and_then(|place| self.list.get_mut(place)) {
            self.live -= usize::from(field.value.is_some());
            self.bytes -= field.value.as_ref().map_or(0, |v| allocation_bytes(v.len()));
            *field = Field {
                name: std::mem::take(&mut field.name),
                value,
                at,
                node,
            };
            return;
        }
        self.bytes += size_of::<Field>() + allocation_bytes(name.len());
        self.list.push(Field {
            name: name.into(),
            value,
            at,
            node,
        });
        self.index_last();
    }

    fn index_last(&mut self) {
        let Self { list, index, .. } = self;
        let hash_of = |place: &u32| list.get(*place as usize).map_or(0, |field| xxh3_64(&field.name));
        match index {
            Some(index) => {
                let place = u32::try_from(list.len() - 1).unwrap_or(u32::MAX);
                index.insert_unique(hash_of(&place), place, hash_of);
            }
            None if list.len() > INDEX_ABOVE => {
                let mut table = HashTable::with_capacity(list.len() * 2);
                for place in (0..list.len()).filter_map(|place| u32::try_from(place).ok()) {
                    table.insert_unique(hash_of(&place), place, hash_of);
                }
                *index = Some(table);
            }
            None => {}
        }
    }

    /// Drops tombstones not later than `stable`.
    pub(super) fn purge(&mut self, stable: Hlc) {
        let before = self.list.len();
        let mut freed = 0;
        self.list.retain(|field| {
            let keep = field.value.is_some() || field.at > stable;
            if !keep {
                freed += size_of::<Field>() + allocation_bytes(field.name.len());
            }
            keep
        });
        self.bytes -= freed;
        if self.list.len() != before {
            self.index = None;
            if self.list.len() > INDEX_ABOVE {
                self.index_last();
            }
        }
    }
}
