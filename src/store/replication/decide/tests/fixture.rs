//! Servers as they are seen.

use std::time::Duration;

use crate::store::names::PRIMARY;
use crate::store::replication::info::Link;
use crate::store::replication::{Address, Member, Observation, Pod, Record, Role, Server, State};

/// Name of the history of changes that the primary of these tests has.
pub const HISTORY: &str = "h1";

pub fn address(ordinal: usize) -> Address {
    Address {
        host: format!("10.0.0.{ordinal}"),
        port: 6379,
        announced: format!("s-{ordinal}.s-members.web.svc"),
    }
}

pub fn state(role: Role, offset: i64, keys: i64) -> State {
    State {
        role,
        run: "run".to_owned(),
        history: [HISTORY.to_owned(), String::new()],
        offset,
        received: offset,
        keys,
        loading: false,
        disk_failed: false,
        handing_over: false,
        guarded: false,
        replicas: Vec::new(),
    }
}

pub fn member(ordinal: usize, server: Server) -> Member {
    Member {
        name: format!("s-{ordinal}"),
        pod: Pod {
            uid: Some(format!("u-{ordinal}")),
            started: true,
            running: true,
            label: Some("replica".to_owned()),
            ..Pod::default()
        },
        address: address(ordinal),
        server,
        leaving: false,
        volume: false,
    }
}

pub fn primary_of(ordinal: usize, offset: i64, keys: i64) -> Member {
    let mut member = member(ordinal, Server::Answers(state(Role::Primary, offset, keys)));
    member.pod.label = Some("primary".to_owned());
    member
}

/// A replica of the server with the ordinal `of` that has everything.
pub fn replica(ordinal: usize, of: usize, offset: i64, keys: i64) -> Member {
    let link = Link {
        host: address(of).host,
        port: 6379,
        up: true,
        syncing: false,
        silent: 0,
        down_for: -1,
    };
    member(ordinal, Server::Answers(state(Role::Replica(link), offset, keys)))
}

/// A replica whose connection broke.
pub fn cut(mut member: Member) -> Member {
    if let Server::Answers(state) = &mut member.server
        && let Role::Replica(link) = &mut state.role
    {
        link.up = false;
        link.silent = -1;
        link.down_for = 1;
    }
    member
}

/// A server whose process has just started, with what its volume had.
pub fn fresh(ordinal: usize, keys: i64) -> Member {
    let link = Link {
        host: "127.0.0.1".to_owned(),
        port: 1,
        up: false,
        syncing: false,
        silent: -1,
        down_for: -1,
    };
    let mut state = state(Role::Replica(link), 1, keys);
    state.history = [format!("new-{ordinal}"), String::new()];
    member(ordinal, Server::Answers(state))
}

/// A server of which there is only the pod's name.
pub fn absent(ordinal: usize) -> Member {
    let mut member = member(ordinal, Server::Down);
    member.pod = Pod::default();
    member
}

pub fn with(mut member: Member, change: impl FnOnce(&mut Member)) -> Member {
    change(&mut member);
    member
}

/// What is seen of a store whose primary was `s-0`.
pub fn seen(members: Vec<Member>) -> Observation {
    let led_to = members
        .iter()
        .find(|member| member.pod.label.as_deref() == Some(PRIMARY));
    Observation {
        led_to: led_to.map(|member| member.name.clone()),
        members,
        record: Record {
            epoch: 3,
            primary: Some("s-0".to_owned()),
            uid: Some("u-0".to_owned()),
            history: Some(HISTORY.to_owned()),
            last_failover: None,
        },
        without_primary: Duration::ZERO,
    }
}

pub fn new_store(members: Vec<Member>) -> Observation {
    Observation {
        record: Record::default(),
        ..seen(members)
    }
}

/// One that takes writes only while a replica hears it.
pub fn guarded(member: Member) -> Member {
    with(member, |member| {
        if let Server::Answers(state) = &mut member.server {
            state.guarded = true;
        }
    })
}
