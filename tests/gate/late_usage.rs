//! Usage reported late, with nothing reserved for it, still counts against its limits like all
//! usage. Also usage that no limit applies to: free routes, and shadow mode.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tallygate::ingest::UsageEvent;
use tallygate::middleware::GateLayer;
use tallygate::store::{Item, Key, Memory, Store, StoreFuture, Write, Written};
use tallygate::testing::{self, Faulty, Plans, held};
use tallygate::{Admitted, Ask, Gate, TenantHandle};
use test_support::clocks::Paused;
use test_support::stores::Shared;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

/// The status of a request of this user whose handler reports this usage.
async fn reporting(gate: &Gate, user: &str, path: &str, used: &[(&'static str, u64)]) -> u16 {
    let request = Request::get(path).header("x-tenant", "acme").header("x-user", user);
    let used = used.to_vec();
    let inner = tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        used.iter().for_each(|(meter, n)| usage.add(meter, *n));
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("answer"))) }
    });
    let layer = GateLayer::new(gate);
    let response = layer.layer(inner).oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

/// A meter's usage, its overage, and the usage of each limit.
async fn used(gate: &Gate, meter: &str) -> (u64, u64, Vec<u64>) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|m| &*m.name == meter).unwrap();
    (
        meter.used.whole(),
        meter.over.whole(),
        meter.limits.iter().map(|limit| limit.used.whole()).collect(),
    )
}

fn plans(of_plan: &str) -> String {
    format!(
        "default-plan = \"free\"
        [meter.tokens]
        count = \"reported\"
        [meter.images]
        [meter.credits]
        parts = 1
        sum = {{ images = \"5\" }}
        [route.shown]
        match = \"GET /shown\"
        free  = true
        [plan.free]
        {of_plan}"
    )
}

#[tokio::test]
async fn a_quota_without_a_hold_refuses_once_it_is_used_up() {
    let (gate, clock) = testing::gate(&plans("quota.tokens = \"100/day\""));
    for expected in [200, 200, 429, 429] {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 60)]).await, expected);
    }
    assert_eq!(used(&gate, "tokens").await.0, 120);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 60)]).await, 200);
    assert_eq!(held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_users_quota_without_a_hold_refuses_that_user() {
    let (gate, _clock) = testing::gate(&plans("quota.tokens = \"100/day per user\""));
    for expected in [200, 200, 429] {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 60)]).await, expected);
    }
    assert_eq!(reporting(&gate, "bob", "/chat", &[("tokens", 60)]).await, 200);
}

#[tokio::test]
async fn a_rate_of_a_meter_without_a_hold_is_paid_by_waiting() {
    let (gate, clock) = testing::gate(&plans("rate.default = \"60 tokens/min burst 60\""));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 180)]).await, 200);
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 429);
    clock.advance(Duration::from_secs(120));
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 429);
    clock.advance(Duration::from_secs(2));
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 200);
}

#[tokio::test]
async fn what_is_included_is_used_before_what_is_beyond() {
    let quota = "quota.tokens = { limit = \"100/day\", over = \"allow\", stop = \"300\" }";
    let (gate, _clock) = testing::gate(&plans(quota));
    // Reported, used in all, of it beyond the limit.
    for (n, all, over) in [(60, 60, 0), (60, 120, 20), (160, 280, 180), (20, 300, 200)] {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", n)]).await, 200);
        assert_eq!(used(&gate, "tokens").await, (all, over, vec![all]));
    }
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 1)]).await, 429, "past the stop");
}

#[tokio::test]
async fn what_no_route_asks_for_feeds_its_sums_and_narrow_quotas() {
    let limits = "quota.images = \"10/day per user\"\nquota.credits = \"1000/day\"";
    let (gate, _clock) = testing::gate(&plans(limits));
    assert_eq!(reporting(&gate, "ann", "/draw", &[("images", 3)]).await, 200);
    assert_eq!(used(&gate, "images").await.0, 3);
    assert_eq!(used(&gate, "credits").await, (15, 0, vec![15]));
    let who = [("x-tenant", "acme"), ("x-user", "ann")];
    let report = gate.usage_report(&testing::identified_by(&gate, &who).await).await.unwrap();
    let images = report.meters.iter().find(|m| &*m.name == "images").unwrap();
    assert_eq!(images.limits[0].used, 3, "of the user's own");
}

#[tokio::test]
async fn a_free_route_needs_no_place_among_those_in_flight() {
    let (gate, _clock) = testing::gate(&plans("concurrency = 1\nquota.images = \"10\""));
    let acme = gate.tenant("acme").await.unwrap();
    let running = gate.admit(Ask::new(&acme, "work")).await.unwrap();
    assert_eq!(reporting(&gate, "ann", "/search", &[]).await, 429);
    for _ in 0..3 {
        assert_eq!(reporting(&gate, "ann", "/shown", &[]).await, 200);
        assert_eq!(acme.in_flight(), Some(1));
    }
    running.settle();
    assert_eq!(acme.in_flight(), Some(0));
    // Work of the same name costs what it states, and no more.
    gate.admit(Ask::new(&acme, "shown").cost("images", 2)).await.unwrap().settle();
    assert_eq!(used(&gate, "images").await.0, 2);
    assert_eq!(used(&gate, "requests").await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn shadow_refuses_nobody_while_the_store_is_away() {
    let store = Faulty::scripted(Memory::new(), []);
    let plans = plans("enforce = \"shadow\"\nquota.requests = \"1000/day\"");
    let (gate, _clock) = testing::gate_with(&plans, store.clone());
    assert_eq!(reporting(&gate, "ann", "/search", &[]).await, 200);
    store.outage(true);
    for _ in 0..50 {
        assert_eq!(reporting(&gate, "ann", "/search", &[]).await, 200);
    }
    store.outage(false);
    // The gate notices its return within a second.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(used(&gate, "requests").await.0, 51);
}

/// Gives a grant of this many atoms, and lets the gate learn of it.
async fn granted(gate: &Gate, clock: &tallygate::ManualClock, meter: &str, atoms: u64) {
    let grant = tallygate::directory::Grant::new(format!("pack-{atoms}"), meter, atoms);
    gate.directory().tenant("acme").grant(grant).note("a pack").save().await.unwrap();
    clock.advance(Duration::from_secs(31));
}

/// Makes requests that each report `n`, until one is refused. Returns the number admitted.
async fn admitted(gate: &Gate, n: u64) -> u64 {
    let mut admitted = 0;
    while reporting(gate, "ann", "/chat", &[("tokens", n)]).await == 200 {
        admitted += 1;
        assert!(admitted < 10_000, "nothing refuses");
    }
    admitted
}

#[tokio::test]
async fn a_grant_pays_for_late_use() {
    let (gate, clock) = testing::gate(&plans("quota.tokens = \"10/day\""));
    granted(&gate, &clock, "tokens", 100).await;
    assert_eq!(admitted(&gate, 10).await, 11, "110 units in tens");
    let who = testing::identified(&gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let tokens = report.meters.iter().find(|m| &*m.name == "tokens").unwrap();
    assert_eq!(
        (tokens.used.whole(), tokens.over.whole(), tokens.grants[0].used.whole()),
        (110, 0, 100)
    );
    assert_eq!(tokens.limits[0].used, 10);
}

#[tokio::test]
async fn a_grant_pays_for_late_use_beyond_a_hold() {
    let held = |of_plan| plans(of_plan).replace("[meter.images]", "hold = \"1\"\n[meter.images]");
    let (gate, clock) = testing::gate(&held("quota.tokens = \"10/day\""));
    granted(&gate, &clock, "tokens", 100).await;
    assert_eq!(admitted(&gate, 10).await, 11, "110 units in tens");
    assert_eq!(used(&gate, "tokens").await, (110, 0, vec![10]));
    // The grant is drawn before what is beyond, which lasts as long.
    let quota = "quota.tokens = { limit = \"10/day\", over = \"allow\", stop = \"14\" }";
    let (gate, clock) = testing::gate(&held(quota));
    granted(&gate, &clock, "tokens", 100).await;
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 12)]).await, 200);
    assert_eq!(used(&gate, "tokens").await, (12, 0, vec![10]));
    assert_eq!(admitted(&gate, 10).await, 11, "102 more, in tens");
    assert_eq!(used(&gate, "tokens").await, (122, 12, vec![22]));
}

#[tokio::test]
async fn late_use_is_split_between_the_quota_two_grants_and_what_is_beyond() {
    let quota = "quota.tokens = { limit = \"10/day\", over = \"allow\", stop = \"14\" }";
    let (gate, clock) = testing::gate(&plans(quota));
    granted(&gate, &clock, "tokens", 3).await;
    granted(&gate, &clock, "tokens", 2).await;
    // 10 included, 5 granted, 4 beyond, and 1 unpaid.
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 20)]).await, 200);
    let (used, over, of_limit) = used(&gate, "tokens").await;
    assert_eq!((used, over, of_limit), (20, 5, vec![15]));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 1)]).await, 429);
    // Paying the debt admits requests again.
    granted(&gate, &clock, "tokens", 7).await;
    assert_eq!(admitted(&gate, 2).await, 3, "1 of 7 paid the debt");
}

#[tokio::test]
async fn late_use_beyond_a_quota_and_a_grant_is_let_through_as_far_as_it_goes() {
    let quota = "quota.tokens = { limit = \"10/day\", over = \"allow\" }";
    let (gate, clock) = testing::gate(&plans(quota));
    // Until the lease has units beyond the quota.
    for _ in 0..20 {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 5)]).await, 200);
    }
    granted(&gate, &clock, "tokens", 3).await;
    assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 5)]).await, 200);
    assert_eq!(used(&gate, "tokens").await, (105, 92, vec![102]));
    assert_eq!(held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn late_use_counts_in_full_against_each_of_two_quotas() {
    let soft = "over = \"allow\"";
    for (day, month, over) in [
        ("\"3/day\"".into(), "\"5/month\"".into(), 6),
        ("\"3/day\"".into(), format!("{{ limit = \"5/month\", {soft} }}"), 6),
        (format!("{{ limit = \"3/day\", {soft} }}"), "\"5/month\"".into(), 6),
        (format!("{{ limit = \"3/day\", {soft} }}"), "\"50/month\"".into(), 6),
        (
            format!("{{ limit = \"3/day\", {soft} }}"),
            format!("{{ limit = \"5/month\", {soft} }}"),
            6,
        ),
    ] {
        let (gate, _clock) = testing::gate(&plans(&format!("quota.tokens = [{day}, {month}]")));
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 9)]).await, 200);
        assert_eq!(used(&gate, "tokens").await, (9, over, vec![9, 9]), "{day}, {month}");
        assert_eq!(held(&gate.tenant("acme").await.unwrap()), 0, "{day}, {month}");
    }
}

#[tokio::test]
async fn late_use_that_units_at_hand_pay_for_keeps_no_request_waiting() {
    let quota = "quota.tokens = { limit = \"10/day\", over = \"allow\" }";
    let (gate, _clock) = testing::gate(&plans(quota));
    // Until the lease has units beyond the quota.
    for _ in 0..20 {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 5)]).await, 200);
    }
    let acme = gate.tenant("acme").await.unwrap();
    let inner = tower::service_fn(|request: Request<Empty<Bytes>>| {
        request.extensions().get::<Admitted>().unwrap().usage().add("tokens", 1);
        let ask = Ask::new(&acme, "work").cost("tokens", 1);
        let at_once = gate.try_admit_now(&ask).is_some_and(|admitted| admitted.is_ok());
        assert!(at_once, "before anything is asked of the store");
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("answer"))) }
    });
    let request = Request::get("/shown").header("x-tenant", "acme").body(Empty::new()).unwrap();
    GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_learned_beyond_a_quota_while_the_store_is_away_is_owed_once() {
    let store = Faulty::scripted(Memory::new(), []);
    let plans = plans("quota.tokens = { limit = \"10/day\", over = \"allow\" }");
    let (gate, clock) = testing::gate_with(&plans, store.clone());
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 12)]).await, 200);
    assert_eq!(used(&gate, "tokens").await, (12, 2, vec![12]));
    store.outage(true);
    assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 50)]).await, 200);
    let _ = reporting(&gate, "ann", "/chat", &[("tokens", 0)]).await; // which detects the outage
    store.outage(false);
    clock.advance(Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(10)).await; // until it is retried
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 0)]).await, 200);
    assert_eq!(used(&gate, "tokens").await, (62, 52, vec![62]));
}

#[tokio::test]
async fn what_is_owed_past_a_stop_is_billed_once_as_requests_give_back_what_pays_it() {
    let quota = "quota.tokens = { limit = \"10/day\", over = \"bill\", stop = \"20\" }";
    let sent = "[meter.tokens]\nstripe = { event = \"tokens\", send = \"overage\" }";
    let (gate, _clock) = testing::gate(&plans(quota).replacen("[meter.tokens]", sent, 1));
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |n| gate.admit(Ask::new(&acme, "work").cost("tokens", n));
    ask(10).await.unwrap().settle();
    let open = [ask(3).await.unwrap(), ask(3).await.unwrap()];
    // 4 of it are admitted.
    assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 8)]).await, 200);
    assert_eq!(tokens(&gate).await.1, 4);
    for (open, debt) in open.into_iter().zip([1, 0]) {
        open.cancel();
        assert_eq!(tokens(&gate).await.1, debt);
    }
    assert_eq!(used(&gate, "tokens").await, (18, 8, vec![18]));
    assert_eq!(held(&acme), 0);
}

#[tokio::test]
async fn what_was_used_past_a_stop_is_billed_once_as_far_as_the_stop_is_raised() {
    for over in ["allow", "bill"] {
        let of = |stop: u64| {
            let of = format!("limit = \"100/day\", over = \"{over}\", stop = \"{stop}\"");
            let sent = "[meter.tokens]\nstripe = { event = \"tokens\", send = \"overage\" }";
            plans(&format!("quota.tokens = {{ {of} }}")).replacen("[meter.tokens]", sent, 1)
        };
        let plans = testing::Plans::new(&of(120));
        let (gate, _clock) = reading(&plans, &Memory::new()).await;
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 130)]).await, 200);
        assert_eq!(tokens(&gate).await, (130, 10));
        for (stop, debt) in [(125, 5), (135, 0)] {
            plans.set(&of(stop));
            gate.reload().await.unwrap();
            let _ = reporting(&gate, "ann", "/chat", &[("tokens", 0)]).await;
            assert_eq!(tokens(&gate).await, (130, debt), "{over}, of {stop}");
            assert_eq!(used(&gate, "tokens").await, (130, 30, vec![130]), "{over}, of {stop}");
        }
        assert_eq!(admitted(&gate, 1).await, 5, "{over}");
    }
}

#[tokio::test]
async fn use_beyond_a_quota_that_denies_shows_as_over_and_as_used() {
    let (gate, _clock) = testing::gate(&plans("quota.tokens = \"500/day\""));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 740)]).await, 200);
    assert_eq!(used(&gate, "tokens").await, (740, 240, vec![740]));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 1)]).await, 429);
}

#[tokio::test]
async fn a_refusal_says_as_much_was_used_as_the_report_does() {
    let soft = "{ limit = \"100/day\", over = \"allow\", stop = \"300\" }";
    for quota in ["\"500/day\"", soft] {
        let (gate, _clock) = testing::gate(&plans(&format!("quota.tokens = {quota}")));
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 740)]).await, 200);
        let acme = gate.tenant("acme").await.unwrap();
        let ask = Ask::new(&acme, "work").cost("tokens", 1);
        let limit = gate.admit(ask).await.unwrap_err().limit.unwrap();
        assert_eq!((limit.used.whole(), limit.remaining.whole()), (740, 0), "{quota}");
        assert_eq!(used(&gate, "tokens").await.2, [740], "{quota}");
    }
}

#[tokio::test]
async fn a_refusal_under_a_lowered_limit_says_as_much_was_used_as_the_report_does() {
    let lowered = |limit: u64| {
        let stop = "over = \"bill\", stop = \"300\"";
        let sent = "[meter.tokens]\nstripe = { event = \"tokens\", send = \"overage\" }";
        let plans = plans(&format!("quota.tokens = {{ limit = \"{limit}/day\", {stop} }}"));
        plans.replacen("[meter.tokens]", sent, 1)
    };
    let file = testing::Plans::new(&lowered(200));
    let gate = file.read_by(testing::builder("")).store(Memory::new()).open().await.unwrap();
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 150)]).await, 200);
    file.set(&lowered(100));
    gate.reload().await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let ask = Ask::new(&acme, "work").cost("tokens", 200);
    let limit = gate.admit(ask).await.unwrap_err().limit.unwrap();
    assert_eq!(limit.used, 150);
    assert_eq!(used(&gate, "tokens").await.2, [150]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_never_shown_as_more_while_late_use_is_paid() {
    let (gate, _clock) = testing::gate(&plans("quota.tokens = \"100k/day\""));
    for tenant in 0..500 {
        let request = Request::get("/chat").header("x-tenant", format!("t{tenant}"));
        let inner = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            let usage = request.extensions().get::<Admitted>().unwrap().clone();
            for used in 1..=20 {
                usage.usage().add("tokens", 5);
                tokio::task::yield_now().await;
                let limits = usage.limits();
                let tokens = limits.iter().find(|limit| &*limit.name == "tokens/day").unwrap();
                assert_eq!(tokens.remaining, 100_000 - 5 * used);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("answer")))
        });
        let layer = GateLayer::new(&gate).layer(inner);
        let answer = layer.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn a_debt_survives_a_restart() {
    let store = Memory::new();
    let plans = plans("quota.tokens = \"500/day\"");
    let (first, _clock) = testing::gate_with(&plans, store.clone());
    for n in [300, 191, 249] {
        assert_eq!(reporting(&first, "ann", "/chat", &[("tokens", n)]).await, 200);
    }
    first.close().await.unwrap();
    let (second, clock) = testing::gate_with(&plans, store);
    assert_eq!(reporting(&second, "ann", "/chat", &[("tokens", 1)]).await, 429);
    assert_eq!(used(&second, "tokens").await, (740, 240, vec![740]));
    granted(&second, &clock, "tokens", 241).await;
    assert_eq!(admitted(&second, 1).await, 1, "the grant has paid the debt and one more");
}

/// The unit that an open request holds could have paid part of the debt, but is used as well.
#[tokio::test(start_paused = true)]
async fn what_an_open_request_could_have_paid_is_owed_in_the_store_once_it_has_used_it() {
    let plans = Plans::new("default-plan = \"free\"\n[plan.free]\nquota.requests = \"9/day\"\n");
    let store = Memory::new();
    let open = async || reading(&plans, &store).await.0;
    let gate = open().await;
    let acme = gate.tenant("acme").await.unwrap();
    let ask = Ask::new(&acme, "call").cost("requests", 1);
    let held = gate.admit(ask).await.unwrap();
    let late = UsageEvent::new("late", "acme", "requests", 11);
    gate.ingest().events(vec![late]).await[0].as_ref().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.settle();
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.flush_now().await.unwrap();
    // Another process, while this one goes on.
    let elsewhere = open().await;
    assert_eq!(used(&elsewhere, "requests").await, (12, 3, vec![12]));
}

#[tokio::test]
async fn late_use_past_the_stop_admits_nothing_more() {
    let quota = "quota.tokens = { limit = \"100/day\", over = \"allow\", stop = \"120\" }";
    let (gate, clock) = testing::gate(&plans(quota));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 130)]).await, 200);
    assert_eq!(admitted(&gate, 1).await, 0);
    granted(&gate, &clock, "tokens", 9).await;
    assert_eq!(admitted(&gate, 1).await, 0, "10 are owed");
    granted(&gate, &clock, "tokens", 3).await;
    assert_eq!(admitted(&gate, 1).await, 2);
}

#[tokio::test]
async fn what_was_granted_once_owes_what_is_learned_late() {
    let store = Memory::new();
    let plans = plans("quota.tokens = \"20\"");
    let (first, _clock) = testing::gate_with(&plans, store.clone());
    assert_eq!(reporting(&first, "ann", "/chat", &[("tokens", 30)]).await, 200);
    assert_eq!(admitted(&first, 1).await, 0);
    first.close().await.unwrap();
    let (second, clock) = testing::gate_with(&plans, store);
    granted(&second, &clock, "tokens", 15).await;
    assert_eq!(admitted(&second, 1).await, 5, "10 of 15 paid the debt");
}

/// The first limit of the tokens: its usage, and the debt within that.
async fn tokens(gate: &Gate) -> (u64, u64) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let tokens = report.meters.into_iter().find(|m| &*m.name == "tokens").unwrap();
    (tokens.limits[0].used.whole(), tokens.limits[0].debt.whole())
}

/// A gate that reads this plan file.
async fn reading(plans: &testing::Plans, store: &Memory) -> (Gate, tallygate::ManualClock) {
    let clock = tallygate::ManualClock::at_unix_ms(testing::START_MS);
    let gate = plans.read_by(testing::builder("")).store(store.clone()).clock(clock.clone());
    (gate.open().await.unwrap(), clock)
}

#[tokio::test]
async fn what_is_owed_beyond_a_limit_of_0_is_known_once_that_is_raised() {
    for restarts in [false, true] {
        let of = |limit: u64| {
            let stop = limit + 5;
            let of = format!("limit = \"{limit}/day\", over = \"allow\", stop = \"{stop}\"");
            plans(&format!("quota.tokens = {{ {of} }}"))
        };
        let (store, plans) = (Memory::new(), testing::Plans::new(&of(0)));
        let (mut gate, _clock) = reading(&plans, &store).await;
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 8)]).await, 200);
        let said = async |gate: &Gate| (admitted(gate, 1).await, tokens(gate).await);
        assert_eq!(said(&gate).await, (0, (8, 3)));
        // 2 of the 3 are paid; then all, and there are 2 more and 5 beyond them.
        for (limit, expected) in [(2, (0, (8, 1))), (5, (2, (10, 0)))] {
            plans.set(&of(limit));
            gate.reload().await.unwrap();
            if restarts {
                gate.close().await.unwrap();
                gate = reading(&plans, &store).await.0;
            }
            assert_eq!(said(&gate).await, expected, "of {limit}");
        }
    }
}

/// Units beyond a limit that were drawn before its `stop` was lowered are still shown as used.
#[tokio::test]
async fn a_lowered_stop_shows_all_that_was_used_before() {
    let plans = |limit: u64, stop: u64| {
        format!(
            r#"
            default-plan = "pro"
            [meter.jobs]
            [plan.pro]
            quota.jobs = {{ limit = "{limit}/day", over = "allow", stop = "{stop}" }}
            "#
        )
    };
    let file = testing::Plans::new(&plans(20, 100));
    let gate = file.read_by(testing::builder("")).store(Memory::new()).open().await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let work = async |n| gate.admit(Ask::new(&acme, "job").cost("jobs", n)).await;
    for _ in 0..14 {
        work(7).await.unwrap().settle();
    }
    for (limit, stop) in [(20, 100), (20, 30), (10, 30), (10, 100), (20, 100)] {
        file.set(&plans(limit, stop));
        gate.reload().await.unwrap();
        let refused = work(7).await.unwrap_err();
        assert_eq!(refused.limit.unwrap().used, 98, "of {limit}, to {stop}, when refused");
        let report = gate.usage_report(&tallygate::Identified::from(&acme)).await.unwrap();
        let meter = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap();
        assert_eq!(
            (meter.limits[0].used.whole(), meter.used.whole()),
            (98, 98),
            "of {limit}, to {stop}"
        );
    }
}

#[tokio::test]
async fn a_lowered_stop_holds_after_a_restart_whatever_a_raised_limit_includes() {
    let of = |limit: u64, stop: u64| {
        let of = format!("limit = \"{limit}/day\", over = \"allow\", stop = \"{stop}\"");
        plans(&format!("quota.tokens = {{ {of} }}"))
    };
    let (store, plans) = (Memory::new(), testing::Plans::new(&of(100, 200)));
    let (first, _clock) = reading(&plans, &store).await;
    let acme = first.tenant("acme").await.unwrap();
    first.admit(Ask::new(&acme, "work").cost("tokens", 150)).await.unwrap().settle();
    first.close().await.unwrap();
    plans.set(&of(150, 160));
    let (second, _clock) = reading(&plans, &store).await;
    assert_eq!(admitted(&second, 1).await, 10, "150 of 160 were used");
}

#[tokio::test]
async fn a_debt_that_a_raised_limit_has_paid_is_not_owed_again_when_it_falls() {
    let of = |limit: u64| plans(&format!("quota.tokens = \"{limit}/day\""));
    let plans = testing::Plans::new(&of(10));
    let (gate, clock) = reading(&plans, &Memory::new()).await;
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 12)]).await, 200);
    assert_eq!(tokens(&gate).await, (12, 2));
    for (limit, admits) in [(15, 3), (12, 0)] {
        plans.set(&of(limit));
        gate.reload().await.unwrap();
        assert_eq!(admitted(&gate, 1).await, admits, "of {limit}");
        assert_eq!(tokens(&gate).await.1, 0, "of {limit}");
    }
    granted(&gate, &clock, "tokens", 4).await;
    assert_eq!(admitted(&gate, 1).await, 4, "nothing is owed that would take of them");
}

#[tokio::test(start_paused = true)]
async fn a_debt_that_is_learned_while_the_store_is_away_is_kept_by_an_end_in_good_order() {
    let store = Memory::new();
    let faulty = Faulty::scripted(store.clone(), []);
    let plans = plans("quota.tokens = \"10/day\"");
    let (first, _clock) = testing::gate_with(&plans, faulty.clone());
    assert_eq!(reporting(&first, "ann", "/shown", &[]).await, 200);
    faulty.outage(true);
    assert_eq!(reporting(&first, "ann", "/shown", &[("tokens", 30)]).await, 200);
    let closing = tokio::spawn(async move { first.close().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    faulty.outage(false);
    closing.await.unwrap().unwrap();
    let (second, clock) = testing::gate_with(&plans, store);
    assert_eq!(admitted(&second, 1).await, 0, "20 are owed");
    granted(&second, &clock, "tokens", 21).await;
    assert_eq!(admitted(&second, 1).await, 1);
}

/// A tenant that owes 10 beyond 20 units that an earlier plan granted once. Its plan now has 10 a
/// day, which it uses in this way; then the process restarts, if `restarts`.
async fn owing_ten(restarts: bool, used: impl AsyncFn(&Gate)) -> (Gate, tallygate::ManualClock) {
    let store = Memory::new();
    let plans = plans("quota.tokens = \"20\"\n[plan.pro]\nquota.tokens = \"10/day\"");
    let (gate, clock) = testing::gate_with(&plans, store.clone());
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 30)]).await, 200);
    gate.directory().tenant("acme").plan("pro").save().await.unwrap();
    used(&gate).await;
    if !restarts {
        return (gate, clock);
    }
    gate.close().await.unwrap();
    testing::gate_with(&plans, store)
}

#[tokio::test]
async fn what_is_owed_of_units_granted_once_takes_of_a_pack_on_the_next_plan() {
    for restarts in [false, true] {
        let (gate, clock) = owing_ten(restarts, async |gate| {
            assert_eq!(admitted(gate, 1).await, 10, "the next plan includes what it says");
        })
        .await;
        granted(&gate, &clock, "tokens", 15).await;
        assert_eq!(admitted(&gate, 1).await, 5, "10 of 15 paid the debt");
        assert_eq!(tokens(&gate).await, (10, 0), "the quota owes nothing of that");
    }
}

#[tokio::test]
async fn a_pack_pays_what_an_earlier_plan_owes_beside_what_this_one_owes() {
    for restarts in [false, true] {
        let (gate, clock) = owing_ten(restarts, async |gate| {
            assert_eq!(reporting(gate, "ann", "/chat", &[("tokens", 20)]).await, 200);
            assert_eq!(tokens(gate).await, (20, 10));
        })
        .await;
        granted(&gate, &clock, "tokens", 15).await;
        assert_eq!(admitted(&gate, 1).await, 0, "15 of the 20 that are owed are paid");
        assert_eq!(tokens(&gate).await, (10, 0), "those of this plan first");
        granted(&gate, &clock, "tokens", 6).await;
        assert_eq!(admitted(&gate, 1).await, 1, "5 of 6 paid the rest");
    }
}

#[tokio::test]
async fn what_a_user_owes_is_owed_after_a_restart() {
    for over in ["", ", over = \"allow\", stop = \"15\""] {
        let store = Memory::new();
        let plans = plans(&format!("quota.tokens = {{ limit = \"10/day per user\"{over} }}"));
        let (first, _clock) = testing::gate_with(&plans, store.clone());
        for n in [3, 17] {
            assert_eq!(reporting(&first, "ann", "/chat", &[("tokens", n)]).await, 200);
        }
        first.close().await.unwrap();
        let (second, clock) = testing::gate_with(&plans, store);
        let of_ann = async || {
            let headers = [("x-tenant", "acme"), ("x-user", "ann")];
            let who = testing::identified_by(&second, &headers).await;
            let report = second.usage_report(&who).await.unwrap();
            let tokens = report.meters.into_iter().find(|m| &*m.name == "tokens").unwrap();
            (tokens.limits[0].used.whole(), tokens.limits[0].debt.whole())
        };
        let debt = if over.is_empty() { 10 } else { 5 };
        assert_eq!(of_ann().await, (20, debt), "in the store");
        assert_eq!(reporting(&second, "ann", "/chat", &[("tokens", 1)]).await, 429);
        assert_eq!(of_ann().await, (20, debt), "in the lease");
        assert_eq!(reporting(&second, "bob", "/chat", &[("tokens", 1)]).await, 200);
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(reporting(&second, "ann", "/chat", &[("tokens", 1)]).await, 200, "a new day");
    }
}

#[tokio::test]
async fn a_limit_that_is_lowered_to_nothing_owes_what_is_learned_late_then() {
    let of = |quota: &str| plans(&format!("quota.tokens = {quota}"));
    let plans = testing::Plans::new(&of("\"100/month\""));
    let (gate, clock) = reading(&plans, &Memory::new()).await;
    for n in [30, 30, 1] {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", n)]).await, 200);
    }
    plans.set(&of("{ limit = \"0/month\", over = \"allow\", stop = \"81\" }"));
    gate.reload().await.unwrap();
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 20)]).await, 200);
    assert_eq!(tokens(&gate).await, (20, 0));
    assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 10)]).await, 200);
    assert_eq!(tokens(&gate).await, (30, 10));
    assert_eq!(admitted(&gate, 1).await, 0);
    granted(&gate, &clock, "tokens", 12).await;
    assert_eq!(admitted(&gate, 1).await, 2, "10 of 12 paid the debt");
}

#[tokio::test]
async fn what_a_user_owes_beyond_a_limit_of_0_is_known_once_that_is_raised() {
    let of = |limit: u64| {
        let of = format!("limit = \"{limit}/day per user\", over = \"allow\", stop = \"15\"");
        plans(&format!("quota.tokens = {{ {of} }}"))
    };
    for restarts in [false, true] {
        let (store, plans) = (Memory::new(), testing::Plans::new(&of(0)));
        let (mut gate, _clock) = reading(&plans, &store).await;
        assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 18)]).await, 200);
        assert_eq!(admitted(&gate, 1).await, 0, "3 are owed");
        plans.set(&of(5));
        gate.reload().await.unwrap();
        if restarts {
            gate.close().await.unwrap();
            gate = reading(&plans, &store).await.0;
        }
        assert_eq!(admitted(&gate, 1).await, 0, "18 of 15, restarts: {restarts}");
        plans.set(&of(5).replace("15", "20"));
        gate.reload().await.unwrap();
        assert_eq!(admitted(&gate, 1).await, 2, "3 of the 5 are paid, restarts: {restarts}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_served_beyond_a_quota_while_the_store_is_away_is_billed_or_owed() {
    for (over, ends) in [("bill", false), ("deny", false), ("bill", true), ("deny", true)] {
        let memory = Memory::new();
        let store = Faulty::scripted(memory.clone(), []);
        let terms = format!("limit = \"100/day\", over = \"{over}\"");
        let meters = "[meter.jobs]\nstripe = { event = \"jobs\", send = \"overage\" }";
        let plans = format!(
            "default-plan = \"free\"\n{meters}\n[plan.free]\n\
             on-lease-error = {{ allow = \"50%\" }}\nquota.jobs = {{ {terms} }}"
        );
        let (mut gate, clock) = testing::gate_with(&plans, store.clone());
        let served = async |gate: &Gate, acme: &TenantHandle, n: u64| {
            let mut served = 0;
            for _ in 0..n {
                let admitted = gate.admit(Ask::new(acme, "job").cost("jobs", 1)).await;
                served += u64::from(admitted.map(|permit| permit.settle()).is_ok());
            }
            served
        };
        let mut acme = gate.tenant("acme").await.unwrap();
        assert_eq!(served(&gate, &acme, 95).await, 95);
        store.outage(true);
        let away = served(&gate, &acme, 60).await;
        assert!(away > 5, "it lets through what the plan allows: {away}");
        store.outage(false);
        clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(10)).await; // until it is retried
        if ends {
            gate.close().await.unwrap();
            let builder = testing::builder(&plans).store(memory).clock(clock.clone());
            gate = builder.open().await.unwrap();
            acme = gate.tenant("acme").await.unwrap();
        }
        let later = served(&gate, &acme, 10).await;
        assert_eq!(later, if over == "bill" { 10 } else { 0 }, "{over}");
        gate.flush_now().await.unwrap();
        let who = testing::identified(&gate, "acme").await;
        let report = gate.usage_report(&who).await.unwrap();
        let jobs = report.meters.into_iter().find(|meter| &*meter.name == "jobs").unwrap();
        let told = (jobs.used.whole(), jobs.over.whole(), jobs.limits[0].used.whole());
        let used = 95 + away + later;
        assert_eq!(told, (used, used - 100, used), "{over}, ends {ends}");
    }
}

/// A store that is slow for keys with this word.
#[derive(Clone)]
struct SlowAt(Memory, &'static str);

impl SlowAt {
    fn answer<T: Send + 'static>(&self, key: &Key, call: StoreFuture<T>) -> StoreFuture<T> {
        let is_slow = key.sk.contains(self.1) || key.pk.contains(self.1);
        Box::pin(async move {
            let answer = call.await;
            if is_slow {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer
        })
    }
}

impl Store for SlowAt {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.answer(&key.clone(), self.0.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.answer(&write.key.clone(), self.0.write(write))
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    test_support::forward!(0: query, promise);
}

#[tokio::test(start_paused = true)]
async fn what_two_limits_owe_is_billed_once_where_one_of_them_is_read_late() {
    let plans = "default-plan = \"free\"
        [meter.tokens]
        count = \"reported\"
        stripe = { event = \"tokens\", send = \"overage\" }
        [plan.free]
        quota.tokens = [
            { limit = \"6/hour\", over = \"bill\", stop = \"17\" },
            { limit = \"3/day\", over = \"bill\", stop = \"8\" },
        ]";
    for slow in ["tokens/day", "tokens/hour"] {
        let store = SlowAt(Memory::new(), slow);
        let (first, _clock) = testing::gate_with(plans, store.clone());
        assert_eq!(reporting(&first, "ann", "/chat", &[("tokens", 14)]).await, 200);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(used(&first, "tokens").await, (14, 11, vec![14, 14]));
        first.close().await.unwrap();
        let (second, _clock) = testing::gate_with(plans, store);
        assert_eq!(reporting(&second, "ann", "/chat", &[("tokens", 1)]).await, 429);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(used(&second, "tokens").await, (14, 11, vec![14, 14]), "late: {slow}");
    }
}

#[tokio::test(start_paused = true)]
async fn late_use_is_paid_before_what_a_request_gives_back_under_an_edited_plan() {
    let plans = |quota: &str| {
        format!(
            "default-plan = \"free\"\n[meter.tokens]\ncount = \"reported\"\n[meter.jobs]\n\
             [plan.free]\nquota.tokens = \"20/day\"\nquota.jobs = \"{quota}\"\n"
        )
    };
    let file = testing::Plans::new(&plans("5/day"));
    let builder = file.read_by(testing::builder("")).store(SlowAt(Memory::new(), "tokens/day"));
    let gate = builder.open().await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let ask = || gate.admit(Ask::new(&acme, "job").cost("tokens", 12));
    let open = ask().await.unwrap();
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 9)]).await, 200);
    file.set(&plans("6/day"));
    gate.reload().await.unwrap();
    open.cancel();
    assert!(ask().await.is_err(), "9 of 20 were used");
}

#[tokio::test]
async fn what_is_beyond_two_quotas_of_a_user_is_owed_once() {
    let plans = "default-plan = \"free\"
        [meter.tokens]
        count = \"reported\"
        stripe = { event = \"tokens\", send = \"overage\" }
        [plan.free]
        quota.tokens = [
            { limit = \"5/hour per user\", over = \"bill\" },
            { limit = \"10/day per user\", over = \"bill\" },
        ]";
    let (gate, clock) = testing::gate(plans);
    // Reported, and the total debt: the overage of the quota that has less left.
    for (n, owed) in [(4, 0), (4, 3), (8, 11)] {
        assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", n)]).await, 200);
        assert_eq!(used(&gate, "tokens").await.1, owed, "after {n} more");
    }
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 7)]).await, 200);
    assert_eq!(used(&gate, "tokens").await.1, 18, "2 beyond the hour's, all beyond the day's");
    assert_eq!(reporting(&gate, "bob", "/chat", &[("tokens", 6)]).await, 200);
    assert_eq!(used(&gate, "tokens").await.1, 19, "another user has units of its own");
}

#[tokio::test]
async fn what_is_beyond_a_users_quota_is_owed_unless_a_grant_pays_for_it() {
    let sent = "stripe = { event = \"tokens\", send = \"overage\" }";
    let quotas = "[\"4/day\", { limit = \"2/day per user\", over = \"bill\", stop = \"9\" }]";
    let plans = plans(&format!("quota.tokens = {quotas}"));
    let plans = plans.replacen("[meter.tokens]", &format!("[meter.tokens]\n{sent}"), 1);
    // Late usage, and the billed part: the user has 2 of it, and 7 more up to the stop. The
    // tenant's quota pays the first 4, the grant the rest.
    for (n, billed) in [(3, 1), (9, 2), (10, 2)] {
        let (gate, clock) = testing::gate(&plans);
        granted(&gate, &clock, "tokens", 6).await;
        assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", n)]).await, 200);
        assert_eq!(used(&gate, "tokens").await.1, billed, "of {n}");
    }
}

#[tokio::test]
async fn a_user_who_owes_gets_nothing_of_what_a_request_gives_back_beyond_the_quota() {
    let of = "limit = \"10/day per user\", over = \"allow\", stop = \"15\"";
    let plans = plans(&format!("quota.tokens = {{ {of} }}"));
    let held = "count = \"reported\"\nhold = \"2\"";
    let (gate, _clock) = testing::gate(&plans.replacen("count = \"reported\"", held, 1));
    let inner = tower::service_fn(|request: Request<Empty<Bytes>>| async {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        usage.take("tokens", 15).await.unwrap();
        usage.add("tokens", 10);
        assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 4)]).await, 200);
        drop(request);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("answer")))
    });
    let request = Request::get("/chat").header("x-tenant", "acme").header("x-user", "ann");
    let layer = GateLayer::new(&gate).layer(inner);
    layer.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
    // The five that it gives back lie beyond the quota, and four are owed.
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 429, "2 more than 14 of 15");
    assert_eq!(reporting(&gate, "bob", "/chat", &[]).await, 200);
}

#[tokio::test(start_paused = true)]
async fn of_more_requests_than_may_wait_for_a_lease_the_rest_is_answered_at_once() {
    for (enforce, refused) in [("", 5), ("enforce = \"shadow\"", 0)] {
        let store = SlowAt(Memory::new(), "images/day");
        let plans = plans(&format!("{enforce}\nquota.images = \"1M/day\""));
        let (gate, _clock) = testing::gate_with(&plans, store);
        let acme = gate.tenant("acme").await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut asks = tokio::task::JoinSet::new();
        for _ in 0..tallygate::LEASE_WAITERS + 5 {
            let ask = Ask::new(&acme, "work").cost("images", 1);
            let gate = gate.clone();
            asks.spawn(async move { gate.admit(ask).await.map(|permit| permit.settle()).is_ok() });
        }
        for _ in 0..5 {
            let admitted = asks.join_next().await.unwrap().unwrap();
            assert_eq!((admitted, begun.elapsed().as_millis()), (refused == 0, 0), "{enforce}");
        }
        asks.join_next().await.unwrap().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100), "all others wait for the store");
    }
}

/// Two processes on one store.
async fn two_processes(plans: &str) -> [Gate; 2] {
    let (plans, store, clock) = (Plans::new(plans), Memory::new(), Paused::now());
    let open = async || {
        let builder = plans.read_by(testing::builder("")).store(Shared(store.clone()));
        let gate = builder.clock(clock).open().await.unwrap();
        gate.directory().tenant("acme").save().await.unwrap();
        gate
    };
    [open().await, open().await]
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

/// Of ann: what is used of a meter, what of it is billed, and of its limits what is used and owed.
async fn of_ann(gate: &Gate) -> (u64, u64, Vec<(u64, u64)>) {
    let who = testing::identified_by(gate, &[("x-tenant", "acme"), ("x-user", "ann")]).await;
    let report = gate.usage_report(&who).await.unwrap();
    let tokens = report.meters.into_iter().find(|it| &*it.name == "tokens").unwrap();
    let limits = tokens.limits.iter().map(|it| (it.used.whole(), it.debt.whole())).collect();
    (tokens.used.whole(), tokens.over.whole(), limits)
}

const BILLED_BY_USER: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count  = "reported"
    stripe = { event = "tokens", send = "overage" }
    [route.other]
    match  = "GET /other"
    free   = true
    [plan.free]
    quota.tokens = { limit = "100/day per user", over = "bill" }
"#;

#[tokio::test(start_paused = true)]
async fn late_use_beyond_a_users_soft_quota_is_billed_after_a_pause() {
    let [gate, _] = two_processes(BILLED_BY_USER).await;
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 120)]).await, 200);
    seconds(900).await; // nothing of her is in memory any more
    assert_eq!(reporting(&gate, "ann", "/other", &[("tokens", 30)]).await, 200);
    assert_eq!(reporting(&gate, "ann", "/chat", &[("tokens", 1)]).await, 200, "at once");
    assert_eq!(of_ann(&gate).await, (151, 51, vec![(151, 0)]));
    seconds(10).await;
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 200);
}

#[tokio::test(start_paused = true)]
async fn late_use_beyond_a_users_soft_quota_is_billed_whichever_process_learns_of_it() {
    let [one, two] = two_processes(BILLED_BY_USER).await;
    assert_eq!(reporting(&two, "ann", "/chat", &[("tokens", 1)]).await, 200);
    for _ in 0..9 {
        assert_eq!(reporting(&one, "ann", "/chat", &[("tokens", 10)]).await, 200);
    }
    seconds(5).await;
    assert_eq!(reporting(&two, "ann", "/other", &[("tokens", 60)]).await, 200);
    seconds(10).await;
    for _ in 0..5 {
        assert_eq!(reporting(&two, "ann", "/chat", &[]).await, 200);
    }
    let (used, over, limits) = of_ann(&two).await;
    assert!(used == 151 && over >= 51 && limits[0].1 == 0, "{over} of {used}, {limits:?}");
}

#[tokio::test(start_paused = true)]
async fn late_use_of_one_user_keeps_no_other_waiting() {
    let store = SlowAt(Memory::new(), "tokens/day/user");
    let (gate, _clock) = testing::gate_with(&plans("quota.tokens = \"100/day per user\""), store);
    assert_eq!(reporting(&gate, "bob", "/chat", &[("tokens", 1)]).await, 200);
    assert_eq!(reporting(&gate, "ann", "/shown", &[("tokens", 60)]).await, 200);
    let begun = Instant::now();
    assert_eq!(reporting(&gate, "bob", "/chat", &[]).await, 200);
    assert_eq!(begun.elapsed().as_millis(), 0, "before ann's lease has answered");
    assert_eq!(reporting(&gate, "ann", "/chat", &[]).await, 200);
    assert!(begun.elapsed() >= Duration::from_millis(100), "she waits for it");
}

#[tokio::test(start_paused = true)]
async fn what_another_process_gives_back_pays_a_debt_before_the_next_request_is_refused() {
    let plans = "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nquota.jobs = \"200/day\"\n";
    let [one, two] = two_processes(plans).await;
    let work = async |gate: &Gate, n| {
        let acme = gate.tenant("acme").await.unwrap();
        gate.admit(Ask::new(&acme, "job").cost("jobs", n)).await
    };
    let held = work(&two, 100).await.unwrap();
    let mut served = 0;
    while served < 100 {
        for gate in [&one, &two] {
            while let Ok(permit) = work(gate, 1).await {
                permit.settle();
                served += 1;
            }
        }
        seconds(3).await;
    }
    let event = UsageEvent::new("late", "acme", "jobs", 9);
    one.ingest().events(vec![event]).await[0].as_ref().unwrap();
    seconds(30).await;
    assert!(work(&one, 1).await.is_err(), "9 are owed");
    held.cancel();
    two.close().await.unwrap();
    seconds(4).await; // longer than a refusal is believed
    let mut after = 0;
    while let Ok(permit) = work(&one, 1).await {
        permit.settle();
        after += 1;
    }
    assert_eq!(after, 91, "9 of the 100 paid what was owed");
}
