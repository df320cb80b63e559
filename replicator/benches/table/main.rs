//! Speed and size, beside redis-server (twice, to see how much two equal servers differ) and valkey-server, in one run.
//!
//! `cargo bench --package session-replicator` prints the table and fails when a row that has to hold does not.
//! Client and server share one CPU; servers take turns in many short rounds; the best round counts for medians and
//! throughput, the better quartile for the 99th percentile. `tests/install redis valkey` gets the others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends the run; figures are rounded anyway"
)]

mod cluster;
mod latency;
mod memory;
mod messages;
mod report;
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;
mod throughput;

use report::Report;

/// The CPU that client and server share.
pub const CPU: &str = "1";

/// A part of the table.
type Part = fn(&mut Report);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--ping-pong") {
        servers::ping_pong(&arguments[place + 1]);
        return;
    }
    let only = arguments
        .iter()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load of the machine before: {}", load.split(' ').next().unwrap());
    let mut report = Report::default();
    let parts: [(&str, Part); 5] = [
        ("latency", latency::measure),
        ("throughput", throughput::measure),
        ("memory", memory::measure),
        ("messages", messages::measure),
        ("cluster", cluster::measure),
    ];
    for (name, measure) in parts {
        if only.is_none_or(|only| only == name) {
            // Clusters are no fair game on one CPU.
            let place = if name == "cluster" {
                format!("0-{}", cpus - 1)
            } else {
                CPU.to_owned()
            };
            servers::pin(std::process::id(), &place);
            measure(&mut report);
        }
    }
    print!("{report}");
    if report.falls_short() {
        std::process::exit(1);
    }
}
