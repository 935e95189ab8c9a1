//! Events over faults, deaths and other processes: each counts once.

use std::time::Duration;

use super::*;
use crate::store::Memory;
use crate::testing::{self, Faulty, START_MS};
use crate::{Ask, Gate, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    timezone     = "UTC"
    [meter.calls]
    [meter.credits]
    sum = { calls = 2 }
    [plan.free]
    quota.calls = "100/month"
"#;

const DAY_MS: i64 = 86_400_000;

fn gate(store: impl Store) -> (Gate, ManualClock) {
    testing::gate_with(PLANS, store)
}

fn calls(id: &str, n: u64) -> UsageEvent {
    UsageEvent::new(id, "acme", "calls", n)
}

/// What `GET /usage` says is used of a meter, by a gate that knows nothing but the store.
async fn used(store: &Memory, meter: &str) -> u64 {
    let (gate, _clock) = gate(store.clone());
    let who = testing::identified(&gate, "acme").await;
    let reply = gate.usage_reply(&who, None).await;
    gate.close().await.unwrap();
    let usage: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let meters = usage["meters"].as_array().unwrap();
    meters.iter().find(|m| m["name"] == meter).unwrap()["used"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_counts_once_whoever_sends_it_how_often() {
    let store = Memory::new();
    let (one, _) = gate(store.clone());
    let (two, _) = gate(store.clone());
    let events = || vec![calls("a", 1), calls("b", 10), calls("a", 1)];
    let answers = one.ingest().events(events()).await;
    assert_eq!(answers, [Ok(Counted::Now), Ok(Counted::Now), Ok(Counted::Before)]);
    for gate in [&one, &two, &one] {
        let again = gate.ingest().events(events()).await;
        assert!(again.iter().all(|answer| *answer == Ok(Counted::Before)), "{again:?}");
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
    assert_eq!(used(&store, "calls").await, 11);
    assert_eq!(used(&store, "credits").await, 22, "and so do the sums that it feeds");
}

#[tokio::test(start_paused = true)]
async fn an_id_stands_for_one_event_of_its_tenant() {
    let (gate, _clock) = gate(Memory::new());
    let other = UsageEvent { tenant: "globex".into(), ..calls("a", 1) };
    let events = vec![calls("a", 1), calls("a", 2), other];
    let answers = gate.ingest().events(events).await;
    assert_eq!(answers, [Ok(Counted::Now), Err(NotCounted::Conflict), Ok(Counted::Now)]);
    let answers = gate.ingest().events(vec![calls("a", 2)]).await;
    assert_eq!(answers, [Err(NotCounted::Conflict)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_is_drawn_from_the_quota() {
    let (gate, _clock) = gate(Memory::new());
    assert_eq!(gate.ingest().events(vec![calls("a", 95)]).await, [Ok(Counted::Now)]);
    testing::leases_at_rest(&gate).await;
    let acme = gate.tenant("acme").await.unwrap();
    let mut admitted = 0;
    while let Ok(permit) = gate.admit(Ask::op("call").tenant(&acme).cost("calls", 1)).await {
        permit.settle();
        admitted += 1;
    }
    assert_eq!(admitted, 5, "the rest of 100");
}

#[tokio::test(start_paused = true)]
async fn late_events_count_in_their_own_window_while_it_is_open() {
    let store = Memory::new();
    let (gate, clock) = gate(store.clone());
    let at = |id: &str, at_ms| calls(id, 1).at_unix_ms(at_ms);
    // The period is the calendar's month, and it is 17 March.
    let ask = |event| async { gate.ingest().events(vec![event]).await.remove(0) };
    assert_eq!(ask(at("today", START_MS - 60_000)).await, Ok(Counted::Now));
    assert_eq!(ask(at("days ago", START_MS - 10 * DAY_MS)).await, Ok(Counted::Now));
    let closed = NotCounted::Closed { period: "2026-02-01T00:00:00Z".into() };
    assert_eq!(ask(at("february", START_MS - 20 * DAY_MS)).await, Err(closed));
    assert_eq!(ask(at("soon", START_MS + 6 * 60_000)).await, Err(NotCounted::Ahead));
    clock.advance(Duration::from_secs(16 * 86_400)); // 2 April
    assert_eq!(ask(at("march", START_MS)).await, Ok(Counted::Now), "72 h are not over");
    clock.advance(Duration::from_secs(2 * 86_400));
    let closed = NotCounted::Closed { period: "2026-03-01T00:00:00Z".into() };
    assert_eq!(ask(at("march, too", START_MS)).await, Err(closed));
}

#[tokio::test(start_paused = true)]
async fn says_what_can_never_count() {
    let (gate, _clock) = gate(Memory::new());
    let meter = |meter: &str| UsageEvent::new("a", "acme", meter, 1);
    let events = vec![meter("colour"), meter("credits"), calls("", 1), calls("b", u64::MAX)];
    let answers = gate.ingest().events(events).await;
    assert!(matches!(answers[0], Err(NotCounted::UnknownMeter(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(NotCounted::Sum(_))), "{answers:?}");
    assert!(matches!(answers[2], Err(NotCounted::Malformed(_))), "{answers:?}");
    assert!(matches!(answers[3], Err(NotCounted::Malformed(_))), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_writer_died_is_counted_once_by_whoever_gets_it_again() {
    // Every prefix of the calls that one event needs, cut off there for good.
    for calls_before in 0..8 {
        let store = Memory::new();
        let faulty = Faulty::scripted(store.clone(), []);
        let (dying, _) = gate(faulty.clone());
        dying.tenant("acme").await.unwrap();
        let asked = tokio::spawn({
            let dying = dying.clone();
            async move { dying.ingest().events(vec![calls("a", 3)]).await }
        });
        for _ in 0..calls_before {
            tokio::task::yield_now().await;
        }
        faulty.outage(true);
        asked.abort();
        drop(dying);

        let (next, clock) = gate(store.clone());
        let mut answer = next.ingest().events(vec![calls("a", 3)]).await.remove(0);
        if answer == Err(NotCounted::InHand) {
            clock.advance(Duration::from_secs(21));
            answer = next.ingest().events(vec![calls("a", 3)]).await.remove(0);
        }
        assert!(answer.is_ok(), "after {calls_before}: {answer:?}");
        next.close().await.unwrap();
        assert_eq!(used(&store, "calls").await, 3, "after {calls_before}");
    }
}
