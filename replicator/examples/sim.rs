//! Simulates many clusters: `cargo sim --seeds 100000`. See `session_replicator::sim`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use session_replicator::sim::{self, Failure, Met, Runs};

/// Runs simulated clusters, one per seed, and checks their properties. A failing run is made as small as possible and
/// its trace printed.
#[derive(Debug, Parser)]
#[command(name = "cargo sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Begin each cluster with so many members, a hundred or more, and let all kinds of faults happen to it. Without
    /// it everything is drawn from the seed, and clusters begin with 2 to 6 members.
    #[arg(long)]
    members: Option<usize>,
    /// Threads; as many as there are processors when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after this many failing seeds.
    #[arg(long, default_value_t = 3)]
    failures: usize,
}

/// Seeds after which every kind of fault has to have happened.
const ENOUGH: u64 = 1_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let threads = arguments
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1);
    let until = arguments.from.saturating_add(arguments.seeds);
    let done = AtomicU64::new(0);
    let progress = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(1_000) || arguments.members.is_some() {
            eprintln!("{done} of {} seeds", arguments.seeds);
        }
    };
    let runs = Runs {
        seeds: arguments.from..until,
        members: arguments.members,
        threads,
        most_failures: arguments.failures,
    };
    let (met, failures) = sim::run_many(&runs, &progress);
    let runs = done.into_inner();
    let missing = if runs < ENOUGH { Vec::new() } else { met.missing() };
    match report(runs, &met, &failures, &missing) {
        Ok(()) if failures.is_empty() && missing.is_empty() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn report(runs: u64, met: &Met, failures: &[Failure], missing: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "met in {runs} runs:\n{met}")?;
    for failure in failures {
        writeln!(
            out,
            "seed {}: {}\n{}\n",
            failure.seed, failure.property, failure.report
        )?;
    }
    for never in missing {
        writeln!(out, "never happened: {never}")?;
    }
    writeln!(out, "{} failing seeds", failures.len())
}
