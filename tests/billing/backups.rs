//! A table restored from a backup, and what Stripe counts in the end.

use serde_json::json;
use tallygate::Gate;
use tallygate::Trouble;
use tallygate::billing::SentSinceCopy;
use tallygate::billing::report::ReportError;
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::testing::time_at;

use crate::bench::{Bench, NOW, event, fault, subscription, use_at};
use crate::topups::{buy_packs, packs};

const HOURS: u32 = 3_600;

/// Nothing is sent before the operator has decided, whichever way it is asked.
async fn waits(bench: &Bench) {
    let billed = bench.billed("api_requests");
    assert!(matches!(bench.gate.report_now().await, Err(ReportError::Restored)));
    let told = bench.gate.health().troubles;
    assert!(matches!(&*told, [Trouble::NotReported { .. }]), "{told:?}");
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
        assert_eq!(bench.gate.health().troubles, []);
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

/// Ten requests of acme are sent, three more are on record, and then the store is restored from a
/// copy of that moment.
async fn restored_with_three_unsent(bench: Bench) -> Bench {
    bench.use_("acme", "requests", 10).await;
    bench.report().await;
    bench.use_("acme", "requests", 3).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    bench.restored(copy).await
}

/// No sum has to be waited for where the operator says that nothing was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_owed_in_a_backup_since_which_nothing_was_sent_is_sent_at_once() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    bench.use_("acme", "jobs", 50).await;
    let bench = restored_with_three_unsent(bench).await;
    waits(&bench).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::Nothing).await.unwrap());
    bench.pass(60);
    bench.report().await;
    assert_eq!((bench.billed("api_requests"), bench.billed("jobs")), (13, 50));
    // An entry that is made since then is one like any other.
    let lost = json!({
        "on": "POST /v1/billing/meter_events", "times": 1,
        "do": { "status": { "code": 503, "applied": false, "should_retry": false } },
    });
    bench.sim.fault(serde_json::from_value(lost).unwrap());
    bench.use_("acme", "requests", 4).await;
    bench.pass(60);
    assert_eq!(bench.report().await.open, 1);
    bench.pass(60);
    assert_eq!(bench.report().await.open, 0);
    assert_eq!(bench.billed("api_requests"), 17);
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_sent_since_the_backup_is_sent() {
    for word in [SentSinceCopy::AskStripe, SentSinceCopy::Nothing] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        let bench = restored_with_three_unsent(bench).await;
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

/// Another meter, `calls`, with the event of `requests`.
const CALLS: &str = "[meter.calls]\n    stripe = { event = \"api_requests\", send = \"all\" }\n    \
                     [meter.credits]";

async fn with_calls(bench: &Bench) -> Gate {
    bench.another_with("[meter.credits]", CALLS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_no_entry_takes_a_minute_in_which_stripe_counts() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    bench.pass(31 * 24 * HOURS);
    let copy = bench.store.copy().await;
    let jobs = |id: &str, at_s: i64| {
        UsageEvent::new(id, "acme", "jobs", 7).at(time_at((NOW + at_s) * 1_000))
    };
    // Of the period that ended a day ago; sent after the copy was made.
    assert_eq!(bench.gate.ingest().events(vec![jobs("a", 3_600)]).await, [Ok(Counted::Now)]);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 7);
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    // Other use of that period, of which the copy knows nothing. Sums lag.
    assert_eq!(bench.gate.ingest().events(vec![jobs("b", 7_200)]).await, [Ok(Counted::Now)]);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 7, "no minute of that period is known to be free yet");
    bench.pass(7 * HOURS);
    // For a day Stripe does not answer.
    let away = json!({ "code": 503, "applied": false, "should_retry": false });
    fault(&bench, 0, &json!({ "status": away }));
    bench.report().await;
    bench.pass(25 * HOURS);
    bench.sim.heal();
    for _ in 0..6 {
        bench.report().await;
        bench.pass(7 * HOURS);
    }
    assert_eq!(bench.billed("jobs"), 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_ends_before_stripe_is_asked_sends_nothing_twice() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await; // counted from the 16th of March
    bench.pass(24 * 24 * HOURS);
    let mut made = subscription("sub_1", &customer, "active", "team_monthly");
    for field in ["start_date", "created", "billing_cycle_anchor"] {
        made[field] = json!(bench.sim.now()); // the 10th of April
    }
    let created = event("evt_1", "customer.subscription.created", bench.sim.now(), &made);
    assert_eq!(bench.webhook(&created).await, 200);
    bench.pass(10 * 24 * HOURS);
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 10);
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    made["status"] = json!("canceled");
    made["ended_at"] = json!(bench.sim.now());
    let deleted = event("evt_2", "customer.subscription.deleted", bench.sim.now(), &made);
    assert_eq!(bench.webhook(&deleted).await, 200);
    bench.pass(7 * HOURS);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_entry_of_the_backup_is_no_use_of_another_meter_of_its_event() {
    for (open, owed) in [("requests", "calls"), ("calls", "requests")] {
        let bench = Bench::new().await;
        let gate = with_calls(&bench).await;
        bench.customer("acme").await;
        let lost = json!({ "code": 503, "applied": true, "should_retry": false });
        fault(&bench, 0, &json!({ "status": lost }));
        use_at(&gate, "acme", open, 10).await;
        assert_eq!(gate.report_now().await.unwrap().open, 1);
        bench.sim.heal();
        use_at(&gate, "acme", owed, 3).await;
        gate.flush_now().await.unwrap();
        let copy = bench.store.copy().await;
        drop(gate);
        let bench = bench.restored(copy).await;
        let gate = with_calls(&bench).await;
        assert!(gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
        bench.pass(7 * HOURS);
        gate.report_now().await.unwrap();
        assert_eq!(bench.billed("api_requests"), 13, "{open} was open, {owed} was owed");
        assert!(gate.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_since_the_restore_waits_for_another_meter_of_its_event_that_is_asked_about() {
    for (sent, owed) in [("requests", "calls"), ("calls", "requests")] {
        let bench = Bench::new().await;
        let gate = with_calls(&bench).await;
        bench.customer("acme").await;
        use_at(&gate, "acme", sent, 20).await;
        gate.report_now().await.unwrap();
        use_at(&gate, "acme", owed, 5).await;
        gate.flush_now().await.unwrap();
        let copy = bench.store.copy().await;
        bench.pass(60);
        gate.report_now().await.unwrap();
        assert_eq!(bench.billed("api_requests"), 25);
        drop(gate);
        let bench = bench.restored(copy).await;
        let gate = with_calls(&bench).await;
        assert!(gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
        bench.pass(600);
        // All of this meter was sent when the copy was made.
        use_at(&gate, "acme", sent, 4).await;
        gate.report_now().await.unwrap();
        assert_eq!(bench.billed("api_requests"), 25, "{sent}: what {owed} has sent is not known");
        bench.pass(7 * HOURS);
        gate.report_now().await.unwrap();
        assert_eq!(bench.billed("api_requests"), 29, "{owed} was sent since the copy");
        assert!(gate.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_renamed_before_the_backup_is_sent_once_after_it() {
    let (old, new) = ("event = \"api_requests\"", "event = \"api_v2\"");
    let bench = Bench::new().await;
    bench.sim.create_meter("api_v2").unwrap();
    bench.customer("acme").await;
    bench.use_("acme", "requests", 100).await;
    bench.report().await;
    let gate = bench.another_with(old, new).await;
    use_at(&gate, "acme", "requests", 10).await;
    gate.flush_now().await.unwrap();
    bench.pass(60);
    let copy = bench.store.copy().await;
    gate.report_now().await.unwrap();
    drop(gate);
    let bench = bench.restored(copy).await;
    let gate = bench.another_with(old, new).await;
    assert!(gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOURS);
    gate.report_now().await.unwrap();
    assert_eq!((bench.billed("api_requests"), bench.billed("api_v2")), (100, 10));
    assert!(gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_under_an_events_former_name_since_the_backup_is_not_sent_again() {
    let (old, new) = ("event = \"api_requests\"", "event = \"api_v2\"");
    let bench = Bench::new().await;
    bench.sim.create_meter("api_v2").unwrap();
    bench.customer("acme").await;
    bench.use_("acme", "requests", 100).await;
    bench.report().await;
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    let copy = bench.store.copy().await;
    bench.pass(60);
    bench.report().await;
    let bench = bench.restored(copy).await;
    let gate = bench.another_with(old, new).await;
    assert!(gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOURS);
    gate.report_now().await.unwrap();
    assert_eq!((bench.billed("api_requests"), bench.billed("api_v2")), (110, 0));
    assert!(gate.audit().await.unwrap().is_clean());
}
