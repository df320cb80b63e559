//! Scripts: no Lua, but the scripts that session handlers and lock libraries really send, recognised by their text and
//! run natively. Blanks and line breaks do not matter, so a new release of a library that only indents differently
//! still matches. Any other script is refused and counted.

use std::collections::BTreeMap;

use super::{Combine, Context, Plan, Planned, Refusal, at, integer, is_word, on_key, shown};
use crate::core::{Command, Condition, ExpireCondition, Op, SetExpiry};
use crate::front::resp::render::Render;
use crate::front::resp::request::Arguments;

/// Distinct spellings of recognised scripts that are remembered for EVALSHA.
const MAX_LOADED: usize = 256;
/// The longest text that is compared; every recognised script is far shorter.
const MAX_TEXT: usize = 4_096;

/// What a recognised script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Delete the key if its value is `ARGV[1]`.
    DeleteIfEquals,
    /// Set the life of the key to `ARGV[2]` if its value is `ARGV[1]`.
    ExpireIfEquals {
        /// Milliseconds per unit of `ARGV[2]`.
        scale: i64,
    },
    /// redis-py's lock extension: as above, in milliseconds, on top of what is left if `ARGV[3]` is 0.
    ExtendIfEquals,
    /// Store `ARGV[1]` for `ARGV[2]` seconds if there is no such key.
    SetIfAbsent,
    /// Set the life of all keys to `ARGV[1]` milliseconds, with EXPIRE's option in `ARGV[2]`.
    ExpireAll,
    /// ASP.NET Core's cache entry: two expirations and the data as fields, and the life in seconds in `ARGV[3]`.
    AspNetSet,
}

/// Text, blanks normalised, and meaning. Beside each the library it comes from.
const RECOGNISED: [(&str, Script); 11] = [
    // phpredis' lock release, Laravel's releaseLock
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#,
        Script::DeleteIfEquals,
    ),
    // redis-py Lock: release
    (
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end \
         redis.call('del', KEYS[1]) return 1",
        Script::DeleteIfEquals,
    ),
    // redis-py Lock: reacquire
    (
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end \
         redis.call('pexpire', KEYS[1], ARGV[2]) return 1",
        Script::ExpireIfEquals { scale: 1 },
    ),
    // redis-py Lock: extend
    (
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end \
         local expiration = redis.call('pttl', KEYS[1]) if not expiration then expiration = 0 end \
         if expiration < 0 then return 0 end local newttl = ARGV[2] if ARGV[3] == \"0\" then \
         newttl = ARGV[2] + expiration end redis.call('pexpire', KEYS[1], newttl) return 1",
        Script::ExtendIfEquals,
    ),
    // Laravel's refreshLock, in seconds and in milliseconds
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("expire",KEYS[1],ARGV[2]) else return 0 end"#,
        Script::ExpireIfEquals { scale: 1_000 },
    ),
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("pexpire",KEYS[1],ARGV[2]) else return 0 end"#,
        Script::ExpireIfEquals { scale: 1 },
    ),
    // Laravel's cache: add
    (
        "return redis.call('exists',KEYS[1])<1 and redis.call('setex',KEYS[1],ARGV[2],ARGV[1])",
        Script::SetIfAbsent,
    ),
    // Redisson: expire, with and without an option
    (
        "local result = 0;for j = 1, #KEYS, 1 do local expireSet; if ARGV[2] ~= '' then expireSet = \
         redis.call('pexpire', KEYS[j], ARGV[1], ARGV[2]); else expireSet = redis.call('pexpire', KEYS[j], ARGV[1]); \
         end; if expireSet == 1 then result = expireSet;end; end; return result;",
        Script::ExpireAll,
    ),
    (
        "local result = 0;for j = 1, #KEYS, 1 do local expireSet = redis.call('pexpire', KEYS[j], ARGV[1]); \
         if expireSet == 1 then result = expireSet;end;end; return result;",
        Script::ExpireAll,
    ),
    // ASP.NET Core up to .NET 8, for servers from 4.0 and before
    (
        "redis.call('HSET', KEYS[1], 'absexp', ARGV[1], 'sldexp', ARGV[2], 'data', ARGV[4]) \
         if ARGV[3] ~= '-1' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end return 1",
        Script::AspNetSet,
    ),
    (
        "redis.call('HMSET', KEYS[1], 'absexp', ARGV[1], 'sldexp', ARGV[2], 'data', ARGV[4]) \
         if ARGV[3] ~= '-1' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end return 1",
        Script::AspNetSet,
    ),
];

/// A script's name: SHA-1 of its text, in hexadecimal.
pub type Sha = [u8; 40];

/// Scripts that clients have sent.
#[derive(Debug, Default)]
pub struct Scripts {
    loaded: BTreeMap<Sha, Script>,
}

impl Scripts {
    /// The script of this name, if it has been loaded.
    pub fn get(&self, name: &[u8]) -> Option<Script> {
        let name: Sha = name.to_ascii_lowercase().try_into().ok()?;
        self.loaded.get(&name).copied()
    }

    /// Recognises a script and remembers its name.
    pub fn load(&mut self, text: &[u8]) -> Option<(Sha, Script)> {
        let script = recognise(text)?;
        let name = sha(text);
        if self.loaded.len() >= MAX_LOADED {
            self.loaded.clear();
        }
        self.loaded.insert(name, script);
        Some((name, script))
    }

    /// Forgets all names.
    pub fn flush(&mut self) {
        self.loaded.clear();
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }
}

/// What a script does, if it is one of those that are known.
pub fn recognise(text: &[u8]) -> Option<Script> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let normal = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    RECOGNISED
        .iter()
        .find(|(known, _)| *known == normal)
        .map(|(_, script)| *script)
}

fn sha(text: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text);
    let mut name = [b'0'; 40];
    let nibbles = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (slot, nibble) in name.iter_mut().zip(nibbles) {
        *slot = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    }
    name
}

fn unknown_script(context: &mut Context<'_>) -> Refusal {
    context.server.stats.count_unsupported(context.name);
    Refusal::Other(
        "ERR this script is not one of those that are recognised; Lua is not run here (see the metric \
         unsupported commands)",
    )
}

/// EVAL script numkeys key … arg …
pub fn eval<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let (keys, values) = split(&arguments)?;
    match context.server.scripts.load(at(&arguments, 1)?) {
        Some((_, script)) => plan(script, context, &keys, &values),
        None => Err(unknown_script(context)),
    }
}

/// EVALSHA sha1 numkeys key … arg …
pub fn evalsha<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let (keys, values) = split(&arguments)?;
    match context.server.scripts.get(at(&arguments, 1)?) {
        Some(script) => plan(script, context, &keys, &values),
        None => Err(Refusal::Other("NOSCRIPT No matching script. Please use EVAL.")),
    }
}

/// Keys and values of a script.
type KeysAndValues<'a> = (Vec<&'a [u8]>, Vec<&'a [u8]>);

fn split<'a>(arguments: &Arguments<'a>) -> Result<KeysAndValues<'a>, Refusal> {
    let count = integer(at(arguments, 2)?)?;
    let count = usize::try_from(count).map_err(|_| Refusal::Other("ERR Number of keys can't be negative"))?;
    if count > arguments.len() - 3 {
        return Err(Refusal::Other(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok((
        arguments.from(3).take(count).collect(),
        arguments.from(3 + count).collect(),
    ))
}

fn plan<'a>(script: Script, context: &Context<'_>, keys: &[&'a [u8]], values: &[&'a [u8]]) -> Planned<'a> {
    const MISSING: Refusal = Refusal::Other("ERR the script needs more keys or arguments than were given");
    let value = |place: usize| values.get(place).copied().ok_or(MISSING);
    let key = keys.first().copied().ok_or(MISSING)?;
    match script {
        Script::DeleteIfEquals => on_key(
            key,
            Op::Delete {
                condition: Condition::Equals(value(0)?),
            },
            Render::Plain,
        ),
        Script::ExpireIfEquals { scale } => {
            let at_ms = in_future(context.now_ms, value(1)?, scale)?;
            on_key(
                key,
                Op::ExpireIfEquals {
                    value: value(0)?,
                    at_ms,
                },
                Render::Plain,
            )
        }
        Script::ExtendIfEquals if value(2)? == b"0" => Ok(Plan::Extend {
            key,
            value: value(0)?,
            by_ms: integer(value(1)?)?,
        }),
        Script::ExtendIfEquals => {
            let at_ms = in_future(context.now_ms, value(1)?, 1)?;
            on_key(
                key,
                Op::ExpireIfEquals {
                    value: value(0)?,
                    at_ms,
                },
                Render::Plain,
            )
        }
        Script::SetIfAbsent => {
            let expiry = SetExpiry::At(in_future(context.now_ms, value(1)?, 1_000)?);
            let condition = Condition::Absent;
            on_key(
                key,
                Op::Set {
                    value: value(0)?,
                    flags: 0,
                    expiry,
                    condition,
                    want_old: false,
                },
                Render::Plain,
            )
        }
        Script::ExpireAll => {
            let at_ms = in_future(context.now_ms, value(0)?, 1)?;
            let condition = expire_condition(values.get(1).copied().unwrap_or_default())?;
            let commands = keys
                .iter()
                .map(|key| Command::Key {
                    key,
                    op: Op::Expire { at_ms, condition },
                })
                .collect();
            Ok(Plan::Many(commands, Combine::Any))
        }
        Script::AspNetSet => {
            let fields = vec![
                (b"absexp".as_slice(), value(0)?),
                (b"sldexp".as_slice(), value(1)?),
                (b"data".as_slice(), value(3)?),
            ];
            let mut steps = vec![(
                key,
                Op::PutFields {
                    kind: crate::core::Kind::Hash,
                    fields,
                    only_absent: false,
                },
            )];
            if value(2)? != b"-1" {
                let at_ms = in_future(context.now_ms, value(2)?, 1_000)?;
                steps.push((
                    key,
                    Op::Expire {
                        at_ms,
                        condition: ExpireCondition::Always,
                    },
                ));
            }
            Ok(Plan::One(
                Command::Transaction {
                    watches: Vec::new(),
                    steps,
                },
                Render::Number(1),
            ))
        }
    }
}

fn in_future(now_ms: u64, amount: &[u8], scale: i64) -> Result<u64, Refusal> {
    let amount = integer(amount)?.checked_mul(scale).ok_or(Refusal::NotInteger)?;
    Ok(now_ms.saturating_add_signed(amount))
}

fn expire_condition(option: &[u8]) -> Result<ExpireCondition, Refusal> {
    match option {
        b"" => Ok(ExpireCondition::Always),
        word if is_word(word, "NX") => Ok(ExpireCondition::NoExpiry),
        word if is_word(word, "XX") => Ok(ExpireCondition::HasExpiry),
        word if is_word(word, "GT") => Ok(ExpireCondition::Later),
        word if is_word(word, "LT") => Ok(ExpireCondition::Earlier),
        other => Err(Refusal::Detailed(format!(
            "ERR Unsupported option {}",
            shown(other)
        ))),
    }
}

/// SCRIPT LOAD|EXISTS|FLUSH …
pub fn script<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let subcommand = at(&arguments, 1)?;
    if is_word(subcommand, "LOAD") && arguments.len() == 3 {
        match context.server.scripts.load(at(&arguments, 2)?) {
            Some((name, _)) => context.writer.bulk(&name),
            None => return Err(unknown_script(context)),
        }
    } else if is_word(subcommand, "EXISTS") && arguments.len() > 2 {
        context.writer.array(arguments.len() - 2);
        for name in arguments.from(2) {
            context
                .writer
                .integer(i64::from(context.server.scripts.get(name).is_some()));
        }
    } else if is_word(subcommand, "FLUSH") {
        context.server.scripts.flush();
        context.writer.ok();
    } else {
        return Err(Refusal::Subcommand {
            command: "SCRIPT",
            name: shown(subcommand),
        });
    }
    Ok(Plan::Written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_libraries_compute() {
        for (text, name, script) in [
            (
                r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#
                    .to_owned(),
                "b70c2384248f88e6b75b9f89241a180f856ad852",
                Script::DeleteIfEquals,
            ),
            (
                "if redis.call(\"get\",KEYS[1]) == ARGV[1] then\n    return redis.call(\"del\",KEYS[1])\nelse\n    \
                 return 0\nend"
                    .to_owned(),
                "647c65a442733a1aa440f99908d249d13b4d6c4a",
                Script::DeleteIfEquals,
            ),
            (
                format!(
                    "{REDIS_PY_START}        redis.call('del', KEYS[1])\n        return 1\n    "
                ),
                "c3f8721cbb97f72bc19e972846bd7aaf91901658",
                Script::DeleteIfEquals,
            ),
            (
                format!(
                    "{REDIS_PY_START}        redis.call('pexpire', KEYS[1], ARGV[2])\n        return 1\n    "
                ),
                "1cac51482acf5858da00f6d685d68f886cd6b6b2",
                Script::ExpireIfEquals { scale: 1 },
            ),
            (
                "return redis.call('exists',KEYS[1])<1 and redis.call('setex',KEYS[1],ARGV[2],ARGV[1])".to_owned(),
                "a08c9c69b7c07ae2485190873b90d128a23e502d",
                Script::SetIfAbsent,
            ),
        ] {
            let (found, what) = Scripts::default().load(text.as_bytes()).unwrap();
            assert_eq!(std::str::from_utf8(&found).unwrap(), name);
            assert_eq!(what, script);
        }
    }

    const REDIS_PY_START: &str = "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= \
                                  ARGV[1] then\n            return 0\n        end\n";

    #[test]
    fn what_is_not_known_is_not_run() {
        let mut scripts = Scripts::default();
        assert!(scripts.load(b"return 1").is_none());
        assert!(scripts.is_empty());
    }

    #[test]
    fn memory_for_spellings_is_bounded() {
        let mut scripts = Scripts::default();
        for blanks in 0..2 * MAX_LOADED {
            let text = format!(
                "return redis.call('exists',KEYS[1])<1 and{} redis.call('setex',KEYS[1],ARGV[2],ARGV[1])",
                " ".repeat(blanks)
            );
            assert!(scripts.load(text.as_bytes()).is_some());
        }
        assert!(scripts.len() <= MAX_LOADED);
    }
}
