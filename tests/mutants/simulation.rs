//! Mistakes of lease protocols, caught by the simulation.
//!
//!     tests/mutants/run
//!     TALLYGATE_MISTAKES=MissingSeal tests/mutants/run --nocapture
//!
//! In the copy that `run` makes, `tests/simulation/main.rs` has this as a module.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tallygate::testing::{Plant, plant};

use crate::range;
use crate::run::{Forced, Outcome, run_forced};

thread_local! {
    static MISTAKE: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Runs a seed with a planted mistake.
fn run_with(seed: u64, quiet: bool, mistake: Plant) -> Outcome {
    MISTAKE.set(Some(mistake));
    let forced = Forced {
        split: mistake == Plant::FedByIncrement,
        cut: mistake == Plant::ShortPageIsTheEnd,
        fails: true,
        before: |node| plant(MISTAKE.get(), node),
    };
    let outcome = run_forced(seed, quiet, forced);
    plant(None, 0);
    outcome
}

/// Seeds in which a planted mistake must be caught, each with faults and without, unless
/// `TALLYGATE_SEEDS` names others.
const TO_CATCH: Range<u64> = 0..4_000;

/// Seeds that last caught the rarer mistakes, and whether without faults: a process that has died
/// may lack what one that was sealed and lives may not. They are tried first, to save waiting;
/// other seeds are searched from the beginning.
const SHOWN: [(Plant, u64, bool); 5] = [
    (Plant::MissingSeal, 32, true),
    (Plant::FenceIgnoresOpenPermits, 32, true),
    (Plant::ShortPageIsTheEnd, 32, true),
    (Plant::MissingCarry, 102, true),
    (Plant::RestartTrustsJournal, 516, false),
];

/// How a mistake is caught, and at which seed.
fn caught(mistake: Plant) -> Option<(String, String)> {
    let run = |seed, quiet| {
        let found = run_with(seed, quiet, mistake).violation;
        let at = format!("seed {seed}{}", if quiet { ", without faults" } else { "" });
        found.map(|violation| (at, violation))
    };
    let mut shown = SHOWN.iter().filter(|shown| shown.0 == mistake);
    let all = range("TALLYGATE_SEEDS").unwrap_or(TO_CATCH);
    shown.find_map(|shown| run(shown.1, shown.2)).or_else(|| first_of(all, &run))
}

/// Searches these seeds on all processors: a change of the order of events moves the seeds at which
/// rare mistakes are caught, and one processor takes many minutes to find them again.
fn first_of(
    seeds: Range<u64>,
    run: &(dyn Fn(u64, bool) -> Option<(String, String)> + Sync),
) -> Option<(String, String)> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(None);
    let search = || {
        while found.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if let Some(caught) = run(seed, false).or_else(|| run(seed, true)) {
                *found.lock().unwrap() = Some(caught);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(search);
        }
    });
    found.into_inner().unwrap()
}

/// All of them; or only the one that `TALLYGATE_MISTAKES` names.
#[test]
fn known_mistakes_are_caught() {
    let named = std::env::var("TALLYGATE_MISTAKES").ok();
    let is_meant = |name: String| named.as_ref().is_none_or(|named| *named == name);
    let mut missed = Vec::new();
    for mistake in Plant::ALL.into_iter().filter(|mistake| is_meant(format!("{mistake:?}"))) {
        match caught(mistake) {
            Some((at, how)) => println!("{mistake:?}: at {at}: {how}"),
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
