//! What the controller remembers of each store between reconciles. All of it may be lost: another leader finds out again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::acl::Users;
use super::login::Login;
use super::material::Material;

/// How long the user of a prefix that no policy names any more is kept: pods that are being replaced still use it.
const UNUSED_GRACE: Duration = Duration::from_mins(1);

/// How long a volume that could not be changed is left alone.
const REFUSAL_PERIOD: Duration = Duration::from_hours(1);

/// How long writes that were refused are told of.
const REFUSED_WRITES_PERIOD: Duration = Duration::from_mins(5);

/// What is remembered of one store.
#[derive(Debug, Default)]
struct Entry {
    /// By server: its run that was told of users, and the hash of their file.
    told: BTreeMap<String, (String, u64)>,
    /// Passwords as they last were.
    passwords: Passwords,
    /// Prefixes that no policy names, since when.
    unused: BTreeMap<String, Instant>,
    /// Size of the volume that was refused, why, and when.
    refused: Option<(i64, String, Instant)>,
    /// Writes that a server has refused since it started, how many of them lately, and when the last of these was noticed.
    refused_writes: Option<(i64, i64, Instant)>,
}

/// Passwords as they last were, for Secrets that are lost.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    /// The operator's own.
    pub admin: Option<Login>,
    /// By which servers follow each other.
    pub replication: Option<Login>,
    /// By key prefix.
    pub prefixes: BTreeMap<String, Login>,
    /// What servers were told of all.
    pub users: Users,
}

/// What is remembered, by namespace/name.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Entry>>);

impl Memory {
    fn with<T>(&self, store: &str, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(entries.entry(store.to_owned()).or_default())
    }

    /// Forgets a store that is gone.
    pub fn forget(&self, store: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(store);
    }

    /// Whether this run of a server was told of these users.
    pub fn was_told(&self, store: &str, server: &str, run: &str, users: u64) -> bool {
        self.with(store, |entry| {
            entry
                .told
                .get(server)
                .is_some_and(|told| told.0 == run && told.1 == users)
        })
    }

    /// Notes which users this run of a server was told of.
    pub fn note_told(&self, store: &str, server: &str, run: &str, users: u64) {
        self.with(store, |entry| {
            entry.told.insert(server.to_owned(), (run.to_owned(), users))
        });
    }

    /// Passwords as they last were.
    pub fn passwords(&self, store: &str) -> Passwords {
        self.with(store, |entry| entry.passwords.clone())
    }

    /// Notes the passwords as they are.
    pub fn note_passwords(&self, store: &str, material: &Material) {
        self.with(store, |entry| {
            entry.passwords = Passwords {
                admin: Some(material.admin.clone()),
                replication: material.replication.clone(),
                prefixes: material.logins.clone(),
                users: material.users.clone(),
            };
        });
    }

    /// Which of the prefixes that have a user are kept although no policy names them. `settling` says that pods of some
    /// policy are still to be replaced: nobody knows what they use.
    pub fn kept(
        &self,
        store: &str,
        unused: impl Iterator<Item = String>,
        settling: bool,
        now: Instant,
    ) -> BTreeSet<String> {
        self.with(store, |entry| {
            let former = std::mem::take(&mut entry.unused);
            entry.unused = unused
                .map(|prefix| {
                    let since = former.get(&prefix).copied().filter(|_| !settling).unwrap_or(now);
                    (prefix, since)
                })
                .collect();
            entry
                .unused
                .iter()
                .filter(|(_, since)| now.saturating_duration_since(**since) < UNUSED_GRACE)
                .map(|(prefix, _)| prefix.clone())
                .collect()
        })
    }

    /// Why the volume could not get this size a short while ago.
    pub fn refused_size(&self, store: &str, size: i64, now: Instant) -> Option<String> {
        self.with(store, |entry| {
            let (refused, why, since) = entry.refused.as_ref()?;
            (*refused == size && now.saturating_duration_since(*since) < REFUSAL_PERIOD).then(|| why.clone())
        })
    }

    /// How many writes a server has refused lately, by how many it has refused since it started. Of those before the first look
    /// nobody knows when they were.
    pub fn refused_writes(&self, store: &str, since_start: i64, now: Instant) -> i64 {
        self.with(store, |entry| {
            let (before, lately, noticed) = entry.refused_writes.unwrap_or((since_start, 0, now));
            // A server that was restarted counts anew.
            let new = if since_start < before {
                since_start
            } else {
                since_start - before
            };
            let is_recent = now.saturating_duration_since(noticed) < REFUSED_WRITES_PERIOD;
            let lately = if is_recent { lately + new } else { new };
            let noticed = if new > 0 { now } else { noticed };
            entry.refused_writes = Some((since_start, lately, noticed));
            lately
        })
    }

    /// Notes that the volume could not get this size.
    pub fn note_refused_size(&self, store: &str, size: i64, why: &str, now: Instant) {
        self.with(store, |entry| entry.refused = Some((size, why.to_owned(), now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_nobody_names_is_kept_for_a_while_and_while_pods_are_replaced() {
        let memory = Memory::default();
        let start = Instant::now();
        let kept = |settling, after| {
            let prefixes = memory.kept(
                "web/sessions",
                ["shop".to_owned()].into_iter(),
                settling,
                start + after,
            );
            !prefixes.is_empty()
        };
        assert!(kept(false, Duration::ZERO));
        assert!(kept(true, UNUSED_GRACE * 2), "pods are being replaced");
        assert!(kept(false, UNUSED_GRACE * 5 / 2));
        assert!(!kept(false, UNUSED_GRACE * 3));
        memory.kept("web/sessions", std::iter::empty(), false, start);
        assert!(kept(false, UNUSED_GRACE * 3), "it was named in between");
    }

    #[test]
    fn a_refused_size_is_tried_again_later_and_another_size_at_once() {
        let memory = Memory::default();
        let start = Instant::now();
        memory.note_refused_size("web/sessions", 2, "no", start);
        assert_eq!(
            memory.refused_size("web/sessions", 2, start).as_deref(),
            Some("no")
        );
        assert_eq!(memory.refused_size("web/sessions", 3, start), None);
        assert_eq!(
            memory.refused_size("web/sessions", 2, start + REFUSAL_PERIOD),
            None
        );
    }

    #[test]
    fn refused_writes_are_told_for_a_while_also_of_a_server_that_was_restarted() {
        let memory = Memory::default();
        let start = Instant::now();
        let told = |count, after| memory.refused_writes("web/sessions", count, start + after);
        assert_eq!(told(7, Duration::ZERO), 0, "nobody knows when they were");
        assert_eq!(told(9, Duration::from_mins(1)), 2);
        assert_eq!(told(9, Duration::from_mins(5)), 2);
        assert_eq!(told(9, REFUSED_WRITES_PERIOD + Duration::from_mins(1)), 0);
        assert_eq!(told(3, Duration::from_mins(20)), 3);
        assert_eq!(told(4, Duration::from_mins(21)), 4);
    }

    #[test]
    fn a_server_that_was_restarted_was_told_nothing() {
        let memory = Memory::default();
        memory.note_told("web/sessions", "sessions-0", "run-1", 7);
        assert!(memory.was_told("web/sessions", "sessions-0", "run-1", 7));
        assert!(!memory.was_told("web/sessions", "sessions-1", "run-1", 7));
        assert!(!memory.was_told("web/sessions", "sessions-0", "run-2", 7));
        assert!(!memory.was_told("web/sessions", "sessions-0", "run-1", 8));
        memory.forget("web/sessions");
        assert!(!memory.was_told("web/sessions", "sessions-0", "run-1", 7));
    }
}
