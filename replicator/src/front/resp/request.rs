//! Requests: arrays of bulk strings (RESP2 and RESP3 are the same here) and inline commands.
//!
//! The parser works on the connection's read buffer and copies nothing but quoted inline arguments. It remembers how
//! far it got, so that a request that arrives byte by byte costs no more than one that arrives at once. Everything is
//! bounded: see [`Limits`]. A request above a limit that Redis would have taken is swallowed without being stored and
//! reported as [`Parsed::TooLarge`], so that one oversized session is an error to its user and not a broken connection
//! to all who share it.

use std::ops::Range;

use super::number::parse_i64;

/// The bounds of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one argument.
    pub argument: usize,
    /// Bytes of a whole request, headers included.
    pub request: usize,
    /// Arguments of one request.
    pub arguments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            argument: 1 << 20,
            request: 8 << 20,
            arguments: 64 << 10,
        }
    }
}

/// Bytes of an inline request or of a length line; Redis' own figure.
const MAX_LINE: usize = 64 << 10;
/// The longest bulk string that Redis takes; more is a protocol error.
const MAX_BULK: i64 = 512 << 20;
/// The most arguments that Redis takes.
const MAX_MULTIBULK: i64 = i32::MAX as i64;
/// Before AUTH, as Redis has it: enough for HELLO and AUTH, too little to fill memory.
const MAX_ARGUMENTS_BEFORE_AUTH: i64 = 10;
/// Before AUTH, bytes of one argument.
const MAX_BULK_BEFORE_AUTH: i64 = 16_384;
/// More room for arguments than this is given back after a request.
const KEPT_ARGUMENTS: usize = 1_024;

/// What the parser found at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing complete; call again with more behind the same bytes. `total` is how long the input is known to get.
    Incomplete {
        /// Bytes that the request has at least.
        total: usize,
    },
    /// A request. Its arguments are given by [`Parser::arguments`] until the next call.
    Request {
        /// How many bytes it took.
        consumed: usize,
    },
    /// Bytes that mean nothing (an empty line) or belong to a request that is being swallowed.
    Skip {
        /// How many bytes to drop.
        consumed: usize,
    },
    /// The end of a request that was above a limit.
    TooLarge {
        /// How many bytes to drop.
        consumed: usize,
    },
}

/// Input that is no RESP. Redis answers with this text and closes; so do we.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The count behind `*` is no number or too large.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// More arguments than a client may send before AUTH.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// The line behind `*` does not end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    /// An argument that does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", printable(*.0))]
    ExpectedBulk(u8),
    /// The length behind `$` is no number or too large.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// A longer argument than a client may send before AUTH.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The line behind `$` does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// A length line or an argument that does not end in CR LF.
    #[error("Protocol error: expected CR LF")]
    ExpectedLineEnd,
    /// An inline request that does not end.
    #[error("Protocol error: too big inline request")]
    InlineLength,
    /// An inline request with an open quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// A byte that may stand in a reply line.
fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() {
        char::from(byte)
    } else {
        '?'
    }
}

/// Where the parser stands inside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte.
    Start,
    /// Inside an array.
    Arguments {
        /// Arguments still to come.
        left: usize,
    },
    /// Inside an array that is above a limit: nothing is kept.
    Swallow {
        /// Arguments still to come, without the present one.
        left: usize,
        /// Bytes of the present argument still to come, CR LF included.
        bytes: usize,
    },
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// Everything before this offset has been looked at.
    position: usize,
    arguments: Vec<Range<usize>>,
    /// Unquoted arguments of an inline request; the ranges point here while this is in use.
    unquoted: Option<Vec<u8>>,
    /// A request ended with the last call.
    finished: bool,
}

/// The arguments of one request, command name first.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Arguments<'a> {
    /// How many there are, command name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// One argument.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges
            .get(index)
            .and_then(|range| self.bytes.get(range.clone()))
    }

    /// All from `start` on.
    pub fn from(&self, start: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges
            .iter()
            .skip(start)
            .filter_map(move |range| bytes.get(range.clone()))
    }

    /// All but the first `count`, as a request of their own.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        Self {
            bytes: self.bytes,
            ranges: self.ranges.get(count..).unwrap_or_default(),
        }
    }

    /// Bytes of all arguments together.
    pub fn total_bytes(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Arguments that lie in a list of ranges into `bytes`.
    pub fn new(bytes: &'a [u8], ranges: &'a [Range<usize>]) -> Self {
        Self { bytes, ranges }
    }
}

impl Parser {
    /// A parser with these bounds.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            position: 0,
            arguments: Vec::new(),
            unquoted: None,
            finished: false,
        }
    }

    /// The arguments of the request that [`Parser::parse`] just found in `input`.
    pub fn arguments<'a>(&'a self, input: &'a [u8]) -> Arguments<'a> {
        Arguments {
            bytes: self.unquoted.as_deref().unwrap_or(input),
            ranges: &self.arguments,
        }
    }

    /// Looks for a request at the start of `input`. After [`Parsed::Incomplete`] the next call has to see the same
    /// bytes again with more behind them; after anything else, what follows the consumed bytes.
    ///
    /// # Errors
    /// Input that is no RESP; the connection has to end.
    pub fn parse(&mut self, input: &[u8], authenticated: bool) -> Result<Parsed, ProtocolError> {
        if self.finished {
            self.restart();
        }
        match self.state {
            State::Start => match input.first() {
                None => Ok(Parsed::Incomplete { total: 1 }),
                Some(b'*') => self.multibulk(input, authenticated),
                Some(_) => self.inline(input),
            },
            State::Arguments { left } => self.bulks(input, left, authenticated),
            State::Swallow { left, bytes } => self.swallow(input, left, bytes),
        }
    }

    fn restart(&mut self) {
        self.finished = false;
        self.state = State::Start;
        self.position = 0;
        self.arguments.clear();
        if self.arguments.capacity() > KEPT_ARGUMENTS {
            self.arguments.shrink_to(KEPT_ARGUMENTS);
        }
        self.unquoted = None;
    }

    fn multibulk(&mut self, input: &[u8], authenticated: bool) -> Result<Parsed, ProtocolError> {
        let Some((line, next)) = line_at(input, 1, ProtocolError::MultibulkLine)? else {
            return Ok(Parsed::Incomplete {
                total: input.len() + 1,
            });
        };
        let count = parse_i64(line)
            .filter(|count| *count <= MAX_MULTIBULK)
            .ok_or(ProtocolError::MultibulkLength)?;
        if count > MAX_ARGUMENTS_BEFORE_AUTH && !authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        let Ok(left @ 1..) = usize::try_from(count) else {
            return Ok(Parsed::Skip { consumed: next });
        };
        self.position = next;
        if left > self.limits.arguments {
            return self.swallow(input, left, 0);
        }
        self.bulks(input, left, authenticated)
    }

    fn bulks(&mut self, input: &[u8], mut left: usize, authenticated: bool) -> Result<Parsed, ProtocolError> {
        while left > 0 {
            let Some((length, start)) = bulk_header(input, self.position, authenticated)? else {
                self.state = State::Arguments { left };
                return Ok(Parsed::Incomplete {
                    total: input.len().max(self.position) + 1,
                });
            };
            let end = start + length;
            if length > self.limits.argument || end > self.limits.request {
                self.position = start;
                return self.swallow(input, left - 1, length + 2);
            }
            match input.get(end..end + 2) {
                None => {
                    self.state = State::Arguments { left };
                    return Ok(Parsed::Incomplete { total: end + 2 });
                }
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::ExpectedLineEnd),
            }
            self.arguments.push(start..end);
            self.position = end + 2;
            left -= 1;
        }
        self.finished = true;
        Ok(Parsed::Request {
            consumed: self.position,
        })
    }

    /// Drops what is left of a request above a limit. `position` is where the undropped part begins.
    fn swallow(&mut self, input: &[u8], mut left: usize, mut bytes: usize) -> Result<Parsed, ProtocolError> {
        self.arguments.clear();
        let mut at = self.position;
        loop {
            let here = bytes.min(input.len().saturating_sub(at));
            at += here;
            bytes -= here;
            if bytes > 0 {
                break;
            }
            if left == 0 {
                self.finished = true;
                return Ok(Parsed::TooLarge { consumed: at });
            }
            let Some((length, start)) = bulk_header(input, at, true)? else {
                break;
            };
            at = start;
            bytes = length + 2;
            left -= 1;
        }
        self.state = State::Swallow { left, bytes };
        self.position = 0;
        if at == 0 {
            return Ok(Parsed::Incomplete {
                total: input.len() + 1,
            });
        }
        Ok(Parsed::Skip { consumed: at })
    }

    fn inline(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        // Only the first line's worth is searched, and only the part that has not been seen yet.
        let window = input.get(..MAX_LINE.min(input.len())).unwrap_or(input);
        let unseen = window.get(self.position..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unseen) else {
            if input.len() >= MAX_LINE {
                return Err(ProtocolError::InlineLength);
            }
            self.position = window.len();
            return Ok(Parsed::Incomplete {
                total: input.len() + 1,
            });
        };
        let end = self.position + found;
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.position = 0;
        let mut unquoted = Vec::with_capacity(line.len());
        split_inline(line, &mut unquoted, &mut self.arguments)?;
        self.finished = true;
        if self.arguments.is_empty() {
            return Ok(Parsed::Skip { consumed: end + 1 });
        }
        self.unquoted = Some(unquoted);
        Ok(Parsed::Request { consumed: end + 1 })
    }
}

/// The line that begins at `start`, without its CR LF, and where the next one begins; `None` when it is not complete.
fn line_at(
    input: &[u8],
    start: usize,
    too_long: ProtocolError,
) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let rest = input.get(start..).unwrap_or_default();
    let window = rest.get(..MAX_LINE.min(rest.len())).unwrap_or(rest);
    // A length line is a few bytes: a plain loop beats a search by vector instructions.
    let Some(length) = window.iter().position(|byte| *byte == b'\r') else {
        return if rest.len() >= MAX_LINE {
            Err(too_long)
        } else {
            Ok(None)
        };
    };
    match rest.get(length + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((rest.get(..length).unwrap_or_default(), start + length + 2))),
        Some(_) => Err(ProtocolError::ExpectedLineEnd),
    }
}

/// The length of the bulk string whose header begins at `start`, and where its bytes begin.
fn bulk_header(
    input: &[u8],
    start: usize,
    authenticated: bool,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    match input.get(start) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
    }
    let Some((line, next)) = line_at(input, start + 1, ProtocolError::BulkLine)? else {
        return Ok(None);
    };
    let length = parse_i64(line)
        .filter(|length| *length <= MAX_BULK)
        .ok_or(ProtocolError::BulkLength)?;
    if length > MAX_BULK_BEFORE_AUTH && !authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
    Ok(Some((length, next)))
}

/// Splits an inline request at blanks, with Redis' quoting: `"…"` with escapes, `'…'` with `\'`.
fn split_inline(
    line: &[u8],
    unquoted: &mut Vec<u8>,
    arguments: &mut Vec<Range<usize>>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(());
        }
        let start = unquoted.len();
        rest = inline_argument(rest, unquoted)?;
        arguments.push(start..unquoted.len());
    }
}

/// Reads one inline argument; gives what follows it.
fn inline_argument<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Ok(rest),
            [blank, ..] if blank.is_ascii_whitespace() || *blank == 0 => {
                // A NUL ends the argument as a blank does.
                return Ok(rest.get(1..).unwrap_or_default());
            }
            [b'"', inner @ ..] => return end_of_quoted(double_quoted(inner, out)?),
            [b'\'', inner @ ..] => return end_of_quoted(single_quoted(inner, out)?),
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

/// A closing quote has to be followed by a blank or the end.
fn end_of_quoted(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'"', next @ ..] => return Ok(next),
            [b'\\', b'x', high, low, next @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                next
            }
            [b'\\', escaped, next @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                next
            }
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'\'', next @ ..] => return Ok(next),
            [b'\\', b'\'', next @ ..] => {
                out.push(b'\'');
                next
            }
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

/// The value of a hexadecimal digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
