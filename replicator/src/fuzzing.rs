//! What has to hold for any bytes that a client or a peer may send. Fuzzers (`fuzz/`) and a bounded test with mutated
//! captures (`tests/mutations.rs`) call the same functions.
//!
//! A property that does not hold ends the process by a panic: that is how fuzzers are told.
#![allow(clippy::panic, reason = "a panic is the finding")]

use std::collections::BTreeSet;

use crate::core::{Input, LinkId, Output};
use crate::front::resp::request::Limits;
use crate::front::server::Settings;
use crate::front::testing::Harness;

/// Bytes of replies that one byte of a request may cause: INFO, COMMAND and the like answer at length.
const REPLY_PER_BYTE: usize = 16_384;
/// Bytes that sessions may take per byte received: an entry of an empty value costs its headers.
const MEMORY_PER_BYTE: usize = 256;
/// The link in these conversations.
const LINK: LinkId = LinkId(1);
/// Bytes of the length in front of a peer's frame.
const LENGTH: usize = 4;
/// A member's tick while nothing else happens, milliseconds.
const TICK_MS: u64 = 50;

fn settings() -> Settings {
    Settings {
        limits: Limits {
            argument: 4 << 10,
            request: 16 << 10,
            arguments: 256,
        },
        ..Settings::default()
    }
}

fn check_front(data: &[u8], answer: impl Fn(&mut Harness, &[u8], usize) -> Vec<u8>) {
    // The first byte says in which pieces the rest arrives.
    let Some((step, input)) = data.split_first() else {
        return;
    };
    let mut whole = Harness::new(settings());
    let replies = answer(&mut whole, input, usize::MAX);
    let mut pieces = Harness::new(settings());
    let piecewise = answer(&mut pieces, input, usize::from(*step));
    assert!(
        replies == piecewise,
        "replies depend on how the input is cut into pieces of {step}: {} and {}",
        replies.escape_ascii(),
        piecewise.escape_ascii()
    );
    let length = input.len() + 1;
    assert!(
        replies.len() <= length * REPLY_PER_BYTE,
        "{} bytes of replies to {length}",
        replies.len()
    );
    let used = whole.core().stats().used_bytes;
    assert!(
        used <= length * MEMORY_PER_BYTE,
        "{used} bytes of memory for {length} received"
    );
    assert_eq!(whole.resp(b"PING\r\n"), b"+PONG\r\n", "others are served on");
}

/// A RESP client: replies do not depend on how its bytes are cut into pieces, and cost bounded memory.
pub fn resp(data: &[u8]) {
    check_front(data, |harness, input, step| {
        let mut connection = harness.connect();
        harness.feed(&mut connection, input, step)
    });
}

/// A memcached client, likewise.
pub fn memcached(data: &[u8]) {
    check_front(data, Harness::memcached_in_pieces);
}

/// A peer: whatever its frames say, the member goes on, and answers its own clients if it did before.
///
/// # Panics
/// When that does not hold.
pub fn peer(data: &[u8]) {
    let mut member = Harness::member(settings(), 1);
    member.step(&Input::Discovered {
        addresses: &BTreeSet::from(["127.0.0.1:1".to_owned()]),
    });
    member.step(&Input::LinkUp {
        link: LINK,
        dialled: false,
    });
    let mut rest = data;
    while let Some((length, more)) = rest.split_first_chunk::<LENGTH>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (frame, behind) = more.split_at(length.min(more.len()));
        member.step(&Input::Frame {
            link: LINK,
            bytes: frame,
        });
        member.pass(TICK_MS);
        if closed(&member.outputs()) {
            break;
        }
        rest = behind;
    }
    member.step(&Input::LinkDown { link: LINK });
    member.pass(TICK_MS);
    let used = member.core().stats().used_bytes;
    let length = data.len() + 1;
    assert!(
        used <= length * MEMORY_PER_BYTE,
        "{used} bytes of memory for {length} received"
    );
    member.resp(b"SET a 1 EX 60\r\nGET a\r\nKEYS *\r\n");
}

fn closed(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::Close { .. }))
}

/// What a member sends to another that joins it, as [`peer`] takes it: a seed for fuzzers.
pub fn conversation(requests: &[u8]) -> Vec<u8> {
    let mut first = Harness::member(Settings::default(), 2);
    first.step(&Input::Discovered {
        addresses: &BTreeSet::new(),
    });
    first.pass(TICK_MS);
    first.resp(b"SET before-the-join x EX 600\r\nHSET hash field value\r\n");
    let mut second = Harness::member(Settings::default(), 1);
    second.step(&Input::Discovered {
        addresses: &BTreeSet::from(["127.0.0.1:1".to_owned()]),
    });
    first.step(&Input::LinkUp {
        link: LINK,
        dialled: true,
    });
    second.step(&Input::LinkUp {
        link: LINK,
        dialled: false,
    });
    let mut said = Vec::new();
    exchange(&mut first, &mut second, &mut said);
    first.resp(requests);
    second.resp(b"SET on-the-other x EX 600\r\n");
    exchange(&mut first, &mut second, &mut said);
    said
}

fn exchange(first: &mut Harness, second: &mut Harness, said: &mut Vec<u8>) {
    const ROUNDS: usize = 100;
    for _ in 0..ROUNDS {
        for member in [&mut *first, &mut *second] {
            member.pass(TICK_MS);
            member.step(&Input::Flush);
        }
        for frame in frames(first.outputs()) {
            said.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
            said.extend_from_slice(&frame);
            second.step(&Input::Frame {
                link: LINK,
                bytes: &frame,
            });
        }
        for frame in frames(second.outputs()) {
            first.step(&Input::Frame {
                link: LINK,
                bytes: &frame,
            });
        }
    }
}

fn frames(outputs: Vec<Output>) -> impl Iterator<Item = bytes::Bytes> {
    outputs.into_iter().filter_map(|output| match output {
        Output::Send { frame, .. } => Some(frame),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_brings_sessions_to_the_member_that_hears_it() {
        let said = conversation(b"SET session:1 alice EX 600\r\n");
        let frames = said.len();
        assert!(frames > 200, "{frames} bytes");
        let holds = |word: &[u8]| said.windows(word.len()).any(|window| window == word);
        assert!(
            holds(b"before-the-join") && holds(b"session:1"),
            "{}",
            said.escape_ascii()
        );
        peer(&said);
    }
}
