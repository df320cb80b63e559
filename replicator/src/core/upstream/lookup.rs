//! Looking up what is not known here, and going on with the commands that wait for it.

use super::{Fetched, Fetching, Stored, Suspended};
use crate::core::Reply;
use crate::core::acknowledge::Outcome;
use crate::core::client::Base;
use crate::core::clock::Now;
use crate::core::command::{Command, CommandError, Condition, Op, Restored, SetExpiry};
use crate::core::decide::Verdict;
use crate::core::groups::is_lock;
use crate::core::io::Output;
use crate::core::node::Core;
use crate::core::version::Version;
use crate::core::wire::{OLDEST, decode_command};
use crate::store::key_hash;

impl Op<'_> {
    /// Whether what it does depends on what is there.
    fn looks(&self) -> bool {
        match self {
            Self::Set {
                expiry,
                condition,
                want_old,
                ..
            } => *want_old || *condition != Condition::Always || *expiry == SetExpiry::Keep,
            Self::Restore { only_absent, .. } => *only_absent,
            Self::Bury { .. } => false,
            _ => true,
        }
    }
}

impl Core {
    /// The first key of a command that has to be looked up in the upstream store before it can be decided.
    pub(in crate::core) fn unknown_key<'c>(&self, now: Now, command: &Command<'c>) -> Option<&'c [u8]> {
        let upstream = self.upstream.as_ref()?;
        let keys = match command {
            Command::Key { key, op } if op.looks() => vec![*key],
            Command::Rename { from, .. } => vec![*from],
            Command::Transaction { .. } => command.keys(),
            _ => return None,
        };
        keys.into_iter().find(|key| {
            upstream.concerns(key)
                && self.store.lookup(key).is_none()
                && (now.mono_ms < upstream.locks_until_ms || !is_lock(&self.config.groups, key))
                && !upstream.absent.contains(&key_hash(key))
        })
    }

    /// Has a key looked up; the command goes on afterwards.
    pub(in crate::core) fn look_upstream(
        &mut self,
        now: Now,
        key: &[u8],
        suspended: Suspended,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let number = self.next_number();
        let busy = refusal(CommandError::Busy, key);
        let Some(upstream) = &mut self.upstream else {
            return Verdict::Done(busy);
        };
        if let Some(fetching) = upstream.fetching.values_mut().find(|f| *f.key == *key) {
            if fetching.held.len() >= self.config.max_pending {
                return Verdict::Done(busy);
            }
            fetching.held.push(suspended);
            return Verdict::Waiting;
        }
        if upstream.fetching.len() >= self.config.max_fetches {
            return Verdict::Done(busy);
        }
        let deadline_ms = now.mono_ms + self.config.upstream_timeout_ms;
        upstream.fetching.insert(
            number,
            Fetching {
                key: key.into(),
                held: vec![suspended],
                deadline_ms,
            },
        );
        out.push(Output::Fetch {
            number,
            key: key.into(),
        });
        Verdict::Waiting
    }

    /// The upstream store has answered, or failed to.
    pub(in crate::core) fn on_fetched(
        &mut self,
        now: Now,
        number: u64,
        fetched: &Fetched,
        out: &mut Vec<Output>,
    ) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let Some(Fetching { key, held, .. }) = upstream.fetching.remove(&number) else {
            return;
        };
        match fetched {
            Fetched::Found { .. } => upstream.counts.fetched += 1,
            Fetched::Nothing | Fetched::Foreign => upstream.counts.missed += 1,
            Fetched::Failed => upstream.counts.failed += 1,
        }
        let partition = self.partition(&key);
        let refused = match fetched {
            Fetched::Failed => Some(CommandError::UpstreamUnreachable),
            Fetched::Foreign => Some(CommandError::WrongType),
            Fetched::Found { stored, expires_ms } if self.homes.acts(partition) => {
                if self.make_room(now, partition) {
                    self.take_in(now, &key, stored, *expires_ms);
                    None
                } else {
                    Some(CommandError::OutOfMemory)
                }
            }
            Fetched::Found { .. } | Fetched::Nothing => None,
        };
        let hash = key_hash(&key);
        if let Some(upstream) = &mut self.upstream {
            upstream.absent.insert(hash);
        }
        for suspended in held {
            match refused {
                Some(error) => self.deliver(now, suspended.asking.asker, refusal(error, &key), out),
                None => self.go_on_with(now, &suspended, out),
            }
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.absent.remove(&hash);
        }
    }

    /// Puts what the upstream has where nothing is. It need not be told there.
    fn take_in(&mut self, now: Now, key: &[u8], stored: &Stored, expires_ms: u64) {
        let content = match stored {
            Stored::String(value) => Restored::String { value, flags: 0 },
            Stored::Fields(kind, fields) => Restored::Fields {
                kind: *kind,
                fields: fields.iter().map(|(n, v)| (&**n, &**v)).collect(),
            },
        };
        let op = Op::Restore {
            content,
            expires_ms,
            only_absent: true,
        };
        self.changes.clear();
        self.apply(now, Base::Unknown, None, key, self.locate(key), &op);
        self.set_quiet(true);
        self.publish();
        self.set_quiet(false);
    }

    fn set_quiet(&mut self, quiet: bool) {
        if let Some(upstream) = &mut self.upstream {
            upstream.quiet = quiet;
        }
    }

    /// A command whose key has been looked up.
    fn go_on_with(&mut self, now: Now, suspended: &Suspended, out: &mut Vec<Output>) {
        let asking = suspended.asking;
        let asker = asking.asker;
        let Ok(command) = decode_command(OLDEST, &suspended.command) else {
            return self.deliver(now, asker, refusal(CommandError::Malformed, &[]), out);
        };
        let place = self.locate(command.key().unwrap_or_default());
        if self.homes.acts(place.partition) {
            match self.decide(now, asking, &command, place, out) {
                Verdict::Done(outcome) => return self.deliver(now, asker, outcome, out),
                Verdict::Waiting => return,
                Verdict::NotYet => {}
            }
        }
        // Another member has become the home meanwhile, or this one has to wait for its say.
        self.ask(now, asking, &command, out);
    }

    /// Gives up look-ups that take too long.
    pub(in crate::core) fn expire_fetches(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(upstream) = &self.upstream else { return };
        let late: Vec<u64> = upstream
            .fetching
            .iter()
            .filter(|(_, fetching)| fetching.deadline_ms <= now.mono_ms)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.on_fetched(now, number, &Fetched::Failed, out);
        }
    }

    /// When the next look-up is given up, `mono_ms`.
    pub(in crate::core) fn next_fetch_ms(&self) -> u64 {
        let fetching = self.upstream.iter().flat_map(|u| u.fetching.values());
        fetching.map(|f| f.deadline_ms).min().unwrap_or(u64::MAX)
    }
}

fn refusal(error: CommandError, key: &[u8]) -> Outcome {
    Outcome {
        reply: Reply::Error(error),
        read: false,
        key: key_hash(key),
        found: Version::ZERO,
        lock: None,
    }
}
