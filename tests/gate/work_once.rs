//! Work with an id (`Ask::once`): charged once, over nodes that share a store, restarts and deaths.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tallygate::directory::Grant;
use tallygate::middleware::GateLayer;
use tallygate::store::{Key, Memory, Query, Store, StoreFuture, Write, Written};
use tallygate::testing::{self, Faulty};
use tallygate::{
    Admitted, Ask, Clock, Gate, GateBuilder, Identified, ManualClock, Permit, Reason, Refusal,
};
use test_support::gates::meter;
use test_support::lives::copy_at_one_moment;
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.tokens]
    count = "reported"
    [route.deliver]
    match   = "POST /deliver"
    once-by = "idempotency-key"
    cost    = { requests = 1, pages = 2 }
    [route.answer]
    match   = "POST /answer"
    once-by = "idempotency-key"
    [plan.free]
    quota.requests = { limit = "3/cycle", over = "allow" }
    quota.pages    = { limit = "5/cycle", over = "allow" }
    quota.tokens   = { limit = "90/cycle", over = "allow" }
"#;

const HARD: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.tokens]
    count = "reported"
    [plan.free]
    quota.pages  = "10/day"
    quota.tokens = "100/day"
"#;

/// A store, its clock, and gates on it.
struct World {
    plans: String,
    store: Memory,
    clock: ManualClock,
}

impl World {
    fn new(plans: &str) -> Self {
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        Self { plans: plans.to_owned(), store: Memory::new(), clock }
    }

    async fn gate(&self) -> Gate {
        let builder = testing::builder(&self.plans).store(self.store.clone());
        builder.clock(self.clock.clone()).open().await.unwrap()
    }

    /// Used units of a meter on record and in memory, as this gate sees them, and those held.
    async fn used(&self, gate: &Gate, meter: &str) -> (u64, u64) {
        gate.flush_now().await.unwrap();
        self.clock.advance(Duration::from_secs(2)); // past the age of a cached reading
        let who = testing::identified_by(gate, &[("x-tenant", "acme")]).await;
        let report = gate.usage_report(&who).await.unwrap();
        let meter = report.meters.iter().find(|of| &*of.name == meter).unwrap();
        (meter.used.whole(), meter.held.whole())
    }

    async fn claims(&self) -> usize {
        let all = Query { pk: "1#default#K#".into(), from: String::new(), until: None, limit: 10 };
        self.store.query(all).await.unwrap().items.len()
    }
}

/// Ten pages under this id.
async fn pages(gate: &Gate, id: &str) -> Result<Permit, Refusal> {
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "deliver").cost("pages", 10).once(id)).await
}

#[tokio::test(start_paused = true)]
async fn work_with_an_id_is_charged_once_over_gates_restarts_and_deaths() {
    let world = World::new(HARD);
    let (one, two) = (world.gate().await, world.gate().await);
    let first = pages(&one, "job").await.unwrap();
    assert!(!first.is_repeat());
    first.settle();
    one.flush_now().await.unwrap();
    for gate in [&two, &one, &two, &one, &two, &one, &two, &one] {
        let again = pages(gate, "job").await.unwrap();
        assert!(again.is_repeat(), "however often it comes");
        again.settle();
    }
    assert_eq!(world.used(&one, "pages").await, (10, 0));
    drop((one, two)); // no `close`: they died

    let third = world.gate().await;
    let again = pages(&third, "job").await.unwrap();
    assert!(again.is_repeat());
    again.settle();
    assert_eq!(world.used(&third, "pages").await, (10, 0));
    third.close().await.unwrap();
    let fourth = world.gate().await;
    assert!(pages(&fourth, "job").await.unwrap().is_repeat());
    fourth.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_two_that_do_the_same_work_the_first_to_settle_is_charged() {
    let world = World::new(&HARD.replace("10/day", "100/day"));
    let (one, two) = (world.gate().await, world.gate().await);
    let (slow, fast) = (pages(&one, "job").await.unwrap(), pages(&two, "job").await.unwrap());
    assert_eq!((slow.is_repeat(), fast.is_repeat()), (false, false));
    fast.settle_with("pages", 7);
    two.flush_now().await.unwrap();
    slow.settle();
    assert_eq!(world.used(&one, "pages").await, (7, 0));
    assert_eq!(world.used(&two, "pages").await, (7, 0));
    for gate in [one, two] {
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn work_that_was_not_charged_is_new() {
    let world = World::new(&HARD.replace("10/day", "100/day"));
    let dead = world.gate().await;
    std::mem::forget(pages(&dead, "job").await.unwrap()); // its process dies meanwhile
    let gate = world.gate().await;
    for _ in 0..4 {
        pages(&gate, "job").await.unwrap().cancel();
        drop(pages(&gate, "job").await.unwrap());
    }
    assert_eq!(world.used(&gate, "pages").await, (0, 0));
    let last = pages(&gate, "job").await.unwrap();
    assert!(!last.is_repeat());
    last.settle();
    gate.flush_now().await.unwrap();
    let again = pages(&gate, "job").await.unwrap();
    assert!(again.is_repeat(), "nine attempts that were not charged are no repeats");
    again.cancel();
    assert_eq!(world.used(&gate, "pages").await, (10, 0), "a repeat that fails gives nothing back");
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_admitted_though_nothing_is_left_to_its_tenant() {
    for prepaid in [false, true] {
        let world = World::new(&match prepaid {
            true => HARD.replace("10/day", "prepaid"),
            false => HARD.to_owned(),
        });
        let gate = world.gate().await;
        if prepaid {
            gate.directory().tenant("acme").save().await.unwrap();
            let grant = Grant::new("g1", "pages", 10);
            gate.directory().tenant("acme").grant(grant).save().await.unwrap();
        }
        pages(&gate, "job").await.unwrap().settle();
        gate.flush_now().await.unwrap();
        for _ in 0..7 {
            let again = pages(&gate, "job").await.unwrap();
            assert!(again.is_repeat());
            again.settle();
            let refusal = pages(&gate, "other").await.unwrap_err();
            assert!(refusal.limit.is_some(), "{refusal}");
        }
        assert_eq!(world.used(&gate, "pages").await, (10, 0));
        assert_eq!(world.claims().await, 1, "the tenant's: what is refused leaves none");
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_with_nothing_left_is_under_its_rates_and_concurrency() {
    let limits = "rate.default = \"3/min\"\nconcurrency = 1\nquota.pages";
    let world = World::new(&HARD.replace("quota.pages", limits));
    let gate = world.gate().await;
    let acme = gate.tenant("acme").await.unwrap();
    pages(&gate, "job").await.unwrap().settle();
    gate.flush_now().await.unwrap();
    let again = pages(&gate, "job").await.unwrap();
    assert_eq!(acme.in_flight(), Some(1));
    assert_eq!(pages(&gate, "job").await.unwrap_err().reason, Reason::Concurrency);
    again.settle();
    pages(&gate, "job").await.unwrap().settle();
    assert_eq!(acme.in_flight(), Some(0));
    let over_rate = pages(&gate, "job").await.unwrap_err();
    assert_eq!(&*over_rate.limit.unwrap().name, "default");
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_repeat_comes_to_is_free_up_to_what_was_charged() {
    let world = World::new(HARD);
    let gate = world.gate().await;
    let acme = gate.tenant("acme").await.unwrap();
    let ask = || Ask::new(&acme, "answer").cost("tokens", 90).cost("pages", 1).once("a");
    gate.admit(ask()).await.unwrap().settle_with("tokens", 60);
    assert_eq!(world.used(&gate, "tokens").await, (60, 0), "the true amount");
    gate.admit(Ask::new(&acme, "answer").cost("tokens", 40)).await.unwrap().settle();
    for _ in 0..2 {
        let again = gate.admit(ask()).await.unwrap(); // no tokens are left
        assert!(again.is_repeat());
        let usage = again.usage();
        usage.take("tokens", 60).await.unwrap();
        assert!(usage.take("tokens", 1).await.is_err(), "there are none to pay for more");
        again.settle_with("tokens", 80);
    }
    assert_eq!(world.used(&gate, "tokens").await, (100, 0));
    assert_eq!(world.used(&gate, "pages").await, (1, 0));
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ids_are_of_one_tenant_and_operation_and_no_requests() {
    let world = World::new(PLANS);
    let gate = world.gate().await;
    let (acme, bolt) = (gate.tenant("acme").await.unwrap(), gate.tenant("bolt").await.unwrap());
    let asks = [
        Ask::new(&acme, "deliver").once("k"),
        Ask::new(&acme, "answer").once("k"),
        Ask::new(&acme, "answer").once("l"),
        Ask::new(&acme, "answer").once(""), // none, as an empty header is
        Ask::new(&acme, "answer").once(""),
        Ask::new(&bolt, "answer").once("k"),
    ];
    for ask in asks {
        let permit = gate.admit(ask).await.unwrap();
        assert!(!permit.is_repeat());
        permit.settle();
    }
    assert_eq!(by_request(&gate, "deliver", "k", Some(0)).await, 200, "no conflict");
    assert_eq!(world.used(&gate, "requests").await, (6, 0));
    assert!(gate.try_admit_now(&Ask::new(&acme, "answer").once("m")).is_none(), "it has to wait");
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_its_store_work_with_an_id_is_refused_for_a_moment_unless_the_plan_allows_it() {
    for (allow, expected) in [("", None), ("on-lease-error = { allow = \"50%\" }\n", Some(2))] {
        let world = World::new(&HARD.replace("quota.pages", &format!("{allow}quota.pages")));
        let faulty = Faulty::scripted(world.store.clone(), []);
        let builder = testing::builder(&world.plans).store(faulty.clone());
        let gate = builder.clock(world.clock.clone()).open().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let ask = || Ask::new(&acme, "deliver").cost("pages", 1).once("job");
        gate.admit(Ask::new(&acme, "deliver").cost("pages", 1)).await.unwrap().cancel();
        faulty.outage(true);
        for _ in 0..2 {
            match gate.admit(ask()).await {
                Ok(permit) => permit.settle(),
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::Unavailable);
                    assert!(refusal.retry_after.is_some());
                    assert_eq!(expected, None);
                }
            }
        }
        faulty.outage(false);
        gate.close().await.unwrap();
        let next = world.gate().await;
        let used = world.used(&next, "pages").await.0;
        assert_eq!(used, expected.unwrap_or(0), "charged as without an id");
        next.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_says_whether_settled_work_is_on_record() {
    let world = World::new(HARD);
    let faulty = Faulty::scripted(world.store.clone(), []);
    let builder = testing::builder(&world.plans).store(faulty.clone());
    let gate = builder.clock(world.clock.clone()).open().await.unwrap();
    let permit = pages(&gate, "job").await.unwrap();
    faulty.outage(true);
    permit.settle();
    for _ in 0..2 {
        gate.flush_now().await.unwrap_err();
    }
    faulty.outage(false);
    gate.flush_now().await.unwrap();
    drop(gate); // no `close`
    let next = world.gate().await;
    assert!(pages(&next, "job").await.unwrap().is_repeat());
    assert_eq!(world.used(&next, "pages").await, (10, 0));
    next.close().await.unwrap();
}

/// A keyed request whose handler uses so many tokens, or fails. Returns the status.
async fn by_request(gate: &Gate, op: &str, key: &str, tokens: Option<u64>) -> u16 {
    let request = Request::post(format!("/{op}")).header("x-tenant", "acme");
    let request = request.header("idempotency-key", key).body(Empty::<Bytes>::new()).unwrap();
    let handler = tower::service_fn(move |request: Request<Empty<Bytes>>| async move {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        usage.add("tokens", tokens.unwrap_or(0));
        let status = if tokens.is_some() { 200 } else { 500 };
        let response = Response::builder().status(status).body(Full::<Bytes>::from("ok"));
        Ok::<_, Infallible>(response.unwrap())
    });
    let response = GateLayer::new(gate).layer(handler).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

/// The same as work.
async fn by_work(gate: &Gate, op: &str, id: &str, tokens: Option<u64>) {
    let acme = gate.tenant("acme").await.unwrap();
    let permit = gate.admit(Ask::new(&acme, op).once(id)).await.unwrap();
    match tokens {
        Some(tokens) => permit.settle_with("tokens", tokens),
        None => drop(permit),
    }
    gate.flush_now().await.unwrap(); // a request is answered once its claim is settled
}

/// One attempt: at which of two gates, at what, under which key, and what it comes to.
fn attempt() -> impl Strategy<Value = (usize, &'static str, &'static str, Option<u64>)> {
    let op = prop::sample::select(vec!["deliver", "answer"]);
    let key = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    (0usize..2, op, key, prop::option::weighted(0.8, 0u64..100))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Up to the five repeats that a client has, and where no quota refuses the first attempt.
    #[test]
    fn work_with_an_id_is_charged_as_a_request_with_a_key_is(
        attempts in prop::collection::vec(attempt(), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (requests, works) = (World::new(PLANS), World::new(PLANS));
            let at_requests = [requests.gate().await, requests.gate().await];
            let at_works = [works.gate().await, works.gate().await];
            let mut came = std::collections::HashMap::new();
            for (node, op, key, tokens) in attempts {
                let key = format!("{op}-{key}"); // a client's key is of one path
                let n = came.entry(key.clone()).or_insert(0);
                *n += 1;
                if *n > 6 {
                    continue;
                }
                by_request(&at_requests[node], op, &key, tokens).await;
                by_work(&at_works[node], op, &key, tokens).await;
            }
            for meter in ["requests", "pages", "tokens"] {
                for node in 0..2 {
                    let asked = requests.used(&at_requests[node], meter).await;
                    let worked = works.used(&at_works[node], meter).await;
                    assert_eq!(asked, worked, "{meter}");
                }
            }
        });
    }
}

/// A store that is slow to write claims, and nothing else.
#[derive(Clone, Default)]
struct LateClaims {
    store: Memory,
    is_late: Arc<AtomicBool>,
}

impl Store for LateClaims {
    fn write(&self, write: Write) -> StoreFuture<Written> {
        let Key { pk, .. } = &write.key;
        let is_late = pk.contains("#K#") && self.is_late.load(Ordering::Relaxed);
        let written = self.store.write(write);
        Box::pin(async move {
            if is_late {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            written.await
        })
    }

    test_support::forward!(store: read, query, expire, promise, close);
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_does_not_wait_behind_a_claim_that_is_slow() {
    let (store, clock) = (LateClaims::default(), ManualClock::at_unix_ms(testing::START_MS));
    let open = async || {
        let builder = testing::builder(HARD).store(store.clone());
        builder.clock(clock.clone()).open().await.unwrap()
    };
    let gate = open().await;
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |pages| Ask::new(&acme, "deliver").cost("pages", pages);
    let job = gate.admit(ask(2).once("job")).await.unwrap();
    gate.admit(ask(1)).await.unwrap().settle();
    store.is_late.store(true, Ordering::Relaxed);
    job.settle();
    let flushing = tokio::spawn(async move { gate.flush_now().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!flushing.is_finished(), "the claim is not settled");
    assert_eq!(
        meter(&open().await, "pages").await.0,
        1,
        "as a function that is frozen now leaves it"
    );
    flushing.await.unwrap().unwrap();
    assert_eq!(meter(&open().await, "pages").await.0, 3);
}

/// In real time, because the file has threads of its own. A process that is killed leaves its
/// files as they stand then: that is a copy of them.
#[tokio::test]
async fn an_id_is_charged_once_over_lives_of_a_redb_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let open = async |path: &Path| {
        let service = format!(
            "[store]\nkind = \"redb\"\npath = {path:?}\n[flush]\nmode = \"journal\"\n\
             [identity]\nunknown = \"create\"\n"
        );
        let plans = HARD.replace("10/day", "100/day"); // some are leased to the process that died
        loop {
            let builder = GateBuilder::from_text(&service).plans(&plans).work_only();
            match builder.clock(clock.clone()).open().await {
                // The tasks of a gate that was dropped end a moment later.
                Err(error) if error.to_string().contains("already open") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => break opened.unwrap(),
            }
        }
    };
    let killed = |life: &str| {
        let lives = folder.path().join(life);
        copy_at_one_moment(&folder.path().join("first"), &lives);
        lives.join("store.redb")
    };
    let used = async |gate: &Gate| {
        gate.flush_now().await.unwrap();
        clock.advance(Duration::from_secs(2)); // past the age of a cached reading
        let who = Identified::from(&gate.tenant("acme").await.unwrap());
        let report = gate.usage_report(&who).await.unwrap();
        report.meters.iter().find(|of| &*of.name == "pages").unwrap().used.whole()
    };

    std::fs::create_dir(folder.path().join("first")).unwrap();
    let gate = open(&folder.path().join("first/store.redb")).await;
    let permit = pages(&gate, "job").await.unwrap();
    let in_work = killed("in-work"); // before the work was settled
    permit.settle();
    gate.flush_now().await.unwrap();
    let on_record = killed("on-record");
    drop(gate); // no `close`

    for (path, is_paid) in [(in_work, false), (on_record, true)] {
        for life in 0..3 {
            let gate = open(&path).await;
            let again = pages(&gate, "job").await.unwrap();
            assert_eq!(again.is_repeat(), is_paid || life > 0, "{path:?}, life {life}");
            again.settle();
            assert_eq!(used(&gate).await, 10, "{path:?}, life {life}");
            match life {
                0 => drop(gate),
                _ => gate.close().await.unwrap(),
            }
        }
    }
}

/// A claim that is only held ends by itself; one that is charged does not, with its store's expiry
/// run as often as it has anything.
#[tokio::test(start_paused = true)]
pub(crate) async fn an_id_that_was_charged_is_never_forgotten() {
    let world = World::new(&HARD.replace("10/day", "100/day"));
    let gate = world.gate().await;
    pages(&gate, "charged").await.unwrap().settle();
    pages(&gate, "held").await.unwrap().cancel();
    gate.close().await.unwrap();
    let year = Duration::from_secs(366 * 86_400);
    world.clock.advance(year);
    let now_ms = world.clock.now().wall_ms;
    let mut expired = 0;
    for _ in 0..100 {
        expired += world.store.expire(now_ms).await.unwrap();
    }
    assert!(expired > 0, "the claim that was not charged");
    let gate = world.gate().await;
    let (charged, held) =
        (pages(&gate, "charged").await.unwrap(), pages(&gate, "held").await.unwrap());
    assert_eq!((charged.is_repeat(), held.is_repeat()), (true, false));
    charged.settle();
    held.settle();
    assert_eq!(world.used(&gate, "pages").await, (10, 0), "of this day");
    gate.close().await.unwrap();
}
