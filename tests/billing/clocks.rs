//! Processes whose clocks are wrong when they start: what they count is billed once.

use tallygate::ManualClock;
use tallygate::testing::START_MS;

use crate::bench::{Bench, use_at};

const DAY_MS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_after_a_wrong_clock_was_set_is_billed_once() {
    for wrong_ms in [-START_MS, 70 * DAY_MS] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        bench.report().await;
        let clock = ManualClock::at_unix_ms(START_MS + wrong_ms);
        let process = bench.another_at(&clock).await;
        clock.step_wall(-wrong_ms);
        use_at(&process, "acme", "requests", 25).await;
        process.flush_now().await.unwrap();
        drop(process);
        for _ in 0..3 {
            bench.pass(60);
            bench.report().await;
        }
        assert_eq!(bench.billed("api_requests"), 25, "{wrong_ms} ms");
        let audit = bench.gate.audit().await.unwrap();
        assert!(audit.is_clean(), "{wrong_ms} ms: {audit:#?}");
        let billed = audit.lines.iter().find(|line| line.account.as_deref() == Some(&customer));
        assert_eq!(billed.unwrap().recorded, 25, "{wrong_ms} ms");
    }
}

/// What was counted by the wrong clock is in a period of that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_by_a_wrong_clock_is_in_the_audit() {
    for wrong_ms in [-START_MS, 70 * DAY_MS] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        let clock = ManualClock::at_unix_ms(START_MS + wrong_ms);
        let process = bench.another_at(&clock).await;
        use_at(&process, "acme", "requests", 5).await;
        process.flush_now().await.unwrap();
        drop(process);
        bench.report().await;
        let audit = bench.gate.audit().await.unwrap();
        let recorded = audit.lines.iter().map(|line| line.recorded.whole()).collect::<Vec<_>>();
        println!("{wrong_ms}: {audit:#?} {}", bench.billed("api_requests"));
        assert_eq!(recorded, [5], "{wrong_ms} ms: {audit:#?}");
    }
}
