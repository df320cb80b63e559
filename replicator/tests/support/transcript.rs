//! Reads the transcripts in `tests/fixtures`; their format is described there.

use std::collections::BTreeMap;

use super::encode::encode;

/// What one line of a transcript tells.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    Connect,
    Close,
    Request(&'a str),
    Reply(&'a str),
}

/// Connection and event of each line.
pub fn events(text: &str) -> Vec<(&str, Event<'_>)> {
    text.lines()
        .filter(|line| !line.starts_with("====="))
        .filter_map(|line| {
            let (connection, rest) = line.strip_prefix('[')?.split_once(']')?;
            let rest = rest.trim_start();
            let event = match rest {
                "-- connect" => Event::Connect,
                "-- close" | "-- close >" => Event::Close,
                _ if rest.starts_with("-- close") || rest.starts_with("(pipelined") => return None,
                _ => match rest.split_once(' ')? {
                    (">", request) => Event::Request(request),
                    ("<", reply) => Event::Reply(reply),
                    other => panic!("a line that is none: {other:?}"),
                },
            };
            Some((connection, event))
        })
        .collect()
}

/// `\xNN` is a byte. In the lines of Flask-Session `\xe1` stands for the two bytes of that character in UTF-8.
pub fn unescape(text: &str, flask: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let byte = u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap();
        if flask && byte == 0xe1 {
            bytes.extend_from_slice(&[0xc3, 0xa1]);
        } else {
            bytes.push(byte);
        }
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Arguments are separated by blanks; one that contains a blank stands between quotes, and ends at a quote that a blank
/// or the end follows.
pub fn arguments(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (argument, after) = match rest.strip_prefix('"').and_then(|inner| {
            inner
                .find("\" ")
                .map(|at| (&inner[..at], &inner[at + 2..]))
                .or(inner.strip_suffix('"').map(|all| (all, "")))
        }) {
            Some(quoted) if quoted.0.contains(' ') => quoted,
            _ => rest.split_once(' ').unwrap_or((rest, "")),
        };
        found.push(argument);
        rest = after;
    }
    found
}

/// The opcodes in the log.
const OPCODES: [(&str, u8); 6] = [
    ("ADD", 2),
    ("GETK", 12),
    ("SET", 1),
    ("DELETE", 4),
    ("QUIT", 7),
    ("TOUCH", 28),
];

/// `NAME extras=… key=… val=… cas=… status/vb=…` as a frame.
pub fn binary(line: &str, request: bool) -> Vec<u8> {
    let (name, rest) = line.split_once(" extras=").unwrap();
    let (extras, rest) = rest.split_once(" key=").unwrap();
    let (key, rest) = rest.split_once(" val=").unwrap();
    let (value, rest) = rest.rsplit_once(" cas=").unwrap();
    let (_, status) = rest.split_once(" status/vb=").unwrap();
    let opcode = OPCODES.iter().find(|(known, _)| *known == name).unwrap().1;
    let extras: Vec<u8> = (0..extras.len() / 2)
        .map(|i| u8::from_str_radix(&extras[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let value = unescape(value, false);
    let body = extras.len() + key.len() + value.len();
    let mut frame = vec![if request { 0x80 } else { 0x81 }, opcode];
    frame.extend_from_slice(&u16::try_from(key.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[u8::try_from(extras.len()).unwrap(), 0]);
    frame.extend_from_slice(&status.parse::<u16>().unwrap().to_be_bytes());
    frame.extend_from_slice(&u32::try_from(body).unwrap().to_be_bytes());
    // Opaque and cas: the first is not in the log, the second may differ.
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(&extras);
    frame.extend_from_slice(key.as_bytes());
    frame.extend_from_slice(&value);
    frame
}

/// Whether Flask-Session wrote this line; see [`unescape`].
pub fn is_flask(line: &str) -> bool {
    line.contains("session:Bm91")
}

/// What the clients of a transcript sent, connection by connection, in the protocol's bytes.
pub fn requests(text: &str, protocol: Protocol) -> Vec<Vec<u8>> {
    let mut sent: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (connection, event) in events(text) {
        if let Event::Request(line) = event {
            sent.entry(connection)
                .or_default()
                .extend_from_slice(&protocol.encode(line));
        }
    }
    sent.into_values().collect()
}

/// Whose transcript it is.
#[derive(Clone, Copy)]
pub enum Protocol {
    Resp,
    Memcached,
}

impl Protocol {
    fn encode(self, line: &str) -> Vec<u8> {
        match (self, line.strip_prefix("BIN req ")) {
            (Self::Resp, _) => {
                let words = arguments(line);
                let words: Vec<Vec<u8>> = words
                    .into_iter()
                    .map(|word| unescape(word, is_flask(line)))
                    .collect();
                encode(&words)
            }
            (Self::Memcached, Some(request)) => binary(request, true),
            (Self::Memcached, None) => unescape(line, false),
        }
    }
}
