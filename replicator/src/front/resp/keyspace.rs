//! Databases: SELECT's numbers, folded into the keys.
//!
//! Database 0 uses keys as they are, so that RESP clients and memcached clients see the same entries. A key of another
//! database, or one that begins with the mark itself, gets a prefix of two bytes: the mark and the number.

/// Begins a key that carries its database. No known handler makes keys that begin with it.
const MARK: u8 = 0;
/// Bytes of the prefix.
pub const PREFIX: usize = 2;

/// Whether a key can be stored as it is.
pub fn is_plain(database: u8, key: &[u8]) -> bool {
    database == 0 && key.first() != Some(&MARK)
}

/// Appends the stored form of a key.
pub fn encode(database: u8, key: &[u8], out: &mut Vec<u8>) {
    if !is_plain(database, key) {
        out.extend_from_slice(&[MARK, database]);
    }
    out.extend_from_slice(key);
}

/// The database and the client's name of a stored key.
pub fn decode(stored: &[u8]) -> (u8, &[u8]) {
    match stored {
        [MARK, database, key @ ..] => (*database, key),
        key => (0, key),
    }
}

/// Appends a glob that matches the stored keys of a database that match `pattern`. In database 0 it matches too much:
/// what [`decode`] gives has to be checked.
pub fn encode_pattern(database: u8, pattern: &[u8], out: &mut Vec<u8>) {
    if database != 0 {
        // Neither byte is special in a glob: the mark is NUL and databases are numbered below 16.
        out.extend_from_slice(&[MARK, database]);
    }
    out.extend_from_slice(pattern);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_tell_their_database() {
        for (database, key) in [
            (0, b"a".as_slice()),
            (0, b"\0a"),
            (3, b"a"),
            (3, b""),
            (0, b""),
            (1, b"\0\x01a"),
        ] {
            let mut stored = Vec::new();
            encode(database, key, &mut stored);
            assert_eq!(decode(&stored), (database, key));
        }
    }
}
