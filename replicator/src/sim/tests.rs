use super::*;
use crate::core::Faults;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The first seeds; `SIM_FROM` and `SIM_COUNT` choose others.
#[test]
fn properties_hold_in_all_runs() {
    let (from, count) = (setting("SIM_FROM", 0), setting("SIM_COUNT", 1_000));
    let most = usize::try_from(setting("SIM_FAILURES", 5)).unwrap();
    let runs = Runs {
        seeds: from..from + count,
        members: None,
        threads: 2,
        most_failures: most,
    };
    let (met, failures) = run_many(&runs, &|| {});
    println!("met in {count} runs:\n{met}");
    for failure in &failures {
        println!(
            "seed {}: {}\n{}\n",
            failure.seed, failure.property, failure.report
        );
    }
    assert!(failures.is_empty(), "{} failing seeds", failures.len());
    assert!(
        count < 1_000 || met.missing().is_empty(),
        "never happened: {:?}",
        met.missing()
    );
}

/// Seeds that have broken a property before.
#[test]
fn what_once_failed_holds() {
    for seed in [
        999, 4_774, 6_126, 9_091, 9_358, 10_553, 15_257, 26_284, 30_715, 33_656, 34_576, 35_036, 35_262,
        37_256, 39_890, 42_824, 44_140, 53_351, 53_450, 55_799, 56_935, 63_474, 68_701, 74_785, 77_281,
        98_267, 100_885, 101_838, 102_591,
    ] {
        if let Err(failure) = run(seed) {
            panic!("seed {seed}: {}\n{}", failure.property, failure.report);
        }
    }
}

/// Clusters of a size that is not drawn: one of each mode. `cargo sim --members 300` runs larger ones.
#[test]
fn hundreds_of_members_hold_the_same_properties() {
    let runs = Runs {
        seeds: 0..2,
        members: Some(100),
        threads: 2,
        most_failures: 2,
    };
    let (met, failures) = run_many(&runs, &|| {});
    println!("met in 2 runs of 100 members:\n{met}");
    for failure in &failures {
        println!(
            "seed {}: {}\n{}\n",
            failure.seed, failure.property, failure.report
        );
    }
    assert!(failures.is_empty(), "{} failing seeds", failures.len());
    let faults = [
        met.cut_frames,
        met.one_way,
        met.lost_pods,
        met.restarts,
        met.pauses,
        met.scalings,
        met.shrinkings,
        met.handoffs,
        met.takeovers,
        met.logouts,
    ];
    assert!(faults.iter().all(|count| *count > 0), "{faults:?}");
}

/// Each rule that is broken on purpose is noticed within so many seeds.
fn noticed(settings: fn(&mut Config), within: u64) {
    let found = (0..within).find_map(|seed| {
        let (_, violation, _) = play(&Scenario::from_seed(seed), settings);
        Some((seed, violation?.property))
    });
    let (seed, property) = found.unwrap_or_else(|| panic!("not noticed within {within} seeds"));
    println!("noticed by seed {seed} as \"{property}\"");
}

macro_rules! noticed {
    ($($name:ident: $fault:ident, $within:literal;)*) => {
        $(#[test]
        fn $name() {
            noticed(|config| config.faults = Faults::$fault, $within);
        })*
    };
}

noticed! {
    tombstone_dropped_early: TombstoneDroppedEarly, 100;
    lock_before_data: LockBeforeData, 100;
    drain_without_waiting: DrainWithoutWaiting, 100;
    incarnation_ignored: IncarnationIgnored, 100;
    join_ready_too_soon: JoinReadyTooSoon, 100;
    eviction_not_replicated: EvictionNotReplicated, 100;
    acknowledge_ignored: AcknowledgeIgnored, 100;
    handoff_without_stopping: HandoffWithoutStopping, 100;
    miss_not_asked: MissNotAsked, 100;
    nothing_sent_again: NothingSentAgain, 100;
}
