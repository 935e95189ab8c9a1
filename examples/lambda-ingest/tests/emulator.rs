//! The example as a real `bootstrap` under AWS's own runtime interface emulator, its table in
//! Amazon's DynamoDB Local: batches of SQS and events of EventBridge, each event counted once.
//!
//! Where emulator or table cannot be had, this says so, and fails in CI.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another process is waited for"
)]

#[path = "../../lambda-http/tests/function/support/mod.rs"]
mod support;

use support::{Function, Table};
use test_support::skips;

const SQS: &str = include_str!("../events/sqs.json");
const BUS: &str = include_str!("../events/eventbridge.json");

#[test]
fn of_ten_messages_eight_count_once_and_poison_is_reported() {
    let table = support::emulator().and_then(|_| Table::new(&[]));
    let Some(table) = skips::needed("emulator", table) else { return };
    let (one, two) = (Function::start(&table), Function::start(&table));
    for function in [&one, &two, &one] {
        let failed = function.invoke(SQS).event;
        let failures = failed["batchItemFailures"].as_array().unwrap();
        let [failure] = &failures[..] else { panic!("{failed}") };
        assert_eq!(failure["itemIdentifier"], "00000009-1111-4222-8333-444444444444");
        // What was answered is on record: nothing is waited for.
        assert_eq!(table.used("acme", "minutes"), (1..=8).sum::<u64>());
    }
    for function in [&two, &one] {
        assert!(function.invoke(&on_time(BUS)).event.is_null());
        assert_eq!(table.used("acme", "minutes"), 36 + 4);
    }
    let letters = table.run(&["--letters"]);
    assert!(letters.contains("not JSON") && letters.contains("call-9"), "{letters}");
    let id = letters.split(' ').next().unwrap();
    assert!(table.run(&["--replay", id]).starts_with("not counted"));
}

/// The recorded event has the time of its recording, whose billing period ends some day.
fn on_time(event: &str) -> String {
    let mut event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["time"].take();
    event.to_string()
}
