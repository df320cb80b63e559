//! What is decided, situation by situation: three shards of two servers each, of which the first is primary.

mod scaling;

use super::*;
use crate::store::cluster::{Node, Record, Server};
use crate::store::names::{PRIMARY, REPLICA};
use crate::store::replication::info::Link;
use crate::store::replication::{Address, Pod};

/// The store of these tests.
struct World {
    members: Vec<Member>,
    record: Record,
    shards: usize,
}

fn address(shard: usize, ordinal: usize) -> Address {
    Address {
        host: format!("10.0.{shard}.{ordinal}"),
        port: 6379,
        announced: format!("s-{shard}-{ordinal}.s-members.web.svc"),
    }
}

fn id(shard: usize, ordinal: usize) -> String {
    format!("id-{shard}-{ordinal}")
}

/// A server as another one knows it.
fn node(shard: usize, ordinal: usize) -> Node {
    let address = address(shard, ordinal);
    Node {
        id: id(shard, ordinal),
        ip: address.host,
        port: address.port,
        bus: 16379,
        host: address.announced,
        primary: (ordinal > 0).then(|| id(shard, 0)),
        epoch: 1,
        slots: if ordinal == 0 {
            share(shard, 3)
        } else {
            Slots::default()
        },
        ..Node::default()
    }
}

fn state(shard: usize, ordinal: usize, nodes: Vec<Node>) -> State {
    let id = id(shard, ordinal);
    let nodes = nodes.into_iter().map(|node| Node {
        myself: node.id == id,
        ..node
    });
    State {
        nodes: nodes.collect(),
        run: format!("run-{id}"),
        id,
        serves: true,
        link: Link {
            host: address(shard, 0).announced,
            port: 6379,
            up: ordinal > 0,
            down_for: -1,
            ..Link::default()
        },
        offset: 100,
        keys: 10,
        used: 1 << 20,
        max: 10 << 20,
        loading: false,
        disk_failed: false,
        warm: true,
        admits: true,
        moves_whole: false,
        is_exporting: false,
        export_failed: None,
    }
}

fn nodes() -> Vec<Node> {
    places().map(|(shard, ordinal)| node(shard, ordinal)).collect()
}

fn places() -> impl Iterator<Item = (usize, usize)> {
    (0..3).flat_map(|shard| (0..2).map(move |ordinal| (shard, ordinal)))
}

impl World {
    /// All is well.
    fn whole() -> Self {
        let members = places().map(|(shard, ordinal)| Member {
            name: format!("s-{shard}-{ordinal}"),
            shard,
            pod: Pod {
                uid: Some(format!("u-{shard}-{ordinal}")),
                started: true,
                running: true,
                label: Some(if ordinal == 0 { PRIMARY } else { REPLICA }.to_owned()),
                ..Pod::default()
            },
            address: address(shard, ordinal),
            server: Server::Answers(Box::new(state(shard, ordinal, nodes()))),
            leaving: false,
            volume: false,
        });
        Self {
            shards: 3,
            members: members.collect(),
            record: Record {
                version: 5,
                formed: true,
                shards: 3,
                primaries: (0..3).map(|shard| (shard, format!("s-{shard}-0"))).collect(),
                ..Record::default()
            },
        }
    }

    /// Servers that have just been started for the first time.
    fn new() -> Self {
        let mut world = Self::whole();
        world.record = Record::default();
        for (shard, ordinal) in places() {
            world.blank(shard, ordinal, &id(shard, ordinal));
            world.member(shard, ordinal).pod.label = None;
        }
        world
    }

    /// They have met, and follow the first of their shard.
    fn acquainted() -> Self {
        let mut world = Self::new();
        let known: Vec<Node> = nodes()
            .into_iter()
            .map(|node| Node {
                slots: Slots::default(),
                ..node
            })
            .collect();
        for (shard, ordinal) in places() {
            world.state(shard, ordinal).nodes = state(shard, ordinal, known.clone()).nodes;
        }
        world
    }

    fn member(&mut self, shard: usize, ordinal: usize) -> &mut Member {
        &mut self.members[shard * 2 + ordinal]
    }

    fn state(&mut self, shard: usize, ordinal: usize) -> &mut State {
        match &mut self.member(shard, ordinal).server {
            Server::Answers(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// A server came back as a new one that knows nobody.
    fn blank(&mut self, shard: usize, ordinal: usize, id: &str) {
        let node = Node {
            id: id.to_owned(),
            myself: true,
            primary: None,
            slots: Slots::default(),
            ..node(shard, ordinal)
        };
        let state = State {
            id: id.to_owned(),
            serves: false,
            keys: 0,
            warm: false,
            offset: 0,
            link: Link::default(),
            ..state(shard, ordinal, vec![node])
        };
        self.member(shard, ordinal).server = Server::Answers(Box::new(state));
    }

    /// Nobody answers there; by the kubelet its process runs.
    fn silent(&mut self, shard: usize, ordinal: usize) {
        self.member(shard, ordinal).server = Server::Silent("no answer".to_owned());
    }

    /// There is no such pod.
    fn absent(&mut self, shard: usize, ordinal: usize) {
        let member = self.member(shard, ordinal);
        member.server = Server::Down;
        member.pod = Pod::default();
    }

    /// What all that answer say of another one.
    fn of(&mut self, id: &str, change: impl Fn(&mut Node)) {
        for member in &mut self.members {
            if let Server::Answers(state) = &mut member.server {
                state
                    .nodes
                    .iter_mut()
                    .filter(|node| node.id == id)
                    .for_each(&change);
            }
        }
    }

    fn decide(&self) -> Decision {
        decide(&Observation {
            shards: self.shards,
            members: self.members.clone(),
            record: self.record.clone(),
        })
    }

    /// Exactly this is done.
    fn does(&self, actions: &[Action]) {
        let decision = self.decide();
        assert_eq!(decision.actions, actions, "{:?}", decision.waits);
    }

    /// Nothing is done, for this reason.
    fn waits(&self, reason: &str, words: &str) {
        let decision = self.decide();
        let waits = decision.waits.clone().unwrap_or_else(|| panic!("{decision:?}"));
        assert_eq!(
            (decision.actions, waits.reason),
            (vec![], reason),
            "{}",
            waits.message
        );
        assert!(waits.message.contains(words), "{}", waits.message);
    }
}

fn take_over(member: &str, means: Means, cause: FailoverCause) -> Action {
    Action::TakeOver {
        member: member.to_owned(),
        means,
        cause,
    }
}

fn meet(at: &str, member: &str) -> Action {
    Action::Meet {
        at: at.to_owned(),
        member: member.to_owned(),
    }
}

fn follow(member: &str, primary: &str) -> Action {
    Action::Follow {
        member: member.to_owned(),
        primary: primary.to_owned(),
    }
}

fn restart(member: &str) -> Action {
    Action::Restart {
        member: member.to_owned(),
    }
}

#[test]
fn a_store_that_is_well_is_left_alone() {
    assert_eq!(World::whole().decide(), Decision::default());
}

#[test]
fn servers_that_know_nobody_meet_then_follow_then_get_slots() {
    let world = World::new();
    let met: Vec<Action> = places()
        .skip(1)
        .map(|(shard, ordinal)| meet("s-0-0", &format!("s-{shard}-{ordinal}")))
        .collect();
    world.does(&met);
    let mut world = World::acquainted();
    for shard in 0..3 {
        world.of(&id(shard, 1), |node| node.primary = None);
    }
    world.does(&[
        follow("s-0-1", "s-0-0"),
        follow("s-1-1", "s-1-0"),
        follow("s-2-1", "s-2-0"),
    ]);
    let world = World::acquainted();
    let assigned: Vec<Action> = (0..3)
        .map(|shard| Action::Assign {
            member: format!("s-{shard}-0"),
            slots: share(shard, 3),
        })
        .collect();
    world.does(&assigned);
}

#[test]
fn nobody_gets_slots_before_every_server_was_asked() {
    for change in [World::silent, World::absent] {
        let mut world = World::acquainted();
        change(&mut world, 2, 1);
        world.member(2, 1).volume = true;
        world.waits(reasons::STORE_STARTING, "s-2-1 did not answer yet");
    }
    let mut world = World::acquainted();
    // It has sessions and no slots: somebody knows more than is seen.
    world.state(1, 0).keys = 7;
    world.waits(reasons::STORE_STARTING, "s-1-0 has 7 keys though no slots");
    world.record.formed = true;
    world.waits(reasons::MEMBERS_UNSEEN, "delete its pod");
}

#[test]
fn an_empty_primary_that_came_back_gets_nothing_before_its_replica_took_over() {
    let mut world = World::whole();
    world.blank(1, 0, "new");
    world.does(&[take_over("s-1-1", Means::Elected, FailoverCause::ServerEnded)]);
    // A replica that never got everything is no better.
    let replica = world.state(1, 1);
    (replica.warm, replica.keys, replica.link.up) = (false, 0, false);
    world.does(&[take_over("s-1-1", Means::Alone, FailoverCause::AllLost)]);
    // Then it is one that has just been started, and follows.
    let mut world = World::whole();
    world.blank(1, 0, "new");
    for (shard, ordinal) in places().filter(|place| *place != (1, 0)) {
        let state = world.state(shard, ordinal);
        for node in &mut state.nodes {
            if node.id == id(1, 1) {
                (node.primary, node.slots, node.epoch) = (None, share(1, 3), 2);
            } else if node.id == id(1, 0) {
                node.slots = Slots::default();
            }
        }
    }
    world.record.primaries.insert(1, "s-1-1".to_owned());
    world.member(1, 0).pod.label = Some(REPLICA.to_owned());
    world.member(1, 1).pod.label = Some(PRIMARY.to_owned());
    world.does(&[meet("s-0-0", "s-1-0")]);
}

#[test]
fn who_is_gone_is_forgotten_by_all_once_nobody_follows_it() {
    let mut world = World::whole();
    world.absent(2, 1);
    let forgotten: Vec<Action> = places()
        .filter(|place| *place != (2, 1))
        .map(|(shard, ordinal)| Action::Forget {
            at: format!("s-{shard}-{ordinal}"),
            id: id(2, 1),
        })
        .collect();
    world.does(&forgotten);
    world.member(2, 1).volume = true;
    assert_eq!(world.decide().actions, [], "it comes back with its volume");
}

#[test]
fn without_proof_that_a_primary_is_gone_the_servers_decide() {
    let mut world = World::whole();
    world.silent(0, 0);
    world.waits(reasons::NO_PRIMARY, "the others elect");
    world.silent(1, 0);
    world.waits(reasons::NO_PRIMARY, "delete its pod");
    // On a volume it may come back.
    let mut world = World::whole();
    world.absent(0, 0);
    world.member(0, 0).volume = true;
    world.waits(reasons::NO_PRIMARY, "does not answer");
}

#[test]
fn with_most_primaries_gone_replicas_take_over_without_a_vote() {
    let mut world = World::whole();
    world.absent(0, 0);
    world.does(&[take_over("s-0-1", Means::Elected, FailoverCause::PodLost)]);
    world.absent(2, 0);
    world.does(&[take_over("s-0-1", Means::Alone, FailoverCause::PodLost)]);
}

#[test]
fn a_shard_is_given_up_only_when_nobody_can_have_its_sessions() {
    let mut world = World::whole();
    world.blank(1, 0, "new");
    world.silent(1, 1);
    let decision = world.decide();
    let waits = decision.waits.unwrap();
    assert!(
        waits.reason == reasons::MEMBERS_UNSEEN && waits.message.contains("s-1-1 may have its sessions"),
        "{waits:?}"
    );
    assert_eq!(decision.actions, [meet("s-0-0", "s-1-0")], "that harms nobody");
    world.blank(1, 1, "newer");
    let decision = world.decide();
    assert!(
        decision
            .actions
            .iter()
            .all(|action| matches!(action, Action::Meet { .. })),
        "{decision:?}"
    );
    for (shard, ordinal) in places() {
        let extra = ["new", "newer"].into_iter().zip(0..).map(|(id, ordinal)| Node {
            id: id.to_owned(),
            primary: (ordinal == 1).then(|| "new".to_owned()),
            slots: Slots::default(),
            ..node(1, ordinal)
        });
        let own = world.state(shard, ordinal).id.clone();
        let known = nodes().into_iter().chain(extra).map(|node| Node {
            myself: node.id == own,
            ..node
        });
        world.state(shard, ordinal).nodes = known.collect();
    }
    let decision = world.decide();
    let forgets = |gone: &str| {
        let is_it = |action: &&Action| matches!(action, Action::Forget { id, .. } if id == gone);
        decision.actions.iter().filter(is_it).count()
    };
    assert_eq!(
        (forgets("id-1-0"), forgets("id-1-1"), decision.actions.len()),
        (6, 6, 12),
        "{decision:?}"
    );
    for (shard, ordinal) in places() {
        world
            .state(shard, ordinal)
            .nodes
            .retain(|node| !node.id.starts_with("id-1-"));
    }
    world.does(&[Action::Assign {
        member: "s-1-0".to_owned(),
        slots: share(1, 3),
    }]);
}

#[test]
fn a_server_that_is_elsewhere_is_met_there() {
    let mut world = World::whole();
    let elsewhere = "10.9.9.9";
    world.member(2, 0).address.host = elsewhere.to_owned();
    world.does(&[meet("s-0-0", "s-2-0")]);
    // Then other primaries, which would hear of it late.
    let knows = |node: &mut Node| node.ip = elsewhere.to_owned();
    let hub = &mut world.state(0, 0).nodes;
    hub.iter_mut().filter(|node| node.id == id(2, 0)).for_each(knows);
    world.does(&[meet("s-1-0", "s-2-0")]);
    world.of(&id(2, 0), knows);
    assert_eq!(world.decide(), Decision::default());
}

#[test]
fn replicas_know_each_other_before_one_of_them_may_be_handed_a_shard() {
    let mut world = World::whole();
    world.member(0, 0).pod.outdated = true;
    let stranger = id(2, 1);
    world.state(0, 1).nodes.retain(|node| node.id != stranger);
    world.does(&[meet("s-0-1", "s-2-1")]);
    let mut world = World::whole();
    world.member(0, 0).pod.outdated = true;
    let stranger = id(0, 1);
    world.state(2, 1).nodes.retain(|node| node.id != stranger);
    world.does(&[meet("s-0-1", "s-2-1")]);
}

#[test]
fn a_replica_that_looks_for_its_primary_where_that_was_is_told_again() {
    let mut world = World::whole();
    let link = &mut world.state(2, 1).link;
    (link.up, link.host) = (false, "10.9.9.9".to_owned());
    world.does(&[follow("s-2-1", "s-2-0")]);
    world
        .state(2, 1)
        .nodes
        .iter_mut()
        .for_each(|node| node.ip = "10.9.9.9".to_owned());
    let is_told = |action: &Action| matches!(action, Action::Follow { .. });
    assert!(
        !world.decide().actions.iter().any(is_told),
        "it would look there again"
    );
}

#[test]
fn replicas_are_restarted_first_and_one_at_a_time() {
    let mut world = World::whole();
    for member in &mut world.members {
        member.pod.outdated = true;
    }
    world.does(&[restart("s-0-1")]);
    world.state(1, 1).link.up = false;
    world.waits(
        reasons::RESTART_WAITS,
        "s-1-1 does not have everything of shard 1",
    );
    world.state(1, 1).link.up = true;
    for shard in 0..3 {
        world.member(shard, 1).pod.outdated = false;
    }
    world.does(&[take_over("s-0-1", Means::Agreed, FailoverCause::Planned)]);
    world.state(2, 1).link.up = false;
    world.waits(reasons::RESTART_WAITS, "primary s-0-0 has an older template");
}

#[test]
fn a_primary_that_cannot_write_to_its_volume_hands_over_to_a_replica_that_can() {
    let mut world = World::whole();
    world.state(1, 0).disk_failed = true;
    world.does(&[take_over("s-1-1", Means::Agreed, FailoverCause::VolumeFailed)]);
    world.state(1, 1).disk_failed = true;
    assert_eq!(world.decide().actions, []);
    world.member(1, 0).pod.terminating = true;
    world.does(&[take_over("s-1-1", Means::Agreed, FailoverCause::Planned)]);
}

#[test]
fn a_primary_whose_pod_ends_hands_over_whatever_else_there_is_to_do() {
    let mut world = World::whole();
    world.member(1, 0).pod.terminating = true;
    world.silent(2, 1);
    world.does(&[take_over("s-1-1", Means::Agreed, FailoverCause::Planned)]);
    world.state(1, 1).link.syncing = true;
    world.waits(reasons::RESTART_WAITS, "no replica has everything yet");
}

#[test]
fn who_ends_and_serves_nothing_any_more_turns_clients_away() {
    let mut world = World::whole();
    world.member(1, 1).pod.terminating = true;
    let away = Action::TurnAway {
        member: "s-1-1".to_owned(),
    };
    world.does(&[away]);
    world.state(1, 1).admits = false;
    assert_eq!(world.decide().actions, []);
}

#[test]
fn labels_and_record_follow_what_the_servers_elected() {
    let mut world = World::whole();
    world.of(&id(0, 1), |node| (node.primary, node.slots) = (None, share(0, 3)));
    world.of(&id(0, 0), |node| {
        (node.primary, node.slots) = (Some(id(0, 1)), Slots::default());
    });
    world.state(0, 0).link.up = true;
    let primaries = [(0, "s-0-1"), (1, "s-1-0"), (2, "s-2-0")];
    let label = |member: &str, role| Action::Label {
        member: member.to_owned(),
        role,
    };
    world.does(&[
        label("s-0-0", REPLICA),
        label("s-0-1", PRIMARY),
        Action::Note {
            primaries: primaries.map(|(shard, name)| (shard, name.to_owned())).into(),
            formed: true,
            shards: 3,
        },
    ]);
}

#[test]
fn a_pod_that_cannot_start_is_made_anew_when_the_template_is_mended() {
    let mut world = World::whole();
    world.member(0, 1).volume = true;
    world.silent(0, 1);
    world.member(1, 1).pod.outdated = true;
    world.waits(
        reasons::RESTART_WAITS,
        "s-0-1 does not have everything of shard 0",
    );
    let pod = &mut world.member(0, 1).pod;
    (pod.outdated, pod.running) = (true, false);
    world.does(&[restart("s-0-1")]);
}

#[test]
fn a_server_with_keys_and_no_slots_is_told_of() {
    let mut world = World::whole();
    world.of(&id(1, 1), |node| node.primary = None);
    world.waits(reasons::REPLICAS_MISSING, "s-1-1 has 10 keys and no slots");
    world.state(1, 1).keys = 0;
    world.does(&[follow("s-1-1", "s-1-0")]);
}
