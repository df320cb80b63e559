//! Groups: keys that belong to one session share its home, so that a lock and what it protects are decided in one
//! place.

use std::borrow::Cow;

use super::config::GroupRules;

/// The part of the key that decides about its home: what stands in braces if anything does (as in Redis Cluster), the
/// session's key for locks and satellites, else the key.
pub fn group_of<'a>(rules: &GroupRules, key: &'a [u8]) -> Cow<'a, [u8]> {
    if let Some(tag) = hash_tag(key) {
        return Cow::Borrowed(tag);
    }
    for (prefix, replacement) in &rules.satellites {
        if let Some(rest) = key.strip_prefix(prefix.as_slice()) {
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
        key.strip_prefix(prefix.as_slice())?
            .strip_suffix(suffix.as_slice())
    })
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&c| c == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|&c| c == b'}')?;
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
