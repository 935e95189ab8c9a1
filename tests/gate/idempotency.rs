//! Requests with an idempotency key: counted once, over nodes that share a store, despite any loss.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tallygate::directory::Grant;
use tallygate::middleware::GateLayer;
use tallygate::store::{Memory, Query, Store};
use tallygate::testing::{self, Faulty, Odds, OpenRequest};
use tallygate::{Admitted, Gate, ManualClock, Outcome};
use test_support::requests::Call;
use tower::{Layer, Service, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold  = "100"
    [route.pay]
    match   = ["POST /pay", "POST /pay/{id}"]
    once-by = "idempotency-key"
    cost    = { tokens = 0 }
    [route.chat]
    match   = "POST /chat"
    once-by = "idempotency-key"
    [plan.free]
    quota.requests = "1000/day"
    quota.tokens   = "10k/day"
"#;

async fn node(plans: &str, store: impl Store, clock: &ManualClock) -> Option<Gate> {
    testing::builder(plans).store(store).clock(clock.clone()).open().await.ok()
}

fn request(tenant: &str, path: &str, key: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::post(path).header("x-tenant", tenant);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Empty::new()).unwrap()
}

/// Runs a handler that uses this many tokens and answers with this status.
async fn call(gate: &Gate, request: Request<Empty<Bytes>>, status: u16, tokens: u64) -> Answer {
    let handler = tower::service_fn(move |request: Request<Empty<Bytes>>| async move {
        if tokens > 0 {
            request.extensions().get::<Admitted>().unwrap().usage().add("tokens", tokens);
        }
        let mut response = Response::new(Full::<Bytes>::from("ok"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok::<_, Infallible>(response)
    });
    let layer = GateLayer::new(gate);
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, body: String::from_utf8_lossy(&body).into_owned() }
}

struct Answer {
    status: u16,
    body: String,
}

/// Units of a meter, recorded or in memory, over all nodes, as this one sees it.
async fn used(gate: &Gate, clock: &ManualClock, tenant: &str, meter: &str) -> u64 {
    clock.advance(Duration::from_secs(2)); // past the age of a cached reading
    let who = testing::identified_by(gate, &[("x-tenant", tenant)]).await;
    let report = gate.usage_report(&who).await.unwrap();
    report.meters.iter().find(|m| &*m.name == meter).unwrap().used.whole()
}

async fn claims(store: &Memory) -> usize {
    let all = Query { pk: "1#default#K#".into(), from: String::new(), until: None, limit: 10 };
    store.query(all).await.unwrap().items.len()
}

#[tokio::test(start_paused = true)]
async fn a_retry_on_another_node_is_served_and_not_charged() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let one = node(PLANS, store.clone(), &clock).await.unwrap();
    let two = node(PLANS, store.clone(), &clock).await.unwrap();
    for gate in [&one, &two, &one, &two] {
        assert_eq!(call(gate, request("acme", "/pay", Some("k")), 200, 0).await.status, 200);
    }
    for gate in [&one, &two] {
        assert_eq!(used(gate, &clock, "acme", "requests").await, 1);
    }
    assert_eq!(call(&two, request("acme", "/pay", Some("l")), 200, 0).await.status, 200);
    assert_eq!(used(&one, &clock, "acme", "requests").await, 2, "another key");
    assert_eq!(call(&two, request("bolt", "/pay", Some("l")), 200, 0).await.status, 200);
    assert_eq!(used(&one, &clock, "bolt", "requests").await, 1, "another tenant's key");
    one.close().await.unwrap();
    two.close().await.unwrap();
    let third = node(PLANS, store, &clock).await.unwrap();
    assert_eq!(call(&third, request("acme", "/pay", Some("k")), 200, 0).await.status, 200);
    assert_eq!(used(&third, &clock, "acme", "requests").await, 2, "and over restarts");
    third.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_key_is_a_conflict() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store, &clock).await.unwrap();
    call(&gate, request("acme", "/pay/1", Some("k")), 200, 0).await;
    let refused = call(&gate, request("acme", "/pay/2", Some("k")), 200, 0).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("/problems/idempotency-conflict"), "{}", refused.body);
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 1);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_leaves_the_charge_to_the_retry() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store, &clock).await.unwrap();
    for _ in 0..3 {
        assert_eq!(call(&gate, request("acme", "/pay", Some("k")), 500, 0).await.status, 500);
    }
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 0);
    call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
    call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 1);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_sixth_retry_is_charged_as_without_a_key() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store, &clock).await.unwrap();
    for expected in [1, 1, 1, 1, 1, 1, 2, 3] {
        call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
        assert_eq!(used(&gate, &clock, "acme", "requests").await, expected);
    }
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_is_in_the_claim_and_a_replay_reports_in_vain() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store.clone(), &clock).await.unwrap();
    call(&gate, request("acme", "/chat", Some("k")), 200, 40).await;
    assert_eq!(used(&gate, &clock, "acme", "tokens").await, 40);
    call(&gate, request("acme", "/chat", Some("k")), 200, 70).await;
    assert_eq!(used(&gate, &clock, "acme", "tokens").await, 40);
    call(&gate, request("acme", "/chat", Some("over")), 200, 250).await;
    assert_eq!(used(&gate, &clock, "acme", "tokens").await, 290, "beyond its hold");
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 2);
    gate.close().await.unwrap();
    // Used units are out of the pools, and nothing else.
    let next = node(PLANS, store, &clock).await.unwrap();
    let who = testing::identified_by(&next, &[("x-tenant", "acme")]).await;
    let report = next.usage_report(&who).await.unwrap();
    let used_of = |limit: &str| {
        let limits = report.meters.iter().flat_map(|m| &m.limits);
        let mut limits = limits;
        limits.find(|l| &*l.id == limit).unwrap().used.whole()
    };
    assert_eq!((used_of("tokens/day"), used_of("requests/day")), (290, 2));
    next.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_takes_bit_by_bit_is_charged_with_its_key() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    // Enough for one of them beside another's hold.
    let plans = PLANS.replace("10k/day", "450/day");
    let gate = node(&plans, store.clone(), &clock).await.unwrap();
    for _ in 0..2 {
        let handler = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            let usage = request.extensions().get::<Admitted>().unwrap().usage();
            for _ in 0..4 {
                usage.take("tokens", 75).await.unwrap();
            }
            usage.add("tokens", 290);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        let service = GateLayer::new(&gate).layer(handler);
        let response = service.oneshot(request("acme", "/chat", Some("k"))).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(used(&gate, &clock, "acme", "tokens").await, 290);
    }
    gate.close().await.unwrap();
    // The ten that were taken and not used went back.
    let next = node(&plans, store, &clock).await.unwrap();
    let who = testing::identified_by(&next, &[("x-tenant", "acme")]).await;
    let report = next.usage_report(&who).await.unwrap();
    let limits = report.meters.iter().flat_map(|meter| &meter.limits);
    assert_eq!(limits.clone().find(|l| &*l.id == "tokens/day").unwrap().used, 290);
    next.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn units_of_meters_that_the_route_does_not_ask_for_are_charged_with_the_key() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let plans = format!("{PLANS}\n[meter.pages]\n[meter.images]\n");
    let gate = node(&plans, store, &clock).await.unwrap();
    for _ in 0..2 {
        let handler = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            let usage = request.extensions().get::<Admitted>().unwrap().usage();
            for (meter, n) in [("pages", 3), ("images", 2), ("pages", 4), ("images", 9)] {
                usage.add(meter, n);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        let service = GateLayer::new(&gate).layer(handler);
        let response = service.oneshot(request("acme", "/pay", Some("k"))).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(used(&gate, &clock, "acme", "pages").await, 7);
        assert_eq!(used(&gate, &clock, "acme", "images").await, 11);
    }
    gate.close().await.unwrap();
}

/// Runs a handler that uses this many tokens and answers once released.
async fn held_open(
    gate: &Gate,
    key: &str,
    tokens: u64,
    lets_go: tokio::sync::oneshot::Receiver<()>,
) -> u16 {
    let lets_go = std::sync::Mutex::new(Some(lets_go));
    let handler = tower::service_fn(|request: Request<Empty<Bytes>>| {
        let lets_go = lets_go.lock().unwrap().take().unwrap();
        async move {
            lets_go.await.unwrap();
            request.extensions().get::<Admitted>().unwrap().usage().add("tokens", tokens);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        }
    });
    let layer = GateLayer::new(gate);
    let response = layer.layer(handler).oneshot(request("acme", "/chat", Some(key))).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_not_charged_takes_no_units_from_others_while_it_runs() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(&PLANS.replace("10k/day", "250/day"), store, &clock).await.unwrap();
    assert_eq!(call(&gate, request("acme", "/chat", Some("k")), 200, 50).await.status, 200);
    let acme = gate.tenant("acme").await.unwrap();
    let (go, lets_go) = tokio::sync::oneshot::channel();
    let retry = tokio::spawn({
        let gate = gate.clone();
        async move { held_open(&gate, "k", 90, lets_go).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(testing::held(&acme), 0, "it runs, and holds nothing");
    // 200 are left: two may hold 100 each beside it.
    let (go_on, lets_go_on) = tokio::sync::oneshot::channel();
    let other = tokio::spawn({
        let gate = gate.clone();
        async move { held_open(&gate, "l", 100, lets_go_on).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(testing::held(&acme), 101, "100 tokens and a request");
    assert_eq!(call(&gate, request("acme", "/chat", Some("m")), 200, 100).await.status, 200);
    go.send(()).unwrap();
    go_on.send(()).unwrap();
    assert_eq!((retry.await.unwrap(), other.await.unwrap()), (200, 200));
    assert_eq!(used(&gate, &clock, "acme", "tokens").await, 250);
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 3);
    assert_eq!(testing::held(&acme), 0);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_with_a_key_is_paid_to_its_rate_whoever_is_charged() {
    let rate = "rate.default = \"600 tokens/min burst 600\"";
    let plans = format!("{PLANS}\n    {rate}\n    rate.all = \"1000/s\"\n");
    // The first is charged, the second is not; a third has a key of its own. Each waits for the
    // tokens used before it: ten a second come back.
    for (keys, tokens) in [(["k", "k", "l"], 700), (["k", "k", "k"], 700)] {
        let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
        let gate = node(&plans, store, &clock).await.unwrap();
        for key in keys {
            let asked = call(&gate, request("acme", "/chat", Some(key)), 200, tokens);
            assert_eq!(asked.await.status, 200, "{keys:?}");
            // 100 below zero, and 100 are requested.
            for (seconds, status) in [(0, 429), (19, 429)] {
                clock.advance(Duration::from_secs(seconds));
                let asked = call(&gate, request("acme", "/chat", Some("other")), 200, 0);
                assert_eq!(asked.await.status, status, "{keys:?}, after {seconds} s");
            }
            clock.advance(Duration::from_secs(51));
        }
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_with_one_key_one_is_charged_and_the_units_of_the_other_go_back() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store.clone(), &clock).await.unwrap();
    let one = || call(&gate, request("acme", "/chat", Some("k")), 200, 40);
    let (one, other) = tokio::join!(one(), one());
    assert_eq!((one.status, other.status), (200, 200));
    assert_eq!(used(&gate, &clock, "acme", "tokens").await, 40);
    gate.close().await.unwrap();
    let next = node(PLANS, store, &clock).await.unwrap();
    let who = testing::identified_by(&next, &[("x-tenant", "acme")]).await;
    let report = next.usage_report(&who).await.unwrap();
    let limits = report.meters.iter().flat_map(|meter| &meter.limits);
    let mut limits: Vec<_> = limits.map(|limit| (&*limit.id, limit.used.whole())).collect();
    limits.sort_unstable();
    assert_eq!(limits, [("requests/day", 1), ("tokens/day", 40)]);
    next.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_that_fails_holds_of_a_rate_goes_back() {
    let plans = PLANS.replace("[route.pay]", "[meter.jobs]\n    [route.pay]");
    let plans = plans.replace("cost    = { tokens = 0 }", "cost    = { jobs = 5 }");
    let plans = format!("{plans}\n    rate.default = \"5 jobs/min burst 10\"\n");
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(&plans, store, &clock).await.unwrap();
    assert_eq!(call(&gate, request("acme", "/pay", Some("k")), 200, 0).await.status, 200);
    // The retry fails, and its report is not charged.
    let handler = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        let body = Full::<Bytes>::from("failed").map_frame(move |frame| {
            usage.add("tokens", 1);
            frame
        });
        Ok::<_, Infallible>(Response::builder().status(500).body(body).unwrap())
    });
    let service = GateLayer::new(&gate).layer(handler);
    let response = service.oneshot(request("acme", "/pay", Some("k"))).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(call(&gate, request("acme", "/pay", Some("l")), 200, 0).await.status, 200);
    assert_eq!(call(&gate, request("acme", "/pay", Some("m")), 200, 0).await.status, 429);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_ends_while_a_request_with_a_key_runs_does_not_pay_for_it() {
    for (lasts, paid) in [(60, true), (7_200, false)] {
        let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
        let gate = node(&PLANS.replace("10k/day", "100/day"), store, &clock).await.unwrap();
        let ends = testing::time_at(testing::START_MS + 3_600_000);
        let gift = Grant::new("gift", "tokens", 60).expires(ends);
        gate.directory().tenant("acme").grant(gift).note("a gift").save().await.unwrap();
        clock.advance(Duration::from_secs(31));
        let handler = tower::service_fn(|request: Request<Empty<Bytes>>| {
            clock.advance(Duration::from_secs(lasts));
            request.extensions().get::<Admitted>().unwrap().usage().add("tokens", 150);
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok"))) }
        });
        let service = GateLayer::new(&gate).layer(handler);
        let response = service.oneshot(request("acme", "/chat", Some("k"))).await.unwrap();
        response.into_body().collect().await.unwrap();
        let who = testing::identified_by(&gate, &[("x-tenant", "acme")]).await;
        let report = gate.usage_report(&who).await.unwrap();
        let tokens = report.meters.iter().find(|meter| &*meter.name == "tokens").unwrap();
        let owed = if paid { (100, 0) } else { (150, 50) };
        assert_eq!(
            (tokens.limits[0].used.whole(), tokens.limits[0].debt.whole()),
            owed,
            "after {lasts} s"
        );
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_key_nothing_is_claimed() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let gate = node(PLANS, store.clone(), &clock).await.unwrap();
    call(&gate, request("acme", "/pay", None), 200, 0).await;
    call(&gate, request("acme", "/pay", Some("")), 200, 0).await;
    assert_eq!(claims(&store).await, 0);
    assert_eq!(used(&gate, &clock, "acme", "requests").await, 2);
    call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
    assert_eq!(claims(&store).await, 1);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_wait_for_its_claim_is_dropped_is_not_charged() {
    // Before the first poll, and during the store call.
    for polls in [0, 1] {
        let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
        let store = Faulty::scripted(store, []);
        let gate = node(PLANS, store.clone(), &clock).await.unwrap();
        call(&gate, request("acme", "/pay", None), 200, 0).await; // its leases are ready
        let tenant = gate.tenant("acme").await.unwrap();
        let never = tower::service_fn(async |_: Request<Empty<Bytes>>| match true {
            true => panic!("the handler ran"),
            false => Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())),
        });
        let mut service = GateLayer::new(&gate).layer(never);
        store.outage(true);
        let mut waits = Box::pin(service.call(request("acme", "/pay", Some("k"))));
        assert!(testing::held(&tenant) > 0, "it waits for its claim");
        for _ in 0..polls {
            let polled = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
            assert!(polled.await);
        }
        drop(waits);
        store.outage(false);
        assert_eq!(testing::held(&tenant), 0);
        assert_eq!(used(&gate, &clock, "acme", "requests").await, 1, "after {polls} polls");
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_on_lease_error_decides() {
    for (rule, expected) in [("\"deny\"", 503), ("{ allow = \"1%\" }", 200)] {
        let plans = format!("{PLANS}\n    on-lease-error = {rule}");
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let store = Faulty::scripted(Memory::new(), []);
        let gate = node(&plans, store.clone(), &clock).await.unwrap();
        call(&gate, request("acme", "/pay", None), 200, 0).await;
        store.outage(true);
        let answer = call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
        assert_eq!(answer.status, expected, "{rule}");
        store.outage(false);
        call(&gate, request("acme", "/pay", Some("k")), 200, 0).await;
        let first = u64::from(expected == 200);
        assert_eq!(used(&gate, &clock, "acme", "requests").await, 2 + first, "{rule}");
        gate.close().await.unwrap();
    }
}

/// Nodes that lose, delay and repeat calls, clients that give up and retry elsewhere, and nodes
/// that die in between: no key is charged twice, and each that was answered is charged.
#[tokio::test(start_paused = true)]
async fn over_nodes_that_fail_a_key_is_charged_once() {
    let (mut answered_of_all, mut charged_of_all) = (0, 0);
    for seed in 0..60u64 {
        let (truth, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
        let odds = Odds {
            unavailable: 40,
            throttled: 40,
            lose_request: 40,
            lose_reply: 120,
            delay: 300,
            repeat: 100,
        };
        let mut chance = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % below
        };
        let mut nodes: Vec<Option<Gate>> = vec![None, None, None];
        let mut lives = 0u64;
        let mut answered = [false; 8];
        for (tenant, answered) in answered.iter_mut().enumerate() {
            let name = format!("tenant-{tenant}");
            for _ in 0..=draw(5) {
                let at = draw(3) as usize;
                if draw(6) == 0 {
                    nodes[at] = None; // without closing: it crashes, with all unwritten usage
                }
                if nodes[at].is_none() {
                    lives += 1;
                    let store = Faulty::seeded(truth.clone(), seed << 20 | lives, odds);
                    nodes[at] = node(PLANS, store, &clock).await;
                }
                let Some(gate) = &nodes[at] else { continue };
                let status = if draw(8) == 0 { 500 } else { 200 };
                let asked = call(gate, request(&name, "/chat", Some("k")), status, 10);
                let patience = Duration::from_millis([5, 60, 400, 5_000][draw(4) as usize]);
                if let Ok(answer) = tokio::time::timeout(patience, asked).await {
                    *answered |= answer.status == 200;
                }
            }
        }
        for gate in nodes.iter().flatten() {
            // Requests it cannot record in time stay unanswered.
            let _ = gate.close().await;
        }
        let reader = node(PLANS, truth.clone(), &clock).await.unwrap();
        for (tenant, answered) in answered.iter().enumerate() {
            let name = format!("tenant-{tenant}");
            if reader.tenant(&name).await.is_err() {
                assert!(!answered);
                continue;
            }
            let charged = used(&reader, &clock, &name, "requests").await;
            assert!(charged <= 1, "seed {seed}, {name}: charged {charged} times");
            assert!(charged == 1 || !answered, "seed {seed}, {name}: answered and not charged");
            answered_of_all += u64::from(*answered);
            charged_of_all += charged;
        }
        reader.close().await.unwrap();
    }
    assert!(answered_of_all > 100, "{answered_of_all} keys were answered");
    assert!(charged_of_all >= answered_of_all);
}

/// A request of acme's with a key.
const CHAT: Call<2> = Call::new("POST", "/chat", [("x-tenant", "acme"), ("idempotency-key", "k")]);

#[tokio::test(start_paused = true)]
async fn units_that_retries_take_are_within_the_quota() {
    for hold in ["", "hold  = \"100\""] {
        let plans = PLANS.replace("hold  = \"100\"", hold).replace("10k/day", "500/day");
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = node(&plans, Memory::new(), &clock).await.unwrap();
        let open = async || OpenRequest::admit(&gate, &CHAT).await.unwrap();
        // The client goes away after the first token, and comes again with the same key.
        let first = open().await;
        first.usage().take("tokens", 1).await.unwrap();
        first.usage().add("tokens", 1);
        first.head(200);
        assert!(first.answered(Outcome::Aborted).await);
        let mut taken = 1;
        for retry in 0..5 {
            let Ok(request) = OpenRequest::admit(&gate, &CHAT).await else { break };
            assert!(request.is_replay());
            for _ in 0..30 {
                if request.usage().take("tokens", 10).await.is_err() {
                    break;
                }
                request.usage().add("tokens", 10);
                taken += 10;
            }
            if retry == 0 {
                request.usage().add("tokens", 7); // free
                request.usage().take("tokens", 5).await.unwrap(); // and comes back unused
            }
            request.head(200);
            request.answered(Outcome::Complete { status: 200 }).await;
        }
        let on_record = used(&gate, &clock, "acme", "tokens").await;
        assert_eq!((taken, on_record), (491, 491), "of 500, in tens");
        assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
    }
}
