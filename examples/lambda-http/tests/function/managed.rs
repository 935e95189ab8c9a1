//! The example as a real `bootstrap` on a Managed Instance, its table in Amazon's DynamoDB Local:
//! several invocations at once, no freeze between them, and no extension that is told of them.
//!
//! Lambda's side is `support::runtime_api`, since AWS's emulator takes one invocation at a time.
//! Where the table cannot be had, this says so, and fails in CI.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another process is waited for"
)]

use std::time::Duration;

use serde_json::{Value, json};
use test_support::skips;

use crate::support::{Instance, Table};

const REST: &str = include_str!("../../events/rest-api.json");
const HTTP: &str = include_str!("../../events/http-api.json");
const AT_ONCE: u32 = 8;

/// A table, unless it cannot be had.
macro_rules! table {
    () => {
        match skips::needed("managed instance", Table::new(&[])) {
            Some(table) => table,
            None => return,
        }
    };
}

/// Invokes with all of these at once, and those again that should be.
fn invoke_all(instance: &Instance, events: &[&str]) -> Vec<Value> {
    let ids: Vec<String> = events.iter().map(|event| instance.api.invoke(event)).collect();
    let answers = ids.iter().zip(events).map(|(id, event)| {
        let mut answer = instance.api.answer(id);
        for _ in 0..20 {
            match answer["statusCode"].as_u64() {
                // The table was slower than a request waits for its units.
                Some(503) => {}
                // A machine that is quick is held to ten a second.
                Some(429) => std::thread::sleep(Duration::from_millis(200)),
                _ => break,
            }
            answer = instance.api.answer(&instance.api.invoke(event));
        }
        answer
    });
    answers.collect()
}

#[test]
fn invocations_that_overlap_are_each_counted_and_flushed_without_a_freeze() {
    let table = table!();
    // No tenant is in memory yet, so that the first ones wait for the table together.
    table.delay(Duration::from_millis(100));
    let instance = Instance::start(&table, AT_ONCE);
    let mut used = 0;
    for _ in 0..3 {
        let events: Vec<&str> = (0..AT_ONCE).map(|_| REST).collect();
        for answer in invoke_all(&instance, &events) {
            assert_eq!(answer["statusCode"], 200, "{answer}");
            let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!(body["tenant"], "acme", "its authorizer says so");
            used += 1;
        }
        // It runs on, and nothing more invokes it.
        table.until_used("acme", used);
    }
    assert_eq!(instance.api.most_in_flight(), AT_ONCE as usize);
    assert_eq!(instance.api.registered(), [json!([])], "Lambda refuses INVOKE here");
}

#[test]
fn sigterm_leaves_time_for_the_answers_that_are_on_their_way() {
    let table = table!();
    let mut instance = Instance::start(&table, AT_ONCE);
    for answer in invoke_all(&instance, &[REST, REST]) {
        assert_eq!(answer["statusCode"], 200, "{answer}");
    }
    // `solo` has to be looked up, which takes its time now: some calls, one after another, and all
    // of them in the second that there is.
    table.delay(Duration::from_millis(30));
    let late = instance.api.invoke(HTTP);
    instance.api.until_taken();
    std::thread::sleep(Duration::from_millis(50)); // it has been sent, and is read by now
    instance.terminate();
    let answer = instance.api.answer(&late);
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert!(instance.ended_well());
    table.until_used("acme", 2);
    table.until_used("solo", 1);
}

#[test]
fn streamed_answers_leave_whole_and_are_counted() {
    let table = table!();
    let instance = Instance::streaming(&table, AT_ONCE);
    let stream = REST.replace("/v1/search", "/v1/stream");
    let (prelude, body) = instance.api.stream(&instance.api.invoke(&stream));
    assert_eq!(prelude["statusCode"], 200, "{prelude}");
    assert_eq!(body.len(), 1_000, "one line");
    table.until_used("acme", 1);
}
