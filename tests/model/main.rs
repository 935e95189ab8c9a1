//! A plain model ([`book`]) of what a tenant may use and owes, and the gate checked against it on
//! random histories. Each history has a number, and a number always gives the same history.
//!
//!     cargo test --test model                                          # those of every build
//!     TALLYGATE_HISTORIES=100000 cargo test --release --test model the_gate -- --nocapture
//!     TALLYGATE_FROM=4711 TALLYGATE_HISTORIES=1 cargo test --test model the_gate
//!     TALLYGATE_SURVEY=500 cargo test --test model survey -- --nocapture     # all differences
//!
//! A history that differs is shrunk, printed, and belongs in `regressions.rs`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::coverage::{Coverage, Pair, Seen};
use crate::history::History;
use crate::system::Differs;

mod book;
mod bounds;
mod calendar;
mod coverage;
mod history;
mod host;
mod known;
mod nodes;
mod regressions;
mod shrink;
mod stripe;
mod system;

/// Histories of every build.
const HISTORIES: u32 = 2_000;

/// Histories of several nodes, which take longer.
const HISTORIES_OF_NODES: u32 = 400;

/// A small history that differs, and how.
struct Found {
    number: u32,
    history: History,
    why: Differs,
}

#[test]
fn the_gate_does_what_the_book_says() {
    let cases = env("TALLYGATE_HISTORIES").unwrap_or(HISTORIES);
    let coverage = Coverage::default();
    let found = run_all(&ONE_NODE, cases, Some(&coverage), 1);
    held(&coverage, &coverage::OF_ONE_NODE, cases, &found);
}

#[test]
fn several_nodes_of_which_some_die_stay_within_what_is_promised() {
    let cases = env("TALLYGATE_HISTORIES").unwrap_or(HISTORIES_OF_NODES);
    let coverage = Coverage::default();
    let found = run_all(&SEVERAL_NODES, cases, Some(&coverage), 1);
    let [stranded, used] = &nodes::STRANDED;
    let (stranded, used) = (stranded.load(Ordering::Relaxed), used.load(Ordering::Relaxed));
    println!("{stranded} units died with nodes beside {used} that were used");
    held(&coverage, &coverage::OF_SEVERAL_NODES, cases, &found);
}

/// Asserts that no history differs and each pair of features met often enough.
fn held(
    coverage: &Coverage,
    features: &[&'static str],
    cases: u32,
    found: &BTreeMap<String, (u32, Found)>,
) {
    let differing: u32 = found.values().map(|(n, _)| n).sum();
    coverage.print();
    println!("{cases} histories, {differing} differences");
    if let Some((_, found)) = found.values().next() {
        panic!("{}", found.told());
    }
    let seldom = coverage.seldom(features, cases);
    assert!(seldom.is_empty(), "met too seldom: {}", seldom.join("; "));
}

/// How a number becomes a history, and how it is run.
struct Way {
    history: fn(u32) -> History,
    run: fn(&History, u32) -> Result<Seen, Differs>,
}

const ONE_NODE: Way = Way {
    history: |number| {
        let history = history::with_falls(numbered(number), number);
        let history = history::with_more_at_stripe(history, number);
        history::with_payments(history, number)
    },
    run: |history, _| system::run(history),
};

const SEVERAL_NODES: Way = Way {
    history: |number| nodes::spread(numbered(number), number),
    run: |history, number| nodes::run(history, nodes::nodes(number), nodes::split(number)),
};

fn on_all_processors(work: impl Fn() + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(&work))));
}

#[test]
fn a_number_is_one_history() {
    for number in 0..20 {
        let told = || format!("{:?}", numbered(number));
        assert_eq!(told(), told());
    }
}

/// How histories differ, kind by kind, with a small one of each: for work on either side.
#[test]
fn survey() {
    survey_of(&ONE_NODE);
}

#[test]
fn survey_of_several_nodes() {
    survey_of(&SEVERAL_NODES);
}

fn survey_of(way: &Way) {
    if let Some(cases) = env("TALLYGATE_SURVEY") {
        let found = run_all(way, cases, None, usize::MAX);
        for (kind, (n, found)) in &found {
            println!("=== {n} x {kind}\n{}\n", found.told());
        }
        let differing: u32 = found.values().map(|(n, _)| n).sum();
        println!("{cases} histories, {differing} differences of {} kinds", found.len());
    }
}

/// Runs histories on all processors: differences by kind, until enough kinds are known.
fn run_all(
    way: &Way,
    cases: u32,
    coverage: Option<&Coverage>,
    enough: usize,
) -> BTreeMap<String, (u32, Found)> {
    let first = env("TALLYGATE_FROM").unwrap_or(0);
    let (next, found) = (AtomicU32::new(first), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_enough = || found.lock().unwrap().len() >= enough;
            if number - first >= cases || is_enough() {
                return;
            }
            if let (Some(met), Some(all)) = (run_one(way, number, &found), coverage) {
                all.add(met);
            }
        }
    };
    on_all_processors(work);
    found.into_inner().unwrap()
}

/// The history of this number.
fn numbered(number: u32) -> History {
    let seed = RngSeed::Fixed(number.into());
    let config = Config { failure_persistence: None, rng_seed: seed, ..Config::default() };
    let history = history::histories().new_tree(&mut TestRunner::new(config)).unwrap().current();
    history::with_more(history, number)
}

/// Runs a history, and returns the features that met in it; one with a new kind of difference is
/// shrunk.
fn run_one(
    way: &Way,
    number: u32,
    found: &Mutex<BTreeMap<String, (u32, Found)>>,
) -> Option<Vec<Pair>> {
    let history = (way.history)(number);
    let why = match (way.run)(&history, number) {
        Ok(seen) => return Some(coverage::pairs(&history, &seen)),
        Err(why) => why,
    };
    let kind = kind(&why);
    if let Some((n, _)) = found.lock().unwrap().get_mut(&kind) {
        *n += 1;
        return None;
    }
    println!("history {number} differs ({why}); it is being shrunk");
    let differs =
        |history: &History| (way.run)(history, number).is_err_and(|why| self::kind(&why) == kind);
    let history = shrink::smallest(history, differs);
    let why = (way.run)(&history, number).err().unwrap_or(why);
    let least = Found { number, history, why };
    found.lock().unwrap().entry(kind).or_insert((0, least)).0 += 1;
    None
}

/// The kind of a difference: the event at which it arose, and the figure that differs.
fn kind(why: &str) -> String {
    let event = why.split([' ', '{']).nth(2).unwrap_or_default();
    let what = why.split("the gate says").next().unwrap_or_default();
    let what = what.rsplit_once("}:").or(what.rsplit_once("):")).map_or(what, |(_, end)| end);
    format!("{event} {}", what.chars().take(50).collect::<String>())
}

impl Found {
    fn told(&self) -> String {
        let Self { number, history, why } = self;
        format!(
            "history {number}: {why}\n{:?}\n{:?}\n{}",
            history.setting,
            history.events,
            history.file()
        )
    }
}

fn env(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}
