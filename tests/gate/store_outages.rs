//! A store that is away, hangs, is slow, or throttles one tenant's item: which requests wait, for
//! how long, and which do not. In simulated time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::middleware::GateLayer;
use tallygate::store::{
    Item, Key, Memory, Page, Query, Redb, Store, StoreError, StoreErrorKind, StoreFuture, Write,
    Written,
};
use tallygate::{Ask, Gate, ManualClock, testing};
use test_support::bodies::Frames;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

/// The fate of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It takes this long, and then fails.
    Hangs(Duration),
    /// It takes this long.
    Slow(Duration),
    /// It takes this long, and is refused while [`ROOM`] calls are in progress.
    Crowded(Duration),
    /// It is refused at once.
    Throttled,
    Away,
}

/// Limit on concurrent calls to the store.
const ROOM: usize = 4_096;

/// An in-memory store with these fates for calls to partitions with this in their name.
#[derive(Clone)]
struct Odd {
    store: Memory,
    fates: Arc<Mutex<Vec<(String, Fate)>>>,
    calls: Arc<Mutex<u64>>,
    /// Each call in progress holds a reference.
    crowd: Arc<()>,
    /// Whether calls hang forever.
    stalls: Arc<Mutex<bool>>,
}

impl Odd {
    fn new() -> Self {
        let (fates, calls, crowd, stalls) = Default::default();
        Self { store: Memory::new(), fates, calls, crowd, stalls }
    }

    /// Sets the only fate from now on.
    fn only(&self, part: &str, fate: Fate) {
        *self.fates.lock().unwrap() = vec![(part.to_owned(), fate)];
    }

    fn well(&self) {
        self.fates.lock().unwrap().clear();
    }

    fn calls(&self) -> u64 {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn call<T: Send + 'static>(&self, pk: &str, call: StoreFuture<T>) -> StoreFuture<T> {
        *self.calls.lock().unwrap() += 1;
        let fates = self.fates.lock().unwrap();
        let fate = fates.iter().find(|(part, _)| pk.contains(part.as_str())).map(|it| it.1);
        let under_way = self.crowd.clone();
        Box::pin(async move {
            let error = |kind| StoreError::new(kind, "it is odd");
            match fate {
                None => {}
                Some(Fate::Slow(long)) => tokio::time::sleep(long).await,
                Some(Fate::Hangs(long)) => {
                    tokio::time::sleep(long).await;
                    return Err(error(StoreErrorKind::Unavailable));
                }
                Some(Fate::Crowded(_)) if Arc::strong_count(&under_way) > ROOM => {
                    return Err(error(StoreErrorKind::Throttled));
                }
                Some(Fate::Crowded(long)) => tokio::time::sleep(long).await,
                Some(Fate::Throttled) => return Err(error(StoreErrorKind::Throttled)),
                Some(Fate::Away) => return Err(error(StoreErrorKind::Unavailable)),
            }
            call.await
        })
    }
}

impl Store for Odd {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.call(&key.pk.clone(), self.store.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.call(&write.key.pk.clone(), self.store.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.call(&query.pk.clone(), self.store.query(query))
    }

    fn close(&self) -> StoreFuture<()> {
        let stalls = *self.stalls.lock().unwrap();
        Box::pin(async move { if stalls { std::future::pending().await } else { Ok(()) } })
    }

    test_support::forward!(store: expire, promise);
}

fn open(plans: &str) -> (Gate, ManualClock, Odd) {
    let store = Odd::new();
    let (gate, clock) = testing::gate_with(plans, store.clone());
    (gate, clock, store)
}

/// The status of a request of this tenant, and how long it took.
async fn call(gate: &Gate, tenant: &str) -> (u16, Duration) {
    let request = Request::get("/").header("x-tenant", tenant).body(Empty::<Bytes>::new());
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let begun = Instant::now();
    let response = GateLayer::new(gate).layer(inner).oneshot(request.unwrap()).await.unwrap();
    (response.status().as_u16(), begun.elapsed())
}

/// The statuses and times of concurrent requests of these tenants.
async fn at_once(gate: &Gate, tenants: impl Iterator<Item = String>) -> Vec<(u16, Duration)> {
    let mut requests = JoinSet::new();
    for tenant in tenants {
        let gate = gate.clone();
        requests.spawn(async move { call(&gate, &tenant).await });
    }
    requests.join_all().await
}

const HANGS: Fate = Fate::Hangs(Duration::from_millis(6_500));
const WAIT: Duration = Duration::from_millis(260);
/// Every partition.
const ALL: &str = "#";

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/day"
"#;

#[tokio::test(start_paused = true)]
async fn once_the_store_is_known_to_be_away_nobody_waits_for_it() {
    for fate in [Fate::Away, HANGS] {
        let (gate, _clock, store) = open(PLANS);
        for tenant in ["acme", "other"] {
            assert_eq!(call(&gate, tenant).await.0, 200);
        }
        store.only(ALL, fate);
        while call(&gate, "acme").await.0 == 200 {}
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Both for cached tenants and for one that is not.
        while call(&gate, "other").await.0 == 200 {}
        let begun = Instant::now();
        for tenant in ["acme", "other", "unheard-of"] {
            for _ in 0..300 {
                assert_eq!(call(&gate, tenant).await.0, 503, "{tenant}");
            }
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(300), "{fate:?}: {took:?} for 900 requests");
        // And it is retried: callers after its return are served.
        store.well();
        tokio::time::sleep(Duration::from_secs(8)).await;
        for tenant in ["acme", "other", "unheard-of"] {
            assert_eq!(call(&gate, tenant).await.0, 200, "{tenant}");
        }
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn looks_at_usage_do_not_wait_for_a_store_that_is_known_to_be_away() {
    let (gate, clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    let who = testing::identified(&gate, "acme").await;
    clock.advance(Duration::from_secs(5));
    store.only(ALL, HANGS);
    // The first finds out.
    assert_eq!(gate.usage_reply(&who, None).await.status, 503);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(gate.usage_reply(&who, None).await.status, 503);
        assert_eq!(gate.history_reply(&who, "meter=requests").await.status, 503);
    }
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    store.well();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(gate.usage_reply(&who, None).await.status, 200);
    assert_eq!(gate.history_reply(&who, "meter=requests").await.status, 200);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_store_is_looked_for_by_one_call_at_a_time() {
    let (gate, _clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only(ALL, Fate::Away);
    while call(&gate, "acme").await.0 == 200 {}
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.calls();
    for _ in 0..1_000 {
        call(&gate, "acme").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let calls = store.calls();
    assert!(calls <= 40, "{calls} calls in 10 s, for 1,000 requests");
}

/// Each call takes longer than a healthy store's, and is answered.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_is_not_taken_for_one_that_is_away() {
    for latency_ms in [210, 300, 450] {
        let (gate, _clock, store) = open(PLANS);
        for tenant in ["acme", "new-0", "new-1", "new-2"] {
            gate.directory().tenant(tenant).note("made before").save().await.unwrap();
        }
        assert_eq!(call(&gate, "acme").await.0, 200);
        store.only(ALL, Fate::Slow(Duration::from_millis(latency_ms)));
        let mut refused = 0;
        for _ in 0..200 {
            refused += usize::from(call(&gate, "acme").await.0 != 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(refused <= 10, "{refused} of 200, calls take {latency_ms} ms");
        for n in 0..3 {
            // Its first request may be refused while its first lease is on the way.
            call(&gate, &format!("new-{n}")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (status, took) = call(&gate, &format!("new-{n}")).await;
            assert_eq!(status, 200, "new-{n} after {took:?}, calls take {latency_ms} ms");
        }
        // Whether it is away is still found out, and that it is back.
        store.only(ALL, HANGS);
        call(&gate, "unheard-of").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (status, took) = call(&gate, "unheard-of").await;
        assert!(status == 503 && took < Duration::from_millis(1), "{status} after {took:?}");
        store.well();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(call(&gate, "unheard-of").await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn with_units_allowed_meanwhile_they_are_had_at_once() {
    let plans = PLANS.replace("[plan.free]", "[plan.free]\non-lease-error = { allow = \"50%\" }");
    let (gate, _clock, store) = open(&plans);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only(ALL, HANGS);
    for _ in 0..20 {
        call(&gate, "acme").await;
    }
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(call(&gate, "acme").await.0, 200);
    }
    assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_items_are_throttled_or_hang_is_alone_with_that() {
    for fate in [Fate::Throttled, HANGS] {
        let (gate, _clock, store) = open(PLANS);
        for tenant in ["acme", "other"] {
            assert_eq!(call(&gate, tenant).await.0, 200);
        }
        let acme = gate.directory().find("acme").await.unwrap().unwrap();
        store.only(&format!("Q#{}", acme.record().surrogate), fate);
        for _ in 0..50 {
            call(&gate, "acme").await;
        }
        for n in 0..20 {
            assert_eq!(call(&gate, "other").await.0, 200);
            let (status, took) = call(&gate, &format!("new-{n}")).await;
            assert_eq!(status, 200, "{fate:?}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_in_memory_is_served_as_last_known_while_the_store_hangs() {
    let plans = "default-plan = \"free\"\n[plan.free]\nrate.default = \"1000/s\"";
    let (gate, clock, store) = open(plans);
    for n in 0..5 {
        assert_eq!(call(&gate, &format!("t{n}")).await.0, 200);
    }
    store.only(ALL, HANGS);
    for minute in 0..5 {
        // Past the age at which callers are looked up again.
        clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(60)).await;
        for n in 0..5 {
            let (status, took) = call(&gate, &format!("t{n}")).await;
            assert!(status == 200 && took <= WAIT, "minute {minute}, t{n}: {status}, {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_under_load_refuses_nobody() {
    let (gate, _clock, store) = open(PLANS);
    for n in 0..600 {
        gate.directory().tenant(&format!("t{n}")).note("made before").save().await.unwrap();
    }
    store.only(ALL, Fate::Slow(Duration::from_millis(10)));
    let all = at_once(&gate, (0..600).map(|n| format!("t{n}"))).await;
    let refused = all.iter().filter(|it| it.0 != 200).count();
    assert_eq!(refused, 0, "of 600 from a store that answers in 10 ms");
}

/// Ten thousand users of one tenant come at once, each for the first time.
#[tokio::test(start_paused = true)]
async fn first_requests_of_one_tenant_do_not_keep_those_of_others_waiting() {
    let (gate, _clock, store) = open(PLANS);
    store.only(ALL, Fate::Slow(Duration::from_millis(50)));
    let mut flood = JoinSet::new();
    for n in 0..10_000 {
        let gate = gate.clone();
        flood.spawn(async move {
            let user = format!("user-{n}");
            let headers = [("x-tenant", "acme"), ("x-user", &*user)];
            let request = headers.iter().fold(Request::get("/"), |it, (k, v)| it.header(*k, *v));
            let inner = tower::service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
            });
            let service = GateLayer::new(&gate).layer(inner);
            service.oneshot(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap().status()
        });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    for n in 0..5 {
        let (status, took) = call(&gate, &format!("other-{n}")).await;
        assert!(status == 200 && took < Duration::from_secs(2), "{n}: {status} after {took:?}");
    }
    flood.abort_all();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_ran_ahead_for_a_minute_gives_no_quota_twice() {
    let plans = "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nquota.jobs = \"100/hour\"";
    let (gate, clock, _store) = open(plans);
    let tenant = gate.tenant("acme").await.unwrap();
    let day = Duration::from_secs(86_400);
    // It has run for a while with the correct time.
    for _ in 0..4 {
        clock.advance(Duration::from_secs(3_600));
        tokio::time::sleep(Duration::from_secs(31)).await;
    }
    let job = async || {
        let ask = Ask::new(&tenant, "job").cost("jobs", 1);
        gate.admit(ask).await.map(|it| it.settle()).is_ok()
    };
    let mut served = 0;
    for _ in 0..80 {
        served += usize::from(job().await);
    }
    gate.flush_now().await.unwrap();
    let ahead_ms = i64::try_from(100 * day.as_millis()).unwrap();
    clock.step_wall(ahead_ms);
    for _ in 0..3 {
        clock.advance(Duration::from_secs(25));
        assert!(job().await);
        tokio::time::sleep(Duration::from_secs(31)).await;
    }
    clock.step_wall(-ahead_ms);
    for _ in 0..100 {
        served += usize::from(job().await);
        clock.advance(Duration::from_millis(100));
    }
    assert!(served <= 100, "{served} of 100 an hour");
}

#[tokio::test(start_paused = true)]
async fn shadow_refuses_nobody_whatever_the_store_does() {
    let plans = PLANS.replace("[plan.free]", "[plan.free]\nenforce = \"shadow\"");
    let (gate, _clock, store) = open(&plans);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only("#Q#", HANGS);
    let all = at_once(&gate, (0..3_000).map(|_| "acme".to_owned())).await;
    let refused = all.iter().filter(|it| it.0 != 200).count();
    assert_eq!(refused, 0, "of 3,000 at once while no units are to be had");
}

#[tokio::test(start_paused = true)]
async fn shadow_lets_through_whatever_is_refused_but_tenants_that_are_suspended() {
    let plans = r#"
        default-plan = "free"
        [meter.upload]
        count = "request-bytes"
        [route.upload]
        match   = "POST /upload/{id}"
        once-by = "idempotency-key"
        [plan.free]
        enforce = "shadow"
        expires = "1d"
        quota.upload = "1MB/day"
        [billing]
        unpaid = "payment-required"
    "#;
    let (gate, clock) = testing::gate(plans);
    let send = async |path: &str, key: &str| {
        let request = Request::post(path).header("x-tenant", "acme");
        let request = request.header("idempotency-key", key).body(Frames::of(0, 0)).unwrap();
        let inner = tower::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(send("/upload/1", "one").await, 200, "its length is not stated");
    assert_eq!(send("/upload/2", "one").await, 200, "a key that was used");
    clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(send("/upload/1", "two").await, 200, "the trial is over");
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    let unpaid = tallygate::directory::PaymentState::Unpaid;
    acme.edit().payment(unpaid).note("-").save().await.unwrap();
    assert_eq!(send("/upload/1", "three").await, 200, "it does not pay");
    acme.suspend("abuse").await.unwrap();
    assert_eq!(send("/upload/1", "four").await, 403, "an operator has suspended it");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_looks_at_usage_in_a_second_are_a_dozen_calls() {
    let (gate, clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    let who = testing::identified(&gate, "acme").await;
    clock.advance(Duration::from_secs(5));
    // First all at once, then over a second.
    store.only(ALL, Fate::Slow(Duration::from_millis(5)));
    store.calls();
    let mut looks = JoinSet::new();
    for n in 0..1_000u64 {
        let (gate, who, clock) = (gate.clone(), who.clone(), clock.clone());
        looks.spawn(async move {
            if n >= 500 {
                tokio::time::sleep(Duration::from_millis(n * 2 - 1_000)).await;
                clock.advance(Duration::from_millis(2));
            }
            gate.usage_reply(&who, None).await.status
        });
    }
    let statuses = looks.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200));
    let calls = store.calls();
    assert!(calls <= 12, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn usage_of_one_tenant_never_waits_for_that_of_another() {
    let (gate, clock, store) = open(PLANS);
    for tenant in ["acme", "other"] {
        gate.directory().tenant(tenant).note("made before").save().await.unwrap();
        assert_eq!(call(&gate, tenant).await.0, 200);
    }
    let (acme, other) =
        (testing::identified(&gate, "acme").await, testing::identified(&gate, "other").await);
    clock.advance(Duration::from_secs(5));
    // It has many claims.
    store.only("K#", Fate::Slow(Duration::from_secs(3)));
    let begun = Instant::now();
    let slow = {
        let (gate, acme) = (gate.clone(), acme.clone());
        tokio::spawn(async move { gate.usage_reply(&acme, None).await.status })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    store.well();
    assert_eq!(gate.usage_reply(&other, None).await.status, 200);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(slow.await.unwrap(), 200);
}

const KEYED: &str = r#"
    default-plan = "free"
    [route.pay]
    match   = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    rate.default = "1000000/s"
"#;

/// The status of a request with an idempotency key, whose handler waits for `lets`.
async fn keyed(gate: &Gate, tenant: &str, key: u32, lets: Arc<Semaphore>) -> u16 {
    let request = Request::post("/pay").header("x-tenant", tenant);
    let request = request.header("idempotency-key", key).body(Empty::<Bytes>::new());
    let inner = tower::service_fn(|_| async {
        lets.acquire().await.unwrap().forget();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let response = GateLayer::new(gate).layer(inner).oneshot(request.unwrap()).await.unwrap();
    response.status().as_u16()
}

fn keyed_flood(gate: &Gate, n: u32, lets: &Arc<Semaphore>) -> JoinSet<u16> {
    let mut flood = JoinSet::new();
    for key in 1..=n {
        let (gate, lets) = (gate.clone(), lets.clone());
        flood.spawn(async move { keyed(&gate, "acme", key, lets).await });
    }
    flood
}

#[tokio::test(start_paused = true)]
async fn thousands_of_keyed_requests_of_one_tenant_keep_no_other_out() {
    let (gate, _clock, store) = open(KEYED);
    let lets = Arc::new(Semaphore::new(100_000));
    assert_eq!(keyed(&gate, "acme", 0, lets.clone()).await, 200);
    store.only(ALL, Fate::Crowded(Duration::from_millis(50)));
    let flood = keyed_flood(&gate, 6_000, &lets);
    tokio::time::sleep(Duration::from_millis(1)).await;
    for n in 0..5 {
        let other = format!("other-{n}");
        assert_eq!(call(&gate, &other).await.0, 200, "{n}, unheard of");
        assert_eq!(keyed(&gate, &other, n, lets.clone()).await, 200, "{n}, with a key");
    }
    drop(flood);
}

#[tokio::test(start_paused = true)]
async fn claims_of_one_tenant_that_cannot_be_settled_keep_no_other_waiting() {
    for fate in [Fate::Throttled, HANGS] {
        let (gate, _clock, store) = open(KEYED);
        let (lets, many) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1_000)));
        for tenant in ["acme", "other"] {
            assert_eq!(keyed(&gate, tenant, 0, many.clone()).await, 200);
        }
        let acme = gate.directory().find("acme").await.unwrap().unwrap();
        let flood = keyed_flood(&gate, 600, &lets);
        tokio::time::sleep(Duration::from_millis(100)).await;
        store.only(&format!("K#{}", acme.record().surrogate), fate);
        lets.add_permits(600);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let other = keyed(&gate, "other", 1, many);
        let other = tokio::time::timeout(Duration::from_millis(50), other).await;
        assert_eq!(other, Ok(200), "{fate:?}");
        store.well();
        assert!(flood.join_all().await.iter().all(|status| *status == 200), "{fate:?}");
    }
}

/// Closes within the two seconds it was given.
async fn closes_in_time(gate: &Gate) {
    let close = gate.close_within(Duration::from_secs(2));
    let closed = tokio::time::timeout(Duration::from_millis(2_100), close).await;
    assert!(closed.expect("it keeps its deadline").is_err(), "it says that something is left");
}

#[tokio::test(start_paused = true)]
async fn closing_keeps_its_deadline_while_a_flush_is_not_answered() {
    let (gate, _clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only(ALL, Fate::Hangs(Duration::from_secs(86_400)));
    let mut flushes = JoinSet::new();
    for _ in 0..200 {
        let gate = gate.clone();
        flushes.spawn(async move { gate.flush_now().await.is_err() });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    closes_in_time(&gate).await;
    assert!(flushes.join_all().await.iter().all(|is_told| *is_told));
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_closed_from_two_places_is_closed_once() {
    let (gate, _clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only(ALL, Fate::Slow(Duration::from_millis(20)));
    let close = async |gate: &Gate| (gate.close().await, Instant::now());
    let (one, other) = tokio::join!(close(&gate), close(&gate));
    one.0.unwrap();
    other.0.unwrap();
    assert!(other.1.max(one.1) - other.1.min(one.1) < Duration::from_millis(2), "one was early");
    gate.close().await.unwrap();
    store.well();
    let (next, _clock) = testing::gate_with(PLANS, store);
    let who = testing::identified(&next, "acme").await;
    assert_eq!(next.usage_report(&who).await.unwrap().meters[0].used, 1);
}

/// The other place has more time.
#[tokio::test(start_paused = true)]
async fn closing_keeps_its_deadline_while_another_place_closes_the_gate() {
    let (gate, _clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    store.only(ALL, HANGS);
    let other = gate.clone();
    let other = tokio::spawn(async move { other.close_within(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    assert!(gate.close_within(Duration::from_secs(1)).await.is_err());
    assert!(begun.elapsed() <= Duration::from_millis(2_100), "{:?}", begun.elapsed());
    store.well();
    other.await.unwrap().unwrap();
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_keeps_its_deadline_though_the_store_never_lets_go() {
    let (gate, _clock, store) = open(PLANS);
    assert_eq!(call(&gate, "acme").await.0, 200);
    *store.stalls.lock().unwrap() = true;
    closes_in_time(&gate).await;
}

/// In real time, because the file has threads of its own.
#[tokio::test]
async fn when_the_store_file_is_removed_leases_are_served_and_then_what_the_plan_says() {
    for (says, beyond) in [("", 0), ("on-lease-error = { allow = \"50%\" }", 500)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("store.redb"), folder.path().join("kept"));
        let plans = PLANS.replace("[plan.free]", &format!("[plan.free]\n{says}"));
        let open = async || {
            let builder = testing::builder(&plans).store(Redb::open(&path).unwrap());
            builder.clock(ManualClock::at_unix_ms(testing::START_MS)).open().await.unwrap()
        };
        let gate = open().await;
        assert_eq!(call(&gate, "acme").await.0, 200);
        tokio::time::sleep(Duration::from_millis(300)).await; // no lease is on its way
        std::fs::rename(&path, &kept).unwrap();
        let mut served = 1;
        while call(&gate, "acme").await.0 == 200 {
            served += 1;
        }
        let leased = served - beyond;
        println!("{leased} of a lease");
        assert!((2..500).contains(&leased), "{served} were served, {beyond} of them beyond");
        for _ in 0..50 {
            assert_eq!(call(&gate, "acme").await.0, 503);
        }
        std::fs::rename(&kept, &path).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(call(&gate, "acme").await.0, 200, "it is back");
        gate.close().await.unwrap();
        let gate = open().await;
        let who = testing::identified(&gate, "acme").await;
        let used = gate.usage_report(&who).await.unwrap().meters[0].used;
        assert_eq!(used, served + 1, "nothing that was answered is lost");
        gate.close().await.unwrap();
    }
}
