//! A table restored from a backup, and what Stripe counts in the end.

use serde_json::json;
use tallygate::billing::SentSinceCopy;
use tallygate::billing::report::ReportError;

use crate::bench::Bench;
use crate::topups::{buy_packs, packs};

const HOURS: u32 = 3_600;

/// Nothing is sent before the operator has decided, whichever way it is asked.
async fn waits(bench: &Bench) {
    let billed = bench.billed("api_requests");
    assert!(matches!(bench.gate.report_now().await, Err(ReportError::Restored)));
    assert!(matches!(bench.another().await.report_now().await, Err(ReportError::Restored)));
    assert_eq!(bench.billed("api_requests"), billed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_was_open_in_the_backup_is_billed_once() {
    for counts in [true, false] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        bench.use_("acme", "requests", 10).await;
        let hang = json!({
            "on": "POST /v1/billing/meter_events", "times": 0,
            "do": { "status": { "code": 503, "applied": counts, "should_retry": false } },
        });
        bench.sim.fault(serde_json::from_value(hang).unwrap());
        assert_eq!(bench.report().await.open, 1);
        bench.sim.heal();
        let copy = bench.store.copy().await;
        let bench = bench.restored(copy).await;
        bench.pass(7 * HOURS);
        waits(&bench).await;
        assert!(bench.gate.resume_reports(SentSinceCopy::Nothing).await.unwrap());
        bench.report().await;
        assert_eq!(bench.billed("api_requests"), 10, "counted before: {counts}");
        bench.use_("acme", "requests", 4).await;
        bench.pass(60);
        bench.report().await;
        assert_eq!(bench.billed("api_requests"), 14);
        assert!(bench.gate.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_after_the_backup_is_not_sent_again() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    bench.report().await;
    // This use is lost with the table, and was billed.
    bench.use_("acme", "requests", 7).await;
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 17);
    let bench = bench.restored(copy).await;
    waits(&bench).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.use_("acme", "requests", 5).await;
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 17, "sums lag: they are asked for later");
    bench.pass(7 * HOURS);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 22, "what was used since the restore");
    bench.pass(60);
    bench.use_("acme", "requests", 1).await;
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_was_owed_in_the_backup_what_was_sent_since_is_not_sent_again() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    bench.use_("acme", "requests", 20).await;
    bench.report().await;
    bench.pass(32 * 24 * HOURS); // another period
    bench.use_("acme", "requests", 10).await;
    bench.use_("acme", "jobs", 50).await; // another event
    bench.report().await;
    bench.use_("acme", "requests", 3).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 33);
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOURS);
    bench.report().await;
    assert_eq!((bench.billed("api_requests"), bench.billed("jobs")), (33, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_entry_of_the_backup_that_counts_is_no_other_use() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let lost = json!({
        "on": "POST /v1/billing/meter_events", "times": 0,
        "do": { "status": { "code": 503, "applied": true, "should_retry": false } },
    });
    bench.sim.fault(serde_json::from_value(lost).unwrap());
    bench.use_("acme", "requests", 10).await;
    assert_eq!(bench.report().await.open, 1);
    bench.sim.heal();
    bench.use_("acme", "requests", 3).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOURS);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 13, "the 3 unsent units are billed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_sent_since_the_backup_is_sent() {
    for word in [SentSinceCopy::AskStripe, SentSinceCopy::Nothing] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        bench.use_("acme", "requests", 10).await;
        bench.report().await;
        bench.use_("acme", "requests", 3).await;
        bench.gate.flush_now().await.unwrap();
        let copy = bench.store.copy().await;
        let bench = bench.restored(copy).await;
        waits(&bench).await;
        assert!(bench.gate.resume_reports(word).await.unwrap());
        bench.pass(7 * HOURS);
        bench.report().await;
        assert_eq!(bench.billed("api_requests"), 13, "{word:?}");
        assert!(bench.gate.audit().await.unwrap().is_clean());
        bench.pass(25 * HOURS);
        assert_eq!(bench.report().await.doubtful, []);
    }
    let never = Bench::new().await;
    assert!(!never.gate.resume_reports(SentSinceCopy::Nothing).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_paid_for_after_the_copy_of_a_restored_table_are_given() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let copy = bench.store.copy().await;
    buy_packs(&bench, &customer);
    bench.deliver(&mut 0).await;
    assert_eq!(packs(&bench.gate).await, [("credits".to_owned(), 100)]);
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    for _ in 0..3 {
        bench.use_("acme", "requests", 1).await;
        bench.pass(86_400 + 60);
        bench.report().await;
    }
    assert_eq!(packs(&bench.gate).await, [("credits".to_owned(), 100)]);
}
