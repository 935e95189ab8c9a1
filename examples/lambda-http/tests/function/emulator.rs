//! The example as a real `bootstrap` under AWS's own runtime interface emulator, its table in
//! Amazon's DynamoDB Local: init, invoke, flush, freeze and shutdown as Lambda does them.
//!
//! The emulator takes one invocation at a time and does not freeze: the freeze is SIGSTOP to the
//! bootstrap between two invocations. Where emulator or table cannot be had, this says so, and
//! fails in CI.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another process is waited for"
)]

use std::time::{Duration, Instant};

use test_support::skips;

use crate::support::{Function, Table};

const REST: &str = include_str!("../../events/rest-api.json");
const HTTP: &str = include_str!("../../events/http-api.json");

/// Units of `solo` in its month, of which a fresh sandbox leases 8 at once; rates out of the way,
/// with slots so long that none begins in a test.
const QUOTA: u64 = 400;
const SMALL_QUOTA: [(&str, &str); 3] = [
    ("\"5/s burst 10\"", "\"1M/h\""),
    ("\"30/min\"", "\"1M/h\""),
    ("\"10k/month\"", "\"400/month\""),
];

/// An emulator and a table, unless they cannot be had.
macro_rules! table {
    ($plans:expr) => {
        match skips::needed("emulator", crate::support::emulator().and_then(|_| Table::new($plans)))
        {
            Some(table) => table,
            None => return,
        }
    };
}

#[test]
fn each_invocation_ends_with_its_use_in_the_table() {
    let table = table!(&[]);
    let function = Function::start(&table);
    for used in 1..=3 {
        let rest = function.invoke_patiently(REST);
        assert_eq!(rest.status(), 200, "{rest:?}");
        assert_eq!(rest.body()["tenant"], "acme", "the authorizer's claim says so");
        // Nothing invokes it meanwhile.
        table.until_used("acme", used);

        let http = function.invoke_patiently(HTTP);
        assert_eq!(http.status(), 200, "{http:?}");
        assert_eq!(http.body()["tenant"], "solo", "its API key says so");
        assert_eq!(http.body()["plan"], "free");
        table.until_used("solo", used);
    }
    assert!(function.invoke(HTTP).header("ratelimit").contains("\"requests/month\";r=9996"));
}

#[test]
fn a_slow_table_does_not_make_the_answer_slow() {
    // A rate is leased by the slot, and a small one unit by unit: that would wait for the table.
    let table = table!(&[("\"30/min\"", "\"1M/h\"")]);
    let function = Function::start(&table);
    for _ in 0..3 {
        assert_eq!(function.invoke_patiently(HTTP).status(), 200);
    }
    table.delay(Duration::from_millis(500));
    let slow = function.invoke(HTTP);
    assert_eq!(slow.status(), 200, "{slow:?}");
    let answered = function.answered_in();
    println!("table late by 500 ms: answered in {answered:?}, with the flush {:?}", slow.took);
    assert!(answered < Duration::from_millis(100), "{answered:?}");
    assert!(slow.took > Duration::from_millis(500), "the flush has waited: {:?}", slow.took);
    table.until_used("solo", 4);
}

#[test]
fn what_a_frozen_sandbox_holds_is_neither_lost_nor_served_twice() {
    let table = table!(&SMALL_QUOTA);
    let frozen = Function::start(&table);
    // As slowly as a tenant that calls now and then, so that it holds more than it has said on
    // record that it may serve.
    for _ in 0..10 {
        assert_eq!(frozen.invoke_patiently(HTTP).status(), 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    frozen.freeze();
    let other = Function::start(&table);
    let before = 10 + other.admitted(HTTP);
    // It is silent: after a while its log is sealed, and what it cannot serve is taken back.
    let begun = Instant::now();
    let mut taken = 0;
    while taken == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is taken back");
        std::thread::sleep(Duration::from_millis(200));
        taken = other.admitted(HTTP);
    }
    frozen.thaw();
    let after = frozen.admitted(HTTP) + other.admitted(HTTP);
    let admitted = before + taken + after;
    println!("of {QUOTA}: {before}, {taken} taken back from the frozen, {after} after the thaw");
    // What it could not be shown not to have served stays out of reach until the month ends.
    assert!((QUOTA - 8..=QUOTA).contains(&admitted), "{admitted} of {QUOTA}");
    table.until_used("solo", admitted);
}

#[test]
fn sigterm_writes_what_no_flush_could_and_gives_units_back() {
    let table = table!(&SMALL_QUOTA);
    let function = Function::start(&table);
    for _ in 0..2 {
        assert_eq!(function.invoke_patiently(HTTP).status(), 200);
    }
    table.until_used("solo", 2);
    table.cut(true);
    let unseen = function.invoke(HTTP);
    assert_eq!(unseen.status(), 200, "the lease has room: {unseen:?}");
    table.cut(false);
    function.terminate();
    table.until_used("solo", 3);
    let next = Function::start(&table);
    assert_eq!(next.admitted(HTTP), QUOTA - 3, "all that was not used, at once");
}
