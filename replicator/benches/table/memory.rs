//! Memory at rest and per session, and what an idle process costs.

use std::time::Duration;

use crate::report::{Bar, Report, Row};
use crate::servers::{self, Server, Stream};
use crate::support::Folder;
use crate::support::resp::encode;

const SESSIONS: usize = 100_000;
const VALUE: usize = 1_024;
const KEY: usize = 49;
const IDLE: Duration = Duration::from_secs(10);

pub fn measure(report: &mut Report) {
    let folder = Folder::new();
    let all = servers::all(&folder);
    let kib = |server: &Server| server.process.resident_kib() as f64;
    let at_rest: Vec<f64> = all.iter().map(|server| kib(server) / 1024.0).collect();
    report.add(row(
        &all,
        "memory at rest, MiB (at most 10)".to_owned(),
        &at_rest,
        Bar::AtMost(10.0),
    ));
    let overhead: Vec<f64> = all
        .iter()
        .map(|server| {
            // What the first sessions take once and for all is no cost per session.
            fill(server, 0, 1_000);
            let before = kib(server);
            fill(server, 1_000, SESSIONS);
            (kib(server) - before) * 1024.0 / SESSIONS as f64 - (KEY + VALUE) as f64
        })
        .collect();
    report.add(row(
        &all,
        "memory per session beyond key and value, bytes (at most 160)".to_owned(),
        &overhead,
        Bar::AtMost(160.0),
    ));
    let connections: Vec<Vec<Stream>> = all
        .iter()
        .map(|server| (0..50).map(|_| Stream::connect(server, false)).collect())
        .collect();
    let before: Vec<u64> = all.iter().map(|server| cpu_ticks(server.process.id())).collect();
    std::thread::sleep(IDLE);
    let idle: Vec<f64> = all
        .iter()
        .zip(before)
        .map(|(server, before)| (cpu_ticks(server.process.id()) - before) as f64 / IDLE.as_secs_f64())
        .collect();
    drop(connections);
    report.add(row(
        &all,
        "idle with 50 connections and 100,000 sessions, % of a CPU (aim 0.2)".to_owned(),
        &idle,
        Bar::Aim,
    ));
}

fn row(all: &[Server], measure: String, figures: &[f64], bar: Bar) -> Row {
    let others = all
        .iter()
        .zip(figures)
        .skip(1)
        .map(|(server, figure)| (server.name.to_owned(), *figure))
        .collect();
    Row {
        measure,
        ours: figures[0],
        others,
        bar,
    }
}

/// Stores sessions as phpredis does.
fn fill(server: &Server, from: usize, count: usize) {
    let mut stream = Stream::connect(server, true);
    let value = "x".repeat(VALUE);
    for batch in (from..from + count).collect::<Vec<_>>().chunks(50) {
        let mut requests = Vec::new();
        for number in batch {
            let key = format!("PHPREDIS_SESSION:{number:032x}");
            assert_eq!(key.len(), KEY);
            requests.extend_from_slice(&encode(&["SETEX", &key, "86400", &value]));
        }
        stream.write(&requests);
        stream.read_exact(&mut vec![0; 5 * batch.len()]);
    }
}

/// CPU time of a process in ticks: hundredths of a second.
pub fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
