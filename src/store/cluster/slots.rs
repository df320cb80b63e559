//! Sets of slots. Each key is in one of 16384, by a hash of its name (Redis Cluster specification).

use std::ops::RangeInclusive;

use rangemap::RangeInclusiveSet;

/// Number of slots.
pub const COUNT: u16 = 16384;

/// A set of slots, as ranges: a server knows every other one's, and most have few or none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Slots(RangeInclusiveSet<u16>);

impl Slots {
    /// All slots.
    pub fn all() -> Self {
        Self::of([0..=COUNT - 1])
    }

    /// The slots of ranges. What is beyond the last slot is left out.
    pub fn of(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut slots = RangeInclusiveSet::new();
        for range in ranges {
            let (first, last) = (*range.start(), (*range.end()).min(COUNT - 1));
            if first <= last {
                slots.insert(first..=last);
            }
        }
        Self(slots)
    }

    /// Whether one is in it.
    pub fn contains(&self, slot: u16) -> bool {
        self.0.contains(&slot)
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Takes all of another set out.
    pub fn remove(&mut self, other: &Self) {
        for range in other.0.iter() {
            self.0.remove(range.clone());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }

    /// The first ones, as many as are asked for.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self::of(self.iter().take(count).map(|slot| slot..=slot))
    }

    /// As ranges, in order.
    pub fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        self.0.iter().cloned().collect()
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
