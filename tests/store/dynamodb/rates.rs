//! A rate over gates on Amazon's DynamoDB Local, in real time: the total of four of them in any ten
//! seconds, once they know of one another.
//!
//!     RATES_SECONDS=45 cargo test --test store rates -- --nocapture    # 12 s without it
//!
//! That rates follow demand, joins and deaths is measured in simulated time, in
//! `src/rates/fleet_tests.rs` and `tests/gate/shared_rates.rs`; here only the store is real.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallygate::store::DynamoDb;
use tallygate::{Ask, Gate, testing};
use test_support::dynamodb::client;
use test_support::skips;
use tokio::time::Instant;

const NODES: usize = 4;
const RATE: u64 = 1_000;

/// Time for shares to settle: three slots from equal parts to equal parts; eight until one node has
/// what three leave it, because it takes a fifth more than its demand in each.
const EVEN: Duration = Duration::from_secs(16);
const SKEWED: Duration = Duration::from_secs(45);

/// In percent of a share of the rate: the bound that a gate prints without churn, and the minimum
/// utilization.
const AT_MOST: u64 = 106;
const AT_LEAST: u64 = 95;

async fn open(endpoint: &str) -> Gate {
    let plans = format!("default-plan = \"free\"\n[plan.free]\nrate.default = \"{RATE}/s\"\n");
    let store = DynamoDb::new(client(endpoint), "rates");
    testing::builder(&plans).store(store).open().await.unwrap()
}

/// Asks a gate `per_second` times a second, and counts what it admits by tenths of a second.
async fn call(gate: Gate, per_second: u64, begun: Instant, tenths: Arc<Vec<AtomicU64>>) {
    let tenant = gate.tenant("acme").await.unwrap();
    let mut asked = 0;
    loop {
        let tenth = begun.elapsed().as_millis() as usize / 100;
        let Some(count) = tenths.get(tenth) else { return };
        while asked < begun.elapsed().as_millis() as u64 * per_second / 1_000 {
            asked += 1;
            if let Ok(permit) = gate.admit(Ask::new(&tenant, "call")).await {
                permit.settle();
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gates_admit_one_rate() {
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("rates on DynamoDB Local", server) else { return };
    DynamoDb::create_table(&client(server.endpoint()), "rates", None).await.unwrap();
    let seconds = std::env::var("RATES_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let loads = [("even", [25; NODES], EVEN), ("skewed", [85, 5, 5, 5], SKEWED)];
    // The second takes a minute.
    for (name, shares, settling) in loads.into_iter().take(1 + usize::from(seconds >= 30)) {
        let mut gates = Vec::new();
        for _ in 0..NODES {
            gates.push(open(server.endpoint()).await);
        }
        let all = settling + Duration::from_secs(seconds);
        let tenths: Vec<AtomicU64> = (0..all.as_millis() / 100).map(|_| 0.into()).collect();
        let (tenths, begun) = (Arc::new(tenths), Instant::now());
        let calls = gates.iter().zip(shares).map(|(gate, share)| {
            // One and a half times the rate.
            tokio::spawn(call(gate.clone(), RATE * 3 / 2 * share / 100, begun, tenths.clone()))
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let counts: Vec<u64> = tenths.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let settled = &counts[settling.as_millis() as usize / 100..];
        let windows = settled.windows(100).map(|window| window.iter().sum::<u64>());
        let (most, least) = windows.fold((0, u64::MAX), |(a, b), n| (a.max(n), b.min(n)));
        let percent = |n: u64| n * 100 / (RATE * 10);
        println!("rate: {name}: in 10 s from {least} to {most} of {}", RATE * 10);
        assert!(percent(most) <= AT_MOST, "{name}: {most}");
        assert!(percent(least) >= AT_LEAST, "{name}: {least}");
        for gate in gates {
            gate.close().await.unwrap();
        }
    }
}
