//! What happens to arguments before a handler sees them: keys get their database, patterns too, and the scores of
//! sorted sets become the eight bytes that are stored. Most requests need none of it and are used where they lie.

use std::ops::Range;

use super::{Spec, is_word};
use crate::front::resp::keyspace;
use crate::front::resp::number::parse_f64;
use crate::front::resp::request::Arguments;

/// Arguments that had to be copied.
#[derive(Debug, Default)]
pub struct Rewritten {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

/// What a command's arguments need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewrite {
    /// Its keys get their database.
    #[default]
    Keys,
    /// The first argument is a pattern of keys.
    Pattern,
    /// The argument behind MATCH is a pattern of keys.
    Match,
    /// ZADD: besides the key, scores before members.
    Scores,
}

impl Rewritten {
    /// The arguments.
    pub fn arguments(&self) -> Arguments<'_> {
        Arguments::new(&self.bytes, &self.ranges)
    }

    /// Takes a request in. The buffers are kept for the next one unless they have become large.
    /// A score that is no number becomes nothing.
    pub fn fill(&mut self, spec: &Spec, database: u8, arguments: &Arguments<'_>) {
        const KEPT: usize = 16 << 10;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.ranges.clear();
        self.ranges.shrink_to(KEPT / size_of::<Range<usize>>());
        let mut keys = spec.key_places(arguments).peekable();
        let scores = match spec.rewrite {
            Rewrite::Scores => score_places(arguments),
            _ => 0..0,
        };
        let mut after_match = false;
        for (place, argument) in arguments.from(0).enumerate() {
            let start = self.bytes.len();
            let is_pattern = match spec.rewrite {
                Rewrite::Pattern => place == 1,
                Rewrite::Match => after_match && place > 2,
                Rewrite::Keys | Rewrite::Scores => false,
            };
            after_match = is_word(argument, "MATCH") && !is_pattern;
            if keys.next_if_eq(&place).is_some() {
                keyspace::encode(database, argument, &mut self.bytes);
            } else if is_pattern {
                keyspace::encode_pattern(database, argument, &mut self.bytes);
            } else if scores.contains(&place) && (place - scores.start).is_multiple_of(2) {
                if let Some(score) = parse_f64(argument) {
                    self.bytes.extend_from_slice(&score.to_le_bytes());
                }
            } else {
                self.bytes.extend_from_slice(argument);
            }
            self.ranges.push(start..self.bytes.len());
        }
    }
}

/// Whether a request can be used where it lies.
pub fn is_unneeded(spec: &Spec, database: u8, arguments: &Arguments<'_>) -> bool {
    match spec.rewrite {
        Rewrite::Scores => false,
        Rewrite::Keys | Rewrite::Pattern | Rewrite::Match => {
            database == 0
                && spec
                    .key_places(arguments)
                    .all(|place| arguments.get(place).is_some_and(|key| keyspace::is_plain(0, key)))
        }
    }
}

/// The part of ZADD's arguments where scores and members alternate: behind the options.
fn score_places(arguments: &Arguments<'_>) -> Range<usize> {
    let options = arguments
        .from(2)
        .take_while(|word| {
            ["NX", "XX", "GT", "LT", "CH", "INCR"]
                .iter()
                .any(|option| is_word(word, option))
        })
        .count();
    2 + options..arguments.len()
}
