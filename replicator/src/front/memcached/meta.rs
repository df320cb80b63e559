//! The meta commands: mg, ms, md, ma, mn, me.

use super::store::{self, Expiry, Failure, Mode, Outcome};
use super::{Handled, MAX_KEY, Work};
use crate::core::{Command, Op, Reply};
use crate::front::resp::number::{parse_i64, push_i64, push_u64};

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

/// What a line asks for beyond its key.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the protocol's flags, each with a meaning of its own"
)]
struct Flags {
    /// Flags whose values the reply repeats or tells, in the order of the request.
    told: Vec<Vec<u8>>,
    quiet: bool,
    value: bool,
    base64: bool,
    ttl_told: bool,
    expiry: Option<i64>,
    compare: Option<i64>,
    /// memcached's flags of an item: a number that clients store beside the value.
    client_word: u32,
    mode: Option<u8>,
    delta: u64,
    initial: u64,
    create: Option<i64>,
}

/// Flags that only ask for something to be told, or that change nothing here: hit before, last access, no bump,
/// recache and vivify windows belong to caches.
const TOLD: &[u8] = b"cfkOst";

impl Flags {
    fn parse(words: &[&[u8]]) -> Result<Self, &'static [u8]> {
        const INVALID: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
        const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
        let mut flags = Self {
            delta: 1,
            ..Self::default()
        };
        for word in words {
            let Some((flag, token)) = word.split_first() else {
                continue;
            };
            let number = || parse_i64(token).ok_or(BAD_TOKEN);
            let unsigned = || number().and_then(|n| u64::try_from(n).map_err(|_| BAD_TOKEN));
            if TOLD.contains(flag) {
                flags.told.push(word.to_vec());
            }
            match flag {
                b'q' => flags.quiet = true,
                b'v' => flags.value = true,
                b'b' => flags.base64 = true,
                b't' => flags.ttl_told = true,
                b'T' => flags.expiry = Some(number()?),
                b'C' => flags.compare = Some(number()?),
                b'F' => flags.client_word = u32::try_from(unsigned()?).map_err(|_| BAD_TOKEN)?,
                b'M' => flags.mode = Some(token.first().copied().ok_or(BAD_TOKEN)?.to_ascii_uppercase()),
                b'D' => flags.delta = unsigned()?,
                b'J' => flags.initial = unsigned()?,
                b'N' => flags.create = Some(number()?),
                _ if TOLD.contains(flag) => {}
                _ => return Err(INVALID),
            }
        }
        Ok(flags)
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
    Delete,
    Count,
}

/// How the answers become a reply.
#[derive(Debug)]
pub(super) struct Finish {
    verb: Verb,
    /// The key as the client wrote it.
    key: Vec<u8>,
    flags: Flags,
}

impl Finish {
    pub(super) fn write(&self, answers: &[Reply], out: &mut Vec<u8>) {
        let answer = answers.first().unwrap_or(&Reply::Nil);
        if let Some(failure) = store::failure(answer) {
            return out.extend_from_slice(failure.line().as_bytes());
        }
        match self.verb {
            Verb::Get => self.write_item(answers, out),
            Verb::Count => self.write_number(answers, out),
            Verb::Set | Verb::Delete => {
                let outcome = match self.verb {
                    Verb::Set => store::stored(answer),
                    _ => store::deleted(answer),
                };
                let hidden = match outcome {
                    Outcome::Done => true,
                    Outcome::NotFound => self.verb == Verb::Delete,
                    _ => false,
                };
                if !(self.flags.quiet && hidden) {
                    self.write_outcome(outcome, out);
                }
            }
        }
    }

    fn write_outcome(&self, outcome: Outcome, out: &mut Vec<u8>) {
        out.extend_from_slice(match outcome {
            Outcome::Done => b"HD".as_slice(),
            Outcome::NotStored => b"NS",
            Outcome::Changed => b"EX",
            Outcome::NotFound => b"NF",
            Outcome::Failed(failure) => return out.extend_from_slice(failure.line().as_bytes()),
        });
        self.write_told(&Told::default(), out);
        out.extend_from_slice(b"\r\n");
    }

    fn write_item(&self, answers: &[Reply], out: &mut Vec<u8>) {
        let Some((value, flags, token)) = answers.first().and_then(store::item) else {
            if !self.flags.quiet {
                out.extend_from_slice(b"EN\r\n");
            }
            return;
        };
        let ttl_ms = answers.get(1).and_then(|answer| match answer {
            Reply::Int(ms) => Some(*ms),
            _ => None,
        });
        let told = Told {
            size: value.len(),
            flags,
            token,
            ttl_ms,
        };
        self.write_head(value.len(), out);
        self.write_told(&told, out);
        out.extend_from_slice(b"\r\n");
        if self.flags.value {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn write_number(&self, answers: &[Reply], out: &mut Vec<u8>) {
        match answers.first() {
            Some(Reply::Int(number)) => {
                let mut digits = Vec::new();
                push_u64(&mut digits, number.cast_unsigned());
                if self.flags.quiet && !self.flags.value {
                    return;
                }
                self.write_head(digits.len(), out);
                self.write_told(
                    &Told {
                        size: digits.len(),
                        ..Told::default()
                    },
                    out,
                );
                out.extend_from_slice(b"\r\n");
                if self.flags.value {
                    out.extend_from_slice(&digits);
                    out.extend_from_slice(b"\r\n");
                }
            }
            _ if self.flags.quiet => {}
            _ => self.write_outcome(Outcome::NotFound, out),
        }
    }

    fn write_head(&self, length: usize, out: &mut Vec<u8>) {
        if self.flags.value {
            out.extend_from_slice(b"VA ");
            push_u64(out, u64::try_from(length).unwrap_or(u64::MAX));
        } else {
            out.extend_from_slice(b"HD");
        }
    }

    fn write_told(&self, told: &Told, out: &mut Vec<u8>) {
        for word in &self.flags.told {
            let Some(flag) = word.first() else { continue };
            out.push(b' ');
            match flag {
                b'k' => {
                    out.push(b'k');
                    out.extend_from_slice(&self.key);
                    continue;
                }
                b'O' => {
                    out.extend_from_slice(word);
                    continue;
                }
                _ => out.push(*flag),
            }
            match flag {
                b'c' => push_u64(out, told.token.cast_unsigned()),
                b'f' => push_u64(out, u64::from(told.flags)),
                b's' => push_u64(out, u64::try_from(told.size).unwrap_or(u64::MAX)),
                // Seconds, or -1 for no end.
                _ => push_i64(
                    out,
                    told.ttl_ms.map_or(-1, |ms| if ms < 0 { -1 } else { ms / 1_000 }),
                ),
            }
        }
        if self.flags.base64 {
            out.extend_from_slice(b" b");
        }
    }
}

/// What can be told of an item.
#[derive(Debug, Default)]
struct Told {
    size: usize,
    flags: u32,
    token: i64,
    ttl_ms: Option<i64>,
}

/// Works on a meta command; its line has been split already and ends before `next`.
pub(super) fn handle(
    work: &mut Work<'_, '_>,
    name: &[u8],
    words: &[&[u8]],
    input: &[u8],
    next: usize,
) -> Handled {
    let known = match name {
        b"mg" => "mg",
        b"ms" => "ms",
        b"md" => "md",
        b"ma" => "ma",
        b"me" => "me",
        _ => "mn",
    };
    let handled = run(work, known, words, input, next);
    if !matches!(handled, Handled::Incomplete(_)) {
        work.count(known);
    }
    handled
}

fn run(work: &mut Work<'_, '_>, name: &'static str, words: &[&[u8]], input: &[u8], next: usize) -> Handled {
    if name == "mn" {
        work.write(b"MN\r\n");
        return Handled::Consumed(next);
    }
    let Some((key, rest)) = words.split_first() else {
        work.write(BAD_FORMAT);
        return Handled::Consumed(next);
    };
    if name == "me" {
        // Nothing about items is told to people.
        work.write(b"EN\r\n");
        return Handled::Consumed(next);
    }
    let (length, flag_words) = match (name, rest.split_first()) {
        ("ms", Some((length, flags))) => {
            if let Some(length) = parse_i64(length).and_then(|n| usize::try_from(n).ok()) {
                (length, flags)
            } else {
                work.write(b"CLIENT_ERROR bad data chunk\r\n");
                return Handled::Consumed(next);
            }
        }
        ("ms", None) => {
            work.write(BAD_FORMAT);
            return Handled::Consumed(next);
        }
        _ => (0, rest),
    };
    let flags = Flags::parse(flag_words);
    let data = if name == "ms" { length.saturating_add(2) } else { 0 };
    let stored_key = match &flags {
        Ok(flags) if flags.base64 => decode_base64(key),
        _ => Some(key.to_vec()),
    };
    let (flags, stored_key) = match (flags, stored_key) {
        (Ok(flags), Some(stored)) if (1..=MAX_KEY).contains(&stored.len()) => (flags, stored),
        (Err(text), _) => {
            work.write(text);
            return Handled::Swallow(next, data);
        }
        _ => {
            work.write(BAD_FORMAT);
            return Handled::Swallow(next, data);
        }
    };
    match name {
        "mg" => get(work, &stored_key, key, flags),
        "md" => {
            let command = store::delete(&stored_key, flags.compare);
            work.ask(&[command], finish(Verb::Delete, key, flags));
        }
        "ma" => count(work, &stored_key, key, flags),
        _ => return set(work, &stored_key, key, flags, input, next, length),
    }
    Handled::Consumed(next)
}

fn finish(verb: Verb, key: &[u8], flags: Flags) -> super::Finish {
    super::Finish::Meta(Finish {
        verb,
        key: key.to_vec(),
        flags,
    })
}

fn get(work: &mut Work<'_, '_>, stored: &[u8], key: &[u8], flags: Flags) {
    let item = match flags.expiry {
        Some(exptime) => store::touch(stored, Expiry::new(exptime, work.now_ms()), true),
        None => Command::Key {
            key: stored,
            op: Op::GetItem,
        },
    };
    let ttl_told = flags.ttl_told;
    let finish = finish(Verb::Get, key, flags);
    if ttl_told {
        work.ask(
            &[
                item,
                Command::Key {
                    key: stored,
                    op: Op::TimeToLive,
                },
            ],
            finish,
        );
    } else {
        work.ask(&[item], finish);
    }
}

fn set(
    work: &mut Work<'_, '_>,
    stored: &[u8],
    key: &[u8],
    flags: Flags,
    input: &[u8],
    next: usize,
    length: usize,
) -> Handled {
    let mode = match (flags.compare, flags.mode) {
        (Some(token), _) => Mode::Cas(token),
        (None, None | Some(b'S')) => Mode::Set,
        (None, Some(b'E')) => Mode::Add,
        (None, Some(b'A')) => Mode::Append,
        (None, Some(b'P')) => Mode::Prepend,
        (None, Some(b'R')) => Mode::Replace,
        (None, Some(_)) => {
            work.write(b"CLIENT_ERROR invalid mode for ms\r\n");
            return Handled::Swallow(next, length.saturating_add(2));
        }
    };
    if length > work.max_value() {
        work.write(Failure::TooLarge.line().as_bytes());
        return Handled::Swallow(next, length.saturating_add(2));
    }
    let end = next + length;
    match input.get(end..end + 2) {
        None => return Handled::Incomplete(end + 2),
        Some(b"\r\n") => {}
        Some(_) => {
            work.write(b"CLIENT_ERROR bad data chunk\r\n");
            return Handled::Consumed(end + 2);
        }
    }
    let value = input.get(next..end).unwrap_or_default();
    let expiry = Expiry::new(flags.expiry.unwrap_or(0), work.now_ms());
    let command = store::store(mode, stored, value, flags.client_word, expiry);
    work.ask(&[command], finish(Verb::Set, key, flags));
    Handled::Consumed(end + 2)
}

fn count(work: &mut Work<'_, '_>, stored: &[u8], key: &[u8], flags: Flags) {
    let down = match flags.mode {
        None | Some(b'I' | b'+') => false,
        Some(b'D' | b'-') => true,
        Some(_) => return work.write(b"CLIENT_ERROR invalid mode for ma\r\n"),
    };
    let now = work.now_ms();
    let initial = flags
        .create
        .map(|exptime| (flags.initial, Expiry::new(exptime, now).for_set()));
    let op = Op::Counter {
        by: flags.delta,
        down,
        initial,
    };
    work.ask(
        &[Command::Key { key: stored, op }],
        finish(Verb::Count, key, flags),
    );
}

/// Standard base64 with padding.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let last = text.len().checked_sub(4)?;
    for (place, group) in text.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && place * 4 != last) {
            return None;
        }
        let mut bits: u32 = 0;
        for (at, byte) in group.iter().enumerate() {
            let value = match byte {
                b'=' if at >= 4 - padding => 0,
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(bytes.get(1..4 - padding)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(decode_base64(b"Zm9v").as_deref(), Some(b"foo".as_slice()));
        assert_eq!(decode_base64(b"Zm8=").as_deref(), Some(b"fo".as_slice()));
        assert_eq!(decode_base64(b"Zg==").as_deref(), Some(b"f".as_slice()));
        assert_eq!(decode_base64(b"Zg=g"), None);
        assert_eq!(decode_base64(b"Zg"), None);
        assert_eq!(decode_base64(b"Z g="), None);
    }
}
