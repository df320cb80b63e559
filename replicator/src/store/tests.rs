use super::*;
use crate::core::Kind;

fn version(ms: u64, node: u64) -> Version {
    Version {
        at: Hlc::from_ms(ms),
        node: NodeId(node),
    }
}

fn store() -> Store {
    Store::new(NodeId(1), 16, 42)
}

fn put(store: &mut Store, key: &[u8], value: &[u8], at: u64) -> SlotId {
    let found = store.find(key);
    let placed = store.place(found, key, 3, Kind::String, version(at, 1));
    store.set_value(placed.id, value, 0, version(at, 1));
    store.set_expiry(
        placed.id,
        Expiry {
            at_ms: at + 100_000,
            version: version(at, 1),
        },
    );
    placed.id
}

#[test]
fn what_is_put_is_found_and_gone_after_removal() {
    let mut store = store();
    for n in 0..5_000u32 {
        put(&mut store, format!("key{n}").as_bytes(), &n.to_le_bytes(), 1);
    }
    for n in 0..5_000u32 {
        let entry = store.live(format!("key{n}").as_bytes(), 2).unwrap();
        assert_eq!(entry.value(), n.to_le_bytes());
    }
    for n in (0..5_000u32).step_by(2) {
        let id = store.find(format!("key{n}").as_bytes()).unwrap();
        store.remove(id);
    }
    for n in 0..5_000u32 {
        assert_eq!(store.find(format!("key{n}").as_bytes()).is_some(), n % 2 == 1);
    }
    assert_eq!(store.len(), 2_500);
}

#[test]
fn digest_and_account_return_to_zero() {
    let mut store = store();
    let empty = store.used_bytes();
    let id = put(&mut store, b"a", b"value", 1);
    assert_ne!(store.digest(3), 0);
    store.set_value(id, b"another value", 7, version(2, 1));
    assert_eq!(store.lookup(b"a").unwrap().flags(), 7);
    assert_eq!(store.lookup(b"a").unwrap().value(), b"another value");
    store.kill(id, version(3, 1), b"");
    assert_eq!(store.tombstones(), 1);
    store.remove(id);
    assert_eq!((store.digest(3), store.tombstones(), store.len()), (0, 0, 0));
    assert_eq!(store.used_bytes() - store.table.capacity() * 9, empty);
}

#[test]
fn expired_entries_go_when_nobody_can_extend_them() {
    let mut store = store();
    put(&mut store, b"a", b"x", 1_000);
    assert!(store.live(b"a", 100_999).is_some());
    assert!(
        store.live(b"a", 101_000).is_none(),
        "its owner knows the end exactly"
    );
    assert!(store.sweep(101_500).expired.is_empty());
    assert_eq!(store.sweep(107_001).expired, vec![Box::from(*b"a")]);
    assert!(store.is_empty());
}

#[test]
fn small_touches_stay_here() {
    let mut store = store();
    let id = put(&mut store, b"a", b"x", 1_000);
    assert!(store.extend(id, 101_000 + 5_000));
    assert!(store.live(b"a", 105_999).is_some());
    assert!(!store.extend(id, 101_000 + 5_001));
}
