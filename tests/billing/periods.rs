//! What a billing period leaves, sent soon after its end by a gate that reports by itself.

use std::time::Duration;

use crate::bench::Bench;

/// Tokio's time in one step of `hurry`, which takes 5 ms.
const STEP: Duration = Duration::from_millis(250);

#[expect(clippy::disallowed_methods, reason = "while it runs, tokio's time does not jump ahead")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Lets tokio's time pass 50 times as fast as the wall clock: calls still have time to be answered.
pub(crate) async fn hurry(seconds: u32) {
    for _ in 0..seconds * 4 {
        tokio::task::spawn_blocking(pause).await.unwrap();
        tokio::time::advance(STEP).await;
    }
}

#[tokio::test]
async fn what_a_period_leaves_is_sent_within_two_minutes_though_no_whole_report_has_seen_it() {
    for (used_before, meter_before) in [(true, "requests"), (true, "jobs"), (false, "")] {
        let bench = Bench::new().await;
        tokio::time::pause();
        bench.customer("acme").await;
        if used_before {
            bench.use_("acme", meter_before, 1).await;
            bench.gate.flush_now().await.unwrap();
        }
        hurry(36).await; // the first report is made after 30 s
        let before = bench.billed("api_requests");
        bench.use_("acme", "requests", 10).await;
        bench.gate.flush_now().await.unwrap();
        bench.pass(30 * 86_400 + 10); // the period, which began a day before, has ended
        hurry(50).await;
        assert_eq!(bench.billed("api_requests"), before, "not before it has settled");
        bench.pass(110);
        hurry(70).await;
        assert_eq!(bench.billed("api_requests"), before + 10, "{meter_before} before");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_gate_that_only_looks_sends_nothing_however_long_it_looks() {
    let mut bench = Bench::new().await;
    tokio::time::pause();
    bench.customer("acme").await;
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(300);
    for (sends, billed) in [(false, 0), (true, 10)] {
        bench.gate = bench.another_that(sends).await; // and no other is there
        hurry(36).await; // the first report is made after 30 s
        bench.gate.outbox().await.unwrap();
        assert_eq!(bench.billed("api_requests"), billed, "sends: {sends}");
        bench.gate.close().await.unwrap();
        assert_eq!(bench.billed("api_requests"), billed, "sends: {sends}, closed");
    }
    tokio::time::resume();
}
