//! More and fewer shards.

use super::*;

/// A fourth shard, which has no slots and whose servers all others know.
fn with_another_shard() -> World {
    let mut world = World::whole();
    world.shards = 4;
    let fourth = (0..2).map(|ordinal| Node {
        slots: Slots::default(),
        ..node(3, ordinal)
    });
    let known: Vec<Node> = nodes().into_iter().chain(fourth).collect();
    for ordinal in 0..2 {
        let mut member = world.member(2, ordinal).clone();
        member.name = format!("s-3-{ordinal}");
        member.shard = 3;
        member.address = address(3, ordinal);
        member.server = Server::Answers(Box::new(state(3, ordinal, Vec::new())));
        world.members.push(member);
    }
    for (shard, ordinal) in (0..4).flat_map(|shard| (0..2).map(move |ordinal| (shard, ordinal))) {
        world.state(shard, ordinal).nodes = state(shard, ordinal, known.clone()).nodes;
        if shard == 3 {
            world.state(shard, ordinal).keys = 0;
        }
    }
    world
}

fn moved(decision: &Decision) -> (String, String, usize) {
    match decision.actions.as_slice() {
        [Action::Move { from, to, slots } | Action::MoveWhole { from, to, slots }] => {
            (from.clone(), to.clone(), slots.len())
        }
        other => panic!("{other:?} {:?}", decision.waits),
    }
}

#[test]
fn a_new_shard_gets_slots_in_steps_from_those_that_have_most() {
    let mut world = with_another_shard();
    let decision = world.decide();
    assert_eq!(
        moved(&decision),
        ("s-2-0".to_owned(), "s-3-0".to_owned(), moves::STEP)
    );
    assert_eq!(decision.waits.unwrap().reason, reasons::SCALING);
    for member in &mut world.members {
        if let Server::Answers(state) = &mut member.server {
            state.moves_whole = true;
        }
    }
    let decision = world.decide();
    assert!(
        matches!(decision.actions.as_slice(), [Action::MoveWhole { .. }]),
        "{decision:?}"
    );
    assert_eq!(moved(&decision).2, moves::ATOMIC_STEP);
    world.state(2, 0).is_exporting = true;
    world.waits(reasons::SCALING, "still to be moved");
    world.state(2, 0).is_exporting = false;
    world.state(2, 0).export_failed = Some("no room".to_owned());
    let message = world.decide().waits.unwrap().message;
    assert!(
        message.contains("from s-2-0 failed and is tried again (no room); see the log of s-3-0"),
        "{message}"
    );
    world.state(3, 1).link.up = false;
    world.waits(reasons::SCALING, "have all their replicas");
}

#[test]
fn a_slot_between_two_servers_comes_first() {
    let mut world = with_another_shard();
    let open = |world: &mut World, shard: usize, change: &dyn Fn(&mut Node)| {
        let state = world.state(shard, 0);
        state.nodes.iter_mut().filter(|node| node.myself).for_each(change);
    };
    open(&mut world, 1, &|node| node.migrating = vec![(6000, id(3, 0))]);
    let begun = |from: &str, slot| Action::Move {
        from: from.to_owned(),
        to: "s-3-0".to_owned(),
        slots: Slots::of([slot..=slot]),
    };
    world.does(&[begun("s-1-0", 6000)]);
    open(&mut world, 1, &|node| node.migrating.clear());
    open(&mut world, 3, &|node| node.importing = vec![(7000, id(1, 0))]);
    world.does(&[begun("s-1-0", 7000)]);
    open(&mut world, 3, &|node| node.importing = vec![(3, id(1, 0))]);
    world.does(&[Action::Settle {
        member: "s-3-0".to_owned(),
        slot: 3,
    }]);
}

#[test]
fn a_shard_that_is_not_asked_for_goes_when_it_is_empty_and_the_others_can_hold_it() {
    let mut world = with_another_shard();
    for shard in 0..4 {
        world.of(&id(shard, 0), |node| node.slots = share(shard, 4));
    }
    world.record.primaries.insert(3, "s-3-0".to_owned());
    world.record.shards = 4;
    assert_eq!(world.decide(), Decision::default(), "all have the same");
    world.shards = 3;
    let (from, to, count) = moved(&world.decide());
    assert_eq!(
        (from.as_str(), to.as_str(), count),
        ("s-3-0", "s-0-0", moves::STEP)
    );
    for shard in 0..4 {
        world.state(shard, 0).used = 7 << 20;
    }
    world.waits(
        reasons::SCALE_IN_REFUSED,
        "28 MiB are in use, and 3 shards have room for 30 MiB",
    );
    for shard in 0..4 {
        world.of(&id(shard, 0), |node| {
            node.slots = if shard < 3 {
                share(shard, 3)
            } else {
                Slots::default()
            };
        });
    }
    world.state(3, 0).keys = 2;
    let decision = world.decide();
    assert!(
        !decision.actions.contains(&Action::Remove { shard: 3 }),
        "{decision:?}"
    );
    assert!(decision.waits.unwrap().message.contains("s-3-0 has 2 keys"));
    world.state(3, 0).keys = 0;
    assert!(world.decide().actions.contains(&Action::Remove { shard: 3 }));
}
