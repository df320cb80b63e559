//! What has to hold for any input (`session_replicator::fuzzing`), tried with the captures and thousands of mutations of
//! them. The same properties are fuzzed for longer by `fuzz/run`.
//!
//! A failing run prints its input; `MUTATIONS` makes it longer, `MUTATIONS_SEED` makes it another one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

use std::panic::catch_unwind;

use session_replicator::fuzzing;
use support::number_from;
use support::random::Random;
use support::seeds;

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let length = random.below(16);
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => {
                input[at] = random.of(&[0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-', b'\r', b'\n', b'$', b'*']);
            }
            2 => drop(input.drain(at..(at + length).min(input.len()))),
            3 => {
                let again = input[at..(at + length).min(input.len())].to_vec();
                drop(input.splice(at..at, again));
            }
            4 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                drop(input.splice(at..at, other[from..(from + length * 8).min(other.len())].to_vec()));
            }
            5 => {
                let number = random.of(&[
                    "-1",
                    "0",
                    "4294967295",
                    "9223372036854775807",
                    "99999999999999999999",
                ]);
                drop(input.splice(at..at, number.bytes()));
            }
            _ => input.truncate(at),
        }
    }
}

fn try_mutations(seeds: &[Vec<u8>], property: fn(&[u8])) {
    let mut random = Random::new(number_from("MUTATIONS_SEED", 1));
    let count = usize::try_from(number_from("MUTATIONS", 20_000)).unwrap();
    assert!(seeds.len() >= 10 || count == 0, "{} seeds", seeds.len());
    let mutated = (0..count).map(|_| {
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut input, seeds, &mut random);
        input
    });
    for input in seeds.iter().cloned().chain(mutated) {
        let outcome = catch_unwind(|| property(&input));
        assert!(
            outcome.is_ok(),
            "the property does not hold for b\"{}\"",
            input.escape_ascii()
        );
    }
}

#[test]
fn resp() {
    try_mutations(&seeds::resp(), fuzzing::resp);
}

#[test]
fn memcached() {
    try_mutations(&seeds::memcached(), fuzzing::memcached);
}

#[test]
fn peer() {
    try_mutations(&seeds::peer(), fuzzing::peer);
}
