//! Groups: keys that belong to one session share its home, so that a lock and what it protects are decided in one
//! place.

use std::borrow::Cow;

use memchr::memchr;

use super::config::GroupRules;
use super::node::Core;
use crate::store::key_hash;

/// What is worked out of a key once per command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    /// The hash of the key that all members agree on.
    pub(super) hash: u64,
    /// The partition of its group.
    pub(super) partition: u16,
    /// Whether it is a lock's.
    pub(super) lock: bool,
}

impl Core {
    /// Where a key belongs.
    pub(super) fn locate(&self, key: &[u8]) -> Located {
        let rules = &self.config.groups;
        let hash = key_hash(key);
        let group = match group_of(rules, key) {
            Cow::Borrowed(group) if group.len() == key.len() => hash,
            group => key_hash(&group),
        };
        Located {
            hash,
            partition: self.partition_of_group(group),
            lock: is_lock(rules, key),
        }
    }

    /// The partition of a key.
    pub(super) fn partition(&self, key: &[u8]) -> u16 {
        self.partition_of_group(key_hash(&group_of(&self.config.groups, key)))
    }

    fn partition_of_group(&self, hash: u64) -> u16 {
        u16::try_from(hash % u64::from(self.config.partitions.max(1))).unwrap_or_default()
    }
}

/// The part of the key that decides about its home: what stands in braces if anything does (as in Redis Cluster), the
/// session's key for locks and satellites, else the key.
pub fn group_of<'a>(rules: &GroupRules, key: &'a [u8]) -> Cow<'a, [u8]> {
    if let Some(tag) = hash_tag(key) {
        return Cow::Borrowed(tag);
    }
    for (prefix, replacement) in &rules.satellites {
        if let Some(rest) = without_prefix(key, prefix) {
            let same = replacement.is_empty();
            return if same {
                Cow::Borrowed(rest)
            } else {
                Cow::Owned([replacement, rest].concat())
            };
        }
    }
    match lock_target(rules, key) {
        Some(target) => Cow::Borrowed(target),
        None => Cow::Borrowed(key),
    }
}

/// Whether a key is a lock's.
pub fn is_lock(rules: &GroupRules, key: &[u8]) -> bool {
    lock_target(rules, key).is_some()
}

fn lock_target<'a>(rules: &GroupRules, key: &'a [u8]) -> Option<&'a [u8]> {
    rules.locks.iter().find_map(|(prefix, suffix)| {
        // The last byte says no to nearly every key before anything is compared.
        if !suffix.is_empty() && suffix.last() != key.last() {
            return None;
        }
        without_prefix(key, prefix)?.strip_suffix(suffix.as_slice())
    })
}

/// `strip_prefix`, which looks at one byte before it compares more.
fn without_prefix<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    if !prefix.is_empty() && prefix.first() != key.first() {
        return None;
    }
    key.strip_prefix(prefix)
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr(b'{', key)?;
    let rest = key.get(open + 1..)?;
    let close = memchr(b'}', rest)?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_satellites_share_the_group_of_their_session() {
        let rules = GroupRules::default();
        for (key, group, lock) in [
            ("PHPREDIS_SESSION:abc", "PHPREDIS_SESSION:abc", false),
            ("PHPREDIS_SESSION:abc_LOCK", "PHPREDIS_SESSION:abc", true),
            ("memc.sess.key.lock.abc", "memc.sess.key.abc", true),
            ("memc.sess.key.abc", "memc.sess.key.abc", false),
            ("lock:abc", "abc", true),
            (
                "spring:session:sessions:expires:abc",
                "spring:session:sessions:abc",
                false,
            ),
            ("a{tag}b", "tag", false),
            ("a{}b", "a{}b", false),
            ("{a", "{a", false),
        ] {
            assert_eq!(&*group_of(&rules, key.as_bytes()), group.as_bytes(), "{key}");
            assert_eq!(is_lock(&rules, key.as_bytes()), lock, "{key}");
        }
    }
}
