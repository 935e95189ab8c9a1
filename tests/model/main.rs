//! What a tenant may use and owes: one plain model ([`book`]), and the gate held against it on
//! random histories.
//!
//!     cargo test --test model                                     # the histories of every build
//!     TOLLGATE_HISTORIES=100000 cargo test --release --test model -- --nocapture
//!
//! A history that differs is made smaller, printed, and belongs into `regressions.rs`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use proptest::test_runner::{Config, TestError, TestRunner};

mod book;
mod calendar;
mod coverage;
mod history;
mod system;

/// Histories of every build.
const HISTORIES: u32 = 2_000;

/// Each pair of features meets in one history of so many.
const LEAST: u32 = 500;

#[test]
fn the_gate_does_what_the_book_says() {
    let asked = std::env::var("TOLLGATE_HISTORIES").ok();
    let cases = asked.map_or(HISTORIES, |n| n.parse().expect("a number of histories"));
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let coverage = coverage::Coverage::default();
    let found = runner.run(&history::histories(), |history| {
        let seen = system::run(&history).map_err(proptest::test_runner::TestCaseError::fail)?;
        coverage.add(&seen);
        Ok(())
    });
    match found {
        Ok(()) => {
            let (pair, least) = coverage.least();
            println!("{cases} histories, 0 differences");
            assert!(least >= cases / LEAST, "{pair:?} met {least} times");
        }
        Err(TestError::Fail(why, history)) => panic!("{why}\n{history:?}\n{}", history.file()),
        Err(other) => panic!("{other}"),
    }
}

/// How histories differ, kind by kind, with a small one of each: for work on either side.
#[test]
fn survey() {
    use proptest::strategy::{Strategy, ValueTree};
    let Ok(n) = std::env::var("TOLLGATE_SURVEY") else {
        return;
    };
    let mut kinds = std::collections::BTreeMap::<String, u32>::new();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    // Where it came to a difference, and in which number.
    let kind = |why: &str| {
        let event = why.split([' ', '{']).nth(2).unwrap_or_default().to_owned();
        let what = why.split("the gate says").next().unwrap_or_default();
        let what = what.rsplit_once("}:").or(what.rsplit_once("):")).map_or(what, |(_, end)| end);
        format!("{event} {what}")
    };
    for _ in 0..n.parse::<u32>().expect("a number of histories") {
        let mut tree = history::histories().new_tree(&mut runner).unwrap();
        let Err(first) = system::run(&tree.current()) else {
            continue;
        };
        let of = kind(&first);
        let known = kinds.entry(of.clone()).or_default();
        *known += 1;
        if *known > 1 {
            continue;
        }
        let (mut best, mut why, mut tries) = (tree.current(), first, 0);
        while tries < 120 && tree.simplify() {
            loop {
                tries += 1;
                match system::run(&tree.current()) {
                    Err(now) if kind(&now) == of => {
                        (best, why) = (tree.current(), now);
                        break;
                    }
                    _ if !tree.complicate() => break,
                    _ => {}
                }
            }
        }
        println!("=== {of}\n{why}\n{:?}\n{}", best.events, best.file());
    }
    println!("{kinds:#?}");
}
