//! Real processes over TLS: when a write is visible everywhere, what it costs, and how fast sessions are handed over.

use std::time::{Duration, Instant};

use crate::memory::cpu_ticks;
use crate::report::{Bar, Report, Row};
use crate::support::resp::{Client, Value};
use crate::support::{Folder, Launch, Replicator, launches, wait_linked};

const MEMBERS: usize = 8;
const PEERS: usize = 50;
/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(20);
const WRITES: usize = 300;
const COSTED: usize = 20_000;
const HANDED_OVER: usize = 100_000;

fn start(all: &[Launch]) -> Vec<Replicator> {
    let ports: Vec<u16> = all.iter().map(|launch| launch.peer_port).collect();
    let mut members: Vec<Replicator> = all
        .iter()
        .map(|launch| {
            launch
                .clone()
                .looking_for(&ports)
                .with(&["--log", "info"])
                .start()
        })
        .collect();
    members.iter_mut().for_each(Replicator::wait_ready);
    wait_linked(&members);
    members
}

pub fn measure(report: &mut Report) {
    visibility(report);
    idle(report);
    for mode in ["all", "backup"] {
        cost(report, mode);
    }
    hand_over(report);
}

fn aim(report: &mut Report, measure: String, ours: f64) {
    report.add(Row {
        measure,
        ours,
        others: Vec::new(),
        bar: Bar::Aim,
    });
}

/// What a member costs that has 50 peers and nothing to do.
fn idle(report: &mut Report) {
    let folder = Folder::new();
    let members = start(&launches(PEERS + 1, &folder, &[]));
    let ticks = || {
        members
            .iter()
            .map(|member| cpu_ticks(member.process.id()))
            .sum::<u64>()
    };
    let before = ticks();
    std::thread::sleep(IDLE);
    // A tick is a hundredth of a second, so ticks per second are percents of a CPU.
    let spent = (ticks() - before) as f64 / IDLE.as_secs_f64() / members.len() as f64;
    aim(
        report,
        format!("idle with {PEERS} peers, % of a CPU (aim 0.2)"),
        spent,
    );
    let resident = members
        .iter()
        .map(|member| member.process.resident_kib())
        .sum::<u64>() as f64;
    aim(
        report,
        format!("memory with {PEERS} peers, MiB"),
        resident / 1_024.0 / members.len() as f64,
    );
}

fn visibility(report: &mut Report) {
    let folder = Folder::new();
    let members = start(&launches(MEMBERS, &folder, &[]));
    let mut clients: Vec<Client> = members.iter().map(Replicator::client).collect();
    let value = "x".repeat(1_024);
    let mut times: Vec<f64> = (0..WRITES)
        .map(|number| {
            let key = format!("visible:{number}");
            clients[0].ask(&["SET", &key, &value, "EX", "600"]);
            let start = Instant::now();
            for client in &mut clients[1..] {
                // Where it has not arrived yet, the member asks others and knows it from them: that counts as visible, too.
                while client.ask(&["GET", &key]) == Value::Nil {}
            }
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let p99 = times[WRITES * 99 / 100];
    report.add(Row {
        measure: format!("a write visible on all of {MEMBERS} processes, p99, ms (at most 20)"),
        ours: p99,
        others: Vec::new(),
        bar: Bar::AtMost(20.0),
    });
}

fn cost(report: &mut Report, mode: &str) {
    let folder = Folder::new();
    let members = start(&launches(3, &folder, &["--mode", mode]));
    let mut client = members[0].client();
    let value = "x".repeat(1_024);
    let before: Vec<u64> = members
        .iter()
        .map(|member| cpu_ticks(member.process.id()))
        .collect();
    for number in 0..COSTED {
        let key = format!("cost:{number}");
        client.ask(&["SET", &key, &value, "EX", "600"]);
    }
    std::thread::sleep(Duration::from_secs(1));
    let spent: Vec<f64> = members
        .iter()
        .zip(before)
        .map(|(member, before)| (cpu_ticks(member.process.id()) - before) as f64 * 1e4 / COSTED as f64)
        .collect();
    aim(
        report,
        format!("CPU per replicated write of 1 KB at the origin, 3 members, mode {mode}, µs"),
        spent[0],
    );
    let peers = f64::midpoint(spent[1], spent[2]);
    aim(
        report,
        format!("CPU per replicated write of 1 KB at a peer, 3 members, mode {mode}, µs"),
        peers,
    );
}

fn hand_over(report: &mut Report) {
    let folder = Folder::new();
    let all = launches(2, &folder, &["--log", "info"]);
    let first = all[0].start_ready();
    let mut client = first.client();
    let value = "x".repeat(1_024);
    for number in 0..HANDED_OVER {
        let key = format!("hand-over:{number}");
        client.ask(&["SET", &key, &value, "EX", "6000"]);
    }
    let second = all[1].clone().looking_for(&[first.peer_port]).start_ready();
    let log = second.log();
    let line = log
        .lines()
        .find(|line| line.contains("keys taken over in"))
        .unwrap_or_else(|| panic!("{log}"));
    let milliseconds: f64 = line
        .split(" taken over in ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let rate = HANDED_OVER as f64 / (milliseconds / 1e3);
    aim(
        report,
        "hand-over to a joining member, 1 KB, sessions/s (aim 100,000), search for members included"
            .to_owned(),
        rate,
    );
}
