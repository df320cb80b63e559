//! Golden transcripts: what stock session handlers sent to redis-server 7.0.15 and memcached 1.6.18, replayed.
//!
//! Each file is one story on one empty server, connections in the order in which they were made. The format is
//! described in `fixtures/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use support::resp::{Client, encode};
use support::transcript::{Event, arguments, binary, events, is_flask, unescape};
use support::{Launch, PATIENCE, Replicator};

/// The stories use the same session ids again right after they were deleted, over connections that have not read them:
/// the guard against late writes, which takes such a write for one from before the logout, is off.
fn start() -> Replicator {
    Launch::alone()
        .with(&["--logout-guard-seconds", "0"])
        .start_ready()
}

/// Longer replies are cut in the log.
const CUT: usize = 160;

/// What may differ, and is made equal before comparing: HELLO's connection id, and CLIENT SETINFO, which Redis 7.0
/// does not know and we take, as later versions do.
fn normalised(reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string().replace(
        r"-ERR unknown subcommand \'SETINFO\'. Try CLIENT HELP.\r\n",
        r"+OK\r\n",
    );
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(r"$2\r\nid\r\n:") {
        let end = at + r"$2\r\nid\r\n:".len();
        out.push_str(&rest[..end]);
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

#[derive(Default)]
struct Tally {
    compared: usize,
    unanswered: usize,
    problems: String,
}

struct Conversation {
    client: Client,
    asked: usize,
    expected: Vec<u8>,
    is_cut: bool,
    story: String,
}

impl Conversation {
    /// Compares the replies to all requests since the last look.
    fn settle(&mut self, connection: &str, tally: &mut Tally) {
        let asked = std::mem::take(&mut self.asked);
        let expected = std::mem::take(&mut self.expected);
        let story = std::mem::take(&mut self.story);
        if asked == 0 {
            return;
        }
        if expected.is_empty() {
            // The client closed before the server's answer was seen.
            tally.unanswered += asked;
            return;
        }
        let actual = self.client.raw(asked);
        tally.compared += 1;
        let (mut expected, mut actual) = (normalised(&expected), normalised(&actual));
        if expected.contains("redis_version:") {
            // INFO: the kind of reply and the version matter, the rest is another server's.
            let heading = r"# Server\r\nredis_version:7.0.15\r\n";
            assert!(expected.contains(heading), "{expected}");
            expected = format!("{} {heading}", &expected[..1]);
            let found = if actual.contains(heading) {
                heading
            } else {
                &actual
            };
            actual = format!("{} {found}", &actual[..1]);
        } else if self.is_cut {
            // The cut may go through what was made equal: the common length minus that is compared.
            let length = actual.len().min(expected.len());
            let length = length.min(expected.rfind(r"-ERR").unwrap_or(length));
            expected.truncate(length);
            actual.truncate(length);
        }
        self.is_cut = false;
        if expected != actual {
            writeln!(
                tally.problems,
                "[{connection}] {story}\n  expected {expected}\n  got      {actual}"
            )
            .unwrap();
        }
    }
}

fn replay_resp(replicator: &Replicator, text: &str) -> Tally {
    let mut tally = Tally::default();
    let mut open: BTreeMap<&str, Conversation> = BTreeMap::new();
    let mut last_was_reply = false;
    for (connection, event) in events(text) {
        match event {
            Event::Connect => {
                let conversation = Conversation {
                    client: replicator.client(),
                    asked: 0,
                    expected: Vec::new(),
                    is_cut: false,
                    story: String::new(),
                };
                open.insert(connection, conversation);
            }
            Event::Close => {
                if let Some(mut conversation) = open.remove(connection) {
                    conversation.settle(connection, &mut tally);
                }
            }
            Event::Request(line) => {
                let conversation = open.get_mut(connection).unwrap();
                if last_was_reply {
                    conversation.settle(connection, &mut tally);
                }
                let flask = is_flask(line);
                let arguments: Vec<Vec<u8>> = arguments(line)
                    .into_iter()
                    .map(|argument| unescape(argument, flask))
                    .collect();
                conversation.client.send(&encode(&arguments));
                conversation.asked += 1;
                conversation.story.push_str(line);
                conversation.story.push('\n');
            }
            Event::Reply(reply) => {
                let conversation = open.get_mut(connection).unwrap();
                let flask = is_flask(&conversation.story);
                let reply = reply
                    .strip_prefix('"')
                    .and_then(|r| r.strip_suffix('"'))
                    .unwrap_or(reply);
                let bytes = unescape(reply, flask);
                conversation.is_cut |= bytes.len() >= CUT;
                conversation.expected.extend_from_slice(&bytes);
            }
        }
        last_was_reply = matches!(event, Event::Reply(_));
    }
    for (connection, mut conversation) in open {
        conversation.settle(connection, &mut tally);
    }
    tally
}

#[test]
fn what_redis_handlers_send_is_answered_as_redis_does() {
    let replicator = start();
    let tally = replay_resp(&replicator, include_str!("fixtures/resp.log"));
    assert!(tally.problems.is_empty(), "{}", tally.problems);
    assert!(tally.compared > 230, "only {} replies compared", tally.compared);
    assert!(
        tally.unanswered < 12,
        "{} requests without a reply in the log",
        tally.unanswered
    );
}

#[test]
fn what_memcached_handlers_send_is_answered_as_memcached_does() {
    let replicator = start();
    let mut open: BTreeMap<&str, TcpStream> = BTreeMap::new();
    let mut compared = 0;
    for (connection, event) in events(include_str!("fixtures/memcached.log")) {
        match event {
            Event::Connect => {
                let address = SocketAddr::from(([127, 0, 0, 1], replicator.memcached_port));
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                open.insert(connection, stream);
            }
            Event::Close => {
                // A reply to QUIT may follow in the log; nobody read it.
                open.remove(connection);
            }
            Event::Request(line) => {
                let bytes = line
                    .strip_prefix("BIN req ")
                    .map_or_else(|| unescape(line, false), |b| binary(b, true));
                open.get_mut(connection).unwrap().write_all(&bytes).unwrap();
            }
            Event::Reply(line) => {
                let Some(stream) = open.get_mut(connection) else {
                    continue;
                };
                let is_binary = line.strip_prefix("BIN res ");
                let expected = is_binary.map_or_else(|| unescape(line, false), |b| binary(b, false));
                let mut actual = vec![0; expected.len()];
                stream.read_exact(&mut actual).unwrap();
                if is_binary.is_some() {
                    actual[12..24].fill(0);
                }
                assert_eq!(
                    actual.escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "[{connection}] {line}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 75, "only {compared} replies compared");
}
