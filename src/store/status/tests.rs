//! What status says, by what was found.

use super::*;
use crate::store::replication::info::Link;
use crate::store::replication::{
    Address, Decision, Member, Observation, Pod, Record, Role, Server, State, Waits,
};
use crate::store::testing::{nothing_but, settings, store, validated};
use crate::store::trouble::unready;
use crate::store::watches::Report as _;

const MIB: i64 = 1 << 20;

fn facts(used: i64, clients: i64) -> Facts {
    Facts {
        version: "9.1.2".to_owned(),
        used: used * MIB,
        max: 200 * MIB,
        clients,
        evicted: 0,
        users_are_current: true,
        certificate_is_current: true,
        disk_failed: false,
    }
}

fn after(former: Option<SessionStoreStatus>, facts: Facts, applied: &Applied) -> SessionStoreStatus {
    let mut subject = store("{}");
    subject.status = former;
    let verdict = Verdict::Applied {
        store: &validated("{}", &nothing_but(&["shop"]), &[]),
        applied,
        server: Ok(facts),
        report: None,
        rotation: &StoreRotation::default(),
    };
    compute(&subject, &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
}

#[test]
fn memory_and_clients_are_told_in_steps_that_do_not_flutter() {
    let nothing = Applied::default();
    let mut status = after(None, facts(42, 10), &nothing);
    let used = |status: &SessionStoreStatus| status.memory.clone().unwrap().used;
    assert_eq!((used(&status).as_str(), status.clients), ("40Mi", Some(10)));
    for (megabytes, clients) in [(45, 20), (46, 5), (44, 12), (36, 19)] {
        let next = after(Some(status.clone()), facts(megabytes, clients), &nothing);
        assert_eq!(next, status, "{megabytes} MiB, {clients} clients");
    }
    status = after(Some(status), facts(52, 21), &nothing);
    assert_eq!((used(&status).as_str(), status.clients), ("50Mi", Some(21)));
    status = after(Some(status), facts(52, 0), &nothing);
    assert_eq!(status.clients, Some(0));
    // A probe that is connected just now.
    status = after(Some(status), facts(52, 2), &nothing);
    assert_eq!(status.clients, Some(0));
}

#[test]
fn users_are_listed_once_the_server_knows_them_and_stay_while_it_is_away() {
    let nothing = Applied::default();
    let away = |former| {
        let mut subject = store("{}");
        subject.status = former;
        let verdict = Verdict::Applied {
            store: &validated("{}", &nothing_but(&["shop"]), &[]),
            applied: &nothing,
            server: Err(unready(&nothing_but(&["shop"]), None)),
            report: None,
            rotation: &StoreRotation::default(),
        };
        compute(&subject, &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
    };
    assert_eq!(away(None).users, []);
    let up = after(None, facts(1, 0), &nothing);
    let secrets: Vec<&str> = up
        .users
        .iter()
        .filter_map(|user| user.secret.as_deref())
        .collect();
    assert_eq!(secrets, ["larder-user-shop"]);
    assert_eq!(away(Some(up.clone())).users, up.users);
}

#[test]
fn how_long_a_store_has_not_been_ready_is_counted_from_when_it_was() {
    let now = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(100);
    let mut subject = store("{}");
    assert_eq!(unready_for(&subject, now).as_secs(), 0);
    let refusal = Refusal {
        reason: reasons::INVALID_SPEC,
        message: String::new(),
    };
    let status = compute(
        &subject,
        &Verdict::Refused(&refusal),
        &Time(jiff::Timestamp::UNIX_EPOCH),
    );
    subject.status = Some(status);
    assert_eq!(unready_for(&subject, now).as_secs(), 100);
    subject.status = Some(after(None, facts(1, 0), &Applied::default()));
    assert_eq!(unready_for(&subject, now).as_secs(), 0);
}

#[test]
fn a_store_that_runs_and_takes_no_sessions_is_not_ready() {
    let reason = |facts: Facts, applied: &Applied| {
        let status = after(None, facts, applied);
        let ready = status.conditions[0].clone();
        (ready.status, ready.reason)
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    let nothing = Applied::default();
    assert_eq!(reason(facts(1, 0), &nothing), pair("True", "Ready"));
    assert_eq!(
        reason(facts(200, 0), &nothing),
        pair("False", "StoreRefusesWrites")
    );
    let mut disk = facts(1, 0);
    disk.disk_failed = true;
    assert_eq!(reason(disk, &nothing), pair("False", "StoreRefusesWrites"));
    let refused = Applied {
        volume_refused: Some("the class says no".to_owned()),
        ..Applied::default()
    };
    assert_eq!(reason(facts(1, 0), &refused), pair("True", "VolumeCannotGrow"));
}

/// A server of a store with several, as the watch sees it.
fn member(ordinal: usize, role: Role, offset: i64) -> Member {
    Member {
        name: format!("larder-{ordinal}"),
        pod: Pod {
            uid: Some("u".to_owned()),
            node: Some(format!("node-{ordinal}")),
            ..Pod::default()
        },
        address: Address {
            host: format!("10.0.0.{ordinal}"),
            port: 6379,
            announced: String::new(),
        },
        server: Server::Answers(State {
            role,
            run: String::new(),
            history: Default::default(),
            offset,
            received: offset,
            keys: 1,
            loading: false,
            disk_failed: false,
            handing_over: false,
            guarded: false,
            replicas: Vec::new(),
        }),
        leaving: false,
        volume: false,
    }
}

#[test]
fn of_several_servers_it_is_told_who_serves_and_who_has_everything() {
    let link = |up| {
        Role::Replica(Link {
            host: "10.0.0.0".to_owned(),
            port: 6379,
            up,
            ..Link::default()
        })
    };
    let report = |second: bool, waits: Option<Waits>| Report {
        seen: Observation {
            members: vec![
                member(0, Role::Primary, 300_000),
                member(1, link(true), 100_000),
                member(2, link(second), 300_000),
            ],
            led_to: None,
            record: Record {
                epoch: 2,
                primary: Some("larder-0".to_owned()),
                ..Record::default()
            },
            without_primary: std::time::Duration::ZERO,
        },
        decision: Decision {
            primary: Some("larder-0".to_owned()),
            waits,
            ..Decision::default()
        },
    };
    let status = |report: &Report| {
        let spec = "{topology: Replicated}";
        let verdict = Verdict::Applied {
            store: &validated(spec, &nothing_but(&["shop"]), &[]),
            applied: &Applied::default(),
            server: Ok(facts(42, 10)),
            report: Some(&Several::Replicas(report.clone())),
            rotation: &StoreRotation::default(),
        };
        compute(&store(spec), &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
    };
    let ready = |status: &SessionStoreStatus| {
        let ready = &status.conditions[0];
        (ready.status.clone(), ready.reason.clone())
    };
    let is = |reason: &str| ("True".to_owned(), reason.to_owned());

    let whole = status(&report(true, None));
    assert_eq!(ready(&whole), is(reasons::READY));
    let message = &whole.conditions[0].message;
    assert!(
        message.contains("larder-0 is the primary, and 2 of 2 replicas have everything")
            && message.contains("a restart of all servers at once loses them"),
        "{message}"
    );
    insta::assert_yaml_snapshot!("members", (&whole.members, &whole.replication));

    let missing = status(&report(false, None));
    assert_eq!(ready(&missing), is(reasons::REPLICAS_MISSING));
    assert!(!missing.members[2].ready);
    let waits = Waits {
        reason: reasons::RESTART_WAITS,
        message: "it waits".to_owned(),
    };
    let waiting = status(&report(false, Some(waits)));
    assert_eq!(ready(&waiting), is(reasons::RESTART_WAITS));
    assert!(waiting.conditions[0].message.ends_with("; it waits"));
    let mut full = report(true, None);
    if let Server::Answers(state) = &mut full.seen.members[1].server {
        state.disk_failed = true;
    }
    assert!(report(true, None).differs_from(&full));
    let full = status(&full);
    assert_eq!(ready(&full), is(reasons::VOLUME_FAILING));
    let message = &full.conditions[0].message;
    assert!(
        message.contains("larder-1 cannot write to the volume"),
        "{message}"
    );
    assert!(report(true, None).differs_from(&report(false, None)));
    assert!(!report(true, None).differs_from(&report(true, None)));
}

#[test]
fn memcached_says_what_it_lacks_and_serves_one_prefix() {
    let spec = "{engine: Memcached, tls: Disabled}";
    let served = |former: Option<SessionStoreStatus>, prefixes: &[&str]| {
        let found = nothing_but(prefixes);
        let mut subject = store(spec);
        subject.status = former;
        let validated = crate::store::validate::validate(&subject, &found, &settings(&[])).unwrap();
        let verdict = Verdict::Applied {
            store: &validated,
            applied: &Applied::default(),
            server: Ok(facts(1, 0)),
            report: None,
            rotation: &StoreRotation::default(),
        };
        compute(&subject, &verdict, &Time(jiff::Timestamp::UNIX_EPOCH))
    };
    let prefixes = |status: &SessionStoreStatus| -> Vec<String> {
        status.users.iter().map(|user| user.key_prefix.clone()).collect()
    };
    let status = served(None, &["shop"]);
    assert_eq!(
        status.users,
        [StoreUser {
            key_prefix: "shop".to_owned(),
            secret: None
        }]
    );
    let endpoint = status.endpoint.clone().unwrap();
    assert_eq!((endpoint.port, endpoint.ca_secret), (11211, None));
    let message = &status.conditions[0].message;
    for words in [
        "without TLS",
        "a restart of the server loses them",
        "NetworkPolicy",
    ] {
        assert!(message.contains(words), "{message}");
    }
    // Who came first stays, whatever it is called, until it goes.
    let both = served(Some(status), &["blog", "shop"]);
    assert_eq!(prefixes(&both), ["shop"]);
    let next = served(Some(both), &["blog", "news"]);
    assert_eq!(prefixes(&next), ["blog"]);
    assert_eq!(prefixes(&served(Some(next), &[])), Vec::<String>::new());
}

/// Three shards of two servers, the first of which is primary, by what the servers say.
fn sharded_report(change: impl Fn(usize, &str) -> String) -> cluster::report::Report {
    let lines = |myself: usize| -> String {
        let lines = (0..6).map(|at| {
            let (shard, ordinal) = (at / 2, at % 2);
            let flags = match (at == myself, ordinal) {
                (true, 0) => "myself,master -".to_owned(),
                (false, 0) => "master -".to_owned(),
                (true, _) => format!("myself,slave id{}", shard * 2),
                (false, _) => format!("slave id{}", shard * 2),
            };
            let slots = ["0-5460", "5461-10921", "10922-16383"];
            let slots = if ordinal == 0 { slots[shard] } else { "" };
            format!("id{at} 10.0.0.{at}:6379@16379,larder-{shard}-{ordinal}.larder-members.kitchen.svc {flags} 0 0 1 connected {slots}\n")
        });
        lines.collect()
    };
    let info = |at: usize| {
        let text = if at.is_multiple_of(2) {
            "role:master master_repl_offset:100".to_owned()
        } else {
            format!(
                "role:slave slave_repl_offset:90 master_link_status:up master_host:10.0.0.{} master_port:6379",
                at - 1
            )
        };
        let text = change(at, &text);
        let words = text.split_whitespace().filter_map(|word| word.split_once(':'));
        words
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let members = (0..6).map(|at| {
        let info = info(at);
        let serves = if info.contains_key("cut_off") {
            "cluster_state:fail"
        } else {
            "cluster_state:ok"
        };
        cluster::Member {
            name: format!("larder-{}-{}", at / 2, at % 2),
            shard: at / 2,
            pod: Pod {
                uid: Some(format!("u-{at}")),
                node: Some(format!("node{}", at % 3)),
                ..Pod::default()
            },
            address: Address {
                host: format!("10.0.0.{at}"),
                port: 6379,
                announced: format!("larder-{}-{}.larder-members.kitchen.svc", at / 2, at % 2),
            },
            server: Server::Answers(Box::new(cluster::State::read(&lines(at), serves, &info).unwrap())),
            leaving: false,
            volume: false,
        }
    });
    let seen = cluster::Observation {
        shards: 3,
        members: members.collect(),
        record: cluster::Record::default(),
    };
    cluster::report::Report {
        decision: cluster::Decision::default(),
        seen,
    }
}

#[test]
fn of_shards_it_is_told_what_is_out_of_reach_and_who_lacks_a_replica() {
    let status = |report: cluster::report::Report| {
        let spec = "{topology: Cluster}";
        let verdict = Verdict::Applied {
            store: &validated(spec, &nothing_but(&["shop"]), &[]),
            applied: &Applied::default(),
            server: Ok(facts(42, 10)),
            report: Some(&Several::Shards(report)),
            rotation: &StoreRotation::default(),
        };
        let status = compute(&store(spec), &verdict, &Time(jiff::Timestamp::UNIX_EPOCH));
        let ready = status.conditions[0].clone();
        (status, ready)
    };
    let (whole, ready) = status(sharded_report(|_, info| info.to_owned()));
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", reasons::READY)
    );
    assert!(
        ready
            .message
            .contains("3 shards serve all 16384 slots, each with 1 of 1 replicas that have everything"),
        "{}",
        ready.message
    );
    assert_eq!((whole.shards, whole.cluster.unwrap().slots), (Some(3), 16384));
    insta::assert_yaml_snapshot!("shards", &whole.members);

    let (_, ready) = status(sharded_report(|at, info| {
        if at == 3 {
            info.replace("status:up", "status:down")
        } else {
            info.to_owned()
        }
    }));
    let told = (ready.status.as_str(), ready.reason.as_str());
    assert_eq!(told, ("True", reasons::REPLICAS_MISSING));
    assert!(
        ready
            .message
            .ends_with("shard 1 has 0 of 1 replicas with everything"),
        "{}",
        ready.message
    );

    let (lost, ready) = status(sharded_report(|at, info| {
        if at == 4 {
            format!("{info} cut_off:1")
        } else {
            info.to_owned()
        }
    }));
    let told = (ready.status.as_str(), ready.reason.as_str());
    assert_eq!(told, ("False", reasons::SLOTS_UNSERVED));
    assert!(
        ready.message.starts_with("5462 of 16384 slots have no primary"),
        "{}",
        ready.message
    );
    assert_eq!(lost.cluster.unwrap().slots, 10922);
}
