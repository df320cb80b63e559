//! The text protocol.

use super::store::{self, Expiry, Mode, Outcome};
use super::{Handled, MAX_KEY, MAX_LINE, VERSION, Work, meta};
use crate::core::{Command, Op, Reply};
use crate::front::resp::number::{parse_i64, push_i64, push_u64};

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

/// How the answers become a reply.
#[derive(Debug)]
pub(super) enum Finish {
    /// get, gets, gat, gats: an item for each key.
    Items {
        /// The keys.
        keys: Vec<Vec<u8>>,
        /// Write the cas token.
        tokens: bool,
    },
    /// set and its kin.
    Stored,
    /// delete.
    Deleted,
    /// touch.
    Touched,
    /// incr, decr.
    Counted,
    /// `noreply`.
    Silent,
}

impl Finish {
    pub(super) fn write(&self, answers: &[Reply], out: &mut Vec<u8>) {
        if let Self::Items { keys, tokens } = self {
            return write_items(keys, *tokens, answers, out);
        }
        let answer = answers.first().unwrap_or(&Reply::Nil);
        match self {
            Self::Silent | Self::Items { .. } => {}
            Self::Stored => out.extend_from_slice(line_of(store::stored(answer), b"STORED\r\n").as_slice()),
            Self::Deleted => {
                out.extend_from_slice(line_of(store::deleted(answer), b"DELETED\r\n").as_slice());
            }
            Self::Touched => match (store::failure(answer), answer) {
                (Some(failure), _) => out.extend_from_slice(failure.line().as_bytes()),
                (None, Reply::Array(parts)) if parts.first() == Some(&Reply::Int(1)) => {
                    out.extend_from_slice(b"TOUCHED\r\n");
                }
                _ => out.extend_from_slice(b"NOT_FOUND\r\n"),
            },
            Self::Counted => match (store::failure(answer), answer) {
                (Some(failure), _) => out.extend_from_slice(failure.line().as_bytes()),
                (None, Reply::Int(number)) => {
                    push_u64(out, number.cast_unsigned());
                    out.extend_from_slice(b"\r\n");
                }
                _ => out.extend_from_slice(b"NOT_FOUND\r\n"),
            },
        }
    }
}

fn line_of(outcome: Outcome, done: &[u8]) -> Vec<u8> {
    match outcome {
        Outcome::Done => done.to_vec(),
        Outcome::NotStored => b"NOT_STORED\r\n".to_vec(),
        Outcome::Changed => b"EXISTS\r\n".to_vec(),
        Outcome::NotFound => b"NOT_FOUND\r\n".to_vec(),
        Outcome::Failed(failure) => failure.line().into_bytes(),
    }
}

fn write_items(keys: &[Vec<u8>], tokens: bool, answers: &[Reply], out: &mut Vec<u8>) {
    let start = out.len();
    for (key, answer) in keys.iter().zip(answers) {
        if let Some(failure) = store::failure(answer) {
            // Items that were found before it would make the client believe that the others do not exist.
            out.truncate(start);
            out.extend_from_slice(failure.line().as_bytes());
            return;
        }
        let Some((value, flags, token)) = store::item(answer) else {
            continue;
        };
        out.extend_from_slice(b"VALUE ");
        out.extend_from_slice(key);
        out.push(b' ');
        push_u64(out, u64::from(flags));
        out.push(b' ');
        push_u64(out, u64::try_from(value.len()).unwrap_or(u64::MAX));
        if tokens {
            out.push(b' ');
            push_u64(out, token.cast_unsigned());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"END\r\n");
}

/// Works on the command at the start of the input.
pub(super) fn handle(work: &mut Work<'_, '_>, input: &[u8]) -> Handled {
    let window = input.get(..MAX_LINE.min(input.len())).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', window) else {
        if input.len() >= MAX_LINE {
            work.server.stats.protocol_errors += 1;
            work.write(b"CLIENT_ERROR line too long\r\n");
            return Handled::Close;
        }
        return Handled::Incomplete(input.len() + 1);
    };
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let next = end + 1;
    let words: Vec<&[u8]> = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .collect();
    let Some((name, words)) = words.split_first() else {
        work.write(b"ERROR\r\n");
        return Handled::Consumed(next);
    };
    match *name {
        b"get" => items(work, "get", words, None, false),
        b"gets" => items(work, "gets", words, None, true),
        b"gat" => get_and_touch(work, "gat", words, false),
        b"gats" => get_and_touch(work, "gats", words, true),
        b"set" => return storage(work, "set", words, input, next),
        b"add" => return storage(work, "add", words, input, next),
        b"replace" => return storage(work, "replace", words, input, next),
        b"append" => return storage(work, "append", words, input, next),
        b"prepend" => return storage(work, "prepend", words, input, next),
        b"cas" => return storage(work, "cas", words, input, next),
        b"delete" => delete(work, words),
        b"touch" => touch(work, words),
        b"incr" => count(work, "incr", words, false),
        b"decr" => count(work, "decr", words, true),
        b"mg" | b"ms" | b"md" | b"ma" | b"mn" | b"me" => {
            return meta::handle(work, name, words, input, next);
        }
        b"version" => {
            work.count("version");
            work.write(format!("VERSION {VERSION}\r\n").as_bytes());
        }
        b"verbosity" => {
            work.count("verbosity");
            if words.last() != Some(&b"noreply".as_slice()) {
                work.write(b"OK\r\n");
            }
        }
        b"stats" => stats(work),
        b"quit" => {
            work.count("quit");
            return Handled::Close;
        }
        b"flush_all" => {
            work.server.stats.count_unsupported("flush_all");
            work.write(b"SERVER_ERROR flush_all is refused: it would log out the users of every pod\r\n");
        }
        _ => {
            let known = [
                "slabs",
                "lru",
                "watch",
                "cache_memlimit",
                "shutdown",
                "misbehave",
                "lru_crawler",
            ];
            let known = known
                .into_iter()
                .find(|known| known.as_bytes() == *name)
                .unwrap_or("other");
            work.server.stats.count_unsupported(known);
            work.write(b"ERROR\r\n");
        }
    }
    Handled::Consumed(next)
}

fn is_key(key: &[u8]) -> bool {
    (1..=MAX_KEY).contains(&key.len())
}

fn items(work: &mut Work<'_, '_>, name: &'static str, words: &[&[u8]], expiry: Option<Expiry>, tokens: bool) {
    work.count(name);
    if words.is_empty() {
        return work.write(b"ERROR\r\n");
    }
    if !words.iter().all(|key| is_key(key)) {
        return work.write(BAD_FORMAT);
    }
    let commands: Vec<Command<'_>> = words
        .iter()
        .map(|key| match expiry {
            None => Command::Key { key, op: Op::GetItem },
            Some(expiry) => store::touch(key, expiry, true),
        })
        .collect();
    let keys = words.iter().map(|key| key.to_vec()).collect();
    work.ask(&commands, super::Finish::Text(Finish::Items { keys, tokens }));
}

fn get_and_touch(work: &mut Work<'_, '_>, name: &'static str, words: &[&[u8]], tokens: bool) {
    let Some((exptime, keys)) = words.split_first() else {
        return work.write(b"ERROR\r\n");
    };
    match parse_i64(exptime) {
        Some(exptime) => {
            let expiry = Expiry::new(exptime, work.now_ms());
            items(work, name, keys, Some(expiry), tokens);
        }
        None => work.write(b"CLIENT_ERROR invalid exptime argument\r\n"),
    }
}

/// `noreply` at the end of a line.
fn or_silent(words: &[&[u8]], at: usize, finish: Finish) -> super::Finish {
    super::Finish::Text(if words.get(at) == Some(&b"noreply".as_slice()) {
        Finish::Silent
    } else {
        finish
    })
}

fn storage(
    work: &mut Work<'_, '_>,
    name: &'static str,
    words: &[&[u8]],
    input: &[u8],
    next: usize,
) -> Handled {
    let handled = try_storage(work, name, words, input, next);
    if !matches!(handled, Handled::Incomplete(_)) {
        work.count(name);
    }
    handled
}

fn try_storage(
    work: &mut Work<'_, '_>,
    name: &'static str,
    words: &[&[u8]],
    input: &[u8],
    next: usize,
) -> Handled {
    let number = |place: usize| words.get(place).copied().and_then(parse_i64);
    let (Some(key), Some(flags), Some(exptime), Some(length)) = (
        words.first().copied(),
        number(1).and_then(|flags| u32::try_from(flags).ok()),
        number(2),
        number(3).and_then(|length| usize::try_from(length).ok()),
    ) else {
        work.write(if words.len() < 4 { b"ERROR\r\n" } else { BAD_FORMAT });
        return Handled::Consumed(next);
    };
    let mode = match name {
        "add" => Mode::Add,
        "replace" => Mode::Replace,
        "append" => Mode::Append,
        "prepend" => Mode::Prepend,
        "cas" => {
            if let Some(token) = number(4) {
                Mode::Cas(token)
            } else {
                work.write(BAD_FORMAT);
                return Handled::Swallow(next, length.saturating_add(2));
            }
        }
        _ => Mode::Set,
    };
    if !is_key(key) {
        work.write(BAD_FORMAT);
        return Handled::Swallow(next, length.saturating_add(2));
    }
    let finish = or_silent(words, if name == "cas" { 5 } else { 4 }, Finish::Stored);
    if length > work.max_value() {
        work.write(b"SERVER_ERROR object too large for cache\r\n");
        return Handled::Swallow(next, length.saturating_add(2));
    }
    let end = next + length;
    match input.get(end..end + 2) {
        None => return Handled::Incomplete(end + 2),
        Some(b"\r\n") => {}
        Some(_) => {
            // As memcached does: what it takes for the data's end is dropped, and it goes on behind that.
            work.write(b"CLIENT_ERROR bad data chunk\r\n");
            return Handled::Consumed(end + 2);
        }
    }
    let value = input.get(next..end).unwrap_or_default();
    let expiry = Expiry::new(exptime, work.now_ms());
    work.ask(&[store::store(mode, key, value, flags, expiry)], finish);
    Handled::Consumed(end + 2)
}

fn delete(work: &mut Work<'_, '_>, words: &[&[u8]]) {
    work.count("delete");
    match words.first() {
        Some(key) if is_key(key) => {
            // A second word 0 is what is left of a time that old clients give.
            let place = if words.get(1) == Some(&b"0".as_slice()) {
                2
            } else {
                1
            };
            let finish = or_silent(words, place, Finish::Deleted);
            work.ask(&[store::delete(key, None)], finish);
        }
        Some(_) => work.write(BAD_FORMAT),
        None => work.write(b"ERROR\r\n"),
    }
}

fn touch(work: &mut Work<'_, '_>, words: &[&[u8]]) {
    work.count("touch");
    match (words.first(), words.get(1).copied().and_then(parse_i64)) {
        (Some(key), Some(exptime)) if is_key(key) => {
            let expiry = Expiry::new(exptime, work.now_ms());
            let finish = or_silent(words, 2, Finish::Touched);
            work.ask(&[store::touch(key, expiry, false)], finish);
        }
        (Some(_), None) if words.len() > 1 => work.write(b"CLIENT_ERROR invalid exptime argument\r\n"),
        (Some(_), Some(_)) => work.write(BAD_FORMAT),
        _ => work.write(b"ERROR\r\n"),
    }
}

fn count(work: &mut Work<'_, '_>, name: &'static str, words: &[&[u8]], down: bool) {
    work.count(name);
    let by = words
        .get(1)
        .and_then(|word| std::str::from_utf8(word).ok())
        .and_then(|word| word.parse::<u64>().ok());
    match (words.first(), by) {
        (Some(key), Some(by)) if is_key(key) => {
            let finish = or_silent(words, 2, Finish::Counted);
            work.ask(
                &[Command::Key {
                    key,
                    op: Op::Counter {
                        by,
                        down,
                        initial: None,
                    },
                }],
                finish,
            );
        }
        (Some(_), None) if words.len() > 1 => work.write(b"CLIENT_ERROR invalid numeric delta argument\r\n"),
        (Some(_), Some(_)) => work.write(BAD_FORMAT),
        _ => work.write(b"ERROR\r\n"),
    }
}

fn stats(work: &mut Work<'_, '_>) {
    work.count("stats");
    let uptime = work.now_ms().saturating_sub(work.server.started_ms) / 1_000;
    let pairs = [
        ("uptime", uptime),
        ("time", work.now_ms() / 1_000),
        ("curr_connections", work.server.stats.connections_open),
        ("total_connections", work.server.stats.connections_accepted),
        ("get_hits", work.server.stats.hits),
        ("get_misses", work.server.stats.misses),
        (
            "limit_maxbytes",
            u64::try_from(work.server.settings.memory_limit).unwrap_or(u64::MAX),
        ),
        (
            "bytes",
            u64::try_from(work.server.used_memory).unwrap_or(u64::MAX),
        ),
    ];
    work.write(b"STAT pid ");
    push_i64(work.out, i64::from(std::process::id()));
    work.write(format!("\r\nSTAT version {VERSION}\r\n").as_bytes());
    for (name, value) in pairs {
        work.write(format!("STAT {name} {value}\r\n").as_bytes());
    }
    work.write(b"END\r\n");
}
