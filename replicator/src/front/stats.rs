//! What the front counts.

use std::collections::BTreeMap;

/// Upper bounds of the latency buckets, seconds.
pub const LATENCY_BUCKETS: [f64; 12] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0,
];

/// A histogram with fixed buckets.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// Observations per bucket, those above the last bound at the end; not cumulated.
    pub counts: [u64; LATENCY_BUCKETS.len() + 1],
    /// Sum of all observations, seconds.
    pub sum: f64,
}

impl Histogram {
    /// Counts `times` observations of the same value.
    pub fn observe(&mut self, seconds: f64, times: u64) {
        let bucket = LATENCY_BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(LATENCY_BUCKETS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += times;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of seconds is an estimate anyway"
        )]
        let times = times as f64;
        self.sum += seconds * times;
    }
}

/// Counters of the front. Single-threaded, so plain numbers.
#[derive(Debug, Default)]
pub struct Stats {
    /// Calls per command, in the order of the command table.
    pub commands: Vec<u64>,
    /// memcached commands by name.
    pub memcached: BTreeMap<&'static str, u64>,
    /// Error replies by their first word.
    pub errors: BTreeMap<&'static str, u64>,
    /// Commands of Redis and memcached that are not spoken here, by name. Names nobody knows count as `other`.
    pub unsupported: BTreeMap<&'static str, u64>,
    /// Input that was no RESP or memcached protocol.
    pub protocol_errors: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections turned away at the limit.
    pub connections_refused: u64,
    /// Connections ended for being idle.
    pub connections_idle: u64,
    /// Connections ended because they did not read their replies.
    pub connections_overflowed: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Look-ups that found a value.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// From reading a request to handing its reply to the kernel.
    pub latency: Histogram,
    /// The same for commands that waited for other members.
    pub latency_remote: Histogram,
}

impl Stats {
    /// Counts a command that is not spoken here.
    pub fn count_unsupported(&mut self, name: &'static str) {
        *self.unsupported.entry(name).or_default() += 1;
    }

    /// Counts an error reply by its first word, if that is one of ours.
    pub fn count_error(&mut self, text: &[u8]) {
        const WORDS: [&str; 16] = [
            "ERR",
            "WRONGTYPE",
            "NOAUTH",
            "WRONGPASS",
            "NOSCRIPT",
            "OOM",
            "NOREPLICAS",
            "TRYAGAIN",
            "LOADING",
            "CROSSSLOT",
            "EXECABORT",
            "NOPROTO",
            "UNAVAILABLE",
            "NOPERM",
            "BUSY",
            "READONLY",
        ];
        let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let word = WORDS
            .into_iter()
            .find(|known| known.as_bytes() == word)
            .unwrap_or("other");
        *self.errors.entry(word).or_default() += 1;
    }

    /// All commands together.
    pub fn total_commands(&self) -> u64 {
        self.commands.iter().sum::<u64>() + self.memcached.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_bucket_that_holds_them() {
        let mut histogram = Histogram::default();
        histogram.observe(0.000_01, 2);
        histogram.observe(0.000_011, 1);
        histogram.observe(7.0, 1);
        assert_eq!(histogram.counts.first(), Some(&2));
        assert_eq!(histogram.counts.get(1), Some(&1));
        assert_eq!(histogram.counts.last(), Some(&1));
    }

    #[test]
    fn words_of_others_do_not_make_new_series() {
        let mut stats = Stats::default();
        stats.count_error(b"ERR syntax error");
        stats.count_error(b"FOO bar");
        assert_eq!(
            stats.errors.iter().collect::<Vec<_>>(),
            [(&"ERR", &1), (&"other", &1)]
        );
    }
}
