//! What is made of what sidecars say.

use crate::api::conditions::reasons;
use crate::api::session_policy::{Replicated, Replication, ReplicationMode};
use crate::policy::sessions::replication::{Seen, sum_up};
use crate::policy::sessions::report::{Member, Peer};

/// So many sidecars that all reach each other, and what is done to the first.
fn seen(count: usize, change: impl FnOnce(&mut Seen)) -> Vec<Seen> {
    let names: Vec<String> = (0..count).map(|number| format!("shop-{number}")).collect();
    let mut all: Vec<Seen> = names
        .iter()
        .map(|pod| Seen {
            pod: pod.clone(),
            said: Ok(Member {
                ready: true,
                entries: 110,
                tombstones: 10,
                memory_limit: 1_000,
                members: names
                    .iter()
                    .filter(|other| *other != pod)
                    .map(|other| Peer {
                        name: other.clone(),
                        linked: true,
                        ..Peer::default()
                    })
                    .collect(),
                ..Member::default()
            }),
            rate: Some(0),
        })
        .collect();
    change(&mut all[0]);
    all
}

fn said(change: impl FnOnce(&mut Member)) -> impl FnOnce(&mut Seen) {
    |seen| change(seen.said.as_mut().unwrap())
}

fn replicated(mode: ReplicationMode) -> Replicated {
    Replicated {
        mode,
        ..Replicated::default()
    }
}

fn reason(seen: &[Seen]) -> &'static str {
    let (_, judged) = sum_up(&replicated(ReplicationMode::All), seen, None);
    judged.map_or_else(|trouble| trouble.reason, |_| reasons::IN_SYNC)
}

#[test]
fn all_is_well_when_all_reach_each_other_and_keep_up() {
    let (replication, judged) = sum_up(&replicated(ReplicationMode::All), &seen(3, |_| {}), None);
    assert_eq!(judged.unwrap(), "3 sidecars have each other's sessions");
    assert_eq!(
        replication,
        Replication {
            members: 3,
            total_members: 3,
            sessions: 100,
            ..Replication::default()
        }
    );
    let (replication, _) = sum_up(&replicated(ReplicationMode::Backup), &seen(4, |_| {}), None);
    assert_eq!(replication.sessions, 200, "two of four have each");
}

#[test]
fn what_is_wrong_is_said() {
    for (change, expected) in [
        (
            Box::new(|seen: &mut Seen| seen.said = Err("no answer within 3 s".to_owned()))
                as Box<dyn FnOnce(&mut Seen)>,
            reasons::MEMBERS_APART,
        ),
        (
            Box::new(said(|member| member.ready = false)),
            reasons::MEMBERS_APART,
        ),
        (
            Box::new(said(|member| member.members[1].linked = false)),
            reasons::MEMBERS_APART,
        ),
        (
            Box::new(said(|member| member.members[0].suspect = true)),
            reasons::MEMBERS_APART,
        ),
        (
            Box::new(said(|member| member.members[0].lag = 2_000_000)),
            reasons::REPLICATION_LAGS,
        ),
        (
            Box::new(said(|member| member.used_bytes = 950)),
            reasons::MEMBERS_NEARLY_FULL,
        ),
        (Box::new(said(|member| member.used_bytes = 900)), reasons::IN_SYNC),
        (
            Box::new(said(|member| member.members[0].lag = 999)),
            reasons::IN_SYNC,
        ),
    ] {
        assert_eq!(reason(&seen(3, change)), expected);
    }
}

#[test]
fn commands_that_are_not_spoken_are_named() {
    let seen = seen(
        3,
        said(|member| {
            member.unsupported_commands.insert("BLPOP".to_owned(), 12);
        }),
    );
    let (replication, judged) = sum_up(&replicated(ReplicationMode::All), &seen, None);
    assert_eq!(replication.unsupported_commands, ["BLPOP"]);
    assert!(judged.unwrap().contains("BLPOP"));
}

#[test]
fn small_changes_are_not_written() {
    let mode = replicated(ReplicationMode::All);
    let (mut former, _) = sum_up(&mode, &seen(3, |_| {}), None);
    for (entries, written) in [(115, 100), (121, 111), (118, 111), (10, 0)] {
        let mut seen = seen(3, |_| {});
        for one in &mut seen {
            one.said.as_mut().unwrap().entries = entries;
        }
        former = sum_up(&mode, &seen, Some(&former)).0;
        assert_eq!(former.sessions, written, "{entries} entries");
    }
}

#[test]
fn backup_is_recommended_when_all_is_much_work_and_until_it_is_little() {
    let all = replicated(ReplicationMode::All);
    let busy = |count, rate| seen(count, |seen| seen.rate = Some(rate));
    let recommended = |mode: &Replicated, seen: &[Seen], former: Option<&Replication>| {
        sum_up(mode, seen, former).0.recommendation
    };
    assert_eq!(recommended(&all, &busy(3, 9 << 20), None), None, "three pods");
    assert_eq!(recommended(&all, &busy(6, 1 << 20), None), None, "few writes");
    let backup = replicated(ReplicationMode::Backup);
    assert_eq!(recommended(&backup, &busy(6, 9 << 20), None), None);
    let (former, _) = sum_up(&all, &busy(6, 3 << 20), None);
    assert!(former.recommendation.as_ref().unwrap().contains("2 MiB/s"));
    assert!(recommended(&all, &busy(6, 3 << 19), Some(&former)).is_some());
    assert_eq!(recommended(&all, &busy(6, 1 << 19), Some(&former)), None);
    let full = seen(6, said(|member| member.used_bytes = 600));
    assert!(recommended(&all, &full, None).unwrap().contains("memory"));
}
