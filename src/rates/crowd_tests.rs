//! Tests of whole tasks on a slow table, in simulated time: thousands of limits under pressure at
//! once, and the total that all nodes admit of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::machine::Asked;
use super::task::{Buckets, Sharing, bound, join};
use super::throttled::ThrottledLimits;
use crate::clock::{Clock, Now};
use crate::ids::Surrogate;
use crate::ids::{LimitId, NodeId};
use crate::policy::bucket::{Bucket, BucketRule};
use crate::store::layout::Space;
use crate::store::{Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written};

/// A table with this latency per call.
#[derive(Clone)]
struct Slow(Memory, Duration);

impl Slow {
    fn after<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        let long = self.1;
        Box::pin(async move {
            tokio::time::sleep(long / 2).await;
            let answer = call.await;
            tokio::time::sleep(long / 2).await;
            answer
        })
    }
}

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        let store = self.0.clone();
        self.after(Box::pin(async move { store.read(key).await }))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        let store = self.0.clone();
        self.after(Box::pin(async move { store.write(write).await }))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.0.query(query)
    }

    fn promise(&self) -> Promise {
        Promise { kind: "slow", survives: "nothing", shared: true }
    }

    fn close(&self) -> StoreFuture<()> {
        self.0.close()
    }
}

/// The time of the paused runtime.
#[derive(Clone)]
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Now {
        let since = Instant::now().saturating_duration_since(self.0);
        let mono_ns = (1 << 62) + since.as_nanos() as u64;
        Now { mono_ns, wall_ms: since.as_millis() as i64 }
    }
}

/// The buckets of one node.
struct Node {
    whole: BucketRule,
    cells: Mutex<Cells>,
    ids: Arc<[LimitId]>,
    at: Arc<BTreeMap<LimitId, usize>>,
    clock: Paused,
}

struct Cells {
    rule: BucketRule,
    buckets: Vec<Bucket>,
    throttled: ThrottledLimits,
    slot: u16,
    nodes: usize,
}

impl Node {
    fn call(&self, limit: usize, cells: &mut Cells, now_ns: u64) -> bool {
        let bucket = &cells.buckets[limit];
        let admitted = cells.rule.take(bucket, 1, now_ns).is_ok();
        if !admitted && cells.rule.refused(bucket, 1, cells.slot) {
            cells.throttled.add(self.ids[limit].clone());
        }
        admitted
    }
}

impl Buckets for Node {
    fn asked(&self, shared: &[LimitId]) -> BTreeMap<LimitId, Asked> {
        let mut cells = self.cells.lock().unwrap();
        cells.slot += 1;
        let mut ids = std::mem::take(&mut cells.throttled).ids();
        ids.extend(shared.iter().cloned());
        let interval_ns = self.whole.whole_interval_ns();
        let asked = |id: LimitId| {
            let units = cells.buckets[self.at[&id]].take_asked();
            (id, Asked { units, interval_ns })
        };
        ids.into_iter().map(asked).collect()
    }

    fn has(&self, id: &LimitId) -> bool {
        self.at.contains_key(id)
    }

    fn among(&self, nodes: usize) {
        let now_ns = self.clock.now().mono_ns;
        let cells = &mut *self.cells.lock().unwrap();
        cells.nodes = nodes;
        let next = rule(self.whole.burst()).among(nodes);
        for bucket in &mut cells.buckets {
            *bucket = next.adopt(bucket, &cells.rule, now_ns);
        }
        cells.rule = next;
    }

    fn share(&self, id: &LimitId, millionths: Option<u32>) {
        let cells = self.cells.lock().unwrap();
        let now_ns = self.clock.now().mono_ns;
        cells.rule.set_share(&cells.buckets[self.at[id]], millionths, now_ns);
    }
}

fn rule(rate: u64) -> BucketRule {
    BucketRule::new(rate, Duration::from_secs(1), rate)
}

const SECONDS: usize = 60;
/// Excluded from measurement: the fleet finds its shares.
const WARM_UP: usize = 20;
const TICKS: u64 = 10;

struct Crowd {
    nodes: usize,
    /// Number of limits of one tenant, and of other tenants with one each.
    of_one: usize,
    of_others: usize,
    rate: u64,
    call: Duration,
    /// Part of the calls that arrives at the other nodes; the first has the rest.
    elsewhere: f64,
}

/// The highest admission of any limit in ten seconds, in parts of its rate; the lowest over the
/// whole measurement; and whether a node declared another dead.
async fn measured(crowd: &Crowd) -> (f64, f64, bool) {
    let id = |tenant: u128, scope: u128| LimitId {
        tenant: Surrogate::test(tenant),
        rate: "default/s".into(),
        scope,
    };
    let ids = (0..crowd.of_one as u128).map(|scope| id(1, scope));
    let ids: Arc<[LimitId]> =
        ids.chain((0..crowd.of_others as u128).map(|n| id(2 + n, 0))).collect();
    let at: BTreeMap<LimitId, usize> = ids.iter().cloned().zip(0..).collect();
    let at = Arc::new(at);
    let clock = Paused(Instant::now());
    let store: Arc<dyn Store> = Arc::new(Slow(Memory::new(), crowd.call));
    let mut fleet = Vec::new();
    for n in 0..crowd.nodes {
        let space = Space::new("test");
        let me = 100 + n as u128;
        let joined =
            join(store.clone(), Arc::new(clock.clone()), space, NodeId::test(me)).await.unwrap();
        let cells = Cells {
            rule: rule(crowd.rate).among(joined.nodes),
            buckets: vec![Bucket::default(); ids.len()],
            throttled: ThrottledLimits::default(),
            slot: 1,
            nodes: joined.nodes,
        };
        let (ids, at, clock) = (ids.clone(), at.clone(), clock.clone());
        let node = Node { whole: rule(crowd.rate), cells: Mutex::new(cells), ids, at, clock };
        let node = Arc::new(node);
        let sharing = Sharing::start(joined, Arc::downgrade(&node));
        fleet.push((node, sharing));
    }
    // Demand is one and a half times the rate.
    let asked = crowd.rate as f64 * 1.5 / TICKS as f64;
    let mut due = vec![0.0; fleet.len()];
    let mut admitted = vec![Vec::<u32>::new(); ids.len()];
    let mut alone = false;
    for second in 0..SECONDS {
        admitted.iter_mut().for_each(|by_second| by_second.push(0));
        for _ in 0..TICKS {
            tokio::time::sleep(Duration::from_millis(1_000 / TICKS)).await;
            let now_ns = clock.now().mono_ns;
            for (n, (node, _)) in fleet.iter().enumerate() {
                let part = match n {
                    0 => 1.0 - crowd.elsewhere,
                    _ => crowd.elsewhere / (crowd.nodes - 1) as f64,
                };
                due[n] += asked * part;
                let calls = due[n] as u64;
                due[n] -= calls as f64;
                let cells = &mut *node.cells.lock().unwrap();
                alone |= second >= WARM_UP && cells.nodes < crowd.nodes;
                for (limit, by_second) in admitted.iter_mut().enumerate() {
                    let here = (0..calls).filter(|_| node.call(limit, cells, now_ns)).count();
                    *by_second.last_mut().unwrap() += here as u32;
                }
            }
        }
    }
    let most = admitted
        .iter()
        .flat_map(|by_second| by_second[WARM_UP..].windows(10).map(|ten| ten.iter().sum::<u32>()));
    let most = f64::from(most.max().unwrap()) / (10 * crowd.rate) as f64;
    let all = admitted.iter().map(|by_second| by_second[WARM_UP..].iter().sum::<u32>());
    let least = f64::from(all.min().unwrap()) / (crowd.rate * (SECONDS - WARM_UP) as u64) as f64;
    println!(
        "{} nodes, {} limits of one tenant and {} of others, {:?} a call: most in ten seconds \
         {most:.3} R, least over all {least:.3} R",
        crowd.nodes, crowd.of_one, crowd.of_others, crowd.call,
    );
    for (_, sharing) in &fleet {
        sharing.close(Instant::now() + Duration::from_secs(1)).await;
    }
    (most, least, alone)
}

async fn stays_within_the_bound(crowd: Crowd, at_least: f64) {
    let (most, least, alone) = measured(&crowd).await;
    assert!(!alone, "a node was taken for dead");
    assert!(most * 100.0 <= f64::from(bound().0), "{most:.3} R");
    assert!(least >= at_least, "{least:.3} R");
}

const TWO: Crowd = Crowd {
    nodes: 2,
    of_one: 700,
    of_others: 0,
    rate: 20,
    call: Duration::from_millis(20),
    elsewhere: 0.5,
};

#[tokio::test(start_paused = true)]
async fn the_bound_holds_for_700_users_of_one_tenant() {
    stays_within_the_bound(TWO, 0.95).await;
}

#[tokio::test(start_paused = true)]
async fn the_bound_holds_for_10000_limits_on_a_slow_store() {
    let call = Duration::from_millis(50);
    stays_within_the_bound(Crowd { of_one: 9_900, of_others: 100, call, ..TWO }, 0.95).await;
}

#[tokio::test(start_paused = true)]
async fn shares_of_few_move_beside_a_tenant_with_thousands() {
    let crowd = Crowd {
        of_one: 9_900,
        of_others: 100,
        call: Duration::from_millis(50),
        elsewhere: 0.1,
        ..TWO
    };
    // With no place in the list, half of a rate goes unused.
    stays_within_the_bound(crowd, 0.5).await;
}

#[tokio::test(start_paused = true)]
async fn the_bound_holds_where_the_store_is_too_slow_for_all_shares() {
    let call = Duration::from_secs(2);
    let crowd = Crowd { nodes: 4, of_one: 2_000, of_others: 20, call, elsewhere: 0.3, ..TWO };
    stays_within_the_bound(crowd, 0.2).await;
}
