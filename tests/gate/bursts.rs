//! Thousands of first requests at once, on a gate that knows no caller yet and a store that works:
//! all are served, however long the line is and however busy the process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::middleware::GateLayer;
use tallygate::store::{Item, Key, Memory, Page, Query, Store, StoreFuture, Write, Written};
use tallygate::{Gate, ManualClock, testing};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

const BURST: usize = 2_500;

const PLANS: &str = r#"
    default-plan = "free"
    [route.pay]
    match   = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    quota.requests = "100000/day"
"#;

/// A store in memory that takes a while for each call, and never answers those to one partition.
#[derive(Clone)]
struct Distant {
    store: Memory,
    latency: Duration,
    silent: Arc<Mutex<Option<String>>>,
}

impl Distant {
    fn by(latency_ms: u64) -> Self {
        let latency = Duration::from_millis(latency_ms);
        Self { store: Memory::new(), latency, silent: Arc::default() }
    }

    fn after<T: Send + 'static>(&self, pk: &str, call: StoreFuture<T>) -> StoreFuture<T> {
        let latency = self.latency;
        let is_silent = self.silent.lock().unwrap().as_ref().is_some_and(|it| pk.contains(it));
        Box::pin(async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(latency).await;
            call.await
        })
    }
}

impl Store for Distant {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.after(&key.pk.clone(), self.store.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.after(&write.key.pk.clone(), self.store.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.after(&query.pk.clone(), self.store.query(query))
    }

    test_support::forward!(store: expire, promise, close);
}

async fn open(store: &Distant) -> Gate {
    let builder = testing::builder(PLANS).store(store.clone());
    builder.clock(ManualClock::at_unix_ms(testing::START_MS)).open().await.unwrap()
}

async fn send(gate: &Gate, request: http::request::Builder) -> u16 {
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let service = GateLayer::new(gate).layer(inner);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    service.oneshot(request).await.unwrap().status().as_u16()
}

fn call(tenant: &str) -> http::request::Builder {
    Request::get("/").header("x-tenant", tenant)
}

/// How many of a burst were not answered with 200.
async fn refused(gate: &Gate, request: impl Fn(usize) -> http::request::Builder) -> usize {
    let mut burst = JoinSet::new();
    for n in 0..BURST {
        let (gate, request) = (gate.clone(), request(n));
        burst.spawn(async move { send(&gate, request).await });
    }
    burst.join_all().await.into_iter().filter(|status| *status != 200).count()
}

#[tokio::test(start_paused = true)]
async fn first_requests_of_thousands_of_tenants_at_once_are_all_served() {
    for latency_ms in [1, 5, 20] {
        let gate = open(&Distant::by(latency_ms)).await;
        let refused = refused(&gate, |n| call(&format!("t{n}"))).await;
        assert_eq!(refused, 0, "of {BURST}, from a store that answers in {latency_ms} ms");
    }
}

/// In real time: a process that is this busy notices answers and timers late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_requests_of_thousands_of_tenants_are_served_by_a_busy_process() {
    let gate = open(&Distant::by(3)).await;
    assert_eq!(refused(&gate, |n| call(&format!("t{n}"))).await, 0, "of {BURST}");
}

/// The same of one tenant, in one process and with many users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_first_requests_of_one_tenant_are_all_served() {
    for latency_ms in [1, 3, 10] {
        for users in [1, BURST] {
            let gate = open(&Distant::by(latency_ms)).await;
            let by_user = |n: usize| call("acme").header("x-user", format!("u{}", n % users));
            assert_eq!(refused(&gate, by_user).await, 0, "{users} users, {latency_ms} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_keyed_requests_of_one_tenant_at_once_are_all_served() {
    for latency_ms in [1, 10, 20] {
        let gate = open(&Distant::by(latency_ms)).await;
        let pay = |n: usize| {
            let request = Request::post("/pay").header("x-tenant", "acme");
            request.header("idempotency-key", format!("k{n}"))
        };
        assert_eq!(refused(&gate, pay).await, 0, "of {BURST}, {latency_ms} ms");
    }
}

/// The line of a burst moves, and the one tenant's pool does not answer: that is its own.
#[tokio::test(start_paused = true)]
async fn a_tenant_whose_pool_is_silent_waits_no_longer_because_others_are_served() {
    let store = Distant::by(20);
    let gate = open(&store).await;
    gate.directory().tenant("acme").note("made before").save().await.unwrap();
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    *store.silent.lock().unwrap() = Some(format!("Q#{}", acme.record().surrogate));
    let others = {
        let gate = gate.clone();
        tokio::spawn(async move { refused(&gate, |n| call(&format!("t{n}"))).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(send(&gate, call("acme")).await, 503);
        waits.push(begun.elapsed());
    }
    // The first was looked up as well.
    let longest = waits[1..].iter().max().unwrap();
    assert!(*longest <= Duration::from_millis(260), "{waits:?}");
    assert_eq!(others.await.unwrap(), 0, "of {BURST} others");
}
