//! 50 connections, by redis-benchmark.

use std::process::Command;

use crate::CPU;
use crate::report::{Bar, Report, Row};
use crate::servers::{self, Server};
use crate::support::Folder;

const ROUNDS: usize = 7;

pub fn measure(report: &mut Report) {
    let folder = Folder::new();
    let all = servers::all(&folder);
    for pipeline in [1, 16] {
        let mut best = vec![[0.0_f64; 2]; all.len()];
        for _ in 0..ROUNDS {
            for (server, best) in all.iter().zip(&mut best) {
                for (best, rate) in best.iter_mut().zip(round(server, pipeline)) {
                    *best = best.max(rate);
                }
            }
        }
        for (place, command) in ["SET", "GET"].into_iter().enumerate() {
            report.add(Row {
                measure: format!("50 connections, P={pipeline}, {command} 1 KB, requests/s"),
                ours: best[0][place],
                others: all
                    .iter()
                    .zip(&best)
                    .skip(1)
                    .map(|(s, best)| (s.name.to_owned(), best[place]))
                    .collect(),
                bar: Bar::AtLeastOthers,
            });
        }
    }
}

/// Requests per second of SET and of GET.
fn round(server: &Server, pipeline: usize) -> [f64; 2] {
    let requests = if pipeline == 1 { "40000" } else { "160000" };
    let output = Command::new("taskset")
        .args([
            "-c",
            CPU,
            "redis-benchmark",
            "--csv",
            "-t",
            "set,get",
            "-d",
            "1024",
            "-r",
            "10000",
            "-c",
            "50",
        ])
        .args([
            "-p",
            &server.port.to_string(),
            "-P",
            &pipeline.to_string(),
            "-n",
            requests,
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rate = |command: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("\"{command}\"")))
            .unwrap_or_else(|| panic!("{text}"));
        line.split(',').nth(1).unwrap().trim_matches('"').parse().unwrap()
    };
    [rate("SET"), rate("GET")]
}
