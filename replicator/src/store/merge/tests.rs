//! The laws of a join, for any states that members may hold of one entry.

use proptest::prelude::*;

use super::*;
use crate::core::{NodeId, Version};
use crate::store::FieldState;

/// A write: who wrote when decides what was written, as one member never writes two things at one time.
fn version((ms, node): (u64, u64)) -> Version {
    Version {
        at: Hlc::from_ms(ms),
        node: NodeId(node),
    }
}

/// What a member may say of the entry.
#[derive(Debug, Clone)]
struct Said {
    incarnation: u64,
    content: Vec<(u64, u64)>,
    dead: bool,
    expiry: (u64, u64),
}

const NAMES: [&[u8]; 3] = [b"user", b"cart", b"seen"];

fn value_of(version: Version) -> Vec<u8> {
    format!("{version:?}").into_bytes()
}

impl Said {
    /// Merges it into a store. An incarnation is of one kind: odd ones are strings, even ones hashes.
    fn merge_into(&self, store: &mut Store) {
        let versions: Vec<Version> = self.content.iter().copied().map(version).collect();
        let values: Vec<Vec<u8>> = versions.iter().copied().map(value_of).collect();
        let first = versions.first().copied().unwrap_or(Version::ZERO);
        let content = if self.dead {
            Content::Dead {
                version: first,
                redirect: b"",
            }
        } else if !self.incarnation.is_multiple_of(2) {
            Content::Value {
                version: first,
                flags: 0,
                value: values.first().map_or(b"", Vec::as_slice),
            }
        } else {
            let field = |place: usize| FieldState {
                name: NAMES[place],
                version: versions[place],
                // Some writes remove the field.
                value: (!versions[place].at.ms().is_multiple_of(3)).then_some(values[place].as_slice()),
            };
            Content::Fields {
                kind: Kind::Hash,
                whole: true,
                fields: (0..versions.len()).map(field).collect(),
            }
        };
        let (at, node) = self.expiry;
        let state = EntryState {
            key: b"session",
            incarnation: version((self.incarnation, 1)),
            content,
            expiry: (!self.dead).then_some(Expiry {
                at_ms: 1_000_000 + at * 10 + node,
                version: version((at, node)),
            }),
        };
        store.merge(3, &state, 0, Hlc::ZERO);
    }
}

/// What a store holds, and its digest.
fn held(order: &[Said]) -> (String, u64) {
    let mut store = Store::new(NodeId(9), 16, 42);
    for said in order {
        said.merge_into(&mut store);
    }
    let entry = store.lookup(b"session").unwrap();
    let mut state = entry.state();
    if let Content::Fields { fields, .. } = &mut state.content {
        fields.sort_by_key(|field| field.name);
    }
    (format!("{state:?}"), store.digest(3))
}

fn said() -> impl Strategy<Value = Said> {
    let write = (4..30u64, 1..4u64);
    let content = proptest::collection::vec(write.clone(), 1..=NAMES.len());
    (1..4u64, content, proptest::bool::weighted(0.2), write).prop_map(
        |(incarnation, content, dead, expiry)| Said {
            incarnation,
            content,
            dead,
            expiry,
        },
    )
}

fn heard_twice() -> impl Strategy<Value = (Vec<Said>, Vec<Said>)> {
    proptest::collection::vec(said(), 1..8).prop_flat_map(|all| {
        // The other member hears everything too, in another order, and some of it twice.
        let again = proptest::sample::subsequence(all.clone(), 0..=all.len());
        let order = again
            .prop_map(move |again| [all.clone(), again].concat())
            .prop_shuffle();
        (order.clone(), order)
    })
}

proptest! {
    #[test]
    fn order_and_repetition_make_no_difference((one, other) in heard_twice()) {
        prop_assert_eq!(held(&one), held(&other));
    }

    #[test]
    fn what_is_merged_into_itself_stays(all in proptest::collection::vec(said(), 1..8)) {
        let twice = [all.clone(), all.clone()].concat();
        prop_assert_eq!(held(&all), held(&twice));
    }

    /// Whatever is said of older incarnations, and of one that is over, changes nothing any more.
    #[test]
    fn a_logout_stays((before, after) in heard_twice()) {
        let newest = before.iter().map(|said| said.incarnation).max().unwrap_or(0);
        let logout = Said { incarnation: newest, content: vec![(100, 1)], dead: true, expiry: (0, 0) };
        let end = held(std::slice::from_ref(&logout));
        prop_assert_eq!(held(&[vec![logout.clone()], after].concat()), end.clone());
        prop_assert_eq!(held(&[before, vec![logout]].concat()), end);
    }
}
