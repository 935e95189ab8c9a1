//! Use reported by other services, and what Stripe counts of it: it is paid like all use.

use tallygate::Gate;
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::testing::{START_MS, time_at};

use crate::bench::{Bench, pack, use_at};

const DAY_S: u32 = 86_400;

/// Ingests jobs of `acme`, at this second after the start of the test.
async fn ingest(gate: &Gate, id: &str, units: u64, at_s: i64) {
    let event = UsageEvent::new(id, "acme", "jobs", units).at(time_at(START_MS + at_s * 1_000));
    assert_eq!(gate.ingest().events(vec![event]).await, [Ok(Counted::Now)], "{id}");
}

/// A bench with `acme` on plan `team`: 100 jobs a period, which began a day ago.
async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("team").note("t").save().await.unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_pays_for_what_is_ingested_and_is_not_paid_twice() {
    let bench = bench().await;
    pack(&bench, 50).await;
    let other = bench.another().await;
    ingest(&other, "a", 160, 0).await;
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 10, "100 of the plan, 50 of the pack, 10 beyond");
    ingest(&other, "b", 7, 0).await;
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 17, "the pack is used up");
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fresh_process_ingests_beyond_the_plan_is_billed() {
    let bench = bench().await;
    pack(&bench, 10).await;
    let first = bench.another().await;
    use_at(&first, "acme", "jobs", 110).await;
    first.close().await.unwrap();
    // As on Lambda: it ingests, and exits.
    let fresh = bench.another().await;
    ingest(&fresh, "a", 50, 0).await;
    drop(fresh);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_the_closed_period_is_paid_and_billed_in_it() {
    for granted in [0, 10] {
        let bench = bench().await;
        if granted > 0 {
            pack(&bench, granted).await;
        }
        let first = bench.another().await;
        use_at(&first, "acme", "jobs", 60).await;
        first.close().await.unwrap();
        bench.pass(31 * DAY_S);
        let other = bench.another().await;
        ingest(&other, "late", 70, 3_600).await;
        bench.report().await;
        assert_eq!(bench.billed("jobs"), 30 - granted as i64, "of 130, {granted} granted");
        let audit = bench.gate.audit().await.unwrap();
        assert!(audit.is_clean(), "{audit:#?}");
        let lines: Vec<_> =
            audit.lines.iter().map(|line| (line.recorded.whole(), line.owed.whole())).collect();
        assert_eq!(lines, [(130, 30 - granted)], "all in the period that has ended");
        // The running period has lost nothing.
        use_at(&other, "acme", "jobs", 100).await;
        other.flush_now().await.unwrap();
        bench.pass(60);
        bench.report().await;
        assert_eq!(bench.billed("jobs"), 30 - granted as i64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_paid_by_the_window_that_it_lies_in() {
    let bench = Bench::new().await;
    let team = r#"{ limit = "100/cycle", over = "bill", stop = "1k" }"#;
    let gate = bench.another_with(team, r#"{ limit = "10/day", over = "bill" }"#).await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("team").note("t").save().await.unwrap();
    bench.pass(2 * DAY_S);
    // Nothing was used the day before yesterday until now.
    ingest(&gate, "a", 6, 0).await;
    ingest(&gate, "b", 6, 60).await;
    ingest(&gate, "yesterday", 13, i64::from(DAY_S)).await;
    use_at(&gate, "acme", "jobs", 10).await;
    gate.flush_now().await.unwrap();
    gate.report_now().await.unwrap();
    assert_eq!(bench.billed("jobs"), 2 + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_dated_a_minute_into_the_next_period_is_recorded_and_paid_in_one() {
    for used in [100, 0] {
        let bench = bench().await;
        if used > 0 {
            bench.use_("acme", "jobs", used).await;
        }
        // The period ends in two minutes.
        bench.pass(30 * DAY_S - 120);
        let ahead = i64::from(30 * DAY_S) + 60;
        ingest(&bench.gate, "ahead", 7, ahead).await;
        bench.pass(DAY_S);
        // Sent again, by another process too, it counts once.
        for gate in [&bench.gate, &bench.another().await] {
            let at_ms = START_MS + ahead * 1_000;
            let again = UsageEvent::new("ahead", "acme", "jobs", 7).at(time_at(at_ms));
            assert_eq!(gate.ingest().events(vec![again]).await, [Ok(Counted::Before)]);
        }
        bench.use_("acme", "jobs", 100).await;
        bench.gate.flush_now().await.unwrap();
        bench.report().await;
        let owed = if used > 0 { 7 } else { 0 };
        let audit = bench.gate.audit().await.unwrap();
        let lines: Vec<_> =
            audit.lines.iter().map(|line| (line.recorded.whole(), line.owed.whole())).collect();
        assert_eq!(lines, [(used + 7, owed), (100, 0)], "{used} used before");
        assert_eq!(bench.billed("jobs"), i64::try_from(owed).unwrap());
    }
}

/// Processes that share a store, each with a lease of its own to wait for, on real threads: which
/// of them is answered when differs from tenant to tenant, so there are many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_processes_ingest_at_once_is_owed_without_another_request_of_the_tenant() {
    const STOP: &str = r#"{ limit = "0/cycle", over = "bill", stop = "1k" }"#;
    const TENANTS: i64 = 40;
    for (included, quota) in [
        (0, STOP),
        (0, r#"{ limit = "0/cycle", over = "bill" }"#),
        (1, r#"{ limit = "1/cycle", over = "bill" }"#),
    ] {
        let bench = Bench::new().await;
        let mut gates = Vec::new();
        for _ in 0..4 {
            gates.push(bench.another_with(STOP, quota).await);
        }
        for tenant in (0..TENANTS).map(|n| format!("tenant-{n}")) {
            bench.customer(&tenant).await;
            let edit = bench.gate.directory().tenant(&tenant).plan("payg");
            edit.note("t").save().await.unwrap();
            let tasks: Vec<_> = (0..6)
                .map(|n| {
                    let event = UsageEvent::new(format!("e{n}"), &*tenant, "jobs", 10);
                    let (gate, event) = (gates[n % 4].clone(), event.at(time_at(START_MS)));
                    tokio::spawn(async move { gate.ingest().events(vec![event]).await })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), [Ok(Counted::Now)], "{tenant}");
            }
        }
        for gate in &gates {
            gate.flush_now().await.unwrap();
        }
        drop(gates); // as at their sudden end: they give nothing back
        bench.pass(61);
        bench.another_with(STOP, quota).await.report_now().await.unwrap();
        assert_eq!(bench.billed("jobs"), TENANTS * (60 - included), "{quota}");
    }
}
