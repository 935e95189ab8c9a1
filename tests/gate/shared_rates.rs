//! Whole gates on one store: a rate is shared by the live ones, and moves to where the demand is.
//! The bound itself is measured in `src/rates/fleet_tests.rs`.

use std::sync::Arc;
use std::time::Duration;

use tallygate::store::{Item, Key, Memory, Page, Query, Store, StoreFuture, Write, Written};
use tallygate::testing::OpenRequest;
use tallygate::{Ask, Gate, Outcome, testing};
use test_support::clocks::Paused;
use test_support::requests::Call;
use test_support::stores::Shared;
use tokio::time::Instant;

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    rate.default = "100/s"
    quota.requests = "1M/day"
"#;

/// The gates' store, with calls that take [`CALL`].
struct Slow(Shared<Memory>);

const CALL: Duration = Duration::from_millis(10);

impl Slow {
    fn after<T: Send + 'static>(call: StoreFuture<T>) -> StoreFuture<T> {
        Box::pin(async move {
            tokio::time::sleep(CALL).await;
            call.await
        })
    }
}

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        Self::after(self.0.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        Self::after(self.0.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        Self::after(self.0.query(query))
    }

    test_support::forward!(0: promise, close);
}

async fn node(store: &Memory, clock: &Paused) -> Gate {
    node_with(PLANS, store, clock).await
}

async fn node_with(plans: &str, store: &Memory, clock: &Paused) -> Gate {
    let builder = testing::builder(plans).store(Shared(store.clone()));
    let gate = builder.clock(*clock).open().await.unwrap();
    gate.directory().tenant("acme").plan("free").save().await.unwrap();
    gate
}

/// Calls for this long, at this rate per second at each gate. Returns what each admitted per
/// second.
async fn call(gates: &[&Gate], per_second: &[u64], seconds: u64) -> Vec<f64> {
    let mut admitted = vec![0; gates.len()];
    for _ in 0..seconds * 20 {
        for (i, gate) in gates.iter().enumerate() {
            let acme = gate.tenant("acme").await.unwrap();
            for _ in 0..per_second[i] / 20 {
                if let Ok(permit) = gate.admit(Ask::new(&acme, "call")).await {
                    permit.settle();
                    admitted[i] += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    admitted.into_iter().map(|n| n as f64 / seconds as f64).collect()
}

fn is_about(n: f64, expected: f64) -> bool {
    (n - expected).abs() <= expected * 0.12
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_shared_and_follows_the_demand() {
    let (store, clock) = (Memory::new(), Paused::now());
    let one = node(&store, &clock).await;
    call(&[&one], &[300], 3).await; // the burst goes
    let alone = call(&[&one], &[300], 10).await;
    assert!(is_about(alone[0], 100.0), "alone it has all of it: {alone:?}");

    let two = node(&store, &clock).await;
    call(&[&one, &two], &[300, 300], 12).await;
    let both = call(&[&one, &two], &[300, 300], 20).await;
    assert!(is_about(both[0], 50.0) && is_about(both[1], 50.0), "equal parts: {both:?}");

    call(&[&one, &two], &[300, 20], 30).await;
    let skewed = call(&[&one, &two], &[300, 20], 20).await;
    assert!(skewed[0] > 65.0, "what one leaves the other has: {skewed:?}");
    assert!(is_about(skewed[1], 20.0), "{skewed:?}");
    assert!(skewed[0] + skewed[1] <= 106.0, "{skewed:?}");

    two.close().await.unwrap();
    call(&[&one], &[300], 12).await;
    let again = call(&[&one], &[300], 20).await;
    assert!(is_about(again[0], 100.0), "and all of it once it is alone: {again:?}");
    one.close().await.unwrap();
}

/// A request of a user of acme.
const OF_ANN: Call<2> = Call::new("GET", "/search", [("x-tenant", "acme"), ("x-user", "ann")]);

/// Calls for this long as that user, 300 times a second. Returns the number admitted per second.
async fn call_as_ann(gate: &Gate, seconds: u64) -> f64 {
    let mut admitted = 0;
    for _ in 0..seconds * 20 {
        for _ in 0..15 {
            if let Ok(request) = OpenRequest::admit(gate, &OF_ANN).await {
                request.end(Outcome::Complete { status: 200 });
                admitted += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    admitted as f64 / seconds as f64
}

#[tokio::test(start_paused = true)]
async fn what_a_node_does_not_serve_it_leaves_to_the_others() {
    for plans in [PLANS.to_owned(), PLANS.replace("100/s", "100/s per user")] {
        let (store, clock) = (Memory::new(), Paused::now());
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(node_with(&plans, &store, &clock).await);
        }
        let busy = node_with(&plans, &store, &clock).await;
        call_as_ann(&busy, 25).await;
        let served = call_as_ann(&busy, 20).await;
        assert!(served > 90.0 && served <= 106.0, "{served}: {plans}");
        for gate in idle.iter().chain([&busy]) {
            gate.close().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_on_its_store_makes_no_calls_for_its_rates() {
    let store = Memory::new();
    let builder = testing::builder(PLANS).store(store.clone());
    let clock: Arc<Paused> = Arc::new(Paused::now());
    let gate = builder.clock(*clock).open().await.unwrap();
    gate.directory().tenant("acme").plan("free").save().await.unwrap();
    call(&[&gate], &[300], 12).await;
    for of in ["nodes", "pressure"] {
        let key = Key { pk: format!("1#default#V#{of}"), sk: "-".into() };
        assert_eq!(store.read(key).await.unwrap(), None);
    }
    gate.close().await.unwrap();
}

/// The number admitted in each slot of five seconds, by gates that all have more demand than that.
async fn by_slot(gates: &[&Gate], slots: usize) -> Vec<u64> {
    let mut by_slot = vec![0; slots];
    for slot in &mut by_slot {
        for _ in 0..100 {
            for gate in gates {
                let acme = gate.tenant("acme").await.unwrap();
                for _ in 0..3 {
                    if let Ok(permit) = gate.admit(Ask::new(&acme, "call")).await {
                        permit.settle();
                        *slot += 1;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    by_slot
}

/// Four processes on one store, and that store.
async fn four(plans: &str, strict_rates: bool) -> (Memory, Vec<Gate>) {
    let (store, clock) = (Memory::new(), Paused::now());
    let mut gates = Vec::new();
    for _ in 0..4 {
        let builder = testing::builder(plans).store(Shared(store.clone()));
        let builder = builder.clock(clock).strict_rates(strict_rates);
        let gate = builder.open().await.unwrap();
        gate.directory().tenant("acme").plan("free").save().await.unwrap();
        gates.push(gate);
    }
    (store, gates)
}

/// Whether processes on this store know of one another.
async fn is_counted(store: &Memory) -> bool {
    let key = Key { pk: "1#default#V#nodes".to_owned(), sk: "-".into() };
    store.read(key).await.unwrap().is_some()
}

async fn pass_no_slot(gates: &[Gate]) {
    for some in [4, 1, 2] {
        let serving: Vec<&Gate> = gates.iter().take(some).collect();
        let slots = by_slot(&serving, 6).await;
        // The test's slots are the clock's: it starts with one, and a call takes no time.
        let asked = 300 * some as u64;
        let all = slots.iter().all(|n| *n <= 500);
        assert!(all, "{some} nodes: {slots:?} of 500, {asked} asked");
        let used: u64 = slots.iter().sum();
        let could = 500.min(asked) * slots.len() as u64;
        assert!(used * 100 >= could * 95, "{some} nodes: {slots:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_strict_rate_is_never_passed_in_a_slot() {
    let plans = PLANS.replace("\"100/s\"", "{ limit = \"100/s\", strict = true }");
    let (store, gates) = four(&plans, false).await;
    pass_no_slot(&gates).await;
    assert!(is_counted(&store).await, "the next plan file may have another rate");
    for gate in &gates {
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn where_rates_are_strict_unless_they_say_no_nobody_need_be_counted() {
    let (store, gates) = four(PLANS, true).await;
    pass_no_slot(&gates).await;
    assert!(!is_counted(&store).await);
    for gate in &gates {
        gate.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_says_no_is_shared_all_the_same() {
    let plans = PLANS.replace("\"100/s\"", "{ limit = \"100/s\", strict = false }");
    let (store, gates) = four(&plans, true).await;
    assert!(is_counted(&store).await);
    let all: Vec<&Gate> = gates.iter().collect();
    call(&all, &[300; 4], 12).await;
    let served = call(&all, &[300; 4], 20).await;
    assert!(served.iter().all(|rate| is_about(*rate, 25.0)), "equal parts: {served:?}");
    for gate in &gates {
        gate.close().await.unwrap();
    }
}

/// A fresh process on Lambda requests all that its first request needs at once.
#[tokio::test(start_paused = true)]
async fn units_of_all_limits_are_waited_for_together() {
    let plans = r#"
        default-plan = "free"
        [plan.free]
        rate.all = "200/s"
        rate.default = "100/s"
        quota.requests = ["10k/day", "1M/month"]
    "#;
    let clock = Paused::now();
    for seen in [false, true] {
        let store = Slow(Shared(Memory::new()));
        let builder = testing::builder(plans).store(store);
        let gate = builder.clock(clock).strict_rates(true).open().await.unwrap();
        gate.directory().tenant("acme").plan("free").save().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        if seen {
            gate.admit(Ask::new(&acme, "call")).await.unwrap().settle();
            tokio::time::sleep(Duration::from_secs(5)).await; // slots of their own
        }
        let begun = Instant::now();
        gate.admit(Ask::new(&acme, "call")).await.unwrap().settle();
        // A slot's pool is read first only if those of earlier slots existed.
        let took = begun.elapsed();
        assert!(took <= CALL * 2 + Duration::from_millis(2), "{took:?} for four pools");
        gate.close().await.unwrap();
    }
}
