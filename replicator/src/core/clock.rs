//! The hybrid logical clock: wall time where clocks agree, causality where they do not.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014). 48 bits of milliseconds and 16 bits of counter in one
//! `u64`, so that comparing two times is comparing two integers.

/// What the outside says the time is. Both readings come in with every input; the core owns no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch, by this machine's clock: what expiry is reckoned in.
    pub wall_ms: u64,
    /// Milliseconds since some fixed point in this process; never goes back: what timeouts are reckoned in.
    pub mono_ms: u64,
}

/// A hybrid logical time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

/// Bits of the counter.
const COUNTER_BITS: u32 = 16;

impl Hlc {
    /// Before every other time.
    pub const ZERO: Self = Self(0);
    /// After every other time.
    pub const MAX: Self = Self(u64::MAX);

    /// The first time of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << COUNTER_BITS)
    }

    /// The millisecond part.
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The time right after this one. A full counter runs over into the milliseconds, which is what order asks for.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The clock of one process.
#[derive(Debug, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A time later than every time this clock has given or seen, and not before `wall_ms`.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_ms(wall_ms));
        self.last
    }

    /// Takes note of a time from elsewhere, so that the next tick exceeds it.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// A time that no later tick will go below and that covers all ticks so far.
    pub fn reading(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.max(Hlc::from_ms(wall_ms));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_grow_even_when_the_wall_clock_stands_or_goes_back() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000);
        let second = clock.tick(1_000);
        let third = clock.tick(10);
        assert!(first < second && second < third);
        assert_eq!(third.ms(), 1_000);
    }

    #[test]
    fn a_seen_time_is_exceeded() {
        let mut clock = Clock::default();
        clock.observe(Hlc::from_ms(5_000));
        assert!(clock.tick(1_000) > Hlc::from_ms(5_000));
    }

    #[test]
    fn a_full_counter_runs_over() {
        let mut clock = Clock {
            last: Hlc(Hlc::from_ms(7).0 | 0xffff),
        };
        assert_eq!(clock.tick(0), Hlc::from_ms(8));
    }
}
