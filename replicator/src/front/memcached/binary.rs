//! The binary protocol, PHP's default.

use super::store::{self, Expiry, Failure, Mode, Outcome};
use super::{Handled, MAX_KEY, VERSION, Work};
use crate::core::{Command, Op, Reply};

/// First byte of a request.
pub(super) const REQUEST: u8 = 0x80;
/// First byte of a response.
const RESPONSE: u8 = 0x81;
/// Bytes of a header.
const HEADER: usize = 24;
/// An expiration of INCREMENT that means: do not create.
const DO_NOT_CREATE: u32 = u32::MAX;

const OK: u16 = 0;
const NOT_FOUND: u16 = 1;
const EXISTS: u16 = 2;
const TOO_LARGE: u16 = 3;
const INVALID: u16 = 4;
const NOT_STORED: u16 = 5;
const NOT_NUMERIC: u16 = 6;
const UNKNOWN: u16 = 0x81;
const OUT_OF_MEMORY: u16 = 0x82;
const TEMPORARY: u16 = 0x86;

/// A request's header.
#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: u8,
    key: usize,
    extras: usize,
    body: usize,
    opaque: [u8; 4],
    cas: u64,
}

impl Header {
    fn parse(input: &[u8]) -> Option<Self> {
        let [
            _,
            opcode,
            k1,
            k0,
            extras,
            _,
            _,
            _,
            b3,
            b2,
            b1,
            b0,
            o0,
            o1,
            o2,
            o3,
            cas @ ..,
        ] = input.get(..HEADER)?
        else {
            return None;
        };
        Some(Self {
            opcode: *opcode,
            key: usize::from(u16::from_be_bytes([*k1, *k0])),
            extras: usize::from(*extras),
            body: usize::try_from(u32::from_be_bytes([*b3, *b2, *b1, *b0])).ok()?,
            opaque: [*o0, *o1, *o2, *o3],
            cas: u64::from_be_bytes(cas.try_into().ok()?),
        })
    }
}

/// How a response looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// GET, GAT: flags and value.
    Item {
        /// Repeat the key.
        with_key: bool,
    },
    /// SET and its kin.
    Stored(Mode),
    /// DELETE.
    Deleted,
    /// TOUCH.
    Touched,
    /// INCREMENT, DECREMENT.
    Counted,
}

/// How the answers become a response.
#[derive(Debug)]
pub(super) struct Finish {
    opcode: u8,
    opaque: [u8; 4],
    key: Vec<u8>,
    quiet: bool,
    shape: Shape,
}

/// A response under way.
struct Response<'a> {
    opcode: u8,
    opaque: [u8; 4],
    status: u16,
    cas: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

impl Response<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let body = self.extras.len() + self.key.len() + self.value.len();
        out.extend_from_slice(&[RESPONSE, self.opcode]);
        // Keys are at most 250 bytes long and values bounded far below four gigabytes.
        out.extend_from_slice(&u16::try_from(self.key.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&[u8::try_from(self.extras.len()).unwrap_or(0), 0]);
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&u32::try_from(body).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&self.opaque);
        out.extend_from_slice(&self.cas.to_be_bytes());
        out.extend_from_slice(self.extras);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }
}

fn text_of(status: u16) -> &'static [u8] {
    match status {
        NOT_FOUND => b"Not found",
        EXISTS => b"Data exists for key.",
        TOO_LARGE => b"Too large.",
        INVALID => b"Invalid arguments",
        NOT_STORED => b"Not stored.",
        NOT_NUMERIC => b"Non-numeric server-side value for incr or decr",
        OUT_OF_MEMORY => b"Out of memory",
        TEMPORARY => b"Temporary failure",
        _ => b"Unknown command",
    }
}

fn status_of(failure: Failure) -> u16 {
    match failure {
        Failure::OutOfMemory => OUT_OF_MEMORY,
        Failure::TooLarge => TOO_LARGE,
        Failure::NotNumeric => NOT_NUMERIC,
        Failure::Other(_) => TEMPORARY,
    }
}

impl Finish {
    fn response(&self) -> Response<'_> {
        let (opcode, opaque) = (self.opcode, self.opaque);
        Response {
            opcode,
            opaque,
            status: OK,
            cas: 0,
            extras: &[],
            key: &[],
            value: &[],
        }
    }

    fn refuse(&self, status: u16, out: &mut Vec<u8>) {
        Response {
            status,
            value: text_of(status),
            ..self.response()
        }
        .write(out);
    }

    pub(super) fn write(&self, answers: &[Reply], out: &mut Vec<u8>) {
        let answer = answers.first().unwrap_or(&Reply::Nil);
        if let Some(failure) = store::failure(answer) {
            return self.refuse(status_of(failure), out);
        }
        match self.shape {
            Shape::Item { with_key } => self.write_item(with_key, answer, out),
            Shape::Stored(mode) => self.write_outcome(store::stored(answer), Some(mode), out),
            Shape::Deleted => self.write_outcome(store::deleted(answer), None, out),
            Shape::Touched => match store::item(answer) {
                Some((_, flags, token)) => {
                    let (extras, cas) = (flags.to_be_bytes(), token.cast_unsigned());
                    Response {
                        cas,
                        extras: &extras,
                        ..self.response()
                    }
                    .write(out);
                }
                None => self.refuse(NOT_FOUND, out),
            },
            Shape::Counted => match answer {
                Reply::Int(_) if self.quiet => {}
                Reply::Int(number) => {
                    Response {
                        value: &number.to_be_bytes(),
                        ..self.response()
                    }
                    .write(out);
                }
                _ => self.refuse(NOT_FOUND, out),
            },
        }
    }

    fn write_item(&self, with_key: bool, answer: &Reply, out: &mut Vec<u8>) {
        let key = if with_key { self.key.as_slice() } else { &[] };
        match store::item(answer) {
            Some((value, flags, token)) => {
                let (extras, cas) = (flags.to_be_bytes(), token.cast_unsigned());
                Response {
                    cas,
                    extras: &extras,
                    key,
                    value,
                    ..self.response()
                }
                .write(out);
            }
            None if self.quiet => {}
            None if with_key => Response {
                status: NOT_FOUND,
                key,
                ..self.response()
            }
            .write(out),
            None => self.refuse(NOT_FOUND, out),
        }
    }

    fn write_outcome(&self, outcome: Outcome, mode: Option<Mode>, out: &mut Vec<u8>) {
        match (outcome, mode) {
            (Outcome::Done, _) if self.quiet => {}
            (Outcome::Done, _) => self.response().write(out),
            (Outcome::NotStored, Some(Mode::Add)) | (Outcome::Changed, _) => self.refuse(EXISTS, out),
            (Outcome::NotStored, Some(Mode::Replace)) | (Outcome::NotFound, _) => {
                self.refuse(NOT_FOUND, out);
            }
            (Outcome::NotStored, _) => self.refuse(NOT_STORED, out),
            (Outcome::Failed(failure), _) => self.refuse(status_of(failure), out),
        }
    }
}

/// Works on the request at the start of the input.
pub(super) fn handle(work: &mut Work<'_, '_>, input: &[u8]) -> Handled {
    if input.first() != Some(&REQUEST) {
        work.server.stats.protocol_errors += 1;
        return Handled::Close;
    }
    let Some(header) = Header::parse(input) else {
        return Handled::Incomplete(HEADER);
    };
    let plain = |opcode| Finish {
        opcode,
        opaque: header.opaque,
        key: Vec::new(),
        quiet: false,
        shape: Shape::Deleted,
    };
    if header.body > work.max_value() + MAX_KEY + usize::from(u8::MAX) {
        plain(header.opcode).refuse(TOO_LARGE, work.out);
        return Handled::Swallow(HEADER, header.body);
    }
    let end = HEADER + header.body;
    let Some(body) = input.get(HEADER..end) else {
        return Handled::Incomplete(end);
    };
    if header.key > MAX_KEY || header.extras + header.key > header.body {
        plain(header.opcode).refuse(INVALID, work.out);
        return Handled::Consumed(end);
    }
    let (extras, rest) = body.split_at(header.extras);
    let (key, value) = rest.split_at(header.key);
    if run(work, &header, extras, key, value) {
        Handled::Consumed(end)
    } else {
        Handled::Close
    }
}

/// `false` when the connection has to end.
fn run(work: &mut Work<'_, '_>, header: &Header, extras: &[u8], key: &[u8], value: &[u8]) -> bool {
    let (name, shape, quiet) = match header.opcode {
        0x00 => ("get", Shape::Item { with_key: false }, false),
        0x09 => ("get", Shape::Item { with_key: false }, true),
        0x0c => ("get", Shape::Item { with_key: true }, false),
        0x0d => ("get", Shape::Item { with_key: true }, true),
        0x1d => ("gat", Shape::Item { with_key: false }, false),
        0x1e => ("gat", Shape::Item { with_key: false }, true),
        0x23 => ("gat", Shape::Item { with_key: true }, false),
        0x24 => ("gat", Shape::Item { with_key: true }, true),
        0x01 => ("set", Shape::Stored(Mode::Set), false),
        0x11 => ("set", Shape::Stored(Mode::Set), true),
        0x02 => ("add", Shape::Stored(Mode::Add), false),
        0x12 => ("add", Shape::Stored(Mode::Add), true),
        0x03 => ("replace", Shape::Stored(Mode::Replace), false),
        0x13 => ("replace", Shape::Stored(Mode::Replace), true),
        0x0e => ("append", Shape::Stored(Mode::Append), false),
        0x19 => ("append", Shape::Stored(Mode::Append), true),
        0x0f => ("prepend", Shape::Stored(Mode::Prepend), false),
        0x1a => ("prepend", Shape::Stored(Mode::Prepend), true),
        0x04 => ("delete", Shape::Deleted, false),
        0x14 => ("delete", Shape::Deleted, true),
        0x05 => ("incr", Shape::Counted, false),
        0x15 => ("incr", Shape::Counted, true),
        0x06 => ("decr", Shape::Counted, false),
        0x16 => ("decr", Shape::Counted, true),
        0x1c => ("touch", Shape::Touched, false),
        _ => return other(work, header),
    };
    work.count(name);
    let finish = Finish {
        opcode: header.opcode,
        opaque: header.opaque,
        key: key.to_vec(),
        quiet,
        shape,
    };
    match command(work, header, shape, extras, key, value) {
        Some(command) if !key.is_empty() => {
            // TOUCH tells the flags and the token: it is answered like GAT.
            work.ask(&[command], super::Finish::Binary(finish));
        }
        _ => finish.refuse(INVALID, work.out),
    }
    true
}

fn command<'a>(
    work: &Work<'_, '_>,
    header: &Header,
    shape: Shape,
    extras: &[u8],
    key: &'a [u8],
    value: &'a [u8],
) -> Option<Command<'a>> {
    let now = work.now_ms();
    let expiry = |seconds: u32| Expiry::new(i64::from(seconds), now);
    let word = |place: usize| {
        extras
            .get(place..place + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let long = |place: usize| {
        extras
            .get(place..place + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
    };
    let token = (header.cas != 0).then_some(header.cas.cast_signed());
    Some(match shape {
        Shape::Item { .. } if matches!(header.opcode, 0x1d | 0x1e | 0x23 | 0x24) => {
            store::touch(key, expiry(word(0)?), true)
        }
        Shape::Item { .. } => Command::Key { key, op: Op::GetItem },
        Shape::Stored(mode @ (Mode::Append | Mode::Prepend)) => {
            store::store(mode, key, value, 0, Expiry::Never)
        }
        Shape::Stored(mode) => {
            if value.len() > work.max_value() {
                return None;
            }
            store::store(
                token.map_or(mode, Mode::Cas),
                key,
                value,
                word(0)?,
                expiry(word(4)?),
            )
        }
        Shape::Deleted => store::delete(key, token),
        Shape::Touched => store::touch(key, expiry(word(0)?), true),
        Shape::Counted => {
            let (by, initial, exptime) = (long(0)?, long(8)?, word(16)?);
            let initial = (exptime != DO_NOT_CREATE).then(|| (initial, expiry(exptime).for_set()));
            let down = matches!(header.opcode, 0x06 | 0x16);
            Command::Key {
                key,
                op: Op::Counter { by, down, initial },
            }
        }
    })
}

/// Requests without a key.
fn other(work: &mut Work<'_, '_>, header: &Header) -> bool {
    let (opcode, opaque) = (header.opcode, header.opaque);
    let finish = Finish {
        opcode,
        opaque,
        key: Vec::new(),
        quiet: false,
        shape: Shape::Deleted,
    };
    match header.opcode {
        0x07 => {
            work.count("quit");
            finish.response().write(work.out);
            return false;
        }
        0x17 => {
            work.count("quit");
            return false;
        }
        0x0a => {
            work.count("noop");
            finish.response().write(work.out);
        }
        0x0b => {
            work.count("version");
            Response {
                value: VERSION.as_bytes(),
                ..finish.response()
            }
            .write(work.out);
        }
        0x10 => {
            // No statistics, only the end of the list.
            work.count("stats");
            finish.response().write(work.out);
        }
        0x08 | 0x18 => {
            work.server.stats.count_unsupported("flush_all");
            finish.refuse(UNKNOWN, work.out);
        }
        _ => {
            let sasl = matches!(header.opcode, 0x20..=0x22);
            work.server
                .stats
                .count_unsupported(if sasl { "sasl" } else { "other" });
            finish.refuse(UNKNOWN, work.out);
        }
    }
    true
}
