//! A hundred writers on one quota: the pool is split, and its hand-outs are still exact. Whole
//! gates on a faulty store, in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallygate::directory::Grant;
use tallygate::ingest::UsageEvent;
use tallygate::store::{
    Change, Item, Key, Memory, Promise, Store, StoreFuture, Value, Write, Written,
};
use tallygate::testing::{
    self, Faulty, Odds, Plans, PoolItem, have_patience, seed_this_thread, split_pools,
};
use tallygate::{Ask, Gate, SinceCopy, TenantHandle};
use test_support::clocks::Paused;

const LIMIT: u64 = 2_000;
const WRITERS: usize = 100;
const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "2000/day"
"#;

/// Faults of every kind, on one call in five.
const ODDS: Odds =
    Odds { unavailable: 20, throttled: 20, lose_request: 40, lose_reply: 60, delay: 0, repeat: 60 };

/// Keys of pools that have been written to.
type Pools = Arc<Mutex<BTreeSet<Key>>>;

/// An in-memory store behind a network, as several processes see it.
struct Shared(Faulty, Pools);

impl Store for Shared {
    fn write(&self, write: Write) -> StoreFuture<Written> {
        if write.key.pk.contains("#Q#") {
            self.1.lock().unwrap().insert(write.key.clone());
        }
        self.0.write(write)
    }

    fn promise(&self) -> Promise {
        Promise { shared: true, ..self.0.promise() }
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    test_support::forward!(0: read, query);
}

struct Service {
    store: Memory,
    clock: Paused,
    networks: Vec<Faulty>,
    pools: Pools,
}

impl Service {
    fn new() -> Self {
        let clock = Paused::now();
        Self { store: Memory::new(), clock, networks: Vec::new(), pools: Pools::default() }
    }

    async fn open(&mut self) -> (Gate, TenantHandle) {
        let seed = self.networks.len() as u64 + 1;
        let network = Faulty::seeded(self.store.clone(), seed, Odds::default());
        self.networks.push(network.clone());
        let builder = testing::builder(PLANS).store(Shared(network, self.pools.clone()));
        let gate = builder.clock(self.clock).open().await.unwrap();
        gate.directory().tenant("acme").plan("free").save().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        (gate, acme)
    }

    fn odds(&self, odds: Odds) {
        self.networks.iter().for_each(|network| network.odds(odds));
    }

    /// The stored pool, without its sub-pools.
    async fn root(&self) -> (Key, Item) {
        let key = self.pools.lock().unwrap().iter().find(|key| key.pk.ends_with(ROOT)).cloned();
        let key = key.unwrap();
        let item = self.store.read(key.clone()).await.unwrap();
        (key, item.unwrap())
    }

    /// The units held by all writers.
    async fn held(&self) -> u64 {
        let pools = self.pools().await;
        pools.values().flat_map(|pool| pool.entries.values()).map(|entry| entry.held).sum()
    }

    /// The pool and its sub-pools, by the last part of their key.
    async fn pools(&self) -> BTreeMap<String, PoolItem> {
        let mut pools = BTreeMap::new();
        let keys: Vec<Key> = self.pools.lock().unwrap().iter().cloned().collect();
        for key in keys {
            let Some(item) = self.store.read(key.clone()).await.unwrap() else { continue };
            let name = key.pk.rsplit('#').next().unwrap().to_owned();
            pools.insert(name, PoolItem::read(&item).unwrap());
        }
        pools
    }
}

/// The last part of the pool's own key: where its window begins.
const ROOT: &str = "1773705600000";

/// Asks until refused, at most this often. Returns the number admitted.
async fn serve((gate, acme): &(Gate, TenantHandle), most: u64) -> u64 {
    let mut served = 0;
    while served < most {
        let Ok(permit) = gate.admit(Ask::new(acme, "job").cost("jobs", 1)).await else {
            break;
        };
        permit.settle();
        served += 1;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_used_nothing_yet_is_not_taken_for_dead_while_it_holds_units() {
    for used in [0, 1] {
        let mut service = Service::new();
        let (one, two) = (service.open().await, service.open().await);
        let mut served = serve(&one, used).await;
        let ask = Ask::new(&one.1, "job").cost("jobs", LIMIT / 2);
        let mut held = Some(one.0.admit(ask).await.unwrap());
        for round in 0..40 {
            served += serve(&two, LIMIT).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            if round == 1 {
                held.take().unwrap().cancel();
            }
        }
        let spent = service.pools().await.values().map(|pool| pool.spent).sum::<i64>();
        assert_eq!(spent, 0, "nothing is taken of a process that lives: {served} served");
        served += serve(&one, LIMIT).await;
        assert_eq!(served, LIMIT, "{used} used before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_tenants_are_idle_is_not_taken_for_dead_while_they_hold_units() {
    let mut service = Service::new();
    let (one, two) = (service.open().await, service.open().await);
    let mut served = 0;
    for _ in 0..10 {
        served += serve(&one, 50).await; // its lease grows beyond what it may serve unrecorded
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let (gate, acme) = one;
    drop(acme);
    for round in 0..30 {
        served += serve(&two, LIMIT).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if round > 1 {
            assert_eq!(testing::doze(&gate).await, (1, 0), "the tenant is idle in round {round}");
        }
    }
    let spent = service.pools().await.values().map(|pool| pool.spent).sum::<i64>();
    assert_eq!(spent, 0, "nothing is taken of a process that lives: {served} served");
    let acme = gate.tenant("acme").await.unwrap();
    let rest = serve(&(gate, acme), LIMIT).await;
    assert!(rest > 0 && served + rest == LIMIT, "{served}, {rest}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_for_dead_serves_on_as_a_new_writer() {
    let mut service = Service::new();
    let (one, two) = (service.open().await, service.open().await);
    for _ in 0..10 {
        serve(&one, 50).await; // its lease grows beyond what it may serve unrecorded
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    have_patience(Some(0));
    for _ in 0..5 {
        let too_much = Ask::new(&two.1, "job").cost("jobs", LIMIT);
        assert!(two.0.admit(too_much).await.is_err());
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    have_patience(None);
    let pools = service.pools().await;
    let is_taken = |pool: &PoolItem| pool.spent > 0 || pool.entries.values().any(|it| it.closed);
    assert!(pools.values().any(is_taken), "{pools:?}");
    let mut served = 0;
    for _ in 0..5 {
        served += serve(&one, 10).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(served, 50, "{:?}", service.pools().await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_of_a_pool_that_a_later_version_has_written() {
    let mut service = Service::new();
    let one = service.open().await;
    assert_eq!(serve(&one, 5).await, 5);
    let (key, _) = service.root().await;
    let later = Change::Set("v".into(), Value::Int(1_000));
    service.store.write(Write { key, when: vec![], change: vec![later] }).await.unwrap();
    let two = service.open().await;
    assert_eq!(serve(&two, 5).await, 0);
}

/// All of them concurrently, each this often.
async fn serve_all(gates: &[(Gate, TenantHandle)], each: u64) -> u64 {
    let mut calls = tokio::task::JoinSet::new();
    for gate in gates {
        let gate = gate.clone();
        calls.spawn(async move { serve(&gate, each).await });
    }
    calls.join_all().await.into_iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_writers_serve_a_quota_to_its_end_and_never_beyond() {
    let seed = std::env::var("TALLYGATE_SEED").map_or(1, |seed| seed.parse().unwrap());
    seed_this_thread(Some(seed));
    split_pools(Some((8, 4)));
    let mut service = Service::new();
    let mut gates = Vec::new();
    for _ in 0..WRITERS {
        gates.push(service.open().await);
    }
    service.odds(ODDS);
    let mut served = 0;
    for _ in 0..4 {
        served += serve_all(&gates, 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let pools = service.pools().await;
    assert_eq!(pools.len(), 5, "a pool and four sub-pools: {:?}", pools.keys());
    assert!(served > LIMIT / 4 && served < LIMIT, "{served}");

    // Half of them leave, and their units are for the others, wherever they are. (A write that
    // fails to the end of its gate's time keeps its units, as a death would.)
    service.odds(Odds { unavailable: 0, throttled: 0, ..ODDS });
    for (gate, _) in gates.drain(..WRITERS / 2) {
        gate.close().await.unwrap();
    }
    service.odds(ODDS);
    let mut rounds = 0;
    while served < LIMIT && rounds < 100 {
        served += serve_all(&gates, 3).await;
        tokio::time::sleep(Duration::from_secs(3)).await; // as long as a refusal is cached
        rounds += 1;
    }
    assert_eq!(served, LIMIT, "after {rounds} rounds: {:?}", service.pools().await);
    println!("{rounds} rounds");
    service.odds(Odds::default());
    assert_eq!(serve_all(&gates, 3).await, 0);
    for (gate, _) in &gates {
        gate.close().await.unwrap();
    }
    let pools = service.pools().await;
    let most = pools.values().map(|pool| pool.entries.len()).max();
    assert!(most <= Some(WRITERS / 4 + 8), "{most:?} entries in one item");
    split_pools(None);
}

#[tokio::test(start_paused = true)]
async fn what_is_free_in_sub_pools_is_free_in_reports() {
    split_pools(Some((2, 4)));
    let mut service = Service::new();
    let mut gates = Vec::new();
    for _ in 0..12 {
        gates.push(service.open().await);
    }
    serve_all(&gates, 5).await;
    for (gate, _) in gates.drain(..11) {
        gate.close().await.unwrap();
    }
    for _ in 0..3 {
        gates.push(service.open().await);
        serve(gates.last().unwrap(), 1).await; // most of what it leases is unused
    }
    gates[0].0.close().await.unwrap();
    gates.remove(0);
    let pools = service.pools().await;
    let free: i64 = pools.values().filter(|pool| pool.fed.is_some()).map(|sub| sub.free).sum();
    assert!(free > 0, "{pools:?}");
    let held = |pool: &PoolItem| pool.entries.values().map(|entry| entry.held).sum::<u64>();
    let taken: u64 = pools.values().map(|pool| held(pool) + pool.spent as u64).sum();
    let (last, _) = gates.last().unwrap();
    let reader = service.open().await; // it has leased nothing
    // A first lease of 2,000 units is 15. In its report, a process counts others' leases as used,
    // but only the used part of its own.
    for (gate, used) in [(&reader.0, taken..taken + 1), (last, taken - 14..taken)] {
        let who = testing::identified(gate, "acme").await;
        let report = gate.usage_report(&who).await.unwrap();
        let jobs = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap();
        let told = jobs.limits[0].used.whole();
        assert!(used.contains(&told), "{told}, {taken} taken: {pools:?}");
    }
    split_pools(None);
}

/// The debt of the tenant's jobs, as this process reports it.
async fn debt(gate: &Gate) -> u64 {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let jobs = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap();
    jobs.limits[0].debt.whole()
}

/// Most of the sub-pools do not exist, and an exhausted root makes none.
#[tokio::test(start_paused = true)]
async fn what_a_process_without_units_hears_of_is_owed_everywhere_and_paid_by_a_grant() {
    for seed in 1..6 {
        seed_this_thread(Some(seed));
        split_pools(Some((2, 64)));
        let mut service = Service::new();
        let mut gates = Vec::new();
        for _ in 0..6 {
            gates.push(service.open().await);
        }
        let mut served = 0;
        while served < LIMIT {
            served += serve_all(&gates, LIMIT).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let hears = service.open().await;
        let event = UsageEvent::new("late", "acme", "jobs", 9);
        hears.0.ingest().events(vec![event]).await[0].as_ref().unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!((debt(&hears.0).await, debt(&gates[0].0).await), (9, 9), "seed {seed}");

        gates.push(hears);
        for (gate, _) in &gates {
            gate.close().await.unwrap();
        }
        let fresh = service.open().await;
        assert_eq!(serve(&fresh, 1).await, 0, "seed {seed}");
        let gift = Grant::new("gift", "jobs", 12).source("gift");
        fresh.0.directory().tenant("acme").grant(gift).save().await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(serve(&fresh, 12).await, 3, "nine of twelve are owed: seed {seed}");
        assert_eq!(debt(&fresh.0).await, 0, "seed {seed}");
        split_pools(None);
    }
}

/// A tenant whose plan may change, on one store.
struct Shop {
    plans: Plans,
    service: Service,
}

impl Shop {
    const PLANS: &str =
        "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nquota.jobs = \"2000/day\"\n";

    fn new() -> Self {
        Self { plans: Plans::new(Self::PLANS), service: Service::new() }
    }

    async fn open(&self) -> (Gate, TenantHandle) {
        let store = Faulty::seeded(self.service.store.clone(), 1, Odds::default());
        let store = Shared(store, self.service.pools.clone());
        let builder = self.plans.read_by(testing::builder("")).store(store);
        let gate = builder.clock(self.service.clock).open().await.unwrap();
        gate.directory().tenant("acme").save().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        (gate, acme)
    }

    /// So many processes, which have used the quota up, a few units in each of them.
    async fn used_up(&self, processes: usize) -> Vec<(Gate, TenantHandle)> {
        let (mut gates, mut served) = (Vec::new(), 0);
        for _ in 0..processes {
            gates.push(self.open().await);
        }
        for gate in &gates {
            served += serve(gate, 5).await;
        }
        while served < LIMIT {
            for gate in &gates {
                served += serve(gate, LIMIT).await;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        gates
    }

    async fn raise(&self, gate: &Gate, by: u64) {
        self.plans.set(&Self::PLANS.replace("2000", &(LIMIT + by).to_string()));
        gate.reload().await.unwrap();
    }
}

async fn hear_of_nine(gate: &Gate) {
    let event = UsageEvent::new("late", "acme", "jobs", 9);
    gate.ingest().events(vec![event]).await[0].as_ref().unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
}

async fn give(gate: &Gate, units: u64) {
    let gift = Grant::new("gift", "jobs", units);
    gate.directory().tenant("acme").grant(gift).save().await.unwrap();
}

/// Of twelve units that come when nine are owed by a process with an entry in a sub-pool: how many
/// another process serves, and what is owed then.
async fn of_twelve_with_nine_owed(
    (seed, split, processes): (u64, (usize, u16), usize),
    raise: bool,
    then: &str,
    asks: usize,
) -> (u64, u64) {
    seed_this_thread(Some(seed));
    split_pools(Some(split));
    let shop = Shop::new();
    let mut gates = shop.used_up(processes).await;
    let late = gates.pop().unwrap();
    hear_of_nine(&late.0).await;
    let who = match then {
        "it ends" => {
            late.0.close().await.unwrap();
            gates[asks].clone()
        }
        "all end" => {
            late.0.close().await.unwrap();
            for (gate, _) in gates.drain(..) {
                gate.close().await.unwrap();
            }
            shop.open().await
        }
        "it lives" => gates[asks].clone(),
        _ => {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_secs(3)).await; // there the tenant is idle
                serve(&gates[asks], 1).await;
            }
            gates[asks].clone()
        }
    };
    if raise {
        shop.raise(&who.0, 12).await;
    } else {
        give(&who.0, 12).await;
    }
    let mut after = 0;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        after += serve(&who, 20).await;
    }
    let owed = debt(&who.0).await;
    split_pools(None);
    (after, owed)
}

const THEN: [&str; 4] = ["it ends", "all end", "its tenant is idle", "it lives"];

#[tokio::test(start_paused = true)]
async fn a_debt_of_a_process_in_a_sub_pool_is_paid_whichever_process_asks_next() {
    for seed in 1..7 {
        let asks = [1, 5][seed as usize % 2]; // of the pool itself, or of a sub-pool
        for (raise, then) in [false, true].into_iter().flat_map(|it| THEN.map(|at| (it, at))) {
            let found = of_twelve_with_nine_owed((seed, (2, 4), 8), raise, then, asks).await;
            assert_eq!(found, (3, 0), "seed {seed}, raise {raise}, {then}, {asks} asks");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_debt_in_one_of_fifty_processes_is_paid_whichever_process_asks_next() {
    for (raise, then) in [false, true].into_iter().flat_map(|it| THEN.map(|at| (it, at))) {
        let asks = if raise { 1 } else { 40 };
        let found = of_twelve_with_nine_owed((1, (32, 64), 50), raise, then, asks).await;
        assert_eq!(found, (3, 0), "raise {raise}, {then}, {asks} asks");
    }
}

/// What one process holds for a request comes back when another owes.
#[tokio::test(start_paused = true)]
async fn what_is_given_back_pays_the_debt_of_a_process_in_a_sub_pool() {
    for seed in 1..7 {
        for (of_root, third) in [(true, 1), (true, 5), (false, 1), (false, 5)] {
            seed_this_thread(Some(seed));
            split_pools(Some((2, 4)));
            let shop = Shop::new();
            let mut gates = Vec::new();
            for _ in 0..8 {
                gates.push(shop.open().await);
            }
            let mut served = 0;
            for gate in &gates {
                served += serve(gate, 5).await;
            }
            let holder = gates.remove(if of_root { 0 } else { 4 });
            let hundred = Ask::new(&holder.1, "job").cost("jobs", 100);
            let held = holder.0.admit(hundred).await.unwrap();
            while served < LIMIT - 100 {
                for gate in gates.iter().chain([&holder]) {
                    served += serve(gate, LIMIT).await;
                }
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            hear_of_nine(&gates.last().unwrap().0).await;
            held.cancel();
            holder.0.close().await.unwrap();
            let mut after = 0;
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                after += serve(&gates[third], LIMIT).await;
            }
            let case = format!("seed {seed}, of the root {of_root}, {third}");
            assert_eq!((after, debt(&gates[third].0).await), (91, 0), "{case}");
            split_pools(None);
        }
    }
}

/// A worker keeps its handle for good.
/// Leases units in one process, which then has no request, with or without a handle of its tenant;
/// another one asks for the whole quota, and gets the rest after ten minutes.
async fn serve_until_units_come_back(keeps_handle: bool) {
    seed_this_thread(Some(1));
    let mut service = Service::new();
    let (worker, other) = (service.open().await, service.open().await);
    let mut served = serve(&worker, 5).await;
    let (_gate, handle) = worker;
    let _handle = keeps_handle.then_some(handle);
    served += serve(&other, LIMIT).await;
    assert!(served < LIMIT, "{served}: the worker has units in hand");
    for _ in 0..70 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        served += serve(&other, LIMIT).await;
    }
    assert_eq!(served, LIMIT);
}

#[tokio::test(start_paused = true)]
async fn units_leased_by_a_process_that_keeps_its_handle_come_back_after_ten_idle_minutes() {
    serve_until_units_come_back(true).await;
}

#[tokio::test(start_paused = true)]
async fn units_leased_for_a_tenant_that_only_memory_keeps_come_back_after_ten_idle_minutes() {
    serve_until_units_come_back(false).await;
}

/// Dead writers have entries in sub-pools that live ones lease nothing from.
#[tokio::test(start_paused = true)]
async fn units_of_the_dead_come_back_from_every_sub_pool() {
    seed_this_thread(Some(1));
    split_pools(Some((2, 8)));
    let mut service = Service::new();
    let mut gates = Vec::new();
    for _ in 0..20 {
        gates.push(service.open().await);
    }
    let mut served = 0;
    for _ in 0..6 {
        served += serve_all(&gates, 8).await; // so that leases grow beyond their ceilings
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let living = gates.split_off(18);
    drop(gates);
    for _ in 0..60 {
        served += serve_all(&living, LIMIT).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let pools = service.pools().await;
    let entries = || pools.values().flat_map(|pool| pool.entries.values());
    let beyond = entries().filter(|entry| entry.held > entry.preauthorised).count();
    let (held, spent) = (
        entries().map(|entry| entry.held).sum::<u64>(),
        pools.values().map(|pool| pool.spent as u64).sum::<u64>(),
    );
    assert_eq!(held + spent, LIMIT, "nothing is free: {pools:?}");
    assert!(served > LIMIT * 3 / 4 && served <= LIMIT, "{served} served, {beyond}: {pools:?}");
    assert!(entries().filter(|entry| entry.closed).count() + beyond < 18);
    split_pools(None);
    seed_this_thread(None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_table_with_sub_pools_gives_out_nothing_twice() {
    for (since, is_torn) in [
        (SinceCopy::Spent, false),
        (SinceCopy::Free, false),
        (SinceCopy::Spent, true),
        (SinceCopy::Free, true),
    ] {
        seed_this_thread(Some(1));
        split_pools(Some((2, 4)));
        let mut service = Service::new();
        let mut gates = Vec::new();
        for _ in 0..8 {
            gates.push(service.open().await);
        }
        let mut served = serve_all(&gates, 3).await;
        let ((root_key, root), before) = (service.root().await, service.held().await);
        served += serve_all(&gates, 60).await;
        drop(gates);
        let granted = service.held().await - before;
        if is_torn {
            // The pool was copied before its sub-pools.
            let change = root.0.into_iter().map(|(name, value)| Change::Set(name, value));
            let write = Write { key: root_key, when: vec![], change: change.collect() };
            service.store.write(write).await.unwrap();
        }
        let pools = service.pools().await;
        // Units that a sub-pool got after the root was copied are also free in the root.
        let is_known = |pool: &&PoolItem| {
            pool.fed.is_none_or(|fed| pools[ROOT].feeds.values().any(|known| *known == fed))
        };
        let free: i64 = pools.values().filter(is_known).map(|pool| pool.free).sum();
        let restorer = testing::builder(PLANS).clock(service.clock);
        restorer.store(service.store.clone()).restore(since).await.unwrap();
        let next = service.open().await;
        let again = serve(&next, 2 * LIMIT).await;
        match since {
            SinceCopy::Spent => assert_eq!(again, 0, "torn: {is_torn}"),
            SinceCopy::Free if is_torn => {
                assert!(pools.values().filter(is_known).count() < pools.len());
                assert!(served + again <= LIMIT + granted, "{served}, {again}, {granted}");
                assert_eq!(again, free as u64, "{pools:?}");
            }
            SinceCopy::Free => assert_eq!(again, free as u64, "{served} before: {pools:?}"),
        }
        split_pools(None);
    }
}

#[tokio::test(start_paused = true)]
async fn few_writers_and_a_store_of_one_process_split_nothing() {
    let mut service = Service::new();
    let mut gates = Vec::new();
    for _ in 0..32 {
        gates.push(service.open().await);
    }
    serve_all(&gates, 2).await;
    assert_eq!(service.pools().await.len(), 1);

    split_pools(Some((0, 4)));
    let (alone, _) = testing::gate_with(PLANS, service.store.clone());
    let acme = alone.tenant("acme").await.unwrap();
    assert_eq!(serve(&(alone, acme), 2).await, 2);
    assert_eq!(service.pools().await.len(), 1);
    split_pools(None);
}
