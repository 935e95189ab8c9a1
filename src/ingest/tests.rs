//! Tests of events over faults, deaths and other processes: each counts once.

use std::time::Duration;

use super::*;
use crate::clock::time_at;
use crate::events::claim::{self, EventClaimed, LogSlot};
use crate::ids::{Surrogate, WriterId};
use crate::store::layout::Space;
use crate::store::{
    Change, Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Value, Write, Written,
};
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

/// Use of a meter according to `GET /usage`, from a gate that has only the store.
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
    while let Ok(permit) = gate.admit(Ask::new(&acme, "call").cost("calls", 1)).await {
        permit.settle();
        admitted += 1;
    }
    assert_eq!(admitted, 5, "the rest of 100");
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_without_an_answer_is_drawn_once() {
    use crate::testing::Fault;

    for (fault, drawn, again) in
        [(Fault::LoseReply, 40, Ok(Counted::Before)), (Fault::LoseRequest, 0, Ok(Counted::Now))]
    {
        for is_sent_again in [true, false] {
            let store = Memory::new();
            let faulty = Faulty::scripted(store.clone(), []);
            let (gate, _clock) = gate(faulty.clone());
            assert_eq!(gate.ingest().events(vec![calls("a", 10)]).await, [Ok(Counted::Now)]);
            testing::leases_at_rest(&gate).await;
            gate.flush_now().await.unwrap();
            faulty.then([Fault::Pass].into_iter().chain([fault; 6]));
            let answers = gate.ingest().events(vec![calls("b", 40)]).await;
            assert_eq!(answers, [Err(NotCounted::Unavailable)], "{fault:?}");
            let mut expected = 10 + drawn;
            for answer in [again.clone(), Ok(Counted::Before)] {
                if is_sent_again {
                    assert_eq!(gate.ingest().events(vec![calls("b", 40)]).await, [answer]);
                    expected = 50;
                }
            }
            gate.close().await.unwrap();
            assert_eq!(used(&store, "calls").await, expected, "{fault:?}");
            let mut admitted = 0;
            let (gate, _clock) = self::gate(store);
            let acme = gate.tenant("acme").await.unwrap();
            while let Ok(permit) = gate.admit(Ask::new(&acme, "call").cost("calls", 1)).await {
                permit.settle();
                admitted += 1;
            }
            assert_eq!(admitted, 100 - expected, "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_events_count_in_their_own_window_while_it_is_open() {
    let store = Memory::new();
    let (gate, clock) = gate(store.clone());
    let at = |id: &str, at_ms| calls(id, 1).at(time_at(at_ms));
    // Its periods begin on the 17th at noon: its very first one has just ended.
    let ask = |event| async { gate.ingest().events(vec![event]).await.remove(0) };
    assert_eq!(ask(at("now", START_MS + 60_000)).await, Ok(Counted::Now));
    assert_eq!(ask(at("just before", START_MS - 60_000)).await, Ok(Counted::Now));
    assert_eq!(ask(at("20 days ago", START_MS - 20 * DAY_MS)).await, Ok(Counted::Now));
    let closed = NotCounted::Closed { period: "2026-01-17T12:00:00Z".into() };
    assert_eq!(ask(at("35 days ago", START_MS - 35 * DAY_MS)).await, Err(closed));
    assert_eq!(ask(at("soon", START_MS + 6 * 60_000)).await, Err(NotCounted::Ahead));
    clock.advance(Duration::from_secs(3 * 86_400 - 1));
    assert_eq!(ask(at("late", START_MS - DAY_MS)).await, Ok(Counted::Now), "72 h are not over");
    clock.advance(Duration::from_secs(1));
    let closed = NotCounted::Closed { period: "2026-02-17T12:00:00Z".into() };
    assert_eq!(ask(at("too late", START_MS - DAY_MS)).await, Err(closed));
    gate.close().await.unwrap();
    // Two lie in the current period: one was sent now, and none of the late ones.
    assert_eq!(used(&store, "calls").await, 1);
}

/// An event, and the slot that its first claim names.
fn claimed() -> (Space, claim::EventToClaim<'static>, LogSlot) {
    let event = claim::EventToClaim { tenant: Surrogate::test(1), id: "a", print: "p" };
    (Space::new("s"), event, LogSlot { writer: WriterId::test(7), slot: 1_500 })
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_slot_was_folded_away_counts_all_the_same() {
    let store = Memory::new();
    let (space, event, place) = claimed();
    assert_eq!(claim::claim(&store, &space, event, place, 0).await, EventClaimed::Ours);
    let fold = vec![Change::Set("of".into(), Value::Int(1_024))];
    let write = Write { key: space.fold(WriterId::test(7), 1, 0), when: vec![], change: fold };
    store.write(write).await.unwrap();
    let other = LogSlot { writer: WriterId::test(8), slot: 0 };
    assert_eq!(claim::claim(&store, &space, event, other, DAY_MS).await, EventClaimed::Counts);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_may_stand_is_unknown_whatever_its_repeats_came_to() {
    use crate::testing::Fault;

    let (space, event, place) = claimed();
    for (first, expected) in
        [(Fault::LoseReply, EventClaimed::Unknown), (Fault::Unavailable, EventClaimed::Not)]
    {
        let faults = [first].into_iter().chain([Fault::Unavailable; 5]);
        let store = Faulty::scripted(Memory::new(), faults);
        assert_eq!(claim::claim(&store, &space, event, place, 0).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_feed_more_meters_than_a_record_has_rows_all_count() {
    let sums: String =
        (1..=4).map(|n| format!("[meter.sum{n}]\nsum = {{ calls = 1 }}\n")).collect();
    let plans = format!("default-plan = \"free\"\n[meter.calls]\n{sums}[plan.free]\n");
    let (gate, _clock) = testing::gate_with(&plans, Memory::new());
    let of = |n: u32| UsageEvent::new("a", format!("tenant{n}"), "calls", 1);
    let answers = gate.ingest().events((0..250).map(of).collect()).await;
    assert_eq!(answers, vec![Ok(Counted::Now); 250]);
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

/// A store in which another process is always faster to write a tenant's record.
struct Contested(Memory);

impl Store for Contested {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.0.read(key)
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        match write.key.pk.contains("#T#") {
            true => Box::pin(async { Ok(Written::Refused(None)) }),
            false => self.0.write(write),
        }
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.0.query(query)
    }

    fn promise(&self) -> Promise {
        self.0.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.0.close()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_tenant_that_cannot_be_made_now_is_asked_for_again_and_of_none_it_is_not() {
    let (creates, _clock) = gate(Contested(Memory::new()));
    let rejects = "[[identify]]\nclaim = \"tenant\"\n[store]\nkind = \"memory\"\n\
                   [flush]\nmode = \"fast\"\n[identity]\nunknown = \"reject\"\n";
    let rejects = crate::GateBuilder::from_text(rejects).plans(PLANS).open().await.unwrap();
    for (gate, expected) in [
        (&creates, NotCounted::Unavailable),
        (&rejects, NotCounted::UnknownTenant("acme".to_owned())),
    ] {
        assert_eq!(gate.ingest().events(vec![calls("a", 1)]).await, [Err(expected)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_writer_died_is_counted_once_by_whoever_gets_it_again() {
    // Every prefix of the calls that one event needs, permanently cut off there.
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

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_store_leaves_each_event_counted_once() {
    use crate::testing::Odds;

    for seed in 0..20 {
        let store = Memory::new();
        let odds = Odds {
            unavailable: 60,
            throttled: 30,
            lose_request: 60,
            lose_reply: 120,
            delay: 50,
            repeat: 60,
        };
        // Both start before the faults begin; then each is sent every event until it counts.
        let faulty: Vec<Faulty> =
            (0..2).map(|_| Faulty::seeded(store.clone(), seed, Odds::default())).collect();
        let gates: Vec<_> = faulty.iter().map(|store| gate(store.clone())).collect();
        gates[0].0.tenant("acme").await.unwrap();
        faulty.iter().for_each(|store| store.odds(odds));
        let events: Vec<UsageEvent> =
            (0..30).map(|n| calls(&format!("e{n}"), 1 << (n % 8))).collect();
        let all: u64 = events.iter().map(|event| event.quantity).sum();
        let (mut fresh, mut last) = (0, Vec::new());
        for round in 0.. {
            assert!(round < 200, "seed {seed}: some event never counts: {last:?}");
            let (gate, clock) = &gates[round % 2];
            let answers = gate.ingest().events(events.clone()).await;
            fresh += answers.iter().filter(|answer| **answer == Ok(Counted::Now)).count();
            if answers.iter().all(Result::is_ok) {
                break;
            }
            let errors: Vec<&NotCounted> = answers.iter().flat_map(|a| a.as_ref().err()).collect();
            assert!(errors.iter().all(|why| why.is_retryable()), "seed {seed}: {errors:?}");
            clock.advance(Duration::from_secs(7));
            last = answers;
        }
        assert!(fresh <= events.len(), "seed {seed}: {fresh}");
        faulty.iter().for_each(|store| store.odds(Odds::default()));
        for (gate, _) in &gates {
            gate.close().await.unwrap();
        }
        assert_eq!(used(&store, "calls").await, all, "seed {seed}");
    }
}

/// A gate with a token and product codes.
async fn service(store: impl Store) -> Gate {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken-of-sixteen").unwrap();
    let service = format!(
        "[[identify]]\nclaim = \"tenant\"\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n\
         [identity]\nunknown = \"create\"\n[ingest]\ntoken = {{ file = {token:?} }}\n\
         products = {{ prod-1 = \"calls\" }}\n"
    );
    let builder = crate::GateBuilder::from_text(&service).plans(PLANS).store(store);
    builder.open().await.unwrap()
}

const BEARER: Option<&[u8]> = Some(b"Bearer t0ken-of-sixteen");

#[tokio::test(start_paused = true)]
async fn over_http_events_that_may_count_later_are_asked_for_again_whatever_the_others_are() {
    let store = Faulty::scripted(Memory::new(), []);
    let gate = service(store.clone()).await;
    let good =
        |id: &str| format!(r#"{{"id":"{id}","tenant":"acme","meter":"calls","quantity":1}}"#);
    gate.ingest().reply(BEARER, Some(good("a").as_bytes())).await;
    store.outage(true);
    let (good, bad) = (good("b"), r#"{"id":"c"}"#);
    for body in [format!("[{good},{bad}]"), format!("[{bad},{good}]")] {
        let reply = gate.ingest().reply(BEARER, Some(body.as_bytes())).await;
        assert_eq!(reply.status, 503, "{body}");
        assert!(reply.headers.iter().any(|(name, _)| *name == "retry-after"), "{body}");
    }
    let reply = gate.ingest().reply(BEARER, Some(bad.as_bytes())).await;
    assert_eq!(reply.status, 422);
    assert!(reply.headers.iter().all(|(name, _)| *name != "retry-after"));
}

#[tokio::test]
async fn over_http_each_event_has_its_result() {
    let gate = service(Memory::new()).await;
    let post = async |body: &str| {
        let reply = gate.ingest().reply(BEARER, Some(body.as_bytes())).await;
        (reply.status, String::from_utf8(reply.body).unwrap())
    };
    let a = r#"{"id":"a","tenant":"acme","meter":"calls","quantity":1}"#;
    let b = r#"{"id":"b","TenantID":"acme","ProductCode":"prod-1","Quantity":2}"#;
    let (status, body) = post(a).await;
    assert_eq!((status, &*body), (202, r#"{"results":[{"id":"a","status":"counted"}]}"#));
    let (status, body) = post(&format!("[{a},{b}]")).await;
    assert_eq!(status, 202);
    let both = r#"{"results":[{"id":"a","status":"duplicate"},{"id":"b","status":"counted"}]}"#;
    assert_eq!(body, both);
    let (status, body) = post(&format!(r#"[{b},{{"id":"c"}}]"#)).await;
    assert_eq!(status, 422, "{body}");
    assert!(body.contains(r#""status":"duplicate""#), "{body}");
    assert!(body.contains("`tenant` is missing"), "{body}");
    assert_eq!(post("{").await.0, 400);
    assert_eq!(post(&" ".repeat(MAX_BODY + 1)).await.0, 413);
    assert_eq!(post(&format!("[{}0]", "0,".repeat(MAX_EVENTS))).await.0, 413);
    for stranger in [
        None,
        Some(&b"Bearer other"[..]),
        Some(b"t0ken-of-sixteen"),
        Some(b"Basic t0ken-of-sixteen"),
    ] {
        assert_eq!(gate.ingest().reply(stranger, Some(a.as_bytes())).await.status, 401);
    }
}

#[tokio::test]
async fn without_a_token_in_the_service_file_nobody_reports_over_http() {
    let (gate, _clock) = gate(Memory::new());
    assert_eq!(gate.ingest().reply(Some(b"Bearer "), Some(b"[]")).await.status, 401);
}

#[tokio::test]
async fn poison_is_kept_and_replayed_when_it_can_count() {
    let store = Memory::new();
    let gate = service(store.clone()).await;
    let good = r#"{"id":"a","tenant":"acme","meter":"calls","quantity":1}"#;
    let early = r#"{"id":"b","tenant":"acme","meter":"minutes","quantity":5}"#;
    for _ in 0..2 {
        let answers = gate.ingest().messages(&[good, early, "not json"]).await;
        assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_err(), "{answers:?}");
    }
    let letters = gate.ingest().dead_letters("").await.unwrap();
    assert_eq!(letters.len(), 2, "each once: {letters:?}");
    let early = letters.iter().find(|letter| letter.body == early).unwrap();
    assert!(early.why.contains("no meter `minutes`"), "{}", early.why);
    assert!(!format!("{early:?}").contains("acme"));
    assert!(gate.ingest().replay(&early.id).await.unwrap().unwrap().is_err(), "not yet");
    gate.close().await.unwrap();

    let later = PLANS.replace("[meter.calls]", "[meter.minutes]\n[meter.calls]");
    let (gate, _clock) = testing::gate_with(&later, store);
    assert_eq!(gate.ingest().replay(&early.id).await.unwrap(), Some(Ok(Counted::Now)));
    assert_eq!(gate.ingest().replay(&early.id).await.unwrap(), None, "it is gone");
    let left = gate.ingest().dead_letters("").await.unwrap();
    let [left] = &left[..] else { panic!("{left:?}") };
    assert!(gate.ingest().dead_letters(&left.id).await.unwrap().is_empty());
    gate.ingest().discard(&left.id).await.unwrap();
    assert!(gate.ingest().dead_letters("").await.unwrap().is_empty());
}

#[tokio::test]
async fn dead_letters_are_listed_over_pages_that_are_cut() {
    let store = Faulty::scripted(Memory::new(), []);
    store.cut_pages(3);
    let (gate, _clock) = gate(store);
    let poison: Vec<String> = (0..110).map(|n| format!("poison {n}")).collect();
    let poison: Vec<&str> = poison.iter().map(String::as_str).collect();
    gate.ingest().messages(&poison).await;
    let first = gate.ingest().dead_letters("").await.unwrap();
    let rest = gate.ingest().dead_letters(&first.last().unwrap().id).await.unwrap();
    assert_eq!((first.len(), rest.len()), (100, 10));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_was_taken_for_dead_and_lives_counts_nothing_twice() {
    use crate::testing::Fault;

    let store = Memory::new();
    let (other, clock) = gate(store.clone());
    other.tenant("acme").await.unwrap();
    let faulty = Faulty::scripted(store.clone(), []);
    let (slow, _) = gate(faulty.clone());
    slow.tenant("acme").await.unwrap();
    // Its log is begun and its month marked, the event claimed, and then the slot write is delayed
    // for a minute.
    let minute = Duration::from_secs(60);
    faulty.then([Fault::Pass, Fault::Pass, Fault::Pass, Fault::Delay(minute)]);
    let asked = tokio::spawn({
        let slow = slow.clone();
        async move { slow.ingest().events(vec![calls("a", 3)]).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ingest = other.ingest();
    let again = || ingest.events(vec![calls("a", 3)]);
    assert_eq!(again().await, [Err(NotCounted::InHand)]);
    clock.advance(Duration::from_secs(21));
    assert_eq!(again().await, [Ok(Counted::Now)]);
    assert_eq!(asked.await.unwrap(), [Err(NotCounted::Unavailable)], "its slot is a seal");
    assert_eq!(slow.ingest().events(vec![calls("a", 3)]).await, [Ok(Counted::Before)]);
    assert_eq!(slow.ingest().events(vec![calls("b", 1)]).await, [Ok(Counted::Now)]);
    slow.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(used(&store, "calls").await, 4);
}

/// 100 a month are included; the overage is owed.
const BILLED: &str = r#"
    default-plan = "team"
    timezone     = "UTC"
    [meter.calls]
    stripe = { event = "calls", send = "overage" }
    [plan.team]
    quota.calls = { limit = "100/month", over = "bill" }
"#;

#[tokio::test(start_paused = true)]
async fn units_that_were_held_at_the_end_of_a_window_are_there_for_its_late_events() {
    let store = Memory::new();
    let (api, api_clock) = testing::gate_with(BILLED, store.clone());
    let (other, clock) = testing::gate_with(BILLED, store.clone());
    let use_one = async || {
        let acme = api.tenant("acme").await.unwrap();
        api.admit(Ask::new(&acme, "call").cost("calls", 1)).await.unwrap().settle();
    };
    use_one().await;
    for clock in [&api_clock, &clock] {
        clock.advance(Duration::from_secs(15 * 86_400));
    }
    use_one().await; // in April: what it holds of March goes back
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = calls("late", 101).at(time_at(START_MS + 1_000));
    assert_eq!(other.ingest().events(vec![late]).await, [Ok(Counted::Now)]);
    api.flush_now().await.unwrap();
    let inner = &other.inner;
    let rows = inner.recording.ledger.by_period(inner.clock.now().wall_ms).await.unwrap();
    let sums = rows
        .iter()
        .fold((0, 0), |(used, over), row| (used + row.atoms.used.0, over + row.atoms.over.0));
    assert_eq!(sums, (103, 2), "102 in March, of which 100 are included");
}
