//! A simulation of several nodes on one table: one seed is one schedule of clients, faults and
//! time.
//!
//! The nodes are whole gates, with the tasks they ship with; each has a runtime of its own, whose
//! time moves only in steps made by the driver (`run.rs`). The table is the reference store behind
//! a network that loses, delays and repeats (`network.rs`). The truth is kept beside what the nodes
//! believe, and every write and every unit served is checked (`world.rs`).
//!
//!     cargo test --test simulation                                   # the seeds of CI
//!     TALLYGATE_SEEDS=0..100000 cargo test --release --test simulation no_schedule -- --nocapture
//!     TALLYGATE_QUIET_SEEDS=0..1000 cargo test --release --test simulation without_faults
//!     TALLYGATE_SPLIT=1 cargo test --test simulation                  # every pool has sub-pools
//!
//! A seed takes about 16 ms of a core; `TMPDIR=/dev/shm` spares a disk its journals. A failing seed
//! is printed; added to `seeds.txt`, it is run for good.
//!
//! Known mistakes, planted in a copy of the code, are caught by it: `tests/mutants/run`. The
//! reference model has two more that it does not catch, because they concern
//! what is sent to Stripe, not leases: they are planted where that is simulated, in
//! `src/billing/outbox_tests.rs`. `local_clock` (entries are dated by a node's own clock) is caught
//! there as it is. `v1_api` (no short-lived token, so only the sender's own clocks fence it) is
//! what this code does: harmless as long as nothing takes effect later than two minutes after its
//! mark, which the deadline between mark and send and the time limit of the call ensure. Without
//! that deadline (`NoDeadline`) it is caught.

#![allow(clippy::unwrap_used, reason = "a simulation that panics has failed")]

mod chance;
mod network;
mod node;
mod requests;
mod run;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use world::World;

/// Seeds that every build runs.
const ALWAYS: Range<u64> = 0..24;

/// A seed that runs this long has stopped making progress: the slowest take a second.
const STUCK: Duration = Duration::from_secs(120);

/// Combined results of the runs.
#[derive(Default)]
struct Sum {
    failed: Vec<String>,
    stats: BTreeMap<&'static str, u64>,
    met: BTreeMap<(&'static str, &'static str), u64>,
}

impl Sum {
    fn add(&mut self, world: World) {
        for (what, n) in world.stats {
            *self.stats.entry(what).or_default() += n;
        }
        for (what, n) in world.met {
            *self.met.entry(what).or_default() += n;
        }
    }

    fn print(&self) {
        for (what, n) in &self.stats {
            println!("{n:>12} {what}");
        }
        for ((fault, state), n) in &self.met {
            println!("{n:>12} {fault} / {state}");
        }
    }
}

/// Runs these seeds on as many threads as there are, and stops after ten failures.
fn run_all(seeds: Range<u64>, quiet: bool) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sum.lock().unwrap().failed.len() >= 10 {
                        return;
                    }
                    let outcome = ends(seed, || run::run(seed, quiet));
                    let mut sum = sum.lock().unwrap();
                    if let Some(violation) = outcome.violation {
                        let at = outcome.at_us as f64 / 1e6;
                        println!("seed {seed} at {at:.2} s: {violation}");
                        sum.failed.push(format!("seed {seed}: {violation}"));
                    }
                    sum.add(outcome.world);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

/// Ends the process if a seed does not end: a node whose tasks keep each other busy stands still,
/// because its time moves only once all of them wait.
fn ends<T>(seed: u64, run: impl FnOnce() -> T) -> T {
    let (ended, watched) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(STUCK) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("seed {seed} has not ended after {STUCK:?}");
            std::process::abort();
        }
    });
    let outcome = run();
    drop(ended);
    outcome
}

fn seeds() -> Range<u64> {
    range("TALLYGATE_SEEDS").unwrap_or(ALWAYS)
}

fn range(name: &str) -> Option<Range<u64>> {
    let text = std::env::var(name).ok()?;
    let bounds = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    Some(bounds.unwrap_or_else(|| panic!("{name} is FROM..TO")))
}

/// `TALLYGATE_QUIET_SEEDS=0..1000` for more of them.
fn quiet_seeds() -> Range<u64> {
    range("TALLYGATE_QUIET_SEEDS").unwrap_or(0..10)
}

#[test]
fn no_schedule_breaks_an_invariant() {
    let sum = run_all(seeds(), false);
    sum.print();
    assert!(sum.failed.is_empty(), "\n{}", sum.failed.join("\n"));
}

#[test]
fn without_faults_nothing_is_lost_or_stranded() {
    let mut served = 0;
    for seed in quiet_seeds() {
        let sum = run_all(seed..seed + 1, true);
        assert!(sum.failed.is_empty(), "\n{}", sum.failed.join("\n"));
        let stat = |name| sum.stats.get(name).copied().unwrap_or(0);
        assert_eq!(stat("units lost"), 0, "seed {seed}");
        assert_eq!(stat("units stranded"), 0, "seed {seed}: {:?}", sum.stats);
        served += stat("units served");
    }
    assert!(served > 1_000, "{served}");
}

#[test]
fn one_seed_is_one_run() {
    let told = |seed| {
        let world = run::run(seed, false).world;
        // Without operation numbers, which are counted over the whole process.
        let pools = world.pools.iter().map(|(pk, pool)| (pk, pool.free, pool.limit));
        let pools: Vec<_> = pools.collect();
        format!("{:?} {:?} {pools:?} {:?}", world.stats, world.met, world.recorded)
    };
    for seed in 0..4 {
        assert_eq!(told(seed), told(seed), "seed {seed}");
    }
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().and_then(|word| word.parse().ok());
        let Some(seed) = seed else { continue };
        let outcome = run::run(seed, false);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}
