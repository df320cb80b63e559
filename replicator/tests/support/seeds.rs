//! Seeds for fuzzers, made from the captures.

use session_replicator::fuzzing;

use super::transcript::{Protocol, requests};

/// In which pieces the input arrives: the first byte of what `fuzzing::resp` and `fuzzing::memcached` take.
const PIECES: [u8; 3] = [1, 7, 255];

fn cut(all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    all.into_iter()
        .enumerate()
        .map(|(number, sent)| [&[PIECES[number % PIECES.len()]], sent.as_slice()].concat())
        .collect()
}

/// What Redis clients send.
pub fn resp() -> Vec<Vec<u8>> {
    cut(requests(include_str!("../fixtures/resp.log"), Protocol::Resp))
}

/// What memcached clients send.
pub fn memcached() -> Vec<Vec<u8>> {
    cut(requests(
        include_str!("../fixtures/memcached.log"),
        Protocol::Memcached,
    ))
}

/// What a peer says while clients send what is in the captures.
pub fn peer() -> Vec<Vec<u8>> {
    resp()
        .iter()
        .map(|sent| fuzzing::conversation(&sent[1..]))
        .collect()
}
