//! Sets of slots. Each key is in one of 16384, by a hash of its name (Redis Cluster specification).

use std::ops::RangeInclusive;

/// Number of slots.
pub const COUNT: u16 = 16384;

/// Words of 64 slots.
const WORDS: usize = 256;

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub struct Slots(Box<[u64; WORDS]>);

impl Default for Slots {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl Slots {
    /// All slots.
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// The slots of ranges. What is beyond the last slot is left out.
    pub fn of(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut slots = Self::default();
        for slot in ranges.into_iter().flatten() {
            slots.insert(slot);
        }
        slots
    }

    /// Adds one.
    pub fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Whether one is in it.
    pub fn contains(&self, slot: u16) -> bool {
        let word = self.0.get(usize::from(slot / 64));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word |= other;
        }
    }

    /// Takes all of another set out.
    pub fn remove(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word &= !other;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..COUNT).filter(|slot| self.contains(*slot))
    }

    /// The first ones, as many as are asked for.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self::of(self.iter().take(count).map(|slot| slot..=slot))
    }

    /// As ranges, in order.
    pub fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some(last) if last.end() + 1 == slot => *last = *last.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        ranges
    }
}

impl std::fmt::Display for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, range) in self.ranges().into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The slots of shard `shard` of `shards` when all have as many as the others, but for one.
pub fn share(shard: usize, shards: usize) -> Slots {
    let all = usize::from(COUNT);
    let bound = |shard: usize| all * shard / shards.max(1);
    let slots = (bound(shard)..bound(shard + 1)).filter_map(|slot| u16::try_from(slot).ok());
    Slots::of(slots.map(|slot| slot..=slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_says_what_was_put_into_it() {
        let mut slots = Slots::of([0..=2, 5..=5, 16_380..=20_000]);
        assert_eq!(slots.to_string(), "0-2,5,16380-16383");
        assert_eq!(
            (slots.len(), slots.contains(5), slots.contains(4)),
            (8, true, false)
        );
        slots.remove(&Slots::of([1..=16_381]));
        assert_eq!(slots.to_string(), "0,16382-16383");
        slots.add(&Slots::of([1..=1]));
        assert_eq!(slots.first(2).to_string(), "0-1");
        assert!(Slots::default().is_empty() && Slots::all().len() == usize::from(COUNT));
    }

    #[test]
    fn shares_are_even_and_leave_nothing_out() {
        for shards in [1, 3, 4, 7, 64] {
            let shares: Vec<Slots> = (0..shards).map(|shard| share(shard, shards)).collect();
            let mut all = Slots::default();
            for share in &shares {
                all.add(share);
            }
            assert_eq!(all, Slots::all());
            let sizes = || shares.iter().map(Slots::len);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
    }
}
