//! Simulation: whole clusters in one thread, against a fake clock and a network that loses, repeats and delays.
//!
//! Everything in a run follows from its seed. A run that breaks a property is made smaller as long as it still breaks
//! it, and the end of what happened is shown. What the runs have met is counted; a kind of fault that never happened
//! makes the whole simulation fail, because its properties have then not been shown.

mod calm;
mod check;
mod cluster;
mod lockers;
mod met;
mod network;
mod processes;
mod random;
mod requests;
mod scenario;
#[cfg(test)]
mod tests;
mod users;
mod visits;
mod world;

pub use met::Met;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::Config;
use scenario::Scenario;
use world::{Violation, World};

/// How long a cluster is given to come to rest after the last fault, µs.
const REST_US: u64 = 45_000_000;
/// Members in all the attempts at making a failing run smaller.
const SHRINK_MEMBERS: usize = 600;
/// Lines of the trace that are shown.
const TRACE_LINES: usize = 200;

/// A run that broke a property.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The property.
    pub property: &'static str,
    /// What was seen, the smallest scenario found, and the end of its trace.
    pub report: String,
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Met, Failure> {
    run_scenario(Scenario::from_seed(seed))
}

/// Many runs.
#[derive(Debug, Clone)]
pub struct Runs {
    /// The seeds.
    pub seeds: std::ops::Range<u64>,
    /// Members that each cluster begins with: a hundred or more. Drawn from the seed if not given.
    pub members: Option<usize>,
    /// Threads to run them on.
    pub threads: usize,
    /// After this many failures no more seeds are handed out.
    pub most_failures: usize,
}

/// Makes many runs; `progress` is called after each.
pub fn run_many(runs: &Runs, progress: &(dyn Fn() + Sync)) -> (Met, Vec<Failure>) {
    let next = AtomicU64::new(runs.seeds.start);
    let results = Mutex::new((Met::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..runs.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let full = results
                        .lock()
                        .map_or(true, |results| results.1.len() >= runs.most_failures);
                    if seed >= runs.seeds.end || full {
                        break;
                    }
                    let result = match runs.members {
                        None => run(seed),
                        Some(members) => run_scenario(Scenario::of_many(seed, members)),
                    };
                    progress();
                    let Ok(mut results) = results.lock() else { break };
                    match result {
                        Ok(met) => results.0.add(&met),
                        Err(failure) => results.1.push(failure),
                    }
                }
            });
        }
    });
    results
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_scenario(scenario: Scenario) -> Result<Met, Failure> {
    let (met, violation, _) = play(&scenario, |_| {});
    match violation {
        None => Ok(met),
        Some(violation) => Err(shrink(scenario, violation)),
    }
}

/// Plays a scenario.
fn play(scenario: &Scenario, settings: fn(&mut Config)) -> (Met, Option<Violation>, World) {
    play_watching(scenario, settings, None)
}

/// Plays a scenario, tracing what becomes of a key.
fn play_watching(
    scenario: &Scenario,
    settings: fn(&mut Config),
    key: Option<String>,
) -> (Met, Option<Violation>, World) {
    let mut world = World::new(scenario.clone(), settings);
    world.watched = key.map(|key| (key, BTreeMap::new()));
    world.run_until(scenario.length_ms * 1_000);
    world.finishing = true;
    // Faults under way end by themselves; then everything has to come to rest, with users still there.
    let mut waited = 0;
    while world.violation.is_none() && waited < 120 && !world.is_at_rest() {
        world.run_until(world.now_us + 1_000_000);
        waited += 1;
    }
    world.run_until(world.now_us + REST_US);
    world.quiet();
    if world.violation.is_none() {
        world.check_at_rest();
        // Until the last tombstones have gone everywhere.
        world.run_until(world.now_us + 12_000_000);
    }
    if world.violation.is_none() {
        world.check_converged();
    }
    let mut met = std::mem::take(&mut world.met);
    met.runs = 1;
    met.mixed_wire = u64::from(scenario.mixed_wire);
    for process in &world.processes {
        met.count(&process.core.stats().counters);
    }
    let violation = world.violation.clone();
    (met, violation, world)
}

/// Looks for a smaller scenario that breaks the same property.
fn shrink(scenario: Scenario, violation: Violation) -> Failure {
    let seed = scenario.seed;
    let (mut best, mut found) = (scenario, violation);
    let mut members = 0;
    'again: loop {
        for smaller in best.smaller() {
            members += smaller.nodes;
            if members > SHRINK_MEMBERS {
                break 'again;
            }
            if let (_, Some(violation), _) = play(&smaller, |_| {})
                && violation.property == found.property
            {
                (best, found) = (smaller, violation);
                continue 'again;
            }
        }
        break;
    }
    let key = found
        .detail
        .split(' ')
        .next()
        .unwrap_or_default()
        .trim_end_matches(':');
    let (_, _, world) = play_watching(&best, |_| {}, Some(key.to_owned()));
    let skip = world.trace.len().saturating_sub(TRACE_LINES);
    let trace: Vec<String> = world.trace.into_iter().skip(skip).collect();
    let report = format!("{}\n{best:#?}\n{}", found.detail, trace.join("\n"));
    Failure {
        seed,
        property: found.property,
        report,
    }
}
