//! Cost of a table: units written and read, measured over gates on a table that counts them
//! (`metered.rs`), in simulated time. `docs/cost.md` has the figures of a full run beside those of
//! the reference model.
//!
//!     cargo test --test cost table -- --nocapture                              # small, as in CI
//!     TALLYGATE_COST=full cargo test --release --test cost table -- --nocapture
//!
//! Not measured: what AWS charges for storage and traffic, and calls that fail.

mod metered;
mod nodes;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metered::{Bill, Table};
use nodes::{Chance, Got, Tenants};
use tallygate::Gate;
use tallygate::testing::split_pools;

/// The default pace of a service file.
const USUAL_PACE: u32 = 50;

/// No pace at all.
const NO_PACE: u32 = 1_000_000;

/// Time for leases and ceilings to adapt to their tenants.
const START_SECONDS: u64 = 10;

/// Limits of DynamoDB: units per partition and second, and bytes of an item.
const MOST_UNITS: u64 = 1_000;
const MOST_BYTES: usize = 400 * 1_024;

/// A row of the table.
struct Row {
    name: String,
    requests: u64,
    bill: Bill,
    got: Got,
}

impl Row {
    const HEAD: &str = "written per million requests            |   leases |  records |    other | \
                             all |     read | admitted | 503 | largest item | hottest key";

    fn print(&self) {
        let million = |units: u64| units * 1_000_000 / self.requests.max(1);
        let [leases, records] = ["Q", "L"].map(|kind| self.bill.units(kind));
        let all = self.bill.written();
        println!(
            "cost: {:<39} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} | {:>3} | {:>10} B | \
             {:>4} units/s",
            self.name,
            million(leases),
            million(records),
            million(all - leases - records),
            million(all),
            million(self.bill.read()),
            self.got.admitted.load(Ordering::Relaxed),
            self.got.unavailable.load(Ordering::Relaxed),
            self.bill.largest,
            self.bill.hottest,
        );
        let kinds = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>().join(", ");
        let writes = self.bill.writes.iter();
        let writes =
            kinds(&mut writes.map(|(kind, (calls, units))| format!("{kind} {units} in {calls}")));
        let reads =
            kinds(&mut self.bill.reads.iter().map(|(kind, units)| format!("{kind} {units}")));
        println!("cost:   units written by kind: {writes}; read: {reads}");
    }

    fn check(&self) {
        assert!(self.bill.largest < MOST_BYTES, "{}: {} bytes", self.name, self.bill.largest);
        assert!(self.bill.hottest < MOST_UNITS, "{}: {} units/s", self.name, self.bill.hottest);
        let admitted = self.got.admitted.load(Ordering::Relaxed);
        assert!(admitted * 100 >= self.requests * 99, "{}: {admitted} admitted", self.name);
    }
}

fn is_full() -> bool {
    std::env::var("TALLYGATE_COST").is_ok_and(|much| much == "full")
}

/// Whether `TALLYGATE_COST_OF` (nodes and tenants, such as `4,100`) leaves this row in.
fn is_asked_for(nodes: usize, tenants: usize) -> bool {
    std::env::var("TALLYGATE_COST_OF").map_or(true, |of| of == format!("{nodes},{tenants}"))
}

/// Runs this on a runtime with simulated time, and seeded randomness.
fn run<T>(task: impl Future<Output = T>) -> T {
    tallygate::testing::seed_this_thread(Some(1));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let done = runtime.block_on(task);
    tallygate::testing::seed_this_thread(None);
    done
}

/// Nodes under steady traffic, as in the reference: any request at any node, tenants by Zipf's law,
/// each with 50 times as much as it uses.
async fn steady(nodes: usize, tenants: usize, requests: u64, per_second: u64, pace: u32) -> Row {
    let table = Table::new();
    let tenants = Tenants::new(tenants);
    let plans = tenants.plans(requests, 50);
    nodes::make_tenants(&table, &plans, &tenants).await;
    let mut gates: Vec<Gate> = Vec::new();
    for _ in 0..nodes {
        gates.push(nodes::open(&table, &plans, pace).await);
    }
    table.take_bill();
    let got = Got::default();
    nodes::traffic(&gates, &tenants, requests, per_second, &mut Chance(1), &got).await;
    for gate in &gates {
        gate.flush_now().await.unwrap();
    }
    let name = format!("{nodes} nodes, {} tenants, {per_second}/s", tenants.len());
    let row = Row { name, requests, bill: table.take_bill(), got };
    for gate in gates {
        gate.close().await.unwrap();
    }
    row
}

/// Short-lived nodes, as on Lambda: `alive` at a time, each for a number of requests and then
/// closed, `in_all` one after the other.
async fn short_lived(in_all: usize, alive: usize, requests_each: u64, tenants: usize) -> Row {
    let table = Table::new();
    let tenants = Tenants::new(tenants);
    let requests = in_all as u64 * requests_each;
    let plans = tenants.plans(requests, 50);
    nodes::make_tenants(&table, &plans, &tenants).await;
    table.take_bill();
    let (mut gates, mut chance, got) = (VecDeque::new(), Chance(1), Got::default());
    for _ in 0..in_all {
        gates.push_back(nodes::open(&table, &plans, USUAL_PACE).await);
        if gates.len() > alive {
            gates.pop_front().unwrap().close().await.unwrap();
        }
        let now = gates.make_contiguous();
        nodes::traffic(now, &tenants, requests_each, 500, &mut chance, &got).await;
    }
    for gate in gates {
        gate.close().await.unwrap();
    }
    let name = format!("{in_all} writers, {alive} at once, {} tenants", tenants.len());
    Row { name, requests, bill: table.take_bill(), got }
}

/// Many concurrent nodes for one tenant, as on Lambda under a burst: all open, then each of them
/// serves a request in turn, `each` times.
async fn at_once(nodes: usize, each: u64) -> Row {
    let table = Table::new();
    let tenants = Tenants::new(1);
    let requests = nodes as u64 * each;
    let plans = tenants.plans(requests, 50);
    nodes::make_tenants(&table, &plans, &tenants).await;
    let mut gates = Vec::new();
    for _ in 0..nodes {
        gates.push(nodes::open_sandbox(&table, &plans, USUAL_PACE).await);
    }
    table.take_bill();
    let got = Got::default();
    for _ in 0..each {
        for gate in &gates {
            let gate = std::slice::from_ref(gate);
            nodes::traffic(gate, &tenants, 1, 1_000, &mut Chance(1), &got).await;
        }
    }
    let bill = table.take_bill();
    for gate in gates {
        gate.close().await.unwrap();
    }
    Row { name: format!("{nodes} writers at once, 1 tenant"), requests, bill, got }
}

/// Cost of nodes in an hour without calls, after a minute in which all tenants called.
async fn idle(nodes: usize, tenants: usize) -> Bill {
    let table = Table::new();
    let tenants = Tenants::new(tenants);
    let plans = tenants.plans(tenants.len() as u64 * 100, 50);
    nodes::make_tenants(&table, &plans, &tenants).await;
    let mut gates: Vec<Gate> = Vec::new();
    for _ in 0..nodes {
        gates.push(nodes::open(&table, &plans, USUAL_PACE).await);
    }
    let calls = tenants.len() as u64 * 10;
    nodes::traffic(&gates, &tenants, calls, calls / 60 + 1, &mut Chance(1), &Got::default()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    table.take_bill();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let bill = table.take_bill();
    for gate in gates {
        gate.close().await.unwrap();
    }
    bill
}

/// Cost of tenants that call every two minutes for an hour: each is idle, and compacted, between
/// two calls, and keeps its lease. Forgetting it after a minute instead would write and read more:
/// the figures of both are in `docs/cost.md`.
async fn returning(tenants: usize) -> Row {
    let table = Table::new();
    let tenants = Tenants::new(tenants);
    let requests = tenants.len() as u64 * 30;
    let plans = tenants.plans(requests, 50);
    nodes::make_tenants(&table, &plans, &tenants).await;
    let gate = nodes::open(&table, &plans, USUAL_PACE).await;
    table.take_bill();
    let got = Got::default();
    for _ in 0..30 {
        nodes::each_once(&gate, &tenants, &got).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    let name = format!("{} tenants, a call every 2 minutes", tenants.len());
    let row = Row { name, requests, bill: table.take_bill(), got };
    gate.close().await.unwrap();
    row
}

#[test]
fn units_for_a_million_requests() {
    println!("cost: {}", Row::HEAD);
    for tenants in [1, 100, 10_000] {
        for nodes in [1, 4] {
            if !is_asked_for(nodes, tenants) {
                continue;
            }
            let requests = match (is_full(), tenants) {
                (true, _) => 1_000_000,
                (false, 10_000) => continue,
                (false, _) => 50_000,
            };
            let row = run(steady(nodes, tenants, requests, 10_000, NO_PACE));
            row.print();
            row.check();
        }
    }
}

#[test]
fn units_where_little_is_asked() {
    println!("cost: {}", Row::HEAD);
    for nodes in [1, 4] {
        let (tenants, requests) = if is_full() { (10_000, 200_000) } else { (100, 2_000) };
        let row = run(steady(nodes, tenants, requests, 100, USUAL_PACE));
        row.print();
        row.check();
    }
    println!("cost: an idle hour             |   leases |  records |    other | read");
    for tenants in [1, 100, 10_000] {
        for nodes in [1, 4] {
            if !is_full() && tenants == 10_000 {
                continue;
            }
            let bill = run(idle(nodes, tenants));
            let [leases, records] = ["Q", "L"].map(|kind| bill.units(kind));
            let (other, read) = (bill.written() - leases - records, bill.read());
            let name = format!("{nodes} nodes, {tenants} tenants");
            println!("cost: {name:<24} | {leases:>8} | {records:>8} | {other:>8} | {read}");
        }
    }
}

#[test]
fn units_of_tenants_that_return() {
    println!("cost: {}", Row::HEAD);
    let row = run(returning(if is_full() { 10_000 } else { 100 }));
    row.print();
    row.check();
}

#[test]
fn units_of_a_thousand_short_lived_writers() {
    println!("cost: {}", Row::HEAD);
    let runs: &[(usize, usize, u64, usize)] = match is_full() {
        true => &[(1_000, 20, 200, 1), (1_000, 20, 200, 100)],
        false => &[(60, 10, 100, 10)],
    };
    for (in_all, alive, requests_each, tenants) in runs {
        let row = run(short_lived(*in_all, *alive, *requests_each, *tenants));
        row.print();
        row.check();
    }
}

/// With any number of writers, a lease costs little: a pool with many has sub-pools. Beside it the
/// same without.
#[test]
fn units_of_many_writers_at_once() {
    println!("cost: {}", Row::HEAD);
    for nodes in if is_full() { vec![20, 100, 1_000] } else { vec![20, 100] } {
        for (split, name) in [(Some((usize::MAX, 1)), "one item"), (None, "sub-pools")] {
            split_pools(split);
            let row = run(at_once(nodes, 10));
            split_pools(None);
            row.print();
            let Bill { largest_pool, hottest_pool, .. } = row.bill;
            let of_each = row.bill.units("Q") as f64 / nodes as f64;
            println!(
                "cost: {name}: {of_each:.1} units for the leases of each, {} read, largest pool \
                 {largest_pool} B, hottest {hottest_pool} units/s",
                row.bill.reads.get("Q").unwrap_or(&0)
            );
            let is_few = of_each <= 10.0 && largest_pool < 4_096 && hottest_pool < MOST_UNITS;
            assert!(is_few || split.is_some(), "{of_each} units for ten requests");
            assert_eq!(row.got.admitted.load(Ordering::Relaxed), row.requests);
        }
    }
}

/// `flush.max-write-units` delays records, and no request waits for it. Records of ceilings that
/// requests wait for pass, and a start is full of them: so the check begins later. The demand is
/// one that the pace can hold: whatever waits for 5 s is written at any cost.
#[test]
fn records_keep_the_pace_that_was_asked_for() {
    let (tenants, requests) = if is_full() { (2_000, 400_000) } else { (500, 150_000) };
    println!("cost: {}", Row::HEAD);
    for pace in [NO_PACE, USUAL_PACE] {
        let row = run(steady(1, tenants, requests, 10_000, pace));
        row.print();
        row.check();
        let by_second = &row.bill.records;
        let (first, last) = (by_second.first_key_value(), by_second.last_key_value());
        let (from, to) = (first.map_or(0, |f| f.0 + START_SECONDS), last.map_or(0, |l| *l.0));
        let all: u64 = by_second.range(from..).map(|(_, units)| units).sum();
        let worst = by_second.range(from..).map(|(_, units)| units).max().unwrap_or(&0);
        let seconds = to - from + 1;
        println!(
            "cost: at most {pace} units a second: {all} by records in {seconds} s, {worst} in the \
             worst of them"
        );
        // A flush is written as a whole: one may fall on either end of the checked time.
        let allowed = (seconds + 1) * u64::from(pace) + 2 * worst;
        assert!(all <= allowed, "{all} of {allowed}");
    }
}
